//! `service own REF`: gives the service user the files that root has left in an instance's directory, but only those
//! that the user could already read. `doctor --fix` calls this.
//!
//! The user may rename anything in the directory while this runs, and may have moved a file of root there that is not
//! meant for the user. Therefore, nothing is accessed by its path: the directory is opened through a path that only
//! root and the user can have created, everything below it through its descriptor, and exactly the examined file is
//! given away.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use buildbot_conda_core::names::InstanceRef;
use rustix::fs::{AtFlags, Dir, Gid, Mode, OFlags, ResolveFlags, Uid};

use crate::output;
use crate::system::accounts::{self, User};
use crate::system::context::{Context, InvalidConfiguration};
use crate::system::own_place;

/// Everyone may read it, so its owner learns nothing new.
const READ: u32 = 0o004;
/// Everyone may list and enter it.
const ENTER: u32 = 0o005;

pub(super) fn run(reference: &InstanceRef, context: &Context) -> anyhow::Result<ExitCode> {
    if context.is_elsewhere() {
        bail!("`service own` changes a running system and cannot be used with `--root`");
    }
    context.ensure_root()?;
    let settings = context.settings()?;
    let instance = settings
        .instance(reference)
        .map_err(InvalidConfiguration::from)?;
    let user = accounts::find_user(instance.user.as_str())?;
    let path = Path::new(instance.directory.as_str());
    let found = own_place::trust(Some(&user))?.find(path)?;
    if !found.metadata().is_dir() {
        bail!("`{}` is not a directory", path.display());
    }
    let mut giving = Giving {
        user,
        device: found.metadata().dev(),
        left: Vec::new(),
    };
    giving.give_entry(&found, found.metadata(), path)?;
    giving.descend(&found.open()?, path)?;
    let mut text = String::new();
    for path in &giving.left {
        use std::fmt::Write as _;
        let path = output::harmless(&path.to_string_lossy());
        writeln!(
            text,
            "manual change needed: `{path}` is owned by root and not world-readable"
        )
        .context("write a list")?;
    }
    output::print(text)
}

/// A walk below the directory.
struct Giving {
    user: User,
    /// File systems that are mounted below are not touched.
    device: u64,
    left: Vec<PathBuf>,
}

impl Giving {
    fn descend(&mut self, directory: &File, path: &Path) -> anyhow::Result<()> {
        let listed = || -> io::Result<Vec<OsString>> {
            let entries = Dir::read_from(directory)?;
            let names = entries.map(|entry| {
                entry.map(|entry| OsStr::from_bytes(entry.file_name().to_bytes()).to_owned())
            });
            Ok(names.collect::<Result<_, _>>()?)
        };
        let names = listed().with_context(|| format!("list `{}`", path.display()))?;
        for name in names.iter().filter(|name| *name != "." && *name != "..") {
            let path = path.join(name);
            // What is gone by now, or lies in another file system, is passed over.
            let Ok(place) = open(directory, name, OFlags::PATH) else {
                continue;
            };
            let metadata = place.metadata().context("examine an open file")?;
            if metadata.dev() != self.device {
                continue;
            }
            self.give_entry(&place, &metadata, &path)?;
            let is_his = metadata.uid() == self.user.uid || is_given(&metadata);
            if metadata.is_dir()
                && is_his
                && let Ok(directory) = open(&place, OsStr::new("."), OFlags::DIRECTORY)
            {
                self.descend(&directory, &path)?;
            }
        }
        Ok(())
    }

    fn give_entry(
        &mut self,
        place: impl AsFd,
        metadata: &Metadata,
        path: &Path,
    ) -> anyhow::Result<()> {
        if metadata.uid() != 0 || !(metadata.is_file() || metadata.is_dir()) {
            return Ok(());
        }
        if !is_given(metadata) {
            self.left.push(path.to_owned());
            return Ok(());
        }
        let (uid, gid) = (Uid::from_raw(self.user.uid), Gid::from_raw(self.user.gid));
        rustix::fs::chownat(place, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH).with_context(
            || {
                format!(
                    "change the owner of `{}` to `{}`",
                    path.display(),
                    self.user.name
                )
            },
        )
    }
}

/// Whether it is root's and no more for the user to have than to read. A file with another name may be anything.
fn is_given(metadata: &Metadata) -> bool {
    let mode = metadata.mode();
    metadata.uid() == 0
        && if metadata.is_dir() {
            mode & ENTER == ENTER
        } else {
            mode & READ != 0 && metadata.nlink() == 1
        }
}

/// A name in a directory, never through a link or into another mount.
fn open(directory: impl AsFd, name: &OsStr, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV | ResolveFlags::BENEATH;
    let file = rustix::fs::openat2(directory, name, flags, Mode::empty(), resolve)?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions, hard_link};
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use super::*;

    /// What is in a directory of user 1000 that root has left something in, by names; the owner of each afterwards.
    #[test]
    fn only_what_he_could_read_anyway_is_given_to_the_user() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let host = tempfile::tempdir().unwrap();
        let directory = host.path().join("master");
        for name in ["sub", "closed", "elsewhere"] {
            fs::create_dir_all(directory.join(name)).unwrap();
        }
        chown(&directory, Some(1000), None).unwrap();
        chown(directory.join("elsewhere"), Some(1001), None).unwrap();
        let write = |name: &str, mode| {
            let path = directory.join(name);
            fs::write(&path, name).unwrap();
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        };
        for name in [
            "log",
            "sub/log",
            "closed/log",
            "elsewhere/log",
            "shadow",
            "passwd",
        ] {
            write(name, 0o644);
        }
        // A file that root has put there, or that was moved there: the user may not read it.
        write("shadow", 0o640);
        fs::set_permissions(directory.join("closed"), Permissions::from_mode(0o700)).unwrap();
        // Another name of a file that is of use elsewhere, and a link to one.
        hard_link(directory.join("passwd"), host.path().join("passwd")).unwrap();
        fs::write(host.path().join("target"), "").unwrap();
        symlink("../target", directory.join("link")).unwrap();
        let mut giving = Giving {
            user: User {
                name: "bb".to_owned(),
                uid: 1000,
                gid: 1000,
                home: PathBuf::new(),
                shell: String::new(),
            },
            device: directory.metadata().unwrap().dev(),
            left: Vec::new(),
        };
        giving
            .descend(&File::open(&directory).unwrap(), &directory)
            .unwrap();
        let owner = |name: &str| directory.join(name).symlink_metadata().unwrap().uid();
        for (name, expected) in [
            ("log", 1000),
            ("sub", 1000),
            ("sub/log", 1000),
            ("closed", 0),
            ("closed/log", 0),
            ("elsewhere", 1001),
            ("elsewhere/log", 0),
            ("shadow", 0),
            ("passwd", 0),
            ("link", 0),
            ("../target", 0),
        ] {
            assert_eq!(owner(name), expected, "{name}");
        }
        giving.left.sort();
        let left = ["closed", "passwd", "shadow"].map(|name| directory.join(name));
        assert_eq!(giving.left, left);
    }
}
