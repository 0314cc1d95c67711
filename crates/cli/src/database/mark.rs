//! The note `upgrade-in-progress` in the state directory: the database may be in pieces, and this
//! is the backup that makes it whole. The runner looks for it before anything touches the database.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::facts::Facts;
use super::{Failure, SCHEMA};
use buildbot_conda_core::foreign_text::ForeignText;

const NAME: &str = "upgrade-in-progress";
const VERSION: u32 = 1;

/// What was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Purpose {
    Upgrade,
    Restore,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    version: u32,
    pub(crate) purpose: Purpose,
    /// Name of the backup in `backups/`; none where no tool could make one.
    pub(crate) backup: Option<String>,
    /// The database, as [`Facts`] has it.
    pub(crate) kind: ForeignText,
    pub(crate) place: ForeignText,
    /// Revision of the schema in the backup.
    pub(crate) revision: Option<ForeignText>,
    /// How often an upgrade has been begun since the backup was made.
    pub(crate) attempts: u32,
}

impl Mark {
    pub(crate) fn new(purpose: Purpose, backup: Option<String>, facts: &Facts) -> Self {
        Self {
            version: VERSION,
            purpose,
            backup,
            kind: facts.kind.clone(),
            place: facts.place.clone(),
            revision: facts.revision.clone(),
            attempts: 0,
        }
    }

    /// The mark of an unfinished piece of work, if there is one.
    ///
    /// # Errors
    ///
    /// It is there but says nothing that can be used: somebody has to look.
    pub(crate) fn read(state: &Path) -> Result<Option<Self>, Failure> {
        let path = state.join(NAME);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::io("read", &path, &error)),
        };
        match serde_json::from_str::<Self>(&text) {
            Ok(mark) if mark.version == VERSION => Ok(Some(mark)),
            _ => {
                let text = format!("read `{}`: unknown format", path.display());
                Err(Failure::new(SCHEMA, text).hint(
                    "make sure that the database is intact, or restore a backup by hand, then remove this file",
                ))
            }
        }
    }

    /// Writes it, on disk when this returns.
    pub(crate) fn write(&self, state: &Path) -> Result<(), Failure> {
        let path = state.join(NAME);
        let write = || {
            let mut file = NamedTempFile::with_prefix_in(".upgrade-", state)?;
            serde_json::to_writer(&mut file, self)?;
            file.write_all(b"\n")?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            File::open(state)?.sync_all()
        };
        write().map_err(|error| Failure::io("write", &path, &error))
    }

    /// Removes it, and tells the disk.
    pub(crate) fn remove(state: &Path) -> Result<(), Failure> {
        let path = state.join(NAME);
        let remove = || match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => File::open(state)?.sync_all(),
        };
        remove().map_err(|error| Failure::io("remove", &path, &error))
    }
}
