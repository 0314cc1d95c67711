//! Services that run from an environment: which ones they are, how each is moved to another generation without losing a
//! build, and which generations have processes.

use std::fs;
use std::path::Path;

use buildbot_conda_core::names::Role;
use buildbot_conda_core::paths;
use buildbot_conda_core::settings::{Instance, Settings};
use buildbot_conda_environments::{EnvironmentName, GenerationId};

use crate::plan;
use crate::system::context::Context;
use crate::system::draining;
use crate::system::systemd;

/// The instances that are configured to follow the environment, masters first.
pub(super) fn followers<'s>(settings: &'s Settings, name: &EnvironmentName) -> Vec<&'s Instance> {
    let prefix = paths::managed_prefix(name.as_str());
    let uses = |instance: &&Instance| instance.prefix().as_str() == prefix;
    settings.instances().filter(uses).collect()
}

/// The instances that are configured to use exactly this generation.
pub(super) fn pinned_to<'s>(
    settings: &'s Settings,
    name: &EnvironmentName,
    generation: &GenerationId,
) -> Vec<&'s Instance> {
    let prefix = format!("{}/{name}/{generation}", paths::ENVIRONMENTS);
    let uses = |instance: &&Instance| instance.prefix().as_str() == prefix;
    settings.instances().filter(uses).collect()
}

/// Whether the unit has processes.
pub(super) fn is_running(instance: &Instance) -> anyhow::Result<bool> {
    plan::is_running(&instance.reference.unit_name())
}

/// Restarts a running instance, and returns when it serves. A worker finishes its builds first if its tac allows this;
/// the unit of a master shuts it down cleanly, and builds that were still running are retried.
pub(super) fn restart(instance: &Instance, context: &Context) -> anyhow::Result<()> {
    let reference = &instance.reference;
    if reference.role == Role::Worker && draining::is_possible(reference, context) {
        draining::stop_after_builds(reference, context)?;
    } else {
        stop(instance)?;
    }
    start(instance)
}

pub(super) fn stop(instance: &Instance) -> anyhow::Result<()> {
    plan::stop(&instance.reference.unit_name())
}

/// Starts it and returns when it serves: a worker, when its master has not refused it.
pub(super) fn start(instance: &Instance) -> anyhow::Result<()> {
    let unit = instance.reference.unit_name();
    plan::start(&unit)?;
    if instance.reference.role == Role::Worker {
        plan::await_connection(&instance.reference)?;
    }
    Ok(())
}

/// Whether the main process of a unit has its program from a prefix.
pub(super) fn runs_from(instance: &Instance, prefix: &Path) -> anyhow::Result<bool> {
    let reference = &instance.reference;
    let units = systemd::query(std::iter::once(reference))?;
    let unit = units.get(&reference.unit_name());
    let program = unit
        .and_then(systemd::Unit::main_pid)
        .and_then(|pid| fs::read_link(format!("/proc/{pid}/exe")).ok());
    // The kernel names no links.
    let real = prefix.canonicalize();
    let real = real.as_deref().unwrap_or(prefix);
    Ok(program.is_some_and(|program| program.starts_with(real)))
}

/// Numbers of the processes that run from a prefix: their program is in it, or they are in its activated environment.
/// Those that this account may not look at are passed over.
pub(super) fn processes_in(prefix: &Path) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let variable = [b"CONDA_PREFIX=", prefix.as_os_str().as_encoded_bytes()].concat();
    let is_in = |pid: &u32| {
        let program = fs::read_link(format!("/proc/{pid}/exe"));
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        program.is_ok_and(|program| program.starts_with(prefix))
            || environment
                .split(|byte| *byte == 0)
                .any(|line| line == variable)
    };
    let mut found: Vec<u32> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(is_in)
        .collect();
    found.sort_unstable();
    found
}
