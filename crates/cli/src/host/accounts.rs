//! Accounts as a host has them: by `getent` and `id`, or below a root directory from its `passwd` and `group`.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};
use buildbot_conda_core::values::AccountName;

use super::manifest::Account;
use crate::system::context::Context;
use crate::system::values::{Mode, Ownership};

/// The first number of people's accounts, adduser.conf(5).
const FIRST_OF_PEOPLE: u32 = 1000;
/// Takes accounts that are nobody's: no person's either.
const NOBODY: u32 = 65534;

/// The account `name`; none where the host has none.
pub(super) fn find(name: &AccountName, context: &Context) -> anyhow::Result<Option<Account>> {
    let Some(line) = entry("passwd", name.as_str(), 0, context)? else {
        return Ok(None);
    };
    let fields: Vec<&str> = line.split(':').collect();
    let [_, _, uid, gid, _, home, shell] = fields[..] else {
        bail!("read the account `{name}`");
    };
    let uid: u32 = uid.parse().context("read the number of an account")?;
    let group = name_of_group(gid.parse().context("read the number of a group")?, context)?;
    let mut groups = groups(name.as_str(), context)?;
    groups.retain(|other| *other != group);
    Ok(Some(Account {
        name: name.clone(),
        group,
        groups,
        home: home.to_owned(),
        shell: shell.to_owned(),
        system: uid < FIRST_OF_PEOPLE || uid == NOBODY,
    }))
}

/// Whether there is such a group.
pub(super) fn has_group(name: &str, context: &Context) -> anyhow::Result<bool> {
    Ok(entry("group", name, 0, context)?.is_some())
}

/// Mode and owners of a path, without following a link; none where nothing is.
pub(super) fn ownership(path: &Path, context: &Context) -> anyhow::Result<Option<Ownership>> {
    let Ok(metadata) = path.symlink_metadata() else {
        return Ok(None);
    };
    let owner = name_of_user(metadata.uid(), context)?;
    let group = name_of_group(metadata.gid(), context)?;
    Ok(Some(Ownership {
        mode: Mode::new(metadata.mode()),
        user: owner.parse()?,
        group: group.parse()?,
    }))
}

/// The name of an account, or its number where it has none. Below a root directory whoever looks plays root.
pub(super) fn name_of_user(uid: u32, context: &Context) -> anyhow::Result<String> {
    let own = rustix::process::geteuid().as_raw();
    if uid == 0 || (context.is_elsewhere() && uid == own) {
        return Ok("root".to_owned());
    }
    named("passwd", uid, context)
}

fn name_of_group(gid: u32, context: &Context) -> anyhow::Result<String> {
    let own = rustix::process::getegid().as_raw();
    if gid == 0 || (context.is_elsewhere() && gid == own) {
        return Ok("root".to_owned());
    }
    named("group", gid, context)
}

fn named(database: &str, number: u32, context: &Context) -> anyhow::Result<String> {
    let number = number.to_string();
    let line = entry(database, &number, 2, context)?;
    let name = line.as_deref().and_then(|line| line.split(':').next());
    Ok(name.map_or(number.clone(), str::to_owned))
}

/// The line of which this field is `key`. A key of digits alone is a number to `getent`.
fn entry(
    database: &str,
    key: &str,
    field: usize,
    context: &Context,
) -> anyhow::Result<Option<String>> {
    let text = if context.is_elsewhere() {
        fs::read_to_string(context.path(&format!("/etc/{database}"))).unwrap_or_default()
    } else {
        said("getent", &[database, "--", key])?
    };
    let is_it = |line: &&str| line.split(':').nth(field) == Some(key);
    Ok(text.lines().find(is_it).map(str::to_owned))
}

/// All groups of an account, sorted.
fn groups(name: &str, context: &Context) -> anyhow::Result<Vec<String>> {
    let mut groups: Vec<String> = if context.is_elsewhere() {
        let text = fs::read_to_string(context.path("/etc/group")).unwrap_or_default();
        let lines = text.lines().filter(|line| {
            let members = line.rsplit(':').next().unwrap_or_default();
            members.split(',').any(|member| member == name)
        });
        let names = lines.filter_map(|line| line.split(':').next());
        names.map(str::to_owned).collect()
    } else {
        let text = said("id", &["--groups", "--name", "--", name])?;
        text.split_whitespace().map(str::to_owned).collect()
    };
    groups.sort();
    groups.dedup();
    Ok(groups)
}

fn said(program: &str, words: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program)
        .args(words)
        .output()
        .with_context(|| format!("run `{program}`"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
