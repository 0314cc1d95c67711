//! Names of environments, and of their generations.

use std::fmt;
use std::str::FromStr;

use crate::Error;

/// The name of a managed environment: 1 to 64 of `A-Z`, `a-z`, `0-9`, `_`, `-` and `.`, the first a letter or digit.
/// `base` and `root` are Conda's own environment and no names here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EnvironmentName(String);

impl EnvironmentName {
    /// Longest name, in bytes.
    const MAX_LENGTH: usize = 64;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EnvironmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for EnvironmentName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let first = text
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_alphanumeric());
        let rest = text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
        let is_condas = matches!(text, "base" | "root");
        if first && rest && !is_condas && text.len() <= Self::MAX_LENGTH {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::Name(text.to_owned()))
        }
    }
}

/// The name of a generation: 12 hexadecimal digits of a checksum over what is in it. The same packages have the same
/// name on every host, so that paths in their files are the same too.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GenerationId(String);

impl GenerationId {
    /// Digits of a name.
    pub(crate) const LENGTH: usize = 12;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GenerationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for GenerationId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == Self::LENGTH && text.bytes().all(digit) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::Generation(text.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_need_no_quoting_and_hide_nothing() {
        for good in ["buildbot", "CI-3.11_b", "0"] {
            assert!(good.parse::<EnvironmentName>().is_ok(), "{good}");
        }
        let long = "a".repeat(65);
        for bad in [
            "", ".hidden", "..", "a/b", "a b", "-a", "base", "root", "é", &long,
        ] {
            assert!(bad.parse::<EnvironmentName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn generations_are_told_from_other_entries_of_the_directory() {
        assert!("0123456789ab".parse::<GenerationId>().is_ok());
        for bad in [
            "current",
            ".building",
            "history",
            "0123456789AB",
            "0123456789a",
        ] {
            assert!(bad.parse::<GenerationId>().is_err(), "{bad}");
        }
    }
}
