//! `service ...`: commands that the units run for reload and stop, and the runner for its database. systemd reads the
//! exit status, and the journal standard error.
//!
//! The units pass the location of their credentials; without it, a person has called the command, and systemd is asked
//! to do the operation.

mod next_step;
mod own;
mod prepare;
mod reload;
mod stop;
mod unit_file;

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::anyhow;
use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::settings::Instance;
use clap::{Args, Subcommand};

use crate::inside::{self, Make, transfer, trial};
use crate::system::context::{Context, InvalidConfiguration};
use crate::system::main_process::MainProcess;
use crate::system::systemd;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Apply a changed configuration, and fail if it is not applied
    Reload(Arguments),
    /// Wait for running builds as long as `drain` specifies, before systemd stops the service
    Stop(Arguments),
    /// Back up and upgrade the database, then start; the runner replaces itself with this command if needed
    Prepare {
        /// Instance, such as `master` or `master@nightly`
        #[arg(value_name = "REF")]
        reference: InstanceRef,
    },
    /// Give files that root has left in an instance's directory to the service user
    #[command(hide = true)]
    Own {
        /// Instance, such as `master` or `worker@gpu`
        #[arg(value_name = "REF")]
        reference: InstanceRef,
    },
    /// Print which unit file is in effect, and whether it is the package's
    #[command(hide = true)]
    UnitFile {
        /// Names of units, such as `buildbot-master.service`; by default those of the package
        #[arg(value_name = "UNIT")]
        names: Vec<String>,
    },
    /// Print the next step after an installation
    #[command(hide = true)]
    NextStep,
    /// Revoke expired invitations and renew certificates; for the timer
    #[command(hide = true)]
    Upkeep,
    /// Report a failed instance as `notify` says; systemd starts this
    #[command(hide = true)]
    Notify {
        /// Instance, such as `master` or `worker@gpu`
        #[arg(value_name = "REF")]
        reference: InstanceRef,
    },
    /// Test a generation for `env update`, as the service user
    #[command(hide = true)]
    Try(trial::Arguments),
    /// Examine or copy a database for `migrate`, as the service user
    #[command(hide = true)]
    Transfer(transfer::Arguments),
    /// Steps of `create` and `remove` that run as the service user
    #[command(subcommand, hide = true)]
    Make(Make),
}

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Instance, such as `master` or `worker@gpu`
    #[arg(value_name = "REF")]
    reference: InstanceRef,
    /// Directory of the unit's credentials, which may be missing; set by the units
    #[arg(long, value_name = "DIR")]
    credentials: Option<PathBuf>,
}

pub(crate) fn run(verb: &Verb, context: &Context) -> anyhow::Result<ExitCode> {
    let (name, arguments) = match verb {
        Verb::Reload(arguments) => ("reload", arguments),
        Verb::Stop(arguments) => ("stop", arguments),
        Verb::Prepare { reference } => return prepare::run(reference, context),
        Verb::Own { reference } => return own::run(reference, context),
        Verb::UnitFile { names } => return unit_file::run(names, context),
        Verb::NextStep => return next_step::run(context),
        Verb::Try(arguments) => return trial::run(arguments, context),
        Verb::Transfer(arguments) => return transfer::run(arguments, context),
        Verb::Upkeep | Verb::Notify { .. } => {
            unreachable!("`main` calls it, as it needs more than a service does")
        }
        Verb::Make(make) => return inside::run(make, context),
    };
    let Some(credentials) = &arguments.credentials else {
        return through_systemd(name, &arguments.reference, context);
    };
    // Not set if the main process has exited, in which case a stop command is also run.
    let pid = env::var_os("MAINPID").unwrap_or_default();
    let settings = context.settings()?;
    let instance = settings
        .instance(&arguments.reference)
        .map_err(InvalidConfiguration::from)?;
    let service = Service {
        instance,
        main: MainProcess::open(&pid, context, &arguments.reference)?,
        credentials: credentials_of(&pid, credentials),
    };
    match verb {
        Verb::Reload(_) => reload::run(&service)?,
        Verb::Stop(_) => stop::run(&service)?,
        Verb::Prepare { .. }
        | Verb::Make(_)
        | Verb::Try(_)
        | Verb::Transfer(_)
        | Verb::NextStep
        | Verb::UnitFile { .. }
        | Verb::Upkeep
        | Verb::Notify { .. }
        | Verb::Own { .. } => {
            unreachable!("it has returned above")
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The directory of credentials as the main process sees it: a sandboxed command of the unit is shown none by systemd 257.
fn credentials_of(pid: &OsStr, directory: &Path) -> Option<PathBuf> {
    let inside = directory.strip_prefix("/").ok()?;
    let seen = Path::new("/proc").join(pid).join("root").join(inside);
    (!pid.is_empty() && seen.is_dir()).then_some(seen)
}

/// One unit's instance and process, as a command of the unit sees them.
struct Service<'a> {
    instance: &'a Instance,
    main: MainProcess,
    credentials: Option<PathBuf>,
}

fn through_systemd(
    verb: &str,
    reference: &InstanceRef,
    context: &Context,
) -> anyhow::Result<ExitCode> {
    context.ensure_here(&format!("service {verb}"))?;
    systemd::systemctl(&[verb, "--", &reference.unit_name()]).map_err(|error| {
        anyhow!("{error:#}\nhint: `buildbot-conda status {reference}` shows why")
    })?;
    Ok(ExitCode::SUCCESS)
}
