//! Reads the configuration file: only a regular file of root's, of bounded size, without waiting.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use buildbot_conda_core::trust::{self, Distrust, LARGEST_CONFIGURATION};
use rustix::fs::{Mode, OFlags};
use thiserror::Error;

/// The file is there but cannot be used.
#[derive(Debug, Error)]
pub(crate) enum Unusable {
    #[error("{path}: read: {source}")]
    Read { path: String, source: io::Error },
    /// A FIFO would block the boot, a device might do anything.
    #[error("{0}: is no regular file")]
    NotRegular(String),
    #[error("{0}: is larger than {LARGEST_CONFIGURATION} bytes")]
    TooLarge(String),
    #[error(transparent)]
    Distrusted(#[from] Distrust),
}

/// The content of the file, or `None` where there is none. `trusted` are the owners that file and
/// directory may have.
///
/// # Errors
///
/// [`Unusable`], with the path.
pub(crate) fn read(path: &Path, trusted: &[u32]) -> Result<Option<Vec<u8>>, Unusable> {
    let name = path.display().to_string();
    let failed = |source| Unusable::Read {
        path: name.clone(),
        source,
    };
    let Some((file, metadata)) = open_regular(path).map_err(failed)? else {
        return Ok(None);
    };
    if !metadata.is_file() {
        return Err(Unusable::NotRegular(name));
    }
    if let Some(directory) = path.parent() {
        let metadata = fs::metadata(directory).map_err(failed)?;
        check(directory, &metadata, trusted)?;
    }
    check(path, &metadata, trusted)?;
    let content = read_at_most(&file, LARGEST_CONFIGURATION).map_err(failed)?;
    content.map(Some).ok_or(Unusable::TooLarge(name))
}

fn check(path: &Path, metadata: &Metadata, trusted: &[u32]) -> Result<(), Distrust> {
    let path = path.display().to_string();
    trust::check(&path, metadata.uid(), metadata.mode(), trusted)
}

/// Opens a file without waiting for anything; what it turned out to be is in its metadata. `None`
/// where nothing is.
pub(crate) fn open_regular(path: &Path) -> io::Result<Option<(File, Metadata)>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(error) if io::Error::from(error).kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let metadata = file.metadata()?;
    Ok(Some((file, metadata)))
}

/// The content of a file, or `None` where it is larger than `limit` bytes.
pub(crate) fn read_at_most(file: &File, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut content = Vec::new();
    let length = file.take(limit + 1).read_to_end(&mut content)?;
    Ok((length as u64 <= limit).then_some(content))
}
