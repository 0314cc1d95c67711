//! From the settings of a hand-made unit, and what its scripts come to, to settings of ours. What a
//! host looks like is asked through [`Host`], so that every decision can be tested as a table.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use crate::system::secrets::may_be_secret;
use buildbot_conda_core::foreign_text::is_plain;
use buildbot_conda_core::names::{InstanceRef, Role};
use buildbot_conda_core::paths;
use buildbot_conda_core::values::VariableName;

use super::reading::{Found, Reader, Reading, Remark, Target};
use buildbot_conda_core::unit_text::{Place, Setting, specifiers, variables, words};

/// What has to be looked up on the host.
pub(super) struct Host<'a> {
    /// A script as an account can read it, or the reason why there is none.
    pub(super) read: &'a dyn Fn(&str, &str) -> Result<Script, String>,
    /// Whether a unit file is not for everybody to read.
    pub(super) is_private: &'a dyn Fn(&str) -> bool,
    /// Whether an absolute path is there.
    pub(super) exists: &'a dyn Fn(&str) -> bool,
    /// The home directory of an account.
    pub(super) home: &'a dyn Fn(&str) -> Option<String>,
    /// The installation that the configuration names.
    pub(super) conda_root: String,
}

/// The text of a script, and whether it is not for everybody to read.
#[derive(Debug, Clone)]
pub(super) struct Script {
    pub(super) text: String,
    pub(super) is_private: bool,
}

/// What the administrator says about it.
#[derive(Debug, Clone, Default)]
pub(super) struct Given {
    pub(super) conda_root: Option<String>,
    pub(super) conda_env: Option<String>,
    pub(super) directory: Option<String>,
    pub(super) user: Option<String>,
}

/// A key of ours, its value, and where that comes from.
pub(super) type Value = (String, String, String);

/// What becomes of one instance.
#[derive(Debug, Default)]
pub(super) struct Derived {
    /// Keys in the order in which they are set.
    pub(super) values: Vec<Value>,
    /// Variables that not everybody may read: name, value, and where it comes from.
    pub(super) secrets: Vec<Value>,
    /// Lines of the old unit that hold on, by section, with their places.
    pub(super) carried: BTreeMap<String, Vec<(String, Place)>>,
    /// Seen and not taken over.
    pub(super) left: Vec<Remark>,
    /// Keys of the old unit that ours answers in its own way.
    pub(super) answered: Vec<String>,
    /// What keeps it from being adopted, each with what to do about it.
    pub(super) problems: Vec<(Remark, Option<&'static str>)>,
}

/// Places where people install Conda, below the home directory and below `/opt`.
const INSTALLATIONS: [&str; 6] = [
    "anaconda3",
    "miniconda3",
    "miniforge3",
    "mambaforge",
    "conda",
    "miniconda",
];

const ENVIRONMENT_HINT: &str = "name it with `--conda-env ENV`";
const ROOT_HINT: &str = "name it with `--conda-root ROOT`";
const DIRECTORY_HINT: &str = "name it with `--directory DIR`";
const SECRET_HINT: &str = "put it into a file for `credentials`, and take it out of there";
const USER_HINT: &str =
    "name the account that shall run it with `--user USER`, and give it what is in the directory";

/// Decides. `settings` are those of the unit, then of its drop-ins.
pub(super) fn derive(
    reference: &InstanceRef,
    file: &str,
    settings: &[Setting],
    given: &Given,
    host: &Host<'_>,
) -> Derived {
    let mut derived = Derived::default();
    let unit = Unit {
        name: reference.unit_name(),
        settings,
    };
    let whole = Place {
        file: file.to_owned(),
        line: 1,
    };
    let user = user(&unit, given, &whole, &mut derived);
    let home = (host.home)(&user).unwrap_or_else(|| format!("/home/{user}"));
    let mut environment = environment(&unit, &mut derived);
    let reading = reading(
        &unit,
        &home,
        &user,
        &environment,
        &whole,
        given,
        host,
        &mut derived,
    );
    let directory = directory(reference, &reading, given, &whole, host, &mut derived);
    place_of_conda(&reading, given, &home, &whole, host, &mut derived);
    if let Some((value, from)) = directory {
        // First: a table without it is no good.
        derived
            .values
            .insert(0, ("directory".to_owned(), value, from));
    }
    if let Some(group) = unit.last("Group") {
        let value = (group.value.clone(), group.place.to_string());
        derived.values.push(("group".to_owned(), value.0, value.1));
    }
    environment.extend(reading.exported);
    for (name, found) in environment {
        let file = &found.place.file;
        let is_private = reading.private.contains(file) || (host.is_private)(file);
        variable(&name, found, is_private, &mut derived);
    }
    if !derived.secrets.is_empty() {
        let line = format!("EnvironmentFile={}", secrets_file(reference));
        derived.carry("Service", line, whole);
    }
    derived.left.extend(reading.left);
    sort_out(&unit, &mut derived);
    derived
}

/// The settings of one unit under its name.
struct Unit<'a> {
    name: String,
    settings: &'a [Setting],
}

impl Unit<'_> {
    /// Values of a list in `[Service]`; an empty one takes back what came before.
    fn all(&self, key: &str) -> Vec<&Setting> {
        let mut found = Vec::new();
        for setting in self.settings {
            if setting.section == "Service" && setting.key == key {
                if setting.value.is_empty() {
                    found.clear();
                } else {
                    found.push(setting);
                }
            }
        }
        found
    }

    fn last(&self, key: &str) -> Option<&Setting> {
        self.all(key).pop()
    }
}

fn user(unit: &Unit<'_>, given: &Given, whole: &Place, derived: &mut Derived) -> String {
    let (name, from) = match (&given.user, unit.last("User")) {
        (Some(user), _) => (user.clone(), "--user".to_owned()),
        (None, Some(setting)) => (setting.value.clone(), setting.place.to_string()),
        (None, None) => {
            let text = "without `User=` it runs as root".to_owned();
            let remark = Remark {
                place: whole.clone(),
                text,
            };
            derived.problems.push((remark, Some(USER_HINT)));
            return "root".to_owned();
        }
    };
    derived.values.push(("user".to_owned(), name.clone(), from));
    name
}

/// `Environment=` as systemd reads it: words that are assignments.
fn environment(unit: &Unit<'_>, derived: &mut Derived) -> BTreeMap<String, Found> {
    let mut values = BTreeMap::new();
    for setting in unit.all("Environment") {
        for word in words(&setting.value).unwrap_or_default() {
            let filled = specifiers(&word, &unit.name, "/root");
            let Some((name, value)) = filled.as_deref().ok().and_then(|word| word.split_once('='))
            else {
                derived.left.push(Remark {
                    place: setting.place.clone(),
                    text: word,
                });
                continue;
            };
            let found = Found {
                value: value.to_owned(),
                place: setting.place.clone(),
            };
            values.insert(name.to_owned(), found);
        }
    }
    values
}

#[expect(clippy::too_many_arguments, reason = "each is another fact, used once")]
fn reading(
    unit: &Unit<'_>,
    home: &str,
    user: &str,
    environment: &BTreeMap<String, Found>,
    whole: &Place,
    given: &Given,
    host: &Host<'_>,
    derived: &mut Derived,
) -> Reading {
    let mut problem = |place: &Place, text: String| {
        let is_given = given.directory.is_some() && given.conda_env.is_some();
        if !is_given {
            let remark = Remark {
                place: place.clone(),
                text,
            };
            derived.problems.push((remark, None));
        }
    };
    let commands = unit.all("ExecStart");
    let [command] = commands[..] else {
        let text = match commands.len() {
            0 => "there is no `ExecStart=`",
            _ => "there is more than one `ExecStart=`",
        };
        problem(whole, text.to_owned());
        return Reading::default();
    };
    let mut known: BTreeMap<String, String> = environment
        .iter()
        .map(|(name, found)| (name.clone(), found.value.clone()))
        .collect();
    // As systemd sets them for a service with a user, systemd.exec(5).
    for (name, value) in [("HOME", home), ("USER", user), ("LOGNAME", user)] {
        known
            .entry(name.to_owned())
            .or_insert_with(|| value.to_owned());
    }
    let filled = specifiers(&command.value, &unit.name, "/root")
        .map_err(|unknown| format!("`{unknown}` is not known here"))
        .and_then(|text| words(&text).ok_or_else(|| "a quote does not end".to_owned()));
    let mut words = match filled {
        Ok(words) => variables(&words, &known),
        Err(reason) => {
            problem(&command.place, reason);
            return Reading::default();
        }
    };
    if let Some(first) = words.first_mut() {
        // They say how to run it, systemd.service(5).
        let bare = first
            .trim_start_matches(['-', '@', ':', '+', '!', '|'])
            .to_owned();
        let has_own_name = first[..first.len() - bare.len()].contains('@');
        *first = bare;
        if has_own_name && words.len() > 1 {
            words.remove(1);
        }
    }
    let start = unit
        .last("WorkingDirectory")
        .map_or("/", |setting| &setting.value);
    let start = match start.trim_start_matches('-') {
        "~" => home.to_owned(),
        path => specifiers(path, &unit.name, "/root").unwrap_or_else(|_| path.to_owned()),
    };
    let private = RefCell::new(BTreeSet::new());
    let read = |path: &str| {
        let script = (host.read)(user, path)?;
        if script.is_private {
            private.borrow_mut().insert(path.to_owned());
        }
        Ok(script.text)
    };
    let mut reading = Reader::new(&read, &known, &start).command_line(&command.place, &words);
    reading.private = private.take();
    for remark in &reading.problems {
        problem(&remark.place, remark.text.clone());
    }
    reading
}

fn directory(
    reference: &InstanceRef,
    reading: &Reading,
    given: &Given,
    whole: &Place,
    host: &Host<'_>,
    derived: &mut Derived,
) -> Option<(String, String)> {
    let (path, place, from) = match (&given.directory, &reading.start) {
        (Some(path), _) => (path.clone(), whole.clone(), "--directory".to_owned()),
        (None, Some(found)) => {
            let (role, path) = &found.value;
            // A twistd could be either.
            if *role != reference.role && *role == Role::Worker {
                let text = format!(
                    "it starts a {role}, though the unit is a {}'s",
                    reference.role
                );
                derived.problems.push((
                    Remark {
                        place: found.place.clone(),
                        text,
                    },
                    None,
                ));
            }
            (path.clone(), found.place.clone(), found.place.to_string())
        }
        (None, None) => {
            // Where the reading has a problem of its own, that is the reason.
            if reading.problems.is_empty() && derived.problems.is_empty() {
                let text = "the directory is not told".to_owned();
                derived.problems.push((
                    Remark {
                        place: whole.clone(),
                        text,
                    },
                    Some(DIRECTORY_HINT),
                ));
            }
            return None;
        }
    };
    if !(host.exists)(&format!("{path}/buildbot.tac")) {
        let text = format!("there is no `{path}/buildbot.tac`");
        derived
            .problems
            .push((Remark { place, text }, Some(DIRECTORY_HINT)));
    }
    Some((path, from))
}

/// `conda-root` and `conda-env`.
fn place_of_conda(
    reading: &Reading,
    given: &Given,
    home: &str,
    whole: &Place,
    host: &Host<'_>,
    derived: &mut Derived,
) {
    let root = match (&given.conda_root, &reading.root) {
        (Some(root), _) => Some((root.clone(), "--conda-root".to_owned())),
        (None, Some(found)) => Some((found.value.clone(), found.place.to_string())),
        (None, None) => None,
    };
    let (target, place) = match (&given.conda_env, &reading.target) {
        (Some(text), _) => {
            let target = if text.starts_with('/') {
                Target::Prefix(text.clone())
            } else {
                Target::Named(text.clone())
            };
            (
                target,
                Place {
                    file: "--conda-env".to_owned(),
                    line: 0,
                },
            )
        }
        (None, Some(found)) => (found.value.clone(), found.place.clone()),
        (None, None) => {
            if reading.problems.is_empty()
                && derived.problems.iter().all(|(_, hint)| hint.is_some())
            {
                let text = "no environment is activated".to_owned();
                let remark = Remark {
                    place: whole.clone(),
                    text,
                };
                derived.problems.push((remark, Some(ENVIRONMENT_HINT)));
            }
            return;
        }
    };
    let from = if place.line == 0 {
        place.file.clone()
    } else {
        place.to_string()
    };
    let (root, name) = match target {
        Target::Prefix(prefix) => split(&prefix, root, &from),
        Target::Named(name) => {
            let Some(root) = root.or_else(|| guess(&name, home, host)) else {
                let text = format!("where Conda and its environment `{name}` are is not told");
                let place = if place.line == 0 {
                    whole.clone()
                } else {
                    place
                };
                derived
                    .problems
                    .push((Remark { place, text }, Some(ROOT_HINT)));
                return;
            };
            in_root(&name, root, home, host)
        }
    };
    let prefix = match (&root, name.as_str()) {
        (_, path) if path.starts_with('/') => path.to_owned(),
        (Some((root, _)), "base") => root.clone(),
        (Some((root, _)), name) => format!("{root}/envs/{name}"),
        (None, name) => format!("{}/envs/{name}", host.conda_root),
    };
    if !(host.exists)(&format!("{prefix}/conda-meta")) {
        let text = format!("`{prefix}` is no Conda environment");
        let place = if place.line == 0 {
            whole.clone()
        } else {
            place
        };
        derived
            .problems
            .push((Remark { place, text }, Some(ENVIRONMENT_HINT)));
    }
    if let Some((root, from)) = root {
        derived.values.push(("conda-root".to_owned(), root, from));
    }
    derived.values.push(("conda-env".to_owned(), name, from));
}

/// A prefix below `ROOT/envs` is that root's, whatever else was seen.
fn split(
    prefix: &str,
    root: Option<(String, String)>,
    from: &str,
) -> (Option<(String, String)>, String) {
    if root.as_ref().is_some_and(|(root, _)| root == prefix) {
        return (root, "base".to_owned());
    }
    let parent = prefix.rsplit_once('/');
    match parent.and_then(|(parent, name)| Some((parent.strip_suffix("/envs")?, name))) {
        Some((above, name)) if !above.ends_with("/.conda") => {
            (Some((above.to_owned(), from.to_owned())), name.to_owned())
        }
        _ => (root, prefix.to_owned()),
    }
}

fn in_root(
    name: &str,
    root: (String, String),
    home: &str,
    host: &Host<'_>,
) -> (Option<(String, String)>, String) {
    if name == "root" || name == "base" {
        return (Some(root), "base".to_owned());
    }
    // Where Conda puts environments of users who cannot write the installation.
    let private = format!("{home}/.conda/envs/{name}");
    let is_there = (host.exists)(&format!("{}/envs/{name}", root.0));
    if !is_there && (host.exists)(&private) {
        return (Some(root), private);
    }
    (Some(root), name.to_owned())
}

/// Where nothing says where Conda is: the one of the configuration, or one at a usual place, that
/// has such an environment.
fn guess(name: &str, home: &str, host: &Host<'_>) -> Option<(String, String)> {
    let places = INSTALLATIONS
        .iter()
        .flat_map(|directory| [format!("{home}/{directory}"), format!("/opt/{directory}")]);
    std::iter::once(host.conda_root.clone())
        .chain(places)
        .find(|root| {
            let prefix = if name == "base" {
                root.clone()
            } else {
                format!("{root}/envs/{name}")
            };
            (host.exists)(&format!("{prefix}/conda-meta"))
        })
        .map(|root| (root, format!("where `{name}` was found")))
}

/// Where secret variables of an instance go, read by systemd alone.
pub(super) fn secrets_file(reference: &InstanceRef) -> String {
    format!("{}/{reference}.adopted.env", paths::CREDENTIALS)
}

/// What activation and systemd set is theirs; what may be secret goes where root alone reads it, and the rest into the
/// `environment` table of the configuration, which everybody can read.
fn variable(name: &str, found: Found, is_private: bool, derived: &mut Derived) {
    let is_theirs = ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "PS1"].contains(&name)
        || name.starts_with("CONDA_")
        || name.starts_with("_CE_");
    if is_theirs {
        return;
    }
    let place = found.place;
    if name.parse::<VariableName>().is_err() {
        derived.left.push(Remark {
            place,
            text: format!("{name}={}", found.value),
        });
        return;
    }
    if !is_private && !may_be_secret(name, &found.value) {
        let key = format!("environment.{name}");
        derived.values.push((key, found.value, place.to_string()));
    } else if is_plain(&found.value) {
        let value = (name.to_owned(), found.value, place.to_string());
        derived.secrets.push(value);
    } else {
        let text =
            format!("`{name}` may be secret and has characters that no file of variables can have");
        derived
            .problems
            .push((Remark { place, text }, Some(SECRET_HINT)));
    }
}

/// Targets that our unit is ordered after, or that mean nothing to it.
const USUAL_TARGETS: [&str; 7] = [
    "network.target",
    "network-online.target",
    "multi-user.target",
    "syslog.target",
    "remote-fs.target",
    "nss-lookup.target",
    "nss-user-lookup.target",
];

/// What of the old unit still means the same beside ours.
fn sort_out(unit: &Unit<'_>, derived: &mut Derived) {
    for setting in unit.settings {
        let Setting {
            section,
            key,
            value,
            place,
        } = setting;
        let line = format!("{key}={value}");
        let place = place.clone();
        match (section.as_str(), key.as_str()) {
            ("Unit", "After" | "Before" | "Wants" | "Requires" | "BindsTo" | "Requisite") => {
                let rest: Vec<&str> = value
                    .split_whitespace()
                    .filter(|word| !USUAL_TARGETS.contains(word))
                    .collect();
                if !rest.is_empty() {
                    derived.carry(section, format!("{key}={}", rest.join(" ")), place);
                }
            }
            ("Unit", key) if key.starts_with("Condition") || key.starts_with("Assert") => {
                derived.carry(section, line, place);
            }
            ("Unit", "RequiresMountsFor") => derived.carry(section, line, place),
            ("Unit" | "Install", _)
            | ("Service", "User" | "Group" | "WorkingDirectory" | "Environment" | "ExecStart") => {}
            ("Service", "ExecStartPre" | "ExecStartPost" | "ExecStopPost" | "ExecCondition") => {
                derived.left.push(Remark { place, text: line });
            }
            ("Service", key) if is_carried(key) => derived.carry(section, line, place),
            ("Service", key) => {
                if !derived.answered.iter().any(|known| known == key) {
                    derived.answered.push(key.to_owned());
                }
            }
            _ => derived.left.push(Remark { place, text: line }),
        }
    }
}

/// Limits and resources, and secrets in files that only root reads.
fn is_carried(key: &str) -> bool {
    let starts = ["CPU", "Memory", "IO", "IPAddress", "Device"];
    // Ours has a limit for descriptors that is higher than most.
    (key.starts_with("Limit") && key != "LimitNOFILE")
        || starts.iter().any(|start| key.starts_with(start))
        || [
            "EnvironmentFile",
            "Nice",
            "OOMScoreAdjust",
            "SupplementaryGroups",
            "Slice",
            "PassEnvironment",
        ]
        .contains(&key)
}

impl Derived {
    fn carry(&mut self, section: &str, line: String, place: Place) {
        let lines = self.carried.entry(section.to_owned()).or_default();
        lines.push((line, place));
    }
}
