//! After an incomplete change, returns the instances to the current generation.
//!
//! As soon as the command ends for any reason, no new start enters the other generation; only the instances that
//! already run from it have to be restarted. A failed change does this itself. If the command is killed, a guard under
//! systemd waits for its end; if the guard is killed as well, systemd restarts it; and if the machine goes down, its
//! next boot uses the current generation. If a database was upgraded meanwhile, the start of its master restores the
//! backup from before the upgrade.

use std::fs;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, bail, ensure};
use buildbot_conda_core::paths;
use buildbot_conda_core::settings::Instance;
use buildbot_conda_environments::{Change, Environment, EnvironmentName, Lock};
use clap::Args;

use super::instances;
use super::scene::{existing, store};
use crate::system::context::{Context, InvalidConfiguration};
use crate::system::systemd;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Name of the environment
    #[arg(value_name = "NAME")]
    name: EnvironmentName,
    /// Wait until no other command changes the environment
    #[arg(long)]
    wait: bool,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    context.ensure_root()?;
    let (environment, _) = existing(&arguments.name, context)?;
    let lock = if arguments.wait {
        store(context)
            .environment(&arguments.name)
            .lock_when_free()?
    } else {
        environment.lock()?
    };
    finish(&environment, &lock, context)?;
    Ok(ExitCode::SUCCESS)
}

/// Keeps others from changing the environment, and brings back what an interrupted command has left half done.
pub(super) fn locked(environment: &Environment, context: &Context) -> anyhow::Result<Lock> {
    let lock = environment.lock()?;
    finish(environment, &lock, context)?;
    Ok(lock)
}

/// Brings back what the command before has left half done, if there is anything.
pub(super) fn finish(
    environment: &Environment,
    lock: &Lock,
    context: &Context,
) -> anyhow::Result<()> {
    let Some(change) = lock.unfinished() else {
        return Ok(());
    };
    // A failure is reported and left for later; the start of a master may still need the file.
    if change.running.is_empty() && !context.is_elsewhere() {
        return Ok(());
    }
    let (name, from, to) = (environment.name(), &change.from, &change.to);
    eprintln!(
        "warning: a command that changed `{name}` to generation {to} was interrupted, {from} is still in use"
    );
    if context.is_elsewhere() {
        return Ok(environment.end_change(lock)?);
    }
    bring_back(environment, change, lock, context)
}

/// Returns every instance of the change to the current generation, and then removes the record of the change. A failure
/// is tried once, reported, and left to the administrator.
pub(super) fn bring_back(
    environment: &Environment,
    change: &Change,
    lock: &Lock,
    context: &Context,
) -> anyhow::Result<()> {
    let settings = context.settings()?;
    settings.check().map_err(InvalidConfiguration::from)?;
    let is_same_boot = change.boot == boot()?;
    let (mut failures, mut is_over) = (Vec::new(), true);
    for instance in instances::followers(&settings, environment.name()) {
        let reference = instance.reference.to_string();
        // An instance may have been started meanwhile from the other generation.
        let has_strayed = || {
            anyhow::Ok(
                instances::is_running(instance)?
                    && instances::runs_from(instance, &environment.prefix(&change.to))?,
            )
        };
        if !change.running.contains(&reference) && !has_strayed()? {
            continue;
        }
        // While systemd does not answer, nothing can be done, and the file stays for the next command.
        let is_running = instances::is_running(instance)?;
        match bring_one_back(instance, environment, change, is_running, is_same_boot) {
            Ok(serves) => is_over &= serves,
            Err(failure) => failures.push(format!("roll back `{reference}`: {failure:#}")),
        }
    }
    if failures.is_empty() && is_over {
        return Ok(environment.end_change(lock)?);
    }
    let rest = Change {
        running: Vec::new(),
        ..change.clone()
    };
    environment.note_change(&rest, lock)?;
    if failures.is_empty() {
        return Ok(());
    }
    bail!("{}", failures.join("\n"))
}

/// Whether it serves now: one that was down already when the machine was started stays so.
fn bring_one_back(
    instance: &Instance,
    environment: &Environment,
    change: &Change,
    is_running: bool,
    is_same_boot: bool,
) -> anyhow::Result<bool> {
    let serves = environment.prefix(&change.from);
    if is_running && instances::runs_from(instance, &serves)? {
        return Ok(true);
    }
    // Since another boot, what does not run was not stopped by the change.
    if !is_running && !is_same_boot {
        return Ok(false);
    }
    eprintln!("{}: rolling back", instance.reference);
    instances::stop(instance)?;
    instances::start(instance)?;
    Ok(true)
}

/// How the kernel calls the time since it has started, random(4).
pub(super) fn boot() -> anyhow::Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = fs::read_to_string(path).with_context(|| format!("read `{path}`"))?;
    Ok(text.trim().to_owned())
}

/// A process of systemd's that waits for the end of this one's change.
pub(super) struct Guard {
    unit: String,
}

impl Guard {
    pub(super) fn begin(environment: &Environment) -> anyhow::Result<Self> {
        let name = environment.name().to_string();
        let unit = format!("buildbot-conda-env-{name}.service");
        let guard = Self { unit };
        // One that an earlier change has left waits for what this one has seen to.
        guard.stop();
        let output = Command::new("systemd-run")
            .args(["--quiet", "--collect", "--service-type=exec"])
            .arg(format!("--unit={}", guard.unit))
            .arg(format!(
                "--description=buildbot-conda, rolling back the instances of {name}"
            ))
            .args(["--property=Restart=on-abnormal", "--property=RestartSec=1"])
            .args(["--", paths::CLI, "env", "recover", &name, "--wait"])
            .stdin(Stdio::null())
            .output()
            .map_err(|error| systemd::not_run("systemd-run", error))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "`systemd-run` failed: {}",
            crate::output::harmless(said.trim())
        );
        Ok(guard)
    }

    /// It is not needed any more: all is brought to an end.
    pub(super) fn end(self) {
        self.stop();
    }

    fn stop(&self) {
        // One that is left finds nothing to do.
        let _ = systemd::stop(&self.unit);
    }
}
