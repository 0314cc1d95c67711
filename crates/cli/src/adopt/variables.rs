//! Variables of a hand-made unit: those that systemd sets for it, and what becomes of those that its Buildbot had. What may
//! be secret goes where root alone reads it, the rest into the `environment` table of the configuration, which everybody
//! can read, and `PATH` into the unit, as activation goes in front of it.

use std::collections::{BTreeMap, BTreeSet};

use buildbot_conda_core::foreign_text::is_plain;
use buildbot_conda_core::unit_text::{Place, is_name, specifiers, words};
use buildbot_conda_core::values::VariableName;

use super::derived::{Derived, Host, Remark, Unit};
use super::reading::{ACTIVATED, Found, SYSTEMS, Start, Target, Variables};
use super::verdict::shown_place;
use crate::system::secrets::may_be_secret;

const SECRET_HINT: &str = "move it to a file for `credentials`";
const FILE_HINT: &str = "set its variables with `Environment=`, or start the unit, so that they can be read from the process";
const SHELL_HINT: &str = "set the variables of that file with `Environment=`";
const PATH_HINT: &str = "write `PATH` without quotes, spaces and `%`";
/// What systemd has in `PATH`, systemd.exec(5).
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a unit's commands find set.
pub(super) struct Environment {
    pub(super) variables: Variables,
    /// There are others.
    pub(super) has_unknown: bool,
}

impl Environment {
    /// The values of those that have one.
    pub(super) fn known(&self) -> BTreeMap<String, String> {
        let known = self.variables.iter();
        known
            .filter_map(|(name, (value, _))| Some((name.clone(), value.clone()?)))
            .collect()
    }

    /// A variable in the words of a command whose value is not known.
    pub(super) fn unknown_in(&self, words: &[String]) -> Option<String> {
        words
            .iter()
            .flat_map(|word| word.split('$').skip(1))
            .find_map(|text| {
                let text = text.trim_start_matches('{');
                let end = text.find(|next: char| !next.is_ascii_alphanumeric() && next != '_');
                let name = &text[..end.unwrap_or(text.len())];
                let is_known = match self.variables.get(name) {
                    Some((value, _)) => value.is_some(),
                    None => {
                        !self.has_unknown
                            && !["LANG", "SHELL", "MAINPID", "INVOCATION_ID"].contains(&name)
                    }
                };
                (is_name(name) && !is_known).then(|| name.to_owned())
            })
    }
}

/// As systemd sets them: its own, then `Environment=`, then the files, systemd.exec(5).
pub(super) fn of_unit(
    unit: &Unit<'_>,
    user: &str,
    home: &str,
    host: &Host<'_>,
    derived: &mut Derived,
) -> Environment {
    let mut variables = Variables::new();
    let mut has_unknown = false;
    for (name, value) in [("HOME", home), ("USER", user), ("LOGNAME", user)] {
        variables.insert(name.to_owned(), (Some(value.to_owned()), None));
    }
    for setting in unit.all("PassEnvironment") {
        for name in setting.value.split_whitespace() {
            variables.insert(name.to_owned(), (None, None));
        }
    }
    for setting in unit.all("Environment") {
        for word in words(&setting.value).unwrap_or_default() {
            let filled = specifiers(&word, &unit.name, "/root");
            let Some((name, value)) = filled.as_deref().ok().and_then(|word| word.split_once('='))
            else {
                let text = format!("`{word}` of `Environment=` is not supported");
                derived.problems.push((
                    Remark {
                        place: setting.place.clone(),
                        text,
                    },
                    None,
                ));
                continue;
            };
            if ["BASH_ENV", "ENV"].contains(&name) {
                let text = format!("`{name}` makes every shell read `{value}` first");
                derived.refuse(&setting.place, text, SHELL_HINT);
            }
            variables.insert(
                name.to_owned(),
                (Some(value.to_owned()), Some(setting.place.clone())),
            );
        }
    }
    for setting in unit.all("EnvironmentFile") {
        let path = setting.value.trim_start_matches('-');
        let is_optional = path.len() < setting.value.len();
        match specifiers(path, &unit.name, "/root")
            .map_err(|unknown| format!("unsupported specifier `{unknown}`"))
        {
            Ok(path) if path.contains(['*', '?', '[']) => {
                has_unknown = true;
                derived.refuse(
                    &setting.place,
                    format!("`{path}` may match several files"),
                    FILE_HINT,
                );
            }
            Ok(path) if !(host.exists)(&path) && is_optional => {}
            Ok(path) => match (host.read_as_root)(&path).or_else(|_| (host.read)(user, &path)) {
                // The file itself stays in force, and so its variables have no place.
                Ok(file) => variables.extend(
                    of_file(&file.text)
                        .into_iter()
                        .map(|(name, value)| (name, (value, None))),
                ),
                Err(reason) => {
                    has_unknown = true;
                    let text = format!("`EnvironmentFile={}`: {reason}", setting.value);
                    derived.refuse(&setting.place, text, FILE_HINT);
                }
            },
            Err(reason) => derived.refuse(&setting.place, reason, FILE_HINT),
        }
    }
    for setting in unit.all("UnsetEnvironment") {
        for word in words(&setting.value).unwrap_or_default() {
            let name = word.split('=').next().unwrap_or_default();
            variables.remove(name);
        }
    }
    Environment {
        variables,
        has_unknown,
    }
}

/// `NAME=value` lines; what has more to it than one pair of quotes is a value that is not known here.
fn of_file(text: &str) -> BTreeMap<String, Option<String>> {
    let mut variables = BTreeMap::new();
    let mut continues = false;
    for line in text.lines() {
        let is_rest = std::mem::replace(&mut continues, line.ends_with('\\'));
        let line = line.trim();
        if is_rest || line.starts_with(['#', ';']) {
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            continue;
        };
        let value = value.trim();
        let inner = ['"', '\'']
            .iter()
            .find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
        let value = Some(inner.unwrap_or(value)).filter(|value| !value.contains(['"', '\'', '\\']));
        variables.insert(name.trim().to_owned(), value.map(str::to_owned));
    }
    variables
}

/// What Buildbot had in its environment goes on.
pub(super) fn take_over(
    start: &Start,
    private: &BTreeSet<String>,
    host: &Host<'_>,
    derived: &mut Derived,
) {
    for (name, found) in &start.exported {
        let file = &found.place.file;
        let is_private = private.contains(file) || (host.is_private)(file);
        variable(name, found.clone(), is_private, derived);
    }
    let Some(place) = &start.path_place else {
        return;
    };
    let (before, behind) = search_path(start, &derived.prefix);
    for part in &before {
        let text = format!("`{part}` before the environment in `PATH`: it is now after it");
        derived.left.push(Remark {
            place: place.clone(),
            text,
        });
    }
    let value = before
        .into_iter()
        .chain(behind)
        .collect::<Vec<_>>()
        .join(":");
    if value == SYSTEM_PATH || Some(value.as_str()) == SYSTEM_PATH.strip_suffix(":/sbin:/bin") {
        return;
    }
    if value.contains(['"', '\'', '\\', '%', '$'])
        || value.contains(char::is_whitespace)
        || !is_plain(&value)
    {
        return derived.refuse(
            place,
            "`PATH` contains unsupported characters".to_owned(),
            PATH_HINT,
        );
    }
    derived.carry(
        "Service",
        format!("Environment=PATH={value}"),
        place.clone(),
    );
}

/// The parts of `PATH` before and behind the environment's own, which activation puts in front.
pub(super) fn search_path(start: &Start, prefix: &str) -> (Vec<String>, Vec<String>) {
    let named = match &start.target {
        Some(Found {
            value: Target::Prefix(prefix),
            ..
        }) => prefix.as_str(),
        _ => prefix,
    };
    let own = [
        format!("{named}/bin"),
        format!("{prefix}/bin"),
        ACTIVATED.to_owned(),
    ];
    let parts: Vec<&str> = start
        .path
        .split(':')
        .filter(|part| !part.is_empty())
        .collect();
    let at = parts
        .iter()
        .position(|part| own.iter().any(|own| own == part.trim_end_matches('/')));
    let (before, behind) = parts.split_at(at.unwrap_or(0));
    let filled = |parts: &[&str]| -> Vec<String> {
        let rest = parts
            .iter()
            .filter(|part| !own.iter().any(|own| own == part.trim_end_matches('/')));
        rest.map(|part| part.replace(SYSTEMS, SYSTEM_PATH))
            .collect()
    };
    (filled(before), filled(behind))
}

/// Variables that activation sets, and those that a shell has about itself.
pub(super) fn is_of_activation(name: &str) -> bool {
    let known = [
        "CONDA_DEFAULT_ENV",
        "CONDA_EXE",
        "CONDA_PREFIX",
        "CONDA_PROMPT_MODIFIER",
        "CONDA_PYTHON_EXE",
        "CONDA_SHLVL",
        "MAMBA_EXE",
        "OLDPWD",
        "PS1",
        "PWD",
        "SHLVL",
        "_",
        "_CE_CONDA",
        "_CE_M",
        "_CONDA_EXE",
        "_CONDA_ROOT",
    ];
    known.contains(&name)
        || name
            .strip_prefix("CONDA_PREFIX_")
            .is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
}

/// What activation sets is left to it; the rest goes on.
pub(super) fn variable(name: &str, found: Found, is_private: bool, derived: &mut Derived) {
    let place = found.place;
    if is_of_activation(name) {
        let text = format!("{name}, which activation sets");
        return derived.left.push(Remark { place, text });
    }
    if name.parse::<VariableName>().is_err() {
        let text = format!("{name}={}", found.value);
        return derived.left.push(Remark { place, text });
    }
    if !is_private && !may_be_secret(name, &found.value) {
        let key = format!("environment.{name}");
        derived.values.push((key, found.value, shown_place(&place)));
    } else if is_plain(&found.value) {
        let value = (name.to_owned(), found.value, shown_place(&place));
        derived.secrets.push(value);
    } else {
        let text = format!(
            "`{name}` may be secret and contains characters that an environment file cannot contain"
        );
        derived
            .problems
            .push((Remark { place, text }, Some(SECRET_HINT)));
    }
}

/// As it is shown where a place is asked for: what runs has no file.
pub(super) fn of_process(pid: u32) -> Place {
    Place {
        file: format!("the process {pid}"),
        line: 0,
    }
}
