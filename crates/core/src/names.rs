//! How instances are named: roles, instance names, references and the units they stand for.
//!
//! A *reference* is what an administrator types and writes in the configuration: `master`,
//! `worker`, `master@NAME`, `worker@NAME`. The unit is the reference with `buildbot-` in front.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// What a Buildbot process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Schedules builds and serves the web pages.
    Master,
    /// Runs the steps of builds.
    Worker,
}

impl Role {
    /// Both roles, masters first.
    pub const ALL: [Self; 2] = [Self::Master, Self::Worker];

    /// `master` or `worker`, as in references, units and the launcher's arguments.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::Worker => "worker",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| NameError::Role(text.to_owned()))
    }
}

/// The part after `@`: 1 to 31 characters of `a-z`, `0-9`, `_` and `-`, the first a letter or
/// digit. Such a name needs no escaping in a unit name, a path or a shell word.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceName(String);

impl InstanceName {
    /// Longest name, in bytes.
    pub const MAX_LENGTH: usize = 31;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for InstanceName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let lower_or_digit = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let mut bytes = text.bytes();
        let first = bytes.next().is_some_and(lower_or_digit);
        let rest = bytes.all(|byte| lower_or_digit(byte) || byte == b'_' || byte == b'-');
        if first && rest && text.len() <= Self::MAX_LENGTH {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::Instance(text.to_owned()))
        }
    }
}

/// One Buildbot on this host. Ordered masters first, the plain instance before the named ones.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceRef {
    /// What it is.
    pub role: Role,
    /// `None` for the plain instance of the role.
    pub name: Option<InstanceName>,
}

impl InstanceRef {
    /// The plain instance of a role.
    pub fn plain(role: Role) -> Self {
        Self { role, name: None }
    }

    /// `buildbot-master.service`, `buildbot-worker@gpu.service`.
    pub fn unit_name(&self) -> String {
        format!("buildbot-{self}.service")
    }

    /// The unit that runs it.
    pub fn unit(&self) -> Unit {
        Unit(self.clone())
    }
}

impl fmt::Display for InstanceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            None => write!(f, "{}", self.role),
            Some(name) => write!(f, "{}@{name}", self.role),
        }
    }
}

impl FromStr for InstanceRef {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let Some((role, name)) = text.split_once('@') else {
            let role = text
                .parse()
                .map_err(|_| NameError::Reference(text.to_owned()))?;
            return Ok(Self::plain(role));
        };
        let role = role
            .parse()
            .map_err(|_| NameError::Reference(text.to_owned()))?;
        Ok(Self {
            role,
            name: Some(name.parse()?),
        })
    }
}

/// The unit of an instance, as text its name: `buildbot-worker@gpu.service`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Unit(InstanceRef);

impl Unit {
    /// The instance that it runs.
    pub fn reference(&self) -> &InstanceRef {
        &self.0
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.unit_name())
    }
}

impl FromStr for Unit {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        text.strip_prefix("buildbot-")
            .and_then(|text| text.strip_suffix(".service"))
            .and_then(|text| text.parse().ok())
            .map(Self)
            .ok_or_else(|| NameError::Unit(text.to_owned()))
    }
}

/// A name that is none.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// Neither `master` nor `worker`.
    #[error("`{}` is no role; roles are `master` and `worker`", .0.escape_debug())]
    Role(String),
    /// The part after `@` is not an instance name.
    #[error(
        "`{}` is no instance name; use 1 to 31 of `a-z`, `0-9`, `_` and `-`, a letter or digit first",
        .0.escape_debug()
    )]
    Instance(String),
    /// Not a reference at all.
    #[error(
        "`{}` is no instance; write `master`, `worker`, `master@NAME` or `worker@NAME`",
        .0.escape_debug()
    )]
    Reference(String),
    /// Not a unit of an instance.
    #[error("`{}` is not the unit of an instance, such as `buildbot-master.service`", .0.escape_debug())]
    Unit(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_and_units_are_the_same_words() {
        for text in ["master", "worker", "master@nightly", "worker@gpu-2_a"] {
            let reference: InstanceRef = text.parse().unwrap();
            assert_eq!(reference.to_string(), text);
            let unit = format!("buildbot-{text}.service");
            assert_eq!(reference.unit_name(), unit);
            assert_eq!(unit.parse(), Ok(reference.unit()));
            assert_eq!(reference.unit().to_string(), unit);
        }
    }

    #[test]
    fn only_units_of_instances_are_units() {
        for text in [
            "",
            "buildbot-.service",
            "buildbot-worker@.service",
            "buildbot-worker@GPU.service",
            "buildbot-master",
            "master.service",
            "master",
            "buildbot-buildbot-master.service",
        ] {
            assert!(text.parse::<Unit>().is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn hostile_names_are_refused() {
        let long = format!("worker@{}", "a".repeat(32));
        for text in [
            "",
            "@",
            "@x",
            "worker@",
            "worker@-x",
            "worker@.",
            "worker@..",
            "worker@a/b",
            "worker@_x",
            "worker@GPU",
            "worker@a b",
            "worker@a\n",
            "worker@a\0",
            "worker@a%i",
            "worker@é",
            "worker@a@b",
            "Master",
            "master ",
            "--help",
            "buildbot-master",
            &long,
        ] {
            assert!(text.parse::<InstanceRef>().is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn the_longest_name_is_taken() {
        assert!("a".repeat(31).parse::<InstanceName>().is_ok());
    }

    #[test]
    fn references_sort_masters_first_and_plain_before_named() {
        let mut list: Vec<InstanceRef> = ["worker@a", "worker", "master@z", "master"]
            .into_iter()
            .map(|text| text.parse().unwrap())
            .collect();
        list.sort();
        let list: Vec<String> = list.iter().map(ToString::to_string).collect();
        assert_eq!(list, ["master", "master@z", "worker", "worker@a"]);
    }
}
