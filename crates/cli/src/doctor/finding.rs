//! The result of a check as a value: its name, the instance, the severity, what was found, and how to fix it. Nothing
//! here examines the host.

use std::fmt;

use buildbot_conda_core::foreign_text::{self, ForeignText};
use buildbot_conda_core::names::InstanceRef;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Longest text of something seen, in characters: Buildbot's own words can be long.
const LONGEST: usize = 600;

/// Every check by its name, which `--only` accepts and listings show.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Check {
    /// The configuration is readable, owned by root, and valid
    Configuration,
    /// Every worker runs as its own account
    SharedAccount,
    /// The account of an instance exists
    Account,
    /// The files of the package exist and are owned by root
    Package,
    /// needrestart does not restart workers
    Needrestart,
    /// The credentials exist, and only root can read them
    Credentials,
    /// The directory is set up and owned by the account
    Directory,
    /// The service can write the files in its directory
    Ownership,
    /// Files with secrets are not readable by everyone
    Secrets,
    /// No stale `twistd.pid` of Buildbot's own commands exists
    PidFile,
    /// The environment can be activated and contains Python and Buildbot
    Environment,
    /// conda itself would select the same environment
    Resolution,
    /// The files of the environment match its packages
    Packages,
    /// The environment has not changed since the service started
    Changed,
    /// The environment's Python runs and can import what Buildbot needs
    Python,
    /// The plugins of Buildbot can be imported
    Plugins,
    /// Python does not have to compile Buildbot at every start
    Bytecode,
    /// `buildbot.tac` can be run
    Tac,
    /// The worker can be asked to finish its builds
    AllowShutdown,
    /// `buildbot checkconfig` accepts the master's configuration
    Checkconfig,
    /// No build does work inside the sandbox of the master
    Sandbox,
    /// The schema of the database matches the installed Buildbot
    Database,
    /// No other program uses the ports
    Ports,
    /// The web server in front of a master runs and reaches its port
    Front,
    /// The certificates of masters are valid and do not expire soon
    Certificates,
    /// The worker reaches its master
    Connection,
    /// No other unit file overrides the package's
    UnitFile,
    /// The unit is not masked
    UnitMasked,
    /// No drop-in overrides the package and the configuration
    UnitDropIns,
    /// systemd has loaded the current unit files and configuration
    UnitReload,
    /// The unit starts at boot
    UnitEnabled,
    /// The unit is running
    UnitState,
    /// Every unit that starts at boot is configured
    UnitConfigured,
    /// No command that changes the host was interrupted
    Unfinished,
    /// The clock is synchronised
    Clock,
    /// The file systems have free space
    Space,
    /// The kernel and systemd support what the units need
    System,
    /// The machine boots without a desktop
    BootTarget,
}

impl fmt::Display for Check {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value().expect("no check is skipped");
        formatter.write_str(value.get_name())
    }
}

/// How bad it is, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// Everything is in order.
    Ok,
    /// Could not be looked at, or has nothing to be looked at.
    Unseen,
    /// Works, and will not under circumstances that come.
    Warning,
    /// Does not work, will not work at the next start, or exposes a secret.
    Problem,
}

impl fmt::Display for Severity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Ok => "ok",
            Self::Unseen => "unseen",
            Self::Warning => "warning",
            Self::Problem => "problem",
        })
    }
}

/// What a check came to. `doctor --json` prints a list of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) check: Check,
    /// Such as `worker@gpu`; none if the finding concerns the whole host, or several instances.
    pub(crate) instance: Option<String>,
    /// Every instance that it is about.
    pub(crate) instances: Vec<String>,
    pub(crate) severity: Severity,
    /// What was seen, and not too much of it.
    pub(crate) seen: ForeignText,
    pub(crate) mending: Option<Mending>,
}

/// How to fix a finding.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Mending {
    /// Commands to run in this order; they are executed exactly as they are printed.
    pub(crate) commands: Vec<CommandLine>,
    /// What no command can do, or what to think of.
    pub(crate) words: Option<ForeignText>,
    /// Whether `--fix` does it: nothing running is disturbed, no data is touched, and no decision
    /// of the administrator's is taken back.
    pub(crate) safe: bool,
}

/// A program and its arguments, printed so that a shell reads them unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommandLine(pub(crate) Vec<String>);

impl Finding {
    fn new(
        check: Check,
        instance: Option<&InstanceRef>,
        severity: Severity,
        seen: impl Into<String>,
    ) -> Self {
        Self {
            check,
            instance: instance.map(ToString::to_string),
            instances: instance.iter().map(ToString::to_string).collect(),
            severity,
            seen: shortened(&seen.into()),
            mending: None,
        }
    }

    pub(crate) fn ok(
        check: Check,
        instance: Option<&InstanceRef>,
        seen: impl Into<String>,
    ) -> Self {
        Self::new(check, instance, Severity::Ok, seen)
    }

    pub(crate) fn unseen(
        check: Check,
        instance: Option<&InstanceRef>,
        seen: impl Into<String>,
    ) -> Self {
        Self::new(check, instance, Severity::Unseen, seen)
    }

    pub(crate) fn warning(
        check: Check,
        instance: Option<&InstanceRef>,
        seen: impl Into<String>,
    ) -> Self {
        Self::new(check, instance, Severity::Warning, seen)
    }

    pub(crate) fn problem(
        check: Check,
        instance: Option<&InstanceRef>,
        seen: impl Into<String>,
    ) -> Self {
        Self::new(check, instance, Severity::Problem, seen)
    }

    /// Adds a command that `--fix` carries out.
    pub(crate) fn safe<S: Into<String>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.add(words);
        self.mending.get_or_insert_default().safe = true;
        self
    }

    /// Adds a command that is for the administrator to decide about.
    pub(crate) fn command<S: Into<String>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.add(words);
        self
    }

    /// Adds what to do in words.
    pub(crate) fn words(mut self, words: impl AsRef<str>) -> Self {
        self.mending.get_or_insert_default().words = Some(words.as_ref().into());
        self
    }

    /// Merges another finding into this one if both have the same cause: the cause concerns the host, or one solution
    /// solves both. A report then never contains the same commands twice, for example with two accounts or different
    /// options.
    pub(crate) fn absorb(&mut self, other: &Self) -> bool {
        let is_same = (self.check, self.severity) == (other.check, other.severity)
            && self.mending == other.mending;
        let is_hosts = self.instances.is_empty() && other.instances.is_empty();
        let has_commands = self
            .mending
            .as_ref()
            .is_some_and(|mending| !mending.commands.is_empty());
        let is_one = match (is_hosts, self.severity >= Severity::Warning) {
            (true, _) => self.seen == other.seen,
            (false, true) => self.seen == other.seen || has_commands,
            (false, false) => false,
        };
        if !is_same || !is_one {
            return false;
        }
        if self.seen != other.seen {
            self.seen = shortened(&format!("{}; {}", self.seen, other.seen));
        }
        for instance in &other.instances {
            if !self.instances.contains(instance) {
                self.instances.push(instance.clone());
            }
        }
        if self.instances.len() > 1 {
            self.instance = None;
        }
        true
    }

    fn add<S: Into<String>>(&mut self, words: impl IntoIterator<Item = S>) {
        let line = CommandLine(words.into_iter().map(Into::into).collect());
        self.mending.get_or_insert_default().commands.push(line);
    }
}

fn shortened(text: &str) -> ForeignText {
    let text = ForeignText::new(text);
    match text.char_indices().nth(LONGEST) {
        None => text,
        Some((end, _)) => format!("{}...", text[..end].trim_end()).into(),
    }
}

impl fmt::Display for CommandLine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, word) in self.0.iter().enumerate() {
            if number > 0 {
                formatter.write_str(" ")?;
            }
            formatter.write_str(&quoted(word))?;
        }
        Ok(())
    }
}

impl Serialize for CommandLine {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A word for a shell: unchanged if nothing in it is special in a shell. Control characters are written in bash's
/// notation.
fn quoted(word: &str) -> String {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+=:@%,".contains(&byte) || byte >= 0x80;
    if !word.is_empty() && word.bytes().all(plain) && foreign_text::is_plain(word) {
        word.to_owned()
    } else if foreign_text::is_plain(word) {
        format!("'{}'", word.replace('\'', r"'\''"))
    } else {
        let bytes = word.bytes().map(|byte| match byte {
            b'\'' | b'\\' => format!("\\{}", char::from(byte)),
            b' '..=b'~' => char::from(byte).to_string(),
            _ => format!("\\{byte:03o}"),
        });
        format!("$'{}'", bytes.collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_printed_as_a_shell_takes_them() {
        for (words, text) in [
            (&["chmod", "0600", "/etc/x"][..], "chmod 0600 /etc/x"),
            (&["rm", "/a b"], "rm '/a b'"),
            (&["rm", "it's"], r"rm 'it'\''s'"),
            (&["x", ""], "x ''"),
            (&["x", "$(y)", "*"], "x '$(y)' '*'"),
            (
                &["rm", "/a\u{1b}[2J'\\", "/größe", "/\u{202e}b"],
                r"rm $'/a\033[2J\'\\' /größe $'/\342\200\256b'",
            ),
            (
                &["buildbot-conda", "show", "worker@gpu"],
                "buildbot-conda show worker@gpu",
            ),
        ] {
            let line = CommandLine(words.iter().map(|word| (*word).to_owned()).collect());
            assert_eq!(line.to_string(), text);
        }
    }

    #[test]
    fn findings_with_one_cause_are_one() {
        let [master, worker]: [InstanceRef; 2] =
            ["master", "worker"].map(|name| name.parse().unwrap());
        let problem = |reference, seen| Finding::problem(Check::Environment, Some(reference), seen);
        let mut one = problem(&master, "a").command(["make", "it"]);
        assert!(one.absorb(&problem(&worker, "a").command(["make", "it"])));
        assert!(one.absorb(&problem(&worker, "b").command(["make", "it"])));
        assert_eq!((one.seen.as_str(), one.instance.as_deref()), ("a; b", None));
        assert_eq!(one.instances, ["master", "worker"]);
        for other in [
            problem(&worker, "a").command(["make", "another"]),
            problem(&worker, "a"),
            Finding::warning(Check::Environment, Some(&worker), "a").command(["make", "it"]),
            Finding::problem(Check::Python, Some(&worker), "a").command(["make", "it"]),
        ] {
            assert!(!one.absorb(&other), "{other:?}");
        }
        // Two mistakes in one file are two, whatever is to be done afterwards.
        let mistake = |seen| problem(&master, seen).words("correct the configuration");
        assert!(!mistake("line 1").absorb(&mistake("line 2")));
        let good = |reference| Finding::ok(Check::Account, Some(reference), "`bb` exists");
        assert!(!good(&master).absorb(&good(&worker)));
    }

    #[test]
    fn what_was_seen_is_one_harmless_line_of_limited_length() {
        let seen = Finding::problem(Check::Tac, None, "a\n\u{1b}[2Jb").seen;
        assert_eq!(seen, "a \\u{1b}[2Jb");
        let long = "ä".repeat(LONGEST + 1);
        let seen = Finding::problem(Check::Tac, None, long).seen;
        assert_eq!(seen.chars().count(), LONGEST + 3);
    }

    #[test]
    fn every_check_has_a_name_and_a_description() {
        for check in Check::value_variants() {
            let value = check.to_possible_value().expect("none is skipped");
            assert!(value.get_help().is_some(), "{check}");
            assert_eq!(
                format!("\"{check}\""),
                serde_json::to_string(check).expect("a word")
            );
        }
    }
}
