//! `metrics`: prints every instance of this host as numbers for Prometheus, to standard output, to a file that is
//! replaced atomically, or to the connection that systemd has accepted. It reads what `list` reads, and starts no
//! process of a service user.

mod http;
mod text;

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, anyhow, bail};
use buildbot_conda_core::foreign_text::ForeignText;
use buildbot_conda_core::names::Role;
use buildbot_conda_core::settings::{BackupEvery, Settings};
use clap::Args;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use self::text::Metrics;
use crate::output;
use crate::survey::{self, NOT_SET_UP, Row};
use crate::system::context::Context;
use crate::system::status_file::Load;
use crate::system::systemd;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Write to FILE, which is replaced atomically, instead of standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Answer the HTTP request on standard input; what the socket calls
    #[arg(long, hide = true, conflicts_with = "output")]
    answer: bool,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    if arguments.answer {
        return http::answer(|| text(context));
    }
    let text = text(context)?;
    match &arguments.output {
        None => output::print(text),
        Some(path) => {
            write(path, &text).with_context(|| format!("write `{}`", path.display()))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// A reader of the directory never sees half of the file, and passes over the new one, whose name has another ending.
/// Debian's directory for such files is root's, and the one above it is not: what is on the way must not be a link.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let path = std::path::absolute(path)?;
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        bail!("it is a directory");
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let strict = ResolveFlags::NO_SYMLINKS;
    let directory =
        rustix::fs::openat2(CWD, directory, flags, Mode::empty(), strict).map_err(|error| {
            match error {
                Errno::LOOP => {
                    anyhow!("a directory in the path is a link\nhint: specify the directory itself")
                }
                other => anyhow!(io::Error::from(other)),
            }
        })?;
    let new = format!(".buildbot-conda-{}", std::process::id());
    // What an earlier process of this number has left.
    let _ = rustix::fs::unlinkat(&directory, &new, AtFlags::empty());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&directory, &new, flags, Mode::from_raw_mode(0o600));
    let mut file = File::from(file.map_err(io::Error::from)?);
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.set_permissions(Permissions::from_mode(0o644)))
        .and_then(|()| Ok(rustix::fs::renameat(&directory, &new, &directory, name)?));
    if written.is_err() {
        let _ = rustix::fs::unlinkat(&directory, &new, AtFlags::empty());
    }
    Ok(written?)
}

fn text(context: &Context) -> anyhow::Result<String> {
    let mut metrics = Metrics::default();
    metrics.add("info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    let settings = match context.settings() {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("warning: {error:#}");
            metrics.add("configuration_good", &[], 0);
            return Ok(metrics.to_string());
        }
    };
    let is_good = settings.check().is_ok();
    metrics.add("configuration_good", &[], u8::from(is_good));
    if settings.references().next().is_some() {
        for row in survey::survey(&settings, context)? {
            add(&row, &mut metrics);
        }
        add_backups(&settings, context, &mut metrics)?;
    }
    Ok(metrics.to_string())
}

/// States of systemd that have a sample each, the one that is so with 1.
const STATES: [&str; 8] = [
    "activating",
    "active",
    "deactivating",
    "failed",
    "inactive",
    "masked",
    NOT_SET_UP,
    "reloading",
];
/// States of a worker for its master.
const WORKER_STATES: [&str; 5] = ["connected", "draining", "latent", "missing", "paused"];

fn add(row: &Row, metrics: &mut Metrics) {
    let name = ("name", row.instance.as_str());
    let text =
        |text: &Option<ForeignText>| text.as_ref().map_or_else(String::new, ToString::to_string);
    let role = row.instance.split('@').next().unwrap_or_default();
    let info = [
        name,
        ("role", role),
        ("unit", &row.unit),
        ("buildbot", &text(&row.buildbot)),
        ("environment", &text(&row.environment)),
    ];
    metrics.add("instance_info", &info, 1);
    if let Some(enabled) = row.enabled {
        metrics.add("instance_enabled", &[name], u8::from(enabled));
    }
    let up = matches!(row.state.as_str(), "active" | "reloading");
    metrics.add("instance_up", &[name], u8::from(up));
    for state in STATES {
        let labels = [name, ("state", state)];
        metrics.add("instance_state", &labels, u8::from(row.state == state));
    }
    for (family, value) in [
        ("instance_state_seconds", row.seconds),
        ("instance_restarts", row.restarts),
        ("instance_memory_bytes", row.memory),
        ("instance_memory_max_bytes", row.memory_max),
    ] {
        if let Some(value) = value {
            metrics.add(family, &[name], value);
        }
    }
    let outdated = row.next_environment.is_some();
    metrics.add("instance_environment_outdated", &[name], u8::from(outdated));
    let Some(status) = &row.status else {
        return;
    };
    if let Some(backup) = status.load.as_ref().and_then(|load| load.backup) {
        metrics.add("backup_timestamp_seconds", &[name], backup);
    }
    // The rest describes a process that no longer exists.
    if matches!(status.state.as_str(), "failed" | "stopped") {
        return;
    }
    if let Some(worker) = &status.worker {
        let connected = worker.connection == "connected";
        metrics.add("worker_connected", &[name], u8::from(connected));
    }
    if let Some(reload) = status
        .reconfiguration
        .as_ref()
        .filter(|reload| reload.outcome != "running")
    {
        let good = reload.outcome == "complete";
        metrics.add("master_reload_good", &[name], u8::from(good));
    }
    let doors = status
        .door
        .iter()
        .map(|door| ("network".to_owned(), door.certificate_until));
    let ports = status.certificates.iter();
    let ports = ports.map(|certificate| (certificate.owner(), certificate.expires));
    for (port, expires) in ports.chain(doors) {
        let labels = [name, ("port", port.as_str())];
        metrics.add("certificate_expiry_timestamp_seconds", &labels, expires);
    }
    if let Some(load) = &status.load {
        add_load(name, load, metrics);
    }
}

/// For masters that a timer backs up.
fn add_backups(
    settings: &Settings,
    context: &Context,
    metrics: &mut Metrics,
) -> anyhow::Result<()> {
    let day = 24 * 60 * 60;
    let mut jobs = BTreeMap::new();
    for instance in settings.instances() {
        let interval = match instance.backup_every {
            BackupEvery::Hourly => 60 * 60,
            BackupEvery::Daily => day,
            BackupEvery::Weekly => 7 * day,
            BackupEvery::Monthly => 31 * day,
            BackupEvery::Off => continue,
        };
        if instance.reference.role == Role::Master {
            let name = instance.reference.to_string();
            metrics.add("backup_interval_seconds", &[("name", &name)], interval);
            jobs.insert(format!("buildbot-backup@{name}.service"), name);
        }
    }
    if systemd::runs(context) {
        let units: Vec<String> = jobs.keys().cloned().collect();
        for (unit, found) in systemd::ask(&units, "Id,ActiveState")? {
            let failed = u8::from(found.state() == "failed");
            if let Some(name) = jobs.get(&unit) {
                metrics.add("backup_failed", &[("name", name)], failed);
            }
        }
    }
    Ok(())
}

fn add_load(name: (&str, &str), load: &Load, metrics: &mut Metrics) {
    metrics.add("master_load_timestamp_seconds", &[name], load.at);
    metrics.add("master_event_loop_lag_seconds", &[name], load.lag);
    metrics.add("master_builds", &[name], load.builds);
    if let Some(oldest) = load.oldest_build {
        metrics.add("master_oldest_build_timestamp_seconds", &[name], oldest);
    }
    for state in WORKER_STATES {
        let count = load
            .workers
            .values()
            .filter(|found| **found == state)
            .count();
        metrics.add("master_workers", &[name, ("state", state)], count);
    }
    for (worker, state) in &load.workers {
        if *state != "latent" {
            let labels = [name, ("worker", worker.as_str())];
            let connected = u8::from(*state != "missing");
            metrics.add("master_worker_connected", &labels, connected);
        }
    }
    let up = u8::from(load.database.is_some());
    metrics.add("database_up", &[name], up);
    let Some(database) = &load.database else {
        return;
    };
    metrics.add("master_requests", &[name], database.requests);
    if let Some(oldest) = database.oldest_request {
        metrics.add("master_oldest_request_timestamp_seconds", &[name], oldest);
    }
    metrics.add("database_answer_seconds", &[name], database.answered_in);
    if let Some(size) = database.size {
        metrics.add("database_bytes", &[name], size);
    }
}
