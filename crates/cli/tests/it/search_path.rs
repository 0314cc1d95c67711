//! Root runs no program from the caller's `PATH`, but a command that the caller names still gets that `PATH`.

use std::process::Command;

use crate::house::{Host, write_program};

/// The command, called with another `systemctl` before the system's.
fn command(host: &Host) -> Command {
    let trap = format!("#!/bin/sh\ntouch '{}'\n", host.beside("sprung").display());
    write_program(&host.beside("systemctl"), &trap);
    let mut command = Command::new(env!("CARGO_BIN_EXE_buildbot-conda"));
    let path = format!("{}:/usr/bin:/bin", host.beside("").display());
    command.env("PATH", path);
    command
}

#[test]
fn root_finds_no_program_in_front_of_the_systems() {
    let host = Host::empty();
    let said = host.said(command(&host).args(["doctor", "--only", "system"]));
    assert!(said.stdout.contains("system: "), "{said}");
    // A caller who is not root can only harm themselves.
    let is_root = rustix::process::geteuid().is_root();
    assert_eq!(host.beside("sprung").exists(), !is_root);
}

#[test]
fn a_command_in_an_environment_has_the_path_of_its_caller() {
    let host = Host::empty();
    host.write("conda/conda-meta/history", "");
    let root = host.path("conda");
    let words = [
        "run",
        "--conda-root",
        root.to_str().unwrap(),
        "--",
        "/bin/sh",
        "-c",
    ];
    let script = "echo \"$PATH\"; env | grep -c BUILDBOT_CONDA_CALLERS || true";
    let said = host.said(command(&host).args(words).arg(script));
    let own = host.beside("").display().to_string();
    let expected = format!("{}:/usr/bin:/bin\n0\n", own.trim_end_matches('/'));
    assert!(said.stdout.starts_with("/conda/bin:"), "{said}");
    assert!(said.stdout.ends_with(&expected), "{said}");
}
