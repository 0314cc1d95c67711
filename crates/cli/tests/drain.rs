//! `drain` as far as it can be seen without a booted machine: what it refuses, and what it would do. A program that
//! stands in for `systemctl` answers `show` and writes down what else it is asked.

#![expect(
    clippy::unwrap_used,
    reason = "a test whose host cannot be set up has failed"
)]

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

/// A host whose systemd gives one answer.
struct Host(TempDir);

impl Host {
    fn whose_systemd_says(properties: &str) -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        let script = format!(
            "#!/bin/sh\n[ \"$1\" = show ] || echo \"$*\" >>'{directory}/asked'\ncat <<'END'\n{properties}\nEND\n",
            directory = host.0.path().display()
        );
        let program = host.0.path().join("systemctl");
        write_program(&program, &script);
        host
    }

    fn run(&self, words: &[&str]) -> Output {
        let path = format!("{}:/usr/bin:/bin", self.0.path().display());
        Command::new(env!("CARGO_BIN_EXE_buildbot-conda"))
            .args(words)
            .env("PATH", path)
            .output()
            .unwrap()
    }

    /// What systemctl was asked beyond properties.
    fn asked(&self) -> String {
        fs::read_to_string(self.0.path().join("asked")).unwrap_or_default()
    }
}

/// Writes a program by another process. What a parallel test starts would have a file of this one open for writing, too,
/// for a moment, and then nobody can execute it (`ETXTBSY`, execve(2)).
fn write_program(path: &Path, text: &str) {
    let mut shell = Command::new("sh")
        .args(["-euc", "cat >\"$0\"; chmod \"$1\" \"$0\""])
        .arg(path)
        .arg("755")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = shell.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    assert!(shell.wait().unwrap().success());
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A process that is ended with the test.
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
    let host = Host::whose_systemd_says("");
    let output = host.run(&["--root", "/nowhere", "drain", "worker"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stderr(&output),
        "error: `drain` acts on a running system, which `--root` leaves alone\n"
    );
}

#[test]
fn a_process_that_tells_no_state_is_refused_and_not_signalled() {
    let mut bystander = Bystander::new();
    let pid = bystander.0.id();
    let host = Host::whose_systemd_says(&format!(
        "Id=buildbot-worker@no-such-one.service\nActiveState=active\nMainPID={pid}"
    ));
    let output = host.run(&["drain", "--dry-run", "worker@no-such-one"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stderr(&output),
        format!(
            "error: the process {pid} of `buildbot-worker@no-such-one.service` is not one that can be drained: \
             it does not tell its state\n"
        )
    );
    assert_eq!(bystander.0.try_wait().unwrap(), None);
    assert_eq!(host.asked(), "");
}

#[test]
fn what_waits_for_its_next_start_would_only_be_stopped() {
    let host = Host::whose_systemd_says(
        "Id=buildbot-worker@no-such-one.service\nActiveState=activating\nMainPID=0",
    );
    let output = host.run(&["drain", "--dry-run", "worker@no-such-one"]);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "systemctl stop buildbot-worker@no-such-one.service\n",
        "{}",
        stderr(&output)
    );
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(host.asked(), "");
}

#[test]
fn a_reference_that_is_none_is_a_usage_error() {
    let host = Host::whose_systemd_says("");
    for words in [&["drain"][..], &["drain", "builder"], &["drain", "worker@"]] {
        assert_eq!(host.run(words).status.code(), Some(2), "{words:?}");
    }
}
