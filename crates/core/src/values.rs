//! The values of the configuration as types: text becomes one of these at its first parse, and an
//! unchecked string never reaches a path, a unit file or an environment.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

/// Why a value was refused, and where possible what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{reason}")]
pub struct ValueError {
    /// One clause, lower case.
    pub reason: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl ValueError {
    fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            hint: None,
        }
    }

    fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Longest path in bytes, `PATH_MAX` of Linux without its closing NUL.
pub const PATH_MAX: usize = 4095;
/// Longest component of a path in bytes, `NAME_MAX` of Linux.
pub const NAME_MAX: usize = 255;

/// An absolute path without `.`, `..`, doubled or trailing slashes and control characters; not `/`
/// itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AbsolutePath(String);

impl AbsolutePath {
    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path of `relative` below this one. The caller vouches for `relative`.
    fn join(&self, relative: &str) -> Self {
        Self(format!("{}/{relative}", self.0))
    }
}

impl fmt::Display for AbsolutePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for AbsolutePath {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        refuse_control_characters(text)?;
        if text.is_empty() {
            return Err(ValueError::new("the path is empty"));
        }
        if text.starts_with('~') {
            return Err(ValueError::new("`~` has no meaning here")
                .with_hint("write the full path, such as `/home/bb`"));
        }
        if !text.starts_with('/') {
            return Err(ValueError::new("the path is not absolute")
                .with_hint("write the full path, starting with `/`"));
        }
        if text.len() > PATH_MAX {
            return Err(ValueError::new(format!(
                "the path has {} bytes, more than {PATH_MAX}",
                text.len()
            )));
        }
        let mut path = String::with_capacity(text.len());
        for component in text.split('/').filter(|component| !component.is_empty()) {
            if component == "." || component == ".." {
                return Err(
                    ValueError::new(format!("the path has a component `{component}`"))
                        .with_hint("write the path without `.` and `..`"),
                );
            }
            if component.len() > NAME_MAX {
                return Err(ValueError::new(format!(
                    "a component of the path has {} bytes, more than {NAME_MAX}",
                    component.len()
                )));
            }
            path.push('/');
            path.push_str(component);
        }
        if path.is_empty() {
            return Err(ValueError::new("the path is the root directory"));
        }
        Ok(Self(path))
    }
}

/// Root of a Conda installation. It becomes part of `PATH`, so it must not contain `:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CondaRoot(AbsolutePath);

impl CondaRoot {
    /// The path as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for CondaRoot {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let path: AbsolutePath = text.parse()?;
        refuse_colon(text)?;
        Ok(Self(path))
    }
}

/// Which environment: `base`, a name below `conda-root/envs`, or an absolute prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CondaEnv {
    /// The environment of the installation itself; `root` is accepted too, as by conda.
    Base,
    /// A directory below `conda-root/envs`.
    Name(String),
    /// The environment's own directory.
    Prefix(AbsolutePath),
}

impl CondaEnv {
    /// The environment's directory. Names are looked for in `root/envs` alone, without condarc.
    pub fn prefix(&self, root: &CondaRoot) -> AbsolutePath {
        match self {
            Self::Base => root.0.clone(),
            Self::Name(name) => root.0.join("envs").join(name),
            Self::Prefix(prefix) => prefix.clone(),
        }
    }
}

impl fmt::Display for CondaEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Base => f.write_str("base"),
            Self::Name(name) => f.write_str(name),
            Self::Prefix(prefix) => prefix.fmt(f),
        }
    }
}

impl FromStr for CondaEnv {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        refuse_control_characters(text)?;
        refuse_colon(text)?;
        if text == "base" || text == "root" {
            return Ok(Self::Base);
        }
        if text.starts_with('/') {
            return text.parse().map(Self::Prefix);
        }
        let hint = "use a name below `conda-root/envs`, `base`, or an absolute prefix";
        if text.is_empty() {
            return Err(ValueError::new("the environment has no name").with_hint(hint));
        }
        if text.contains(['/', '\\']) || text.starts_with('~') {
            return Err(ValueError::new(
                "the environment is neither a name nor an absolute prefix",
            )
            .with_hint(hint));
        }
        if text == "." || text == ".." || text.starts_with('-') {
            return Err(
                ValueError::new(format!("`{text}` is not the name of an environment"))
                    .with_hint(hint),
            );
        }
        if text.len() > NAME_MAX {
            return Err(ValueError::new(format!(
                "the name has {} bytes, more than {NAME_MAX}",
                text.len()
            )));
        }
        Ok(Self::Name(text.to_owned()))
    }
}

/// Name of a user or group, a safe subset of what `User=` accepts (`valid_user_group_name` of systemd, relaxed):
/// letters, digits, `_`, `-` and `.`, starting with a letter or `_`, at most 31 bytes. Names from a directory service
/// may be longer and contain a domain, as in `CORP\svc` and `svc@corp.example`. Numeric ids are refused, because a
/// typing error could select another account.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AccountName(String);

impl AccountName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether an account of this name can be made: what `adduser --system` accepts of it.
    pub fn can_be_created(&self) -> bool {
        let mut bytes = self.0.bytes();
        bytes
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte))
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for AccountName {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let start = text
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
        let is_of_domain = text.contains(['@', '\\']);
        // A backslash at the end would continue the line in a unit file.
        let mut parts = text.split(['@', '\\']);
        let all = parts.all(|part| {
            // Groups of a domain have blanks in their names, and accounts of services a dollar at the end.
            let plain = part
                .strip_suffix('$')
                .filter(|_| is_of_domain)
                .unwrap_or(part);
            let is_good = |byte: u8| {
                byte.is_ascii_alphanumeric()
                    || b"_-.".contains(&byte)
                    || (is_of_domain && byte == b' ')
            };
            plain.trim_matches(' ') == plain && !plain.is_empty() && plain.bytes().all(is_good)
        });
        let longest = if is_of_domain { NAME_MAX } else { 31 };
        if start && all && text.len() <= longest {
            return Ok(Self(text.to_owned()));
        }
        Err(
            ValueError::new(format!("`{}` is not an account name", text.escape_debug())).with_hint(
                "use at most 31 letters, digits, `_`, `-` and `.`, starting with a letter or `_`; an \
                 account of a domain is `DOMAIN\\NAME` or `NAME@DOMAIN`",
            ),
        )
    }
}

/// Name of a credential, valid for `LoadCredential=` and as a file name: letters, digits, `_`, `-` and `.`, not
/// starting with a dot, at most 255 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CredentialName(String);

impl CredentialName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CredentialName {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let all = text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
        if all && !text.is_empty() && !text.starts_with('.') && text.len() <= NAME_MAX {
            return Ok(Self(text.to_owned()));
        }
        Err(ValueError::new(format!(
            "`{}` is not a credential name",
            text.escape_debug()
        ))
        .with_hint("use letters, digits, `_`, `-` and `.`, not starting with a dot"))
    }
}

/// What a master is called in its database: letters, digits and `_.:/@+-`, a letter or digit first, at most 200 bytes.
/// Buildbot's own names, `HOSTNAME:DIRECTORY`, are mostly among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterName(String);

impl MasterName {
    /// Longest name, in bytes.
    const MAX_LENGTH: usize = 200;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for MasterName {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let all = text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.:/@+-".contains(&byte));
        let first = text.starts_with(|first: char| first.is_ascii_alphanumeric());
        if all && first && text.len() <= Self::MAX_LENGTH {
            return Ok(Self(text.to_owned()));
        }
        Err(ValueError::new(format!(
            "`{}` is not the name of a master",
            text.escape_debug()
        ))
        .with_hint(
            "use at most 200 letters, digits, `_`, `.`, `:`, `/`, `@`, `+` and `-`, starting with a letter or digit",
        ))
    }
}

/// The file of a credential: below the credentials directory, or an absolute path.
pub(crate) fn credential_file(directory: &str, text: &str) -> Result<AbsolutePath, ValueError> {
    if text.starts_with('/') {
        return text.parse();
    }
    if text.is_empty() {
        return Err(ValueError::new("the file has no name"));
    }
    format!("{directory}/{text}").parse()
}

/// Name of an environment variable that an instance may set: letters, digits and `_`, not starting with a digit, except
/// the names that systemd and the runner use to communicate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct VariableName(String);

/// Variables that systemd sets for a service; a value from the administrator would break them.
const SERVICE_MANAGER_VARIABLES: [&str; 8] = [
    "CREDENTIALS_DIRECTORY",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "MAINPID",
    "NOTIFY_SOCKET",
    "RUNTIME_DIRECTORY",
    "STATE_DIRECTORY",
    "SYSTEMD_EXEC_PID",
];

impl VariableName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VariableName {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let start = text
            .bytes()
            .next()
            .is_some_and(|byte| !byte.is_ascii_digit());
        let all = text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !start || !all {
            return Err(ValueError::new(format!(
                "`{}` is not the name of an environment variable",
                text.escape_debug()
            ))
            .with_hint("use letters, digits and `_`, not starting with a digit"));
        }
        if SERVICE_MANAGER_VARIABLES.contains(&text)
            || text.starts_with("WATCHDOG_")
            || text.starts_with("LISTEN_")
        {
            return Err(ValueError::new("the variable is reserved for systemd"));
        }
        Ok(Self(text.to_owned()))
    }
}

/// Value of an environment variable: anything but NUL.
pub(crate) fn variable_value(text: &str) -> Result<String, ValueError> {
    if text.contains('\0') {
        return Err(ValueError::new("the value contains a NUL character"));
    }
    Ok(text.to_owned())
}

/// Longest duration that is taken: a year. It keeps sums of durations far from overflow.
const LONGEST: Duration = Duration::from_hours(8760);

/// A duration such as `90s`, `2min` or `1h 30min`, at most a year.
pub(crate) fn duration(text: &str) -> Result<Duration, ValueError> {
    let hint = "write a number and a unit, such as `90s`, `2min` or `1h 30min`";
    if text == "infinity" {
        return Err(ValueError::new("a duration has an end here").with_hint(hint));
    }
    let value = humantime::parse_duration(text).map_err(|_| {
        ValueError::new(format!("`{}` is not a duration", text.escape_debug())).with_hint(hint)
    })?;
    if value > LONGEST {
        return Err(ValueError::new("the duration is longer than a year"));
    }
    if value.subsec_nanos() % 1_000_000 != 0 {
        return Err(ValueError::new(
            "the duration is more precise than a millisecond",
        ));
    }
    Ok(value)
}

/// A duration of at least one second.
pub(crate) fn duration_of_a_second_or_more(text: &str) -> Result<Duration, ValueError> {
    let value = duration(text)?;
    if value < Duration::from_secs(1) {
        return Err(ValueError::new("the duration is shorter than a second"));
    }
    Ok(value)
}

/// Whether systemd watches an instance, and how often it wants a sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watchdog {
    Off,
    Every(Duration),
}

impl Watchdog {
    pub(crate) fn interval(self) -> Option<Duration> {
        match self {
            Self::Off => None,
            Self::Every(interval) => Some(interval),
        }
    }
}

/// A watchdog interval of at least one second, or `off`.
pub(crate) fn watchdog(text: &str) -> Result<Watchdog, ValueError> {
    if text == "off" {
        return Ok(Watchdog::Off);
    }
    duration_of_a_second_or_more(text)
        .map(Watchdog::Every)
        .map_err(|mut error| {
            error.hint = Some("write a duration such as `2min`, or `off`".to_owned());
            error
        })
}

fn refuse_control_characters(text: &str) -> Result<(), ValueError> {
    match text.chars().find(|character| character.is_control()) {
        None => Ok(()),
        Some(character) => Err(ValueError::new(format!(
            "the value contains a control character, `{}`",
            character.escape_debug()
        ))),
    }
}

fn refuse_colon(text: &str) -> Result<(), ValueError> {
    if text.contains(':') {
        return Err(ValueError::new("the path of an environment contains a `:`")
            .with_hint("`PATH` is separated by `:`; move the environment to a path without one"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn path(text: &str, expect: Result<&str, &str>) {
        let outcome = text.parse::<AbsolutePath>();
        let outcome = outcome.as_ref().map(AbsolutePath::as_str);
        assert_eq!(outcome.map_err(|error| error.reason.as_str()), expect);
    }

    #[test]
    fn paths_are_normalised_or_refused() {
        path("/srv/a b%n\"'\\é:x", Ok("/srv/a b%n\"'\\é:x"));
        path("//srv///a/", Ok("/srv/a"));
        path("/-x", Ok("/-x"));
        path("", Err("the path is empty"));
        path("/", Err("the path is the root directory"));
        path("srv", Err("the path is not absolute"));
        path("~/x", Err("`~` has no meaning here"));
        path("/a/../b", Err("the path has a component `..`"));
        path("/a/./b", Err("the path has a component `.`"));
        path(
            "/a\nb",
            Err("the value contains a control character, `\\n`"),
        );
        path(
            "/a\0b",
            Err("the value contains a control character, `\\0`"),
        );
        path(
            "/a\u{85}b",
            Err("the value contains a control character, `\\u{85}`"),
        );
    }

    #[test]
    fn paths_end_where_linux_ends_them() {
        let long = "/a".repeat(2048);
        path(&long, Err("the path has 4096 bytes, more than 4095"));
        assert!(long[..4094].parse::<AbsolutePath>().is_ok());
        let component = format!("/{}", "a".repeat(256));
        path(
            &component,
            Err("a component of the path has 256 bytes, more than 255"),
        );
    }

    #[test]
    fn environments_are_names_base_or_prefixes() {
        let root: CondaRoot = "/opt/conda".parse().unwrap();
        for (text, prefix) in [
            ("buildbot", "/opt/conda/envs/buildbot"),
            ("with space", "/opt/conda/envs/with space"),
            ("base", "/opt/conda"),
            ("root", "/opt/conda"),
            ("/opt/envs/cuda/", "/opt/envs/cuda"),
        ] {
            let env: CondaEnv = text.parse().unwrap();
            assert_eq!(env.prefix(&root).as_str(), prefix);
        }
        for text in [
            "", ".", "..", "-x", "a/b", "a\\b", "~/env", "a:b", "/a:b", "a\nb", "/a/../b",
        ] {
            assert!(text.parse::<CondaEnv>().is_err(), "{text:?} was taken");
        }
        assert!("/opt/a:b".parse::<CondaRoot>().is_err());
    }

    #[test]
    fn accounts_are_what_systemd_takes() {
        let long = format!("svc@{}.example", "corp".repeat(20));
        for text in [
            "bb",
            "_bb",
            "Build-Bot_2",
            "a.b",
            "root",
            "CORP\\svc",
            "svc@corp.example",
            "CORP\\Domain Users",
            "domain users@corp.example",
            "corp\\ci-svc$",
            &long,
        ] {
            assert!(text.parse::<AccountName>().is_ok(), "{text:?} was refused");
        }
        for text in [
            "",
            "-x",
            "1000",
            "b b",
            "b%i",
            "b\n",
            "b:b",
            ".b",
            "corp\\",
            "@corp",
            "corp\\%u",
            "corp\\ svc",
            "corp\\svc $",
            "svc @corp",
            "corp\\$",
            "svc$",
            "corp\\s$c",
            "ü",
            &"b".repeat(32),
        ] {
            assert!(text.parse::<AccountName>().is_err(), "{text:?} was taken");
        }
        for (text, expected) in [
            ("bb", true),
            ("_b-2", true),
            ("Bb", false),
            ("a.b", false),
            ("a@b", false),
        ] {
            let name: AccountName = text.parse().unwrap();
            assert_eq!(name.can_be_created(), expected, "{text}");
        }
    }

    #[test]
    fn credentials_stay_below_their_directory_unless_absolute() {
        let file = |text| credential_file("/etc/creds", text);
        assert_eq!(file("pw").unwrap().as_str(), "/etc/creds/pw");
        assert_eq!(file("a/pw").unwrap().as_str(), "/etc/creds/a/pw");
        assert_eq!(file("/run/pw").unwrap().as_str(), "/run/pw");
        for text in ["", "..", "../x", "a/../../x", "a\nb"] {
            assert!(file(text).is_err(), "{text:?} was taken");
        }
        for text in ["", ".", "..", ".x", "a/b", "a:b", "a b", "a%b"] {
            assert!(
                text.parse::<CredentialName>().is_err(),
                "{text:?} was taken"
            );
        }
    }

    #[test]
    fn variables_of_systemd_are_refused() {
        for text in [
            "NOTIFY_SOCKET",
            "WATCHDOG_PID",
            "LISTEN_FDS",
            "1A",
            "A B",
            "A=B",
            "",
            "A-B",
        ] {
            assert!(text.parse::<VariableName>().is_err(), "{text:?} was taken");
        }
        for text in ["PATH", "_x", "CONDA_OVERRIDE_CUDA"] {
            assert!(text.parse::<VariableName>().is_ok(), "{text:?} was refused");
        }
        assert!(variable_value("a\0b").is_err());
        assert_eq!(variable_value("a\nb").as_deref(), Ok("a\nb"));
    }

    #[test]
    fn durations_have_units_and_bounds() {
        assert_eq!(duration("1h 30min"), Ok(Duration::from_mins(90)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        assert_eq!(duration("1500ms"), Ok(Duration::from_millis(1500)));
        for text in [
            "",
            "90",
            "-1s",
            "1.5",
            "2 fortnights",
            "infinity",
            "2y",
            "1us",
            "99999999999999999999s",
        ] {
            assert!(duration(text).is_err(), "{text:?} was taken");
        }
        assert_eq!(watchdog("off"), Ok(Watchdog::Off));
        assert_eq!(
            watchdog("2min"),
            Ok(Watchdog::Every(Duration::from_mins(2)))
        );
        assert!(watchdog("0s").is_err());
    }
}
