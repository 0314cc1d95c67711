//! What is in an environment: packages from its `conda-meta`, the lock that names them again, and how two
//! environments differ.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{Error, GenerationId};

/// One package, in the words of its record in `conda-meta`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// Such as `buildbot`.
    pub name: String,
    /// Such as `4.3.0`.
    pub version: String,
    /// Such as `py_0`.
    pub build: String,
    /// `linux-64` or `noarch`.
    pub subdir: String,
    /// Where the archive came from.
    pub url: String,
    /// Of the archive, 64 hexadecimal digits.
    #[serde(default)]
    pub sha256: Option<String>,
    /// Of the archive, 32 hexadecimal digits.
    #[serde(default)]
    pub md5: Option<String>,
}

impl Package {
    /// What tells an archive from every other: the last part of its URL, without what follows `#`.
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
    let text = fs::read(path).map_err(Error::io("read", path))?;
    serde_json::from_slice(&text).map_err(|error| Error::Record {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

/// The name that a generation with these packages and variables has everywhere. `recipe` stands for how it is made:
/// whatever changes files of a generation besides its packages changes it.
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
/// The name of the first package without any checksum.
pub fn lock_text(packages: &[Package], platform: &str) -> Result<String, String> {
    let mut text = format!("# platform: {platform}\n@EXPLICIT\n");
    let mut lines = Vec::new();
    for package in packages {
        let url = package.url.split('#').next().unwrap_or_default();
        let sum = match (&package.sha256, &package.md5) {
            (Some(sha256), _) => format!("sha256:{sha256}"),
            (None, Some(md5)) => md5.clone(),
            (None, None) => return Err(package.name.clone()),
        };
        lines.push(format!("{url}#{sum}\n"));
    }
    // By file name, as the order means nothing and shall not depend on where the packages come from.
    lines.sort_by(|one, other| one.rsplit('/').next().cmp(&other.rsplit('/').next()));
    text.extend(lines);
    Ok(text)
}

/// One package that is not the same in two environments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Such as `buildbot`.
    pub name: String,
    /// Version and build before; none where it is new.
    pub before: Option<String>,
    /// Version and build after; none where it is gone.
    pub after: Option<String>,
}

/// What changes from one environment to another, by name.
pub fn difference(before: &[Package], after: &[Package]) -> Vec<Difference> {
    let told = |package: &Package| format!("{} {}", package.version, package.build);
    let key = |package: &Package| {
        (
            package.subdir.clone(),
            package.file_name().to_owned(),
            package.sha256.clone(),
        )
    };
    let mut all: BTreeMap<&str, (Option<&Package>, Option<&Package>)> = BTreeMap::new();
    for package in before {
        all.entry(&package.name).or_default().0 = Some(package);
    }
    for package in after {
        all.entry(&package.name).or_default().1 = Some(package);
    }
    all.into_iter()
        .filter(|(_, (before, after))| before.map(key) != after.map(key))
        .map(|(name, (before, after))| Difference {
            name: name.to_owned(),
            before: before.map(told),
            after: after.map(told),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str, channel: &str, sum: &str) -> Package {
        Package {
            name: name.to_owned(),
            version: version.to_owned(),
            build: "0".to_owned(),
            subdir: "noarch".to_owned(),
            url: format!("{channel}/noarch/{name}-{version}-0.conda"),
            sha256: Some(sum.repeat(64)),
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
        assert_eq!(lock_text(&packages, "linux-64"), Ok(text));
        let bare = Package {
            sha256: None,
            ..packages[0].clone()
        };
        assert_eq!(lock_text(&[bare], "linux-64"), Err("b".to_owned()));
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
        let told: Vec<_> = difference(&before, &after)
            .into_iter()
            .map(|difference| (difference.name, difference.before, difference.after))
            .collect();
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(
            told,
            [
                ("a".to_owned(), text("1 0"), None),
                ("b".to_owned(), text("1 0"), text("2 0")),
                ("d".to_owned(), None, text("1 0")),
            ]
        );
    }
}
