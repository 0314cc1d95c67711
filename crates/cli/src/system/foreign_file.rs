//! The few files in directories of service users that root reads itself, as data: never through a link, without waiting
//! for a pipe, and with a size limit. All other files of a service user are read by a process of that user (`as_user`).

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// A regular file, open for reading.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY
        .union(OFlags::NOFOLLOW)
        .union(OFlags::NONBLOCK)
        .union(OFlags::NOCTTY)
        .union(OFlags::CLOEXEC);
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    Ok(file)
}

/// Its content, of at most `limit` bytes.
pub(crate) fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let content = buildbot_conda_host::read_at_most(&open(path)?, limit)?;
    content.ok_or_else(|| io::Error::other(format!("it is larger than {limit} bytes")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_pipes_and_what_is_too_large_are_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("target"), "1234").unwrap();
        std::os::unix::fs::symlink(path("target"), path("link")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, path("pipe"), Mode::RUSR).unwrap();
        assert_eq!(read(&path("target"), 4).unwrap(), b"1234");
        assert!(read(&path("target"), 3).is_err());
        for name in ["link", "pipe", ".", "missing"] {
            assert!(read(&path(name), 4).is_err(), "{name}");
        }
    }
}
