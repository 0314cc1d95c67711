//! `repository.toml`, the settings of one repository: written once by `create`, then the administrator's.

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;
use toml::de::{DeTable, DeValue};

/// What a repository is called, who signs it, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `Origin` and `Label`, and the first part of the names of the files for clients.
    pub name: Word,
    /// Where clients find the repository's directory.
    pub url: Url,
    /// `Suite` and `Codename`.
    pub suite: Word,
    /// Each of them signs.
    pub keys: Vec<Fingerprint>,
    /// How long a signed state is believed.
    pub valid_for: Duration,
    /// How many versions of a package are kept; all of them, where nothing is said.
    pub keep: Option<NonZeroUsize>,
}

/// A value that is not valid: what was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("expected {0}")]
pub struct Expected(pub &'static str);

/// Small letters, digits, `.` and `-`, beginning with a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word(String);

/// An address that apt can read from, without a `/` at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url(String);

/// The fingerprint of a key of version 4: 40 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint(String);

/// A problem of the file. Its text is `LINE: KEY: REASON`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{line}: {key}: {reason}")]
pub struct SettingsError {
    line: usize,
    key: String,
    reason: String,
}

impl FromStr for Word {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let good = text.len() <= 64
            && text.starts_with(alphanumeric)
            && text.chars().all(|c| alphanumeric(c) || ".-".contains(c));
        good.then(|| Self(text.to_owned()))
            .ok_or(Expected("small letters, digits, `.` and `-`"))
    }
}

impl FromStr for Url {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        let known = ["http://", "https://", "file:/"]
            .iter()
            .any(|scheme| text.len() > scheme.len() && text.starts_with(scheme));
        let good = known && text.chars().all(|c| c.is_ascii_graphic());
        good.then(|| Self(text.trim_end_matches('/').to_owned()))
            .ok_or(Expected(
                "an address beginning with `https://`, `http://` or `file:/`",
            ))
    }
}

impl FromStr for Fingerprint {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        // gpg prints it with blanks for people.
        let digits: String = text.split(' ').collect::<String>().to_ascii_uppercase();
        let good = digits.len() == 40 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        good.then_some(Self(digits))
            .ok_or(Expected("a whole fingerprint, 40 hexadecimal digits"))
    }
}

/// The text of a duration, such as `90days`.
///
/// # Errors
///
/// [`Expected`], also for less than an hour, because nobody could renew it in time.
pub(crate) fn valid_for(text: &str) -> Result<Duration, Expected> {
    humantime::parse_duration(text)
        .ok()
        .filter(|duration| *duration >= Duration::from_hours(1))
        .filter(|duration| *duration <= Duration::from_hours(24 * 366 * 100))
        .ok_or(Expected("a duration such as `90days`, one hour or more"))
}

impl Settings {
    /// Reads the file's text.
    ///
    /// # Errors
    ///
    /// The first problem with its line.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        let table = DeTable::parse(text).map_err(|error| SettingsError {
            line: line_of(text, error.span().map_or(0, |span| span.start)),
            key: "syntax".to_owned(),
            reason: error.message().lines().collect::<Vec<_>>().join(", "),
        })?;
        let reader = Reader {
            text,
            table: table.get_ref(),
        };
        let keys = ["name", "url", "suite", "keys", "valid-for", "keep"];
        let mut names = reader.table.keys();
        if let Some(key) = names.find(|key| !keys.contains(&key.get_ref().as_ref())) {
            return Err(SettingsError {
                line: line_of(text, key.span().start),
                key: key.get_ref().to_string(),
                reason: "unknown key".to_owned(),
            });
        }
        Ok(Self {
            name: reader.text("name", str::parse)?,
            url: reader.text("url", str::parse)?,
            suite: reader.text("suite", str::parse)?,
            keys: reader.keys()?,
            valid_for: reader.text("valid-for", valid_for)?,
            keep: reader.keep()?,
        })
    }
}

struct Reader<'t> {
    text: &'t str,
    table: &'t DeTable<'t>,
}

impl Reader<'_> {
    fn text<T>(
        &self,
        key: &str,
        read: impl Fn(&str) -> Result<T, Expected>,
    ) -> Result<T, SettingsError> {
        let value = self.value(key).and_then(DeValue::as_str);
        let value = value.ok_or_else(|| self.problem(key, Expected("text in quotes")))?;
        read(value).map_err(|expected| self.problem(key, expected))
    }

    fn keys(&self) -> Result<Vec<Fingerprint>, SettingsError> {
        let problem = |expected| self.problem("keys", expected);
        let array = self.value("keys").and_then(DeValue::as_array);
        let mut keys = Vec::new();
        for value in array.into_iter().flatten() {
            let text = value.get_ref().as_str().unwrap_or_default();
            let key: Fingerprint = text.parse().map_err(problem)?;
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        if keys.is_empty() {
            return Err(problem(Expected("a list of fingerprints")));
        }
        Ok(keys)
    }

    fn keep(&self) -> Result<Option<NonZeroUsize>, SettingsError> {
        let Some(value) = self.value("keep") else {
            return Ok(None);
        };
        let number = value.as_integer().map(|number| number.as_str().parse());
        match number {
            Some(Ok(number)) => Ok(Some(number)),
            _ => Err(self.problem("keep", Expected("a number of versions, 1 or more"))),
        }
    }

    fn value(&self, key: &str) -> Option<&DeValue<'_>> {
        self.table.get(key).map(toml::Spanned::get_ref)
    }

    fn problem(&self, key: &str, expected: Expected) -> SettingsError {
        let place = self.table.get(key).map_or(0, |value| value.span().start);
        SettingsError {
            line: line_of(self.text, place),
            key: key.to_owned(),
            reason: expected.to_string(),
        }
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().iter().take(offset);
    1 + before.filter(|byte| **byte == b'\n').count()
}

impl fmt::Display for Settings {
    /// The text of a new file.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<String> = self.keys.iter().map(|key| format!("\"{key}\"")).collect();
        writeln!(
            formatter,
            "# Settings of this apt repository. A change takes effect at the next `repo add` or `repo refresh`.\n\
             name = \"{}\"  # origin that is shown to clients\n\
             url = \"{}\"  # where clients find this directory\n\
             suite = \"{}\"\n\
             keys = [{}]  # each of them signs\n\
             valid-for = \"{}\"  # refresh it before, or clients reject it",
            self.name,
            self.url,
            self.suite,
            keys.join(", "),
            duration_text(self.valid_for),
        )?;
        match self.keep {
            Some(keep) => writeln!(formatter, "keep = {keep}  # versions of each package"),
            None => writeln!(
                formatter,
                "# keep = 5  # versions of each package; all, if not set"
            ),
        }
    }
}

/// In days if that is exact: humantime would use months.
fn duration_text(duration: Duration) -> String {
    match duration.as_secs() {
        seconds if seconds % 86_400 == 0 => format!("{}days", seconds / 86_400),
        seconds => format!("{seconds}s"),
    }
}

macro_rules! text_of {
    ($($name:ident)*) => { $(
        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    )* };
}

text_of! { Word Url Fingerprint }

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "4C9EC1C0A136183CF945DFE2ABC9C38EF6B9DA80";

    fn settings() -> Settings {
        Settings {
            name: "example".parse().unwrap(),
            url: "http://apt.example/".parse().unwrap(),
            suite: "stable".parse().unwrap(),
            keys: vec![KEY.parse().unwrap()],
            valid_for: Duration::from_hours(24 * 90),
            keep: None,
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        let kept = Settings {
            keep: NonZeroUsize::new(5),
            valid_for: Duration::from_hours(36),
            ..settings()
        };
        for settings in [settings(), kept] {
            assert_eq!(Settings::parse(&settings.to_string()), Ok(settings));
        }
    }

    #[test]
    fn a_problem_is_said_with_its_line() {
        let check = |from: &str, to: &str, expect: &str| {
            let text = settings().to_string();
            assert!(text.contains(from), "{text}");
            let error = Settings::parse(&text.replace(from, to)).unwrap_err();
            assert_eq!(error.to_string(), expect);
        };
        check("suite", "siute", "4: siute: unknown key");
        check(
            "\"stable\"",
            "\"a/b\"",
            "4: suite: expected small letters, digits, `.` and `-`",
        );
        check(
            "http:",
            "gopher:",
            "3: url: expected an address beginning with `https://`, `http://` or `file:/`",
        );
        check(
            KEY,
            "F6B9DA80",
            "5: keys: expected a whole fingerprint, 40 hexadecimal digits",
        );
        check(
            &format!("\"{KEY}\""),
            "",
            "5: keys: expected a list of fingerprints",
        );
        check(
            "90days",
            "5min",
            "6: valid-for: expected a duration such as `90days`, one hour or more",
        );
        check(
            "# keep = 5",
            "keep = 0",
            "7: keep: expected a number of versions, 1 or more",
        );
    }
}
