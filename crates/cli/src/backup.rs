//! `backup REF`: a copy of a master's database, made while the master may run.

use std::process::ExitCode;

use buildbot_conda_core::names::InstanceRef;
use clap::Args;

use crate::database::backups;
use crate::database::facts::Facts;
use crate::database::plan::{self, Step};
use crate::database::progress::Progress;
use crate::database::{Master, perform};
use crate::output;
use crate::system::as_user;
use crate::system::context::{Context, InvalidConfiguration};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The master, such as `master` or `master@nightly`
    #[arg(value_name = "REF")]
    reference: InstanceRef,
    /// Print what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    let settings = context.settings()?;
    let instance = settings
        .instance(&arguments.reference)
        .map_err(InvalidConfiguration::from)?;
    let master = Master::new(instance, context)?;
    if let Some(status) = as_user::hand_over(instance, context)? {
        return Ok(status);
    }
    let facts = Facts::ask(&master, None, false)?;
    let plan = plan::back_up(&master, &facts)?;
    if arguments.dry_run {
        return output::print(plan);
    }
    let progress = Progress::by_hand(&arguments.reference);
    for step in &plan.steps {
        if let Step::BackUp(name) = step {
            perform::back_up(&master, &facts, name, &progress)?;
            backups::prune(&master.state, &[name])?;
            output::print(format_args!("{}\n", name.path(&master.state).display()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
