//! What is written for a configuration that can be read.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::{Root, finish};

#[test]
fn every_good_instance_gets_its_drop_in() {
    let root = Root::new(
        "[master]\n[worker]\n[\"master@x\"]\ndirectory = \"/srv/x\"\n\
         [\"worker@gpu\"]\ndirectory = \"/srv/gpu\"\nuser = \"gpu\"\n",
    );
    assert_eq!(root.run(), "");
    assert_eq!(
        root.instances(),
        ["master", "master@x", "worker", "worker@gpu"]
    );
    let text = root.drop_in("worker@gpu");
    assert!(
        text.contains("\nConditionDirectoryNotEmpty=|/srv/gpu\n"),
        "{text}"
    );
    assert!(text.contains("\nUser=gpu\n"), "{text}");
    assert!(root.drop_in("master").contains("\nUser=bb\n"));
}

#[test]
fn nothing_else_is_written() {
    let root = Root::new("[master]\n");
    root.run();
    let names = |path: &str| -> Vec<String> {
        let entries = fs::read_dir(root.path(path)).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    };
    assert_eq!(names("normal"), ["buildbot-master.service.d"]);
    assert_eq!(
        names("normal/buildbot-master.service.d"),
        ["10-buildbot-conda.conf"]
    );
    assert_eq!(names("early").len() + names("late").len(), 0);
    let file = root.path("normal/buildbot-master.service.d/10-buildbot-conda.conf");
    let mode = fs::metadata(file).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o644);
}

#[test]
fn a_second_run_replaces_what_the_first_wrote() {
    let root = Root::new("[master]\nuser = \"a-long-name-for-an-account\"\n");
    root.run();
    root.write(
        "etc/buildbot-conda/config.toml",
        "[master]\nuser = \"bb\"\n",
    );
    root.run();
    let text = root.drop_in("master");
    assert!(text.contains("\nUser=bb\n"), "{text}");
    assert!(!text.contains("a-long-name"), "{text}");
}

#[test]
fn no_configuration_and_an_empty_one_are_no_problems() {
    for root in [
        Root::bare(),
        Root::new(""),
        Root::new("[defaults]\nuser = \"ci\"\n"),
    ] {
        assert_eq!(root.run(), "");
        assert_eq!(root.instances(), [""; 0]);
    }
}

#[test]
fn a_bad_instance_is_reported_and_does_not_take_the_others_down() {
    let root = Root::new(
        "[master]\n[\"worker@bad\"]\ndirectory = \"/srv/bad\"\ndrain = \"soon\"\n\
         [\"worker@good\"]\ndirectory = \"/srv/good\"\n",
    );
    assert_eq!(
        root.run(),
        "/etc/buildbot-conda/config.toml:4:9: worker@bad.drain: `soon` is not a duration\n\
         hint: write a number and a unit, such as `90s`, `2min` or `1h 30min`\n"
    );
    assert_eq!(root.instances(), ["master", "worker@good"]);
}

#[test]
fn a_value_that_systemd_would_mangle_is_reported_and_not_written() {
    let root = Root::new(
        "[master]\n[master.credentials]\ntoken = \"my token\"\n[worker]\n\
         [\"worker@q\"]\ndirectory = '/srv/\"q\"'\nhardening = \"strict\"\n",
    );
    assert_eq!(
        root.run(),
        "/etc/buildbot-conda/config.toml:1:2: master.credentials.token: \
         `/etc/buildbot-conda/credentials/my token` contains the character ` `, systemd 255 \
         and later cannot read such a credential\nhint: rename the file\n\
         /etc/buildbot-conda/config.toml:6:13: worker@q.directory: `/srv/\"q\"` contains the character \
         `\"`, systemd 255 and later cannot mount such a path\n\
         hint: use a path without quotes, or another `hardening`\n"
    );
    assert_eq!(root.instances(), ["worker"]);
}

#[test]
fn a_thousand_instances_are_written() {
    let tables: Vec<String> = (0..1000)
        .map(|number| format!("[\"worker@w{number}\"]\ndirectory = \"/srv/{number}\"\n"))
        .collect();
    let root = Root::new(tables.concat());
    assert_eq!(root.run(), "");
    assert_eq!(root.instances().len(), 1000);
}

#[test]
fn arguments_that_systemd_would_not_give_are_answered_with_the_usage() {
    for arguments in [
        &[][..],
        &["/nonexistent"],
        &["--root"],
        &["a", "b", "c", "d"],
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_buildbot-conda-generator"));
        command.args(arguments).stderr(Stdio::piped());
        assert_eq!(
            finish(command.spawn().unwrap()),
            "usage: buildbot-conda-generator [--root DIR] NORMAL EARLY LATE\n"
        );
    }
}
