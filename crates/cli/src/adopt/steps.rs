//! The steps of an adoption: stop, put aside, configure, enable, start. All that was running runs
//! again at its end, and all of it can be taken back.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use buildbot_conda_core::edit::{self, EditError};
use buildbot_conda_core::names::{InstanceRef, Role};
use buildbot_conda_core::paths;
use buildbot_conda_core::settings::{Settings, Word as _};

use super::derive::secrets_file;
use super::derived::{Derived, Value};
use super::find::{HandMade, Instance};
use super::verdict::shown_place;
use crate::plan::{FileStep, Plan, Step, UnitStep, directory, enable_in};
use crate::system::context::{Context, InvalidConfiguration};
use crate::system::systemd;
use crate::system::unit_files::{self, UNITS};
use crate::system::values::Mode;

/// What was put aside; it outlives a purge of the package, as it never was the package's.
pub(super) const BACKUPS: &str = "/var/backups/buildbot-conda";
/// How to go back, in a backup's directory.
pub(super) const RECORD: &str = "undo.json";
/// Lines of old units that hold on.
const CARRIED: &str = "50-adopted.conf";

/// The plan for units whose instances are all understood.
pub(super) fn plan(
    found: &[HandMade],
    derived: &[(&HandMade, &Instance, Derived)],
    context: &Context,
) -> anyhow::Result<Plan> {
    let units = context.path(UNITS);
    let backup = next_backup(context);
    let mut plan = Plan {
        title: "adopt".to_owned(),
        ..Plan::default()
    };
    for (unit, instance, derived) in derived {
        tell(unit, instance, derived, &mut plan.notes);
    }
    let is_live = !context.is_elsewhere();
    plan.steps.push(
        FileStep::CreateDirectory {
            path: backup.clone(),
            mode: Mode::new(0o700),
        }
        .into(),
    );
    // Workers last: what a master still hands out meanwhile is retried.
    for (_, instance, derived) in derived
        .iter()
        .filter(|(_, instance, _)| instance.is_running)
    {
        plan.steps.push(stop(instance, derived));
    }
    for unit in found.iter().filter(|unit| !unit.instances.is_empty()) {
        for file in &unit.files {
            let to = backup.join(file);
            let parent = to.parent().context("find the directory of a backup")?;
            directory(parent, 0o700, &mut plan.steps);
            plan.steps.push(
                FileStep::Move {
                    from: units.join(file),
                    to,
                }
                .into(),
            );
        }
    }
    for (_, instance, derived) in derived {
        if !derived.secrets.is_empty() {
            directory(&context.path(paths::CREDENTIALS), 0o700, &mut plan.steps);
            plan.steps.push(
                FileStep::Write {
                    path: context.path(&secrets_file(&instance.reference)),
                    text: variables(&derived.secrets),
                    mode: Mode::new(0o600),
                    secret: true,
                }
                .into(),
            );
        }
        if let Some(text) = carried(&derived.carried) {
            let drop_ins = units.join(format!("{}.d", instance.reference.unit_name()));
            directory(&drop_ins, 0o755, &mut plan.steps);
            plan.steps.push(
                FileStep::Write {
                    path: drop_ins.join(CARRIED),
                    text,
                    // Lines of a file that not everybody may read stay so.
                    mode: Mode::new(if derived.is_private { 0o600 } else { 0o644 }),
                    secret: false,
                }
                .into(),
            );
        }
    }
    let yielding = give_way(derived, &mut plan, context)?;
    plan.steps.extend(configure(derived, &yielding, context)?);
    for (_, instance, _) in derived {
        for parent in &instance.parents {
            enable_in(parent, &instance.reference, &units, &mut plan.steps);
        }
    }
    if is_live {
        plan.steps.push(UnitStep::ReloadSystemd.into());
    }
    for (_, instance, _) in derived
        .iter()
        .filter(|(_, instance, _)| instance.is_running)
    {
        plan.steps.push(
            UnitStep::Start {
                unit: instance.reference.unit(),
            }
            .into(),
        );
    }
    Ok(plan)
}

fn stop(instance: &Instance, derived: &Derived) -> Step {
    let unit = instance.reference.unit();
    let name = instance.unit.clone();
    if let Some(directory) = derived.outside.clone() {
        let step = UnitStep::StopOutside {
            directory,
            name,
            unit,
        };
        return step.into();
    }
    if name == instance.reference.unit_name() {
        let keep_builds = instance.reference.role == Role::Master;
        UnitStep::Stop { unit, keep_builds }.into()
    } else {
        UnitStep::StopOther { name, unit }.into()
    }
}

/// Where the way back is written.
pub(super) fn record(plan: &Plan) -> Option<PathBuf> {
    plan.steps.iter().find_map(|step| match step {
        Step::File(FileStep::CreateDirectory { path, .. }) => Some(path.join(RECORD)),
        _ => None,
    })
}

/// `N` is one more than the largest there is.
fn next_backup(context: &Context) -> PathBuf {
    let number = backups(context).last().map_or(1, |(number, _)| number + 1);
    context.path(&format!("{BACKUPS}/{number}"))
}

/// The backups there are, by number.
pub(super) fn backups(context: &Context) -> Vec<(u32, PathBuf)> {
    let list = fs::read_dir(context.path(BACKUPS)).into_iter().flatten();
    let numbered = list.flatten().filter_map(|entry| {
        let number = entry.file_name().to_str()?.parse().ok()?;
        Some((number, entry.path()))
    });
    let mut numbered: Vec<(u32, PathBuf)> = numbered.collect();
    numbered.sort();
    numbered
}

fn tell(unit: &HandMade, instance: &Instance, derived: &Derived, notes: &mut Vec<String>) {
    let state = match (!instance.parents.is_empty(), instance.is_running) {
        (true, true) => "enabled, running",
        (true, false) => "enabled, not running",
        (false, true) => "not enabled, running",
        (false, false) => "not enabled, not running",
    };
    notes.push(format!(
        "`{}` is {UNITS}/{}: {state}",
        instance.reference, unit.file_name
    ));
    for (key, value, from) in &derived.values {
        notes.push(format!("  {key} = {value:?} ({from})"));
    }
    for (name, _, from) in &derived.secrets {
        notes.push(format!(
            "  {name} may be secret, it is moved to `{}` ({from})",
            secrets_file(&instance.reference)
        ));
    }
    for (line, place) in derived.carried.values().flatten() {
        // A secret is not shown, whoever may read the plan.
        let shown = match line.split_once('=') {
            Some((key, _)) if key.starts_with("SetCredential") => format!("{key}=..."),
            _ => line.clone(),
        };
        notes.push(format!("  kept: `{shown}` ({})", shown_place(place)));
    }
    for remark in &derived.left {
        notes.push(format!(
            "  not kept: `{}` ({})",
            crate::output::harmless(&remark.text),
            shown_place(&remark.place)
        ));
    }
    notes.push(format!(
        "  no sandbox is added; \
         `buildbot-conda set {} hardening standard` adds one",
        instance.reference
    ));
    if !derived.answered.is_empty() {
        notes.push(format!(
            "  set by the package's unit: {}",
            derived.answered.join(", ")
        ));
    }
}

/// As systemd reads it, systemd.exec(5), `EnvironmentFile=`.
fn variables(secrets: &[Value]) -> String {
    let mut text = String::from(
        "# Secret variables that `buildbot-conda adopt` found in units and scripts.\n",
    );
    for (name, value, _) in secrets {
        let _ = write!(text, "{name}=\"");
        for character in value.chars() {
            if "\"\\`$".contains(character) {
                text.push('\\');
            }
            text.push(character);
        }
        text.push_str("\"\n");
    }
    text
}

fn carried(
    sections: &BTreeMap<String, Vec<(String, buildbot_conda_core::unit_text::Place)>>,
) -> Option<String> {
    if sections.is_empty() {
        return None;
    }
    let mut text =
        String::from("# Settings that `buildbot-conda adopt` kept from the previous unit.\n");
    // [Unit] goes before [Service] in every unit.
    for (section, lines) in sections.iter().rev() {
        let _ = writeln!(text, "\n[{section}]");
        for (line, _) in lines {
            let _ = writeln!(text, "{line}");
        }
    }
    Some(text)
}

/// Stops and disables what gives up its table to an adopted instance; gives the references.
fn give_way(
    derived: &[(&HandMade, &Instance, Derived)],
    plan: &mut Plan,
    context: &Context,
) -> anyhow::Result<Vec<InstanceRef>> {
    let yielding = yielding(derived, &context.settings()?, context);
    for reference in &yielding {
        plan.notes.push(format!(
            "`{reference}`, which has never run, gives up its table, as its directory is that of another instance"
        ));
        let unit = reference.unit();
        if systemd::runs(context) && systemd::is_running(&unit.to_string())? {
            let keep_builds = false;
            plan.steps.push(UnitStep::Stop { unit, keep_builds }.into());
        }
        for path in unit_files::links(&reference.unit_name(), context)? {
            plan.steps.push(FileStep::Remove { path }.into());
        }
    }
    Ok(yielding)
}

/// The plain instances of the first configuration that nobody has set up, where an adopted one is in their directory.
fn yielding(
    derived: &[(&HandMade, &Instance, Derived)],
    settings: &Settings,
    context: &Context,
) -> Vec<InstanceRef> {
    let is_taken = |directory: &str| {
        let mut values = derived.iter().flat_map(|(_, _, derived)| &derived.values);
        values.any(|(key, value, _)| key == "directory" && value == directory)
    };
    let is_adopted = |reference: &InstanceRef| {
        let mut adopted = derived.iter().map(|(_, instance, _)| &instance.reference);
        adopted.any(|adopted| adopted == reference)
    };
    let plain = settings.instances().filter(|instance| {
        let reference = &instance.reference;
        reference.name.is_none()
            && !is_adopted(reference)
            && is_taken(instance.directory.as_str())
            && !context.path(&paths::served_mark(reference)).exists()
    });
    plain.map(|instance| instance.reference.clone()).collect()
}

/// One change of the file for all instances; what holds already is not written again.
fn configure(
    derived: &[(&HandMade, &Instance, Derived)],
    yielding: &[InstanceRef],
    context: &Context,
) -> anyhow::Result<Option<Step>> {
    let path = context.configuration();
    let name = path.display().to_string();
    let before = fs::read_to_string(&path).with_context(|| format!("read `{name}`"))?;
    let mut after = before.clone();
    let mut lines = Vec::new();
    for reference in yielding {
        after = edit::take_table(&name, &after, "", reference)?;
        lines.push(format!("without [{reference}]"));
    }
    for (_, instance, derived) in derived {
        let reference = &instance.reference;
        for (key, value, _) in &derived.values {
            if holds(
                &Settings::parse(&name, after.as_bytes()),
                reference,
                key,
                value,
            ) {
                continue;
            }
            after =
                edit::set(&name, &after, Some(reference), key, value).map_err(
                    |error| match error {
                        EditError::Refused(refusal) => {
                            anyhow::Error::from(InvalidConfiguration::Refused(refusal))
                        }
                        other @ EditError::NoTable { .. } => other.into(),
                    },
                )?;
            lines.push(format!("{reference}.{key} = {value:?}"));
        }
    }
    let references = derived
        .iter()
        .map(|(_, instance, _)| instance.reference.clone())
        .chain(yielding.iter().cloned());
    Ok((after != before).then(|| {
        FileStep::Configure {
            path,
            before,
            after,
            references: references.collect(),
            lines,
        }
        .into()
    }))
}

/// Whether an instance has a value already, of its own or from the defaults.
fn holds(settings: &Settings, reference: &InstanceRef, key: &str, value: &str) -> bool {
    let Ok(instance) = settings.instance(reference) else {
        return false;
    };
    match key {
        "directory" => instance.directory.as_str() == value,
        "user" => instance.user.as_str() == value,
        "group" => instance
            .group
            .as_ref()
            .is_some_and(|group| group.as_str() == value),
        "conda-root" => instance.conda_root.as_str() == value,
        "conda-env" => instance.conda_env.to_string() == value,
        "hardening" => instance.hardening.as_str() == value,
        _ => key.strip_prefix("environment.").is_some_and(|variable| {
            let mut all = instance.environment.iter();
            all.any(|(name, old)| name.as_str() == variable && old == value)
        }),
    }
}
