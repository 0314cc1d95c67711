//! Accounts: created in the same way as by the package and `create`; of existing ones, only what can be changed during
//! use is changed.

use std::path::PathBuf;

use anyhow::Context as _;
use buildbot_conda_core::values::AccountName;

use super::{Draft, Wish};
use crate::host::differences::Difference;
use crate::host::manifest::Account;
use crate::plan::{AccountStep, Step};
use crate::system::accounts;
use crate::system::context::Context;

pub(super) fn account(
    name: &AccountName,
    difference: &Difference,
    wish: &Wish<'_>,
    context: &Context,
    draft: &mut Draft,
) -> anyhow::Result<()> {
    let by_name = |accounts: &'_ [Account]| {
        let mut accounts = accounts.iter();
        accounts.find(|one| one.name == *name).cloned()
    };
    let wanted = by_name(&wish.profile.manifest.accounts).context("look up an account")?;
    let there = by_name(&wish.host.profile.manifest.accounts);
    for group in &wanted.groups {
        let words = vec!["groupadd".to_owned(), "--system".to_owned(), group.clone()];
        let is_planned = |step: &Step| matches!(step, Step::Account(AccountStep::Run { words: other, .. }) if *other == words);
        if !accounts::has_group(group, context)? && !draft.accounts.iter().any(is_planned) {
            draft.accounts.push(
                AccountStep::Run {
                    summary: format!("create the group `{group}`"),
                    words,
                    back: Vec::new(),
                }
                .into(),
            );
        }
    }
    if there.is_none() {
        let home = PathBuf::from(&wanted.home);
        let remove = AccountStep::RemoveAccount {
            name: name.clone(),
            home,
        }
        .into();
        let mut words: Vec<String> = ["adduser", "--quiet", "--home", &wanted.home]
            .map(str::to_owned)
            .into();
        words.extend(["--shell", &wanted.shell, "--gecos", "Buildbot"].map(str::to_owned));
        if wanted.system {
            words.push("--system".to_owned());
        } else {
            words.push("--disabled-password".to_owned());
        }
        if wanted.group == name.as_str() && !accounts::has_group(name.as_str(), context)? {
            // Accounts of people have their own group anyway.
            words.extend(wanted.system.then(|| "--group".to_owned()));
        } else {
            words.extend(["--ingroup".to_owned(), wanted.group.clone()]);
        }
        words.push(name.to_string());
        draft.accounts.push(
            AccountStep::Run {
                summary: format!("create the account `{name}`, home `{}`", wanted.home),
                words,
                back: vec![remove],
            }
            .into(),
        );
    }
    let has = there.clone().unwrap_or_else(|| Account {
        groups: Vec::new(),
        ..wanted.clone()
    });
    if (&has.groups, &has.shell) != (&wanted.groups, &wanted.shell) {
        let words = |account: &Account| {
            let groups = account.groups.join(",");
            [
                "usermod",
                "--groups",
                &groups,
                "--shell",
                &account.shell,
                name.as_str(),
            ]
            .map(str::to_owned)
            .to_vec()
        };
        let back = there.as_ref().map(|there| {
            AccountStep::Run {
                summary: format!("restore the account `{name}`"),
                words: words(there),
                back: Vec::new(),
            }
            .into()
        });
        draft.accounts.push(
            AccountStep::Run {
                summary: format!(
                    "change the account `{name}`: groups `{}`, shell `{}`",
                    wanted.groups.join(","),
                    wanted.shell
                ),
                words: words(&wanted),
                back: back.into_iter().collect(),
            }
            .into(),
        );
        let own = wish.instances(|instance| instance.user == *name);
        draft.changed.extend(own);
    }
    if (&has.group, &has.home, has.system) != (&wanted.group, &wanted.home, wanted.system) {
        draft.left.push(format!(
            "manual change needed: {difference}\nhint: change group and home of an account with `usermod` while none of its processes are running"
        ));
    }
    Ok(())
}
