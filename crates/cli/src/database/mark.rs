//! The note `upgrade-in-progress` beside the backups: the database may be in pieces, and this is the backup that makes it
//! whole. The runner looks for it before anything touches the database.
//!
//! Earlier versions had it in the state directory, where `systemctl clean` removes it.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::backups::Place;
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
    pub(crate) fn read(place: &Place) -> Result<Option<Self>, Failure> {
        for directory in place.of_notes() {
            let path = directory.join(NAME);
            let text = match fs::read_to_string(&path) {
                Ok(text) => text,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(Failure::io("read", &path, &error)),
            };
            return match serde_json::from_str::<Self>(&text) {
                Ok(mark) if mark.version == VERSION => Ok(Some(mark)),
                _ => {
                    let text = format!("read `{}`: unknown format", path.display());
                    Err(Failure::new(SCHEMA, text).hint(
                        "make sure that the database is intact, or restore a backup by hand, then remove this file",
                    ))
                }
            };
        }
        Ok(None)
    }

    /// Writes it, on disk when this returns.
    pub(crate) fn write(&self, place: &Place) -> Result<(), Failure> {
        let directory = place.for_notes();
        let path = directory.join(NAME);
        let write = || {
            let mut file = NamedTempFile::with_prefix_in(".upgrade-", directory)?;
            serde_json::to_writer(&mut file, self)?;
            file.write_all(b"\n")?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            File::open(directory)?.sync_all()
        };
        write().map_err(|error| Failure::io("write", &path, &error))?;
        let others = place.of_notes().into_iter();
        others
            .filter(|other| *other != directory)
            .try_for_each(remove_from)
    }

    /// Removes it, and tells the disk. The former one goes first: alone it would speak of an earlier upgrade.
    pub(crate) fn remove(place: &Place) -> Result<(), Failure> {
        let mut directories = place.of_notes().into_iter().rev();
        directories.try_for_each(remove_from)
    }
}

fn remove_from(directory: &Path) -> Result<(), Failure> {
    let path = directory.join(NAME);
    let removed = match fs::remove_file(&path) {
        Ok(()) => File::open(directory).and_then(|directory| directory.sync_all()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    removed.map_err(|error| Failure::io("remove", &path, &error))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use buildbot_conda_core::names::{InstanceRef, Role};
    use buildbot_conda_core::paths;

    use super::*;
    use crate::system::context::Context;

    fn mark(attempts: u32) -> Mark {
        Mark {
            version: VERSION,
            purpose: Purpose::Upgrade,
            backup: None,
            kind: "sqlite".into(),
            place: "state.sqlite".into(),
            revision: None,
            attempts,
        }
    }

    fn attempts(place: &Place) -> Option<u32> {
        let mark = Mark::read(place).expect("it can be read");
        mark.map(|mark| mark.attempts)
    }

    /// The places below a temporary directory, and the two directories, of which the first is made by root.
    fn places(root: &Path) -> (Place, [PathBuf; 2]) {
        let context = Context::new(Some(root.to_owned()));
        let reference = InstanceRef::plain(Role::Master);
        let state = context.path(&paths::state_directory(&reference));
        let backups = context.path(&paths::backup_directory(&reference));
        fs::create_dir_all(&state).expect("a directory");
        (Place::new(&reference, &state, &context), [backups, state])
    }

    #[test]
    fn a_mark_is_beside_the_backups_and_one_of_an_earlier_version_is_read() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let (place, [backups, state]) = places(root.path());
        assert_eq!(attempts(&place), None);
        mark(1)
            .write(&place)
            .expect("root has made no directory yet");
        assert!(state.join(NAME).exists());
        fs::create_dir_all(&backups).expect("a directory");
        assert_eq!(attempts(&place), Some(1));
        mark(2).write(&place).expect("written");
        assert!(backups.join(NAME).exists() && !state.join(NAME).exists());
        assert_eq!(attempts(&place), Some(2));
        fs::copy(backups.join(NAME), state.join(NAME)).expect("as after a kill");
        Mark::remove(&place).expect("removed");
        assert_eq!(attempts(&place), None);
        Mark::remove(&place).expect("nothing is there any more");
        mark(3).write(&place).expect("written");
        fs::remove_dir_all(&state).expect("as `systemctl clean` does");
        assert_eq!(attempts(&place), Some(3));
        Mark::remove(&place).expect("removed");
        assert_eq!(attempts(&place), None);
    }
}
