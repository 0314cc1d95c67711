//! `upgrade REF`: backs up a stopped master's database and upgrades it for the installed Buildbot, regardless of
//! `upgrade` in the configuration.

use std::process::ExitCode;

use buildbot_conda_core::names::InstanceRef;
use clap::Args;

use crate::database::facts::Facts;
use crate::database::lock::{self, Lock};
use crate::database::mark::Mark;
use crate::database::plan::{self, Policy};
use crate::database::progress::Progress;
use crate::database::{Failure, Master, perform};
use crate::output;
use crate::system::as_user;
use crate::system::context::{Context, InvalidConfiguration};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The master, such as `master` or `master@nightly`
    #[arg(value_name = "REF")]
    reference: InstanceRef,
    /// Show what would be done, and change nothing
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
    if arguments.dry_run {
        return dry_run(&master);
    }
    let lock = Lock::take(master.directory())?;
    let progress = Progress::by_hand(&arguments.reference);
    let facts = perform::bring_up_to_date(&master, &lock, &progress, Policy::Asked)?;
    eprintln!(
        "the database `{}` is at schema {}, which Buildbot {} works with",
        facts.place,
        facts.head_text(),
        facts.buildbot
    );
    Ok(ExitCode::SUCCESS)
}

fn dry_run(master: &Master<'_>) -> anyhow::Result<ExitCode> {
    if let Some(holder) = lock::holder_of(master.directory()) {
        eprintln!("warning: the master is running ({holder}), stop it first");
    }
    let mark = Mark::read(&master.backups)?;
    let mut facts = Facts::ask(master, None, mark.is_some())?;
    if let Some(mark) = &mark {
        let recovery = plan::recovery(&facts, mark)?;
        facts = plan::recovered(&facts, mark, &recovery);
        output::print(recovery)?;
    }
    let plan = plan::upgrade(master, &facts, mark.as_ref(), Policy::Asked);
    output::print(plan.map_err(|failure: Failure| failure)?)
}
