//! What is to be taken back of a verb that has begun: on disk before anything is done, gone when
//! all of it is done or taken back. Whoever holds the lock is the only one who changes the host.

use std::fs::{self, File};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::Step;
use crate::system::context::Context;
use crate::system::files::{self, Found};

/// Below the package's state directory, mode 0600: the steps may hold secrets.
const JOURNAL: &str = "/var/lib/buildbot-conda/unfinished.json";
const LOCK: &str = "/var/lib/buildbot-conda/lock";
/// The format; another one is not understood.
const VERSION: u32 = 1;

/// The open journal; while it is held, no other verb changes this host.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    _lock: File,
}

/// What has begun and how it is taken back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Begun {
    version: u32,
    /// The title of the plan.
    pub(super) title: String,
    /// In the order in which they are to be done.
    pub(super) undo: Vec<Step>,
}

impl Begun {
    pub(super) fn new(title: &str) -> Self {
        Self {
            version: VERSION,
            title: title.to_owned(),
            undo: Vec::new(),
        }
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
        let lock = fs::create_dir_all(directory)
            .and_then(|()| {
                File::options()
                    .create(true)
                    .truncate(false)
                    .write(true)
                    .open(&lock_path)
            })
            .with_context(|| format!("open `{}`", lock_path.display()))?;
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!(
                "another `buildbot-conda` that changes this host is at work\nhint: try again when it has ended"
            );
        }
        Ok(Self { path, _lock: lock })
    }

    /// For those who only look: says that something is going to be taken back first.
    pub(crate) fn announce_unfinished(context: &Context) {
        let text = fs::read_to_string(context.path(JOURNAL)).unwrap_or_default();
        if let Ok(begun) = serde_json::from_str::<Begun>(&text) {
            let title = begun.title;
            eprintln!("`buildbot-conda {title}` was interrupted, it would be taken back first");
        }
    }

    pub(super) fn write(&self, begun: &Begun) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(begun).context("write the journal")?;
        files::write(&self.path, &text, 0o600)
    }

    pub(super) fn close(&self) -> anyhow::Result<()> {
        files::remove(&self.path)
    }

    pub(super) fn read(&self) -> anyhow::Result<Option<Begun>> {
        let Found::File { text, .. } = files::look(&self.path)? else {
            return Ok(None);
        };
        let name = self.path.display();
        let begun: Begun = serde_json::from_str(&text).with_context(|| format!("read `{name}`"))?;
        if begun.version != VERSION {
            bail!("`{name}` is of another version of this program, which has to finish it");
        }
        Ok(Some(begun))
    }
}
