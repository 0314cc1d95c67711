//! `service upkeep`, which a timer calls: invitations that nobody used in their time are revoked, and certificates are
//! renewed long before they end. What fails is reported, and keeps nothing else from being done.

use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use buildbot_conda_core::names::{InstanceRef, Role};

use super::door::{self, Door};
use super::invitations::{self, State};
use super::revoke;
use crate::plan::{self, Plan, UnitStep, naming};
use crate::system::context::Context;
use crate::system::systemd;

/// What calls it.
const TIMER: &str = "buildbot-conda-upkeep.timer";

/// Has systemd call it from now on.
pub(super) fn enable() {
    if let Err(error) = systemd::systemctl(&["enable", "--now", "--", TIMER]) {
        eprintln!(
            "warning: certificates are not renewed, and unused invitations do not expire: {error:#}\n\
             hint: `systemctl enable --now {TIMER}`"
        );
    }
}

pub(crate) fn run(context: &Context) -> anyhow::Result<ExitCode> {
    context.ensure_here("service upkeep")?;
    context.ensure_root()?;
    let mut failures = 0;
    let mut report = |what: String, outcome: anyhow::Result<()>| {
        if let Err(error) = outcome {
            eprintln!("error: {what}: {error:#}");
            failures += 1;
        }
    };
    for one in invitations::read(context)? {
        match one.state(invitations::now(), context) {
            State::Pending => {}
            State::Joined => report(
                format!("record that `{}` has joined", one.worker),
                forget(&one, context),
            ),
            State::Expired | State::Unknown => {
                let what = format!("revoke the invitation of `{}`", one.worker);
                report(what, end(&one, context));
            }
        }
    }
    let settings = context.settings()?;
    let authority = door::Authority::read(context)?;
    for instance in settings.instances() {
        let reference = &instance.reference;
        if reference.role != Role::Master {
            continue;
        }
        let Some(door) = Door::read(reference, context) else {
            continue;
        };
        let what = format!("renew the certificate of `{reference}`");
        match &authority {
            // A new one is for a person to make: no worker that has joined knows it.
            None => report(
                what,
                Err(anyhow!(
                    "this host has no authority any more\n\
                     hint: restore `/etc/buildbot-conda/authority`, or let each worker of another host join again by a line of \
                     `buildbot-conda rotate`, which makes a new one"
                )),
            ),
            Some(authority) if door.is_due(authority) => {
                report(what, renew(reference, &door, authority, context));
            }
            Some(_) => {}
        }
    }
    Ok(ExitCode::from(u8::from(failures > 0)))
}

/// One that was used is not revoked any more.
fn forget(one: &invitations::Invited, context: &Context) -> anyhow::Result<()> {
    let journal = plan::begin(context)?;
    let mut invited = invitations::read(context)?;
    invited.retain(|other| other != one);
    let plan = Plan {
        title: format!("record that {} has joined", one.worker),
        notes: Vec::new(),
        steps: invitations::note(&invited, context)?,
    };
    plan::carry_out(&plan, &journal, None)
}

/// Revokes one whose time is over, unless it may have been used: then the worker may be at work, and a person decides.
fn end(one: &invitations::Invited, context: &Context) -> anyhow::Result<()> {
    let settings = context.settings()?;
    let reference: InstanceRef = one.master.parse()?;
    let Ok(master) = settings.instance(&reference) else {
        return forget(one, context);
    };
    let worker = one.worker.parse()?;
    if !naming::is_named(master, &one.worker, context)
        && naming::password(master, &one.worker, context).is_none()
    {
        return forget(one, context);
    }
    let name = &one.worker;
    let has_joined = one.has_joined(context).map_err(|reason| {
        anyhow!(
            "cannot determine whether it was used: {reason:#}\n\
             hint: if it was not used, revoke it with `buildbot-conda revoke {name}`"
        )
    })?;
    if has_joined {
        return forget(one, context);
    }
    let journal = plan::begin(context)?;
    let plan = revoke::plan(&worker, master, context)?;
    plan::carry_out(&plan, &journal, None)?;
    eprintln!("the invitation of `{name}` expired and was revoked");
    Ok(())
}

fn renew(
    reference: &InstanceRef,
    door: &Door,
    authority: &door::Authority,
    context: &Context,
) -> anyhow::Result<()> {
    let journal = plan::begin(context)?;
    let settings = context.settings()?;
    let master = settings
        .instance(reference)
        .map_err(|problem| anyhow::anyhow!("{problem}"))?;
    let (mut steps, last) = door::change(master, Some(door), &door.renewed(), authority, context)?;
    // The connections that are open keep the certificate that they began with.
    let unit = master.reference.unit();
    let required = true;
    steps.push(UnitStep::Reload { unit, required }.into());
    steps.extend(last);
    let plan = Plan {
        title: format!("renew the certificate of {reference}"),
        notes: Vec::new(),
        steps,
    };
    plan::carry_out(&plan, &journal, None).context("change the files of the master")?;
    eprintln!("`{reference}` has a new certificate");
    Ok(())
}
