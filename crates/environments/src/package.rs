//! What is in an environment: packages from its `conda-meta`, the lock that names them again, and how two
//! environments differ.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::Path;

use buildbot_conda_core::foreign_text::ForeignText;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{Error, GenerationId, LockError};

/// What our programs are built for, in Conda's words.
pub const PLATFORM: &str = "linux-64";
/// Bytes; the record of a package with 100,000 files has a third of this.
const LARGEST_RECORD: u64 = 128 << 20;

/// One package, as described by its record in `conda-meta`, which the owner of the environment can write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// Such as `buildbot`.
    pub name: ForeignText,
    /// Such as `4.3.0`.
    pub version: ForeignText,
    /// Such as `py_0`.
    pub build: ForeignText,
    /// `linux-64` or `noarch`.
    pub subdir: ForeignText,
    /// Where the archive came from.
    pub url: ForeignText,
    /// Checksum of the archive, 64 hexadecimal digits.
    #[serde(default)]
    pub sha256: Option<ForeignText>,
    /// Checksum of the archive, 32 hexadecimal digits.
    #[serde(default)]
    pub md5: Option<ForeignText>,
}

impl Package {
    /// The part that identifies an archive: the last part of its URL, without a fragment after `#`.
    fn file_name(&self) -> &str {
        let url = self.url.split('#').next().unwrap_or_default();
        url.rsplit('/').next().unwrap_or_default()
    }
}

/// The packages of the environment at `prefix`, by name.
///
/// # Errors
///
/// [`Error`] when a record cannot be read; an environment without any is an error too.
pub fn packages_of(prefix: &Path) -> Result<Vec<Package>, Error> {
    let directory = prefix.join("conda-meta");
    let mut packages = Vec::new();
    for entry in fs::read_dir(&directory).map_err(Error::io("read", &directory))? {
        let path = entry.map_err(Error::io("read", &directory))?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            packages.push(record(&path)?);
        }
    }
    packages.sort_by(|one: &Package, other| one.name.cmp(&other.name));
    Ok(packages)
}

/// Reads one record of `conda-meta` into whatever part of it is asked for.
pub(crate) fn record<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, Error> {
    let refused = |reason: &str| Error::Record {
        path: path.to_owned(),
        reason: reason.into(),
    };
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty())
        .map(File::from)
        .map_err(|error| Error::io("read", path)(error.into()))?;
    let is_file = file.metadata().map_err(Error::io("read", path))?.is_file();
    if !is_file {
        return Err(refused("it is not a regular file"));
    }
    let text = buildbot_conda_host::read_at_most(&file, LARGEST_RECORD)
        .map_err(Error::io("read", path))?
        .ok_or_else(|| refused("it is too large for a record of a package"))?;
    serde_json::from_slice(&text).map_err(|error| refused(&error.to_string()))
}

/// The name of a generation with these packages and variables, which is the same on every host. `recipe` stands for how
/// it is created: it changes whenever files of a generation change for other reasons than its packages.
pub fn generation_id(
    packages: &[Package],
    variables: &BTreeMap<String, String>,
    recipe: &str,
) -> GenerationId {
    let mut lines: Vec<String> = packages
        .iter()
        .map(|package| {
            let sha256 = package.sha256.as_deref().unwrap_or_default();
            format!("{}/{} {sha256}", package.subdir, package.file_name())
        })
        .collect();
    lines.sort();
    lines.extend(
        variables
            .iter()
            .map(|(name, value)| format!("{name:?}={value:?}")),
    );
    let mut sum = Sha256::new_with_prefix(recipe);
    for line in lines {
        sum.update(line);
        sum.update("\n");
    }
    let mut digits = String::new();
    for byte in sum.finalize() {
        write!(digits, "{byte:02x}").expect("a string takes everything");
    }
    digits.truncate(GenerationId::LENGTH);
    digits.parse().expect("these are digits of that number")
}

/// An `@EXPLICIT` list that conda, mamba, pixi and `env create` read, each URL with the sha256 of its archive.
///
/// # Errors
///
/// If a package has no checksum, or its record contains something that is not allowed in a lock because a reader would
/// misinterpret it.
pub fn lock_text(packages: &[Package]) -> Result<String, LockError> {
    let mut text = format!("# platform: {PLATFORM}\n@EXPLICIT\n");
    let mut lines = Vec::new();
    for package in packages {
        let unfit = |what, value: &ForeignText| LockError::Unfit {
            package: package.name.clone(),
            what,
            value: value.clone(),
        };
        let url = package.url.split('#').next().unwrap_or_default();
        if package.url.exact().is_none() || !is_address(&package.url) {
            return Err(unfit("address", &package.url));
        }
        let sum = match (&package.sha256, &package.md5) {
            (Some(sha256), _) if is_hex(sha256, 64) => format!("sha256:{sha256}"),
            (None, Some(md5)) if is_hex(md5, 32) => md5.to_string(),
            (None, None) => return Err(LockError::NoChecksum(package.name.clone())),
            (Some(sum), _) | (None, Some(sum)) => return Err(unfit("checksum", sum)),
        };
        lines.push(format!("{url}#{sum}\n"));
    }
    // Sorted by file name: the order has no meaning and must not depend on the source of the packages.
    lines.sort_by(|one, other| one.rsplit('/').next().cmp(&other.rsplit('/').next()));
    text.extend(lines);
    Ok(text)
}

/// Whether a text is the address of an archive, with a fragment or without, in the characters that RFC 3986 has for one.
fn is_address(url: &str) -> bool {
    let is_scheme = |scheme: &str| {
        !scheme.is_empty()
            && scheme
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    };
    url.split_once("://").is_some_and(|(scheme, rest)| {
        is_scheme(scheme)
            && rest
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte))
            && [".conda", ".tar.bz2"]
                .iter()
                .any(|end| rest.split('#').next().unwrap_or_default().ends_with(end))
    })
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// One package that is not the same in two environments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Such as `buildbot`.
    pub name: ForeignText,
    /// Previous version and build; none if the package is new.
    pub before: Option<ForeignText>,
    /// New version and build; none if the package was removed.
    pub after: Option<ForeignText>,
}

/// What changes from one environment to another, by name.
pub fn difference(before: &[Package], after: &[Package]) -> Vec<Difference> {
    let shown =
        |package: &Package| ForeignText::new(&format!("{} {}", package.version, package.build));
    let key = |package: &Package| {
        (
            package.subdir.to_string(),
            package.file_name().to_owned(),
            package.sha256.clone(),
        )
    };
    let mut all: BTreeMap<&ForeignText, (Option<&Package>, Option<&Package>)> = BTreeMap::new();
    for package in before {
        all.entry(&package.name).or_default().0 = Some(package);
    }
    for package in after {
        all.entry(&package.name).or_default().1 = Some(package);
    }
    all.into_iter()
        .filter(|(_, (before, after))| before.map(key) != after.map(key))
        .map(|(name, (before, after))| Difference {
            name: name.clone(),
            before: before.map(shown),
            after: after.map(shown),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str, channel: &str, sum: &str) -> Package {
        Package {
            name: name.into(),
            version: version.into(),
            build: "0".into(),
            subdir: "noarch".into(),
            url: format!("{channel}/noarch/{name}-{version}-0.conda").into(),
            sha256: Some(sum.repeat(64).into()),
            md5: None,
        }
    }

    #[test]
    fn a_generation_has_the_same_name_wherever_its_packages_come_from() {
        let here = [
            package("a", "1", "file:///one", "0"),
            package("b", "1", "file:///one", "1"),
        ];
        let there = [
            package("b", "1", "https://two", "1"),
            package("a", "1", "https://two", "0"),
        ];
        let none = BTreeMap::new();
        let id = generation_id(&here, &none, "1");
        assert_eq!(id, generation_id(&there, &none, "1"));
        let variables = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        assert_ne!(id, generation_id(&here, &variables, "1"));
        assert_ne!(id, generation_id(&here, &none, "2"));
        let other = [
            package("a", "1", "file:///one", "0"),
            package("b", "1", "file:///one", "2"),
        ];
        assert_ne!(id, generation_id(&other, &none, "1"));
    }

    #[test]
    fn a_lock_names_every_package_with_its_checksum() {
        let packages = [
            package("b", "1", "https://two", "1"),
            package("a", "1", "https://x", "0"),
        ];
        let text = format!(
            "# platform: linux-64\n@EXPLICIT\nhttps://x/noarch/a-1-0.conda#sha256:{}\n\
             https://two/noarch/b-1-0.conda#sha256:{}\n",
            "0".repeat(64),
            "1".repeat(64)
        );
        assert_eq!(lock_text(&packages), Ok(text));
        let bare = Package {
            sha256: None,
            ..packages[0].clone()
        };
        let none = Err(LockError::NoChecksum("b".into()));
        assert_eq!(lock_text(&[bare]), none);
    }

    #[test]
    fn what_a_forged_record_has_is_in_no_lock() {
        let good = package("a", "1", "https://x", "0");
        let foreign = format!("https://x/noarch/b-1-0.conda#sha256:{}", "1".repeat(64));
        let addresses = [
            format!("https://x/noarch/a-1-0.conda#x\n{foreign}"),
            format!("https://x/\r{foreign}"),
            "https://x/no arch/a-1-0.conda".to_owned(),
            "https://x/\u{202e}noarch/a-1-0.conda".to_owned(),
            "https://x/\u{1b}[2J/a-1-0.conda".to_owned(),
            "https://x/\u{a0}/a-1-0.conda".to_owned(),
            "@EXPLICIT".to_owned(),
            "/etc/a-1-0.conda".to_owned(),
            "https://x/noarch/a-1-0.sh".to_owned(),
        ];
        let forged = addresses.map(|url| Package {
            url: url.into(),
            ..good.clone()
        });
        let sums = [
            "0".repeat(63),
            "g".repeat(64),
            format!("{}\n{foreign}", "0".repeat(64)),
            format!("{} ", "0".repeat(63)),
        ];
        let forged = forged.into_iter().chain(sums.map(|sum| Package {
            sha256: Some(sum.into()),
            ..good.clone()
        }));
        for package in forged {
            let refused = lock_text(std::slice::from_ref(&package)).unwrap_err();
            assert!(matches!(refused, LockError::Unfit { .. }), "{package:?}");
            // Also after a process of the owner has handed it on.
            let text = serde_json::to_string(&package).unwrap();
            let package: Package = serde_json::from_str(&text).unwrap();
            assert!(lock_text(&[package]).is_err());
        }
    }

    #[test]
    fn a_record_that_is_no_file_is_not_waited_for() {
        let prefix = tempfile::tempdir().unwrap();
        let directory = prefix.path().join("conda-meta");
        fs::create_dir(&directory).unwrap();
        let path = directory.join("a-1-0.json");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, Mode::RUSR).unwrap();
        let refused = packages_of(prefix.path()).unwrap_err().to_string();
        assert!(refused.ends_with("it is not a regular file"), "{refused}");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(packages_of(prefix.path()).is_err());
        assert!(crate::verify(prefix.path()).is_err());
    }

    #[test]
    fn differences_are_new_gone_and_changed_packages() {
        let before = [
            package("a", "1", "x", "0"),
            package("b", "1", "x", "1"),
            package("c", "1", "x", "2"),
        ];
        let after = [
            package("b", "2", "x", "3"),
            package("c", "1", "y", "2"),
            package("d", "1", "x", "4"),
        ];
        let lines: Vec<_> = difference(&before, &after)
            .into_iter()
            .map(|difference| (difference.name, difference.before, difference.after))
            .collect();
        let text = |text: &str| Some(text.into());
        assert_eq!(
            lines,
            [
                ("a".into(), text("1 0"), None),
                ("b".into(), text("1 0"), text("2 0")),
                ("d".into(), None, text("1 0")),
            ]
        );
    }
}
