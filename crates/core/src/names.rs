//! The names of instances: roles, instance names, references and the corresponding units.
//!
//! A *reference* is what an administrator types and writes in the configuration: `master`, `worker`, `master@NAME`,
//! `worker@NAME`. The name of the unit is the reference with the prefix `buildbot-`.

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

    /// What an administrator types: a reference, or the name of its unit with or without `.service`.
    ///
    /// # Errors
    ///
    /// [`NameError`], with the reference that was probably meant.
    pub fn typed(text: &str) -> Result<Self, NameError> {
        let bare = text
            .strip_prefix("buildbot-")
            .map_or(text, |rest| rest.strip_suffix(".service").unwrap_or(rest));
        bare.parse().map_err(|error| match (error, probable(bare)) {
            (NameError::Reference(_), Some(probable)) => NameError::Mistyped {
                text: text.to_owned(),
                probable,
            },
            (error, _) => error,
        })
    }

    /// The one of `known` that this one was probably meant to be.
    pub fn nearest<'k>(&self, known: impl Iterator<Item = &'k Self>) -> Option<&'k Self> {
        let typed = self.to_string();
        known
            .filter(|known| *known != self && known.name.is_some() == self.name.is_some())
            .map(|known| (distance(&typed, &known.to_string()), known))
            .filter(|(distance, known)| *distance <= 2.max(known.to_string().len() / 4))
            .min_by_key(|(distance, _)| *distance)
            .map(|(_, known)| known)
    }
}

/// How many slips of the fingers turn one text into the other.
fn distance(one: &str, other: &str) -> usize {
    strsim::damerau_levenshtein(one, other)
}

/// A reference whose role is mistyped, or that has something else in the place of its `@`.
fn probable(text: &str) -> Option<InstanceRef> {
    let (role, name) = match text.split_once('@') {
        Some((role, name)) => (role, Some(name)),
        None => (text, None),
    };
    let roles = Role::ALL.into_iter();
    if let Some((_, role)) = roles
        .map(|known| (distance(&role.to_ascii_lowercase(), known.as_str()), known))
        .filter(|(distance, _)| *distance <= 2)
        .min_by_key(|(distance, _)| *distance)
    {
        let name = name.map(str::parse).transpose().ok()?;
        return Some(InstanceRef { role, name });
    }
    Role::ALL.into_iter().find_map(|role| {
        let rest = text.strip_prefix(role.as_str())?;
        let name = rest.trim_start_matches(['-', '_', '.', ':', '/', ' ']);
        let name = name.parse().ok()?;
        Some(InstanceRef {
            role,
            name: Some(name),
        })
    })
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
    /// The instance that the unit runs.
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
    #[error("`{}` is not a role; roles are `master` and `worker`", .0.escape_debug())]
    Role(String),
    /// The part after `@` is not an instance name.
    #[error(
        "`{}` is not an instance name; use 1 to 31 of `a-z`, `0-9`, `_` and `-`, starting with a letter or digit",
        .0.escape_debug()
    )]
    Instance(String),
    /// Not a reference at all.
    #[error(
        "`{}` is not an instance; use `master`, `worker`, `master@NAME` or `worker@NAME`",
        .0.escape_debug()
    )]
    Reference(String),
    /// Not a reference, but nearly one.
    #[error("`{}` is not an instance; did you mean `{probable}`?", .text.escape_debug())]
    Mistyped {
        /// What was typed.
        text: String,
        /// What was probably meant.
        probable: InstanceRef,
    },
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
    fn units_are_references_where_an_administrator_types_them() {
        for (text, expect) in [
            ("master", "master"),
            ("buildbot-master", "master"),
            ("buildbot-master.service", "master"),
            ("buildbot-worker@gpu", "worker@gpu"),
            ("buildbot-worker@gpu.service", "worker@gpu"),
        ] {
            assert_eq!(InstanceRef::typed(text), Ok(expect.parse().unwrap()));
        }
        for text in [
            "buildbot-",
            "x",
            "buildbot-master.target",
            "worker@",
            "buildbot-worker@.service",
        ] {
            assert!(InstanceRef::typed(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_was_probably_meant_is_proposed() {
        for (text, expect) in [
            ("wroker@gpu", Some("worker@gpu")),
            ("mastr", Some("master")),
            ("Master", Some("master")),
            ("worker-gpu", Some("worker@gpu")),
            ("buildbot-wrker@gpu.service", Some("worker@gpu")),
            ("gpu", None),
            ("worker@", None),
        ] {
            let message = InstanceRef::typed(text).unwrap_err().to_string();
            let proposed = expect.map(|expect| format!("did you mean `{expect}`?"));
            assert_eq!(
                message.contains("did you mean"),
                proposed.is_some(),
                "{message}"
            );
            assert!(message.contains(&proposed.unwrap_or_default()), "{message}");
        }
        let known: Vec<InstanceRef> = ["master", "worker", "worker@gpu", "worker@cpu-large"]
            .map(|text| text.parse().unwrap())
            .into();
        for (text, expect) in [
            ("worker@gup", Some("worker@gpu")),
            ("worker@cpu-lagre", Some("worker@cpu-large")),
            ("worker@night", None),
            ("worker@gpu", None),
        ] {
            let typed: InstanceRef = text.parse().unwrap();
            let nearest = typed.nearest(known.iter()).map(ToString::to_string);
            assert_eq!(nearest.as_deref(), expect, "{text}");
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
