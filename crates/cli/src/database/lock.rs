//! The instance's lock: `flock(2)` on `.buildbot-conda.lock` in its directory, by the same rules as
//! the runner. It is shared with child processes, so that it outlives a killed parent for as long
//! as an upgrade of its own still runs.

use std::env;
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use buildbot_conda_host::lock::{self, FlockOperation};
use rustix::io::{Errno, FdFlags};

use super::{AWAY, CONFIGURATION, Failure};

/// Name of the lock file.
const NAME: &str = ".buildbot-conda.lock";
/// A holder that is not named.
const UNKNOWN: &str = "an unknown PID";
/// The number of a lock descriptor that is handed on by exec.
pub(crate) const VARIABLE: &str = "BUILDBOT_CONDA_LOCK";

/// A held lock.
#[derive(Debug)]
pub(crate) struct Lock {
    number: i32,
    /// None for one that was inherited: it stays open until this process ends or becomes another.
    file: Option<File>,
}

impl Lock {
    /// The lock that the runner handed over, or else a new one.
    pub(crate) fn inherit_or_take(directory: &Path) -> Result<Self, Failure> {
        match inherited(directory) {
            Some(lock) => Ok(lock),
            None => Self::take(directory),
        }
    }

    /// Takes it, or says who has it.
    ///
    /// # Errors
    ///
    /// 69 with the PID of the holder, or of a Buildbot that was started without us.
    pub(crate) fn take(directory: &Path) -> Result<Self, Failure> {
        let path = directory.join(NAME);
        if fs::symlink_metadata(&path).is_ok_and(|found| !found.is_file()) {
            return Err(not_regular(&path));
        }
        let (file, is_directory) = match lock::take(&path, FlockOperation::NonBlockingLockExclusive)
        {
            Ok(file) => (file, false),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Err(in_use(directory, &holder(&path)));
            }
            // As the runner: where no file can be made, the directory itself is locked.
            Err(_) => (take_directory(directory)?, true),
        };
        let lock = Self {
            number: file.as_raw_fd(),
            file: Some(file),
        };
        if let Some(pid) = foreign_buildbot(directory) {
            return Err(in_use(directory, &format!("PID {pid}")));
        }
        // Upstream's own commands would take a left-over for a running master.
        remove_stale_pid_file(directory);
        if !is_directory && let Some(mut file) = lock.file.as_ref() {
            // A full disk: the lock holds all the same.
            let _ = file
                .set_len(0)
                .and_then(|()| writeln!(file, "{}", std::process::id()));
        }
        if let Some(file) = &lock.file {
            rustix::io::fcntl_setfd(file, FdFlags::empty())
                .map_err(|error| Failure::io("share", &path, &error.into()))?;
        }
        Ok(lock)
    }

    /// Its descriptor, which children inherit.
    pub(crate) fn number(&self) -> i32 {
        self.number
    }

    /// Keeps it open to the end of this process, through an exec.
    pub(crate) fn keep(self) -> i32 {
        if let Some(file) = self.file {
            std::mem::forget(file);
        }
        self.number
    }
}

/// The PID of whoever has the lock now; nothing is taken or changed.
pub(crate) fn holder_of(directory: &Path) -> Option<String> {
    let path = directory.join(NAME);
    if lock::is_held(&path) {
        return Some(holder(&path));
    }
    foreign_buildbot(directory).map(|pid| format!("PID {pid}"))
}

fn take_directory(directory: &Path) -> Result<File, Failure> {
    let file = File::open(directory).map_err(|error| Failure {
        status: CONFIGURATION,
        ..Failure::io("open", directory, &error)
    })?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(in_use(directory, UNKNOWN)),
        Err(error) => Err(Failure::io("lock", directory, &error.into())),
    }
}

fn not_regular(path: &Path) -> Failure {
    let text = format!("`{}` is not a regular file", path.display());
    Failure::new(CONFIGURATION, text)
}

fn holder(path: &Path) -> String {
    let mut text = String::new();
    // Unreadable or empty: it is held all the same.
    if let Ok(Some((file, _))) = buildbot_conda_host::open(path) {
        let _ = file.take(32).read_to_string(&mut text);
    }
    match text.trim().parse::<u32>() {
        Ok(pid) => format!("PID {pid}"),
        Err(_) => UNKNOWN.to_owned(),
    }
}

fn in_use(directory: &Path, holder: &str) -> Failure {
    let text = format!("`{}` is in use by {holder}", directory.display());
    Failure::new(AWAY, text).hint("stop it first: `systemctl stop` its unit")
}

/// A lock descriptor from before an exec, believed only if it is this directory's lock and held.
fn inherited(directory: &Path) -> Option<Lock> {
    let number: i32 = env::var(VARIABLE).ok()?.parse().ok()?;
    let path = PathBuf::from(format!("/proc/self/fd/{number}"));
    let found = fs::metadata(path).ok()?;
    let same = |path: &Path| {
        fs::symlink_metadata(path)
            .is_ok_and(|wanted| (wanted.dev(), wanted.ino()) == (found.dev(), found.ino()))
    };
    let lock_file = directory.join(NAME);
    if !same(&lock_file) && !same(directory) {
        return None;
    }
    let probe = File::open(if same(&lock_file) {
        &lock_file
    } else {
        directory
    })
    .ok()?;
    // Held by somebody: with the descriptor in our hands, by us.
    let held = rustix::fs::flock(&probe, FlockOperation::NonBlockingLockShared);
    (held == Err(Errno::WOULDBLOCK)).then_some(Lock { number, file: None })
}

/// A Buildbot that runs here without our lock: `twistd.pid` names it, and it looks like one.
fn foreign_buildbot(directory: &Path) -> Option<u32> {
    let text = fs::read_to_string(directory.join("twistd.pid")).ok()?;
    let pid: u32 = text.trim().parse().ok()?;
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let is_buildbot = command.windows(8).any(|part| part == b"buildbot");
    let directory = directory.canonicalize().ok()?;
    // Another user's process hides where it is; then its command line has to do.
    let here = fs::read_link(format!("/proc/{pid}/cwd")).map_or(true, |cwd| cwd == directory);
    (pid != std::process::id() && is_buildbot && here).then_some(pid)
}

fn remove_stale_pid_file(directory: &Path) {
    // Gone already, or not removable: then Buildbot's own commands say so.
    let _ = fs::remove_file(directory.join("twistd.pid"));
}
