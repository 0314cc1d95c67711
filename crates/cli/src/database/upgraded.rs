//! The note `last-upgrade.json` in the state directory: from which environment the database was upgraded, and the backup
//! of before. When that was a generation of a managed environment which then did not come to serve, the start from the
//! one that serves puts the backup back.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::backups::{self, BackupName};
use super::facts::{Facts, Relation};
use super::{Failure, Master};

const NAME: &str = "last-upgrade.json";

#[derive(Debug, Serialize, Deserialize)]
struct Upgraded {
    /// The prefix whose Buildbot did it.
    prefix: PathBuf,
    /// Name of the backup.
    backup: String,
}

/// Notes an upgrade, on disk when this returns.
pub(super) fn note(master: &Master<'_>, backup: &str) -> Result<(), Failure> {
    let note = Upgraded {
        prefix: buildbot_conda_host::prefix_to_enter(master.instance.prefix().as_str()),
        backup: backup.to_owned(),
    };
    let path = master.state.join(NAME);
    let write = || {
        let mut file = NamedTempFile::with_prefix_in(".upgraded-", &master.state)?;
        serde_json::to_writer(&mut file, &note)?;
        file.write_all(b"\n")?;
        file.as_file().sync_all()?;
        file.persist(&path)?;
        File::open(&master.state)?.sync_all()
    };
    write().map_err(|error| Failure::io("write", &path, &error))
}

/// The backup that is to be put back, and the prefix of the generation that did not come to serve.
pub(super) fn to_be_taken_back(
    master: &Master<'_>,
    facts: &Facts,
) -> Option<(BackupName, PathBuf)> {
    if facts.relation != Relation::Newer {
        return None;
    }
    let tried = buildbot_conda_host::interrupted_prefix(master.instance.prefix().as_str())?;
    let backup = backup_of(&master.state, &tried)?;
    let is_there = backups::names(&master.backups).ok()?.contains(&backup);
    let suits = Some(backup.revision()) == facts.head.as_deref();
    (is_there && suits).then_some((backup, tried))
}

/// What was backed up before the upgrade by this prefix, if that was the last one.
pub(crate) fn backup_of(state: &Path, prefix: &Path) -> Option<BackupName> {
    let text = fs::read_to_string(state.join(NAME)).ok()?;
    let note: Upgraded = serde_json::from_str(&text).ok()?;
    (note.prefix == prefix)
        .then(|| note.backup.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_upgrade_by_that_prefix_is_taken_back() {
        let state = tempfile::tempdir().expect("a directory can be made");
        let name = "20261122T123456Z-buildbot-3.11.9-schema-066.sqlite";
        assert_eq!(backup_of(state.path(), Path::new("/envs/a")), None);
        let text = format!(r#"{{"prefix": "/envs/a", "backup": "{name}"}}"#);
        fs::write(state.path().join(NAME), text).expect("written");
        let found = backup_of(state.path(), Path::new("/envs/a"));
        assert_eq!(found.map(|name| name.to_string()).as_deref(), Some(name));
        assert_eq!(backup_of(state.path(), Path::new("/envs/b")), None);
    }
}
