//! What the Buildbot that runs by a unit says: its variables, its directory, its program, its account. What was read out of
//! unit and scripts has to agree with it, and what cannot be read is answered by it.

use std::collections::BTreeSet;
use std::path::Path;

use buildbot_conda_core::unit_text::{Place, Setting};

use super::derived::{Derived, Host, Observed, Source};
use super::reading::{Found, Reading, Start, Target, nicer};
use super::variables::{self, is_of_activation};
use super::verdict::Verdict;
use crate::system::secrets::may_be_secret;

const DIFFERENCE_HINT: &str = "restart the old unit with `systemctl restart`, so that it runs as unit and scripts specify now; then adopt again";

/// What systemd, a login and the shell set for each process anew.
fn is_of_process(name: &str) -> bool {
    const KNOWN: [&str; 22] = [
        "CREDENTIALS_DIRECTORY",
        "DBUS_SESSION_BUS_ADDRESS",
        "HOME",
        "INVOCATION_ID",
        "JOURNAL_STREAM",
        "LISTEN_FDS",
        "LISTEN_PID",
        "LOGNAME",
        "MAIL",
        "MAINPID",
        "MEMORY_PRESSURE_WATCH",
        "MEMORY_PRESSURE_WRITE",
        "NOTIFY_SOCKET",
        "PATH",
        "PIDFILE",
        "STY",
        "SHELL",
        "SYSTEMD_EXEC_PID",
        "TERM",
        "TMUX",
        "TMUX_PANE",
        "USER",
    ];
    const FAMILIES: [&str; 4] = ["SUDO_", "WATCHDOG_", "XDG_SESSION_", "XDG_RUNTIME_"];
    KNOWN.contains(&name)
        || FAMILIES.iter().any(|family| name.starts_with(family))
        || is_of_activation(name)
}

/// Whether the words of a unit speak of a process: of its whole directory, or of the last part of that and its account.
pub(super) fn is_named(settings: &[Setting], observed: &Observed) -> bool {
    let words = |is_sign: fn(char) -> bool| {
        let texts = settings.iter();
        texts.flat_map(move |setting| setting.value.split(is_sign))
    };
    let is_word = |wanted: &str| {
        let is_sign = |next: char| !next.is_alphanumeric() && !"._-".contains(next);
        words(is_sign).any(|word| word == wanted)
    };
    let is_path = |wanted: &Path| {
        let is_sign = |next: char| next.is_whitespace() || "'\"=;&|()".contains(next);
        words(is_sign).any(|word| word.starts_with('/') && Path::new(word) == wanted)
    };
    let last = observed
        .directory
        .file_name()
        .and_then(|name| name.to_str());
    is_path(&observed.directory)
        || (last.is_some_and(is_word) && !observed.user.is_empty() && is_word(&observed.user))
}

/// Where everything that is not known is of the kind that the process answers, it does. With `is_given`, the
/// administrator's options do.
pub(super) fn settle(
    reading: &mut Reading,
    observed: Option<&Observed>,
    home: &str,
    is_given: bool,
) {
    let Some(observed) = observed else { return };
    let is_open = |verdict: &Verdict| match verdict {
        Verdict::Refused {
            is_settled_by_process,
            ..
        } => Some(*is_settled_by_process),
        _ => None,
    };
    let refused: Vec<bool> = reading
        .verdicts
        .0
        .iter()
        .filter_map(|judged| is_open(&judged.verdict))
        .collect();
    if refused.is_empty() || is_given || refused.contains(&false) {
        return;
    }
    let Some(prefix) = prefix_of(observed) else {
        return;
    };
    let place = variables::of_process(observed.pid);
    for judged in &mut reading.verdicts.0 {
        if matches!(judged.verdict, Verdict::Refused { .. }) {
            judged.verdict = Verdict::Left;
            judged.text = format!("{}; the value is taken from {}", judged.text, place.file);
        }
    }
    let found = |value: &str| Found {
        value: value.to_owned(),
        place: place.clone(),
    };
    let exported = observed
        .environment
        .iter()
        .filter(|(name, value)| match name.as_str() {
            "HOME" => *value != home,
            name => !is_of_process(name),
        });
    let exported = exported.map(|(name, value)| (name.clone(), found(value)));
    let mut process = super::reading::Process::new();
    process.insert("UMask", found(&format!("{:04o}", observed.umask)));
    if observed.nice != 0 {
        process.insert("Nice", found(&observed.nice.to_string()));
    }
    reading.start = Some(Start {
        // Which role it is, the unit's name says.
        role: buildbot_conda_core::names::Role::Master,
        directory: observed.directory.to_string_lossy().into_owned(),
        place: place.clone(),
        root: None,
        target: Some(Found {
            value: Target::Prefix(prefix),
            place: place.clone(),
        }),
        exported: exported.collect(),
        path: observed
            .environment
            .get("PATH")
            .cloned()
            .unwrap_or_default(),
        path_place: Some(place),
        process,
    });
}

/// The directory above the `bin` of its Python.
fn prefix_of(observed: &Observed) -> Option<String> {
    let directory = observed.program.parent()?;
    let prefix = directory.parent().filter(|_| directory.ends_with("bin"))?;
    Some(prefix.to_str()?.to_owned())
}

/// Names every difference between what was read and what runs. A variable that nothing explains goes on; files that stay
/// in force have those of `carried`.
pub(super) fn compare(
    start: &Start,
    source: &Source<'_>,
    carried: &BTreeSet<String>,
    user: &str,
    host: &Host<'_>,
    derived: &mut Derived,
) {
    let prefix = &derived.prefix.clone();
    let Some(observed) = source.observed else {
        return;
    };
    let place = variables::of_process(observed.pid);
    let mut differs = |what: String| derived.refuse(&place, what, DIFFERENCE_HINT);
    if (host.uid)(user).is_some_and(|uid| uid != observed.uid) {
        differs(format!(
            "it runs as user {} instead of `{user}`",
            observed.uid
        ));
    }
    if start.place == place {
        return;
    }
    let directory = (host.resolved)(Path::new(&start.directory));
    if directory != observed.directory {
        differs(format!(
            "it runs in `{}` instead of `{}`",
            observed.directory.display(),
            start.directory
        ));
    }
    let expected = (host.resolved)(Path::new(prefix));
    match prefix_of(observed) {
        Some(found) if !prefix.is_empty() && expected != Path::new(&found) => {
            differs(format!(
                "it runs Python from `{found}` instead of `{prefix}`"
            ));
        }
        _ => {}
    }
    for (name, found) in &start.exported {
        let now = observed.environment.get(name);
        if now != Some(&found.value) && !is_of_process(name) && !explained(name, prefix, user, host)
        {
            let how = now.map_or("has no", |_| "has a different value of");
            differs(format!(
                "it {how} `{name}`, which is set in {}",
                found.place
            ));
        }
    }
    let mask = start.process.get("UMask").map(|found| found.value.clone());
    let of_unit = source
        .settings
        .iter()
        .rev()
        .find(|setting| setting.key == "UMask");
    let mask = mask
        .or(of_unit.map(|setting| setting.value.clone()))
        .unwrap_or_else(|| "0022".to_owned());
    if u32::from_str_radix(&mask, 8) != Ok(observed.umask) {
        differs(format!(
            "its umask is {:04o} instead of {mask}",
            observed.umask
        ));
    }
    let niceness = |found: Option<&str>| found.unwrap_or("0").to_owned();
    let of_unit = source
        .settings
        .iter()
        .rev()
        .find(|setting| setting.key == "Nice");
    let of_script = start.process.get("Nice").map(|found| found.value.as_str());
    let nice = nicer(
        &niceness(of_unit.map(|setting| setting.value.as_str())),
        &niceness(of_script),
    );
    if nice != observed.nice.to_string() {
        differs(format!(
            "its niceness is {} instead of {nice}",
            observed.nice
        ));
    }
    compare_path(start, observed, prefix, &place, derived);
    let known = |name: &str| start.exported.contains_key(name) || is_of_process(name);
    for (name, value) in &observed.environment {
        if known(name) || carried.contains(name) || explained(name, prefix, user, host) {
            continue;
        }
        let found = Found {
            value: value.clone(),
            place: place.clone(),
        };
        variables::variable(name, found, may_be_secret(name, value), derived);
    }
}

/// Whether activation sets a variable: a script of the environment has its name.
fn explained(name: &str, prefix: &str, user: &str, host: &Host<'_>) -> bool {
    let is_sign = |next: char| !next.is_ascii_alphanumeric() && next != '_';
    !prefix.is_empty()
        && (host.activation)(user, prefix)
            .split(is_sign)
            .any(|word| word == name)
}

fn compare_path(
    start: &Start,
    observed: &Observed,
    prefix: &str,
    place: &Place,
    derived: &mut Derived,
) {
    let resolved = prefix_of(observed).unwrap_or_default();
    let of_conda = |part: &str| {
        part == format!("{prefix}/bin")
            || part == format!("{resolved}/bin")
            || part.ends_with("/condabin")
    };
    let parts = |path: &str| -> Vec<String> {
        let all = path.split(':').filter(|part| {
            !part.is_empty() && !of_conda(part) && !["/sbin", "/bin"].contains(part)
        });
        all.map(str::to_owned).collect()
    };
    let now = parts(observed.environment.get("PATH").map_or("", String::as_str));
    let (before, behind) = variables::search_path(start, prefix);
    let read = parts(
        &before
            .into_iter()
            .chain(behind)
            .collect::<Vec<_>>()
            .join(":"),
    );
    if now != read {
        let text = format!(
            "its `PATH` contains `{}`, but unit and scripts result in `{}`",
            now.join(":"),
            read.join(":")
        );
        derived.refuse(place, text, DIFFERENCE_HINT);
    }
}

#[cfg(test)]
mod tests {
    use buildbot_conda_core::unit_text;

    use super::*;

    #[test]
    fn a_unit_names_a_process_by_its_directory_or_by_the_end_of_that_and_its_account() {
        let observed = Observed {
            directory: "/home/bb/master".into(),
            user: "bb".to_owned(),
            ..Observed::default()
        };
        for (line, is_named_by) in [
            (
                "ExecStart=su - bb -c \"buildbot start /home/bb/master/\"",
                true,
            ),
            (
                "ExecStart=su - x -c 'cd /home/bb/master; buildbot start'",
                true,
            ),
            ("PIDFile=/home/bb/master", true),
            ("ExecStart=su - bb -c 'cd master&&buildbot start'", true),
            ("ExecStart=su bb -c 'buildbot start ~/master'", true),
            ("ExecStart=su - alice -c 'buildbot start master'", false),
            (
                "ExecStart=su - bb -c 'buildbot start masters/master2'",
                false,
            ),
            (
                "ExecStart=su - bb -c 'buildbot start /home/bb/master2'",
                false,
            ),
            ("ExecStart=su - bbb -c 'buildbot start /srv/master'", false),
            ("", false),
        ] {
            let settings = unit_text::parse("unit", &format!("[Service]\n{line}\n"));
            assert_eq!(is_named(&settings, &observed), is_named_by, "{line}");
        }
    }
}
