//! The maintainer scripts and debconf templates as texts; `lifecycle.rs` and `debconf.rs` test their effects.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use buildbot_conda_package_tests::Package;

const SCRIPTS: [&str; 5] = ["config", "postinst", "postrm", "preinst", "prerm"];

#[test]
fn control_archive_has_exactly_these_members() {
    let package = Package::open();
    let names: BTreeSet<String> = fs::read_dir(package.tree().join("DEBIAN"))
        .expect("the control archive is unpacked")
        .map(|entry| {
            entry
                .expect("it can be listed")
                .file_name()
                .into_string()
                .expect("ASCII")
        })
        .collect();
    let expected = ["conffiles", "control", "md5sums", "templates"];
    let expected: BTreeSet<String> = SCRIPTS
        .into_iter()
        .chain(expected)
        .map(str::to_owned)
        .collect();
    assert_eq!(names, expected);
}

#[test]
fn scripts_are_executable_posix_shell_that_stops_at_errors() {
    let package = Package::open();
    for script in SCRIPTS {
        let path = package.tree().join("DEBIAN").join(script);
        let text = package.text(&format!("DEBIAN/{script}"));
        assert!(text.starts_with("#!/bin/sh\n"), "{script}");
        assert!(text.contains("\nset -e\n"), "{script}");
        assert!(!text.contains("#DEBHELPER#"), "{script}");
        let mode = fs::metadata(&path)
            .expect("it is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o755, "{script}");
        let check = Command::new("dash")
            .arg("-n")
            .arg(&path)
            .output()
            .expect("dash runs");
        assert!(check.status.success(), "{script}: {check:?}");
    }
}

#[test]
fn shellcheck_has_nothing_to_say() {
    let package = Package::open();
    for script in SCRIPTS {
        let check = Command::new("shellcheck")
            // debconf's library is not part of the package.
            .args(["--shell=sh", "--exclude=SC1091"])
            .arg(package.tree().join("DEBIAN").join(script))
            .output()
            .expect("shellcheck starts; `cargo xtask test` installs it");
        assert!(
            check.status.success(),
            "{script}: {}",
            String::from_utf8_lossy(&check.stdout)
        );
    }
}

#[test]
fn every_question_is_the_packages_own_and_is_purged() {
    let package = Package::open();
    let templates = package.text("DEBIAN/templates");
    let names: Vec<&str> = templates
        .lines()
        .filter_map(|line| line.strip_prefix("Template: "))
        .collect();
    assert_eq!(
        names,
        [
            "buildbot-conda/conda-path",
            "buildbot-conda/conda-env",
            "buildbot-conda/services",
            "buildbot-conda/user",
            "buildbot-conda/master-directory",
            "buildbot-conda/worker-directory",
            "buildbot-conda/invalid-path",
            "buildbot-conda/invalid-env",
            "buildbot-conda/invalid-user",
            "buildbot-conda/invalid-directory",
        ]
    );
    assert!(package.text("DEBIAN/postrm").contains("db_purge"));
}
