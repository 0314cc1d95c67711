//! A .deb that is added: it is copied first, and only the copy is read, so that exactly the examined file is published.
//! dpkg-deb opens it: every Debian system has it, it supports all compressions of Debian's packages, and a client could
//! not install what it does not accept.

use std::fs::{self, File, Permissions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::{NamedTempFile, TempPath};

use crate::digest::Digest;
use crate::error::{Error, at};
use crate::package::Package;

/// More than a control file has, in bytes.
const LARGEST_CONTROL: u64 = 1 << 20;

/// A package whose copy waits for its place in the pool.
#[derive(Debug)]
pub(crate) struct Incoming {
    /// The file as it was given.
    pub(crate) given: PathBuf,
    /// The copy, on disk, 0644.
    pub(crate) copy: TempPath,
    /// What it is.
    pub(crate) package: Package,
}

/// Copies `given` into the directory and reads it.
pub(crate) fn take_in(given: &Path, directory: &Path) -> Result<Incoming, Error> {
    let metadata = fs::metadata(given).map_err(at("read", given))?;
    let refused = |reason: &str| Error::NoPackage {
        path: given.to_owned(),
        reason: reason.into(),
    };
    if !metadata.is_file() {
        return Err(refused("it is not a regular file"));
    }
    let mut source = File::open(given).map_err(at("read", given))?;
    let mut copy = tempfile::Builder::new()
        .suffix(".deb")
        .tempfile_in(directory)
        .map_err(at("write to", directory))?;
    io::copy(&mut source, &mut copy).map_err(at("copy", given))?;
    finish(&mut copy).map_err(at("copy", given))?;
    let (sha256, size) = Digest::of_reader(copy.as_file()).map_err(at("read", given))?;

    let refused = |reason: &str| {
        // dpkg-deb speaks of our copy.
        let copy = format!("'{}'", copy.path().display());
        refused(&reason.replace(&copy, "it"))
    };
    let control = control(copy.path(), &refused)?;
    ensure_whole(copy.path(), &refused)?;
    let package =
        Package::from_control(&control, size, sha256).map_err(|cause| Error::BadPackage {
            path: given.to_owned(),
            cause,
        })?;
    Ok(Incoming {
        given: given.to_owned(),
        copy: copy.into_temp_path(),
        package,
    })
}

fn finish(copy: &mut NamedTempFile) -> io::Result<()> {
    copy.flush()?;
    copy.as_file()
        .set_permissions(Permissions::from_mode(0o644))?;
    copy.as_file().sync_all()?;
    copy.as_file_mut().rewind()
}

/// The control file.
fn control(deb: &Path, refused: &impl Fn(&str) -> Error) -> Result<Vec<u8>, Error> {
    let mut child = dpkg_deb("--field", deb)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(no_dpkg_deb)?;
    let mut text = Vec::new();
    let stdout = child.stdout.take().expect("stdout is piped");
    stdout
        .take(LARGEST_CONTROL + 1)
        .read_to_end(&mut text)
        .map_err(at("read", deb))?;
    let output = child.wait_with_output().map_err(at("read", deb))?;
    if text.len() as u64 > LARGEST_CONTROL {
        return Err(refused("its control file is larger than 1 MiB"));
    }
    if !output.status.success() {
        return Err(refused(&said(&output.stderr)));
    }
    Ok(text)
}

/// Can all of it be unpacked?
fn ensure_whole(deb: &Path, refused: &impl Fn(&str) -> Error) -> Result<(), Error> {
    let output = dpkg_deb("--fsys-tarfile", deb)
        .stdout(Stdio::null())
        .output()
        .map_err(no_dpkg_deb)?;
    if output.status.success() {
        Ok(())
    } else {
        Err(refused(&said(&output.stderr)))
    }
}

fn dpkg_deb(action: &str, deb: &Path) -> Command {
    let mut command = Command::new("dpkg-deb");
    command
        .env("LC_ALL", "C.UTF-8")
        .arg(action)
        .arg(deb)
        .stdin(Stdio::null());
    command
}

fn no_dpkg_deb(cause: io::Error) -> Error {
    Error::NoProgram {
        program: "dpkg-deb",
        package: "dpkg",
        cause,
    }
}

/// The first line of dpkg-deb's stderr, which has the cause, without its name.
fn said(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let line = text.lines().next().unwrap_or("dpkg-deb failed").trim();
    let prefixes = ["dpkg-deb: error: ", "dpkg-deb (subprocess): "];
    let mut reasons = prefixes
        .iter()
        .filter_map(|prefix| line.strip_prefix(prefix));
    reasons.next().unwrap_or(line).to_owned()
}
