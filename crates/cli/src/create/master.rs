//! `create master [NAME]`: what is on the host is read once, what follows from it is decided (`decision`), and then the
//! steps are listed.

pub(super) mod database;
mod decision;

use std::fs;
use std::net::TcpListener;

use anyhow::ensure;
use buildbot_conda_core::names::{InstanceRef, Role};
use buildbot_conda_core::paths;
use buildbot_conda_core::settings::Instance;
use buildbot_conda_core::starter::{
    self, DATABASE_CREDENTIAL, LOGIN, LOGIN_CREDENTIAL, MasterStart, PASSWORDS, WORKER_TABLE,
    WorkerName,
};
use clap::Args;

use self::decision::{Decision, Facts, Wish, decide};
use super::decision::Secret;
use super::facts::credentials;
use super::{
    Closing, Common, Draft, already, credential, enable_and_start, has_password, password, place,
};
use crate::inside::fill::{Contents, Made};
use crate::plan::{self, Plan, UserStep};
use crate::system::context::Context;
use crate::system::passwords;
use crate::system::record::{Noted as _, Record};
use crate::system::values::{Identity, Mode};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(super) common: Common,
    /// Port of the web pages on this machine; by default 8010, or the next free port
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    web_port: Option<u16>,
    /// Port for the workers on this machine, instead of a protected socket
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    worker_port: Option<u16>,
    #[command(flatten)]
    database: database::Choice,
}

/// The one worker that a new master knows.
const WORKER: &str = "worker";

pub(super) fn plan(arguments: &Arguments, context: &Context) -> anyhow::Result<(Plan, Closing)> {
    let common = &arguments.common;
    let reference = InstanceRef {
        role: Role::Master,
        name: common.name.clone(),
    };
    ensure!(
        !(common.password_stdin && arguments.database.is_on_stdin()),
        "`--password-stdin` and `--database-file -` both read standard input\n\
         hint: write one of the two to a file that only root can read"
    );
    let wanted = arguments.database.wanted()?;
    let mut draft = Draft::new(reference.clone(), context)?;
    let user = match &common.user {
        Some(user) => user.clone(),
        None => draft.configured_user()?,
    };
    let home = place::home(&user, context)?;
    let instance = place::settle(&mut draft, common, common.user.as_deref(), &home, context)?;
    let given = password::given(common)?;
    if let Some(record) = Record::read(&reference, context)
        && draft.is_there(context)
    {
        let is_as_asked =
            draft.is_same() && is_as_asked(arguments, &wanted, given.as_ref(), &record, context);
        return already(&reference, is_as_asked, context);
    }
    place::refuse(&instance, context)?;
    let database = wanted.settle(&instance, context)?;
    let wish = Wish {
        reference: reference.clone(),
        web_port: arguments.web_port,
        worker_port: arguments.worker_port,
        has_password: given.is_some(),
    };
    let Decision {
        mut start,
        login,
        worker,
    } = decide(&wish, &facts(&wish, &draft, context))?;
    start.database = database.start;
    let secrets = Secrets::new(&login, &worker, given, context)?;

    let mut steps = Vec::new();
    for (file, password) in secrets.new_files() {
        credential(file, password, context, &mut steps);
    }
    draft.set(
        &format!("credentials.{LOGIN_CREDENTIAL}"),
        secrets.login.0.file(),
    )?;
    if let (Some(file), Some(url)) = (&database.credential, &database.url) {
        credential(file, url, context, &mut steps);
        draft.set(&format!("credentials.{DATABASE_CREDENTIAL}"), file)?;
    }
    steps.extend(draft.step(context));
    steps.extend(plan::give(&instance, &home, context)?);
    steps.extend(database.steps);
    let worker: WorkerName = WORKER.parse()?;
    let set_up = UserStep::Fill {
        identity: Identity::of(&instance),
        directory: context.path(instance.directory.as_str()),
        contents: Contents {
            database: Some(reference.clone()),
            url: database.url,
            files: files(&start, &worker, &secrets),
        },
    };
    steps.push(set_up.into());
    let record = Record {
        web_port: start.web_port,
        worker_port: start.worker_port,
        worker: worker.as_str().to_owned(),
        worker_credential: Some(secrets.worker.0.file().to_owned()),
        database: database.record,
    };
    steps.extend(plan::note(&record, &reference, context)?);
    enable_and_start(&reference, context, &mut steps);
    let workers = match start.worker_port {
        Some(port) => format!("localhost:{port}"),
        None => format!("`{}`", paths::worker_socket(&reference)),
    };
    let pages = Pages {
        port: start.web_port,
        missing: place::missing(&instance, context),
    };
    let plan = Plan {
        title: format!("create {}", title(&reference)),
        notes: vec![
            place::description(&reference, &instance),
            format!("{}, workers at {workers}", pages.announcement()),
        ],
        steps,
    };
    let closing = closing(&instance, &pages, &secrets);
    Ok((plan, Box::new(move || closing.clone())))
}

/// Whether a master that is there was made with the same words.
fn is_as_asked(
    arguments: &Arguments,
    database: &database::Wanted,
    password: Option<&String>,
    record: &Record,
    context: &Context,
) -> bool {
    let file = record.worker_credential.as_ref();
    let file = file.map(|file| context.path(paths::CREDENTIALS).join(file));
    arguments
        .web_port
        .is_none_or(|port| port == record.web_port)
        && (arguments.worker_port.is_none() || arguments.worker_port == record.worker_port)
        && arguments.database.is_as(database, record.database.as_ref())
        && has_password(password, file.as_deref())
}

/// The web pages of a new master, which only an environment with `buildbot-www` has.
struct Pages {
    port: u16,
    /// What is missing, and how it is installed.
    missing: Option<(String, String)>,
}

impl Pages {
    fn announcement(&self) -> String {
        match &self.missing {
            None => format!("web pages at http://localhost:{}/", self.port),
            Some((packages, _)) => {
                format!("no web pages, because the environment lacks {packages}")
            }
        }
    }
}

/// What is said at the end; the only time that the password is shown.
fn closing(instance: &Instance, pages: &Pages, secrets: &Secrets) -> String {
    let reference = &instance.reference;
    let next = match &reference.name {
        None => "buildbot-conda create worker".to_owned(),
        Some(_) => format!("buildbot-conda create worker NAME --master {reference}"),
    };
    let (secret, password) = &secrets.login;
    let password = match password {
        Some(password) => format!("the password `{password}`"),
        None => format!("the password in `{}/{}`", paths::CREDENTIALS, secret.file()),
    };
    let Pages { port, missing } = pages;
    let place = match missing {
        None => format!(
            "runs at http://localhost:{port}/, where everybody on this machine can read; to start builds, log in as \
             `{LOGIN}` with {password}"
        ),
        Some((packages, how)) => format!(
            "runs without web pages: the environment lacks {packages}; {how}; after `systemctl restart {}` \
             they are at http://localhost:{port}/, for `{LOGIN}` with {password}",
            reference.unit_name()
        ),
    };
    format!(
        "`{reference}` {place}\n\
         edit `{}/master.cfg` to configure it; next: `{next}`",
        instance.directory
    )
}

/// The texts of the passwords of a new master, by the decision on each.
struct Secrets {
    login: (Secret, Option<String>),
    worker: (Secret, Option<String>),
    /// What the first worker logs in with.
    worker_password: String,
}

impl Secrets {
    fn new(
        login: &Secret,
        worker: &Secret,
        given: Option<String>,
        context: &Context,
    ) -> anyhow::Result<Self> {
        let text = |secret: &Secret, given: Option<String>| match secret {
            Secret::Generated(_) => passwords::generate().map(Some),
            Secret::Given(_) => Ok(given),
            Secret::Present(_) | Secret::Asked(_) => Ok(None),
        };
        let new = text(worker, given)?;
        // A worker elsewhere may know the one that is there.
        let worker_password = if let Some(password) = &new {
            password.clone()
        } else {
            let path = context.path(paths::CREDENTIALS).join(worker.file());
            let text = fs::read_to_string(path).unwrap_or_default();
            text.lines().next().unwrap_or_default().to_owned()
        };
        Ok(Self {
            login: (login.clone(), text(login, None)?),
            worker: (worker.clone(), new),
            worker_password,
        })
    }

    fn new_files(&self) -> impl Iterator<Item = (&str, &str)> {
        [&self.login, &self.worker]
            .into_iter()
            .filter_map(|(secret, password)| Some((secret.file(), password.as_deref()?)))
    }
}

fn files(start: &MasterStart, worker: &WorkerName, secrets: &Secrets) -> Vec<Made> {
    let made = |path: &str, text: String| Made {
        path: path.into(),
        text,
        mode: Mode::new(0o600),
    };
    vec![
        made("master.cfg", starter::master_cfg(start)),
        made(WORKER_TABLE, starter::worker_table([worker])),
        made(
            &format!("{PASSWORDS}/{}", worker.as_str()),
            format!("{}\n", secrets.worker_password),
        ),
    ]
}

/// `master`, `master nightly`: as it is typed.
pub(super) fn title(reference: &InstanceRef) -> String {
    reference.to_string().replace('@', " ")
}

/// What there is on the host that a new master depends on, read once.
fn facts(wish: &Wish, draft: &Draft, context: &Context) -> Facts {
    let settings = draft.settings();
    let others = settings
        .references()
        .filter(|other| **other != draft.reference)
        .filter_map(|other| Record::read(other, context))
        .flat_map(|record| [Some(record.web_port), record.worker_port])
        .flatten();
    // Elsewhere, nobody listens yet.
    let is_taken =
        |port: &u16| !context.is_elsewhere() && TcpListener::bind(("127.0.0.1", *port)).is_err();
    Facts {
        taken_ports: wish.ports().filter(is_taken).chain(others).collect(),
        credentials: credentials(context),
    }
}
