//! Paths that root may trust: they are resolved one component at a time, including every directory and the full path of
//! every link, so that no other account can have chosen the result.
//!
//! The rule applies to the whole project: root opens, believes and changes only what root alone could have put there.
//! As soon as one directory of a path belongs to another account, that account can replace the file between a check and
//! its use. [`Trusted`] proves that this is not possible. It contains the open file, so every operation concerns the
//! file that was checked, even if its name is changed.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use crate::read_at_most;

/// The mode bits with which accounts other than the owner can write.
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;
/// The mode bit with which everyone can read.
const OTHERS_READ: u32 = 0o004;
/// In a directory with this bit, only the owner of a file can change its name.
const STICKY: u32 = 0o1000;
/// As many links as Linux itself follows, `path_resolution(7)`.
const LINKS: usize = 40;

/// The trusted owners, and the directory where paths start.
#[derive(Debug, Clone)]
pub struct Trust {
    root: PathBuf,
    owners: Vec<u32>,
    groups: Vec<u32>,
    allows_sticky: bool,
}

/// A file or directory that only trusted accounts could have chosen.
#[derive(Debug)]
pub struct Trusted {
    /// Opened as a place alone (`O_PATH`): nothing was read, and nothing can block.
    place: File,
    /// The directory it is in, and its name there. `/` is in itself, as `.`.
    directory: OwnedFd,
    name: OsString,
    path: PathBuf,
    metadata: Metadata,
}

/// Why a path is not believed, or leads nowhere.
#[derive(Debug)]
pub struct Untrusted {
    /// The path that was asked for.
    pub path: PathBuf,
    /// Where on its way the reason was met; the path itself, or a directory, without links.
    pub at: PathBuf,
    /// The reason.
    pub reason: Reason,
}

/// What is wrong with a component of a path.
#[derive(Debug)]
pub enum Reason {
    /// It belongs to this account, who can replace what is in it.
    Owner(u32),
    /// Others can write it; the permission bits.
    Mode(u32),
    /// The system's answer: missing, not to be seen, no directory.
    System(io::Error),
}

impl Trust {
    /// Accepts only what root alone can write. Below a `root` directory, as in tests and images, paths and links start
    /// there, and the caller is treated as root.
    pub fn of_root(root: Option<&Path>) -> Self {
        let mut owners = vec![0];
        if root.is_some() {
            owners.push(rustix::process::geteuid().as_raw());
        }
        Self {
            root: root.unwrap_or(Path::new("/")).to_owned(),
            owners,
            groups: Vec::new(),
            allows_sticky: false,
        }
    }

    /// Accepts what root and one account can write, and a group that belongs to that account only, if it has one. A
    /// directory such as `/tmp`, where everyone can create names but change only their own, is acceptable for files of
    /// the account.
    #[must_use]
    pub fn and_account(mut self, uid: u32, own_group: Option<u32>) -> Self {
        self.owners.push(uid);
        self.groups.extend(own_group);
        self.allows_sticky = true;
        self
    }

    /// What is at `path`, be it a file, a directory or anything else. Nothing is opened for reading.
    ///
    /// # Errors
    ///
    /// [`Untrusted`], with the first component that is not believed or cannot be passed.
    pub fn find(&self, path: &Path) -> Result<Trusted, Untrusted> {
        let mut walk = Walk::begin(self, path)?;
        while let Some(part) = walk.pending.pop() {
            walk.step(part)?;
        }
        Ok(walk.end())
    }

    /// What is called `name` in a directory that was found before. A link is followed from there.
    ///
    /// # Errors
    ///
    /// As [`Trust::find`].
    pub fn find_in(&self, directory: &Trusted, name: &OsStr) -> Result<Trusted, Untrusted> {
        let path = directory.path.join(name);
        let failed = |reason| Untrusted {
            at: path.clone(),
            path: path.clone(),
            reason,
        };
        let found = Found::at(directory.place.as_fd(), name)
            .map_err(|error| failed(Reason::System(error)))?;
        if found.metadata.is_symlink() {
            // Seldom: from the beginning, in the words of the host.
            let asked = path.strip_prefix(&self.root).unwrap_or(&path);
            return self.find(&Path::new("/").join(asked));
        }
        self.judge(&found.metadata).map_err(failed)?;
        let directory = directory.place.as_fd().try_clone_to_owned();
        Ok(Trusted {
            directory: directory.map_err(|error| failed(Reason::System(error)))?,
            name: name.to_owned(),
            place: found.place,
            metadata: found.metadata,
            path,
        })
    }

    fn judge(&self, found: &Metadata) -> Result<(), Reason> {
        let mode = found.mode();
        if !self.owners.contains(&found.uid()) {
            return Err(Reason::Owner(found.uid()));
        }
        // The mode of a link has no meaning.
        if found.is_symlink() {
            return Ok(());
        }
        let by_group = mode & GROUP_WRITES != 0 && !self.groups.contains(&found.gid());
        let by_others = mode & OTHERS_WRITE != 0;
        let is_shared = self.allows_sticky && found.is_dir() && mode & STICKY != 0;
        if (by_group || by_others) && !is_shared {
            return Err(Reason::Mode(mode & 0o7777));
        }
        Ok(())
    }
}

/// The text of a file that the caller has named to root, up to a limit; [`open_given`] decides whose it may be.
///
/// # Errors
///
/// As [`open_given`], and if the file is larger or is not UTF-8.
pub fn read_given(path: &Path, limit: u64) -> io::Result<String> {
    let content = read_at_most(&open_given(path)?, limit)?;
    let content =
        content.ok_or_else(|| io::Error::other(format!("it is larger than {limit} bytes")))?;
    String::from_utf8(content).map_err(|_| io::Error::other("it is not UTF-8"))
}

/// Opens a file by a path that was given to root, if its text will be readable by others. If others could have chosen
/// the file, they must be able to read it themselves: it is their own, or everyone may read it.
///
/// # Errors
///
/// The error of the system, or the owner of the file and the account that could have put it there.
pub fn open_given(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        // A pipe or a terminal has been opened by the caller, such as `/dev/stdin` or `<(...)` of a shell. What comes
        // from there is waited for; a name in a directory would let others keep root waiting.
        let is_opened = ["/dev/fd", "/dev/stdin", "/proc"];
        let is_opened = is_opened.iter().any(|place| path.starts_with(place));
        if metadata.file_type().is_fifo() && !is_opened {
            return Err(io::Error::other("it is a named pipe"));
        }
        rustix::fs::fcntl_setfl(&file, OFlags::empty())?;
        return Ok(file);
    }
    if !rustix::process::geteuid().is_root() {
        return Ok(file);
    }
    let trust = Trust {
        // In `/tmp`, links are judged by their owners.
        allows_sticky: true,
        ..Trust::of_root(None)
    };
    let Err(untrusted) = trust.find(path) else {
        return Ok(file);
    };
    let is_theirs = match untrusted.reason {
        Reason::Owner(owner) => owner == metadata.uid(),
        Reason::Mode(_) | Reason::System(_) => false,
    };
    if is_theirs && metadata.nlink() == 1 || metadata.mode() & OTHERS_READ != 0 {
        return Ok(file);
    }
    Err(io::Error::other(format!(
        "it {}, where others could have created a link to a file of another account",
        untrusted.explanation()
    )))
}

impl Trusted {
    /// The path without links, below the root directory if there is one.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it is, and whose.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Opens it for reading, without blocking.
    ///
    /// # Errors
    ///
    /// The error of the system, or that the name now belongs to another file.
    pub fn open(&self) -> io::Result<File> {
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&self.directory, &self.name, flags, Mode::empty())?;
        let opened = File::from(opened);
        let metadata = opened.metadata()?;
        if (metadata.dev(), metadata.ino()) != (self.metadata.dev(), self.metadata.ino()) {
            return Err(io::Error::other("it was replaced in the meantime"));
        }
        Ok(opened)
    }

    /// The content of a regular file, `None` if it has more than `limit` bytes.
    ///
    /// # Errors
    ///
    /// The error of the system, or that it is not a regular file.
    pub fn read(&self, limit: u64) -> io::Result<Option<Vec<u8>>> {
        if !self.metadata.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        read_at_most(&self.open()?, limit)
    }

    /// Changes the owner of exactly this file or directory, even if its name was changed.
    ///
    /// # Errors
    ///
    /// The error of the system.
    pub fn give_to(&self, uid: u32, gid: u32) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        Ok(rustix::fs::chownat(
            &self.place,
            "",
            Some(uid),
            Some(gid),
            AtFlags::EMPTY_PATH,
        )?)
    }
}

impl AsFd for Trusted {
    /// Opened as a place alone: good for `*at` calls, not for reading.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.place.as_fd()
    }
}

impl Untrusted {
    /// Whether the path does not exist; every directory that was passed is trusted.
    pub fn is_missing(&self) -> bool {
        matches!(&self.reason, Reason::System(error) if error.kind() == ErrorKind::NotFound)
    }

    /// Whether the way leads into a directory that this process may not look into. What was passed until then is
    /// believed.
    pub fn is_hidden(&self) -> bool {
        matches!(&self.reason, Reason::System(error) if error.kind() == ErrorKind::PermissionDenied)
    }

    /// Whether another account could have chosen the file.
    pub fn is_distrust(&self) -> bool {
        matches!(self.reason, Reason::Owner(_) | Reason::Mode(_))
    }

    /// What is wrong, without the path that was asked for.
    pub fn explanation(&self) -> String {
        let Self { path, at, reason } = self;
        match reason {
            Reason::System(cause) if at == path => cause.to_string(),
            Reason::System(cause) => format!("`{}`: {cause}", at.display()),
            _ if at == path => reason.to_string(),
            _ => format!("goes through `{}`, which {reason}", at.display()),
        }
    }
}

impl fmt::Display for Untrusted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.path.display(), self.explanation())
    }
}

impl std::error::Error for Untrusted {}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owner(owner) => write!(formatter, "is owned by user {owner}, not by root"),
            Self::Mode(mode) => write!(
                formatter,
                "is writable by accounts other than root (mode {mode:04o})"
            ),
            Self::System(cause) => cause.fmt(formatter),
        }
    }
}

/// One component, opened as a place.
struct Found {
    place: File,
    metadata: Metadata,
}

impl Found {
    fn at(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let place = File::from(rustix::fs::openat(directory, name, flags, Mode::empty())?);
        let metadata = place.metadata()?;
        Ok(Self { place, metadata })
    }
}

/// Resolves a path; links are replaced by their targets, as described in `path_resolution(7)`.
struct Walk<'a> {
    trust: &'a Trust,
    asked: PathBuf,
    /// The directories passed, the root first, each with its name in the one before.
    way: Vec<(OsString, Found)>,
    /// What is not a directory, once it was met.
    last: Option<(OsString, Found)>,
    /// Components to come, the next one last.
    pending: Vec<OsString>,
    links: usize,
}

impl<'a> Walk<'a> {
    fn begin(trust: &'a Trust, path: &Path) -> Result<Self, Untrusted> {
        let asked = match path.strip_prefix("/") {
            Ok(relative) => trust.root.join(relative),
            Err(_) => path.to_owned(),
        };
        let failed = |reason| Untrusted {
            path: asked.clone(),
            at: trust.root.clone(),
            reason,
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, &trust.root, flags, Mode::empty());
        let root = File::from(root.map_err(|error| failed(Reason::System(error.into())))?);
        let metadata = root
            .metadata()
            .map_err(|error| failed(Reason::System(error)))?;
        trust.judge(&metadata).map_err(failed)?;
        let mut walk = Self {
            trust,
            asked: asked.clone(),
            way: Vec::new(),
            last: None,
            pending: Vec::new(),
            links: 0,
        };
        let place = root;
        walk.way.push((".".into(), Found { place, metadata }));
        if path.is_absolute() {
            walk.add(path);
        } else {
            // Relative to the working directory, whose own path is checked as well.
            let absolute = std::path::absolute(path);
            walk.add(&absolute.map_err(|error| failed(Reason::System(error)))?);
        }
        Ok(walk)
    }

    fn add(&mut self, path: &Path) {
        let parts = path.components().rev().filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        });
        self.pending.extend(parts);
    }

    fn step(&mut self, name: OsString) -> Result<(), Untrusted> {
        if self.last.is_some() {
            return Err(self.failed(Path::new(""), Reason::System(Errno::NOTDIR.into())));
        }
        if name == ".." {
            if self.way.len() > 1 {
                self.way.pop();
            }
            return Ok(());
        }
        let (_, directory) = self.way.last().expect("the root is never left");
        let found = Found::at(directory.place.as_fd(), &name);
        let found = found.map_err(|error| self.failed(Path::new(&name), Reason::System(error)))?;
        let judged = self.trust.judge(&found.metadata);
        judged.map_err(|reason| self.failed(Path::new(&name), reason))?;
        if found.metadata.is_symlink() {
            return self.follow(&name, &found);
        }
        if found.metadata.is_dir() {
            self.way.push((name, found));
        } else {
            self.last = Some((name, found));
        }
        Ok(())
    }

    fn follow(&mut self, name: &OsStr, link: &Found) -> Result<(), Untrusted> {
        self.links += 1;
        if self.links > LINKS {
            return Err(self.failed(Path::new(name), Reason::System(Errno::LOOP.into())));
        }
        // An empty path stands for the open link.
        let target = rustix::fs::readlinkat(&link.place, "", Vec::new());
        let target =
            target.map_err(|error| self.failed(Path::new(name), Reason::System(error.into())))?;
        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
        if target.is_absolute() {
            self.way.truncate(1);
        }
        self.add(&target);
        Ok(())
    }

    /// The way so far, with `name` behind it.
    fn path(&self, name: &Path) -> PathBuf {
        let mut path = self.trust.root.clone();
        let names = self.way[1..].iter().chain(&self.last);
        path.extend(names.map(|(name, _)| name));
        if name.as_os_str().is_empty() {
            return path;
        }
        path.join(name)
    }

    fn failed(&self, name: &Path, reason: Reason) -> Untrusted {
        Untrusted {
            path: self.asked.clone(),
            at: self.path(name),
            reason,
        }
    }

    fn end(mut self) -> Trusted {
        let path = self.path(Path::new(""));
        let last = self.last.take();
        let (name, found) = last.unwrap_or_else(|| self.way.pop().expect("the root is left last"));
        let directory = match self.way.pop() {
            Some((_, directory)) => directory.place,
            None => found.place.try_clone().expect("a descriptor can be copied"),
        };
        Trusted {
            place: found.place,
            metadata: found.metadata,
            directory: directory.into(),
            name,
            path,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use tempfile::TempDir;

    use super::*;

    /// A root directory with files at these paths, and links as `PATH -> TARGET`.
    fn tree(entries: &[&str]) -> TempDir {
        let root = tempfile::tempdir().unwrap();
        for entry in entries {
            let (path, target) = entry.split_once(" -> ").unwrap_or((entry, ""));
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            if target.is_empty() {
                fs::write(path, entry).unwrap();
            } else {
                symlink(target, path).unwrap();
            }
        }
        root
    }

    fn mode(root: &TempDir, path: &str, mode: u32) {
        fs::set_permissions(root.path().join(path), Permissions::from_mode(mode)).unwrap();
    }

    /// Where the path leads, without the root directory, or why it does not.
    fn find(trust: &Trust, root: &TempDir, path: &str) -> String {
        let found = match trust.find(Path::new(path)) {
            Ok(found) => found.path().display().to_string(),
            Err(untrusted) => untrusted.to_string(),
        };
        found.replace(root.path().to_str().unwrap(), "")
    }

    fn of_root(root: &TempDir) -> Trust {
        Trust::of_root(Some(root.path()))
    }

    #[test]
    fn links_are_followed_below_the_root_as_long_as_all_is_roots() {
        let root = tree(&[
            "srv/x",
            "etc/a -> /srv/x",
            "etc/b -> ../../../srv/../etc/a",
            "etc/c -> d",
            "etc/d -> c",
            "etc/e -> /nowhere",
            "dir -> /etc/",
        ]);
        for (path, found) in [
            ("/srv/x", "/srv/x"),
            ("/etc/a", "/srv/x"),
            ("/dir/b", "/srv/x"),
            ("/srv/./../srv//x", "/srv/x"),
            ("/dir", "/etc"),
            ("/", ""),
            (
                "/etc/c",
                "/etc/c: Too many levels of symbolic links (os error 40)",
            ),
            (
                "/srv/x/y",
                "/srv/x/y: `/srv/x`: Not a directory (os error 20)",
            ),
            (
                "/etc/e",
                "/etc/e: `/nowhere`: No such file or directory (os error 2)",
            ),
        ] {
            assert_eq!(find(&of_root(&root), &root, path), found);
        }
    }

    #[test]
    fn every_directory_on_the_way_counts_even_one_that_is_left_again() {
        let root = tree(&[
            "home/bb/x",
            "srv/y",
            "etc/a -> /home/bb/x",
            "etc/b -> /home/bb/../../srv/y",
        ]);
        for bits in [0o777, 0o775, 0o1777] {
            mode(&root, "home/bb", bits);
            let through = "goes through `/home/bb`, which is writable by accounts other than root";
            for path in ["/etc/a", "/etc/b", "/home/bb/x", "/home/bb/../../srv/y"] {
                let expected = format!("{path}: {through} (mode {bits:04o})");
                assert_eq!(find(&of_root(&root), &root, path), expected);
            }
            assert_eq!(find(&of_root(&root), &root, "/srv/y"), "/srv/y");
        }
    }

    #[test]
    fn what_belongs_to_somebody_else_is_not_believed() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let root = tree(&["home/bb/x", "srv/y", "srv/l -> y"]);
        chown(root.path().join("home/bb"), Some(1000), Some(1000)).unwrap();
        let through = "goes through `/home/bb`, which is owned by user 1000, not by root";
        assert_eq!(
            find(&of_root(&root), &root, "/home/bb/x"),
            format!("/home/bb/x: {through}")
        );
        let his = of_root(&root).and_account(1000, None);
        assert_eq!(find(&his, &root, "/home/bb/x"), "/home/bb/x");
        chown(root.path().join("home/bb"), Some(1001), None).unwrap();
        assert!(find(&his, &root, "/home/bb/x").contains("is owned by user 1001"));
        // A link is his who made it.
        std::os::unix::fs::lchown(root.path().join("srv/l"), Some(1001), None).unwrap();
        assert!(find(&his, &root, "/srv/l").contains("is owned by user 1001"));
    }

    #[test]
    fn an_accounts_own_group_and_shared_directories_are_good_enough_for_what_is_its_own() {
        let root = tree(&["tmp/w/x"]);
        let group = root.path().metadata().unwrap().gid();
        let of = |own_group| of_root(&root).and_account(1000, own_group);
        mode(&root, "tmp", 0o1777);
        assert_eq!(find(&of(None), &root, "/tmp/w"), "/tmp/w");
        mode(&root, "tmp/w", 0o775);
        assert_eq!(find(&of(Some(group)), &root, "/tmp/w/x"), "/tmp/w/x");
        for other in [None, Some(group + 1)] {
            assert!(find(&of(other), &root, "/tmp/w/x").contains("(mode 0775)"));
        }
        mode(&root, "tmp/w", 0o777);
        assert!(find(&of(Some(group)), &root, "/tmp/w/x").contains("(mode 0777)"));
    }

    #[test]
    fn a_given_file_may_be_its_owners_but_not_another_one_that_he_has_linked() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let root = tree(&["home/own", "home/open", "shadow", "home/link -> ../shadow"]);
        mode(&root, "", 0o755);
        for path in ["home/own", "shadow"] {
            mode(&root, path, 0o600);
        }
        let given = |path: &str| open_given(&root.path().join(path)).map(drop);
        for path in ["home", "home/own"] {
            chown(root.path().join(path), Some(1000), None).unwrap();
        }
        given("home/own").unwrap();
        given("home/open").unwrap();
        let refused = given("home/link").unwrap_err().to_string();
        assert!(
            refused.contains("where others could have created a link"),
            "{refused}"
        );
        fs::hard_link(root.path().join("home/own"), root.path().join("home/again")).unwrap();
        given("home/own").unwrap_err();
    }

    #[test]
    fn a_given_file_is_read_up_to_a_limit_and_a_named_pipe_is_not_waited_for() {
        let root = tree(&["file"]);
        let read = |path: &str, limit| {
            let outcome = read_given(&root.path().join(path), limit);
            outcome.map_err(|error| error.to_string())
        };
        assert_eq!(read("file", 4), Ok("file".to_owned()));
        assert_eq!(read("file", 3).unwrap_err(), "it is larger than 3 bytes");
        fs::write(root.path().join("file"), b"\xff").unwrap();
        assert_eq!(read("file", 4).unwrap_err(), "it is not UTF-8");
        rustix::fs::mkfifoat(CWD, root.path().join("pipe"), Mode::RUSR).unwrap();
        assert_eq!(read("pipe", 4).unwrap_err(), "it is a named pipe");
        // As a shell's `<(...)` is.
        let (reader, mut writer) = io::pipe().unwrap();
        let path = format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
        let late = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(100));
            io::Write::write_all(&mut writer, b"late").unwrap();
        });
        assert_eq!(read_given(path.as_ref(), 4).unwrap(), "late");
        late.join().unwrap();
    }

    #[test]
    fn what_was_found_is_opened_and_nothing_that_took_its_name() {
        let root = tree(&["etc/a", "etc/b", "etc/l -> a"]);
        let trust = of_root(&root);
        let directory = trust.find(Path::new("/etc")).unwrap();
        let found = trust.find_in(&directory, OsStr::new("l")).unwrap();
        assert_eq!(found.read(100).unwrap().unwrap(), b"etc/a");
        assert_eq!(found.read(4).unwrap(), None);
        let found = trust.find_in(&directory, OsStr::new("a")).unwrap();
        fs::rename(root.path().join("etc/b"), root.path().join("etc/a")).unwrap();
        let error = found.open().unwrap_err().to_string();
        assert_eq!(error, "it was replaced in the meantime");
        let error = directory.read(4).unwrap_err().to_string();
        assert_eq!(error, "it is not a regular file");
        mode(&root, "etc/a", 0o646);
        let refused = trust.find_in(&directory, OsStr::new("l")).unwrap_err();
        assert!(refused.is_distrust());
    }
}
