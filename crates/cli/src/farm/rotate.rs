//! `rotate`: a worker gets another password. One of this host gets it at once; one of another host by a new line.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use buildbot_conda_core::invitation::Invitation;
use buildbot_conda_core::settings::{Instance, Settings};
use buildbot_conda_core::starter::{WORKER_CREDENTIAL, WorkerName};

use super::{WorkerArguments, door, invitations};
use crate::plan::{Closing, FileStep, Plan, Step, UnitStep, Verb, naming};
use crate::system::context::Context;
use crate::system::passwords;
use crate::system::record::{Noted as _, WorkerRecord};
use crate::system::values::Mode;

/// How long a line for another host can be used.
const TTL: Duration = Duration::from_hours(24);

pub(crate) fn run(arguments: &WorkerArguments, context: &Context) -> anyhow::Result<ExitCode> {
    let settings = context.settings()?;
    let master = super::master(arguments.master.as_ref(), &settings, context)?;
    let this = Verb {
        name: "rotate",
        manner: arguments.manner,
        ..Verb::default()
    };
    let plan = || plan(arguments, master, &settings, context);
    let state = |_: &_| super::state(master, &arguments.name, context);
    let name = arguments.name.as_str();
    let closing = |invitation: Option<Invitation>| match invitation {
        None => format!("`{name}` has a new password and is connected").into(),
        Some(invitation) => Closing {
            message: format!(
                "`{name}` has a new password; keep it secret. On the worker's host, run `buildbot-conda join` and paste this line:"
            ),
            data: Some(("line", invitation.line())),
        },
    };
    this.run(context, plan, state, closing)
}

fn plan(
    arguments: &WorkerArguments,
    master: &Instance,
    settings: &Settings,
    context: &Context,
) -> anyhow::Result<(Plan, Option<Invitation>)> {
    let name = arguments.name.as_str();
    let details = naming::details(master, name, context);
    ensure!(
        details.is_some(),
        "`{}` has no worker `{name}`\nhint: the workers are listed in `workers.toml` in `{}`",
        master.reference,
        master.directory
    );
    let before = naming::password(master, name, context);
    let password = passwords::generate()?;
    let local = local(master, name, settings, context);
    let mut steps = Vec::new();
    if let Some(worker) = local {
        steps.push(credential(worker, &password, context)?);
    }
    steps.push(naming::put(
        master,
        name,
        before.as_ref(),
        Some(&password),
        context,
    ));
    let unit = master.reference.unit();
    let required = true;
    let mut last = Vec::new();
    let invitation = if let Some(worker) = local {
        steps.push(UnitStep::Reload { unit, required }.into());
        let unit = worker.reference.unit();
        if naming::is_running(worker, context)? {
            steps.extend([
                UnitStep::StopAfterBuilds { unit: unit.clone() }.into(),
                UnitStep::Start { unit: unit.clone() }.into(),
                UnitStep::AwaitConnection { unit, required }.into(),
            ]);
        }
        None
    } else {
        let slots = details.and_then(|details| details.slots);
        let door = door_of(master, &arguments.name, context)?;
        let (authority, more) = door::Authority::read_or_make(context)?;
        steps.extend(more);
        if door.is_due(&authority) {
            let renewed = door.renewed();
            let (first, old) = door::change(master, Some(&door), &renewed, &authority, context)?;
            steps.extend(first);
            last = old;
        }
        steps.push(UnitStep::Reload { unit, required }.into());
        Some(Invitation {
            address: door.address(None)?,
            worker: arguments.name.clone(),
            password,
            slots,
            authority: authority.fingerprint,
            until: invitations::now() + TTL.as_secs(),
        })
    };
    steps.extend(last);
    let plan = Plan {
        title: format!("rotate {name}"),
        notes: Vec::new(),
        steps,
    };
    Ok((plan, invitation))
}

/// The worker of this host by that name.
fn local<'a>(
    master: &Instance,
    name: &str,
    settings: &'a Settings,
    context: &Context,
) -> Option<&'a Instance> {
    let reference = master.reference.to_string();
    settings.instances().find(|instance| {
        let record = WorkerRecord::read(&instance.reference, context);
        record.is_some_and(|record| {
            record.worker == name && record.instance.as_ref() == Some(&reference)
        })
    })
}

fn credential(worker: &Instance, password: &str, context: &Context) -> anyhow::Result<Step> {
    let mut credentials = worker.credentials.iter();
    let file = credentials.find(|(name, _)| name.as_str() == WORKER_CREDENTIAL);
    let (_, file) = file.with_context(|| {
        format!(
            "`{}` has no credential `{WORKER_CREDENTIAL}`",
            worker.reference
        )
    })?;
    let write = FileStep::Write {
        path: context.path(file.as_str()),
        text: format!("{password}\n"),
        mode: Mode::new(0o600),
        secret: true,
    };
    Ok(write.into())
}

/// The way of workers of other hosts to the master.
fn door_of(
    master: &Instance,
    worker: &WorkerName,
    context: &Context,
) -> anyhow::Result<door::Door> {
    door::Door::read(&master.reference, context).with_context(|| {
        format!(
            "`{}` does not accept workers from other hosts, and no worker `{}` was created on this host with `buildbot-conda create`",
            master.reference,
            worker.as_str()
        )
    })
}
