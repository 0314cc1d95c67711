//! Root enters no environment that a service user can write: for root, `run` is this program once
//! more, as that user, with his groups and a clean environment.

use std::env;
use std::io::{IsTerminal as _, stdin};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::anyhow;
use buildbot_conda_core::paths;

use crate::system::accounts::{User, find_user};
use crate::system::context::Context;

/// What of the caller's environment says something about the terminal and its user's language.
const KEPT: [&str; 4] = ["COLORTERM", "LANG", "LC_ALL", "TERM"];

/// Goes on as `user` when this process is root's and he is not. Returns only when that is not so,
/// or the status of a failure.
///
/// # Errors
///
/// When there is no such account.
pub(super) fn become_user(
    user: &str,
    group: Option<&str>,
    context: &Context,
) -> anyhow::Result<Option<ExitCode>> {
    if context.is_elsewhere() || !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let user = find_user(user)
        .map_err(|error| anyhow!("{error}\nhint: make it, or set `user` in the configuration"))?;
    if user.uid == 0 {
        return Ok(None);
    }
    let mut command = switch(&user, group);
    command
        .env_clear()
        .envs(env::vars_os().filter(|(name, _)| KEPT.iter().any(|kept| name == kept)))
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", &user.home)
        .env("USER", &user.name)
        .env("LOGNAME", &user.name)
        .env("SHELL", "/bin/bash")
        .arg(paths::CLI)
        .args(env::args_os().skip(1));
    let program = command.get_program().to_string_lossy().into_owned();
    let failure = command.exec();
    eprintln!("error: execute `{program}`: {failure}");
    Ok(Some(ExitCode::from(super::status_of(&failure))))
}

/// With a terminal, one of its own: into root's he could type (TIOCSTI). Else without any.
fn switch(user: &User, group: Option<&str>) -> Command {
    if stdin().is_terminal() {
        // It is not on the PATH that the command gets.
        let mut command = Command::new("/usr/sbin/runuser");
        command.args(["--pty", "--user", &user.name]);
        command.args(group.iter().flat_map(|group| ["--group", group]));
        command.arg("--");
        return command;
    }
    let group = group.map_or_else(|| user.gid.to_string(), str::to_owned);
    let mut command = Command::new("setsid");
    command
        .args(["--wait", "setpriv"])
        .args([
            &format!("--reuid={}", user.name),
            &format!("--regid={group}"),
        ])
        .args(["--init-groups", "--"]);
    command
}
