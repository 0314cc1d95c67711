//! `create worker [NAME]`.

use std::path::Path;

use anyhow::{anyhow, bail};
use buildbot_conda_core::names::{InstanceRef, Role};
use buildbot_conda_core::paths;
use buildbot_conda_core::settings::{Instance, Settings};
use buildbot_conda_core::starter::{
    self, Address, MASTER_CREDENTIAL, WORKER_CREDENTIAL, WorkerName, WorkerStart,
};
use clap::Args;

use super::master::{configured_user, title};
use super::{Common, Draft, credential, enable_and_start, password, place};
use crate::inside::fill::{Contents, Made};
use crate::plan::{self, AccountStep, Plan, Step, UnitStep, UserStep, naming};
use crate::system::accounts::account_of;
use crate::system::context::Context;
use crate::system::prompt;
use crate::system::record::{Noted as _, Record, WorkerRecord};
use crate::system::values::{Identity, Mode};

/// The account of workers beside a master: builds can read all that their account can, so it is
/// not the master's.
const ACCOUNT: &str = "bb-worker";
/// Where a master listens that nobody has a record of.
const WORKER_PORT: u16 = 9989;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(super) common: Common,
    /// The master: `HOST:PORT`, or an instance on this host; by default the master on this host
    #[arg(long, value_name = "MASTER")]
    master: Option<String>,
    /// The name by which the master knows the worker
    #[arg(long, value_name = "NAME")]
    worker_name: Option<WorkerName>,
    /// Connect by TLS, and check the master's certificate
    #[arg(long)]
    tls: bool,
    /// Who is responsible for the worker, for the master's web pages
    #[arg(long, value_name = "TEXT")]
    admin: Option<String>,
}

/// Where the master is.
enum Target {
    /// On this host, made by us or known by its credential.
    Here {
        master: Box<Instance>,
        record: Option<Record>,
        credential: String,
    },
    /// Anywhere.
    At(Address),
}

impl Target {
    /// The instance of this host.
    fn instance(&self) -> Option<&InstanceRef> {
        match self {
            Self::Here { master, .. } => Some(&master.reference),
            Self::At(_) => None,
        }
    }
}

pub(super) fn plan(arguments: &Arguments, context: &Context) -> anyhow::Result<(Plan, String)> {
    let common = &arguments.common;
    let reference = InstanceRef {
        role: Role::Worker,
        name: common.name.clone(),
    };
    let mut draft = Draft::new(reference.clone(), context)?;
    let settings = draft.settings();
    let target = target(arguments.master.as_deref(), &settings, context)?;
    let configured = configured_user(&draft)?;
    let own_account = own_account(common, &configured, &draft, &settings, context);
    let user = common.user.clone().or_else(|| own_account.clone());
    let user_name = user.clone().unwrap_or(configured);
    let home = match place::home(&user_name, context) {
        Err(_) if own_account.is_some() => Path::new("/home").join(ACCOUNT),
        other => other?,
    };
    let instance = place::settle(&mut draft, common, user.as_deref(), &home, context)?;
    place::refuse(&instance, context)?;

    let (address, record) = match &target {
        Target::Here { record, .. } => {
            let port = record
                .as_ref()
                .map_or(WORKER_PORT, |record| record.worker_port);
            let host = "localhost".to_owned();
            (Address { host, port }, record.clone())
        }
        Target::At(address) => (address.clone(), None),
    };
    let name = worker_name(arguments, &reference, record.as_ref())?;
    let own_record = WorkerRecord {
        master: address.to_string(),
        worker: name.as_str().to_owned(),
        instance: target.instance().map(ToString::to_string),
    };
    refuse_namesake(&own_record, &reference, &settings, context)?;
    // Only where the master is there and knows it is it anybody's fault when it does not connect.
    let (naming, is_expected) = match &target {
        Target::Here { master, .. } => {
            let naming = naming::add(master, &name, context)?;
            let is_known =
                naming.is_named || record.is_some_and(|record| record.worker == name.as_str());
            let is_running = naming::is_running(master, context)?;
            (naming, is_known && is_running)
        }
        Target::At(_) => (naming::Naming::default(), false),
    };

    let mut steps = Vec::new();
    if own_account.is_some() && account_of(&instance, context).is_none() {
        steps.push(
            AccountStep::CreateAccount {
                name: instance.user.clone(),
                home: home.clone(),
            }
            .into(),
        );
    }
    let file = secret(common, &reference, &target, &address, context, &mut steps)?;
    draft.set(&format!("credentials.{WORKER_CREDENTIAL}"), &file)?;
    steps.extend(draft.step(context));
    steps.extend(plan::give(&instance, &home, context)?);
    let start = WorkerStart {
        reference: reference.clone(),
        name: name.clone(),
        master: address.clone(),
        tls: arguments.tls,
    };
    steps.push(
        UserStep::Fill {
            identity: Identity::of(&instance),
            directory: context.path(instance.directory.as_str()),
            contents: Contents {
                database: None,
                files: files(&start, arguments.admin.as_deref(), context)?,
            },
        }
        .into(),
    );
    steps.extend(plan::note(&own_record, &reference, context)?);
    steps.extend(naming.steps);
    enable_and_start(&reference, context, &mut steps);
    await_connection(&reference, is_expected, &mut steps);
    let plan = Plan {
        title: format!("create {}", title(&reference)),
        notes: [format!(
            "{}, as `{}` of the master at {address}",
            place::told(&reference, &instance),
            name.as_str()
        )]
        .into_iter()
        .chain(naming.note)
        .collect(),
        steps,
    };
    let closing =
        format!("`{reference}` runs; `buildbot-conda status {reference}` shows what it does");
    Ok((plan, closing))
}

/// After a start, whether the master has taken it.
fn await_connection(reference: &InstanceRef, required: bool, steps: &mut Vec<Step>) {
    if matches!(steps.last(), Some(Step::Unit(UnitStep::Start { .. }))) {
        let unit = reference.unit();
        steps.push(UnitStep::AwaitConnection { unit, required }.into());
    }
}

fn target(given: Option<&str>, settings: &Settings, context: &Context) -> anyhow::Result<Target> {
    if let Some(text) = given.filter(|text| text.contains(':')) {
        return Ok(Target::At(text.parse()?));
    }
    let has_credential = |instance: &&Instance| {
        let mut names = instance.credentials.keys();
        instance.reference.role == Role::Master
            && names.any(|name| name.as_str() == MASTER_CREDENTIAL)
    };
    let wanted = match given {
        Some(text) => Some(text.parse::<InstanceRef>().map_err(|_| {
            anyhow!("`{text}` is no master; write `HOST:PORT`, `master` or `master@NAME`")
        })?),
        None => None,
    };
    let mut masters: Vec<&Instance> = settings.instances().filter(has_credential).collect();
    if let Some(wanted) = &wanted {
        masters.retain(|master| master.reference == *wanted);
    } else if masters.iter().any(|master| master.reference.name.is_none()) {
        // The plain one is meant where there is one.
        masters.retain(|master| master.reference.name.is_none());
    }
    let [master] = masters[..] else {
        let text = match (&wanted, masters.len()) {
            (Some(wanted), _) => format!("`{wanted}` has no credential `{MASTER_CREDENTIAL}`"),
            (None, 0) => {
                "no master of this host was made by `buildbot-conda create master`".to_owned()
            }
            (None, _) => "there are several masters on this host".to_owned(),
        };
        bail!("{text}\nhint: name the master with `--master HOST:PORT` or `--master master@NAME`");
    };
    let credential = master
        .credentials
        .iter()
        .find(|(name, _)| name.as_str() == MASTER_CREDENTIAL)
        .map(|(_, file)| file.to_string())
        .unwrap_or_default();
    Ok(Target::Here {
        master: Box::new(master.clone()),
        record: Record::read(&master.reference, context),
        credential,
    })
}

/// Two workers of one name would take turns in throwing each other out.
fn refuse_namesake(
    record: &WorkerRecord,
    reference: &InstanceRef,
    settings: &Settings,
    context: &Context,
) -> anyhow::Result<()> {
    let others = settings.references().filter(|other| *other != reference);
    for other in others {
        let is_same = WorkerRecord::read(other, context)
            .is_some_and(|other| other.master == record.master && other.worker == record.worker);
        if is_same {
            bail!(
                "`{other}` is the worker `{}` of the master at {} already\n\
                 hint: name another one with `--worker-name`",
                record.worker,
                record.master
            );
        }
    }
    Ok(())
}

/// An account of its own, where the configuration has the worker under the master's, and the
/// environment is open to it.
fn own_account(
    common: &Common,
    configured: &str,
    draft: &Draft,
    settings: &Settings,
    context: &Context,
) -> Option<String> {
    if common.user.is_some() || configured == ACCOUNT {
        return None;
    }
    let shares = settings.instances().any(|other| {
        let tac = context.path(&format!("{}/buildbot.tac", other.directory));
        other.reference.role == Role::Master && other.user.as_str() == configured && tac.exists()
    });
    let (environment, prefix) = if let Ok(instance) = settings.instance(&draft.reference) {
        (&instance.conda_env, instance.prefix())
    } else {
        let defaults = settings.defaults().ok()?;
        let prefix = defaults.conda_env.prefix(&defaults.conda_root);
        (&defaults.conda_env, prefix)
    };
    let prefix =
        place::managed(environment, &prefix, context).unwrap_or_else(|| prefix.as_str().to_owned());
    let is_given = common.conda_root.is_some() || common.conda_env.is_some();
    let open = is_given || context.is_elsewhere() || place::is_for_everybody(&prefix);
    (shares && open).then(|| ACCOUNT.to_owned())
}

/// The name that was given, the one that the master's starter configuration has, or that of the
/// instance.
fn worker_name(
    arguments: &Arguments,
    reference: &InstanceRef,
    record: Option<&Record>,
) -> anyhow::Result<WorkerName> {
    if let Some(name) = &arguments.worker_name {
        return Ok(name.clone());
    }
    match (&reference.name, record) {
        (Some(name), _) => Ok(WorkerName::of(name)),
        (None, Some(record)) => Ok(record.worker.parse()?),
        (None, None) => Ok("worker".parse()?),
    }
}

/// The file of the password below the credentials directory: the master's own where it is here.
fn secret(
    common: &Common,
    reference: &InstanceRef,
    target: &Target,
    address: &Address,
    context: &Context,
    steps: &mut Vec<Step>,
) -> anyhow::Result<String> {
    let given = password::given(common)?;
    if let (None, Target::Here { credential, .. }) = (&given, target) {
        let below = credential.strip_prefix(&format!("{}/", paths::CREDENTIALS));
        return Ok(below.unwrap_or(credential).to_owned());
    }
    let file = match &reference.name {
        None => "password-of-worker".to_owned(),
        Some(name) => format!("password-of-worker-{name}"),
    };
    let is_there = context
        .path(&format!("{}/{file}", paths::CREDENTIALS))
        .exists();
    let password = match given {
        Some(_) if is_there => bail!(
            "the credential `{file}` is there already\nhint: leave the password out to use it"
        ),
        Some(password) => password,
        None if is_there => return Ok(file),
        // Nobody is asked for what is not going to be used.
        None if common.dry_run => String::new(),
        None => prompt::ask_unseen(&format!("password of the worker at {address}"))?,
    };
    credential(&file, &password, context, steps);
    Ok(file)
}

fn files(start: &WorkerStart, admin: Option<&str>, context: &Context) -> anyhow::Result<Vec<Made>> {
    let admin = admin.unwrap_or("root of this host");
    if admin.chars().any(char::is_control) {
        bail!("`--admin` has control characters");
    }
    let host = std::fs::read_to_string(context.path("/etc/hostname")).unwrap_or_default();
    let host = host.lines().next().unwrap_or_default().trim();
    let host = if host.is_empty() { "unnamed" } else { host };
    let made = |path: &str, text: String, mode| Made {
        path: path.into(),
        text,
        mode: Mode::new(mode),
    };
    Ok(vec![
        made("info/admin", format!("{admin}\n"), 0o644),
        made("info/host", format!("{host}, {}\n", start.reference), 0o644),
        made("buildbot.tac", starter::worker_tac(start), 0o600),
    ])
}
