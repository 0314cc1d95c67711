//! `SQLite` files: copied by `SQLite`'s online backup while a master may write to them, and put back as
//! files, which works whatever state they are in.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::backups::{self, BackupName};
use super::progress::Progress;
use super::{Failure, Master, SCHEMA};
use crate::system::children::{self, Stream};

const PROGRAM: &str = include_str!("copy.py");
/// `copy.py` ends with it when the database, or what became of it, is damaged.
const DAMAGED: i32 = 3;

/// Makes the backup `name` of the file `source`, checked and on disk when this returns.
pub(super) fn back_up(
    master: &Master<'_>,
    source: &Path,
    size: u64,
    name: &BackupName,
    progress: &Progress,
) -> Result<(), Failure> {
    let partial = backups::begin(&master.backups, size)?;
    let command = master.python(PROGRAM, &[source.into(), partial.as_os_str().into()])?;
    let mut said = String::new();
    let status = children::run(command, None, |stream, line| match stream {
        Stream::Stdout => {
            if let Some(percent) = percent(line) {
                progress.status(&format!("backing up the database: {percent} %"));
            }
        }
        Stream::Stderr => said.push_str(line),
    });
    let failed = |reason: &str| {
        let text = format!("back up `{}`: {reason}", source.display());
        Failure::new(SCHEMA, text)
    };
    let status = status.map_err(|error| failed(&error.to_string()))?;
    if status.code() == Some(DAMAGED) {
        return Err(damaged(source, &said, master));
    }
    if !status.success() {
        return Err(failed(if said.is_empty() {
            "no reason given"
        } else {
            &said
        }));
    }
    backups::complete(partial, name)
}

pub(super) fn damaged(source: &Path, said: &str, master: &Master<'_>) -> Failure {
    let text = format!("the database `{}` is damaged: {said}", source.display());
    let reference = master.reference();
    Failure::new(SCHEMA, text).hint(format!(
        "`buildbot-conda restore {reference}` restores the last backup and keeps the damaged file"
    ))
}

fn percent(line: &str) -> Option<u64> {
    let (done, total) = line.split_once(' ')?;
    let (done, total): (u64, u64) = (done.parse().ok()?, total.parse().ok()?);
    (done * 100).checked_div(total)
}

/// Puts a backup in the place of the file `target`. Only for when a mark says what is going on:
/// interrupted, it has to be done again.
pub(super) fn put_back(backup: &Path, target: &Path) -> Result<(), Failure> {
    let failed = |error: io::Error| {
        let (from, to) = (backup.display(), target.display());
        Failure::new(SCHEMA, format!("restore `{from}` to `{to}`: {error}"))
    };
    // Before anything is removed: there is something to restore, and it is a database.
    let mut source = File::open(backup).map_err(failed)?;
    let mode = fs::metadata(target).map_or(0o600, |metadata| metadata.permissions().mode() & 0o666);
    // What is in the logs belongs to the old file and would be applied to the new one.
    for log in logs(target) {
        remove(&log).map_err(failed)?;
    }
    let directory = target.parent().unwrap_or(Path::new("/"));
    let size = source.metadata().map_err(failed)?.len();
    if backups::ensure_space(directory, size).is_err() {
        remove(target).map_err(failed)?;
    }
    // One name for all attempts: what an interrupted one has left does not stay.
    let partial = with_end(target, ".restoring");
    let mut copy = || {
        remove(&partial)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&partial)?;
        io::copy(&mut source, &mut file)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&partial, target)?;
        File::open(directory)?.sync_all()
    };
    copy().map_err(failed)
}

/// Keeps a file that is no database any more beside the place of the new one.
pub(super) fn set_aside(file: &Path) -> Result<PathBuf, Failure> {
    let aside = aside(file);
    for (from, to) in [(file.to_owned(), aside.clone())]
        .into_iter()
        .chain(logs(file).into_iter().zip(logs(&aside)))
    {
        match fs::rename(&from, &to) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(Failure::io("rename", &from, &error));
            }
            _ => {}
        }
    }
    Ok(aside)
}

fn aside(file: &Path) -> PathBuf {
    with_end(file, &format!(".damaged-{}", backups::stamp()))
}

/// Names of the files that `SQLite` has beside a database, <https://sqlite.org/tempfiles.html>.
fn logs(file: &Path) -> Vec<PathBuf> {
    let ends = ["-wal", "-shm", "-journal"];
    ends.iter().map(|end| with_end(file, end)).collect()
}

fn with_end(file: &Path, end: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(end);
    name.into()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_takes_the_place_of_a_file_and_of_its_logs() {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let (backup, target) = (directory.path().join("b"), directory.path().join("t"));
        fs::write(&backup, "new").expect("written");
        for path in [vec![target.clone()], logs(&target)].concat() {
            fs::write(path, "old").expect("written");
        }
        put_back(&backup, &target).expect("restored");
        assert_eq!(fs::read_to_string(&target).expect("read"), "new");
        assert!(logs(&target).iter().all(|log| !log.exists()));
    }

    #[test]
    fn nothing_is_removed_for_a_backup_that_is_not_there() {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let target = directory.path().join("t");
        fs::write(&target, "old").expect("written");
        assert!(put_back(&directory.path().join("b"), &target).is_err());
        assert_eq!(fs::read_to_string(&target).expect("read"), "old");
    }
}
