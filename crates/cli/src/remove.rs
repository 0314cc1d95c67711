//! `remove`: the opposite of `create`. It stops the instance, disables its unit and removes its table. Data and secrets
//! are kept by default, and otherwise removed last, because this cannot be rolled back.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use buildbot_conda_core::edit;
use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::paths;
use buildbot_conda_core::settings::{Instance, Settings};
use buildbot_conda_core::starter::WORKER_CREDENTIAL;
use clap::Args;

use crate::output::Manner;
use crate::plan::naming::{Naming, Workers, take_out};
use crate::plan::{self, DatabaseStep, FileStep, Plan, Step, UnitStep, UserStep, Verb};
use crate::system::context::{Context, InvalidConfiguration, no_instance};
use crate::system::exposed::Exposed;
use crate::system::instance_state;
use crate::system::record::{Noted as _, Record, Server, WorkerRecord, record_file};
use crate::system::systemd;
use crate::system::unit_files;
use crate::system::values::Identity;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Instance to remove, such as `master` or `worker@gpu`
    #[arg(value_name = "REF")]
    reference: InstanceRef,
    /// Also remove its directory, backups, credentials and the database that `create` made
    #[arg(long)]
    data: bool,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    manner: Manner,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    let Arguments {
        reference,
        yes,
        manner,
        ..
    } = arguments;
    let plan = || {
        let plan = plan(arguments, context)?;
        let is_asked = !yes && !manner.dry_run && !plan.steps.is_empty();
        ensure!(
            !is_asked || confirm(&plan, reference)?,
            "the removal was not confirmed, nothing was changed"
        );
        Ok((plan, ()))
    };
    let (name, manner) = ("remove", *manner);
    let this = Verb {
        name,
        manner,
        ..Verb::default()
    };
    let state = |(): &()| instance_state::of(reference, context);
    let closing = |()| format!("`{reference}` is removed").into();
    this.run(context, plan, state, closing)
}

fn confirm(plan: &Plan, reference: &InstanceRef) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        bail!("there is no terminal to confirm the removal of `{reference}`\nhint: use `--yes`");
    }
    eprint!("{plan}remove `{reference}`? [y/N] ");
    io::stderr().flush().context("write to the terminal")?;
    let mut answer = String::new();
    io::stdin()
        .read_line(&mut answer)
        .context("read from the terminal")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn plan(arguments: &Arguments, context: &Context) -> anyhow::Result<Plan> {
    let reference = &arguments.reference;
    let settings = context.settings()?;
    // The credentials and the master of the instance may belong to an instance whose table cannot be read.
    settings.check().map_err(InvalidConfiguration::from)?;
    let Ok(instance) = settings.instance(reference) else {
        return absent(arguments, &settings, context);
    };
    unit_files::ensure_ours(reference, context)?;
    if let Some(exposed) = Exposed::read(reference, context) {
        bail!(
            "{} serves the pages of `{reference}`\nhint: run `buildbot-conda web hide {reference}` first",
            exposed.front
        );
    }
    let mut steps = Vec::new();
    let unit = reference.unit_name();
    let is_booted = systemd::runs(context);
    if is_booted && plan::is_running(&unit)? {
        steps.push(
            UnitStep::Stop {
                unit: reference.unit(),
                keep_builds: false,
            }
            .into(),
        );
    }
    for path in unit_files::links(&unit, context)? {
        steps.push(FileStep::Remove { path }.into());
    }
    steps.push(configure(reference, &settings, context)?);
    let naming = match master_of(reference, &settings, context) {
        Some((master, name)) => {
            let workers = workers_of(master, instance, context);
            take_out(master, &name, &workers, context)?
        }
        None => Naming::default(),
    };
    let record = record_file(reference, context);
    if record.exists() {
        steps.push(FileStep::Remove { path: record }.into());
    }
    if is_booted {
        steps.push(UnitStep::ReloadSystemd.into());
    }
    steps.extend(naming.steps);
    let credentials = own_credentials(instance, &settings, context);
    let mut notes = Vec::from_iter(naming.note);
    notes.extend(left_workers(reference, &settings, context));
    let server = Record::read(reference, context).and_then(|record| record.database);
    if arguments.data {
        remove_data(instance, credentials, context, &mut steps);
        if let Some(Server::Made { database, role }) = &server {
            let (database, role) = (database.clone(), role.clone());
            let drop_role = DatabaseStep::DropRole { role: role.clone() };
            steps.push(DatabaseStep::DropDatabase { database, role }.into());
            steps.push(drop_role.into());
        }
    } else {
        if let Some(Server::Made { database, .. }) = &server {
            notes.push(format!("kept the database `{database}` of PostgreSQL"));
        }
        let directory = context.path(instance.directory.as_str());
        let kept = std::iter::once(directory)
            .chain(own_directories(reference, context))
            .chain(credentials);
        for path in kept.filter(|path| path.exists()) {
            notes.push(format!("kept `{}`", path.display()));
        }
    }
    // Whoever has made it for the master may have other plans for it.
    if let Some(Server::Given(place)) = &server {
        notes.push(format!("kept Buildbot's tables in the database `{place}`"));
    }
    Ok(Plan {
        title: format!("remove {reference}"),
        notes,
        steps,
    })
}

/// What is to be done about an instance that is not there.
fn absent(arguments: &Arguments, settings: &Settings, context: &Context) -> anyhow::Result<Plan> {
    let reference = &arguments.reference;
    let mut left = own_directories(reference, context).into_iter();
    if let Some(path) = left.find(|path| arguments.data && path.exists()) {
        bail!(
            "`{reference}` is not configured any more, so its directory and credentials are not known\n             hint: remove them by hand, and `{}`",
            path.display()
        );
    }
    let reason = no_instance(reference, settings).to_string();
    let links = unit_files::links(&reference.unit_name(), context)?.into_iter();
    let mut steps: Vec<Step> = links.map(|path| FileStep::Remove { path }.into()).collect();
    if !steps.is_empty() && systemd::runs(context) {
        steps.push(UnitStep::ReloadSystemd.into());
    }
    Ok(Plan {
        title: format!("remove {reference}"),
        notes: vec![reason.replace("\nhint: ", "; ")],
        steps,
    })
}

/// What becomes of the workers of a master that goes.
fn left_workers(reference: &InstanceRef, settings: &Settings, context: &Context) -> Vec<String> {
    let name = reference.to_string();
    let workers = settings.references().filter(|worker| {
        let record = WorkerRecord::read(worker, context);
        record.is_some_and(|record| record.instance.as_ref() == Some(&name))
    });
    let note = |worker: &InstanceRef| {
        format!(
            "`{worker}` is a worker of this master and keeps trying to connect; `buildbot-conda remove {worker}` removes it"
        )
    };
    workers.map(note).collect()
}

/// The master on this host for which a worker was created, and its name there.
fn master_of<'a>(
    reference: &InstanceRef,
    settings: &'a Settings,
    context: &Context,
) -> Option<(&'a Instance, String)> {
    let record = WorkerRecord::read(reference, context)?;
    let master = settings.instance(&record.instance?.parse().ok()?).ok()?;
    Some((master, record.worker))
}

/// Where its master has its name, and the password that is to go there.
fn workers_of(master: &Instance, worker: &Instance, context: &Context) -> Workers {
    let record = Record::read(&master.reference, context);
    if record.is_none_or(|record| record.worker_credential.is_none()) {
        return Workers::Listed;
    }
    let mut credentials = worker.credentials.iter();
    let password = credentials.find(|(name, _)| name.as_str() == WORKER_CREDENTIAL);
    let text = password.and_then(|(_, file)| fs::read_to_string(context.path(file.as_str())).ok());
    Workers::Tabled {
        details: None,
        password: text.and_then(|text| text.lines().next().map(str::to_owned)),
    }
}

fn configure(
    reference: &InstanceRef,
    settings: &Settings,
    context: &Context,
) -> anyhow::Result<Step> {
    let file = settings.file();
    let before = fs::read_to_string(file).with_context(|| format!("read `{file}`"))?;
    let after = edit::take_table(file, &before, "", reference)?;
    let table = match reference.name {
        None => reference.to_string(),
        Some(_) => format!("\"{reference}\""),
    };
    Ok(FileStep::Configure {
        path: context.configuration(),
        before,
        after,
        references: vec![reference.clone()],
        lines: vec![format!("without [{table}]")],
    }
    .into())
}

/// Files of its credentials in our directory that no other instance uses.
fn own_credentials(instance: &Instance, settings: &Settings, context: &Context) -> Vec<PathBuf> {
    let files = |instance: &Instance| -> BTreeSet<String> {
        instance
            .credentials
            .values()
            .map(ToString::to_string)
            .collect()
    };
    let of_others: BTreeSet<String> = settings
        .instances()
        .filter(|other| other.reference != instance.reference)
        .flat_map(files)
        .collect();
    let mut own = files(instance);
    // The record of a first worker, which may never have been created.
    let record = Record::read(&instance.reference, context);
    let first = record.and_then(|record| record.worker_credential);
    own.extend(first.map(|file| format!("{}/{file}", paths::CREDENTIALS)));
    own.difference(&of_others)
        .filter(|file| Path::new(file).parent() == Some(Path::new(paths::CREDENTIALS)))
        .map(|file| context.path(file))
        .collect()
}

fn remove_data(
    instance: &Instance,
    credentials: Vec<PathBuf>,
    context: &Context,
    steps: &mut Vec<Step>,
) {
    for path in credentials.into_iter().filter(|path| path.exists()) {
        steps.push(FileStep::Remove { path }.into());
    }
    let directory = context.path(instance.directory.as_str());
    if directory.is_dir() {
        steps.push(
            UserStep::Clear {
                identity: Identity {
                    group: None,
                    ..Identity::of(instance)
                },
                directory: directory.clone(),
                keep: false,
            }
            .into(),
        );
        // Root removes what root has created in places of root; never anything below a user's directory.
        let parent = directory.parent().and_then(|parent| parent.metadata().ok());
        let is_roots = parent.is_some_and(|parent| parent.uid() == 0 && parent.mode() & 0o022 == 0);
        if is_roots && !context.is_elsewhere() {
            steps.push(FileStep::RemoveDirectory { path: directory }.into());
        }
    }
    let own = own_directories(&instance.reference, context).into_iter();
    let there = own.filter(|path| path.is_dir());
    steps.extend(there.map(|path| FileStep::RemoveTree { path }.into()));
}

/// What the package has created for an instance outside its directory.
fn own_directories(reference: &InstanceRef, context: &Context) -> [PathBuf; 2] {
    let paths = [
        paths::state_directory(reference),
        paths::backup_directory(reference),
    ];
    paths.map(|path| context.path(&path))
}
