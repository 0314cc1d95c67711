//! Which unit file runs and whether it is ours: every verb gives the same answer.

use crate::house::Host;

const CONFIGURED: &str = "[master]\n[worker]\n";
const PATH: &str = "etc/systemd/system/buildbot-master.service";
const OURS: &str = "[Service]\nExecStart=/usr/libexec/buildbot-conda/launcher master\n";
const SHAPES: &str = include_str!("../../../../tests/fixtures/unit-shapes.txt");

/// A host with the package's unit and the files given.
fn host(files: &[(&str, &str)]) -> Host {
    let host = Host::configured(CONFIGURED);
    host.write("usr/lib/systemd/system/buildbot-master.service", OURS);
    for (path, text) in files {
        host.write(path, text);
    }
    host
}

fn said(host: &Host, line: &str) -> String {
    let said = host.run_line(line);
    format!("{}{}", said.stdout, said.stderr)
}

#[test]
fn every_verb_agrees_about_every_shape_of_a_unit_file() {
    let mut count = 0;
    for shape in SHAPES.split("\n== ").skip(1) {
        let (name, text) = shape.split_once('\n').unwrap();
        let is_ours = name.starts_with("ours: ");
        let host = host(&[(PATH, text)]);
        let word = if is_ours { "copy" } else { "hand-made" };
        let unit_file = said(&host, "service unit-file buildbot-master.service");
        assert_eq!(
            unit_file,
            format!("buildbot-master.service {word} /{PATH}\n"),
            "{name}"
        );
        let examined = said(&host, "doctor --only unit-file");
        let hides = format!("`/{PATH}` overrides the package's unit");
        let copy = format!("`/{PATH}` replaces the package's unit");
        assert_eq!(examined.contains(&hides), !is_ours, "{name}: {examined}");
        assert_eq!(examined.contains(&copy), is_ours, "{name}: {examined}");
        // It would delete the administrator's unit.
        assert!(!examined.contains("revert"), "{name}: {examined}");
        let adopted = said(&host, "adopt --dry-run");
        assert_eq!(
            adopted.contains("nothing to adopt"),
            is_ours,
            "{name}: {adopted}"
        );
        for verb in ["create master --dry-run", "remove master --dry-run"] {
            let answer = said(&host, verb);
            assert_eq!(
                answer.contains(&hides),
                !is_ours,
                "{name}: {verb}: {answer}"
            );
        }
        count += 1;
    }
    assert_eq!(count, 13);
}

#[test]
fn every_verb_agrees_about_a_drop_in_that_replaces_the_command() {
    let path = "etc/systemd/system/buildbot-master.service.d/wrap.conf";
    for (command, word) in [
        (
            "/usr/bin/nice /usr/libexec/buildbot-conda/launcher master",
            "ours",
        ),
        ("/home/bb/start.sh", "replaced"),
    ] {
        let host = host(&[(
            path,
            &format!("[Service]\nExecStart=\nExecStart={command}\n"),
        )]);
        let is_ours = word == "ours";
        let unit_file = said(&host, "service unit-file");
        let path_shown = if is_ours {
            String::new()
        } else {
            format!(" /{path}")
        };
        assert_eq!(
            unit_file,
            format!(
                "buildbot-master.service {word}{path_shown}\nbuildbot-worker.service missing\n"
            )
        );
        let examined = said(&host, "doctor --only unit-drop-ins");
        let changes = format!("`/{path}` changes `ExecStart`, which the service needs");
        assert_eq!(examined.contains(&changes), !is_ours, "{examined}");
        let replaces = format!("`/{path}` changes the command of the package's unit");
        for verb in ["create master --dry-run", "remove master --dry-run"] {
            let answer = said(&host, verb);
            assert_eq!(answer.contains(&replaces), !is_ours, "{verb}: {answer}");
        }
    }
}

#[test]
fn a_hand_made_unit_in_another_directory_is_no_dead_end() {
    let path = "usr/local/lib/systemd/system/buildbot-master.service";
    let host = host(&[(path, "[Service]\nExecStart=/home/bb/start.sh\n")]);
    let examined = said(&host, "doctor --only unit-file");
    let move_it = format!("mv --no-clobber /{path} /etc/systemd/system\n");
    assert!(examined.contains(&move_it), "{examined}");
    assert!(
        examined.contains("buildbot-conda adopt master\n"),
        "{examined}"
    );
    let adopted = said(&host, "adopt --dry-run");
    let note = format!(
        "`/{path}` is not in `/etc/systemd/system`: `mv --no-clobber /{path} /etc/systemd/system/` makes it available \
         to `adopt`"
    );
    assert!(adopted.contains(&note), "{adopted}");
    assert_eq!(
        said(&host, "service unit-file"),
        format!("buildbot-master.service hand-made /{path}\nbuildbot-worker.service missing\n")
    );
}

#[test]
fn a_mask_is_named_with_what_takes_it_away() {
    let mask = "etc/systemd/system/buildbot-master.service";
    let host = host(&[]);
    host.link(mask, "/dev/null");
    let unit_file = said(&host, "service unit-file buildbot-master.service");
    assert_eq!(
        unit_file,
        format!("buildbot-master.service masked /{mask}\n")
    );
    let examined = said(&host, "doctor --only unit-masked");
    assert!(
        examined.contains(&format!("    rm /{mask}\n")),
        "{examined}"
    );
    assert!(said(&host, "adopt --dry-run").contains("nothing to adopt"));
}
