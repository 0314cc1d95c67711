//! The verbs for a master's database, as far as they need no Buildbot: what they refuse, and their lists. What they do
//! to real databases is in the runner's tests and on booted machines.

#![expect(
    clippy::unwrap_used,
    reason = "a test whose host cannot be set up has failed"
)]

use std::fs;
use std::process::Command;

use tempfile::TempDir;

const BACKUPS: &str = "var/lib/buildbot-conda/instances/master/backups";

/// A host with a master and a worker, neither of which is there.
fn host() -> TempDir {
    let host = tempfile::tempdir().unwrap();
    let file = host.path().join("etc/buildbot-conda/config.toml");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let master = host.path().join("m");
    fs::create_dir(&master).unwrap();
    let text = format!("[master]\ndirectory = '{}'\n[worker]\n", master.display());
    fs::write(file, text).unwrap();
    host
}

/// Exit status, stdout and stderr, the root directory taken out of them.
fn run(host: &TempDir, words: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_buildbot-conda"))
        .arg("--root")
        .arg(host.path())
        .args(words)
        .env_remove("STATE_DIRECTORY")
        .output()
        .unwrap();
    let root = host.path().to_str().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(root, "");
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn a_worker_has_no_database() {
    let host = host();
    for words in [
        &["backup", "worker"][..],
        &["restore", "worker"],
        &["upgrade", "worker"],
        &["service", "prepare", "worker"],
    ] {
        let said = (
            Some(1),
            String::new(),
            "error: `worker` has no database, only masters have one\n".to_owned(),
        );
        assert_eq!(run(&host, words), said, "{words:?}");
    }
}

#[test]
fn an_instance_that_is_not_configured_is_a_matter_of_configuration() {
    let (status, _, stderr) = run(&host(), &["upgrade", "master@nightly"]);
    assert_eq!(status, Some(78), "{stderr}");
}

#[test]
fn backups_are_listed_youngest_first_and_other_files_are_not_ours() {
    let host = host();
    let directory = host.path().join(BACKUPS);
    fs::create_dir_all(&directory).unwrap();
    for name in [
        "20261101T000000Z-buildbot-3.11.9-schema-064.sqlite",
        "20261102T000000Z-buildbot-4.3.0-schema-067.sqlite",
        ".partial-1-abc",
        "notes.txt",
    ] {
        fs::write(directory.join(name), "12345").unwrap();
    }
    let expect = r#"[
  {
    "name": "20261102T000000Z-buildbot-4.3.0-schema-067.sqlite",
    "time": "20261102T000000Z",
    "buildbot": "4.3.0",
    "schema": "067",
    "kind": "sqlite",
    "size": 5
  },
  {
    "name": "20261101T000000Z-buildbot-3.11.9-schema-064.sqlite",
    "time": "20261101T000000Z",
    "buildbot": "3.11.9",
    "schema": "064",
    "kind": "sqlite",
    "size": 5
  }
]
"#;
    let said = run(&host, &["restore", "master", "--list", "--json"]);
    assert_eq!(said, (Some(0), expect.to_owned(), String::new()));
    let table = "\
NAME                                                BUILDBOT  SCHEMA  SIZE
20261102T000000Z-buildbot-4.3.0-schema-067.sqlite   4.3.0     067     1 KiB
20261101T000000Z-buildbot-3.11.9-schema-064.sqlite  3.11.9    064     1 KiB
";
    let said = run(&host, &["restore", "master", "--list"]);
    assert_eq!(said, (Some(0), table.to_owned(), String::new()));
}

#[test]
fn a_host_without_backups_lists_none() {
    let host = host();
    let said = run(&host, &["restore", "master", "--list", "--json"]);
    assert_eq!(said, (Some(0), "[]\n".to_owned(), String::new()));
    let header = "NAME  BUILDBOT  SCHEMA  SIZE\n".to_owned();
    let said = run(&host, &["restore", "master", "--list"]);
    assert_eq!(said, (Some(0), header, String::new()));
}

#[test]
fn what_is_no_backup_is_not_restored() {
    let host = host();
    let (status, _, stderr) = run(&host, &["restore", "master"]);
    assert_eq!(
        (status, stderr.as_str()),
        (Some(1), "error: no backup of `master`\n")
    );
    let (status, _, stderr) = run(&host, &["restore", "master", "../../../../../etc/passwd"]);
    assert_eq!(
        (status, stderr.as_str()),
        (
            Some(1),
            "error: `passwd` is no name of a backup\n\
             hint: `backup` gives names such as `20261122T123456Z-buildbot-4.3.0-schema-067.sqlite`\n"
        )
    );
    // One from elsewhere that is not there, and a pipe that nobody writes to.
    let missing = "20261101T000000Z-buildbot-4.3.0-schema-067.sqlite";
    let elsewhere = host.path().join(missing);
    let elsewhere = elsewhere.to_str().unwrap();
    let (status, _, stderr) = run(&host, &["restore", "master", elsewhere]);
    assert_eq!(status, Some(1));
    assert!(stderr.contains("no file `"), "{stderr}");
    let made = std::process::Command::new("mkfifo").arg(elsewhere).status();
    assert!(made.unwrap().success());
    let (status, _, stderr) = run(&host, &["restore", "master", elsewhere]);
    assert_eq!(status, Some(1));
    assert!(stderr.contains("is no file"), "{stderr}");
    let (status, _, stderr) = run(&host, &["restore", "master", missing]);
    assert_eq!(
        (status, stderr),
        (
            Some(1),
            format!(
                "error: no backup `{missing}` in `/var/lib/buildbot-conda/instances/master/backups`\n\
                 hint: `buildbot-conda restore master --list` names those there are\n"
            )
        )
    );
}

#[test]
fn a_mark_that_cannot_be_read_stops_everything() {
    let host = host();
    let state = host.path().join("var/lib/buildbot-conda/instances/master");
    fs::create_dir_all(&state).unwrap();
    fs::write(state.join("upgrade-in-progress"), "{\"version\": 7}").unwrap();
    for words in [
        &["upgrade", "master"][..],
        &["service", "prepare", "master"],
    ] {
        let (status, _, stderr) = run(&host, words);
        assert_eq!(status, Some(65), "{words:?}: {stderr}");
        assert!(
            stderr.contains("upgrade-in-progress`: it is no mark of this version\nhint: "),
            "{stderr}"
        );
    }
}
