//! The indexes as text: `Packages` of each architecture, and the `Release` that is signed and vouches for them.
//!
//! The same packages, settings and date give the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flate2::{Compression, GzBuilder};
use thiserror::Error;

use crate::control::{ControlError, Paragraph};
use crate::digest::Digest;
use crate::names::Architecture;
use crate::package::{Identity, Package, PackageError};

/// The packages of a repository, in the order of its indexes.
pub type Packages = BTreeMap<Identity, Package>;

/// The content of a `Release` file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// `Origin` and `Label`.
    pub name: String,
    /// `Suite` and `Codename`.
    pub suite: String,
    /// Seconds since 1970.
    pub date: u64,
    /// Seconds since 1970; apt refuses the file afterwards.
    pub valid_until: u64,
    /// What the packages are for, without `all` where there are others.
    pub architectures: Vec<String>,
    /// Every index with its checksum and bytes, by its path below the suite's directory.
    pub files: BTreeMap<String, (Digest, u64)>,
}

/// Why a text is not a `Release` of ours, or not an index.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReleaseError {
    /// No paragraph, or a field is missing.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A package in an index.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// A value that this program does not write.
    #[error("unexpected content of the field `{0}`")]
    Foreign(&'static str),
    /// A package in the index of two architectures differs.
    #[error("`{0}` differs between architectures")]
    Differs(Box<Identity>),
}

/// The architectures for which there is an index. Packages for `all` are in every one.
pub(crate) fn architectures(packages: &Packages) -> Vec<String> {
    let names = packages
        .keys()
        .map(|identity| identity.architecture.as_str());
    let mut architectures: BTreeSet<&str> = names.collect();
    if architectures.len() > 1 {
        architectures.remove(Architecture::ALL);
    }
    architectures.into_iter().map(str::to_owned).collect()
}

/// Every index by its path below the suite's directory, plain and compressed.
pub(crate) fn indexes(packages: &Packages) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for architecture in architectures(packages) {
        let own = packages.values().filter(|package| {
            [architecture.as_str(), Architecture::ALL]
                .contains(&package.identity.architecture.as_str())
        });
        let paragraphs: Vec<String> = own.map(Package::paragraph).collect();
        let plain = paragraphs.join("\n").into_bytes();
        let path = format!("main/binary-{architecture}/Packages");
        files.insert(format!("{path}.gz"), compressed(&plain));
        files.insert(path, plain);
    }
    files
}

/// Without a date or a file name in it.
fn compressed(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzBuilder::new().write(Vec::new(), Compression::best());
    encoder
        .write_all(plain)
        .and_then(|()| encoder.finish())
        .expect("a vector takes everything")
}

/// The packages of an index.
///
/// # Errors
///
/// [`ReleaseError`], for what [`indexes`] does not write.
pub(crate) fn read_index(bytes: &[u8], packages: &mut Packages) -> Result<(), ReleaseError> {
    let text = str::from_utf8(bytes).map_err(|_| ControlError::Unprintable(1))?;
    for paragraph in text.split("\n\n").filter(|paragraph| !paragraph.is_empty()) {
        let package = Package::from_index(paragraph.as_bytes())?;
        let identity = package.identity.clone();
        let other = packages.insert(identity.clone(), package.clone());
        if other.is_some_and(|other| other != package) {
            return Err(ReleaseError::Differs(Box::new(identity)));
        }
    }
    Ok(())
}

impl Release {
    /// The text that is signed.
    pub fn text(&self) -> String {
        let Self { name, suite, .. } = self;
        let mut text = format!(
            "Origin: {name}\nLabel: {name}\nSuite: {suite}\nCodename: {suite}\nDate: {}\nValid-Until: {}\n\
             Acquire-By-Hash: yes\nArchitectures: {}\nComponents: main\nSHA256:\n",
            date_text(self.date),
            date_text(self.valid_until),
            self.architectures.join(" ")
        );
        for (path, (digest, size)) in &self.files {
            writeln!(text, " {digest} {size} {path}").expect("a string takes everything");
        }
        text
    }

    /// Reads what [`Release::text`] writes.
    ///
    /// # Errors
    ///
    /// [`ReleaseError`], for anything else.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReleaseError> {
        let paragraph = Paragraph::parse(bytes)?;
        let date = |field: &'static str| {
            date_of(paragraph.need(field)?).ok_or(ReleaseError::Foreign(field))
        };
        let words = paragraph.need("Architectures")?.split(' ');
        let architectures: Vec<String> = words.map(str::to_owned).collect();
        let mut files = BTreeMap::new();
        for line in paragraph.need("SHA256")?.lines().skip(1) {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let &[digest, size, path] = &words[..] else {
                return Err(ReleaseError::Foreign("SHA256"));
            };
            let (Ok(digest), Ok(size)) = (digest.parse(), size.parse()) else {
                return Err(ReleaseError::Foreign("SHA256"));
            };
            files.insert(path.to_owned(), (digest, size));
        }
        let release = Self {
            name: paragraph.need("Origin")?.to_owned(),
            suite: paragraph.need("Suite")?.to_owned(),
            date: date("Date")?,
            valid_until: date("Valid-Until")?,
            architectures,
            files,
        };
        // Paths lead nowhere else, nothing is missing, and there is no checksum that is not verified.
        let known: BTreeSet<String> = release.expected_files().collect();
        if !release.files.keys().eq(known.iter()) || release.text().as_bytes() != bytes {
            return Err(ReleaseError::Foreign("SHA256"));
        }
        Ok(release)
    }

    fn expected_files(&self) -> impl Iterator<Item = String> {
        let good = |name: &&String| name.parse::<Architecture>().is_ok();
        let directories = self.architectures.iter().filter(good);
        directories.flat_map(|name| {
            let path = format!("main/binary-{name}/Packages");
            [format!("{path}.gz"), path]
        })
    }
}

/// A moment as `Sun, 22 Nov 2026 12:00:00 UTC`.
pub(crate) fn date_text(seconds: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_secs(seconds);
    httpdate::fmt_http_date(time).replace("GMT", "UTC")
}

fn date_of(text: &str) -> Option<u64> {
    let time: SystemTime = httpdate::parse_http_date(&text.replace("UTC", "GMT")).ok()?;
    time.duration_since(UNIX_EPOCH)
        .ok()
        .map(|since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packages() -> Packages {
        let controls = [
            "Package: xy\nVersion: 1.10\nArchitecture: amd64\n",
            "Package: xy\nVersion: 1.9\nArchitecture: amd64\n",
            "Package: xy\nVersion: 1.9\nArchitecture: arm64\n",
            "Package: doc\nVersion: 1\nArchitecture: all\n",
        ];
        let packages = controls.iter().map(|control| {
            let digest = Digest::of(control.as_bytes());
            Package::from_control(control.as_bytes(), 1, digest).unwrap()
        });
        packages
            .map(|package| (package.identity.clone(), package))
            .collect()
    }

    fn release() -> Release {
        let files = indexes(&packages()).into_iter().map(|(path, bytes)| {
            let size = bytes.len() as u64;
            (path, (Digest::of(&bytes), size))
        });
        Release {
            name: "example".to_owned(),
            suite: "stable".to_owned(),
            date: 1_795_348_800,
            valid_until: 1_795_435_200,
            architectures: architectures(&packages()),
            files: files.collect(),
        }
    }

    #[test]
    fn packages_for_all_are_in_the_index_of_every_architecture() {
        let files = indexes(&packages());
        assert_eq!(
            files.keys().collect::<Vec<_>>(),
            [
                "main/binary-amd64/Packages",
                "main/binary-amd64/Packages.gz",
                "main/binary-arm64/Packages",
                "main/binary-arm64/Packages.gz"
            ]
        );
        let text = str::from_utf8(&files["main/binary-amd64/Packages"]).unwrap();
        let versions: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("Version"))
            .collect();
        assert_eq!(versions, ["Version: 1", "Version: 1.9", "Version: 1.10"]);
        let mut read = Packages::new();
        read_index(&files["main/binary-amd64/Packages"], &mut read).unwrap();
        read_index(&files["main/binary-arm64/Packages"], &mut read).unwrap();
        assert_eq!(read, packages());
    }

    #[test]
    fn a_release_is_read_as_it_was_written() {
        let text = release().text();
        assert!(
            text.contains("\nDate: Sun, 22 Nov 2026 12:00:00 UTC\n"),
            "{text}"
        );
        assert!(!text.contains("MD5") && !text.contains("SHA1:"), "{text}");
        assert_eq!(Release::parse(text.as_bytes()), Ok(release()));
    }

    #[test]
    fn a_release_of_others_is_refused() {
        let text = release().text();
        let changes = [
            ("main/binary-amd64/Packages\n", "../../etc/passwd\n"),
            ("Architectures: amd64 arm64", "Architectures: amd64"),
            ("Architectures: amd64 arm64", "Architectures: amd64 ../x"),
            ("Acquire-By-Hash: yes", "Acquire-By-Hash: no"),
            ("SHA256:\n", "MD5Sum:\n x 1 Packages\nSHA256:\n"),
            ("12:00:00 UTC", "yesterday"),
        ];
        for (from, to) in changes {
            assert!(text.contains(from), "{from}");
            let error = Release::parse(text.replacen(from, to, 1).as_bytes());
            assert!(error.is_err(), "{to}");
        }
    }
}
