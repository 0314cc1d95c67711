//! `service prepare REF`: what the runner becomes when a database is not at the schema of its
//! Buildbot, or an upgrade was interrupted. It backs up, upgrades, and becomes the launcher again:
//! one process from the first step of a start to the last, with one lock.

use std::env;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use buildbot_conda_core::dropin::{DropIn, FINGERPRINT_VARIABLE};
use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::paths;
use buildbot_conda_core::settings::Upgrade;

use crate::database::lock::{self, Lock};
use crate::database::plan::Policy;
use crate::database::progress::Progress;
use crate::database::{CONFIGURATION, Failure, Master, perform};
use crate::system::context::{Context, InvalidConfiguration};

/// Tells the runner that the preparation has been done: a remaining problem will not be solved by another one.
const PREPARED: &str = "BUILDBOT_CONDA_PREPARED";

pub(super) fn run(reference: &InstanceRef, context: &Context) -> anyhow::Result<ExitCode> {
    let settings = context.settings()?;
    let instance = settings
        .instance(reference)
        .map_err(InvalidConfiguration::from)?;
    let master = Master::new(instance, context)?;
    let progress = Progress::of_service(reference);
    let policy = match instance.upgrade {
        Upgrade::Auto => Policy::Auto,
        Upgrade::Manual => Policy::Manual,
    };
    let prepared = Lock::inherit_or_take(master.directory()).and_then(|lock| {
        perform::bring_up_to_date(&master, &lock, &progress, policy)?;
        Ok(lock)
    });
    let failure = match prepared {
        Ok(lock) => {
            progress.doing("the database is ready, starting Buildbot");
            drop(progress);
            launch(&master, lock, context)
        }
        Err(failure) => {
            progress.failed(&failure);
            failure
        }
    };
    // The journal expects a level at the beginning of each line.
    let level = env::var_os("JOURNAL_STREAM").map_or("", |_| "<3>");
    for line in format!("error: {failure}").lines() {
        eprintln!("{level}{line}");
    }
    Ok(ExitCode::from(failure.status))
}

/// Becomes the launcher; returns only why not.
fn launch(master: &Master<'_>, lock: Lock, context: &Context) -> Failure {
    let reference = master.reference();
    let launcher = context.path(paths::LAUNCHER);
    let mut command = Command::new(&launcher);
    if context.is_elsewhere() {
        command.arg("--root").arg(context.path("/"));
    }
    command.arg(reference.role.as_str());
    if let Some(name) = &reference.name {
        command.arg(name.as_str());
    }
    // The launcher has compared it once for this start, and taken it out of the environment.
    if let Ok(drop_in) = DropIn::of(master.instance) {
        command.env(FINGERPRINT_VARIABLE, drop_in.fingerprint());
    }
    let error = command
        .env(lock::VARIABLE, lock.keep().to_string())
        .env(PREPARED, "1")
        .exec();
    Failure::new(
        CONFIGURATION,
        format!("run `{}`: {error}", launcher.display()),
    )
}
