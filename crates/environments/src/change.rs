//! The note `.changing` of an environment: another generation is being tried by the instances, and the link still names
//! the one that serves.
//!
//! It is in force as long as its writer holds it locked. Locks end with their process, however that ends, so nothing
//! enters the new generation any more from that moment. Who asks is in the crate `host`, which reads the second line.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::FlockOperation;

use crate::{Error, GenerationId};

/// Its name beside the generations.
pub(crate) const CHANGING: &str = ".changing";

/// What is being changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The generation that serves, and goes on serving if this comes to no good end.
    pub from: GenerationId,
    /// The generation that is tried.
    pub to: GenerationId,
    /// Which boot it was begun in, as the kernel calls it: what ran then is brought back in that boot alone.
    pub boot: String,
    /// The instances that ran before.
    pub running: Vec<String>,
}

/// A change in force. There must be only one in a process, and nobody in it may open the note: POSIX locks are a
/// process's, and go with the first descriptor that it closes, fcntl(2). In return, only who can write the file can
/// hold one, so that no service user keeps a change in force.
#[derive(Debug)]
pub struct InForce {
    _file: File,
}

impl Change {
    /// The note, where there is one that can be understood.
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
            // Whoever can open it could hold a lock for reading: nobody can before it is locked.
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
