//! Combines defaults and the tables of instances into the effective settings.

use std::collections::BTreeMap;
use std::time::Duration;

use super::instance::{Defaults, Instance};
use super::problem::{Affects, Position, Problem, Refusal};
use super::read::{self, Document, Layer, Section};
use super::{BackupEvery, Hardening, Log, Upgrade};
use crate::dropin::{DropIn, Refused};
use crate::names::{InstanceRef, Role};
use crate::notify::Notify;
use crate::values::{AbsolutePath, ValueError, Watchdog};

/// A configuration file, resolved as far as it is valid.
#[derive(Debug, Clone)]
pub struct Settings {
    file: String,
    defaults: Defaults,
    /// `None` for an instance whose table has problems.
    instances: BTreeMap<InstanceRef, Option<Instance>>,
    problems: Vec<Problem>,
}

impl Settings {
    /// Reads the content of a configuration file; `file` names it in messages. Problems do not end
    /// the reading: see [`Settings::problems`].
    pub fn parse(file: &str, content: &[u8]) -> Self {
        Self::parse_with(file, content, &mut |_| Ok(()))
    }

    /// As [`Settings::parse`], for a host: `judge` decides whether the file of a credential is in an acceptable place,
    /// and if not, why.
    pub fn parse_with(
        file: &str,
        content: &[u8],
        judge: &mut dyn FnMut(&AbsolutePath) -> Result<(), ValueError>,
    ) -> Self {
        let (mut document, text) = match std::str::from_utf8(content) {
            Ok(text) => (read::document(text), text),
            Err(error) => (not_utf8(content, error.valid_up_to()), ""),
        };
        document
            .problems
            .extend(shared_directories(text, &document));
        let mut refused = Vec::new();
        let mut instances = BTreeMap::new();
        for section in &document.sections {
            let reference = &section.reference;
            let is_bad = document
                .problems
                .iter()
                .any(|problem| match &problem.affects {
                    Affects::Everything => true,
                    Affects::Instance(concerned) => concerned == reference,
                    Affects::NoInstance => false,
                });
            let mut settled = (!is_bad).then(|| instance(section, &document.defaults));
            if let Some(instance) = &settled {
                let mut problems = not_for_systemd(text, section, instance);
                let below = &document.defaults;
                problems.extend(misplaced_credentials(text, section, below, judge));
                if !problems.is_empty() {
                    settled = None;
                }
                refused.extend(problems);
            }
            instances.insert(reference.clone(), settled);
        }
        document.problems.extend(refused);
        let mut problems = document.problems;
        problems.sort_by_key(|problem| problem.position);
        Self {
            file: file.to_owned(),
            defaults: defaults(&document.defaults),
            instances,
            problems,
        }
    }

    /// The name of the file, as given.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// What is wrong, in the order of the file.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// All problems as one refusal, when there are any.
    ///
    /// # Errors
    ///
    /// [`Refusal::Problems`] with every problem of the file.
    pub fn check(&self) -> Result<(), Refusal> {
        self.refuse(|_| true)
    }

    /// What holds where no instance is named.
    ///
    /// # Errors
    ///
    /// [`Refusal::Problems`] when the file or its defaults are bad.
    pub fn defaults(&self) -> Result<&Defaults, Refusal> {
        self.refuse(|affects| *affects == Affects::Everything)?;
        Ok(&self.defaults)
    }

    /// The settings of one instance, even when others are bad.
    ///
    /// # Errors
    ///
    /// [`Refusal`] when it has no table, or problems concern it.
    pub fn instance(&self, reference: &InstanceRef) -> Result<&Instance, Refusal> {
        self.refuse(|affects| match affects {
            Affects::Everything => true,
            Affects::Instance(concerned) => concerned == reference,
            // A table that names no instance may be meant for one that seems to have none.
            Affects::NoInstance => !self.instances.contains_key(reference),
        })?;
        match self.instances.get(reference) {
            Some(Some(instance)) => Ok(instance),
            _ => Err(Refusal::NotConfigured {
                file: self.file.clone(),
                reference: reference.clone(),
                near: reference.nearest(self.references()).cloned(),
            }),
        }
    }

    /// The good instances, in the order of their references.
    pub fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.instances.values().flatten()
    }

    /// Every instance that has a table, the bad ones too, in the order of their references.
    pub fn references(&self) -> impl Iterator<Item = &InstanceRef> {
        self.instances.keys()
    }

    /// Whether an instance has a table; `None` where the file does not show that, because of a problem that concerns more
    /// than one known instance. Without an answer nothing follows for the units of the host.
    pub fn has_table(&self, reference: &InstanceRef) -> Option<bool> {
        if self.instances.contains_key(reference) {
            return Some(true);
        }
        let is_readable = |problem: &Problem| matches!(problem.affects, Affects::Instance(_));
        self.problems.iter().all(is_readable).then_some(false)
    }

    fn refuse(&self, concerns: impl Fn(&Affects) -> bool) -> Result<(), Refusal> {
        let problems: Vec<Problem> = self
            .problems
            .iter()
            .filter(|problem| concerns(&problem.affects))
            .cloned()
            .collect();
        if problems.is_empty() {
            return Ok(());
        }
        Err(Refusal::Problems {
            file: self.file.clone(),
            problems,
        })
    }
}

/// What of an instance cannot be written into a drop-in. Generator and launcher would both refuse
/// it; here it has a place in the file.
fn not_for_systemd(text: &str, section: &Section, instance: &Instance) -> Vec<Problem> {
    let refused = DropIn::of(instance).err().unwrap_or_default();
    let problem = |refused: Refused| {
        let at = match &section.layer.directory_at {
            Some(at) if refused.key.ends_with(".directory") => at,
            _ => &section.header_at,
        };
        Problem {
            position: Position::of(text, at.start),
            key: refused.key,
            reason: format!("`{}` {}", refused.value, refused.reason),
            hint: refused.reason.hint().map(str::to_owned),
            affects: Affects::Instance(section.reference.clone()),
        }
    };
    refused.into_iter().map(problem).collect()
}

/// Credentials of an instance, its own and those of the defaults, whose files are where none may be.
fn misplaced_credentials(
    text: &str,
    section: &Section,
    below: &Layer,
    judge: &mut dyn FnMut(&AbsolutePath) -> Result<(), ValueError>,
) -> Vec<Problem> {
    let reference = &section.reference;
    let own = &section.layer.credentials;
    let inherited = below.credentials.iter();
    let inherited = inherited.filter(|(name, _)| !own.contains_key(name));
    let all = own
        .iter()
        .map(|entry| (reference.to_string(), entry))
        .chain(inherited.map(|entry| ("defaults".to_owned(), entry)));
    all.filter_map(|(table, (name, credential))| {
        let error = judge(&credential.file).err()?;
        Some(Problem {
            position: Position::of(text, credential.at.start),
            key: format!("{table}.credentials.{}", name.as_str()),
            reason: error.reason,
            hint: error.hint,
            affects: Affects::Instance(reference.clone()),
        })
    })
    .collect()
}

fn not_utf8(content: &[u8], valid: usize) -> Document {
    let before = String::from_utf8_lossy(&content[..valid]);
    Document {
        problems: vec![Problem {
            position: Position::of(&before, before.len()),
            key: String::new(),
            reason: format!("the byte 0x{:02x} is not UTF-8", content[valid]),
            hint: Some("save the file as UTF-8".to_owned()),
            affects: Affects::Everything,
        }],
        ..Document::default()
    }
}

/// Two Buildbots in one directory would share a database and a tac: a problem of the later ones.
/// Named instances without a directory are found here too.
fn shared_directories(text: &str, document: &Document) -> Vec<Problem> {
    let mut sections: Vec<&Section> = document.sections.iter().collect();
    sections.sort_by_key(|section| section.header_at.start);
    let mut taken: BTreeMap<AbsolutePath, &InstanceRef> = BTreeMap::new();
    let mut problems = Vec::new();
    for section in sections {
        let at = section
            .layer
            .directory_at
            .as_ref()
            .unwrap_or(&section.header_at);
        let problem = |key: &str, reason: String, hint: &str| Problem {
            position: Position::of(text, at.start),
            key: format!("{}{key}", section.reference),
            reason,
            hint: Some(hint.to_owned()),
            affects: Affects::Instance(section.reference.clone()),
        };
        match directory(section) {
            // A directory that was written and refused has its problem already.
            None if section.layer.directory_at.is_some() => {}
            None => problems.push(problem(
                "",
                "missing key `directory`".to_owned(),
                "specify the directory of its `buildbot.tac`, such as `directory = \"/srv/NAME\"`",
            )),
            Some(directory) => match taken.get(&directory) {
                None => {
                    taken.insert(directory, &section.reference);
                }
                Some(other) => problems.push(problem(
                    ".directory",
                    format!("`{directory}` already is the directory of `{other}`"),
                    "use a separate directory for each instance",
                )),
            },
        }
    }
    problems
}

/// The directory of an instance: as written, or the role's for the plain instances.
fn directory(section: &Section) -> Option<AbsolutePath> {
    let Section {
        reference, layer, ..
    } = section;
    if layer.directory_at.is_some() || reference.name.is_some() {
        return layer.directory.clone();
    }
    Some(default_directory(reference.role))
}

fn default_directory(role: Role) -> AbsolutePath {
    match role {
        Role::Master => "/home/bb/master",
        Role::Worker => "/home/bb/worker",
    }
    .parse()
    .expect("the default directories are absolute paths")
}

fn defaults(layer: &Layer) -> Defaults {
    let conda_root = layer.conda_root.clone();
    let conda_env = layer.conda_env.clone();
    Defaults {
        user: layer
            .user
            .clone()
            .unwrap_or_else(|| "bb".parse().expect("`bb` is an account name")),
        conda_root: conda_root.unwrap_or_else(|| {
            "/home/bb/anaconda3"
                .parse()
                .expect("the default root is an absolute path")
        }),
        conda_env: conda_env.unwrap_or_else(|| {
            "buildbot"
                .parse()
                .expect("`buildbot` is a name of an environment")
        }),
        environment: layer.environment.clone(),
    }
}

fn instance(section: &Section, below: &Layer) -> Instance {
    let Section {
        reference,
        layer: own,
        ..
    } = section;
    let defaults = defaults(below);
    let mut credentials = BTreeMap::new();
    for (name, credential) in below.credentials.iter().chain(&own.credentials) {
        credentials.insert(name.clone(), credential.file.clone());
    }
    let mut environment = defaults.environment;
    for (name, value) in &own.environment {
        environment.insert(name.clone(), value.clone());
    }
    Instance {
        reference: reference.clone(),
        user: own.user.clone().unwrap_or(defaults.user),
        group: own.group.clone().or_else(|| below.group.clone()),
        conda_root: own.conda_root.clone().unwrap_or(defaults.conda_root),
        conda_env: own.conda_env.clone().unwrap_or(defaults.conda_env),
        directory: directory(section).expect("a section without a directory has a problem"),
        name: own.name.clone(),
        environment,
        credentials,
        drain: own.drain.or(below.drain).unwrap_or(Duration::ZERO),
        start_timeout: own
            .start_timeout
            .or(below.start_timeout)
            .unwrap_or(Duration::from_secs(90)),
        log: own.log.or(below.log).unwrap_or(Log::Journal),
        upgrade: own.upgrade.or(below.upgrade).unwrap_or(Upgrade::Auto),
        watchdog: own
            .watchdog
            .or(below.watchdog)
            .unwrap_or(Watchdog::Every(Duration::from_mins(2)))
            .interval(),
        backup_every: own
            .backup_every
            .or(below.backup_every)
            .unwrap_or(BackupEvery::Off),
        backup_to: own.backup_to.clone().or_else(|| below.backup_to.clone()),
        hardening: own
            .hardening
            .or(below.hardening)
            .unwrap_or(Hardening::Standard),
        limits: own.limits.over(&below.limits),
        notify: own
            .notify
            .clone()
            .or_else(|| below.notify.clone())
            .unwrap_or(Notify::Off),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a first installation copies to `/etc`.
    const STARTER: &str = include_str!("../../../../debian/config.toml");

    #[test]
    fn the_starter_configuration_is_good_and_says_what_the_defaults_are() {
        let starter = Settings::parse("config.toml", STARTER.as_bytes());
        assert_eq!(starter.check(), Ok(()));
        let bare = Settings::parse("config.toml", b"[master]\n[worker]\n");
        assert!(starter.instances().eq(bare.instances()));
    }

    #[test]
    fn a_file_that_does_not_show_its_tables_says_nothing_about_them() {
        let worker = "worker".parse().unwrap();
        for (text, has_table) in [
            ("[master]\n", Some(false)),
            ("[master]\ndirektory = 1\n", Some(false)),
            ("[worker]\ndirektory = 1\n", Some(true)),
            ("[master\n[worker]\n", None),
            ("[master]\n[wroker]\n", None),
            ("[defaults]\nuser = 7\n[master]\n", None),
        ] {
            let settings = Settings::parse("c", text.as_bytes());
            assert_eq!(settings.has_table(&worker), has_table, "{text}");
            if has_table.is_none() {
                let refusal = settings.instance(&worker).unwrap_err();
                assert!(
                    matches!(refusal, Refusal::Problems { .. }),
                    "{text}: {refusal}"
                );
            }
        }
    }

    #[test]
    fn what_the_starter_shows_commented_out_is_good_too() {
        // Prose has a blank after its `#`.
        let shown: String = STARTER
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(code) if !code.starts_with(' ') => format!("{code}\n"),
                Some(_) => String::new(),
                None => format!("{line}\n"),
            })
            .collect();
        let settings = Settings::parse("config.toml", shown.as_bytes());
        assert_eq!(settings.check(), Ok(()), "{shown}");
        assert!(settings.instances().count() > 2);
    }
}
