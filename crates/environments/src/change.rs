//! The file `.changing` of an environment: instances are trying another generation, while the link still points to the
//! current one.
//!
//! It is in effect as long as its writer holds a lock on it. A lock is released when its process exits for any reason;
//! from then on, nothing enters the new generation. The crate `host` reads the second line.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::FlockOperation;

use crate::{Error, GenerationId};

/// Its name, next to the generations.
pub(crate) const CHANGING: &str = ".changing";

/// What is being changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The generation that serves, and continues to serve if the change fails.
    pub from: GenerationId,
    /// The generation that is tried.
    pub to: GenerationId,
    /// The boot in which the change began, as identified by the kernel: instances are only returned to the old
    /// generation in the same boot.
    pub boot: String,
    /// The instances that ran before.
    pub running: Vec<String>,
}

/// A change in effect. A process may have only one, and must not open the file otherwise: POSIX locks belong to a
/// process and are released with the first descriptor that it closes, fcntl(2). In return, only those who can write to
/// the file can hold one, so no service user can keep a change in effect.
#[derive(Debug)]
pub struct InForce {
    _file: File,
}

impl Change {
    /// The content of the file, if it exists and can be read.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, Error> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other.map_err(Error::io("read", path))?,
        };
        let mut lines = text.lines().map(str::to_owned);
        let mut next = || lines.next().unwrap_or_default();
        let (from, to, boot) = (next().parse(), next().parse(), next());
        Ok(match (from, to) {
            (Ok(from), Ok(to)) => Some(Self {
                from,
                to,
                boot,
                running: lines.collect(),
            }),
            _ => None,
        })
    }

    /// A line for each field and each instance.
    fn text(&self) -> String {
        let fields = [self.from.as_str(), self.to.as_str(), &self.boot];
        let running = self.running.iter().map(String::as_str);
        let lines: Vec<&str> = fields.into_iter().chain(running).collect();
        lines.join("\n") + "\n"
    }
}

impl InForce {
    /// Writes the note to a path of no meaning yet, locked and on disk.
    pub(crate) fn write(change: &Change, path: &Path) -> Result<Self, Error> {
        let write = || {
            // Everyone who can open the file could hold a read lock; nobody can before it is locked.
            let mut options = File::options();
            let mut file = options
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)?;
            rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive)?;
            // Every service reads it, whatever the umask.
            file.set_permissions(fs::Permissions::from_mode(0o644))?;
            file.write_all(change.text().as_bytes())?;
            file.sync_all()?;
            Ok(file)
        };
        let file = write().map_err(Error::io("write", path))?;
        Ok(Self { _file: file })
    }
}
