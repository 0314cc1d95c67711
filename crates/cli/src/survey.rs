//! What is seen of every instance: configuration, unit and status file side by side, as rows that `list` and `status`
//! show in a table or as JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use buildbot_conda_core::foreign_text::ForeignText;
use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::paths;
use buildbot_conda_core::settings::{Instance, Settings};
use buildbot_conda_core::values::AbsolutePath;
use serde::Serialize;

use crate::system::context::{Context, InvalidConfiguration};
pub(crate) use crate::system::status_file::STANDBY;
use crate::system::status_file::{self, StatusFile};
use crate::system::systemd::{self, Unit};

/// The state of an instance that is not set up yet: its unit is skipped, which is not a failure.
pub(crate) const NOT_SET_UP: &str = "not set up";

/// One instance as seen now. `--json` prints a list of these.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    /// `worker@gpu`.
    pub(crate) instance: String,
    /// `buildbot-worker@gpu.service`.
    pub(crate) unit: String,
    /// systemd's word, [`NOT_SET_UP`], [`STANDBY`], or `unknown` without systemd.
    pub(crate) state: String,
    /// Whether it is started at boot; none without systemd.
    pub(crate) enabled: Option<bool>,
    /// How long the unit has been in its state, in seconds.
    pub(crate) seconds: Option<u64>,
    /// Main process.
    pub(crate) pid: Option<u32>,
    /// Bytes.
    pub(crate) memory: Option<u64>,
    /// What that cannot exceed, where there is a limit.
    pub(crate) memory_max: Option<u64>,
    /// How often systemd has restarted it since it was last started by a person.
    pub(crate) restarts: Option<u64>,
    /// Version of Buildbot.
    pub(crate) buildbot: Option<ForeignText>,
    /// Absolute prefix of the environment that it runs from, or that the next start enters; none if the configuration
    /// is not valid.
    pub(crate) environment: Option<ForeignText>,
    /// The prefix that the next start enters, where it runs from another one.
    pub(crate) next_environment: Option<ForeignText>,
    /// Instance directory; none if the configuration is not valid.
    pub(crate) directory: Option<String>,
    /// What it is doing, or why it failed.
    pub(crate) message: Option<ForeignText>,
    /// The report of its runner.
    pub(crate) status: Option<StatusFile>,
}

/// Reads the state of every instance that the configuration names.
///
/// # Errors
///
/// If the configuration has a problem and names no instance: this must not look like a host without problems.
pub(crate) fn survey(settings: &Settings, context: &Context) -> anyhow::Result<Vec<Row>> {
    if settings.references().next().is_none() {
        settings.check().map_err(InvalidConfiguration::from)?;
    }
    let units = if context.is_elsewhere() {
        BTreeMap::new()
    } else {
        systemd::query(settings.references())?
    };
    let uptime = uptime();
    let rows = settings.references().map(|reference| {
        let unit = units
            .get(&reference.unit_name())
            .cloned()
            .unwrap_or_default();
        row(reference, settings, &unit, uptime, context)
    });
    Ok(rows.collect())
}

fn row(
    reference: &InstanceRef,
    settings: &Settings,
    unit: &Unit,
    uptime: Option<Duration>,
    context: &Context,
) -> Row {
    let status = status_file::read(&context.path(&paths::status_file(reference)))
        .filter(|status| is_told(status, unit));
    let instance = settings.instance(reference);
    // A status file outlives its process; only the unit shows whether it is still about this one.
    let current = status
        .as_ref()
        .filter(|status| unit.main_pid() == Some(status.pid));
    let is_set_up = match &instance {
        Ok(instance) if unit.state() == "inactive" => {
            is_set_up(instance, context).unwrap_or(!unit.was_skipped())
                || has_served(reference, context)
        }
        _ => true,
    };
    let message = match (&instance, unit.property("StatusText")) {
        (Err(refusal), _) => Some(refusal.to_string().into()),
        (Ok(_), _) if !is_set_up => {
            Some(format!("create it with `{}`", create_command(reference)).into())
        }
        (Ok(instance), _) if unit.failed_set_up().is_some() => unit
            .failed_set_up()
            .map(|status| set_up_failure(status, instance).into()),
        (Ok(_), "") => status.as_ref().and_then(|status| status.message.clone()),
        (Ok(_), text) => Some(text.into()),
    };
    let (environment, next_environment) = match &instance {
        Ok(instance) => environments_of(instance, unit),
        Err(_) => (None, None),
    };
    let stands_by =
        unit.state() == "active" && current.is_some_and(|status| status.state == STANDBY);
    Row {
        instance: reference.to_string(),
        unit: reference.unit_name(),
        state: match (is_set_up, stands_by) {
            (false, _) => NOT_SET_UP,
            (true, true) => STANDBY,
            (true, false) => unit.state(),
        }
        .to_owned(),
        enabled: unit.enabled(),
        seconds: unit
            .since()
            .zip(uptime)
            .map(|(since, now)| now.saturating_sub(since).as_secs()),
        pid: unit.main_pid(),
        memory: unit.memory(),
        memory_max: unit.memory_max(),
        restarts: unit.restarts(),
        buildbot: current.and_then(|status| status.buildbot.clone()),
        environment,
        next_environment,
        directory: instance
            .as_ref()
            .ok()
            .map(|instance| instance.directory.to_string()),
        message,
        status,
    }
}

/// Whether a status file is about the current process of this unit, or about its end; the file of a killed process
/// claims that it still runs.
fn is_told(status: &StatusFile, unit: &Unit) -> bool {
    unit.main_pid() == Some(status.pid)
        || matches!(status.state.as_str(), "failed" | "stopped")
        // Without systemd there is nothing to compare it with.
        || unit.property("Id").is_empty()
}

/// Whether an instance has run before, so that it is missed where its directory is gone; no where that cannot be seen.
pub(crate) fn has_served(reference: &InstanceRef, context: &Context) -> bool {
    let mark = context.path(&paths::served_mark(reference));
    mark.symlink_metadata().is_ok()
}

/// Whether the directory of an instance is not empty; otherwise its unit is skipped. None if this cannot be determined.
pub(crate) fn is_set_up(instance: &Instance, context: &Context) -> Option<bool> {
    match std::fs::read_dir(context.path(instance.directory.as_str())) {
        Ok(mut entries) => Some(entries.next().is_some()),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => None,
        Err(_) => Some(false),
    }
}

/// The command that creates an instance.
pub(crate) fn create_command(reference: &InstanceRef) -> String {
    format!(
        "buildbot-conda create {}",
        reference.to_string().replace('@', " ")
    )
}

/// The prefix from which the main process runs, or that the next start enters; and the one of the next start, if it
/// differs. For a managed environment, each is a generation.
fn environments_of(instance: &Instance, unit: &Unit) -> (Option<ForeignText>, Option<ForeignText>) {
    let entered = buildbot_conda_host::prefix_to_enter(instance.prefix().as_str());
    let next = ForeignText::of_path(&entered);
    let running = unit.main_pid().and_then(|pid| {
        // PREFIX/bin/python
        let program = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        let prefix = program.parent()?.parent()?.to_owned();
        let is_python = program.file_name()?.to_str()?.starts_with("python");
        // A link in the path is not a difference, and a link that cannot be followed shows none.
        let is_other = entered.canonicalize().ok()? != prefix;
        (is_python && is_other && prefix.join("conda-meta").is_dir()).then_some(prefix)
    });
    match running {
        Some(running) => (Some(ForeignText::of_path(&running)), Some(next)),
        None => (Some(next), None),
    }
}

/// For its own failures, systemd states what it was doing, but not the affected setting; statuses as in
/// systemd.exec(5), "Process Exit Codes".
pub(crate) fn set_up_failure(status: u32, instance: &Instance) -> String {
    let user = instance.user.as_str();
    match status {
        203 => "systemd could not execute the launcher: reinstall the package".to_owned(),
        216 => match &instance.group {
            Some(group) => format!("group `{}` not found", group.as_str()),
            None => format!("systemd could not set the group of the account `{user}`"),
        },
        217 => format!("account `{user}` not found, or its directory service does not answer"),
        226 => {
            "a path of the unit or of one of its drop-ins is missing, see the journal".to_owned()
        }
        243 => {
            let missing: Vec<&str> = instance
                .credentials
                .values()
                .map(AbsolutePath::as_str)
                .collect();
            format!(
                "a credential could not be read; configured are: {}",
                missing.join(", ")
            )
        }
        other => format!("systemd could not set up the service, status {other}, see the journal"),
    }
}

/// Time since start-up, from `/proc/uptime` (seconds with two decimals).
fn uptime() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/uptime").ok()?;
    let seconds: f64 = text.split(' ').next()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}
