//! `drain` without a booted machine: what it refuses, and what it would do. A program that replaces `systemctl` answers
//! `show` and records its other arguments.

use std::fs;
use std::process::{Child, Command};

use crate::house::{Host, Said, said};

/// A host whose systemd gives one answer.
fn host_whose_systemd_says(properties: &str) -> Host {
    let host = Host::empty();
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = show ] || echo \"$*\" >>'{asked}'\ncat <<'END'\n{properties}\nEND\n",
        asked = host.beside("asked").display()
    );
    host.add_program("systemctl", &script);
    host
}

fn run(host: &Host, words: &[&str]) -> Said {
    host.said(host.command_without_root().args(words))
}

/// What systemctl was asked beyond properties.
fn asked(host: &Host) -> String {
    fs::read_to_string(host.beside("asked")).unwrap_or_default()
}

/// A process that is terminated with the test.
struct Bystander(Child);

impl Bystander {
    fn new() -> Self {
        Self(Command::new("sleep").arg("600").spawn().unwrap())
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_root_directory_is_refused() {
    let expect = said(
        1,
        "",
        "error: `drain` changes a running system and cannot be used with `--root`\n",
    );
    assert_eq!(Host::empty().run(&["drain", "worker"]), expect);
}

#[test]
fn a_process_that_tells_no_state_is_refused_and_not_signalled() {
    let mut bystander = Bystander::new();
    let pid = bystander.0.id();
    let host = host_whose_systemd_says(&format!(
        "Id=buildbot-worker@no-such-one.service\nActiveState=active\nMainPID={pid}"
    ));
    let expect = format!(
        "error: the process {pid} of `buildbot-worker@no-such-one.service` cannot be drained: \
         it does not report its state\n"
    );
    let words = ["drain", "--dry-run", "worker@no-such-one"];
    assert_eq!(run(&host, &words), said(1, "", &expect));
    assert_eq!(bystander.0.try_wait().unwrap(), None);
    assert_eq!(asked(&host), "");
}

#[test]
fn what_waits_for_its_next_start_would_only_be_stopped() {
    let host = host_whose_systemd_says(
        "Id=buildbot-worker@no-such-one.service\nActiveState=activating\nMainPID=0",
    );
    let expect = "systemctl stop buildbot-worker@no-such-one.service\n";
    let words = ["drain", "--dry-run", "worker@no-such-one"];
    assert_eq!(run(&host, &words), said(0, expect, ""));
    assert_eq!(asked(&host), "");
}

#[test]
fn a_reference_that_is_none_is_a_usage_error() {
    let host = host_whose_systemd_says("");
    for words in [&["drain"][..], &["drain", "builder"], &["drain", "worker@"]] {
        assert_eq!(run(&host, words).status, Some(2), "{words:?}");
    }
}

#[test]
fn several_are_looked_at_before_the_first_is_touched_and_each_once() {
    let host = Host::empty();
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = show ] || echo \"$*\" >>'{asked}'\nfor unit; do :; done\n\
         case $unit in *@foreign*) state=active pid=1;; *) state=activating pid=0;; esac\n\
         printf 'Id=%s\\nActiveState=%s\\nMainPID=%s\\n' \"$unit\" $state $pid\n",
        asked = host.beside("asked").display()
    );
    host.add_program("systemctl", &script);
    let words = ["drain", "worker@a", "worker@b", "worker@a", "--dry-run"];
    let expect =
        "systemctl stop buildbot-worker@a.service\nsystemctl stop buildbot-worker@b.service\n";
    assert_eq!(run(&host, &words), said(0, expect, ""));
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let refused = run(&host, &["drain", "worker@a", "worker@foreign"]);
    assert_eq!(refused.status, Some(1), "{refused}");
    assert_eq!(asked(&host), "");
    let done = run(&host, &["drain", "worker@a", "worker@b", "worker@a"]);
    assert_eq!(done.status, Some(0), "{done}");
    let asked = asked(&host);
    let mut lines: Vec<&str> = asked.lines().collect();
    lines.sort_unstable();
    let stop = ["a", "b"].map(|name| format!("stop -- buildbot-worker@{name}.service"));
    assert_eq!(lines, stop);
}
