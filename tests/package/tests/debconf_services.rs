//! Which services are started at boot: systemd's links are the truth, Debian's record of them is kept, and what was
//! answered is all that changes.

use buildbot_conda_package_tests::{DebianRoot, Release, on_each_release};

const UNITS: &str = "/etc/systemd/system";
const LINKS: &str = "/etc/systemd/system/multi-user.target.wants";
const RECORD: &str = "/var/lib/systemd/deb-systemd-helper-enabled";

on_each_release! {
    what_systemctl_says_is_read_back,
    an_answer_enables_and_disables_and_is_recorded,
    an_administrators_links_masks_and_presets_are_respected,
    an_interrupted_first_installation_still_knows_the_answer,
}

/// Answers the question about services as a person would, and lets postinst act on it.
fn answer(root: &DebianRoot, services: &str) {
    // The front end that reads its answers from an editor: here one that writes them, as they are shown.
    let shown = services
        .replace("master", "Buildbot master")
        .replace("worker", "Buildbot worker");
    root.write(
        "/root/editor",
        &format!(
            "#!/bin/sh\nsed -i 's|^buildbot-conda/services=.*|buildbot-conda/services=\"{shown}\"|' \"$1\"\n"
        ),
    );
    root.must(
        "chmod +x /root/editor\n\
         DEBIAN_FRONTEND=editor EDITOR=/root/editor dpkg-reconfigure --priority=medium buildbot-conda",
    );
}

fn enabled(root: &DebianRoot) -> Vec<&'static str> {
    ["master", "worker"]
        .into_iter()
        .filter(|role| {
            let unit = format!("buildbot-{role}.service");
            let said = root.run(&format!("systemctl is-enabled {unit}")).stdout;
            let linked = root.has(&format!("{LINKS}/{unit}"));
            assert_eq!(said == "enabled\n", linked, "{unit} is {said}");
            linked
        })
        .collect()
}

fn what_systemctl_says_is_read_back(release: Release) {
    let root = DebianRoot::installed(release);
    for (command, value) in [
        ("disable buildbot-worker", "master"),
        ("disable buildbot-master", ""),
        ("enable buildbot-worker", "worker"),
        ("mask buildbot-worker", ""),
        ("unmask buildbot-worker", "worker"),
        ("enable buildbot-master", "master, worker"),
    ] {
        root.must(&format!("systemctl {command}"));
        let links = root.must(&format!("ls -l {LINKS} {UNITS}"));
        root.must("dpkg-reconfigure buildbot-conda");
        root.install();
        assert_eq!(root.answer("services"), value, "after {command}");
        assert_eq!(root.must(&format!("ls -l {LINKS} {UNITS}")), links);
    }
}

fn an_answer_enables_and_disables_and_is_recorded(release: Release) {
    let root = DebianRoot::installed(release);
    let record = format!("cd {RECORD}; find . -name 'buildbot-*' | sort; cat buildbot-*.dsh-also");
    let fresh = root.must(&record);
    for (services, expected) in [
        ("master", &["master"][..]),
        ("", &[]),
        ("worker", &["worker"]),
        ("master, worker", &["master", "worker"]),
    ] {
        answer(&root, services);
        assert_eq!(enabled(&root), expected, "{services}");
        root.install();
        assert_eq!(
            enabled(&root),
            expected,
            "{services}, after a reinstallation"
        );
    }
    // All is as after a first installation, so that a later version enables what it adds.
    assert_eq!(root.must(&record), fresh);
    root.must("dpkg --purge buildbot-conda");
    assert_eq!(
        root.run(&format!("find {RECORD} -name 'buildbot-*'"))
            .stdout,
        ""
    );
}

fn an_administrators_links_masks_and_presets_are_respected(release: Release) {
    let installed = DebianRoot::installed(release);

    // Started by another target than the package's.
    let root = installed.fork();
    root.must(&format!(
        "systemctl disable buildbot-worker\n\
         systemctl add-wants rescue.target buildbot-worker.service\n\
         ls {UNITS}/rescue.target.wants/buildbot-worker.service"
    ));
    root.install();
    assert_eq!(root.answer("services"), "master, worker");
    assert!(!root.has(&format!("{LINKS}/buildbot-worker.service")));

    // A mask outlives the answer that the unit is wanted.
    let root = installed.fork();
    root.must("systemctl disable buildbot-worker; systemctl mask buildbot-worker");
    answer(&root, "master, worker");
    assert_eq!(
        root.must(&format!("readlink {UNITS}/buildbot-worker.service")),
        "/dev/null\n"
    );

    // A unit written by hand belongs to the administrator, whatever the answers are.
    let root = installed.fork();
    let own = format!("{UNITS}/buildbot-worker.service");
    let text = "[Service]\nExecStart=/home/bb/w.sh\n[Install]\nWantedBy=multi-user.target\n";
    root.write(&own, text);
    answer(&root, "master");
    assert_eq!(root.text(&own), text);
    assert!(root.has(&format!("{LINKS}/buildbot-worker.service")));

    // An existing preset decides what a first installation enables.
    let root = DebianRoot::new(release);
    root.write(
        "/etc/systemd/system-preset/50-site.preset",
        "disable buildbot-worker.service\n",
    );
    root.install();
    assert_eq!(enabled(&root), ["master"]);
    root.install();
    assert_eq!(enabled(&root), ["master"]);
}

fn an_interrupted_first_installation_still_knows_the_answer(release: Release) {
    let root = DebianRoot::new(release);
    root.must(
        "echo 'buildbot-conda buildbot-conda/services multiselect worker' | debconf-set-selections",
    );
    root.must("dpkg --unpack /buildbot-conda.deb");
    // Interrupted when the file exists already and no unit is enabled.
    let helper = "/usr/bin/deb-systemd-helper";
    root.must(&format!(
        "mv {helper} /root/kept; printf '#!/bin/sh\\nkill -KILL $PPID\\n' >{helper}; chmod +x {helper}"
    ));
    let outcome = root.run("dpkg --configure buildbot-conda");
    assert_ne!(outcome.status, 0);
    assert!(root.has("/etc/buildbot-conda/config.toml"));
    assert!(enabled(&root).is_empty());
    root.must(&format!("mv /root/kept {helper}; dpkg --configure -a"));
    assert_eq!(enabled(&root), ["worker"]);
}
