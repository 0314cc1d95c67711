//! Whether the files of an environment are unchanged since the installation of its packages: each is compared with its
//! record in `conda-meta`, by type, size and sha256.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use buildbot_conda_core::foreign_text::ForeignText;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::Error;
use crate::package::record;

/// One file that has changed since its installation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// Below the prefix.
    pub path: ForeignText,
    /// The package that brought it; none for a file that none brought.
    pub package: Option<ForeignText>,
    /// `missing`, `changed`, `unknown` or `unreadable`.
    pub what: &'static str,
}

/// The part of a record that is about files.
#[derive(Deserialize)]
struct Record {
    name: ForeignText,
    #[serde(default)]
    files: Vec<PathBuf>,
    #[serde(default)]
    paths_data: Paths,
}

#[derive(Default, Deserialize)]
struct Paths {
    #[serde(default)]
    paths: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "_path")]
    path: PathBuf,
    #[serde(default)]
    path_type: String,
    /// Checksum of the file in the package.
    sha256: Option<String>,
    /// Checksum of the file with the prefix written into it.
    sha256_in_prefix: Option<String>,
    size_in_bytes: Option<u64>,
    prefix_placeholder: Option<String>,
}

/// Compares every file of the environment at `prefix` with its package. The differences are sorted by path. Bytecode
/// and `conda-meta` belong to no package and are skipped.
///
/// # Errors
///
/// [`Error`] if a record cannot be read or a directory cannot be listed.
pub fn verify(prefix: &Path) -> Result<Vec<Finding>, Error> {
    let directory = prefix.join("conda-meta");
    let mut known = BTreeSet::new();
    let mut findings = Vec::new();
    for entry in fs::read_dir(&directory).map_err(Error::io("read", &directory))? {
        let path = entry.map_err(Error::io("read", &directory))?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let record: Record = record(&path)?;
        for entry in &record.paths_data.paths {
            if let Some(what) = wrong(prefix, entry) {
                findings.push(Finding {
                    path: ForeignText::of_path(&entry.path),
                    package: Some(record.name.clone()),
                    what,
                });
            }
        }
        known.extend(record.paths_data.paths.into_iter().map(|entry| entry.path));
        known.extend(record.files);
    }
    strangers(prefix, Path::new(""), &known, &mut findings)?;
    findings.sort();
    Ok(findings)
}

/// What is wrong with a file, if anything.
fn wrong(prefix: &Path, entry: &Entry) -> Option<&'static str> {
    let path = prefix.join(&entry.path);
    let metadata = match fs::symlink_metadata(&path) {
        Ok(metadata) => metadata,
        Err(error) if is_absence(&error) => return Some("missing"),
        Err(_) => return Some("unreadable"),
    };
    match entry.path_type.as_str() {
        // Its checksum is that of its target, which is listed as a separate file.
        "softlink" => return (!metadata.is_symlink()).then_some("changed"),
        "directory" => return (!metadata.is_dir()).then_some("changed"),
        _ if !metadata.is_file() => return Some("changed"),
        _ => {}
    }
    let is_rewritten = entry.prefix_placeholder.is_some();
    let expected = match (&entry.sha256_in_prefix, is_rewritten) {
        (Some(sum), _) => Some(sum),
        // Without its own checksum, a rewritten file cannot be distinguished from a changed one.
        (None, true) => None,
        (None, false) => entry.sha256.as_ref(),
    };
    if !is_rewritten
        && entry
            .size_in_bytes
            .is_some_and(|size| size != metadata.len())
    {
        return Some("changed");
    }
    // Checked again after it is opened: the owner may have replaced it by a pipe.
    let file = match buildbot_conda_host::open(&path) {
        Ok(Some((file, opened))) if opened.is_file() => file,
        Ok(_) => return Some("changed"),
        Err(_) => return Some("unreadable"),
    };
    match (expected, sha256(file)) {
        (Some(expected), Ok(found)) => (*expected != found).then_some("changed"),
        (None, Ok(_)) => None,
        (_, Err(_)) => Some("unreadable"),
    }
}

/// Files that no package brought.
fn strangers(
    prefix: &Path,
    below: &Path,
    known: &BTreeSet<PathBuf>,
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    let directory = prefix.join(below);
    for entry in fs::read_dir(&directory).map_err(Error::io("read", &directory))? {
        let entry = entry.map_err(Error::io("read", &directory))?;
        let path = below.join(entry.file_name());
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let is_ours = path == Path::new("conda-meta") || entry.file_name() == "__pycache__";
        if is_directory && !is_ours {
            strangers(prefix, &path, known, findings)?;
        } else if !is_directory && !known.contains(&path) && path != Path::new("CACHEDIR.TAG") {
            findings.push(Finding {
                path: ForeignText::of_path(&path),
                package: None,
                what: "unknown",
            });
        }
    }
    Ok(())
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn sha256(mut file: impl Read) -> io::Result<String> {
    let mut sum = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            length => sum.update(&buffer[..length]),
        }
    }
    let mut digits = String::new();
    for byte in sum.finalize() {
        write!(digits, "{byte:02x}").expect("a string takes everything");
    }
    Ok(digits)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn what_is_missing_changed_or_strange_is_found() {
        let prefix = tempfile::tempdir().unwrap();
        let path = |path: &str| prefix.path().join(path);
        fs::create_dir_all(path("conda-meta")).unwrap();
        fs::create_dir_all(path("lib/__pycache__")).unwrap();
        let record = format!(
            r#"{{"name": "a", "files": ["bin/entry"], "paths_data": {{"paths": [
                {{"_path": "lib/good", "path_type": "hardlink", "sha256": "{ABC}", "size_in_bytes": 3}},
                {{"_path": "lib/rewritten", "path_type": "hardlink", "sha256": "0", "sha256_in_prefix": "{ABC}",
                  "prefix_placeholder": "/placeholder", "size_in_bytes": 99}},
                {{"_path": "lib/link", "path_type": "softlink", "sha256": "0", "size_in_bytes": 3}}
            ]}}}}"#
        );
        fs::write(path("conda-meta/a-1-0.json"), record).unwrap();
        fs::write(path("conda-meta/history"), "").unwrap();
        fs::write(path("lib/__pycache__/good.pyc"), "").unwrap();
        for file in ["lib/good", "lib/rewritten"] {
            fs::write(path(file), "abc").unwrap();
        }
        symlink("good", path("lib/link")).unwrap();
        assert_eq!(verify(prefix.path()).unwrap(), []);

        fs::write(path("lib/good"), "abd").unwrap();
        fs::write(path("lib/rewritten"), "longer").unwrap();
        fs::remove_file(path("lib/link")).unwrap();
        fs::write(path("lib/stranger"), "").unwrap();
        let found: Vec<_> = verify(prefix.path())
            .unwrap()
            .into_iter()
            .map(|finding| (finding.path.to_string(), finding.what))
            .collect();
        let expected = [
            ("lib/good", "changed"),
            ("lib/link", "missing"),
            ("lib/rewritten", "changed"),
            ("lib/stranger", "unknown"),
        ];
        assert_eq!(found, expected.map(|(path, what)| (path.to_owned(), what)));
    }
}
