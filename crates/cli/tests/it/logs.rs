//! `logs` with a `journalctl` that echoes its words: what is asked of the journal, and what is refused.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::house::{self, Host, Said};

/// A host whose `journalctl` prints its words.
fn host(configuration: &str) -> Host {
    let host = Host::configured(configuration);
    host.add_program("journalctl", "#!/bin/sh\necho \"$@\"\n");
    host
}

fn logs(host: &Host, words: &[&str]) -> Said {
    host.run(&[&["logs"], words].concat())
}

/// The arguments that `journalctl` received.
#[track_caller]
fn asked(host: &Host, words: &[&str]) -> String {
    let said = logs(host, words);
    assert_eq!(said.status, Some(0), "{said}");
    said.stdout.replace('\n', " ")
}

#[track_caller]
fn refused(host: &Host, words: &[&str], status: i32) -> String {
    let said = logs(host, words);
    assert_eq!(said.status, Some(status), "{words:?}");
    assert_eq!(said.stdout, "");
    said.stderr
}

const TWO: &str = "[master]\ndirectory = \"/srv/m\"\n[\"worker@gpu\"]\ndirectory = \"/srv/w\"\n";

#[test]
fn the_journal_of_one_instance_is_asked_for() {
    assert_eq!(
        asked(&host(TWO), &["worker@gpu"]),
        "--root / --no-pager --no-hostname --output=with-unit --lines=100 \
         --unit=buildbot-worker@gpu.service "
    );
}

#[test]
fn an_entry_of_several_lines_is_indented_by_four_blanks() {
    let host = host(TWO);
    let prefix = "Sun 2026-11-29 16:14:12 UTC buildbot-master.service[13]: ";
    let blanks = " ".repeat(prefix.len());
    let script = format!(
        "#!/bin/sh\nprintf '%s\\n' '{prefix}Traceback' '{blanks}  File x' '{prefix}end'; exit 3\n"
    );
    host.add_program("journalctl", &script);
    let said = logs(&host, &["master"]);
    assert_eq!(
        said,
        house::said(
            3,
            &format!("{prefix}Traceback\n      File x\n{prefix}end\n"),
            ""
        )
    );
}

#[test]
fn without_an_instance_those_of_all_are_asked_for() {
    assert_eq!(
        asked(&host(TWO), &[]),
        "--root / --no-pager --no-hostname --output=with-unit --lines=100 \
         --unit=buildbot-master.service --unit=buildbot-worker@gpu.service "
    );
}

#[test]
fn filters_are_handed_on() {
    let host = host(TWO);
    assert_eq!(
        asked(
            &host,
            &[
                "-f", "-n", "5", "--level", "Error", "--since", "-2h", "master"
            ]
        ),
        "--root / --no-pager --no-hostname --output=with-unit --lines=5 --follow --priority=err \
         --since=-2h --unit=buildbot-master.service "
    );
    assert!(asked(&host, &["master", "--since", "today"]).contains(" --lines=all --since=today "));
}

#[test]
fn levels_have_the_names_of_buildbot_and_of_syslog() {
    let host = host(TWO);
    for (names, priority) in [
        (&["debug"][..], "debug"),
        (&["info"], "info"),
        (&["notice"], "notice"),
        (&["warn", "warning", "WARN"], "warning"),
        (&["error", "err"], "err"),
        (&["critical", "crit"], "crit"),
    ] {
        for name in names {
            let words = asked(&host, &["master", "--level", name]);
            let expect = format!(" --priority={priority} ");
            assert!(words.contains(&expect), "{name}: {words}");
        }
    }
    assert!(refused(&host, &["--level", "loud"], 2).contains("possible values: debug, info"));
}

#[test]
fn a_level_of_the_runner_is_a_level_of_logs() {
    let names = include_str!("../../../launcher/buildbot_conda_runner/names.py");
    let line = names
        .lines()
        .find(|line| line.starts_with("PRIORITIES = {"))
        .unwrap();
    let host = host(TWO);
    let levels: Vec<&str> = line.split('"').skip(1).step_by(2).collect();
    assert!(levels.len() >= 5, "{line}");
    for level in levels {
        asked(&host, &["--level", level]);
    }
}

#[test]
fn an_instance_that_is_not_there_is_refused() {
    assert_eq!(
        refused(&host(TWO), &["worker"], 1),
        "error: instance `worker` not found in `/etc/buildbot-conda/config.toml`\n\
         hint: `buildbot-conda list` shows all instances\n"
    );
    assert_eq!(
        refused(&host(""), &[], 1),
        "error: no instances in `/etc/buildbot-conda/config.toml`\n\
         hint: create one with `buildbot-conda create`\n"
    );
    refused(&host(TWO), &["worker@-x"], 2);
    refused(&host(TWO), &["-n", "many"], 2);
}

#[test]
fn a_host_without_journalctl_is_told() {
    let host = host(TWO);
    fs::remove_file(host.beside("programs/journalctl")).unwrap();
    // Root's would be looked for in directories of the system.
    let mut command = Command::new(host.add_binary());
    if rustix::process::geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    command.args(["--root", &host.root(), "logs"]);
    let said = host.said(command.env("PATH", host.beside("programs")));
    let expect = "error: run `journalctl`: not installed, it is needed to manage services\n\
                  hint: install the package `systemd`, or run this command on the host of the services\n";
    assert_eq!(said, house::said(1, "", expect));
}
