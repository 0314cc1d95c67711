//! Environments and generations on disk. Every change is a single rename, and is written to disk before the next step
//! starts, so an interruption leaves either the old or the new state. A change of the current generation ends when the
//! link is replaced; [`crate::change`] describes `.changing`, which exists until then.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use buildbot_conda_host::lock::{self, FlockOperation};

use crate::change::{CHANGING, Change, InForce};
use crate::{EnvironmentName, Error, GenerationId};

/// Where a generation is made.
pub const BUILDING: &str = ".building";
/// The link to the generation that serves.
pub const CURRENT: &str = "current";
/// The lock of a generation, in its `conda-meta`: an `@EXPLICIT` list with sha256.
pub const LOCK_FILE: &str = "conda-meta/buildbot-conda.lock";

/// The name of a generation while it is removed.
const REMOVING: &str = ".removing";
/// The name of a new link before it replaces the old one.
const NEXT: &str = ".next";
/// One line for each switch, the newest last: the generation that served from then on.
const HISTORY: &str = "history";
/// What is locked.
const LOCK: &str = ".lock";

/// The directory of all environments.
#[derive(Debug, Clone)]
pub struct Store(PathBuf);

/// The directory of one environment, which need not be there yet.
#[derive(Debug, Clone)]
pub struct Environment {
    name: EnvironmentName,
    directory: PathBuf,
}

/// While this value or a copy in a child process exists, no other process changes the environment.
#[derive(Debug)]
pub struct Lock {
    file: File,
    unfinished: Option<Change>,
}

impl Store {
    /// The store in this directory, which need not be there yet.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self(directory.into())
    }

    /// One environment of it.
    pub fn environment(&self, name: &EnvironmentName) -> Environment {
        Environment {
            name: name.clone(),
            directory: self.0.join(name.as_str()),
        }
    }

    /// Every environment that has a directory, by name.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn environments(&self) -> Result<Vec<Environment>, Error> {
        let mut found = Vec::new();
        for name in entries(&self.0)? {
            if let Ok(name) = name.parse() {
                found.push(self.environment(&name));
            }
        }
        found.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    }
}

impl Environment {
    /// What it is called.
    pub fn name(&self) -> &EnvironmentName {
        &self.name
    }

    /// Where its generations are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The prefix of a generation, there or not.
    pub fn prefix(&self, generation: &GenerationId) -> PathBuf {
        self.directory.join(generation.as_str())
    }

    /// The generation that serves; none before the first one is made.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], also where the link leads elsewhere.
    pub fn current(&self) -> Result<Option<GenerationId>, Error> {
        let link = self.directory.join(CURRENT);
        match fs::read_link(&link) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(Error::io("read", &link)(cause)),
            Ok(target) => Ok(Some(target.to_string_lossy().parse()?)),
        }
    }

    /// Every complete generation, the oldest first.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn generations(&self) -> Result<Vec<GenerationId>, Error> {
        let mut found = Vec::new();
        for name in entries(&self.directory)? {
            let Ok(generation) = name.parse::<GenerationId>() else {
                continue;
            };
            let lock = self.prefix(&generation).join(LOCK_FILE);
            let made = fs::metadata(&lock).and_then(|metadata| metadata.modified());
            found.push((made.map_err(Error::io("examine", &lock))?, generation));
        }
        found.sort();
        Ok(found
            .into_iter()
            .map(|(_, generation)| generation)
            .collect())
    }

    /// The generation that served before the current one and is still there.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn previous(&self) -> Result<Option<GenerationId>, Error> {
        let current = self.current()?;
        let history = self.history()?;
        let mut before = history.into_iter().rev();
        Ok(before.find(|generation| {
            Some(generation) != current.as_ref() && self.prefix(generation).is_dir()
        }))
    }

    fn history(&self) -> Result<Vec<GenerationId>, Error> {
        let path = self.directory.join(HISTORY);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            other => other.map_err(Error::io("read", &path))?,
        };
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// Makes the directory where there is none, keeps others from changing it, and removes what an interrupted
    /// command has left.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] when another command holds it, [`Error::Io`].
    pub fn lock(&self) -> Result<Lock, Error> {
        self.lock_by(FlockOperation::NonBlockingLockExclusive)
    }

    /// As [`Environment::lock`], but waits until no other process holds the lock.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn lock_when_free(&self) -> Result<Lock, Error> {
        self.lock_by(FlockOperation::LockExclusive)
    }

    fn lock_by(&self, operation: FlockOperation) -> Result<Lock, Error> {
        make_directories(&self.directory)?;
        let path = self.directory.join(LOCK);
        let file = match lock::take(&path, operation) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Err(Error::Busy(self.name.to_string()));
            }
            other => other.map_err(Error::io("lock", &path))?,
        };
        let mut lock = Lock {
            file,
            unfinished: None,
        };
        self.sweep(&lock)?;
        remove_file(&self.directory.join(NEXT))?;
        self.note_in_history()?;
        lock.unfinished = self.unfinished(&lock)?;
        Ok(lock)
    }

    /// Removes incomplete and partly removed generations.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn sweep(&self, _lock: &Lock) -> Result<(), Error> {
        for leftover in [BUILDING, REMOVING] {
            remove_tree(&self.directory.join(leftover))?;
        }
        Ok(())
    }

    /// Notes a change before anything is done of it. While the answer lives, and this process, instances that start
    /// enter the new generation; all others enter the one that the link names.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn begin_change(&self, change: &Change, _lock: &Lock) -> Result<InForce, Error> {
        let next = self.directory.join(NEXT);
        remove_file(&next)?;
        let in_force = InForce::write(change, &next)?;
        self.take_place(&next, CHANGING)?;
        Ok(in_force)
    }

    /// What an interrupted change still has to bring back is less now.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn note_change(&self, change: &Change, lock: &Lock) -> Result<(), Error> {
        self.begin_change(change, lock).map(drop)
    }

    /// Confirms the generation that is current now.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn end_change(&self, _lock: &Lock) -> Result<(), Error> {
        remove_file(&self.directory.join(CHANGING))?;
        self.sync()
    }

    /// A change that did not come to its end. One whose link is switched has nothing left to do but to be forgotten.
    fn unfinished(&self, lock: &Lock) -> Result<Option<Change>, Error> {
        let path = self.directory.join(CHANGING);
        match Change::read(&path)? {
            None if !path.exists() => Ok(None),
            Some(change) if self.current()?.as_ref() == Some(&change.from) => Ok(Some(change)),
            _ => {
                self.end_change(lock)?;
                Ok(None)
            }
        }
    }

    /// Makes a complete generation current, and records it in the history.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]; then either the previous or the new generation is current.
    pub fn switch(&self, generation: &GenerationId, _lock: &Lock) -> Result<(), Error> {
        let prefix = self.prefix(generation);
        fs::metadata(prefix.join(LOCK_FILE)).map_err(Error::io("examine", &prefix))?;
        let next = self.directory.join(NEXT);
        remove_file(&next)?;
        symlink(generation.as_str(), &next).map_err(Error::io("create", &next))?;
        self.take_place(&next, CURRENT)?;
        self.note_in_history()
    }

    /// Makes the generation that serves the last one of the history.
    fn note_in_history(&self) -> Result<(), Error> {
        let (current, mut history) = (self.current()?, self.history()?);
        let Some(current) = current.filter(|current| history.last() != Some(current)) else {
            return Ok(());
        };
        history.push(current);
        let lines: Vec<String> = history.iter().map(|line| format!("{line}\n")).collect();
        let next = self.directory.join(NEXT);
        fs::write(&next, lines.concat()).map_err(Error::io("write", &next))?;
        self.take_place(&next, HISTORY)
    }

    /// Renames a file of ours and syncs it to disk.
    fn take_place(&self, file: &Path, name: &str) -> Result<(), Error> {
        let place = self.directory.join(name);
        fs::rename(file, &place).map_err(Error::io("write", &place))?;
        self.sync()
    }

    /// Syncs the names in the directory to disk.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn sync(&self) -> Result<(), Error> {
        File::open(&self.directory)
            .and_then(|directory| directory.sync_all())
            .map_err(Error::io("write", &self.directory))
    }

    /// Removes a generation: it has no name any more before its first file goes.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn remove(&self, generation: &GenerationId, _lock: &Lock) -> Result<(), Error> {
        let prefix = self.prefix(generation);
        let removing = self.directory.join(REMOVING);
        fs::rename(&prefix, &removing).map_err(Error::io("remove", &prefix))?;
        self.sync()?;
        remove_tree(&removing)
    }

    /// Removes the environment with all generations.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn remove_all(&self, lock: &Lock) -> Result<(), Error> {
        remove_file(&self.directory.join(CURRENT))?;
        self.sync()?;
        for generation in self.generations()? {
            self.remove(&generation, lock)?;
        }
        remove_tree(&self.directory)
    }
}

impl Lock {
    /// Changes that an earlier command has started and not completed.
    pub fn unfinished(&self) -> Option<&Change> {
        self.unfinished.as_ref()
    }

    /// The open file, for a child process that must hold the lock too.
    pub fn file(&self) -> &File {
        &self.file
    }
}

/// Creates a directory and its parents, accessible to service accounts regardless of the umask.
fn make_directories(directory: &Path) -> Result<(), Error> {
    let missing: Vec<&Path> = directory
        .ancestors()
        .take_while(|ancestor| !ancestor.exists())
        .collect();
    for ancestor in missing.into_iter().rev() {
        DirBuilder::new()
            .recursive(true)
            .create(ancestor)
            .and_then(|()| fs::set_permissions(ancestor, Permissions::from_mode(0o755)))
            .map_err(Error::io("create", ancestor))?;
    }
    Ok(())
}

/// Names in a directory; none if it does not exist.
fn entries(directory: &Path) -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(Error::io("read", directory))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(Error::io("read", directory))?.file_name();
        names.extend(name.into_string());
    }
    Ok(names)
}

fn remove_tree(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}

fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn store() -> (TempDir, Environment) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path().join("envs"));
        let environment = store.environment(&"buildbot".parse().unwrap());
        (directory, environment)
    }

    /// A complete generation with nothing in it.
    fn make(environment: &Environment, digit: &str) -> GenerationId {
        let generation: GenerationId = digit.repeat(12).parse().unwrap();
        let lock = environment.prefix(&generation).join(LOCK_FILE);
        fs::create_dir_all(lock.parent().unwrap()).unwrap();
        fs::write(lock, "").unwrap();
        generation
    }

    #[test]
    fn the_link_and_the_history_follow_a_switch() {
        let (_directory, environment) = store();
        let lock = environment.lock().unwrap();
        assert_eq!(environment.current().unwrap(), None);
        let [one, two, three] = ["1", "2", "3"].map(|digit| make(&environment, digit));
        for generation in [&one, &two, &one, &three] {
            environment.switch(generation, &lock).unwrap();
            assert_eq!(environment.current().unwrap().as_ref(), Some(generation));
        }
        assert_eq!(environment.previous().unwrap(), Some(one.clone()));
        environment.remove(&one, &lock).unwrap();
        assert_eq!(environment.previous().unwrap(), Some(two.clone()));
        assert_eq!(environment.generations().unwrap().len(), 2);
    }

    #[test]
    fn a_generation_that_is_not_there_never_serves() {
        let (_directory, environment) = store();
        let lock = environment.lock().unwrap();
        let missing = "0123456789ab".parse().unwrap();
        assert!(environment.switch(&missing, &lock).is_err());
        assert_eq!(environment.current().unwrap(), None);
    }

    #[test]
    fn one_command_at_a_time_changes_an_environment() {
        let (_directory, environment) = store();
        let lock = environment.lock().unwrap();
        assert!(matches!(environment.lock(), Err(Error::Busy(_))));
        drop(lock);
        assert!(environment.lock().is_ok());
    }

    #[test]
    fn the_link_is_switched_at_the_end_of_a_change_and_an_interrupted_one_is_told() {
        let (_directory, environment) = store();
        let lock = environment.lock().unwrap();
        let [from, to] = ["1", "2"].map(|digit| make(&environment, digit));
        environment.switch(&from, &lock).unwrap();
        let change = Change {
            from: from.clone(),
            to: to.clone(),
            boot: "a".to_owned(),
            running: vec!["master".to_owned(), "worker@gpu".to_owned()],
        };
        drop(environment.begin_change(&change, &lock).unwrap());
        drop(lock);
        let lock = environment.lock().unwrap();
        assert_eq!(lock.unfinished(), Some(&change));
        assert_eq!(environment.current().unwrap(), Some(from));
        // Ended between its last two steps, it is done.
        environment.switch(&to, &lock).unwrap();
        drop(lock);
        let lock = environment.lock().unwrap();
        assert_eq!(lock.unfinished(), None);
        assert!(!environment.directory().join(CHANGING).exists());
        assert_eq!(environment.current().unwrap(), Some(to));
    }

    #[test]
    fn what_an_interrupted_command_left_goes_with_the_next() {
        let (_directory, environment) = store();
        let generation = make(&environment, "1");
        for leftover in [BUILDING, REMOVING] {
            fs::create_dir_all(environment.directory().join(leftover).join("bin")).unwrap();
        }
        symlink("nowhere", environment.directory().join(NEXT)).unwrap();
        let lock = environment.lock().unwrap();
        environment.switch(&generation, &lock).unwrap();
        fs::remove_file(environment.directory().join(HISTORY)).unwrap();
        drop(lock);
        let lock = environment.lock().unwrap();
        assert_eq!(environment.history().unwrap(), [generation]);
        let mut names = entries(environment.directory()).unwrap();
        names.sort();
        assert_eq!(names, [".lock", "111111111111", "current", "history"]);
        environment.remove_all(&lock).unwrap();
        assert!(!environment.directory().exists());
    }
}
