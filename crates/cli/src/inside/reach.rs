//! A `PostgreSQL` database by its URL, reached as the service user will reach it: by a process of his own, with the driver
//! of the environment. The URL may have a password, so it goes through a pipe.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use buildbot_conda_core::foreign_text::ForeignText;
use serde::{Deserialize, Serialize};

use crate::output;
use crate::system::as_user;
use crate::system::children::{self, Bounds, Input};
use crate::system::values::Identity;

const PROGRAM: &str = concat!(
    include_str!("../database/tables.py"),
    include_str!("../../../launcher/buildbot_conda_runner/holders.py"),
    include_str!("reach.py")
);
/// What it may take: imports, a server that is far away, and tables to drop.
const LIMIT: Duration = Duration::from_mins(1);
/// Bytes of an answer.
const MOST_PRINTED: usize = 1 << 20;

/// A database, as an environment at `prefix` gets there.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reach {
    pub(crate) prefix: PathBuf,
    /// With everything: a secret.
    pub(crate) url: String,
    /// The same for people.
    pub(crate) place: String,
}

#[derive(Serialize, Deserialize)]
struct Request {
    #[serde(flatten)]
    reach: Reach,
    clear: bool,
}

/// What is in a database.
#[derive(Debug, Deserialize)]
struct Found {
    tables: u64,
    buildbot: bool,
    may_create: bool,
    account: ForeignText,
    database: ForeignText,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Answer<T> {
    Problem { problem: ForeignText },
    Found(T),
}

/// What is answered where there is nothing to say.
#[derive(Deserialize)]
struct Nothing {}

impl std::fmt::Debug for Reach {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.place)
    }
}

/// Has the account look whether it can make Buildbot's tables there.
///
/// # Errors
///
/// When it cannot, or something is there already.
pub(crate) fn ensure_usable(identity: &Identity, reach: &Reach) -> anyhow::Result<()> {
    let user = &identity.user;
    let place = &reach.place;
    let found: Found = call(identity, reach, false)
        .with_context(|| format!("connect to the database `{place}` as `{user}`"))?;
    let Found {
        tables,
        account,
        database,
        ..
    } = &found;
    if found.buildbot {
        bail!(
            "the database `{place}` already contains tables of Buildbot\n\
             hint: use an empty one; a master that shares a database, or moves to another host, is not created but \
             configured, see `docs/tasks.md`"
        );
    }
    if *tables > 0 {
        bail!(
            "the database `{place}` is not empty: it contains {tables} tables\nhint: use one of its own for the master"
        );
    }
    if !found.may_create {
        bail!(
            "`{account}` is not allowed to create tables in `{place}`\n\
             hint: as an administrator of the server, run `alter database \"{database}\" owner to \"{account}\"`"
        );
    }
    Ok(())
}

/// Has the account drop Buildbot's tables, unless another master uses them.
pub(crate) fn clear(identity: &Identity, reach: &Reach) -> anyhow::Result<()> {
    call::<Nothing>(identity, reach, true)
        .map(drop)
        .with_context(|| format!("drop the tables in `{}`", reach.place))
}

fn call<T: for<'de> Deserialize<'de>>(
    identity: &Identity,
    reach: &Reach,
    clear: bool,
) -> anyhow::Result<T> {
    let request = Request {
        reach: reach.clone(),
        clear,
    };
    let input = serde_json::to_string(&request).context("write a request")?;
    let (user, group) = (identity.user.as_str(), identity.group());
    let answer = as_user::call(user, group, &["reach"], Path::new("/"), &input)?;
    match serde_json::from_str(&answer).context("read an answer")? {
        Answer::Found(found) => Ok(found),
        Answer::Problem { problem } => bail!("{problem}"),
    }
}

/// As the service user: does what stands on standard input.
pub(crate) fn answer() -> anyhow::Result<()> {
    let request: Request = serde_json::from_reader(std::io::stdin()).context("read a request")?;
    let prefix = request.reach.prefix.to_str().context("read a path")?;
    let python = buildbot_conda_host::prefix_to_enter(prefix).join("bin/python");
    let mut command = Command::new(&python);
    command.args(["-c", PROGRAM]);
    let bounds = Bounds {
        time: Some(LIMIT),
        printed: MOST_PRINTED,
        interruptible: false,
    };
    let input = serde_json::to_vec(&request).context("write a request")?;
    let ended = children::collect(command, Input::Text(input), &bounds, |_| false)
        .with_context(|| format!("run `{}`", python.display()))?;
    let said = String::from_utf8_lossy(&ended.stderr);
    if !ended.is_success {
        let last = said.trim().lines().next_back();
        bail!(
            "`{}` failed: {}",
            python.display(),
            ForeignText::new(last.unwrap_or("no reason given"))
        );
    }
    let text = String::from_utf8(ended.stdout).context("read an answer, which is not UTF-8")?;
    output::print(text).map(drop)
}
