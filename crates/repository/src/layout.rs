//! Where things lie in a repository.
//!
//! ```text
//! repository.toml             the settings
//! NAME.asc, NAME.sources      what clients need
//! dists/SUITE                 a link to the present generation
//! generations/SUITE/N/        InRelease, Release, Release.gpg, main/binary-ARCH/...: one whole state, never changed
//! pool/main/...               packages, never changed
//! .lock, .incoming/           whoever writes
//! ```
//!
//! The suite is a link so that everything in it changes at one moment: several files cannot be replaced at once, and
//! whoever reads in between, or the next start after a crash, would find a `Release` with the signature of another.

use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::error::{Error, at};
use crate::settings::{Settings, Word};

/// A repository's directory.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: &Path) -> Result<Self, Error> {
        // From here on, every path has a parent directory.
        let root = std::path::absolute(root).map_err(at("find", root))?;
        Ok(Self { root })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn settings(&self) -> PathBuf {
        self.root.join("repository.toml")
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join(".lock")
    }

    /// Files on their way into the pool, and new links; the holder of the lock empties it.
    pub(crate) fn incoming(&self) -> PathBuf {
        self.root.join(".incoming")
    }

    pub(crate) fn suite(&self, suite: &Word) -> PathBuf {
        self.root.join("dists").join(suite.as_str())
    }

    pub(crate) fn generations(&self, suite: &Word) -> PathBuf {
        self.root.join("generations").join(suite.as_str())
    }

    pub(crate) fn generation(&self, suite: &Word, number: u64) -> PathBuf {
        self.generations(suite).join(number.to_string())
    }

    /// The target of the suite's link.
    pub(crate) fn link(suite: &Word, number: u64) -> PathBuf {
        Path::new("../generations")
            .join(suite.as_str())
            .join(number.to_string())
    }

    pub(crate) fn pool(&self, file_name: &str) -> PathBuf {
        self.root.join(file_name)
    }

    pub(crate) fn public_key(&self, settings: &Settings) -> PathBuf {
        self.root.join(format!("{}.asc", settings.name))
    }

    pub(crate) fn sources(&self, settings: &Settings) -> PathBuf {
        self.root.join(format!("{}.sources", settings.name))
    }

    /// The number of the generation that clients see; nothing before the first.
    pub(crate) fn present(&self, suite: &Word) -> Result<Option<u64>, Error> {
        let path = self.suite(suite);
        let target = match fs::read_link(&path) {
            Ok(target) => target,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == ErrorKind::InvalidInput => {
                return Err(Error::NotOurs(path));
            }
            Err(error) => return Err(at("read", &path)(error)),
        };
        let number = target
            .file_name()
            .and_then(|name| name.to_str()?.parse().ok());
        match number {
            Some(number) if target == Self::link(suite, number) => Ok(Some(number)),
            _ => Err(Error::NotOurs(path)),
        }
    }

    /// The numbers of all generations on disk, ascending. A generation that is being removed has no `Release` any more.
    pub(crate) fn numbers(&self, suite: &Word) -> Result<Vec<u64>, Error> {
        let mut numbers: Vec<u64> = names(&self.generations(suite))?
            .iter()
            .filter_map(|name| name.parse().ok())
            .filter(|number| self.generation(suite, *number).join("Release").exists())
            .collect();
        numbers.sort_unstable();
        Ok(numbers)
    }
}

/// The names in a directory; none if it is missing.
pub(crate) fn names(directory: &Path) -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(at("read", directory)(error)),
    };
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_, _>>()
        .map_err(at("read", directory))
}

/// Creates a directory and its parents, readable by everyone regardless of the umask.
pub(crate) fn make_directory(path: &Path) -> Result<(), Error> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_directory(parent)?;
    }
    fs::create_dir(path).map_err(at("make", path))?;
    fs::set_permissions(path, Permissions::from_mode(0o755))
        .map_err(at("set the mode of", path))?;
    path.parent().map_or(Ok(()), sync)
}

/// Writes a file atomically, readable by everyone, next to the existing one.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<(), Error> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = NamedTempFile::new_in(directory).map_err(at("write to", directory))?;
    file.write_all(content)
        .and_then(|()| {
            file.as_file()
                .set_permissions(Permissions::from_mode(0o644))
        })
        .and_then(|()| file.as_file().sync_all())
        .map_err(at("write", path))?;
    file.persist(path)
        .map_err(|error| at("write", path)(error.error))?;
    sync(directory)
}

/// Syncs the entries of a directory to disk before anything relies on them.
pub(crate) fn sync(directory: &Path) -> Result<(), Error> {
    File::open(directory)
        .and_then(|opened| opened.sync_all())
        .map_err(at("write", directory))
}

/// Removes a file or a whole directory; a missing one is fine.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(at("remove", path)(error)),
    };
    if metadata.is_dir() {
        fs::remove_dir_all(path).map_err(at("remove", path))
    } else {
        fs::remove_file(path).map_err(at("remove", path))
    }
}
