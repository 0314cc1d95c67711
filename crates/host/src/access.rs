//! Finds the part of a path that an account cannot pass. A failed program only reports that access was denied; an
//! administrator needs to know which directory to open or to avoid. A process of the account itself calls this, so
//! groups and access control lists apply as they do for everything that it opens.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD};
use rustix::io::Errno;

/// As many links as Linux follows in one path, `path_resolution(7)`.
const MOST_LINKS: usize = 40;

/// What keeps an account from a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// The directory that the account cannot enter, or the file or directory at the end that it cannot use.
    pub at: PathBuf,
    /// Its permission bits.
    pub mode: u32,
    /// Numeric user id of its owner.
    pub owner: u32,
}

impl fmt::Display for Closed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, mode, .. } = self;
        write!(formatter, "`{}` is closed (mode {mode:04o})", at.display())
    }
}

/// What keeps this process from `path`, an absolute one, or from `wish` at its end; links are followed. None where nothing
/// does, also when there is nothing.
pub fn closed(path: &Path, wish: Access) -> Option<Closed> {
    let mut left: VecDeque<OsString> = names(path).collect();
    let mut at = PathBuf::from("/");
    let mut links = 0;
    while let Some(name) = left.pop_front() {
        if let Some(closed) = refused(&at, Access::EXEC_OK) {
            return Some(closed);
        }
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(name);
        let metadata = next.symlink_metadata().ok()?;
        if !metadata.is_symlink() {
            at = next;
            continue;
        }
        links += 1;
        let target = fs::read_link(&next).ok().filter(|_| links <= MOST_LINKS)?;
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        for name in names(&target).collect::<Vec<_>>().into_iter().rev() {
            left.push_front(name);
        }
    }
    refused(&at, wish)
}

/// The names in a path, `..` among them.
fn names(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    })
}

fn refused(at: &Path, wish: Access) -> Option<Closed> {
    let answer = rustix::fs::accessat(CWD, at, wish, AtFlags::EACCESS);
    if answer != Err(Errno::ACCESS) {
        return None;
    }
    let metadata = at.symlink_metadata().ok();
    Some(Closed {
        at: at.to_owned(),
        mode: metadata.as_ref().map_or(0, |found| found.mode() & 0o7777),
        owner: metadata.map_or(0, |found| found.uid()),
    })
}

/// What keeps this process from entering the environment at `prefix`, or from running its Python, which may be a link to
/// somewhere else.
pub fn closed_environment(prefix: &Path) -> Option<Closed> {
    closed(
        &prefix.join("conda-meta"),
        Access::READ_OK | Access::EXEC_OK,
    )
    .or_else(|| closed(&prefix.join("bin/python"), Access::EXEC_OK))
}

/// What keeps this process from a directory.
pub fn closed_directory(path: &Path) -> Option<Closed> {
    closed(path, Access::READ_OK | Access::EXEC_OK)
}
