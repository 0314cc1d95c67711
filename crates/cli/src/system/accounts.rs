//! The accounts and groups of this host.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, bail};
use buildbot_conda_core::settings::Instance;

use super::context::Context;

/// An account of the host.
#[derive(Debug, Clone)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: u32,
    /// The primary group.
    pub(crate) gid: u32,
    pub(crate) home: PathBuf,
}

/// The account `name`, from wherever this host has its accounts.
pub(crate) fn find_user(name: &str) -> anyhow::Result<User> {
    let output = Command::new("getent")
        .args(["passwd", "--", name])
        .output()
        .context("run `getent`")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let fields: Vec<&str> = text.trim_end().split(':').collect();
    let (Some(uid), Some(gid), Some(home)) = (fields.get(2), fields.get(3), fields.get(5)) else {
        bail!("no account `{name}`");
    };
    Ok(User {
        name: name.to_owned(),
        uid: uid
            .parse()
            .with_context(|| format!("read the id of `{name}`"))?,
        gid: gid
            .parse()
            .with_context(|| format!("read the group of `{name}`"))?,
        home: PathBuf::from(home),
    })
}

/// The number of an account (`passwd`) or a `group`, by its name or its number.
pub(crate) fn number_of(database: &str, name: &str) -> anyhow::Result<u32> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let output = Command::new("getent")
        .args([database, "--", name])
        .output()
        .context("run `getent`")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let number = text.trim_end().split(':').nth(2);
    number
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("no `{name}` in the database `{database}`"))
}

/// The account as it is now; none in a root directory, or before it is made.
pub(crate) fn account_of(instance: &Instance, context: &Context) -> Option<User> {
    if context.is_elsewhere() {
        return None;
    }
    find_user(instance.user.as_str()).ok()
}
