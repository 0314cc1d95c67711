//! Root enters no environment that a service user can write: for root, `run` is executed again as that user, with the
//! user's groups, a clean environment and a separate terminal.

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use buildbot_conda_core::paths;

use crate::system::accounts::{find_user, name_of_user};
use crate::system::as_user::drop_rights;
use crate::system::context::Context;
use crate::system::terminal;

/// Variables of the caller that describe the terminal and the language.
const KEPT: [&str; 4] = ["COLORTERM", "LANG", "LC_ALL", "TERM"];

/// Whether what this process starts would be root's.
fn is_root(context: &Context) -> bool {
    !context.is_elsewhere() && rustix::process::geteuid().is_root()
}

/// Continues as `user` if this process runs as root and `user` is not root; returns the exit status.
///
/// # Errors
///
/// If there is no such account, or nothing can be run as this user.
pub(super) fn become_user(
    user: &str,
    group: Option<&str>,
    context: &Context,
) -> anyhow::Result<Option<ExitCode>> {
    if !is_root(context) {
        return Ok(None);
    }
    let user = find_user(user)
        .map_err(|error| anyhow!("{error}\nhint: create it, or set `user` in the configuration"))?;
    if user.uid == 0 {
        return Ok(None);
    }
    let status = terminal::run_in_front(drop_rights(&user, group), user.uid, |command| {
        command
            .arg("--")
            .arg(paths::CLI)
            .args(env::args_os().skip(1))
            .env_clear()
            .envs(env::vars_os().filter(|(name, _)| KEPT.iter().any(|kept| name == kept)))
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", &user.home)
            .env("USER", &user.name)
            .env("LOGNAME", &user.name)
            .env("SHELL", "/bin/bash");
    })?;
    Ok(Some(ExitCode::from(terminal::code_of(status))))
}

/// The account whose environment root would enter at the given directory `root`; none if this process enters it itself.
///
/// # Errors
///
/// If the owner is a number that belongs to no account.
pub(super) fn owner_of(root: &Path, context: &Context) -> anyhow::Result<Option<String>> {
    if !is_root(context) {
        return Ok(None);
    }
    let Ok(metadata) = fs::metadata(root) else {
        // It is said later what is wrong with it.
        return Ok(None);
    };
    if metadata.uid() == 0 {
        return Ok(None);
    }
    let name = name_of_user(metadata.uid(), context)?;
    let shown = root.display();
    let name =
        name.with_context(|| format!("the owner of `{shown}` is not an account of this host"))?;
    Ok(Some(name))
}
