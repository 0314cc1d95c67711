//! Names of packages, versions and architectures. What passes here is harmless as part of a path, and versions are in
//! the order in which apt and dpkg see them.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The value is not a name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{text}` is not a valid {kind}")]
pub struct NameError {
    kind: &'static str,
    text: String,
}

/// A package's name, by Debian Policy 5.6.1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PackageName(String);

/// A Debian architecture, such as `amd64` or `all`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Architecture(String);

/// A version as in deb-version(7). Versions that dpkg considers equal, such as `1.0` and `1.00`, are ordered by their
/// text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(String);

impl PackageName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Architecture {
    /// The architecture of packages that are for every one.
    pub const ALL: &'static str = "all";

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Version {
    /// The version without its epoch, as in the names of files.
    pub fn without_epoch(&self) -> &str {
        self.0.split_once(':').map_or(&self.0, |(_, rest)| rest)
    }

    /// Epoch, upstream version and revision; an absent revision is empty.
    fn parts(&self) -> (u32, &str, &str) {
        let epoch = self.0.split_once(':').map_or("0", |(epoch, _)| epoch);
        let rest = self.without_epoch();
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        (epoch.parse().unwrap_or(u32::MAX), upstream, revision)
    }
}

impl FromStr for PackageName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let rest = |character: char| {
            character.is_ascii_lowercase()
                || character.is_ascii_digit()
                || "+-.".contains(character)
        };
        let good = (2..=128).contains(&text.len())
            && text.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit())
            && text.chars().all(rest);
        checked(good, "name of a package", text).map(Self)
    }
}

impl FromStr for Architecture {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let rest = |character: char| {
            character.is_ascii_lowercase() || character.is_ascii_digit() || character == '-'
        };
        let good = (2..=64).contains(&text.len())
            && text.starts_with(|first: char| first.is_ascii_lowercase())
            && text.chars().all(rest);
        checked(good, "architecture", text).map(Self)
    }
}

impl FromStr for Version {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let epoch_is_good = text
            .split_once(':')
            .is_none_or(|(epoch, _)| epoch.parse::<u32>().is_ok() && !epoch.starts_with('+'));
        let rest = text.split_once(':').map_or(text, |(_, rest)| rest);
        let known =
            |character: char| character.is_ascii_alphanumeric() || ".+~-".contains(character);
        let good = text.len() <= 128
            && epoch_is_good
            && rest.starts_with(|first: char| first.is_ascii_digit())
            && !rest.ends_with('-')
            && rest.chars().all(known);
        checked(good, "version of a package", text).map(Self)
    }
}

fn checked(good: bool, kind: &'static str, text: &str) -> Result<String, NameError> {
    let text = text.to_owned();
    if good {
        Ok(text)
    } else {
        Err(NameError { kind, text })
    }
}

impl fmt::Display for PackageName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let (epoch, upstream, revision) = self.parts();
        let (other_epoch, other_upstream, other_revision) = other.parts();
        epoch
            .cmp(&other_epoch)
            .then_with(|| compare(upstream, other_upstream))
            .then_with(|| compare(revision, other_revision))
            .then_with(|| self.0.cmp(&other.0))
    }
}

/// Text and numbers in turn, each compared in its own way, by deb-version(7), "Sorting algorithm".
fn compare(mut left: &str, mut right: &str) -> Ordering {
    while !left.is_empty() || !right.is_empty() {
        let (left_text, right_text) = (
            take(&mut left, |c| !c.is_ascii_digit()),
            take(&mut right, |c| !c.is_ascii_digit()),
        );
        // The end of a text comes after a tilde and before everything else.
        let weights = |text: &str| text.chars().map(weight).chain([0]).collect::<Vec<_>>();
        let (left_number, right_number) = (
            take(&mut left, |c| c.is_ascii_digit()).trim_start_matches('0'),
            take(&mut right, |c| c.is_ascii_digit()).trim_start_matches('0'),
        );
        let order = weights(left_text)
            .cmp(&weights(right_text))
            .then_with(|| left_number.len().cmp(&right_number.len()))
            .then_with(|| left_number.cmp(right_number));
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

/// Cuts off the beginning that consists of such characters.
fn take<'t>(text: &mut &'t str, such: impl Fn(char) -> bool) -> &'t str {
    let end = text.find(|c| !such(c)).unwrap_or(text.len());
    let (taken, rest) = text.split_at(end);
    *text = rest;
    taken
}

/// Letters come before all other characters, and a tilde comes before the end.
fn weight(character: char) -> i64 {
    let code = i64::from(u32::from(character));
    match character {
        '~' => -1,
        letter if letter.is_ascii_alphabetic() => code,
        _ => code + 256,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_in_dpkgs_order() {
        let ascending = [
            "0~1",
            "0",
            "0.9.9",
            "0.10.0",
            "1.0~rc1",
            "1.0~rc1-1",
            "1.0",
            "1.0-0.1",
            "1.0-1~bpo1",
            "1.0-1",
            "1.0-1.1",
            "1.0a",
            "1.0a1",
            "1.0+b",
            "1.0.1",
            "1:0.1",
            "2:0",
        ];
        let mut versions: Vec<Version> =
            ascending.iter().map(|text| text.parse().unwrap()).collect();
        versions.reverse();
        versions.sort();
        let sorted: Vec<String> = versions.iter().map(Version::to_string).collect();
        assert_eq!(sorted, ascending);
    }

    #[test]
    fn dpkg_agrees_on_the_order() {
        let texts = [
            "1.0", "1.00", "1.0~", "1.0~~a", "1.0+1", "1.0.1", "1.0-1", "1.0-10", "1.0-9", "1.0z",
            "10", "9", "1:1",
        ];
        for left in texts {
            for right in texts {
                let (one, other): (Version, Version) =
                    (left.parse().unwrap(), right.parse().unwrap());
                let (epoch, upstream, revision) = one.parts();
                let (other_epoch, other_upstream, other_revision) = other.parts();
                let order = epoch
                    .cmp(&other_epoch)
                    .then_with(|| compare(upstream, other_upstream))
                    .then_with(|| compare(revision, other_revision));
                let operator = match order {
                    Ordering::Less => "lt",
                    Ordering::Equal => "eq",
                    Ordering::Greater => "gt",
                };
                let status = std::process::Command::new("dpkg")
                    .args(["--compare-versions", left, operator, right])
                    .status()
                    .unwrap();
                assert!(status.success(), "{left} {operator} {right}");
            }
        }
    }

    #[test]
    fn what_would_be_another_path_is_no_name() {
        for text in [
            "", "a", "..", "../a", "a/b", "A1", "-a", ".a", "a b", "a\n", "ä1",
        ] {
            assert!(text.parse::<PackageName>().is_err(), "{text}");
        }
        for text in [
            "",
            "a",
            "..",
            "../1",
            "1/2",
            "/1",
            "1/../../x",
            "x:1",
            "+1:1",
            "1:",
            "1:x",
            "1 2",
            "1\n",
            "1-",
            "1_2",
        ] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
        for text in ["", "a", "amd64/..", "../x", "a_b", "AMD64"] {
            assert!(text.parse::<Architecture>().is_err(), "{text}");
        }
    }
}
