//! The backups of a master: one file for each, mode 0600, whose name says everything about it. A file gets its name only
//! when it is complete and on disk.

use std::fmt;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::paths;
use rustix::fs::Access;
use serde::Serialize;
use tempfile::TempPath;

use super::facts::{Facts, Relation};
use super::{Failure, Master, SCHEMA};
use crate::system::context::Context;

/// How many are kept.
const KEPT: usize = 5;
/// How every database begins: <https://www.sqlite.org/fileformat.html#the_database_header>.
const SQLITE: &[u8; 16] = b"SQLite format 3\0";
/// Bytes with which a backup says what it is.
pub(crate) const LONGEST_START: usize = SQLITE.len();
/// Space that is left free beyond a backup, in bytes.
const RESERVE: u64 = 16 << 20;

/// `20261122T123456Z-buildbot-3.11.9-schema-064.sqlite`: when it was made, the Buildbot that last
/// served from the database, the revision of its schema, and the kind of file. Sorted by name they
/// are sorted by time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BackupName {
    time: String,
    buildbot: String,
    revision: String,
    kind: FileKind,
}

/// Where the backups of a master are.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Made by root for the service user.
    directory: PathBuf,
    /// In the state directory: where earlier versions kept them, and where they go as long as the other cannot be written.
    former: PathBuf,
    state: PathBuf,
}

impl Place {
    /// `state` is the state directory of the instance, as this process has it.
    pub(crate) fn new(reference: &InstanceRef, state: &Path, context: &Context) -> Self {
        Self {
            directory: context.path(&paths::backup_directory(reference)),
            former: state.join("backups"),
            state: state.to_owned(),
        }
    }

    /// Where a new one goes.
    pub(crate) fn directory(&self) -> &Path {
        if self.is_ours() {
            &self.directory
        } else {
            &self.former
        }
    }

    /// Where notes about backups are: now, and in earlier versions.
    pub(super) fn of_notes(&self) -> [&Path; 2] {
        [&self.directory, &self.state]
    }

    /// Where a new note goes.
    pub(super) fn for_notes(&self) -> &Path {
        if self.is_ours() {
            &self.directory
        } else {
            &self.state
        }
    }

    fn is_ours(&self) -> bool {
        rustix::fs::access(&self.directory, Access::WRITE_OK | Access::EXEC_OK).is_ok()
    }

    /// The file of a backup that is there, or of a new one.
    pub(crate) fn path(&self, name: &BackupName) -> PathBuf {
        let name = name.to_string();
        let paths = [&self.directory, &self.former].map(|directory| directory.join(&name));
        let known = paths.into_iter().find(|path| path.exists());
        known.unwrap_or_else(|| self.directory().join(name))
    }
}

/// What is in a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FileKind {
    /// A `SQLite` database.
    Sqlite,
    /// `pg_dump --format=custom`.
    PgDump,
    /// `mysqldump`.
    Sql,
}

impl FileKind {
    /// What a database of this kind is backed up to; `None` where no tool is known.
    pub(crate) fn of(facts: &Facts) -> Option<Self> {
        match facts.kind.as_str() {
            "sqlite" => Some(Self::Sqlite),
            "postgresql" => Some(Self::PgDump),
            "mysql" => Some(Self::Sql),
            _ => None,
        }
    }

    /// Whether a file of this kind can begin with these bytes, at least [`LONGEST_START`] of them where it has so many.
    pub(crate) fn begins_with(self, start: &[u8]) -> bool {
        let starts: &[&[u8]] = match self {
            Self::Sqlite => &[SQLITE],
            Self::PgDump => &[b"PGDMP"],
            Self::Sql => &[b"-- MySQL dump", b"-- MariaDB dump", b"/*M!", b"/*!"],
        };
        starts.iter().any(|known| start.starts_with(known))
    }

    fn extension(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::PgDump => "pgdump",
            Self::Sql => "sql",
        }
    }
}

impl BackupName {
    /// The name of a backup made now, or of a copy that has come without one; one that is still free.
    pub(crate) fn now(master: &Master<'_>, facts: &Facts, kind: FileKind) -> Self {
        let buildbot = match facts.relation {
            Relation::Current => Some(facts.buildbot.to_string()),
            _ => master.last_version(),
        };
        let mut seconds = SystemTime::now();
        loop {
            let name = Self {
                time: compact(seconds),
                buildbot: word(buildbot.as_deref().unwrap_or("unknown")),
                revision: word(facts.revision_text()),
                kind,
            };
            if !master.backups.path(&name).exists() {
                return name;
            }
            seconds += Duration::from_secs(1);
        }
    }

    pub(crate) fn kind(&self) -> FileKind {
        self.kind
    }

    pub(crate) fn revision(&self) -> &str {
        &self.revision
    }
}

/// `20261122T123456Z`.
fn compact(time: SystemTime) -> String {
    let text = humantime::format_rfc3339_seconds(time).to_string();
    text.replace(['-', ':'], "")
}

/// A part of a file name: what a database says of itself must not lead anywhere else.
fn word(text: &str) -> String {
    text.chars()
        .map(|character| match character {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '+' | '_' => character,
            _ => '_',
        })
        .take(40)
        .collect()
}

impl fmt::Display for BackupName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            time,
            buildbot,
            revision,
            kind,
        } = self;
        let extension = kind.extension();
        write!(
            formatter,
            "{time}-buildbot-{buildbot}-schema-{revision}.{extension}"
        )
    }
}

impl FromStr for BackupName {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let parsed = || {
            let (stem, extension) = text.rsplit_once('.')?;
            let kinds = [FileKind::Sqlite, FileKind::PgDump, FileKind::Sql];
            let kind = kinds
                .into_iter()
                .find(|kind| kind.extension() == extension)?;
            let (time, rest) = stem.split_once("-buildbot-")?;
            let (buildbot, revision) = rest.split_once("-schema-")?;
            let good = |part: &str| !part.is_empty() && word(part) == part;
            (good(time) && good(buildbot) && good(revision) && time.len() == 16).then(|| Self {
                time: time.to_owned(),
                buildbot: buildbot.to_owned(),
                revision: revision.to_owned(),
                kind,
            })
        };
        parsed().ok_or_else(|| {
            let failure = Failure::new(1, format!("`{text}` is not the name of a backup"));
            failure.hint(
                "the names are of the form `20261122T123456Z-buildbot-4.3.0-schema-067.sqlite`",
            )
        })
    }
}

/// A backup as listings have it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Backup {
    /// File name, the argument of `restore`.
    pub(crate) name: String,
    /// `20261122T123456Z`.
    pub(crate) time: String,
    /// Version of Buildbot that last served from it.
    pub(crate) buildbot: String,
    pub(crate) schema: String,
    pub(crate) kind: FileKind,
    /// Bytes.
    pub(crate) size: u64,
}

/// The names of all backups, youngest first; files of other names are not ours.
pub(crate) fn names(place: &Place) -> Result<Vec<BackupName>, Failure> {
    let mut names = names_in(&place.directory)?;
    names.extend(names_in(&place.former)?);
    names.sort_by(|left, right| right.cmp(left));
    names.dedup();
    Ok(names)
}

/// The backups in a directory of copies that are beyond those that are kept.
pub(crate) fn superfluous(directory: &Path) -> Result<Vec<BackupName>, Failure> {
    Ok(names_in(directory)?.into_iter().skip(KEPT).collect())
}

fn names_in(directory: &Path) -> Result<Vec<BackupName>, Failure> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Failure::io("list", directory, &error)),
    };
    let mut names: Vec<BackupName> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    names.sort_by(|left, right| right.cmp(left));
    Ok(names)
}

/// All backups, youngest first.
pub(crate) fn list(place: &Place) -> Result<Vec<Backup>, Failure> {
    let described = |name: BackupName| {
        let metadata = fs::symlink_metadata(place.path(&name)).ok()?;
        Some(Backup {
            name: name.to_string(),
            time: name.time,
            buildbot: name.buildbot,
            schema: name.revision,
            kind: name.kind,
            size: metadata.len(),
        })
    };
    Ok(names(place)?.into_iter().filter_map(described).collect())
}

/// A place for a backup in the making, in the directory where it will stay, with room for `size`
/// bytes. What an interrupted one has left there is removed.
pub(crate) fn begin(place: &Place, size: u64) -> Result<TempPath, Failure> {
    let directory = place.directory();
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(Failure::io("create", directory, &error));
        }
        _ => {}
    }
    remove_leftovers(directory);
    ensure_space(directory, size)?;
    tempfile::Builder::new()
        .prefix(&format!("{PARTIAL}{}-", std::process::id()))
        .tempfile_in(directory)
        .map(tempfile::NamedTempFile::into_temp_path)
        .map_err(|error| Failure::io("write in", directory, &error))
}

/// Prefix of backups in the making, before the PID of their maker.
const PARTIAL: &str = ".partial-";

fn remove_leftovers(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let maker = name.to_str().and_then(|name| name.strip_prefix(PARTIAL));
        let pid = maker.and_then(|rest| rest.split('-').next());
        let gone = |pid: &str| !Path::new("/proc").join(pid).exists();
        if pid.is_some_and(gone) {
            // In the way of nothing but space, and tried again by the next backup.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// # Errors
///
/// 65 where less than `size` bytes and a reserve are free.
pub(crate) fn ensure_space(directory: &Path, size: u64) -> Result<(), Failure> {
    let Ok(found) = rustix::fs::statvfs(directory) else {
        return Ok(());
    };
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let needed = size.saturating_add(RESERVE);
    if free >= needed {
        return Ok(());
    }
    let text = format!(
        "not enough space in `{}`: {} MiB are needed, {} MiB are free",
        directory.display(),
        needed.div_ceil(1 << 20),
        free >> 20
    );
    Err(Failure::new(SCHEMA, text).hint("free some space there, then start again"))
}

/// Gives a complete backup its name, on disk when this returns.
pub(crate) fn complete(partial: TempPath, name: &BackupName) -> Result<(), Failure> {
    let directory = partial.parent().unwrap_or(Path::new("/")).to_owned();
    let path = directory.join(name.to_string());
    let finish = || {
        let file = File::open(&partial)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.sync_all()?;
        partial
            .persist_noclobber(&path)
            .map_err(|error| error.error)?;
        File::open(&directory)?.sync_all()
    };
    finish().map_err(|error| Failure::io("write", &path, &error))
}

/// Takes in a backup from elsewhere, such as another host's, under the name that it has there.
///
/// # Errors
///
/// When it is none, or there is another one of that name.
pub(crate) fn take_in(
    mut source: impl Read,
    size: u64,
    name: &BackupName,
    place: &Place,
) -> Result<(), Failure> {
    if place.path(name).exists() {
        let text = format!("the backup `{name}` already exists");
        return Err(Failure::new(1, text).hint(format!("`restore REF {name}` restores it")));
    }
    let mut start = Vec::new();
    let begun = source
        .by_ref()
        .take(LONGEST_START as u64)
        .read_to_end(&mut start);
    begun.map_err(|error| Failure::new(1, format!("read the backup: {error}")))?;
    if !name.kind().begins_with(&start) {
        return Err(Failure::new(1, no_backup(name)));
    }
    let partial = begin(place, size)?;
    let mut copy = || {
        let mut file = File::options().write(true).open(&partial)?;
        file.write_all(&start)?;
        io::copy(&mut source, &mut file)
    };
    copy().map_err(|error| Failure::io("write", &partial, &error))?;
    complete(partial, name)
}

/// Copies a file that has come without a name to where backups are in the making.
pub(crate) fn copy_plain(
    mut source: impl Read,
    size: u64,
    place: &Place,
) -> Result<TempPath, Failure> {
    let partial = begin(place, size)?;
    let mut copy = || {
        let mut file = File::options().write(true).open(&partial)?;
        io::copy(&mut source, &mut file)
    };
    copy().map_err(|error| Failure::io("write", &partial, &error))?;
    Ok(partial)
}

/// What is said of a file that does not begin as its name says.
pub(crate) fn no_backup(name: &BackupName) -> String {
    let what = match name.kind() {
        FileKind::Sqlite => "`SQLite` database",
        FileKind::PgDump => "dump by `pg_dump`",
        FileKind::Sql => "dump by `mysqldump`",
    };
    format!("`{name}` is not a {what}")
}

/// Removes the oldest beyond those that are kept; never one of `needed`.
pub(crate) fn prune(place: &Place, needed: &[&BackupName]) -> Result<(), Failure> {
    let names = names(place)?;
    let old = names
        .iter()
        .skip(KEPT)
        .filter(|name| !needed.contains(name));
    for name in old {
        let path = place.path(name);
        fs::remove_file(&path).map_err(|error| Failure::io("remove", &path, &error))?;
        eprintln!("removed the oldest backup `{name}`; {KEPT} are kept");
    }
    Ok(())
}

/// Seconds since 1970, for names that need a time and nothing else.
pub(crate) fn stamp() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "20261122T123456Z-buildbot-3.11.9-schema-064.sqlite";

    #[test]
    fn a_name_is_what_it_was_made_of() {
        let name: BackupName = NAME.parse().expect("it is one");
        assert_eq!(name.to_string(), NAME);
        assert_eq!((name.revision(), name.kind()), ("064", FileKind::Sqlite));
    }

    #[test]
    fn other_names_are_refused() {
        for text in [
            "",
            "state.sqlite",
            ".partial-1-x",
            "../20261122T123456Z-buildbot-3.11.9-schema-064.sqlite",
            "20261122T123456Z-buildbot-3.11.9-schema-064.zip",
            "20261122T123456Z-buildbot-../x-schema-064.sqlite",
            "20261122T123456Z-buildbot--schema-064.sqlite",
        ] {
            assert!(text.parse::<BackupName>().is_err(), "`{text}` was taken");
        }
    }

    /// Both directories are there, as after an upgrade from a version that kept them in the state directory.
    fn place() -> (tempfile::TempDir, Place) {
        let root = tempfile::tempdir().expect("a directory can be made");
        let state = root.path().join("state");
        let [directory, former] = [root.path().join("new"), state.join("backups")];
        for path in [&directory, &former] {
            fs::create_dir_all(path).expect("so can another");
        }
        let place = Place {
            directory,
            former,
            state,
        };
        (root, place)
    }

    #[test]
    fn backups_of_an_earlier_version_are_found_beside_new_ones() {
        let (_root, place) = place();
        let older: BackupName = NAME.parse().expect("it is one");
        fs::write(place.former.join(NAME), "").expect("written");
        let newer = NAME.replace("22T", "23T");
        let newer: BackupName = newer.parse().expect("it is one");
        complete(begin(&place, 0).expect("there is room"), &newer).expect("completed");
        assert_eq!(place.path(&newer), place.directory.join(newer.to_string()));
        assert_eq!(place.path(&older), place.former.join(NAME));
        assert_eq!(names(&place).expect("listed"), [newer, older]);
        assert_eq!(list(&place).expect("listed").len(), 2);
    }

    #[test]
    fn backups_are_made_where_earlier_versions_made_them_as_long_as_the_new_place_is_missing() {
        let (_root, place) = place();
        fs::remove_dir(&place.directory).expect("removed");
        assert_eq!(place.directory(), place.former);
        let name: BackupName = NAME.parse().expect("it is one");
        complete(begin(&place, 0).expect("there is room"), &name).expect("completed");
        assert_eq!(place.path(&name), place.former.join(NAME));
    }

    #[test]
    fn five_are_kept_and_none_that_is_needed_goes() {
        let (_root, place) = place();
        let all: Vec<BackupName> = (10..18)
            .map(|day| format!("202611{day}T000000Z-buildbot-4.3.0-schema-067.sqlite"))
            .map(|name| name.parse().expect("it is one"))
            .collect();
        for (number, name) in all.iter().enumerate() {
            let directory = [&place.directory, &place.former][number % 2];
            fs::write(directory.join(name.to_string()), "").expect("written");
        }
        prune(&place, &[&all[1]]).expect("pruned");
        let left = names(&place).expect("listed");
        let mut wanted: Vec<BackupName> = all[3..].to_vec();
        wanted.reverse();
        wanted.push(all[1].clone());
        assert_eq!(left, wanted);
    }

    #[test]
    fn what_cannot_fit_is_refused_before_it_is_begun() {
        let (_root, place) = place();
        let refused = begin(&place, 1 << 60).expect_err("no disk has an exbibyte");
        assert!(refused.reason.contains("MiB are needed"), "{refused}");
        assert_eq!(refused.status, SCHEMA);
    }
}
