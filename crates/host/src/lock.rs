//! Lock files: `flock(2)` on a file that only its owner can open.
//!
//! Any process that can open a file can hold its lock, even if it can only read it. A lock file that others can open is
//! therefore not used: a new one replaces it, and a lock on the old one has no effect.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::{Path, PathBuf};

pub use rustix::fs::FlockOperation;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

const FLAGS: OFlags = OFlags::NOFOLLOW
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

/// Locks the file at `path`, which is created if it does not exist. The lock is held as long as the returned file, or a
/// copy of it in another process, is open.
///
/// # Errors
///
/// [`io::ErrorKind::WouldBlock`] if another process holds the lock and `operation` does not wait, and any error of
/// opening the file.
pub fn take(path: &Path, operation: FlockOperation) -> io::Result<File> {
    loop {
        let file = open_or_create(path)?;
        if !is_private(&file.metadata()?, path)? {
            match replace(path, operation)? {
                Some(file) => return Ok(file),
                None => continue,
            }
        }
        rustix::fs::flock(&file, operation)?;
        // Another process may have replaced the file while this one waited.
        if leads_to(path, &file)? {
            return Ok(file);
        }
    }
}

/// Waits until no writer holds the lock at `path`; none if there is no lock file, or if this account cannot open it.
///
/// # Errors
///
/// If the file cannot be examined.
pub fn take_to_read(path: &Path) -> io::Result<Option<File>> {
    let file = match rustix::fs::open(path, FLAGS | OFlags::RDONLY, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT | Errno::ACCESS | Errno::LOOP) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if !is_private(&file.metadata()?, path)? {
        return Ok(None);
    }
    rustix::fs::flock(&file, FlockOperation::LockShared)?;
    Ok(Some(file))
}

/// Whether a process holds the lock at `path`, as far as this account may know.
pub fn is_held(path: &Path) -> bool {
    let Ok(file) = rustix::fs::open(path, FLAGS | OFlags::RDONLY, Mode::empty()) else {
        return false;
    };
    let file = File::from(file);
    let is_private = file.metadata().and_then(|found| is_private(&found, path));
    is_private.unwrap_or_default()
        && rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_err()
}

/// Never opens the target of a link, and never waits for a pipe. A file that root creates in a directory of another
/// account is given to that account.
fn open_or_create(path: &Path) -> io::Result<File> {
    let (flags, mode) = (FLAGS | OFlags::RDWR, Mode::RUSR | Mode::WUSR);
    loop {
        match rustix::fs::open(path, flags | OFlags::CREATE | OFlags::EXCL, mode) {
            Ok(file) => {
                let file = File::from(file);
                let directory = fs::metadata(parent(path))?;
                if rustix::process::geteuid().is_root() && directory.uid() != 0 {
                    fchown(&file, Some(directory.uid()), Some(directory.gid()))?;
                }
                return Ok(file);
            }
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(file) => return Ok(file.into()),
            // Removed just now.
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether only this account, root, and an account that could replace the file anyway can open it.
fn is_private(file: &Metadata, path: &Path) -> io::Result<bool> {
    let owner = file.uid();
    let is_owned =
        owner == rustix::process::geteuid().as_raw() || owner == fs::metadata(parent(path))?.uid();
    let is_for_others = file.mode() & 0o077 != 0;
    Ok(file.is_file() && is_owned && !is_for_others)
}

/// Replaces a file that others can open by a new one, and returns it with the lock held; none if another process has
/// already done so. The new file is locked before it gets its name, so that only one process can be the first.
fn replace(path: &Path, operation: FlockOperation) -> io::Result<Option<File>> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let file = open_or_create(&new)?;
    if !is_private(&file.metadata()?, &new)? {
        fs::remove_file(&new)?;
        return Ok(None);
    }
    let waits = matches!(
        operation,
        FlockOperation::LockExclusive | FlockOperation::LockShared
    );
    rustix::fs::flock(
        &file,
        if waits {
            FlockOperation::LockExclusive
        } else {
            FlockOperation::NonBlockingLockExclusive
        },
    )?;
    if !leads_to(&new, &file)? {
        return Ok(None);
    }
    let is_replaced = match fs::symlink_metadata(path) {
        Ok(found) => is_private(&found, path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    if is_replaced {
        fs::remove_file(&new)?;
        return Ok(None);
    }
    fs::rename(&new, path)?;
    rustix::fs::flock(&file, operation)?;
    Ok(Some(file))
}

fn leads_to(path: &Path, file: &File) -> io::Result<bool> {
    let file = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(found) => Ok((found.dev(), found.ino()) == (file.dev(), file.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    const TRY: FlockOperation = FlockOperation::NonBlockingLockExclusive;

    /// A lock file with this mode, whose lock is held by an account that could open it.
    fn held(directory: &Path, mode: u32) -> (PathBuf, File) {
        let path = directory.join("lock");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let file = File::open(&path).unwrap();
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
        (path, file)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_lock_is_for_its_owner_alone_and_held_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let lock = take(&path, TRY).unwrap();
        assert_eq!(mode(&path), 0o600);
        let second = take(&path, TRY).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::WouldBlock);
        assert!(is_held(&path));
        drop(lock);
        assert!(!is_held(&path));
        take(&path, TRY).unwrap();
    }

    #[test]
    fn a_lock_that_others_can_open_and_hold_has_no_effect() {
        for wide in [0o644, 0o640, 0o606, 0o666] {
            let directory = tempfile::tempdir().unwrap();
            let (path, _foreign) = held(directory.path(), wide);
            assert!(take_to_read(&path).unwrap().is_none());
            assert!(!is_held(&path));
            let lock = take(&path, TRY).unwrap();
            assert_eq!(mode(&path), 0o600);
            assert!(take(&path, TRY).is_err(), "{wide:o}");
            drop(lock);
            take(&path, FlockOperation::LockExclusive).unwrap();
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn a_lock_of_ours_still_counts() {
        let directory = tempfile::tempdir().unwrap();
        let (path, _own) = held(directory.path(), 0o600);
        assert!(take(&path, TRY).is_err());
    }

    #[test]
    fn many_that_replace_it_at_once_hold_it_one_after_the_other() {
        let directory = tempfile::tempdir().unwrap();
        let (path, _foreign) = held(directory.path(), 0o644);
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let lock = take(&path, FlockOperation::LockExclusive).unwrap();
                    let count = inside.fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(count, Ordering::SeqCst);
                    thread::yield_now();
                    inside.fetch_sub(1, Ordering::SeqCst);
                    drop(lock);
                });
            }
        });
        assert_eq!(most.into_inner(), 1);
    }

    #[test]
    fn links_and_pipes_are_no_locks() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(take(&path, TRY).is_err());
        fs::remove_file(&path).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
        assert!(take_to_read(&path).unwrap().is_none());
        // A pipe of our own is replaced as a file of others is.
        take(&path, TRY).unwrap();
        assert!(fs::metadata(&path).unwrap().is_file());
    }
}
