//! The verbs for a master's database, as far as they need no Buildbot: what they refuse, and their lists. What they do
//! to real databases is in the runner's tests and on booted machines.

use std::fs;

use crate::house::{CONFIGURATION, Host, Said, said};

const BACKUPS: &str = "var/lib/buildbot-conda/instances/master/backups";

/// A host with a master and a worker, neither of which is set up.
fn host() -> Host {
    let host = Host::empty();
    host.create_directory("m");
    let directory = host.path("m");
    let text = format!(
        "[master]\ndirectory = '{}'\n[worker]\n",
        directory.display()
    );
    host.write(CONFIGURATION, &text);
    host
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
        let expect = said(1, "", "error: `worker` is a worker and has no database\n");
        assert_eq!(host.run(words), expect, "{words:?}");
    }
}

#[test]
fn an_instance_that_is_not_configured_is_a_matter_of_configuration() {
    let Said { status, stderr, .. } = host().run(&["upgrade", "master@nightly"]);
    assert_eq!(status, Some(78), "{stderr}");
}

#[test]
fn backups_are_listed_youngest_first_and_other_files_are_not_ours() {
    let host = host();
    let directory = host.path(BACKUPS);
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
    assert_eq!(
        host.run(&["restore", "master", "--list", "--json"]),
        said(0, expect, "")
    );
    let table = "\
NAME                                                BUILDBOT  SCHEMA  SIZE
20261102T000000Z-buildbot-4.3.0-schema-067.sqlite   4.3.0     067     1 KiB
20261101T000000Z-buildbot-3.11.9-schema-064.sqlite  3.11.9    064     1 KiB
";
    assert_eq!(
        host.run(&["restore", "master", "--list"]),
        said(0, table, "")
    );
}

#[test]
fn a_host_without_backups_lists_none() {
    let host = host();
    assert_eq!(
        host.run(&["restore", "master", "--list", "--json"]),
        said(0, "[]\n", "")
    );
    let header = "NAME  BUILDBOT  SCHEMA  SIZE\n";
    assert_eq!(
        host.run(&["restore", "master", "--list"]),
        said(0, header, "")
    );
}

#[test]
fn what_is_no_backup_is_not_restored() {
    let host = host();
    let Said { status, stderr, .. } = host.run(&["restore", "master"]);
    assert_eq!(
        (status, stderr.as_str()),
        (Some(1), "error: `master` has no backup\n")
    );
    host.write("root/plain", "root:x:0:0::/root:/bin/sh\n");
    let plain = host.path("root/plain");
    let Said { status, stderr, .. } = host.run(&["restore", "master", plain.to_str().unwrap()]);
    assert_eq!(
        (status, stderr.as_str()),
        (
            Some(1),
            "error: `/root/plain` is neither a backup nor a `SQLite` database\n\
             hint: specify a backup of `backup`, or a copy of a `state.sqlite`\n"
        )
    );
    // A path that does not exist, and a pipe without a writer.
    let missing = "20261101T000000Z-buildbot-4.3.0-schema-067.sqlite";
    let elsewhere = host.path(missing);
    let elsewhere = elsewhere.to_str().unwrap();
    let Said { status, stderr, .. } = host.run(&["restore", "master", elsewhere]);
    assert_eq!(status, Some(1));
    assert!(stderr.contains("` not found"), "{stderr}");
    let made = std::process::Command::new("mkfifo").arg(elsewhere).status();
    assert!(made.unwrap().success());
    let Said { status, stderr, .. } = host.run(&["restore", "master", elsewhere]);
    assert_eq!(status, Some(1));
    assert!(stderr.contains("is not a regular file"), "{stderr}");
    let Said { status, stderr, .. } = host.run(&["restore", "master", missing]);
    assert_eq!(
        (status, stderr),
        (
            Some(1),
            format!(
                "error: backup `{missing}` not found in `/var/lib/buildbot-conda/instances/master/backups`\n\
                 hint: `buildbot-conda restore master --list` shows all\n"
            )
        )
    );
}

#[test]
fn a_mark_that_cannot_be_read_stops_everything() {
    let host = host();
    let state = host.path("var/lib/buildbot-conda/instances/master");
    fs::create_dir_all(&state).unwrap();
    fs::write(state.join("upgrade-in-progress"), "{\"version\": 7}").unwrap();
    for words in [
        &["upgrade", "master"][..],
        &["service", "prepare", "master"],
    ] {
        let Said { status, stderr, .. } = host.run(words);
        assert_eq!(status, Some(65), "{words:?}: {stderr}");
        assert!(
            stderr.contains("upgrade-in-progress`: unknown format\nhint: "),
            "{stderr}"
        );
    }
}
