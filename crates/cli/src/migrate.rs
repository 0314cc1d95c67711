//! `migrate REF --to DATABASE`: moves the builds of a master to another database. The master is stopped meanwhile. Its
//! configuration changes only after the copy is complete; until then it names the old database, which is never changed.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use buildbot_conda_core::database_line;
use buildbot_conda_core::edit;
use buildbot_conda_core::names::{InstanceRef, Role};
use buildbot_conda_core::settings::Instance;
use buildbot_conda_core::starter::{self, DATABASE_CREDENTIAL};
use clap::Args;

use crate::create::{Database, Wanted, can_ask, credential};
use crate::inside::put::{Put, Text};
use crate::inside::transfer::{self, Whereabouts};
use crate::output::Manner;
use crate::plan::{self, DatabaseStep, FileStep, Plan, Step, UnitStep, Verb, naming};
use crate::system::context::{Context, InvalidConfiguration};
use crate::system::instance_state;
use crate::system::record::{Noted as _, Record, Server};
use crate::system::unit_files;
use crate::system::values::Identity;

const CONFIGURATION: &str = "master.cfg";
/// The database of a starter, as Buildbot reads it below the master's directory.
const FILE: &str = "sqlite:///state.sqlite";

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The master, such as `master` or `master@nightly`
    #[arg(value_name = "REF")]
    reference: InstanceRef,
    /// `postgresql`, created on this host; the URL of an empty database, as in `postgresql://USER@HOST/DATABASE`,
    /// without a password; or `sqlite`
    #[arg(long, value_name = "DATABASE", required_unless_present = "to_file")]
    to: Option<String>,
    /// Read the URL of the database, which may have a password, from a file; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "to")]
    to_file: Option<PathBuf>,
    #[command(flatten)]
    manner: Manner,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    let (name, manner) = ("migrate", arguments.manner);
    let this = Verb {
        name,
        manner,
        ..Verb::default()
    };
    let state = |_: &String| instance_state::of(&arguments.reference, context);
    this.run(context, || plan(arguments, context), state, String::into)
}

/// The plan, and what to say when it is carried out.
fn plan(arguments: &Arguments, context: &Context) -> anyhow::Result<(Plan, String)> {
    let reference = &arguments.reference;
    if reference.role != Role::Master {
        bail!("`{reference}` is a worker and has no database");
    }
    let options = ["--to", "--to-file"];
    let wanted = Wanted::read(
        arguments.to.as_deref(),
        arguments.to_file.as_deref(),
        options,
    )?;
    let settings = context.settings()?;
    settings.check().map_err(InvalidConfiguration::from)?;
    let instance = settings
        .instance(reference)
        .map_err(InvalidConfiguration::from)?;
    unit_files::ensure_ours(reference, context)?;
    let now = if can_ask(context) {
        Some(transfer::inspect(instance, true)?)
    } else {
        None
    };
    let record = Record::read(reference, context);
    if let Some(now) = &now {
        if is_there(&wanted, reference, now, record.as_ref()) {
            return Ok(already(reference, now));
        }
        ensure_free(&wanted, now)?;
    }
    let database = wanted.settle(instance, context)?;
    let (path, change) = change(instance, &database, context)?;

    let unit = reference.unit();
    let is_running = !context.is_elsewhere() && naming::is_running(instance, context)?;
    let target = Target::of(&database, now.as_ref(), instance);
    let mut steps: Vec<Step> = Vec::new();
    if is_running {
        let unit = unit.clone();
        let keep_builds = false;
        steps.push(UnitStep::Stop { unit, keep_builds }.into());
    }
    let reference = reference.clone();
    steps.push(
        DatabaseStep::BackUp {
            reference: reference.clone(),
        }
        .into(),
    );
    steps.extend(database.steps.clone());
    let copy = DatabaseStep::Copy {
        reference: reference.clone(),
        to: target.place.clone(),
        url: database.url.clone().unwrap_or_else(|| FILE.to_owned()),
        is_file: database.url.is_none(),
    };
    steps.push(copy.into());
    hand_over_the_url(&reference, &database, context, &mut steps)?;
    // Before the switch: from then on, the master may be started at any time, and the plan be killed.
    if let Some(record) = &record {
        let record = Record {
            database: database.record.clone(),
            ..record.clone()
        };
        steps.extend(plan::note(&record, &reference, context)?);
    }
    let (put, line) = change;
    let switch = DatabaseStep::UseCopy {
        reference: reference.clone(),
        put,
    };
    steps.push(switch.into());
    let check = DatabaseStep::CheckDatabase {
        reference: reference.clone(),
        kind: target.kind.to_owned(),
        place: target.named,
    };
    steps.push(check.into());
    if is_running {
        steps.push(UnitStep::Start { unit }.into());
    }
    let place = now.map_or_else(
        || "the database".to_owned(),
        |now| format!("`{}`", now.place),
    );
    let plan = Plan {
        title: format!("migrate {reference}"),
        notes: vec![
            format!("{place} is copied to `{}`, and kept", target.place),
            format!("a line of `{path}` becomes: {}", line.trim()),
        ],
        steps,
    };
    let old = how_to_remove(record);
    let closing = format!(
        "`{reference}` uses `{}`; {place} is kept as it was{old}",
        target.place
    );
    Ok((plan, closing))
}

/// Whether the builds are stored in the wanted database already. The configuration decides; if there is a record, which an
/// adopted master lacks, it must agree, because it also contains the port.
fn is_there(
    wanted: &Wanted,
    reference: &InstanceRef,
    now: &Whereabouts,
    record: Option<&Record>,
) -> bool {
    if matches!(wanted, Wanted::Sqlite) {
        return now.kind == "sqlite";
    }
    let server = record.and_then(|record| record.database.as_ref());
    wanted.is_at(reference, &now.place) && server.is_none_or(|server| wanted.is(Some(server)))
}

/// What removes a database that was left, if it was made here.
fn how_to_remove(record: Option<Record>) -> String {
    match record.and_then(|record| record.database) {
        Some(Server::Made { database, .. }) => {
            format!("; `sudo -u postgres dropdb {database}` removes it when it is no longer needed")
        }
        _ => String::new(),
    }
}

/// The database to which the builds are moved.
struct Target {
    kind: &'static str,
    /// For people.
    place: String,
    /// As the changed configuration names it.
    named: String,
}

impl Target {
    fn of(database: &Database, now: Option<&Whereabouts>, instance: &Instance) -> Self {
        if let Some(url) = &database.place {
            return Self {
                kind: "postgresql",
                place: url.place().to_owned(),
                named: url.place_without_port(),
            };
        }
        let place = now.map_or_else(
            || format!("{}/state.sqlite", instance.directory),
            |now| now.file.to_string(),
        );
        Self {
            kind: "sqlite",
            named: place.clone(),
            place,
        }
    }
}

/// The plan of a migration that has taken place before.
fn already(reference: &InstanceRef, now: &Whereabouts) -> (Plan, String) {
    let plan = Plan {
        title: format!("migrate {reference}"),
        notes: vec![format!("`{reference}` uses `{}` already", now.place)],
        steps: Vec::new(),
    };
    (plan, String::new())
}

fn ensure_free(wanted: &Wanted, now: &Whereabouts) -> anyhow::Result<()> {
    ensure!(
        !matches!(wanted, Wanted::Sqlite) || !now.has_file,
        "`{}` already exists\nhint: move it away if it is the database from before a migration",
        now.file
    );
    Ok(())
}

/// The path of the configuration, how it changes, and the changed line.
fn change(
    instance: &Instance,
    database: &Database,
    context: &Context,
) -> anyhow::Result<(String, (Put, String))> {
    let path = format!("{}/{CONFIGURATION}", instance.directory);
    let user = instance.user.as_str();
    let line = format!("c[\"db\"] = {}", starter::database(&database.start));
    let by_hand = format!(
        "hint: the URL has to be a text on one line, as in `c[\"db\"] = {{\"db_url\": \"...\"}}`; the migration makes it \
         `{line}`"
    );
    let seen = naming::seen(instance, CONFIGURATION, context).with_context(|| {
        format!("`{path}` is not a text file that `{user}` can read\n{by_hand}")
    })?;
    // In the place of a link, a file would be put.
    let place = context.path(&path);
    ensure!(
        seen.is_own && seen.file == place,
        "`{path}` is not a file that `{user}` may change\n{by_hand}"
    );
    let changed = database_line::change(&seen.text, &database.start)
        .map_err(|error| anyhow::anyhow!("cannot change `{path}`: {error}\n{by_hand}"))?;
    let mode = seen.mode;
    let put = Put {
        identity: Identity::of(instance),
        directory: context.path(instance.directory.as_str()),
        path: CONFIGURATION.into(),
        before: Some(Text {
            text: seen.text,
            mode,
        }),
        after: Some(Text {
            text: changed.text,
            mode,
        }),
        keep: false,
    };
    Ok((path, (put, changed.line)))
}

/// A URL that is a secret becomes a credential, which systemd hands over at the start.
fn hand_over_the_url(
    reference: &InstanceRef,
    database: &Database,
    context: &Context,
    steps: &mut Vec<Step>,
) -> anyhow::Result<()> {
    let (Some(file), Some(url)) = (&database.credential, &database.url) else {
        return Ok(());
    };
    credential(file, url, context, steps);
    let path = context.configuration();
    let name = path.display().to_string();
    let before = context.text()?;
    let key = format!("credentials.{DATABASE_CREDENTIAL}");
    let after = edit::set(&name, &before, Some(reference), &key, file)?;
    if after != before {
        let configure = FileStep::Configure {
            path,
            before,
            after,
            references: vec![reference.clone()],
            lines: vec![format!("{reference}.{key} = {file:?}")],
        };
        steps.push(configure.into());
        steps.push(UnitStep::ReloadSystemd.into());
    }
    Ok(())
}
