//! The questions that debconf asks about the configuration: where the answer is stored in the file, which answers are
//! valid, and which value takes precedence: the one that debconf remembers or the one in effect.

use std::str::FromStr;

use toml::de::{DeTable, DeValue};

use crate::names::{InstanceRef, Role};
use crate::settings::Settings;
use crate::values::{AbsolutePath, AccountName, CondaEnv, CondaRoot, ValueError};

/// A question, without the package's name in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// The Conda installation.
    CondaPath,
    /// The environment with Buildbot.
    CondaEnv,
    /// Which plain instances are started at boot.
    Services,
    /// The account.
    User,
    /// The plain master's directory.
    MasterDirectory,
    /// The plain worker's directory.
    WorkerDirectory,
}

/// Every question by its name.
const NAMES: [(&str, Question); 6] = [
    ("conda-path", Question::CondaPath),
    ("conda-env", Question::CondaEnv),
    ("services", Question::Services),
    ("user", Question::User),
    ("master-directory", Question::MasterDirectory),
    ("worker-directory", Question::WorkerDirectory),
];

/// The template's default for services, in another order than any answer: those have the order of the choices. Debconf
/// uses it as the answer when a front end's input ends.
const UNANSWERED: &str = "worker, master";

impl FromStr for Question {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let found = NAMES.into_iter().find(|(name, _)| *name == text);
        found
            .map(|(_, question)| question)
            .ok_or_else(|| ValueError {
                reason: format!("`{}` is not a question", text.escape_debug()),
                hint: None,
            })
    }
}

impl Question {
    /// The instance, or the defaults without one, and the key that an answer is the value of; none for services, which
    /// systemd's links are about.
    pub fn place(self) -> Option<(Option<InstanceRef>, &'static str)> {
        let plain = |role| Some(InstanceRef::plain(role));
        match self {
            Self::CondaPath => Some((None, "conda-root")),
            Self::CondaEnv => Some((None, "conda-env")),
            Self::Services => None,
            Self::User => Some((None, "user")),
            Self::MasterDirectory => Some((plain(Role::Master), "directory")),
            Self::WorkerDirectory => Some((plain(Role::Worker), "directory")),
        }
    }

    /// What holds when the file leaves the key out, and is offered at first.
    pub fn default_text(self) -> String {
        let settings = Settings::parse("", b"[master]\n[worker]\n");
        let defaults = settings.defaults().expect("the text is good");
        match self {
            Self::CondaPath => defaults.conda_root.as_str().to_owned(),
            Self::CondaEnv => defaults.conda_env.to_string(),
            Self::Services => UNANSWERED.to_owned(),
            Self::User => defaults.user.to_string(),
            Self::MasterDirectory | Self::WorkerDirectory => {
                let reference = self.place().and_then(|(reference, _)| reference);
                let reference = reference.expect("a directory is an instance's");
                let instance = settings.instance(&reference).expect("the text has both");
                instance.directory.to_string()
            }
        }
    }

    /// The value in the text of a configuration; empty if the text contains no value that can be an answer.
    pub fn text_in(self, content: &str) -> String {
        let (Some((reference, key)), Ok(document)) = (self.place(), DeTable::parse(content)) else {
            return String::new();
        };
        let name = reference.map_or_else(|| "defaults".to_owned(), |found| found.to_string());
        let value = match value_of(document.get_ref(), &name) {
            Some(DeValue::Table(table)) => value_of(&table, key),
            None if name == "defaults" => None,
            _ => return String::new(),
        };
        match value {
            None => self.default_text(),
            Some(DeValue::String(text)) if !text.contains(char::is_control) => text.into_owned(),
            Some(_) => String::new(),
        }
    }

    /// Refuses an answer that the configuration would refuse. An empty answer changes nothing. `master` is the answer
    /// about the master's directory.
    ///
    /// # Errors
    ///
    /// [`ValueError`] says why.
    pub fn check(self, answer: &str, master: &str) -> Result<(), ValueError> {
        if answer.is_empty() {
            return Ok(());
        }
        match self {
            Self::CondaPath => answer.parse::<CondaRoot>().map(drop),
            Self::CondaEnv => answer.parse::<CondaEnv>().map(drop),
            Self::Services => services(answer).map(drop),
            Self::User => answer.parse::<AccountName>().map(drop),
            Self::MasterDirectory => answer.parse::<AbsolutePath>().map(drop),
            Self::WorkerDirectory => {
                let directory: AbsolutePath = answer.parse()?;
                if master.parse().is_ok_and(|other| directory == other) {
                    return Err(ValueError {
                        reason: format!("`{directory}` already is the directory of `master`"),
                        hint: None,
                    });
                }
                Ok(())
            }
        }
    }

    /// The answer that debconf starts from. What is in force (`present`) is the truth and debconf only remembers; the
    /// exception is an answer that was given a moment ago, before the package was unpacked, and waits to be acted on.
    pub fn offered(self, present: Option<&str>, waits: bool, remembered: &str) -> String {
        match present {
            Some(present) if !waits => present.to_owned(),
            None if self != Self::Services && remembered.is_empty() => self.default_text(),
            _ => remembered.to_owned(),
        }
    }

    /// Whether an answer is to be acted on once something is in force, and the answer that debconf keeps.
    pub fn settled(self, present: Option<&str>, answer: &str) -> (bool, String) {
        let is_answer = match self {
            Self::Services => answer != UNANSWERED,
            _ => !answer.is_empty(),
        };
        match present {
            Some(present) if !is_answer => (false, present.to_owned()),
            Some(present) => (answer != present, answer.to_owned()),
            None => (false, answer.to_owned()),
        }
    }
}

fn value_of<'i>(table: &DeTable<'i>, name: &str) -> Option<DeValue<'i>> {
    let mut entries = table.iter();
    let (_, value) = entries.find(|(key, _)| &**key.get_ref() == name)?;
    Some(value.get_ref().clone())
}

/// The roles in an answer about services, which a preseed may write in any way.
///
/// # Errors
///
/// When it has another word.
pub fn services(answer: &str) -> Result<Vec<Role>, ValueError> {
    let words = answer.split([',', ' ', '\t']);
    let words = words.filter(|word| !word.is_empty());
    let roles: Result<Vec<Role>, _> = words.map(str::parse).collect();
    roles.map_err(|error| ValueError {
        reason: error.to_string(),
        hint: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_a_text_is_read() {
        let file = "[worker]\nconda-root = \"/worker\"\n[ defaults ] # first\n\
                    conda-root = \"/opt/a \\\"b\\\" \\\\c\\u00e9\" # why\n'conda-env'='''x'''\n\
                    [master]\ndirectory = 'not absolute'\n";
        for (question, text) in [
            ("conda-path", "/opt/a \"b\" \\c\u{e9}"),
            ("conda-env", "x"),
            // Left out.
            ("user", "bb"),
            ("worker-directory", "/home/bb/worker"),
            ("master-directory", "not absolute"),
        ] {
            let question: Question = question.parse().unwrap();
            assert_eq!(question.text_in(file), text, "{question:?}");
        }
        for (content, text) in [
            ("", "bb"),
            ("[master]\n", "bb"),
            ("defaults.user = \"dotted\"\n", "dotted"),
            ("defaults = { user = \"inline\" }\n", "inline"),
            ("defaults = 7\n", ""),
            ("[defaults]\nuser = 7\n", ""),
            ("[defaults]\nuser = \"a\\nb\"\n", ""),
            ("[defaults]\nuser = \"bb\"\n= what\n", ""),
        ] {
            assert_eq!(Question::User.text_in(content), text, "{content}");
        }
        // A directory that no instance uses.
        assert_eq!(Question::WorkerDirectory.text_in("[master]\n"), "");
    }

    #[test]
    fn an_answer_is_checked_as_the_configuration_checks_it() {
        for (question, good, bad) in [
            ("conda-path", "/opt/a b", "/opt/a:b"),
            ("conda-env", "base", "../x"),
            ("services", "master,worker", "everything"),
            ("user", "Bertha", "0"),
            ("master-directory", "/srv/a:b", "/srv/.."),
            ("worker-directory", "/srv/w", "/srv//m/"),
        ] {
            let question: Question = question.parse().unwrap();
            for (answer, is_good) in [("", true), (good, true), (bad, false)] {
                let checked = question.check(answer, "/srv/m");
                assert_eq!(checked.is_ok(), is_good, "{question:?} {answer}");
            }
        }
    }

    #[test]
    fn what_is_in_force_wins_over_what_debconf_remembers() {
        let (user, services) = (Question::User, Question::Services);
        for (question, present, waits, remembered, offered) in [
            (user, Some("bb"), false, "old", "bb"),
            (user, Some(""), false, "old", ""),
            (user, Some("bb"), true, "new", "new"),
            (user, None, false, "", "bb"),
            (user, None, false, "preseed", "preseed"),
            (services, Some("master"), false, UNANSWERED, "master"),
            (services, Some("master"), true, "", ""),
            (services, None, false, "", ""),
            (services, None, false, UNANSWERED, UNANSWERED),
        ] {
            let found = question.offered(present, waits, remembered);
            assert_eq!(found, offered, "{question:?} {present:?} {remembered}");
        }
        for (question, present, answer, expected) in [
            (user, Some("bb"), "ci", (true, "ci")),
            (user, Some("bb"), "bb", (false, "bb")),
            (user, Some("bb"), "", (false, "bb")),
            (user, None, "ci", (false, "ci")),
            (services, Some("master"), "", (true, "")),
            (services, Some("master"), UNANSWERED, (false, "master")),
            (services, Some(""), "", (false, "")),
            (services, None, UNANSWERED, (false, UNANSWERED)),
        ] {
            let (is_answered, kept) = question.settled(present, answer);
            assert_eq!(
                (is_answered, kept.as_str()),
                expected,
                "{question:?} {answer}"
            );
        }
    }

    #[test]
    fn services_are_roles_in_any_order() {
        assert_eq!(
            services("worker, master").unwrap(),
            [Role::Worker, Role::Master]
        );
        assert_eq!(services("").unwrap(), []);
        assert!(services("master, everything").is_err());
    }
}
