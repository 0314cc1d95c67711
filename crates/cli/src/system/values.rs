//! What steps and profiles are made of: modes, owners, and as whom a step works. Each is checked
//! where it is read, from whichever file.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, bail};
use buildbot_conda_core::settings::Instance;
use buildbot_conda_core::values::AccountName;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The bits of a mode, as text four octal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mode(u32);

impl Mode {
    /// Other bits are dropped: in the output of `stat`, the file type is next to the mode.
    pub(crate) const fn new(bits: u32) -> Self {
        Self(bits & 0o7777)
    }

    pub(crate) fn bits(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:04o}", self.0)
    }
}

impl FromStr for Mode {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let bits = u32::from_str_radix(text, 8).ok();
        match bits.filter(|bits| *bits <= 0o7777) {
            Some(bits) => Ok(Self(bits)),
            None => bail!(
                "`{}` is not a mode in octal, such as `0644`",
                text.escape_debug()
            ),
        }
    }
}

impl Serialize for Mode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ModeVisitor)
    }
}

/// Text in octal, or the number that journals and records of version 1 have.
struct ModeVisitor;

impl Visitor<'_> for ModeVisitor {
    type Value = Mode;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a mode in octal")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Mode, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Mode, E> {
        let bits = u32::try_from(number).ok().filter(|bits| *bits <= 0o7777);
        bits.map(Mode)
            .ok_or_else(|| E::custom(format!("{number} is not a mode")))
    }
}

/// An account or group by its name, or by its number where it has none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Principal {
    Name(AccountName),
    Number(u32),
}

impl fmt::Display for Principal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(formatter),
            Self::Number(number) => number.fmt(formatter),
        }
    }
}

impl FromStr for Principal {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        if let Ok(number) = text.parse() {
            return Ok(Self::Number(number));
        }
        let name = text.parse();
        name.map(Self::Name).context("read an owner")
    }
}

impl Serialize for Principal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Principal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// Mode, owner and group of a file or directory, as text `MODE OWNER GROUP`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ownership {
    pub(crate) mode: Mode,
    pub(crate) user: Principal,
    pub(crate) group: Principal,
}

impl fmt::Display for Ownership {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} {}", self.mode, self.user, self.group)
    }
}

impl FromStr for Ownership {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let words: Vec<&str> = text.split(' ').collect();
        let [mode, user, group] = words[..] else {
            bail!(
                "`{}` is not a mode with an owner and a group",
                text.escape_debug()
            );
        };
        Ok(Self {
            mode: mode.parse()?,
            user: user.parse()?,
            group: group.parse()?,
        })
    }
}

impl Serialize for Ownership {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Ownership {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// As whom a step works: an account, with another group than its primary one where that is configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) user: AccountName,
    #[serde(default)]
    pub(crate) group: Option<AccountName>,
}

impl Identity {
    /// That of an instance.
    pub(crate) fn of(instance: &Instance) -> Self {
        Self {
            user: instance.user.clone(),
            group: instance.group.clone(),
        }
    }

    /// The name of the group, as programs that change the account expect it.
    pub(crate) fn group(&self) -> Option<&str> {
        self.group.as_ref().map(AccountName::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal_text_and_were_numbers() {
        for (json, text) in [("\"0644\"", "0644"), ("420", "0644"), ("\"4755\"", "4755")] {
            let mode: Mode = serde_json::from_str(json).unwrap();
            assert_eq!(mode.to_string(), text);
            assert_eq!(serde_json::to_string(&mode).unwrap(), format!("\"{text}\""));
        }
        for json in [
            "\"\"",
            "\"0888\"",
            "\"10000\"",
            "4096",
            "-1",
            "\"u+x\"",
            "null",
        ] {
            assert!(serde_json::from_str::<Mode>(json).is_err(), "{json}");
        }
        assert_eq!(Mode::new(0o100_644), Mode::new(0o644));
    }

    #[test]
    fn ownership_is_three_words() {
        for text in ["0644 root root", "2750 bb 1000", "0000 0 0"] {
            assert_eq!(text.parse::<Ownership>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "0644",
            "0644 root",
            "0644 root root x",
            "0644  root",
            "x root root",
        ] {
            assert!(text.parse::<Ownership>().is_err(), "{text}");
        }
    }
}
