//! `drain`: running builds finish, however long they take, no new ones start, and the services then stay stopped until
//! they are started again.

use std::collections::BTreeSet;
use std::process::ExitCode;

use buildbot_conda_core::names::InstanceRef;
use clap::Args;
use serde_json::Value;

use crate::output::{self, Manner, Outcome};
use crate::system::context::Context;
use crate::system::draining::{self, Plan, say, signal_of};
use crate::system::instance_state;
use crate::system::lanes;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Instances to drain, such as `master` or `worker@gpu`, all at the same time
    #[arg(value_name = "REF", required = true)]
    references: Vec<InstanceRef>,
    #[command(flatten)]
    manner: Manner,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    context.ensure_here("drain")?;
    let Manner { dry_run, json } = arguments.manner;
    if !dry_run {
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
    let lines = plans
        .iter()
        .map(|(reference, plan)| describe(plan, reference));
    let lines: Vec<String> = lines.collect();
    if dry_run && !json {
        return output::print(lines.concat());
    }
    let state = || -> anyhow::Result<Value> {
        let states = plans.iter();
        let states = states.map(|(reference, _)| instance_state::of(reference, context));
        states.collect()
    };
    let mut outcome = Outcome {
        dry_run,
        ..Outcome::default()
    };
    if json {
        outcome.before = state()?;
        for ((_, plan), lines) in plans.iter().zip(&lines) {
            if !matches!(plan, Plan::Nothing) {
                outcome.changed = true;
                outcome.steps.extend(lines.lines().map(str::to_owned));
            }
        }
    }
    if dry_run {
        return outcome.print();
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
    lanes::outcome(failed)?;
    if json {
        outcome.after = Some(state()?);
        return outcome.print();
    }
    Ok(ExitCode::SUCCESS)
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
