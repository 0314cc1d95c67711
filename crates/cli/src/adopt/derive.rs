//! From the settings of a hand-made unit, and what its scripts come to, to settings of ours. What a
//! host looks like is asked through [`Host`], so that every decision can be tested as a table.

use std::cell::RefCell;
use std::collections::BTreeSet;

use buildbot_conda_core::names::{InstanceRef, Role};
use buildbot_conda_core::paths;

use super::derived::{Derived, Given, Host, Observed, Remark, Source, Unit};
use super::directives;
use super::observed;
use super::reading::{Files, NOT_SEEN, Reader, Reading, Start, Target};
use super::variables::{self, Environment};
use super::verdict::{Judged, Verdict, shown_place};
use buildbot_conda_core::unit_text::{Place, specifiers, words};

/// Places where people install Conda, below the home directory and below `/opt`.
const INSTALLATIONS: [&str; 6] = [
    "anaconda3",
    "miniconda3",
    "miniforge3",
    "mambaforge",
    "conda",
    "miniconda",
];

const ENVIRONMENT_HINT: &str = "specify it with `--conda-env ENV`";
const ROOT_HINT: &str = "specify it with `--conda-root ROOT`";
const DIRECTORY_HINT: &str = "specify it with `--directory DIR`";
const USER_HINT: &str = "specify the account that runs it with `--user USER`, and make that account the owner of the directory and its contents";

/// Decides. `settings` are those of the unit, then of its drop-ins.
pub(super) fn derive(
    reference: &InstanceRef,
    source: &Source<'_>,
    given: &Given,
    host: &Host<'_>,
) -> Derived {
    let mut derived = Derived::default();
    let unit = Unit {
        name: source.unit.to_owned(),
        settings: source.settings,
    };
    let whole = Place {
        file: source.file.to_owned(),
        line: 1,
    };
    let user = user(&unit, given, source.observed, &whole, &mut derived);
    let home = (host.home)(&user).unwrap_or_else(|| format!("/home/{user}"));
    let environment = variables::of_unit(&unit, &user, &home, host, &mut derived);
    // Files of variables stay in force, and so these have no place.
    let unplaced = environment
        .variables
        .iter()
        .filter(|(_, (_, place))| place.is_none());
    let carried: BTreeSet<String> = unplaced.map(|(name, _)| name.clone()).collect();
    let mut reading = reading(&unit, &home, &user, &environment, &whole, host);
    let is_given = given.directory.is_some() && given.conda_env.is_some();
    observed::settle(&mut reading, source.observed, &home, is_given);
    let mut is_understood = true;
    for judged in std::mem::take(&mut reading.verdicts.0) {
        let Judged {
            place,
            text,
            verdict,
        } = judged;
        match verdict {
            Verdict::Taken => {}
            // The options say what does.
            Verdict::Refused { reason, .. } if is_given && reason == NOT_SEEN => {}
            Verdict::Refused { reason, .. } if !is_given => {
                is_understood = false;
                derived.problems.push((
                    Remark {
                        place,
                        text: reason,
                    },
                    None,
                ));
            }
            Verdict::Left | Verdict::Refused { .. } => derived.left.push(Remark { place, text }),
        }
    }
    let start = reading.start.take();
    let directory = directory(
        reference,
        start.as_ref(),
        is_understood,
        given,
        &whole,
        host,
        &mut derived,
    );
    place_of_conda(
        start.as_ref(),
        is_understood,
        given,
        &home,
        &whole,
        host,
        &mut derived,
    );
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
    // Nothing confined it, or its own unit did, and that holds on.
    let unconfined = (
        "hardening".to_owned(),
        "none".to_owned(),
        "as before".to_owned(),
    );
    derived.values.push(unconfined);
    derived.is_private = unit
        .settings
        .iter()
        .any(|setting| (host.is_private)(&setting.place.file));
    directives::sort_out(&unit, reference, &mut derived);
    if let Some(start) = &start {
        variables::take_over(start, &reading.private, host, &mut derived);
        observed::compare(start, source, &carried, &user, host, &mut derived);
        directives::hand_on(&start.process, &mut derived);
    }
    directives::keep_mask(reference, &whole, &mut derived);
    if !derived.secrets.is_empty() {
        let line = format!("EnvironmentFile={}", secrets_file(reference));
        derived.carry("Service", line, whole);
    }
    derived
}

fn user(
    unit: &Unit<'_>,
    given: &Given,
    observed: Option<&Observed>,
    whole: &Place,
    derived: &mut Derived,
) -> String {
    // A unit of root's may give its account up itself, as by `su`.
    let of_process = observed.filter(|process| process.uid != 0 && !process.user.is_empty());
    let (name, from) = match (&given.user, unit.last("User")) {
        (None, setting)
            if let Some(process) = of_process
                && setting
                    .is_none_or(|setting| ["root", "0"].contains(&setting.value.as_str())) =>
        {
            let place = variables::of_process(process.pid);
            (process.user.clone(), place.file)
        }
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
    if name.contains('%') || name.bytes().all(|byte| byte.is_ascii_digit()) {
        let text = format!("`User={name}` is not the name of an account");
        let place = unit
            .last("User")
            .map_or(whole, |setting| &setting.place)
            .clone();
        derived
            .problems
            .push((Remark { place, text }, Some(USER_HINT)));
    }
    derived.values.push(("user".to_owned(), name.clone(), from));
    name
}

fn reading(
    unit: &Unit<'_>,
    home: &str,
    user: &str,
    environment: &Environment,
    whole: &Place,
    host: &Host<'_>,
) -> Reading {
    let mut refused = Reading::default();
    let commands = unit.all("ExecStart");
    let [command] = commands[..] else {
        let text = match commands.len() {
            0 => "there is no `ExecStart=`",
            _ => "there is more than one `ExecStart=`",
        };
        drop(refused.verdicts.refused(whole, text));
        return refused;
    };
    let filled = specifiers(&command.value, &unit.name, "/root")
        .map_err(|unknown| format!("unsupported specifier `{unknown}`"))
        .and_then(|text| words(&text).ok_or_else(|| "unterminated quote".to_owned()));
    let mut words = match filled {
        Ok(words) => words,
        Err(reason) => {
            drop(refused.verdicts.refused(&command.place, &reason));
            return refused;
        }
    };
    let mut is_literal = false;
    if let Some(first) = words.first_mut() {
        // They say how to run it, systemd.service(5).
        let bare = first
            .trim_start_matches(['-', '@', ':', '+', '!', '|'])
            .to_owned();
        let signs = first[..first.len() - bare.len()].to_owned();
        *first = bare;
        if signs.contains(['+', '!', '|']) {
            let reason = format!("the prefix `{signs}` runs the command with other privileges");
            drop(refused.verdicts.refused(&command.place, &reason));
            return refused;
        }
        is_literal = signs.contains(':');
        if signs.contains('@') && words.len() > 1 {
            let name = words.remove(1);
            // Then a shell is a login shell, bash(1).
            if name.starts_with('-') {
                words.insert(1, "-l".to_owned());
            }
        }
    }
    if !is_literal {
        if let Some(name) = environment.unknown_in(&words) {
            let reason = format!("the value of `{name}` is known only at run time");
            drop(refused.verdicts.not_known(&command.place, &reason));
            return refused;
        }
        let known = environment.known();
        words = buildbot_conda_core::unit_text::variables(&words, &known);
    }
    let start = unit
        .last("WorkingDirectory")
        .map_or("/", |setting| &setting.value);
    let start = match start.trim_start_matches('-') {
        "~" => home.to_owned(),
        path => match specifiers(path, &unit.name, "/root") {
            Ok(path) => path,
            Err(unknown) => {
                let reason = format!("unsupported specifier `{unknown}` in `WorkingDirectory=`");
                drop(refused.verdicts.refused(&command.place, &reason));
                return refused;
            }
        },
    };
    let private = RefCell::new(BTreeSet::new());
    let read = |path: &str| {
        let script = (host.read)(user, path)?;
        if script.is_private {
            private.borrow_mut().insert(path.to_owned());
        }
        Ok(script.text)
    };
    let files = Files {
        read: &read,
        exists: host.exists,
    };
    let reader = Reader::new(
        files,
        &environment.variables,
        environment.has_unknown,
        &start,
    );
    let mut reading = reader.command_line(&command.place, &words);
    reading.private = private.take();
    reading
}

fn directory(
    reference: &InstanceRef,
    start: Option<&Start>,
    is_understood: bool,
    given: &Given,
    whole: &Place,
    host: &Host<'_>,
    derived: &mut Derived,
) -> Option<(String, String)> {
    let (path, place, from) = match (&given.directory, start) {
        (Some(path), _) => (path.clone(), whole.clone(), "--directory".to_owned()),
        (None, Some(found)) => {
            let (role, path) = (&found.role, &found.directory);
            // A twistd could be either.
            if *role != reference.role && *role == Role::Worker {
                let text = format!(
                    "it starts a {role}, but the unit is for a {}",
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
            (path.clone(), found.place.clone(), shown_place(&found.place))
        }
        (None, None) => {
            // Where the reading has a problem of its own, that is the reason.
            if is_understood && derived.problems.is_empty() {
                let text = "the directory is unknown".to_owned();
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
    start: Option<&Start>,
    is_understood: bool,
    given: &Given,
    home: &str,
    whole: &Place,
    host: &Host<'_>,
    derived: &mut Derived,
) {
    let root = match (
        &given.conda_root,
        start.and_then(|start| start.root.as_ref()),
    ) {
        (Some(root), _) => Some((root.clone(), "--conda-root".to_owned())),
        (None, Some(found)) => Some((found.value.clone(), shown_place(&found.place))),
        (None, None) => None,
    };
    let (target, place) = match (
        &given.conda_env,
        start.and_then(|start| start.target.as_ref()),
    ) {
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
            if is_understood && derived.problems.iter().all(|(_, hint)| hint.is_some()) {
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
    let from = shown_place(&place);
    let (root, name) = match target {
        Target::Prefix(prefix) => split(&prefix, root, &from),
        Target::Named(name) => {
            let Some(root) = root.or_else(|| guess(&name, home, host)) else {
                let text = format!("the location of Conda and its environment `{name}` is unknown");
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
    derived.prefix.clone_from(&prefix);
    if !(host.exists)(&format!("{prefix}/conda-meta")) {
        let text = format!("`{prefix}` is not a Conda environment");
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

/// Where nothing says where Conda is: the one of the configuration, or one at a usual place, that has such an environment
/// and is the only one.
fn guess(name: &str, home: &str, host: &Host<'_>) -> Option<(String, String)> {
    let places = INSTALLATIONS
        .iter()
        .flat_map(|directory| [format!("{home}/{directory}"), format!("/opt/{directory}")]);
    let mut found: Vec<String> = std::iter::once(host.conda_root.clone())
        .chain(places)
        .filter(|root| {
            let prefix = if name == "base" {
                root.clone()
            } else {
                format!("{root}/envs/{name}")
            };
            (host.exists)(&format!("{prefix}/conda-meta"))
        })
        .collect();
    found.sort();
    found.dedup();
    let only = found.pop().filter(|_| found.is_empty())?;
    Some((only, format!("the location of `{name}`")))
}

/// Where secret variables of an instance go, read by systemd alone.
pub(super) fn secrets_file(reference: &InstanceRef) -> String {
    format!("{}/{reference}.adopted.env", paths::CREDENTIALS)
}
