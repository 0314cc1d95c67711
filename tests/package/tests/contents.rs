//! The files of the package, their owners, and the content of its control file.

use std::collections::BTreeSet;
use std::process::Command;

use buildbot_conda_package_tests::Package;

/// Mode and path of every file, but for the manual pages of verbs, of which `documents.rs` knows, and [`DOCUMENTS`].
const FILES: [(&str, &str); 81] = [
    ("-rw-r--r--", "/etc/needrestart/conf.d/buildbot-conda.conf"),
    ("-rwxr-xr-x", "/usr/bin/buildbot-conda"),
    (
        "-rwxr-xr-x",
        "/usr/lib/systemd/system-generators/buildbot-conda-generator",
    ),
    (
        "-rw-r--r--",
        "/usr/lib/systemd/system/buildbot-backup@.service",
    ),
    (
        "-rw-r--r--",
        "/usr/lib/systemd/system/buildbot-backup@.timer",
    ),
    (
        "-rw-r--r--",
        "/usr/lib/systemd/system/buildbot-conda-metrics.socket",
    ),
    (
        "-rw-r--r--",
        "/usr/lib/systemd/system/buildbot-conda-metrics@.service",
    ),
    (
        "-rw-r--r--",
        "/usr/lib/systemd/system/buildbot-conda-notify@.service",
    ),
    (
        "-rw-r--r--",
        "/usr/lib/systemd/system/buildbot-conda-upkeep.service",
    ),
    (
        "-rw-r--r--",
        "/usr/lib/systemd/system/buildbot-conda-upkeep.timer",
    ),
    (
        "-rw-r--r--",
        "/usr/lib/systemd/system/buildbot-master.service",
    ),
    (
        "-rw-r--r--",
        "/usr/lib/systemd/system/buildbot-master@.service",
    ),
    (
        "-rw-r--r--",
        "/usr/lib/systemd/system/buildbot-worker.service",
    ),
    (
        "-rw-r--r--",
        "/usr/lib/systemd/system/buildbot-worker@.service",
    ),
    (
        "-rw-r--r--",
        "/usr/libexec/buildbot-conda/buildbot_conda_runner/__init__.py",
    ),
    (
        "-rw-r--r--",
        "/usr/libexec/buildbot-conda/buildbot_conda_runner/answers.py",
    ),
    (
        "-rw-r--r--",
        "/usr/libexec/buildbot-conda/buildbot_conda_runner/arguments.py",
    ),
    (
        "-rw-r--r--",
        "/usr/libexec/buildbot-conda/buildbot_conda_runner/attached.py",
    ),
    (
        "-rw-r--r--",
        "/usr/libexec/buildbot-conda/buildbot_conda_runner/attachment.py",
    ),
    (
        "-rw-r--r--",
        "/usr/libexec/buildbot-conda/buildbot_conda_runner/audit.py",
    ),
    (
        "-rw-r--r--",
        "/usr/libexec/buildbot-conda/buildbot_conda_runner/causes.py",
    ),
    (
        "-rw-r--r--",
        "/usr/libexec/buildbot-conda/buildbot_conda_runner/credentials.py",
    ),
    (
        "-rw-r--r--",
        "/usr/libexec/buildbot-conda/buildbot_conda_runner/database.py",
    ),
    (
        "-rw-r--r--",
        "/usr/libexec/buildbot-conda/buildbot_conda_runner/door.py",
    ),
    (
        "-rw-r--r--",
        "/usr/libexec/buildbot-conda/buildbot_conda_runner/gauges.py",
    ),
    (
        "-rw-r--r--",
        "/usr/libexec/buildbot-conda/buildbot_conda_runner/handover.py",
    ),
    (
        "-rw-r--r--",
        "/usr/libexec/buildbot-conda/buildbot_conda_runner/holders.py",
    ),
    (
        "-rw-r--r--",
        "/usr/libexec/buildbot-conda/buildbot_conda_runner/imports.py",
    ),
    (
        "-rw-r--r--",
        "/usr/libexec/buildbot-conda/buildbot_conda_runner/journal.py",
    ),
    (
        "-rw-r--r--",
        "/usr/libexec/buildbot-conda/buildbot_conda_runner/liveness.py",
    ),
    (
        "-rw-r--r--",
        "/usr/libexec/buildbot-conda/buildbot_conda_runner/lock.py",
    ),
    (
        "-rw-r--r--",
        "/usr/libexec/buildbot-conda/buildbot_conda_runner/log.py",
    ),
    (
        "-rw-r--r--",
        "/usr/libexec/buildbot-conda/buildbot_conda_runner/master.py",
    ),
    (
        "-rw-r--r--",
        "/usr/libexec/buildbot-conda/buildbot_conda_runner/names.py",
    ),
    (
        "-rw-r--r--",
        "/usr/libexec/buildbot-conda/buildbot_conda_runner/naming.py",
    ),
    (
        "-rw-r--r--",
        "/usr/libexec/buildbot-conda/buildbot_conda_runner/outage.py",
    ),
    (
        "-rw-r--r--",
        "/usr/libexec/buildbot-conda/buildbot_conda_runner/passing.py",
    ),
    (
        "-rw-r--r--",
        "/usr/libexec/buildbot-conda/buildbot_conda_runner/reasons.py",
    ),
    (
        "-rw-r--r--",
        "/usr/libexec/buildbot-conda/buildbot_conda_runner/reload.py",
    ),
    (
        "-rw-r--r--",
        "/usr/libexec/buildbot-conda/buildbot_conda_runner/report.py",
    ),
    (
        "-rw-r--r--",
        "/usr/libexec/buildbot-conda/buildbot_conda_runner/role.py",
    ),
    (
        "-rw-r--r--",
        "/usr/libexec/buildbot-conda/buildbot_conda_runner/router.py",
    ),
    (
        "-rw-r--r--",
        "/usr/libexec/buildbot-conda/buildbot_conda_runner/runner.py",
    ),
    (
        "-rw-r--r--",
        "/usr/libexec/buildbot-conda/buildbot_conda_runner/serving.py",
    ),
    (
        "-rw-r--r--",
        "/usr/libexec/buildbot-conda/buildbot_conda_runner/shortcuts.py",
    ),
    (
        "-rw-r--r--",
        "/usr/libexec/buildbot-conda/buildbot_conda_runner/standby.py",
    ),
    (
        "-rw-r--r--",
        "/usr/libexec/buildbot-conda/buildbot_conda_runner/tac.py",
    ),
    (
        "-rw-r--r--",
        "/usr/libexec/buildbot-conda/buildbot_conda_runner/siblings.py",
    ),
    (
        "-rw-r--r--",
        "/usr/libexec/buildbot-conda/buildbot_conda_runner/text.py",
    ),
    (
        "-rw-r--r--",
        "/usr/libexec/buildbot-conda/buildbot_conda_runner/tls.py",
    ),
    (
        "-rw-r--r--",
        "/usr/libexec/buildbot-conda/buildbot_conda_runner/watching.py",
    ),
    (
        "-rw-r--r--",
        "/usr/libexec/buildbot-conda/buildbot_conda_runner/worker.py",
    ),
    ("-rwxr-xr-x", "/usr/libexec/buildbot-conda/launcher"),
    ("-rw-r--r--", "/usr/libexec/buildbot-conda/runner.py"),
    (
        "-rw-r--r--",
        "/usr/share/bash-completion/completions/buildbot-conda",
    ),
    ("-rw-r--r--", "/usr/share/buildbot-conda/config.toml"),
    ("-rw-r--r--", "/usr/share/buildbot-conda/environment.yml"),
    (
        "-rw-r--r--",
        "/usr/share/buildbot-conda/grafana/dashboard.json",
    ),
    ("-rw-r--r--", "/usr/share/buildbot-conda/sbom.cdx.json"),
    (
        "-rw-r--r--",
        "/usr/share/buildbot-conda/prometheus/rules.yml",
    ),
    ("-rw-r--r--", "/usr/share/doc/buildbot-conda/README.Debian"),
    ("-rw-r--r--", "/usr/share/doc/buildbot-conda/README.md"),
    ("-rw-r--r--", "/usr/share/doc/buildbot-conda/changelog.gz"),
    ("-rw-r--r--", "/usr/share/doc/buildbot-conda/copyright"),
    (
        "-rw-r--r--",
        "/usr/share/fish/vendor_completions.d/buildbot-conda.fish",
    ),
    ("-rw-r--r--", "/usr/share/lintian/overrides/buildbot-conda"),
    ("-rw-r--r--", "/usr/share/man/man1/buildbot-conda.1.gz"),
    (
        "-rw-r--r--",
        "/usr/share/man/man5/buildbot-conda-network.toml.5.gz",
    ),
    (
        "-rw-r--r--",
        "/usr/share/man/man5/buildbot-conda-status.json.5.gz",
    ),
    ("-rw-r--r--", "/usr/share/man/man5/buildbot-conda.toml.5.gz"),
    (
        "-rw-r--r--",
        "/usr/share/man/man8/buildbot-backup@.service.8.gz",
    ),
    (
        "-rw-r--r--",
        "/usr/share/man/man8/buildbot-backup@.timer.8.gz",
    ),
    (
        "-rw-r--r--",
        "/usr/share/man/man8/buildbot-conda-generator.8.gz",
    ),
    (
        "-rw-r--r--",
        "/usr/share/man/man8/buildbot-conda-launcher.8.gz",
    ),
    (
        "-rw-r--r--",
        "/usr/share/man/man8/buildbot-conda-runner.8.gz",
    ),
    (
        "-rw-r--r--",
        "/usr/share/man/man8/buildbot-master.service.8.gz",
    ),
    (
        "-rw-r--r--",
        "/usr/share/man/man8/buildbot-master@.service.8.gz",
    ),
    (
        "-rw-r--r--",
        "/usr/share/man/man8/buildbot-worker.service.8.gz",
    ),
    (
        "-rw-r--r--",
        "/usr/share/man/man8/buildbot-worker@.service.8.gz",
    ),
    (
        "-rw-r--r--",
        "/usr/share/zsh/vendor-completions/_buildbot-conda",
    ),
    ("drwxr-xr-x", "/"),
];

/// Where the documents are that the README leads to.
const DOCUMENTS: &str = "/usr/share/doc/buildbot-conda/docs/";

#[test]
fn the_readme_leads_to_documents_and_pictures_that_are_in_the_package() {
    let package = Package::open();
    let contents = package.contents();
    let readme = package.text("/usr/share/doc/buildbot-conda/README.md");
    let links = readme.split("](docs/").skip(1);
    let paths: BTreeSet<String> = links
        .filter_map(|rest| rest.split([')', '#']).next())
        .map(|path| format!("{DOCUMENTS}{path}"))
        .collect();
    assert!(paths.len() > 5, "{paths:?}");
    for path in paths {
        let entry = contents.get(&path).unwrap_or_else(|| panic!("no `{path}`"));
        assert_eq!(entry.mode, "-rw-r--r--", "{path}");
    }
}

#[test]
fn the_package_has_exactly_these_files_and_only_their_directories() {
    let contents = Package::open().contents();
    let files: Vec<(&str, &str)> = contents
        .iter()
        .filter(|(path, _)| !path.ends_with('/') || *path == "/")
        .filter(|(path, _)| !path.starts_with("/usr/share/man/man1/buildbot-conda-"))
        .filter(|(path, _)| !path.starts_with(DOCUMENTS))
        .map(|(path, entry)| (entry.mode.as_str(), path.as_str()))
        .collect();
    let mut expected = FILES;
    expected.sort_unstable_by_key(|(_, path)| *path);
    assert_eq!(files, expected);

    let parents: BTreeSet<String> = FILES
        .iter()
        .flat_map(|(_, path)| {
            path.match_indices('/')
                .map(|(end, _)| path[..=end].to_owned())
        })
        .collect();
    let directories: BTreeSet<String> = contents
        .keys()
        .filter(|path| path.ends_with('/') && !path.starts_with(DOCUMENTS))
        .cloned()
        .collect();
    assert_eq!(directories, parents);
}

#[test]
fn everything_belongs_to_root_and_directories_are_open() {
    for (path, entry) in Package::open().contents() {
        assert_eq!(entry.owner, "root/root", "{path}");
        if path.ends_with('/') {
            assert_eq!(entry.mode, "drwxr-xr-x", "{path}");
        }
    }
}

#[test]
fn the_package_is_at_most_two_and_a_half_megabytes() {
    let size = std::fs::metadata(Package::path())
        .expect("the package is there")
        .len();
    assert!(size <= 2_500_000, "{size} bytes");
}

#[test]
fn the_launcher_stays_small() {
    let contents = Package::open().contents();
    // It reads condarc, which is YAML, and names what activation scripts did and what keeps an account out of an
    // environment.
    assert!(contents["/usr/libexec/buildbot-conda/launcher"].size <= 960 * 1024);
    // It renders drop-ins as well.
    let generator = "/usr/lib/systemd/system-generators/buildbot-conda-generator";
    assert!(contents[generator].size <= 1400 * 1024);
}

#[test]
fn checksums_cover_every_file_but_conffiles_and_are_right() {
    let package = Package::open();
    assert_eq!(
        package.text("DEBIAN/conffiles").trim_end(),
        "/etc/needrestart/conf.d/buildbot-conda.conf"
    );
    let sums = package.text("DEBIAN/md5sums");
    let listed: Vec<String> = sums
        .lines()
        .map(|line| format!("/{}", &line[34..]))
        .collect();
    let expected: Vec<String> = package
        .contents()
        .into_keys()
        .filter(|path| !path.ends_with('/') && !path.starts_with("/etc/"))
        .collect();
    assert_eq!(listed, expected);
    let check = Command::new("md5sum")
        .args(["--check", "--strict", "--quiet", "DEBIAN/md5sums"])
        .current_dir(package.tree())
        .status()
        .expect("md5sum runs");
    assert!(check.success());
}

#[test]
fn control_fields_say_what_apt_needs() {
    let package = Package::open();
    assert_eq!(package.field("Package"), "buildbot-conda");
    assert_eq!(package.field("Version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(package.field("Section"), "devel");
    assert_eq!(package.field("Priority"), "optional");
    assert_eq!(package.field("Conflicts"), "buildbot, buildbot-worker");
    assert_eq!(
        package.field("Recommends"),
        "buildbot-conda-env, libseccomp2, openssl"
    );
    let depends = package.field("Depends");
    for dependency in [
        "adduser",
        "debconf (>= 0.5) | debconf-2.0",
        "libc6 (>= ",
        "libgcc-s1",
    ] {
        assert!(
            depends.contains(dependency),
            "`{dependency}` is not in `{depends}`"
        );
    }
    let description = package.field("Description");
    let synopsis = description.lines().next().unwrap_or_default();
    assert!((10..=80).contains(&synopsis.len()), "`{synopsis}`");
    assert!(description.lines().count() > 4, "`{description}`");
}

#[test]
fn no_path_of_the_build_machine_is_in_a_program() {
    let package = Package::open();
    let workspace = concat!(env!("CARGO_MANIFEST_DIR"), "/../../crates");
    let workspace = std::fs::canonicalize(workspace).expect("the test lies in the workspace");
    for program in [
        "usr/bin/buildbot-conda",
        "usr/libexec/buildbot-conda/launcher",
    ] {
        let bytes = std::fs::read(package.tree().join(program)).expect("the program is packed");
        for needle in [workspace.to_str().expect("UTF-8"), "registry/src/index"] {
            let found = bytes
                .windows(needle.len())
                .position(|window| window == needle.as_bytes());
            let prefix = found
                .map(|at| String::from_utf8_lossy(&bytes[at.saturating_sub(20)..at]).into_owned());
            // The registry may be named, but only below the name that represents every CARGO_HOME.
            assert!(
                prefix
                    .as_ref()
                    .is_none_or(|prefix| prefix.ends_with("/cargo/")),
                "{program} holds `{needle}` after `{prefix:?}`"
            );
        }
    }
}
