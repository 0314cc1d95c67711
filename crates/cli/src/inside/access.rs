//! What prevents an account from using its environment or its directory, determined by a process of that account.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use buildbot_conda_core::foreign_text::ForeignText;
use buildbot_conda_core::settings::Instance;
use buildbot_conda_core::values::AccountName;
use buildbot_conda_host::access::{Closed, closed_directory, closed_environment};
use serde::{Deserialize, Serialize};

use crate::output;
use crate::system::accounts;
use crate::system::as_user;
use crate::system::context::Context;

/// An account without any rights of its own, such as one that does not exist yet.
const NOBODY: &str = "nobody";

/// What is to be used.
#[derive(Debug, Serialize, Deserialize)]
struct Question {
    prefix: PathBuf,
    directory: PathBuf,
}

/// What is in the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Obstacle {
    /// What cannot be used because of it.
    pub(crate) path: ForeignText,
    pub(crate) at: ForeignText,
    pub(crate) mode: u32,
    /// Numeric user id of its owner.
    pub(crate) owner: u32,
}

impl Obstacle {
    fn new(path: &Path, closed: &Closed) -> Self {
        Self {
            path: ForeignText::of_path(path),
            at: ForeignText::of_path(&closed.at),
            mode: closed.mode,
            owner: closed.owner,
        }
    }

    /// For the environment at `prefix`, with the rights of this process.
    pub(crate) fn in_environment(prefix: &Path) -> Option<Self> {
        let closed = closed_environment(prefix)?;
        Some(Self::new(prefix, &closed))
    }

    /// For a directory, with the rights of this process.
    pub(crate) fn in_directory(path: &Path) -> Option<Self> {
        let closed = closed_directory(path)?;
        Some(Self::new(path, &closed))
    }

    /// As a sentence about the account `user`.
    pub(crate) fn sentence(&self, user: &str) -> String {
        let Self { path, at, mode, .. } = self;
        format!("`{user}` cannot read `{path}`: `{at}` is closed (mode {mode:04o})")
    }

    /// The account that could use it, where that is another one than `user` and not root.
    pub(crate) fn owner_beside(&self, user: &str, context: &Context) -> Option<String> {
        let owner = accounts::name_of_user(self.owner, context).ok().flatten();
        owner.filter(|name| self.owner != 0 && name != user)
    }
}

/// What prevents the account of an instance from using its environment or its directory. For an account that does not
/// exist yet, this is what everyone can use.
pub(crate) fn obstacle(instance: &Instance, context: &Context) -> anyhow::Result<Option<Obstacle>> {
    // Below a root directory, there are no other accounts.
    if context.is_elsewhere() {
        return Ok(None);
    }
    let question = Question {
        prefix: instance.prefix().as_str().into(),
        directory: instance.directory.as_str().into(),
    };
    let account = accounts::find(instance.user.as_str(), context)?;
    let own = rustix::process::geteuid();
    if account
        .as_ref()
        .is_some_and(|account| account.uid == own.as_raw())
    {
        return Ok(find(&question));
    }
    // Others than root see their own obstacles alone.
    if !own.is_root() {
        return Ok(None);
    }
    let (user, group) = match &account {
        Some(account) => (account.name.as_str(), instance.group.as_ref()),
        None => (NOBODY, None),
    };
    let input = serde_json::to_string(&question).context("write a request")?;
    let group = group.map(AccountName::as_str);
    let answer = as_user::call(user, group, &["access"], "/".as_ref(), &input)
        .with_context(|| format!("check what `{user}` can read"))?;
    serde_json::from_str(&answer).with_context(|| format!("check what `{user}` can read"))
}

/// As the account: answers the question on standard input.
pub(crate) fn answer() -> anyhow::Result<()> {
    let question: Question = serde_json::from_reader(std::io::stdin()).context("read a request")?;
    let text = serde_json::to_string(&find(&question)).context("write an answer")?;
    output::print(text).map(drop)
}

fn find(question: &Question) -> Option<Obstacle> {
    Obstacle::in_environment(&question.prefix)
        .or_else(|| Obstacle::in_directory(&question.directory))
}
