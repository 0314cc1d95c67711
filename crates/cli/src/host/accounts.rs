//! Accounts, and owners of paths, in the terms of a profile.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use buildbot_conda_core::values::AccountName;

use super::manifest::Account;
use crate::system::accounts::{self, groups};
use crate::system::context::Context;
use crate::system::values::{Mode, Ownership};

/// The first number of people's accounts, adduser.conf(5).
const FIRST_OF_PEOPLE: u32 = 1000;
/// Skips accounts without a person behind them.
const NOBODY: u32 = 65534;

/// The account `name`; none if the host does not have it.
pub(super) fn find(name: &AccountName, context: &Context) -> anyhow::Result<Option<Account>> {
    let Some(user) = accounts::find(name.as_str(), context)? else {
        return Ok(None);
    };
    let group = group(user.gid, context)?;
    let mut groups = groups(name.as_str(), context)?;
    groups.retain(|other| *other != group);
    Ok(Some(Account {
        name: name.clone(),
        group,
        groups,
        home: user.home.to_string_lossy().into_owned(),
        shell: user.shell,
        system: user.uid < FIRST_OF_PEOPLE || user.uid == NOBODY,
    }))
}

/// Mode and owners of a path, without following a link; none if the path does not exist. Owners without a name are
/// numbers.
pub(super) fn ownership(path: &Path, context: &Context) -> anyhow::Result<Option<Ownership>> {
    let Ok(metadata) = path.symlink_metadata() else {
        return Ok(None);
    };
    let owner = accounts::name_of_user(metadata.uid(), context)?;
    let owner = owner.unwrap_or_else(|| metadata.uid().to_string());
    let group = group(metadata.gid(), context)?;
    Ok(Some(Ownership {
        mode: Mode::new(metadata.mode()),
        user: owner.parse()?,
        group: group.parse()?,
    }))
}

fn group(gid: u32, context: &Context) -> anyhow::Result<String> {
    let name = accounts::name_of_group(gid, context)?;
    Ok(name.unwrap_or_else(|| gid.to_string()))
}
