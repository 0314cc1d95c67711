//! `create worker [NAME]`: what is on the host is read once (`facts`), what follows from it is decided (`decision`), and
//! then the steps are listed.

use std::fs;
use std::path::Path;

use anyhow::bail;
use buildbot_conda_core::names::{InstanceRef, Role};
use buildbot_conda_core::paths;
use buildbot_conda_core::settings::Instance;
use buildbot_conda_core::starter::{
    self, Address, Details, MOST_SLOTS, TRUST, Tag, WORKER_CREDENTIAL, WORKER_PORT, WorkerName,
    WorkerStart,
};
use clap::Args;

use super::decision::{Decision, Master, Secret, Wish, decide};
use super::master::title;
use super::{
    Closing, Common, Draft, already, credential, enable_and_start, facts, has_password, password,
    place,
};
use crate::inside::fill::{Contents, Made};
use crate::plan::naming::{self, Naming, Workers};
use crate::plan::{self, AccountStep, Plan, Step, UnitStep, UserStep};
use crate::system::accounts::account_of;
use crate::system::context::Context;
use crate::system::passwords;
use crate::system::prompt;
use crate::system::record::{Asked, Noted as _, WorkerRecord};
use crate::system::status_file;
use crate::system::values::{Identity, Mode};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(super) common: Common,
    /// The master: `HOST`, `HOST:PORT` (default port 9989) or an instance on this host; by default the master on this
    /// host
    #[arg(long, value_name = "MASTER")]
    master: Option<String>,
    /// The worker's name at the master
    #[arg(long, value_name = "NAME")]
    worker_name: Option<WorkerName>,
    /// Connect with TLS, and verify the master's certificate
    #[arg(long)]
    tls: bool,
    /// Number of workers in one service, each for one build at a time; by default one worker without a limit
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_SLOTS)))]
    slots: Option<u32>,
    /// Tag by which builders of a master on this host choose the worker; can be repeated
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<Tag>,
    /// Contact for the worker, shown on the master's web pages
    #[arg(long, value_name = "TEXT")]
    admin: Option<String>,
}

/// A worker for a master elsewhere, by an invitation.
#[derive(Debug)]
pub(crate) struct Joining {
    pub(crate) address: Address,
    pub(crate) worker: WorkerName,
    pub(crate) password: String,
    pub(crate) slots: Option<u32>,
    /// The certificate that the master is known by, in PEM.
    pub(crate) authority: String,
    pub(crate) admin: Option<String>,
}

/// The plan of a worker that joins, and its instance.
pub(crate) fn join(
    common: &Common,
    joining: Joining,
    context: &Context,
) -> anyhow::Result<(Plan, InstanceRef)> {
    let wish = Wish {
        name: common.name.clone(),
        master: Some(joining.address.to_string()),
        worker_name: Some(joining.worker),
        user: common.user.clone(),
        tls: true,
        has_password: true,
        is_invited: true,
    };
    let more = More {
        password: Some(joining.password),
        authority: Some(joining.authority),
        details: Details {
            slots: joining.slots,
            tags: Vec::new(),
        },
        admin: joining.admin,
        asked: Asked::default(),
    };
    let (mut plan, reference) = planned(common, &wish, more, context)?;
    plan.title = format!("join {}", title(&reference));
    Ok((plan, reference))
}

/// What is not decided from.
struct More {
    password: Option<String>,
    authority: Option<String>,
    admin: Option<String>,
    details: Details,
    asked: Asked,
}

pub(super) fn plan(arguments: &Arguments, context: &Context) -> anyhow::Result<(Plan, Closing)> {
    let common = &arguments.common;
    let given = password::given(common)?;
    let wish = Wish {
        name: common.name.clone(),
        master: arguments.master.clone(),
        worker_name: arguments.worker_name.clone(),
        user: common.user.clone(),
        tls: arguments.tls,
        has_password: given.is_some(),
        is_invited: false,
    };
    let reference = InstanceRef {
        role: Role::Worker,
        name: common.name.clone(),
    };
    if let Some(record) = WorkerRecord::read(&reference, context) {
        let draft = Draft::new(reference.clone(), context)?;
        if draft.is_there(context) {
            let is_as_asked = is_as_asked(arguments, given.as_ref(), draft, &record, context)?;
            return already(&reference, is_as_asked, context);
        }
    }
    let more = More {
        password: given,
        authority: None,
        admin: arguments.admin.clone(),
        details: Details {
            slots: arguments.slots,
            tags: arguments.tags.clone(),
        },
        asked: asked(arguments),
    };
    let (plan, reference) = planned(common, &wish, more, context)?;
    Ok((plan, Box::new(move || closing(&reference))))
}

/// Whether a worker that is there was made with the same words.
fn is_as_asked(
    arguments: &Arguments,
    password: Option<&String>,
    mut draft: Draft,
    record: &WorkerRecord,
    context: &Context,
) -> anyhow::Result<bool> {
    let common = &arguments.common;
    // Of a directory that is configured, nothing depends on a home.
    let (user, home) = (common.user.as_deref(), Path::new("/"));
    let instance = place::settle(&mut draft, common, user, home, context)?;
    let is_master = |master: &String| {
        let with_port = format!("{master}:{WORKER_PORT}");
        let address = master.parse().or_else(|_| with_port.parse());
        let address = address.map(|address: Address| address.to_string());
        record.instance.as_ref() == Some(master)
            || address.is_ok_and(|address| address == record.master)
    };
    let mut credentials = instance.credentials.iter();
    let file = credentials.find(|(name, _)| name.as_str() == WORKER_CREDENTIAL);
    let file = file.map(|(_, file)| context.path(file.as_str()));
    let name = arguments.worker_name.as_ref();
    Ok(draft.is_same()
        && arguments.master.as_ref().is_none_or(is_master)
        && name.is_none_or(|name| name.as_str() == record.worker)
        && record.asked.is_as(&asked(arguments))
        && has_password(password, file.as_deref()))
}

/// What only the files of a worker and its master say otherwise.
fn asked(arguments: &Arguments) -> Asked {
    Asked {
        tls: arguments.tls,
        slots: arguments.slots,
        tags: arguments.tags.clone(),
        admin: arguments.admin.clone(),
    }
}

fn planned(
    common: &Common,
    wish: &Wish,
    more: More,
    context: &Context,
) -> anyhow::Result<(Plan, InstanceRef)> {
    let mut draft = Draft::of_worker(wish, context)?;
    let facts = facts::read(wish, common, &draft, context)?;
    let decision = decide(wish, &facts)?;
    let user = decision.user.as_deref();
    let instance = place::settle(&mut draft, common, user, &decision.home, context)?;
    place::refuse(&instance, context)?;
    decision.worker.check_slots(more.details.slots)?;
    if decision.master.is_none() && !more.details.tags.is_empty() {
        bail!(
            "tags are set on the master's host\nhint: there, `buildbot-conda invite NAME --tag TAG`"
        );
    }
    let password = password_of(&decision, more.password, common.manner.dry_run, context)?;
    let naming = match &decision.master {
        Some(master) => name(master, &decision, password.as_ref(), &more.details, context)?,
        None => Naming::default(),
    };
    let notes = [format!(
        "{}, worker `{}` of the master at {}",
        place::description(&decision.reference, &instance),
        decision.worker.as_str(),
        decision.way
    )];
    let missing = place::missing(&instance, context);
    let missing = missing.map(|(packages, how)| {
        format!(
            "the environment lacks {packages}, which a worker imports and conda-forge's `buildbot-worker` \
             does not include; {how}"
        )
    });
    let notes = notes
        .into_iter()
        .chain(naming.note.clone())
        .chain(missing)
        .collect();
    let made = Worker {
        decision: &decision,
        instance: &instance,
        password: password.as_deref(),
        admin: more.admin.as_deref(),
        authority: more.authority.as_deref(),
        slots: more.details.slots,
        asked: &more.asked,
    };
    let plan = Plan {
        title: format!("create {}", title(&decision.reference)),
        notes,
        steps: steps(&made, draft, naming, context)?,
    };
    Ok((plan, decision.reference))
}

/// What it does at the end. One that is not at its master is not said to run.
fn closing(reference: &InstanceRef) -> String {
    let status = status_file::read(paths::status_file(reference).as_ref());
    let worker = status.as_ref().and_then(|status| status.worker.as_ref());
    let state = match worker {
        Some(worker) if worker.connection == "connected" => "runs",
        Some(_) => "is started, but not connected to its master yet; it keeps trying",
        None => "is set up",
    };
    format!("`{reference}` {state}; `buildbot-conda status {reference}` shows its state")
}

/// The password that is to be written or handed over. A dry run asks nobody for what is not going to be used.
fn password_of(
    decision: &Decision,
    given: Option<String>,
    dry_run: bool,
    context: &Context,
) -> anyhow::Result<Option<String>> {
    Ok(match &decision.secret {
        Secret::Present(file) => {
            let path = context.path(paths::CREDENTIALS).join(file);
            let text = fs::read_to_string(path).unwrap_or_default();
            text.lines().next().map(str::to_owned)
        }
        Secret::Given(_) => given,
        _ if dry_run => Some(String::new()),
        Secret::Generated(_) => Some(passwords::generate()?),
        Secret::Asked(_) => {
            let way = &decision.way;
            Some(prompt::ask_unseen(&format!(
                "password of the worker at {way}"
            ))?)
        }
    })
}

/// How the master gets to know it.
fn name(
    master: &Master,
    decision: &Decision,
    password: Option<&String>,
    details: &Details,
    context: &Context,
) -> anyhow::Result<Naming> {
    let record = master.record.as_ref();
    let first = record.and_then(|record| record.worker_credential.as_deref());
    let details = (*details != Details::default()).then(|| details.clone());
    let workers = match first {
        None if details.is_some() => bail!(
            "the workers of `{}` are listed in its `master.cfg`, which supports neither slots nor tags\n\
             hint: omit `--slots` and `--tag`",
            master.instance.reference
        ),
        None => Workers::Listed,
        Some(first) => {
            let is_first = decision.secret.file() == first;
            Workers::Tabled {
                details,
                password: password.filter(|_| !is_first).cloned(),
            }
        }
    };
    naming::add(&master.instance, &decision.worker, &workers, context)
}

/// What the steps need.
struct Worker<'a> {
    decision: &'a Decision,
    instance: &'a Instance,
    password: Option<&'a str>,
    admin: Option<&'a str>,
    authority: Option<&'a str>,
    slots: Option<u32>,
    asked: &'a Asked,
}

fn steps(
    worker: &Worker<'_>,
    mut draft: Draft,
    naming: Naming,
    context: &Context,
) -> anyhow::Result<Vec<Step>> {
    let Worker {
        decision, instance, ..
    } = worker;
    let reference = &decision.reference;
    let mut steps = Vec::new();
    if decision.makes_account && account_of(instance, context).is_none() {
        let account = AccountStep::CreateAccount {
            name: instance.user.clone(),
            home: decision.home.clone(),
        };
        steps.push(account.into());
    }
    let file = decision.secret.file();
    if let (Some(password), false) = (
        worker.password,
        matches!(decision.secret, Secret::Present(_)),
    ) {
        credential(file, password, context, &mut steps);
    }
    draft.set(&format!("credentials.{WORKER_CREDENTIAL}"), file)?;
    steps.extend(draft.step(context));
    steps.extend(plan::give(instance, &decision.home, context)?);
    let start = WorkerStart {
        reference: reference.clone(),
        name: decision.worker.clone(),
        way: decision.way.clone(),
        slots: worker.slots,
    };
    let set_up = UserStep::Fill {
        identity: Identity::of(instance),
        directory: context.path(instance.directory.as_str()),
        contents: Contents {
            database: None,
            url: None,
            files: files(&start, worker, context)?,
        },
    };
    steps.push(set_up.into());
    let record = WorkerRecord {
        asked: worker.asked.clone(),
        ..decision.record.clone()
    };
    steps.extend(plan::note(&record, reference, context)?);
    steps.extend(naming.steps);
    enable_and_start(reference, context, &mut steps);
    if matches!(steps.last(), Some(Step::Unit(UnitStep::Start { .. }))) {
        // Only where the master is there and knows it is it anybody's fault when it does not connect.
        let is_there = match &decision.master {
            Some(master) => naming::is_running(&master.instance, context)?,
            None => false,
        };
        let unit = reference.unit();
        let required = naming.is_named && is_there || worker.authority.is_some();
        steps.push(UnitStep::AwaitConnection { unit, required }.into());
    }
    Ok(steps)
}

fn files(start: &WorkerStart, worker: &Worker<'_>, context: &Context) -> anyhow::Result<Vec<Made>> {
    let admin = worker.admin.unwrap_or("root of this host");
    if admin.chars().any(char::is_control) {
        bail!("`--admin` contains control characters");
    }
    let host = std::fs::read_to_string(context.path("/etc/hostname")).unwrap_or_default();
    let host = host.lines().next().unwrap_or_default().trim();
    let host = if host.is_empty() { "unnamed" } else { host };
    let made = |path: &str, text: String, mode| Made {
        path: path.into(),
        text,
        mode: Mode::new(mode),
    };
    let authority = worker.authority.map(|text| {
        let path = format!("{TRUST}/authority.pem");
        made(&path, text.to_owned(), 0o644)
    });
    let files = [
        made("info/admin", format!("{admin}\n"), 0o644),
        made("info/host", format!("{host}, {}\n", start.reference), 0o644),
        made("buildbot.tac", starter::worker_tac(start), 0o600),
    ];
    Ok(authority.into_iter().chain(files).collect())
}
