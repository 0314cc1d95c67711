//! `drain`: running builds finish, however long they take, no new one begins, and the service then
//! stays down until it is started again.

use std::process::ExitCode;

use buildbot_conda_core::names::InstanceRef;
use clap::Args;

use crate::output;
use crate::system::context::Context;
use crate::system::draining::{self, Plan, say, signal_of};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Instance to drain, such as `master` or `worker@gpu`
    #[arg(value_name = "REF")]
    reference: InstanceRef,
    /// Show what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    context.ensure_here("drain")?;
    if !arguments.dry_run {
        context.ensure_root()?;
    }
    let reference = &arguments.reference;
    let plan = draining::plan(reference, context)?;
    if arguments.dry_run {
        return output::print(describe(&plan, reference));
    }
    match plan {
        Plan::Nothing => say(reference, "not running"),
        Plan::Stop => {
            draining::stop(reference)?;
            say(reference, "stopped, it had no builds");
        }
        Plan::Drain(main) => draining::drain(&main, reference)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(plan: &Plan, reference: &InstanceRef) -> String {
    let unit = reference.unit_name();
    match plan {
        Plan::Nothing => format!("nothing: `{unit}` is not running\n"),
        Plan::Stop => format!("systemctl stop {unit}\n"),
        Plan::Drain(main) => format!(
            "kill -{} {}\nwait until it has ended, however long its builds take\nsystemctl stop {unit}\n",
            signal_of(reference.role).0,
            main.pid(),
        ),
    }
}
