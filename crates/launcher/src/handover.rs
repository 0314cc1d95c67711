//! Passes on the environment that the launcher received: when a reload starts a worker again in the same process,
//! activation starts from this environment, and not from the result of the last activation.

use std::env;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::MemfdFlags;

/// The name of the descriptor, with which the content also starts. The runner uses the same name.
pub(crate) const VARIABLE: &str = "BUILDBOT_CONDA_ENVIRONMENT";

/// A file in memory that stays open over an exec: the name, then each variable as `NAME=VALUE`, each with a NUL behind it.
pub(crate) fn environment() -> io::Result<File> {
    let mut content = [VARIABLE.as_bytes(), b"\0"].concat();
    for (name, value) in env::vars_os() {
        content.extend([name.as_bytes(), b"=", value.as_bytes(), b"\0"].concat());
    }
    let mut file = File::from(rustix::fs::memfd_create(VARIABLE, MemfdFlags::empty())?);
    file.write_all(&content)?;
    Ok(file)
}
