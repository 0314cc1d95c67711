//! `revoke`: a master forgets a worker of another host, whose connection is closed and whose password is gone.

use std::process::ExitCode;

use buildbot_conda_core::settings::Instance;
use buildbot_conda_core::starter::WorkerName;

use super::{WorkerArguments, invitations};
use crate::plan::naming::{self, Workers};
use crate::plan::{Plan, UnitStep, Verb};
use crate::system::context::Context;

pub(crate) fn run(arguments: &WorkerArguments, context: &Context) -> anyhow::Result<ExitCode> {
    let settings = context.settings()?;
    let master = super::master(arguments.master.as_ref(), &settings, context)?;
    let name = &arguments.name;
    let this = Verb {
        name: "revoke",
        manner: arguments.manner,
        ..Verb::default()
    };
    let plan = || plan(name, master, context).map(|plan| (plan, ()));
    let state = |(): &()| super::state(master, name, context);
    let closing = |()| {
        let (reference, name) = (&master.reference, name.as_str());
        format!("`{reference}` no longer accepts the worker `{name}`").into()
    };
    this.run(context, plan, state, closing)
}

pub(super) fn plan(
    name: &WorkerName,
    master: &Instance,
    context: &Context,
) -> anyhow::Result<Plan> {
    let password = naming::password(master, name.as_str(), context);
    if password.is_none() && !naming::is_named(master, name.as_str(), context) {
        let note = format!(
            "`{}` has no worker `{}`; the workers are listed in `workers.toml` in `{}`",
            master.reference,
            name.as_str(),
            master.directory
        );
        return Ok(Plan {
            title: format!("revoke {}", name.as_str()),
            notes: vec![note],
            steps: Vec::new(),
        });
    }
    let mut steps = Vec::new();
    // Nobody can log in as a worker without a password, should the name have to stay.
    if let Some(password) = &password {
        steps.push(naming::put(
            master,
            name.as_str(),
            Some(password),
            None,
            context,
        ));
    }
    let workers = Workers::Tabled {
        password: None,
        details: None,
    };
    let naming = naming::take_out(master, name.as_str(), &workers, context)?;
    let is_running = naming::is_running(master, context)?;
    if naming.steps.is_empty() && is_running {
        let unit = master.reference.unit();
        let required = true;
        steps.push(UnitStep::Reload { unit, required }.into());
    }
    steps.extend(naming.steps);
    let mut invited = invitations::read(context)?;
    let is_other = |one: &invitations::Invited| {
        one.worker != name.as_str() || one.master != master.reference.to_string()
    };
    if !invited.iter().all(is_other) {
        invited.retain(is_other);
        steps.extend(invitations::note(&invited, context)?);
    }
    Ok(Plan {
        title: format!("revoke {}", name.as_str()),
        notes: Vec::from_iter(naming.note),
        steps,
    })
}
