//! `invite`: a master gets to know a worker of another host, and the line by which that joins is printed.

use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, bail, ensure};
use buildbot_conda_core::invitation::Invitation;
use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::settings::Instance;
use buildbot_conda_core::starter::{Address, Details, MOST_SLOTS, Tag, WorkerName};
use clap::Args;
use comfy_table::{Table, presets};

use super::invitations::{self, Invited, State};
use super::{door, upkeep};
use crate::output::Manner;
use crate::plan::naming::{self, Workers};
use crate::plan::{Closing, Plan, Step, UnitStep, Verb};
use crate::system::context::Context;
use crate::system::passwords;
use crate::{output, table};

/// How long a line can be used, at most.
const LONGEST: Duration = Duration::from_hours(366 * 24);

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Name of the new worker
    #[arg(value_name = "NAME", required_unless_present = "list")]
    name: Option<WorkerName>,
    /// The master, if this host has several
    #[arg(long, value_name = "REF")]
    master: Option<InstanceRef>,
    /// How long the invitation is valid
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = ttl)]
    ttl: Duration,
    /// Number of workers in one service, each for one build at a time; by default one worker without a limit
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_SLOTS)))]
    slots: Option<u32>,
    /// Tag by which builders choose the worker; can be repeated
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<Tag>,
    /// Name or address at which the other host reaches this one; by default the full host name
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Port for workers on other hosts, set with the first invitation
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// List the invitations and their states
    #[arg(long, conflicts_with_all = ["name", "slots", "tags", "host", "port", "dry_run", "json"])]
    list: bool,
    #[command(flatten)]
    manner: Manner,
}

/// A line without an end would be a password for ever.
fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if ttl < Duration::from_secs(1) || ttl > LONGEST {
        return Err("expected a time from `1s` to `1year`".to_owned());
    }
    Ok(ttl)
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    if arguments.list {
        return list(context);
    }
    let name = arguments
        .name
        .as_ref()
        .context("specify the name of a worker")?;
    let settings = context.settings()?;
    let master = super::master(arguments.master.as_ref(), &settings, context)?;
    let this = Verb {
        name: "invite",
        manner: arguments.manner,
        ..Verb::default()
    };
    let state = |_: &_| super::state(master, name, context);
    let closing = |invitation: Option<Invitation>| {
        upkeep::enable();
        let hours = humantime::format_duration(arguments.ttl);
        Closing {
            message: format!(
                "`{}` can join with this line for {hours}; keep it secret. On the other host, run `buildbot-conda join` and paste it:",
                name.as_str()
            ),
            data: invitation.map(|invitation| ("line", invitation.line())),
        }
    };
    let plan = || plan(arguments, name, master, context);
    this.run(context, plan, state, closing)
}

/// What there is to do for a worker that was invited already with the same words: nothing. As long as nobody has used the
/// line, it is printed once more.
fn already(
    arguments: &Arguments,
    name: &WorkerName,
    master: &Instance,
    context: &Context,
) -> anyhow::Result<Option<(Plan, Option<Invitation>)>> {
    let details = naming::details(master, name.as_str(), context);
    let (Some(details), Some(invited)) = (details, invitations::of(master, name, context)?) else {
        return Ok(None);
    };
    let Some(door) = door::Door::read(&master.reference, context) else {
        return Ok(None);
    };
    let host = arguments.host.as_ref();
    if details.slots != arguments.slots
        || details.tags != arguments.tags
        || arguments.port.is_some_and(|port| port != door.port)
        || host.is_some_and(|host| !door.names.contains(host))
    {
        return Ok(None);
    }
    let shown = name.as_str();
    let (note, line) = match invited.state(invitations::now(), context) {
        State::Joined => {
            let note = format!(
                "`{shown}` has already joined; `buildbot-conda rotate {shown}` changes its password and prints a new line"
            );
            (note, None)
        }
        State::Pending => {
            let authority = door::Authority::read(context)?;
            let password = naming::password(master, shown, context);
            let (Some(authority), Some(password)) = (authority, password) else {
                return Ok(None);
            };
            let until = UNIX_EPOCH + Duration::from_secs(invited.until);
            let until = humantime::format_rfc3339_seconds(until);
            let line = Invitation {
                address: door.address(arguments.host.as_deref())?,
                worker: name.clone(),
                password,
                slots: details.slots,
                authority: authority.fingerprint,
                until: invited.until,
            };
            let note =
                format!("`{shown}` was invited already; its line can be used until {until}:");
            (note, Some(line))
        }
        State::Expired | State::Unknown => return Ok(None),
    };
    let plan = Plan {
        title: format!("invite {shown}"),
        notes: vec![note],
        steps: Vec::new(),
    };
    Ok(Some((plan, line)))
}

fn plan(
    arguments: &Arguments,
    name: &WorkerName,
    master: &Instance,
    context: &Context,
) -> anyhow::Result<(Plan, Option<Invitation>)> {
    if let Some(already) = already(arguments, name, master, context)? {
        return Ok(already);
    }
    ensure!(
        context.is_elsewhere() || naming::is_running(master, context)?,
        "`{0}` is not running\nhint: `systemctl start {1}`",
        master.reference,
        master.reference.unit_name()
    );
    ensure!(
        !naming::is_named(master, name.as_str(), context),
        "`{}` already has a worker `{1}`\nhint: `buildbot-conda rotate {1}` changes its password and prints a new line",
        master.reference,
        name.as_str()
    );
    let (authority, mut steps) = door::Authority::read_or_make(context)?;
    let (address, mut notes, last) = open(arguments, master, &authority, &mut steps, context)?;
    let password = passwords::generate()?;
    let workers = Workers::Tabled {
        password: Some(password.clone()),
        details: Some(Details {
            slots: arguments.slots,
            tags: arguments.tags.clone(),
        }),
    };
    name.check_slots(arguments.slots)?;
    let naming = naming::add(master, name, &workers, context)?;
    if let (false, Some(note)) = (naming.is_named, &naming.note) {
        bail!("{note}");
    }
    steps.extend(naming.steps);
    let now = invitations::now();
    let invitation = Invitation {
        address,
        worker: name.clone(),
        password,
        slots: arguments.slots,
        authority: authority.fingerprint,
        until: now.saturating_add(arguments.ttl.as_secs()),
    };
    let mut invited = invitations::read(context)?;
    invited.retain(|one| one.worker != name.as_str() || one.master != master.reference.to_string());
    invited.push(Invited {
        master: master.reference.to_string(),
        worker: name.as_str().to_owned(),
        tags: arguments.tags.clone(),
        since: now,
        until: invitation.until,
    });
    steps.extend(invitations::note(&invited, context)?);
    steps.extend(last);
    notes.extend(naming.note);
    let plan = Plan {
        title: format!("invite {}", name.as_str()),
        notes,
        steps,
    };
    Ok((plan, Some(invitation)))
}

/// Opens the master to the network where it is not yet, or not by this name: the address for the invitation, and steps
/// for the end.
fn open(
    arguments: &Arguments,
    master: &Instance,
    authority: &door::Authority,
    steps: &mut Vec<Step>,
    context: &Context,
) -> anyhow::Result<(Address, Vec<String>, Vec<Step>)> {
    let before = door::Door::read(&master.reference, context);
    let wanted = match &before {
        None => door::new(
            arguments.host.as_deref(),
            arguments.port.unwrap_or(door::PORT),
            context,
        ),
        Some(door) => {
            let mut wanted = door.clone();
            wanted.port = arguments.port.unwrap_or(door.port);
            let new = arguments
                .host
                .iter()
                .filter(|host| !door.names.contains(host));
            wanted.names.extend(new.cloned());
            wanted
        }
    };
    let address = wanted.address(arguments.host.as_deref())?;
    let is_good = |before: &door::Door| *before == wanted && !before.is_due(authority);
    if before.as_ref().is_some_and(is_good) {
        return Ok((address, Vec::new(), Vec::new()));
    }
    let wanted = match &before {
        Some(before) => door::Door {
            until: before.renewed().until,
            ..wanted
        },
        None => wanted,
    };
    let (first, last) = door::change(master, before.as_ref(), &wanted, authority, context)?;
    steps.extend(first);
    let unit = master.reference.unit();
    let required = true;
    steps.push(UnitStep::Reload { unit, required }.into());
    let note = format!(
        "`{}` accepts workers from other hosts with TLS at port {}, as {}",
        master.reference,
        wanted.port,
        wanted.names.join(", ")
    );
    Ok((address, vec![note], last))
}

fn list(context: &Context) -> anyhow::Result<ExitCode> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["WORKER", "MASTER", "STATE", "UNTIL", "TAGS"]);
    let now = invitations::now();
    for one in invitations::read(context)? {
        let state = one.state(now, context).name();
        let until = UNIX_EPOCH + Duration::from_secs(one.until);
        let until = humantime::format_rfc3339_seconds(until).to_string();
        let tags: Vec<&str> = one.tags.iter().map(Tag::as_str).collect();
        let tags = tags.join(" ");
        table.add_row([one.worker, one.master, state.to_owned(), until, tags]);
    }
    output::print(table::flush(&table).join("\n") + "\n")
}
