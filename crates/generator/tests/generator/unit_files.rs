//! Unit files that hide ours: an administrator's own get no drop-in.

use std::fs;

use crate::{HAND_MADE, Root};

const CONFIG: &str = "[master]\n[worker]\n[\"worker@a\"]\ndirectory = \"/srv/a\"\n[\"worker@b\"]\ndirectory = \"/srv/b\"\n";
const ALL: [&str; 4] = ["master", "worker", "worker@a", "worker@b"];
const OURS: &str = "[Service]\nExecStart=/usr/libexec/buildbot-conda/launcher worker %i\n";

#[test]
fn a_hand_made_unit_gets_no_drop_in_wherever_it_hides_ours() {
    for directory in [
        "etc/systemd/system.control",
        "run/systemd/system.control",
        "run/systemd/transient",
        "early",
        "etc/systemd/system",
        "etc/systemd/system.attached",
        "run/systemd/system",
        "run/systemd/system.attached",
        "usr/local/lib/systemd/system",
    ] {
        let root = Root::new(CONFIG);
        let unit = format!("{directory}/buildbot-master.service");
        root.write(&unit, HAND_MADE);
        let message = format!("/{unit}: not changed, because it does not start the launcher\n");
        assert_eq!(root.run(), message);
        assert_eq!(
            root.instances(),
            ["worker", "worker@a", "worker@b"],
            "{directory}"
        );
    }
}

/// The command line tests its verbs with the same shapes.
#[test]
fn a_unit_file_gets_a_drop_in_when_it_starts_the_launcher() {
    let shapes = include_str!("../../../../tests/fixtures/unit-shapes.txt");
    for shape in shapes.split("\n== ").skip(1) {
        let (name, text) = shape.split_once('\n').unwrap();
        let root = Root::new("[master]\n");
        root.write("etc/systemd/system/buildbot-master.service", text);
        root.run();
        assert_eq!(
            !root.instances().is_empty(),
            name.starts_with("ours: "),
            "{name}"
        );
    }
}

#[test]
fn a_drop_in_or_a_file_over_the_packages_may_start_something_else() {
    let theirs = "[Service]\nExecStart=\nExecStart=/home/bb/start.sh\n";
    for path in [
        "etc/systemd/system/buildbot-worker@.service.d/x.conf",
        "usr/lib/systemd/system/buildbot-worker@.service",
    ] {
        let root = Root::new(CONFIG);
        root.write("usr/lib/systemd/system/buildbot-worker@.service", OURS);
        root.write(path, theirs);
        let message = format!("/{path}: not changed, because it does not start the launcher\n");
        assert_eq!(root.run(), message.repeat(2));
        assert_eq!(root.instances(), ["master", "worker"]);
    }
}

#[test]
fn units_that_hide_nothing_are_ignored() {
    let root = Root::new(CONFIG);
    for path in [
        "etc/systemd/user/buildbot-master.service",
        "etc/systemd/system/buildbot-master@x.service",
        "etc/systemd/system/buildbot-master.timer",
        "etc/systemd/system/buildbot.service",
        "etc/systemd/system/buildbot-master.service.d/override.conf",
        "etc/systemd/system/buildbot-worker.service/README",
    ] {
        root.write(path, HAND_MADE);
    }
    assert_eq!(root.run(), "");
    assert_eq!(root.instances(), ALL);
}

#[test]
fn a_hand_made_template_counts_for_named_instances() {
    let root = Root::new(CONFIG);
    root.write("etc/systemd/system/buildbot-worker@.service", HAND_MADE);
    root.run();
    assert_eq!(root.instances(), ["master", "worker"]);
}

#[test]
fn a_unit_for_the_very_name_comes_before_a_template() {
    let root = Root::new(CONFIG);
    root.write("etc/systemd/system/buildbot-worker@.service", HAND_MADE);
    root.write(
        "usr/local/lib/systemd/system/buildbot-worker@a.service",
        OURS,
    );
    root.run();
    assert_eq!(root.instances(), ["master", "worker", "worker@a"]);
    let root = Root::new(CONFIG);
    root.write("etc/systemd/system/buildbot-worker@a.service", HAND_MADE);
    root.run();
    assert_eq!(root.instances(), ["master", "worker", "worker@b"]);
}

#[test]
fn the_first_directory_decides() {
    let root = Root::new(CONFIG);
    root.write("etc/systemd/system/buildbot-worker.service", OURS);
    root.write("run/systemd/system/buildbot-worker.service", HAND_MADE);
    assert_eq!(root.run(), "");
    assert_eq!(root.instances(), ALL);
}

#[test]
fn a_copy_that_starts_our_launcher_gets_its_drop_in() {
    let root = Root::new(CONFIG);
    root.write("etc/systemd/system/buildbot-worker@.service", OURS);
    assert_eq!(root.run(), "");
    assert_eq!(root.instances(), ALL);
}

#[test]
fn links_are_judged_by_what_they_lead_to() {
    let root = Root::new(CONFIG);
    root.write("usr/lib/systemd/system/buildbot-worker@.service", OURS);
    root.write("srv/units/master.service", HAND_MADE);
    let system = "etc/systemd/system";
    root.link(
        &format!("{system}/buildbot-master.service"),
        "/srv/units/master.service",
    );
    let ours = "/usr/lib/systemd/system/buildbot-worker@.service";
    root.link(&format!("{system}/buildbot-worker@a.service"), ours);
    root.link(
        &format!("{system}/buildbot-worker@b.service"),
        "buildbot-worker@a.service",
    );
    root.run();
    assert_eq!(root.instances(), ["worker", "worker@a", "worker@b"]);
}

#[test]
fn a_masked_unit_needs_nothing() {
    let root = Root::new(CONFIG);
    root.link("etc/systemd/system/buildbot-master.service", "/dev/null");
    root.write("run/systemd/system/buildbot-worker@a.service", "");
    assert_eq!(root.run(), "");
    assert_eq!(root.instances(), ["worker", "worker@b"]);
}

#[test]
fn a_link_to_nowhere_does_no_harm() {
    let root = Root::new(CONFIG);
    root.link(
        "etc/systemd/system/buildbot-master.service",
        "/srv/gone.service",
    );
    assert_eq!(root.run(), "");
    assert_eq!(root.instances(), ALL);
}

#[test]
fn a_unit_that_cannot_be_read_blocks_nothing_and_is_left_alone() {
    let root = Root::new(CONFIG);
    root.fifo("srv/fifo");
    let system = "etc/systemd/system";
    root.link(&format!("{system}/buildbot-master.service"), "/srv/fifo");
    root.link(
        &format!("{system}/buildbot-worker.service"),
        "buildbot-worker.service",
    );
    fs::create_dir(root.path("srv/directory")).unwrap();
    root.link(
        &format!("{system}/buildbot-worker@a.service"),
        "/srv/directory",
    );
    root.run();
    assert_eq!(root.instances(), ["worker@b"]);
}
