//! What is unfinished of a verb that has begun: on disk before anything is done, gone when all of it is done or rolled
//! back. Whoever holds the lock is the only one who changes the host.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use buildbot_conda_host::lock::{self, FlockOperation};
use serde::{Deserialize, Serialize};

use super::step::Step;
use crate::system::context::Context;
use crate::system::files::{self, Found};

/// Below the package's state directory, mode 0600: the steps may hold secrets.
const JOURNAL: &str = "/var/lib/buildbot-conda/unfinished.json";
const LOCK: &str = "/var/lib/buildbot-conda/lock";
/// The format that is written. 1, which knew no `remaining`, is read as well.
const VERSION: u32 = 2;

/// The journal; while it is held, no other verb changes this host.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    _lock: File,
}

/// What has begun, and what is left to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Begun {
    version: u32,
    /// The title of the plan.
    pub(super) title: String,
    /// What rolls it back, in the order in which it is to be done.
    pub(super) undo: Vec<Step>,
    /// What completes it. Not empty once it has come to a step that nothing rolls back: from then on a plan only goes
    /// forward, and `undo` is empty.
    #[serde(default)]
    pub(super) remaining: Vec<Step>,
}

impl Begun {
    pub(super) fn new(title: &str) -> Self {
        Self {
            version: VERSION,
            title: title.to_owned(),
            undo: Vec::new(),
            remaining: Vec::new(),
        }
    }

    /// Whether it is going to be completed; rolled back otherwise.
    pub(super) fn goes_forward(&self) -> bool {
        !self.remaining.is_empty()
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        /// The one key that every version has.
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let head: Head = serde_json::from_str(text).context("read its format")?;
        if !(1..=VERSION).contains(&head.version) {
            bail!("its format is {} instead of {VERSION}", head.version);
        }
        let begun: Self = serde_json::from_str(text).context("read its steps")?;
        Ok(Self {
            version: VERSION,
            ..begun
        })
    }
}

impl Journal {
    /// Takes the lock.
    ///
    /// # Errors
    ///
    /// When another verb is at work.
    pub(super) fn lock(context: &Context) -> anyhow::Result<Self> {
        let path = context.path(JOURNAL);
        let lock_path = context.path(LOCK);
        let directory = path.parent().context("find the state directory")?;
        fs::create_dir_all(directory)
            .with_context(|| format!("create `{}`", directory.display()))?;
        let lock = match lock::take(&lock_path, FlockOperation::NonBlockingLockExclusive) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => bail!(
                "another `buildbot-conda` command is changing this host\nhint: try again when it has finished"
            ),
            other => other.with_context(|| format!("lock `{}`", lock_path.display()))?,
        };
        Ok(Self { path, _lock: lock })
    }

    pub(super) fn write(&self, begun: &Begun) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(begun).context("write the journal")?;
        files::write(&self.path, &text, 0o600)
    }

    pub(super) fn close(&self) -> anyhow::Result<()> {
        files::remove(&self.path)
    }

    /// Puts the journal aside, where a person can read it, and gives its new name; none where there is none.
    pub(super) fn put_aside(&self) -> anyhow::Result<Option<PathBuf>> {
        let aside = self.path.with_file_name("given-up.json");
        if matches!(files::inspect(&self.path)?, Found::Nothing) {
            return Ok(None);
        }
        files::move_to(&self.path, &aside)?;
        Ok(Some(aside))
    }

    /// What is unfinished.
    pub(super) fn read(&self) -> anyhow::Result<Option<Begun>> {
        match files::inspect(&self.path)? {
            Found::File { text, .. } => read(&self.path, &text).map(Some),
            _ => Ok(None),
        }
    }
}

/// What is unfinished, for those who only look; none also where it cannot be read or a verb is at work on it.
pub(crate) fn unfinished(context: &Context) -> anyhow::Result<Option<Begun>> {
    let path = context.path(JOURNAL);
    let Ok(text) = fs::read_to_string(&path) else {
        return Ok(None);
    };
    // A lock that nobody but root can take says more than the file.
    if lock::is_held(&context.path(LOCK)) {
        return Ok(None);
    }
    read(&path, &text).map(Some)
}

fn read(path: &Path, text: &str) -> anyhow::Result<Begun> {
    Begun::parse(text).map_err(|error| {
        anyhow!(
            "`{}` cannot be read by this version of `buildbot-conda`: {error:#}\n\
             hint: use the version that wrote it to complete or roll back the command, or discard it with `buildbot-conda recover --give-up`",
            path.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As version 1 wrote it: every step that it could leave behind.
    const VERSION_1: &str = include_str!("unfinished-1.json");

    #[test]
    fn what_the_version_before_left_is_understood() {
        let begun = Begun::parse(VERSION_1).unwrap();
        assert_eq!(begun.title, "create worker gpu");
        assert!(!begun.goes_forward());
        let shown: Vec<String> = begun.undo.iter().map(ToString::to_string).collect();
        expect_test::expect_file!["unfinished-1.txt"].assert_eq(&(shown.join("\n") + "\n"));
        // And written again it stays what it was.
        let text = serde_json::to_string(&begun).unwrap();
        assert_eq!(Begun::parse(&text).unwrap(), begun);
    }

    #[test]
    fn other_formats_are_refused_with_their_number() {
        for (text, reason) in [
            (
                "{\"version\":3,\"steps\":[]}",
                "its format is 3 instead of 2",
            ),
            ("{\"version\":0}", "its format is 0 instead of 2"),
            ("", "read its format"),
            (
                "{\"version\":1,\"title\":\"x\",\"undo\":[{\"explode\":{}}]}",
                "read its steps",
            ),
        ] {
            let error = Begun::parse(text).unwrap_err();
            assert_eq!(error.to_string(), reason);
        }
    }
}
