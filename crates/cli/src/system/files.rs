//! Files and links owned by root, written atomically: a temporary file next to the target gets its owner and mode, is
//! synced, and renamed. Directories whose entries changed are synced as well, so that the journal of a plan never knows
//! less than the disk.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown, lchown, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use tempfile::{Builder, NamedTempFile};

/// The current state of a path, as far as it can be restored.
#[derive(Debug)]
pub(crate) enum Found {
    /// The path does not exist.
    Nothing,
    /// A regular file: its text and the bits of its mode.
    File { text: String, mode: u32 },
    /// A symbolic link and where it leads.
    Link(PathBuf),
    /// A directory.
    Directory,
}

/// Looks at `path` without following a link.
pub(crate) fn inspect(path: &Path) -> anyhow::Result<Found> {
    let name = path.display();
    let metadata = match path.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(error).with_context(|| format!("examine `{name}`")),
    };
    if metadata.is_dir() {
        return Ok(Found::Directory);
    }
    if metadata.is_symlink() {
        let target = fs::read_link(path).with_context(|| format!("read the link `{name}`"))?;
        return Ok(Found::Link(target));
    }
    if !metadata.is_file() {
        bail!("`{name}` is not a file, link or directory");
    }
    let text = fs::read_to_string(path).with_context(|| format!("read `{name}`"))?;
    Ok(Found::File {
        text,
        mode: metadata.permissions().mode() & 0o7777,
    })
}

/// Writes a file with this text and mode to `path`. An existing file keeps its owner.
pub(crate) fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let written = || -> io::Result<()> {
        let mut file = beside(path)?;
        file.write_all(text.as_bytes())?;
        if let Ok(old) = path.symlink_metadata() {
            fchown(file.as_file(), Some(old.uid()), Some(old.gid()))?;
        }
        file.as_file()
            .set_permissions(Permissions::from_mode(mode))?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        sync_directory_of(path)
    };
    written().with_context(|| format!("write `{}`", path.display()))
}

/// Makes `path` a link.
pub(crate) fn link(path: &Path, target: &Path) -> anyhow::Result<()> {
    let linked = || -> io::Result<()> {
        let name = beside(path)?.into_temp_path();
        fs::remove_file(&name)?;
        symlink(target, &name)?;
        name.persist(path)?;
        sync_directory_of(path)
    };
    linked().with_context(|| format!("link `{}`", path.display()))
}

/// Removes a file or link if it exists.
pub(crate) fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        outcome => outcome.and_then(|()| sync_directory_of(path)),
    }
    .with_context(|| format!("remove `{}`", path.display()))
}

/// Moves a file or link: it is complete at the new place before it is removed from the old one, so it exists at every
/// moment. If it exists only at the new place, it has been moved before.
pub(crate) fn move_to(from: &Path, to: &Path) -> anyhow::Result<()> {
    let moved = || -> io::Result<()> {
        let metadata = match from.symlink_metadata() {
            Err(error) if error.kind() == ErrorKind::NotFound && to.symlink_metadata().is_ok() => {
                return Ok(());
            }
            other => other?,
        };
        let copy = beside(to)?;
        let copy = copy_over(from, &metadata, copy)?;
        fs::rename(&copy, to)?;
        std::mem::forget(copy);
        sync_directory_of(to)?;
        fs::remove_file(from)?;
        sync_directory_of(from)
    };
    moved().with_context(|| format!("move `{}` to `{}`", from.display(), to.display()))
}

fn copy_over(
    from: &Path,
    metadata: &Metadata,
    copy: NamedTempFile,
) -> io::Result<tempfile::TempPath> {
    if metadata.is_symlink() {
        let target = fs::read_link(from)?;
        let name = copy.into_temp_path();
        fs::remove_file(&name)?;
        symlink(target, &name)?;
        lchown(&name, Some(metadata.uid()), Some(metadata.gid()))?;
        return Ok(name);
    }
    let mut content = Vec::new();
    File::open(from)?.read_to_end(&mut content)?;
    let mut copy = copy;
    copy.write_all(&content)?;
    let file = copy.as_file();
    fchown(file, Some(metadata.uid()), Some(metadata.gid()))?;
    file.set_permissions(metadata.permissions())?;
    file.set_modified(metadata.modified()?)?;
    file.sync_all()?;
    Ok(copy.into_temp_path())
}

/// A temporary file in the directory of `path`, with a name that is not valid for a unit or a credential.
fn beside(path: &Path) -> io::Result<NamedTempFile> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut prefix = OsString::from(".");
    prefix.push(path.file_name().unwrap_or_default());
    prefix.push(".");
    Builder::new().prefix(&prefix).tempfile_in(directory)
}

fn sync_directory_of(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moved_file_keeps_text_mode_and_time_and_is_moved_once() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("a"), directory.path().join("b"));
        write(&from, "text", 0o640).unwrap();
        let time = from.metadata().unwrap().modified().unwrap();
        for _ in 0..2 {
            move_to(&from, &to).unwrap();
            assert!(!from.exists());
            assert!(
                matches!(inspect(&to).unwrap(), Found::File { text, mode: 0o640 } if text == "text")
            );
            assert_eq!(to.metadata().unwrap().modified().unwrap(), time);
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_moved_link_stays_a_link_even_to_nowhere() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("a"), directory.path().join("b"));
        link(&from, Path::new("/nowhere")).unwrap();
        move_to(&from, &to).unwrap();
        assert!(
            matches!(inspect(&to).unwrap(), Found::Link(target) if target == Path::new("/nowhere"))
        );
        assert!(matches!(inspect(&from).unwrap(), Found::Nothing));
    }
}
