//! From the published state and the given packages to the next state: packages that are added, kept or removed. No file
//! is accessed.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;

use crate::error::Error;
use crate::package::{Identity, Package};
use crate::present::Generation;
use crate::release::Packages;

/// How long a replaced state remains readable, in seconds: a client that has its `InRelease` finds its indexes and
/// packages for that time.
const GRACE: u64 = 24 * 60 * 60;

/// The next state.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) packages: Packages,
    pub(crate) added: Vec<Identity>,
    pub(crate) known: Vec<Identity>,
    pub(crate) dropped: Vec<Identity>,
}

impl Change {
    /// `present`, and the files given with what they are.
    ///
    /// # Errors
    ///
    /// When a file would change what clients know: `readable` has the states that some may still be reading.
    pub(crate) fn new<'g>(
        present: Packages,
        given: impl IntoIterator<Item = (&'g Path, &'g Package)>,
        keep: Option<NonZeroUsize>,
        readable: &[Generation],
    ) -> Result<Self, Error> {
        let mut change = Self {
            packages: present,
            ..Self::default()
        };
        for (path, package) in given {
            let identity = &package.identity;
            let states = readable.iter().map(|generation| &generation.packages);
            for packages in states.chain([&change.packages]) {
                refuse_conflict(path, package, packages)?;
            }
            let new = change
                .packages
                .insert(identity.clone(), package.clone())
                .is_none();
            let list = if new {
                &mut change.added
            } else {
                &mut change.known
            };
            list.push(identity.clone());
        }
        if let Some(keep) = keep {
            change.prune(keep);
        }
        Ok(change)
    }

    fn prune(&mut self, keep: NonZeroUsize) {
        let mut versions: BTreeMap<_, Vec<Identity>> = BTreeMap::new();
        for identity in self.packages.keys() {
            let line = (identity.name.clone(), identity.architecture.clone());
            // Ascending, as the keys are.
            versions.entry(line).or_default().push(identity.clone());
        }
        for line in versions.into_values() {
            let surplus = line.len().saturating_sub(keep.get());
            for identity in line.into_iter().take(surplus) {
                self.packages.remove(&identity);
                self.dropped.push(identity);
            }
        }
    }
}

fn refuse_conflict(path: &Path, package: &Package, packages: &Packages) -> Result<(), Error> {
    let identity = &package.identity;
    if let Some(other) = packages.get(identity) {
        if other.sha256 != package.sha256 {
            return Err(Error::OtherContent {
                path: path.to_owned(),
                identity: Box::new(identity.clone()),
            });
        }
        return Ok(());
    }
    let file_name = identity.file_name();
    let mut others = packages.keys();
    match others.find(|other| other.file_name() == file_name) {
        Some(other) => Err(Error::SameFile {
            path: path.to_owned(),
            other: Box::new(other.clone()),
        }),
        None => Ok(()),
    }
}

/// The generations, the present one last, that clients may still read when the next one is published at `date`: the
/// present one, and those that were replaced less than a day before.
pub(crate) fn readable(generations: Vec<Generation>, date: u64) -> Vec<Generation> {
    let next: Vec<u64> = generations
        .iter()
        .skip(1)
        .map(|generation| generation.release.date)
        .chain([date])
        .collect();
    let replaced = generations.into_iter().zip(next);
    replaced
        .filter(|(_, replaced)| date.saturating_sub(*replaced) < GRACE)
        .map(|(generation, _)| generation)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::release::Release;

    fn package(name: &str, version: &str, content: &str) -> Package {
        let control = format!("Package: {name}\nVersion: {version}\nArchitecture: amd64\n");
        Package::from_control(control.as_bytes(), 1, Digest::of(content.as_bytes())).unwrap()
    }

    fn packages(list: &[Package]) -> Packages {
        let pairs = list
            .iter()
            .map(|package| (package.identity.clone(), package.clone()));
        pairs.collect()
    }

    fn generation(number: u64, date: u64, list: &[Package]) -> Generation {
        Generation {
            number,
            release: Release {
                name: String::new(),
                suite: String::new(),
                date,
                valid_until: 0,
                architectures: Vec::new(),
                files: BTreeMap::new(),
            },
            files: BTreeMap::new(),
            packages: packages(list),
        }
    }

    fn add(
        present: &[Package],
        given: &[Package],
        keep: usize,
        readable: &[Generation],
    ) -> Result<Change, String> {
        let given = given.iter().map(|package| (Path::new("x.deb"), package));
        Change::new(packages(present), given, NonZeroUsize::new(keep), readable)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_newest_versions_of_each_package_are_kept() {
        let present = ["1.9", "1.10", "1.0~rc1"].map(|version| package("xy", version, "a"));
        let other = package("zz", "1", "z");
        let change = add(
            &[&present[..], &[other]].concat(),
            &[package("xy", "2", "b")],
            2,
            &[],
        );
        let change = change.unwrap();
        let names = |list: &[Identity]| list.iter().map(Identity::to_string).collect::<Vec<_>>();
        assert_eq!(names(&change.added), ["xy 2 amd64"]);
        assert_eq!(names(&change.dropped), ["xy 1.0~rc1 amd64", "xy 1.9 amd64"]);
        let kept: Vec<Identity> = change.packages.into_keys().collect();
        assert_eq!(names(&kept), ["xy 1.10 amd64", "xy 2 amd64", "zz 1 amd64"]);
    }

    #[test]
    fn a_version_has_one_content_as_long_as_anybody_knows_it() {
        let known = package("xy", "1", "a");
        let rebuilt = package("xy", "1", "b");
        let refusal = "reject `x.deb`: `xy 1 amd64` is in the repository with different content\n\
                       hint: use a new version for the new build; clients would confuse the two";
        let refused = |change: Result<Change, String>| assert_eq!(change.unwrap_err(), refusal);
        let one = std::slice::from_ref;
        refused(add(one(&known), one(&rebuilt), 0, &[]));
        refused(add(&[], &[known.clone(), rebuilt.clone()], 0, &[]));
        let earlier = generation(1, 0, one(&known));
        refused(add(&[], &[rebuilt], 0, &[earlier]));
        let again = add(one(&known), one(&known), 0, &[]).unwrap();
        assert_eq!((again.added, again.known), (vec![], vec![known.identity]));
    }

    #[test]
    fn versions_that_differ_in_the_epoch_alone_are_refused() {
        let error = add(
            &[package("xy", "1", "a")],
            &[package("xy", "1:1", "b")],
            0,
            &[],
        );
        assert!(
            error
                .unwrap_err()
                .contains("would overwrite that of `xy 1 amd64`")
        );
    }

    #[test]
    fn what_was_replaced_within_a_day_stays_readable() {
        let day = GRACE;
        let dates = [0, 1, day, day + 10, 3 * day];
        let all = || {
            let numbers = dates.iter().zip(1..);
            numbers
                .map(|(date, number)| generation(number, *date, &[]))
                .collect::<Vec<_>>()
        };
        let check = |date, expect: &[u64]| {
            let numbers: Vec<u64> = readable(all(), date).iter().map(|one| one.number).collect();
            assert_eq!(numbers, expect, "{date}");
        };
        check(3 * day, &[4, 5]);
        check(4 * day, &[5]);
        check(400 * day, &[5]);
    }
}
