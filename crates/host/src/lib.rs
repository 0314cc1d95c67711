//! The configuration of this host on disk: it is opened without blocking, trusted only if root alone can write it, and
//! read up to a size limit.
//!
//! Generator, launcher and command line all read it with this code, so that either all or none of them use a file: an
//! instance must not start from a configuration that its drop-in was not made from.

#![warn(
    clippy::print_stderr,
    reason = "the macros of the standard library panic when nobody reads"
)]

pub mod access;
mod credentials;
pub mod lock;
pub mod notify;
#[cfg(test)]
mod properties;
pub mod systemd;
pub mod trusted;
pub mod unit_files;

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use buildbot_conda_core::paths;
use buildbot_conda_core::settings::Settings;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Flock as FileLock, FlockType, fcntl_getlk};
use thiserror::Error;

use crate::credentials::Credentials;
use crate::trusted::{Reason, Trust, Untrusted};

/// Size in bytes up to which a configuration is read; one of 1,000 instances has about 0.1 MB.
const LARGEST_CONFIGURATION: u64 = 8 << 20;

/// Why there is no usable configuration.
#[derive(Debug, Error)]
pub enum Unusable {
    /// There is none.
    #[error(
        "configuration `{}` not found\nhint: `dpkg-reconfigure buildbot-conda` writes a new one",
        .0.display()
    )]
    Missing(PathBuf),
    /// It exists but cannot be read.
    // The field is not called `source`: the message contains it, and a chain of causes would repeat it.
    #[error("read `{}`: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        cause: io::Error,
    },
    /// A pipe would block the boot, a device might do anything.
    #[error("read `{}`: it is not a regular file", .0.display())]
    NotRegular(PathBuf),
    /// More than a configuration has.
    #[error("read `{}`: it is larger than {LARGEST_CONFIGURATION} bytes", .0.display())]
    TooLarge(PathBuf),
    /// Accounts other than root control its content: the file, or a directory or link in its path, belongs to them.
    /// Generator and launcher would run Buildbot as any user of their choice.
    #[error("{untrusted}\nhint: {}", hint(.untrusted))]
    Distrusted {
        /// What was met.
        untrusted: Untrusted,
    },
}

/// What to do about a configuration that is not root's alone.
fn hint(untrusted: &Untrusted) -> String {
    let Untrusted { path, at, reason } = untrusted;
    let is_here = at == path || path.parent() == Some(at);
    match reason {
        Reason::Owner(_) if is_here => {
            format!("check it, then run `chown root: {}`", at.display())
        }
        Reason::Mode(_) if is_here => {
            format!("check it, then run `chmod go-w {}`", at.display())
        }
        _ => format!(
            "every directory in the path of `{}` must be owned by root",
            path.display()
        ),
    }
}

/// Bytes of a note of a change: a line for each instance of the host.
const LARGEST_NOTE: u64 = 1 << 20;

/// The absolute `path` below `root`, if there is a root.
pub fn below(root: Option<&Path>, path: impl AsRef<Path>) -> PathBuf {
    let path = path.as_ref();
    match root {
        None => path.to_owned(),
        Some(root) => root.join(path.strip_prefix("/").unwrap_or(path)),
    }
}

/// The prefix to enter for a configured one. For a managed environment, this is a generation: the one that is being
/// tried, while a command tries it, and otherwise the one to which the link points. It is entered by its own name, so
/// it stays the same when another generation becomes current. Every other prefix is entered as it is written.
pub fn prefix_to_enter(configured: &str) -> PathBuf {
    let path = PathBuf::from(configured);
    let Some(environment) = managed(&path) else {
        return path;
    };
    if let Some((tried, true)) = change_of(environment) {
        return tried;
    }
    match fs::read_link(&path) {
        // A link of ours contains only the name of a directory next to it.
        Ok(target) if target.components().count() == 1 => environment.join(target),
        _ => path,
    }
}

/// For a managed environment, the prefix of a generation that was tried by a command which has not come to its end, and
/// is not at it any more: that generation does not serve.
pub fn interrupted_prefix(configured: &str) -> Option<PathBuf> {
    let path = PathBuf::from(configured);
    match change_of(managed(&path)?) {
        Some((tried, false)) if fs::read_link(&path).ok()? != tried.file_name()? => Some(tried),
        _ => None,
    }
}

/// The directory of a managed environment.
fn managed(configured: &Path) -> Option<&Path> {
    let environment = configured.parent()?;
    let is_managed = configured.ends_with("current")
        && environment.parent() == Some(Path::new(paths::ENVIRONMENTS));
    is_managed.then_some(environment)
}

/// The prefix of the generation that is being tried, and whether a command is trying it: such a command holds a lock on
/// the file, which only root can do. Asking for the lock does not take it and disturbs nothing.
fn change_of(environment: &Path) -> Option<(PathBuf, bool)> {
    let file = File::open(environment.join(".changing")).ok()?;
    let text = read_at_most(&file, LARGEST_NOTE).ok()??;
    let name = text.split(|byte| *byte == b'\n').nth(1)?;
    let name = std::str::from_utf8(name).ok()?;
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let question = FileLock::from(FlockType::ReadLock);
    let is_held = matches!(fcntl_getlk(&file, &question), Ok(Some(_)));
    is_name.then(|| (environment.join(name), is_held))
}

/// The settings of this host, valid or not; those below `root`, if there is a root.
///
/// # Errors
///
/// [`Unusable`], if there is no usable text.
pub fn settings(root: Option<&Path>) -> Result<Settings, Unusable> {
    let path = below(root, paths::CONFIGURATION);
    Ok(parsed(&path, &text(root)?, &Trust::of_root(root)))
}

/// The text of this host's configuration, or the problem with it.
///
/// # Errors
///
/// As [`settings`].
pub fn text(root: Option<&Path>) -> Result<Vec<u8>, Unusable> {
    let path = below(root, paths::CONFIGURATION);
    let found = match Trust::of_root(root).find(Path::new(paths::CONFIGURATION)) {
        Ok(found) => found,
        Err(untrusted) if untrusted.is_missing() => return Err(Unusable::Missing(path)),
        Err(Untrusted {
            reason: Reason::System(cause),
            ..
        }) => return Err(Unusable::Unreadable { path, cause }),
        Err(untrusted) => return Err(Unusable::Distrusted { untrusted }),
    };
    content(&path, found.metadata(), |limit| found.read(limit))
}

/// What this host's settings would be with another text.
pub fn settings_from(root: Option<&Path>, text: &str) -> Settings {
    let path = below(root, paths::CONFIGURATION);
    parsed(&path, text.as_bytes(), &Trust::of_root(root))
}

/// The settings of any file, such as one that will become the configuration.
///
/// # Errors
///
/// As [`settings`], regardless of the owner of the file.
pub fn settings_of(path: &Path, root: Option<&Path>) -> Result<Settings, Unusable> {
    let opened = open(path).map_err(|cause| Unusable::Unreadable {
        path: path.to_owned(),
        cause,
    })?;
    let (file, metadata) = opened.ok_or_else(|| Unusable::Missing(path.to_owned()))?;
    let content = content(path, &metadata, |limit| read_at_most(&file, limit))?;
    Ok(parsed(path, &content, &Trust::of_root(root)))
}

fn content(
    path: &Path,
    metadata: &Metadata,
    read: impl FnOnce(u64) -> io::Result<Option<Vec<u8>>>,
) -> Result<Vec<u8>, Unusable> {
    let path = path.to_owned();
    if !metadata.is_file() {
        return Err(Unusable::NotRegular(path));
    }
    match read(LARGEST_CONFIGURATION) {
        Ok(Some(content)) => Ok(content),
        Ok(None) => Err(Unusable::TooLarge(path)),
        Err(cause) => Err(Unusable::Unreadable { path, cause }),
    }
}

/// The text as settings, without the instances whose credentials others than root could have chosen.
fn parsed(path: &Path, content: &[u8], trust: &Trust) -> Settings {
    let mut credentials = Credentials::new(trust);
    Settings::parse_with(&path.display().to_string(), content, &mut |file| {
        credentials.judge(Path::new(file.as_str()))
    })
}

/// Opens a file without blocking; its type is in the metadata. `None` if it does not exist.
///
/// # Errors
///
/// The error of the system, except that the file does not exist.
pub fn open(path: &Path) -> io::Result<Option<(File, Metadata)>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(error) if io::Error::from(error).kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let metadata = file.metadata()?;
    Ok(Some((file, metadata)))
}

/// The content of a file, or `None` if it is larger than `limit` bytes.
///
/// # Errors
///
/// The error of the system.
pub fn read_at_most(file: &File, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut content = Vec::new();
    let length = file.take(limit + 1).read_to_end(&mut content)?;
    Ok((length as u64 <= limit).then_some(content))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use tempfile::TempDir;

    use super::*;

    /// A root directory with this configuration.
    fn host(content: &str) -> TempDir {
        let root = tempfile::tempdir().unwrap();
        let path = below(Some(root.path()), paths::CONFIGURATION);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        root
    }

    fn said(root: &TempDir) -> String {
        let said = settings(Some(root.path())).unwrap_err().to_string();
        said.replace(root.path().to_str().unwrap(), "")
    }

    #[test]
    fn a_configuration_below_a_root_is_read() {
        let root = host("[master]\n");
        let settings = settings(Some(root.path())).unwrap();
        assert_eq!(settings.instances().count(), 1);
        assert!(settings.file().ends_with("/etc/buildbot-conda/config.toml"));
    }

    #[test]
    fn none_is_said_with_what_makes_one() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(
            said(&root),
            "configuration `/etc/buildbot-conda/config.toml` not found\n\
             hint: `dpkg-reconfigure buildbot-conda` writes a new one"
        );
    }

    #[test]
    fn what_is_no_regular_file_is_refused_without_waiting() {
        let root = host("");
        let path = below(Some(root.path()), paths::CONFIGURATION);
        let refusal = "read `/etc/buildbot-conda/config.toml`: it is not a regular file";
        fs::remove_file(&path).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, Mode::RUSR).unwrap();
        assert_eq!(said(&root), refusal);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(said(&root), refusal);
    }

    #[test]
    fn a_file_beyond_the_limit_is_refused() {
        let root = host("");
        let file = File::create(below(Some(root.path()), paths::CONFIGURATION)).unwrap();
        file.set_len(LARGEST_CONFIGURATION + 1).unwrap();
        let refusal = "read `/etc/buildbot-conda/config.toml`: it is larger than 8388608 bytes";
        assert_eq!(said(&root), refusal);
    }

    #[test]
    fn a_file_that_others_can_write_is_not_believed() {
        let root = host("");
        let path = below(Some(root.path()), paths::CONFIGURATION);
        fs::set_permissions(&path, Permissions::from_mode(0o664)).unwrap();
        assert!(said(&root).contains("is writable by accounts other than root (mode 0664)"));
        assert!(settings_of(&path, None).is_ok());
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        fs::set_permissions(path.parent().unwrap(), Permissions::from_mode(0o777)).unwrap();
        let refusal =
            "goes through `/etc/buildbot-conda`, which is writable by accounts other than root";
        assert!(said(&root).contains(refusal), "{}", said(&root));
    }
}
