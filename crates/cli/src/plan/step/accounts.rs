//! Steps with accounts and groups of the system.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use buildbot_conda_core::values::AccountName;
use serde::{Deserialize, Serialize};

use super::files::remove_directory;
use super::{Deed, Step, Undo};
use crate::output::harmless;
use crate::system::{accounts, programs};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum AccountStep {
    /// An account of the system.
    CreateAccount { name: AccountName, home: PathBuf },
    /// The account goes, its home if it is empty.
    RemoveAccount { name: AccountName, home: PathBuf },
    /// A program of the system that changes accounts, such as `usermod`, and the steps that roll that back.
    Run {
        words: Vec<String>,
        /// What it does, for people; the key is that of version 1.
        #[serde(rename = "told")]
        summary: String,
        back: Vec<Step>,
    },
}

impl fmt::Display for AccountStep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateAccount { name, home } => {
                let home = harmless(&home.display().to_string());
                write!(formatter, "create the account `{name}`, home `{home}`")
            }
            Self::RemoveAccount { name, .. } => write!(formatter, "remove the account `{name}`"),
            Self::Run { summary, .. } => formatter.write_str(&harmless(summary)),
        }
    }
}

impl Deed for AccountStep {
    fn undo(&self) -> anyhow::Result<Undo> {
        Ok(match self {
            Self::CreateAccount { name, home } => Undo::by(Self::RemoveAccount {
                name: name.clone(),
                home: home.clone(),
            }),
            Self::RemoveAccount { .. } => Undo::Impossible,
            Self::Run { back, .. } => Undo::Steps(back.clone()),
        })
    }

    fn perform(&self) -> anyhow::Result<()> {
        match self {
            Self::CreateAccount { name, home } => accounts::create(name, home, "Buildbot worker"),
            Self::RemoveAccount { name, home } => remove_account(name, home),
            Self::Run { words, .. } => {
                let mut command = Command::new(&words[0]);
                command.args(&words[1..]);
                programs::run(command)
            }
        }
    }

    /// `deluser` refuses an account that somebody has logged in with, or that has a process left.
    fn relies_on_others(&self) -> bool {
        matches!(self, Self::RemoveAccount { .. })
    }
}

fn remove_account(name: &AccountName, home: &Path) -> anyhow::Result<()> {
    if accounts::find_user(name.as_str()).is_ok() {
        // Without `--system`, which refuses people's accounts: some that a profile has are such.
        let mut command = Command::new("deluser");
        command.args(["--quiet", name.as_str()]);
        programs::run(command)?;
    }
    remove_directory(home)
}
