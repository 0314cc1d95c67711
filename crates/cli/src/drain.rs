//! `drain`: running builds finish, however long they take, no new ones start, and the services then stay stopped until
//! they are started again.

use std::collections::BTreeSet;
use std::process::ExitCode;

use buildbot_conda_core::names::InstanceRef;
use clap::Args;

use crate::output;
use crate::system::context::Context;
use crate::system::draining::{self, Plan, say, signal_of};
use crate::system::lanes;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Instances to drain, such as `master` or `worker@gpu`, all at the same time
    #[arg(value_name = "REF", required = true)]
    references: Vec<InstanceRef>,
    /// Show what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    context.ensure_here("drain")?;
    if !arguments.dry_run {
        context.ensure_root()?;
    }
    // All of them are looked at before the first is touched.
    let mut plans: Vec<(&InstanceRef, Plan)> = Vec::new();
    let mut seen = BTreeSet::new();
    for reference in &arguments.references {
        if seen.insert(reference.to_string()) {
            plans.push((reference, draining::plan(reference, context)?));
        }
    }
    if arguments.dry_run {
        let lines = plans
            .iter()
            .map(|(reference, plan)| describe(plan, reference));
        return output::print(lines.collect::<String>());
    }
    let failed = lanes::each(&plans, plans.len(), |(reference, plan)| {
        match plan {
            Plan::Nothing => say(reference, "not running"),
            Plan::Stop => {
                draining::stop(reference)?;
                say(reference, "stopped, no builds were running");
            }
            Plan::Drain(main) => draining::drain(main, reference)?,
        }
        Ok(())
    });
    lanes::outcome(failed).map(|()| ExitCode::SUCCESS)
}

fn describe(plan: &Plan, reference: &InstanceRef) -> String {
    let unit = reference.unit_name();
    match plan {
        Plan::Nothing => format!("nothing: `{unit}` is not running\n"),
        Plan::Stop => format!("systemctl stop {unit}\n"),
        Plan::Drain(main) => format!(
            "kill -{} {}\nwait until it has stopped, however long its builds take\nsystemctl stop {unit}\n",
            signal_of(reference.role).0,
            main.pid(),
        ),
    }
}
