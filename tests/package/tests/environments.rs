//! The package that creates environments: small, separate from the main one, and clean.

use std::process::Command;

use buildbot_conda_package_tests::Package;

/// Bytes of the archive at most.
const LARGEST: u64 = 8 << 20;

#[test]
fn it_has_one_program_and_what_debian_wants_to_know_of_it() {
    let package = Package::open_environments();
    let files: Vec<(String, String)> = package
        .contents()
        .into_iter()
        .filter(|(path, _)| !path.ends_with('/'))
        .map(|(path, entry)| {
            assert_eq!(entry.owner, "root/root", "{path}");
            (entry.mode, path)
        })
        .collect();
    let expected = [
        ("-rwxr-xr-x", "/usr/libexec/buildbot-conda/env"),
        ("-rw-r--r--", "/usr/share/buildbot-conda/sbom-env.cdx.json"),
        (
            "-rw-r--r--",
            "/usr/share/doc/buildbot-conda-env/changelog.gz",
        ),
        ("-rw-r--r--", "/usr/share/doc/buildbot-conda-env/copyright"),
        (
            "-rw-r--r--",
            "/usr/share/lintian/overrides/buildbot-conda-env",
        ),
    ];
    let expected = expected.map(|(mode, path)| (mode.to_owned(), path.to_owned()));
    assert_eq!(files, expected);
    assert_eq!(package.field("Package"), "buildbot-conda-env");
    assert_eq!(package.field("Version"), env!("CARGO_PKG_VERSION"));
    let depends = package.field("Depends");
    assert!(
        depends.contains("buildbot-conda") && depends.contains("libc6 (>= "),
        "{depends}"
    );
    let size = package.archive().metadata().expect("it is a file").len();
    assert!(size <= LARGEST, "{size} bytes");
}

#[test]
fn its_program_names_no_path_of_the_build_machine_and_the_main_one_has_none_of_its_libraries() {
    let package = Package::open_environments();
    let program = package.tree().join("usr/libexec/buildbot-conda/env");
    let bytes = std::fs::read(&program).expect("the program is packed");
    let workspace = concat!(env!("CARGO_MANIFEST_DIR"), "/../../crates");
    let workspace = std::fs::canonicalize(workspace).expect("the test lies in the workspace");
    let needle = workspace.to_str().expect("UTF-8").as_bytes();
    assert!(!bytes.windows(needle.len()).any(|window| window == needle));
    let main = Package::open();
    let copyright =
        std::fs::read_to_string(main.tree().join("usr/share/doc/buildbot-conda/copyright"));
    let copyright = copyright.expect("it is packed");
    for library in ["rattler", "tokio", "reqwest", "rustls"] {
        assert!(
            !copyright.contains(&format!("vendor/{library}")),
            "{library}"
        );
    }
    let version = Command::new(&program)
        .arg("--version")
        .output()
        .expect("it runs");
    assert!(version.status.success());
}
