//! The published state, trusted only as far as signatures and checksums reach: from `InRelease` through the indexes to
//! every package. Otherwise, the next signature would vouch for files that someone else put there.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;

use crate::digest::Digest;
use crate::error::{Error, at};
use crate::gpg;
use crate::layout::Layout;
use crate::release::{Packages, Release, read_index};
use crate::settings::{Fingerprint, Settings, Word};

/// The state that clients see.
#[derive(Debug)]
pub(crate) struct Present {
    pub(crate) number: u64,
    pub(crate) release: Release,
    pub(crate) packages: Packages,
    /// Those keys of the settings that signed it.
    pub(crate) signers: Vec<Fingerprint>,
}

/// One state on disk, of now or earlier.
#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) number: u64,
    pub(crate) release: Release,
    /// The indexes by their paths.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) packages: Packages,
}

/// Reads and verifies the present state; nothing before the first was published.
pub(crate) fn load(layout: &Layout, settings: &Settings) -> Result<Option<Present>, Error> {
    let Some(number) = layout.present(&settings.suite)? else {
        return Ok(None);
    };
    let directory = layout.generation(&settings.suite, number);
    let signers = verify_signatures(&directory, settings)?;
    let generation = generation(layout, &settings.suite, number)?;
    for package in generation.packages.values() {
        let path = layout.pool(&package.identity.file_name());
        let found = File::open(&path).and_then(Digest::of_reader);
        let (sha256, size) = found.map_err(at("read", &path))?;
        if (&sha256, size) != (&package.sha256, package.size) {
            return Err(tampered(&path, "its checksum differs"));
        }
    }
    Ok(Some(Present {
        number,
        release: generation.release,
        packages: generation.packages,
        signers,
    }))
}

/// Checks both forms of the signature, and gives those keys of the settings that made them.
pub(crate) fn verify_signatures(
    directory: &Path,
    settings: &Settings,
) -> Result<Vec<Fingerprint>, Error> {
    let [in_release, release, signature] =
        ["InRelease", "Release", "Release.gpg"].map(|name| directory.join(name));
    let bad = |path: &Path| {
        let path = path.to_owned();
        move |error| match error {
            Error::Gpg { said, .. } => Error::Tampered {
                path,
                reason: said.into(),
            },
            other => other,
        }
    };
    let text = read(&release)?;
    let (signed, signers) = gpg::text_of(&in_release).map_err(bad(&in_release))?;
    if signed != text {
        return Err(tampered(&in_release, "its text differs from `Release`"));
    }
    let detached = gpg::signers_of(&signature, &release).map_err(bad(&signature))?;
    let known = settings.keys.iter();
    let signers: Vec<Fingerprint> = known
        .filter(|key| signers.contains(key) && detached.contains(key))
        .cloned()
        .collect();
    if signers.is_empty() {
        return Err(Error::OtherKeys(in_release));
    }
    Ok(signers)
}

/// Reads a generation, its indexes compared with its `Release`.
pub(crate) fn generation(layout: &Layout, suite: &Word, number: u64) -> Result<Generation, Error> {
    let directory = layout.generation(suite, number);
    let path = directory.join("Release");
    let foreign = |path: &Path| {
        let path = path.to_owned();
        move |cause| Error::Foreign { path, cause }
    };
    let release = Release::parse(&read(&path)?).map_err(foreign(&path))?;
    let mut files = BTreeMap::new();
    let mut packages = Packages::new();
    for (name, (digest, size)) in &release.files {
        let by_hash = directory.join(by_hash(name, digest));
        let path = directory.join(name);
        let content = read(&path)?;
        for (path, content) in [(&path, &content), (&by_hash, &read(&by_hash)?)] {
            if (&Digest::of(content), content.len() as u64) != (digest, *size) {
                return Err(tampered(path, "its checksum differs"));
            }
        }
        if name.ends_with("/Packages") {
            read_index(&content, &mut packages).map_err(foreign(&path))?;
        }
        files.insert(name.clone(), content);
    }
    Ok(Generation {
        number,
        release,
        files,
        packages,
    })
}

/// Where an index lies under its checksum, relative to the suite.
pub(crate) fn by_hash(name: &str, digest: &Digest) -> String {
    let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
    format!("{directory}/by-hash/SHA256/{digest}")
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => tampered(path, "it is missing"),
        _ => at("read", path)(error),
    })
}

fn tampered(path: &Path, reason: &str) -> Error {
    Error::Tampered {
        path: path.to_owned(),
        reason: reason.to_owned(),
    }
}
