//! What differs between a profile and a host, as data: `verify` prints it, `apply` removes it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use buildbot_conda_core::names::{InstanceRef, Unit};
use buildbot_conda_core::values::AccountName;
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use super::actual::Host;
use super::manifest::{Account, EnvironmentEntry};
use super::profile::Profile;
use crate::output::harmless;

/// What differs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    /// A package of ours, by its name.
    Package(String),
    /// An account, by its name.
    Account(AccountName),
    /// An environment, by its prefix.
    Environment(String),
    /// The configuration.
    Configuration,
    /// A drop-in or unit of an administrator, by its path.
    UnitFile(String),
    /// The file of a credential, by its name.
    Credential(String),
    /// An instance's directory.
    Instance(InstanceRef),
    /// A file in it, by its path there.
    File(InstanceRef, String),
    /// What `create` noted of an instance.
    Record(InstanceRef),
    /// Whether a unit is started at boot.
    Unit(Unit),
    /// Mode and owners, by path.
    Mode(String),
}

/// The kind of difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum State {
    /// The host does not have it.
    Missing,
    /// The host has another one.
    Different,
    /// The profile does not have it.
    Additional,
    /// A file of an environment is not what its package brought.
    Damaged,
}

/// One thing. `host verify --json` prints a list of these, by kind and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Difference {
    #[serde(flatten)]
    pub(super) subject: Subject,
    pub(super) state: State,
    /// The value in the profile, if it is a text.
    pub(super) wanted: Option<String>,
    /// The value on the host, if it is a text.
    pub(super) found: Option<String>,
}

impl Subject {
    /// Its kind in JSON, and for people.
    fn kind(&self) -> (&'static str, &'static str) {
        match self {
            Self::Package(_) => ("package", "package"),
            Self::Account(_) => ("account", "account"),
            Self::Environment(_) => ("environment", "environment"),
            Self::Configuration => ("configuration", "configuration"),
            Self::UnitFile(_) => ("unit-file", "unit file"),
            Self::Credential(_) => ("credential", "credential"),
            Self::Instance(_) => ("instance", "instance"),
            Self::File(..) => ("file", "file"),
            Self::Record(_) => ("record", "record"),
            Self::Unit(_) => ("unit", "unit"),
            Self::Mode(_) => ("mode", "mode of"),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Package(name)
            | Self::Environment(name)
            | Self::UnitFile(name)
            | Self::Credential(name)
            | Self::Mode(name) => name.clone(),
            Self::Account(name) => name.to_string(),
            Self::Configuration => CONFIGURATION.to_owned(),
            Self::Instance(reference) | Self::Record(reference) => reference.to_string(),
            Self::File(reference, path) => format!("{reference}:{path}"),
            Self::Unit(unit) => unit.to_string(),
        }
    }
}

impl Serialize for Subject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("item", self.kind().0)?;
        map.serialize_entry("name", &self.name())?;
        map.end()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, kind) = self.subject.kind();
        write!(formatter, "{kind} `{}`: ", harmless(&self.subject.name()))?;
        match (self.state, &self.wanted, &self.found) {
            (State::Damaged, _, Some(found)) => formatter.write_str(&harmless(found)),
            (State::Different, Some(wanted), Some(found)) => {
                write!(formatter, "{}, not {}", harmless(found), harmless(wanted))
            }
            (State::Missing, ..) => formatter.write_str("missing"),
            (State::Additional, ..) => formatter.write_str("additional"),
            (State::Different | State::Damaged, ..) => formatter.write_str("different"),
        }
    }
}

/// All differences between the host and the profile, by kind and name.
pub(super) fn differences(profile: &Profile, host: &Host) -> Vec<Difference> {
    let mut found = Found(Vec::new());
    let there = &host.profile;
    let (wanted, has) = (&profile.manifest, &there.manifest);
    found.values(Subject::Package, &wanted.packages, &has.packages, false);
    accounts(profile, host, &mut found);
    environments(profile, host, &mut found);
    if there.configuration != profile.configuration {
        let state = if there.configuration.is_empty() {
            State::Missing
        } else {
            State::Different
        };
        found.add(Subject::Configuration, state);
    }
    texts(profile, host, &mut found);
    for name in &wanted.credentials {
        if !has.credentials.contains(name) {
            found.add(Subject::Credential(name.clone()), State::Missing);
        }
    }
    instances(profile, host, &mut found);
    let enabled = has
        .units
        .iter()
        .filter(|(unit, state)| wanted.units.contains_key(*unit) || state.as_str() == "enabled");
    let enabled = enabled.map(|(name, state)| (name.clone(), state.clone()));
    found.values(Subject::Unit, &wanted.units, &enabled.collect(), true);
    let both = wanted
        .modes
        .iter()
        .filter(|(path, _)| has.modes.contains_key(*path));
    let both = both.map(|(path, mode)| (path.clone(), mode.clone()));
    found.values(Subject::Mode, &both.collect(), &has.modes, false);
    found.0.sort();
    found.0
}

/// How the configuration is named.
pub(super) const CONFIGURATION: &str = buildbot_conda_core::paths::CONFIGURATION;

struct Found(Vec<Difference>);

impl Found {
    fn add(&mut self, subject: Subject, state: State) {
        self.with(subject, state, None, None);
    }

    fn with(
        &mut self,
        subject: Subject,
        state: State,
        wanted: Option<String>,
        found: Option<String>,
    ) {
        self.0.push(Difference {
            subject,
            state,
            wanted,
            found,
        });
    }

    /// Values by name; `more` states whether values that only the host has count as well.
    fn values<K: Ord + Clone, V: PartialEq + fmt::Display>(
        &mut self,
        subject: impl Fn(K) -> Subject,
        wanted: &BTreeMap<K, V>,
        has: &BTreeMap<K, V>,
        more: bool,
    ) {
        let names: BTreeSet<&K> = wanted.keys().chain(has.keys()).collect();
        for name in names {
            let (wanted, has) = (wanted.get(name), has.get(name));
            let state = match (wanted, has) {
                (Some(_), None) => State::Missing,
                (Some(wanted), Some(has)) if wanted != has => State::Different,
                (None, Some(_)) if more => State::Additional,
                _ => continue,
            };
            let [wanted, has] = [wanted, has].map(|word| word.map(ToString::to_string));
            self.with(subject(name.clone()), state, wanted, has);
        }
    }
}

fn accounts(profile: &Profile, host: &Host, found: &mut Found) {
    for wanted in &profile.manifest.accounts {
        let there = host.profile.manifest.accounts.iter();
        match there.into_iter().find(|there| there.name == wanted.name) {
            None => found.add(Subject::Account(wanted.name.clone()), State::Missing),
            Some(there) if there != wanted => found.with(
                Subject::Account(wanted.name.clone()),
                State::Different,
                Some(account_text(wanted)),
                Some(account_text(there)),
            ),
            Some(_) => {}
        }
    }
}

fn account_text(account: &Account) -> String {
    let kind = if account.system { "system" } else { "person" };
    let mut groups = vec![account.group.as_str()];
    groups.extend(account.groups.iter().map(String::as_str));
    let groups = groups.join(",");
    format!("{kind} {groups} {} {}", account.home, account.shell)
}

fn environments(profile: &Profile, host: &Host, found: &mut Found) {
    for wanted in &profile.manifest.environments {
        let prefix = &wanted.prefix;
        let subject = || Subject::Environment(prefix.clone());
        let mut there = host.profile.manifest.environments.iter();
        let Some(there) = there.find(|there| there.prefix == *prefix) else {
            found.add(subject(), State::Missing);
            continue;
        };
        let locks = [
            profile.locks.get(&wanted.lock),
            host.profile.locks.get(&there.lock),
        ];
        let is_same = match (&wanted.generation, &there.generation) {
            (Some(wanted), Some(there)) => wanted == there,
            // The same archives, wherever they come from.
            _ => archives(locks[0]) == archives(locks[1]),
        };
        let is_same = is_same && wanted.owner == there.owner;
        if !is_same {
            let [wanted, there] = [wanted, there].map(word);
            found.with(subject(), State::Different, wanted, there);
        }
        for line in host.damage.get(prefix).into_iter().flatten() {
            let line = Some(line.to_string());
            found.with(subject(), State::Damaged, None, line);
        }
    }
}

fn word(environment: &EnvironmentEntry) -> Option<String> {
    let generation = environment.generation.as_ref();
    generation.map(|generation| format!("generation {generation}"))
}

/// The last parts of a lock's lines, which have the checksums.
fn archives(lock: Option<&String>) -> BTreeSet<&str> {
    let lines = lock.into_iter().flat_map(|lock| lock.lines());
    let lines = lines.filter(|line| line.contains("://"));
    lines.filter_map(|line| line.rsplit('/').next()).collect()
}

fn texts(profile: &Profile, host: &Host, found: &mut Found) {
    let (wanted, has) = (&profile.unit_files, &host.profile.unit_files);
    let paths: BTreeSet<&String> = wanted.keys().chain(has.keys()).collect();
    for path in paths {
        let state = match (wanted.get(path), has.get(path)) {
            (Some(_), None) => State::Missing,
            (None, Some(_)) => State::Additional,
            (wanted, has) if wanted != has => State::Different,
            _ => continue,
        };
        let name = format!("{}/{path}", crate::system::unit_files::UNITS);
        found.add(Subject::UnitFile(name), state);
    }
}

fn instances(profile: &Profile, host: &Host, found: &mut Found) {
    for wanted in &profile.manifest.instances {
        let reference = &wanted.reference;
        let there = &host.profile.manifest.instances;
        let there = there.iter().find(|there| there.reference == *reference);
        let created = there.and_then(|there| there.created.as_ref());
        let state = match (&wanted.created, created) {
            (Some(_), None) => Some(State::Missing),
            (None, Some(_)) => Some(State::Additional),
            (one, other) => (one.as_ref() != other).then_some(State::Different),
        };
        if let Some(state) = state {
            found.add(Subject::Record(reference.clone()), state);
        }
        if wanted.files.is_empty() {
            continue;
        }
        if !host.filled.contains(reference) {
            found.add(Subject::Instance(reference.clone()), State::Missing);
            continue;
        }
        for (path, mode) in &wanted.files {
            let subject = || Subject::File(reference.clone(), path.clone());
            let key = (reference.clone(), path.clone());
            let text = profile.instance_files.get(&key);
            let Some(has) = there.and_then(|there| there.files.get(path)) else {
                found.add(subject(), State::Missing);
                continue;
            };
            if text != host.profile.instance_files.get(&key) {
                found.add(subject(), State::Different);
            } else if mode != has {
                let [wanted, has] = [mode, has].map(|mode| Some(format!("mode {mode}")));
                found.with(subject(), State::Different, wanted, has);
            }
        }
    }
}
