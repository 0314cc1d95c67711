//! `create master [NAME]`.

use std::fs;
use std::net::TcpListener;

use anyhow::bail;
use buildbot_conda_core::names::{InstanceRef, Role};
use buildbot_conda_core::paths;
use buildbot_conda_core::settings::Instance;
use buildbot_conda_core::starter::{
    self, LOGIN, LOGIN_CREDENTIAL, MasterStart, PASSWORDS, WORKER_TABLE, WorkerName,
};
use clap::Args;

use super::{Closing, Common, Draft, credential, enable_and_start, password, place};
use crate::inside::fill::{Contents, Made};
use crate::plan::{self, Plan, UserStep};
use crate::system::context::{Context, InvalidConfiguration};
use crate::system::passwords;
use crate::system::record::{Noted as _, Record};
use crate::system::values::{Identity, Mode};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(super) common: Common,
    /// Port of the web pages on this machine; by default 8010, or the next one that is free
    #[arg(long, value_name = "PORT")]
    web_port: Option<u16>,
    /// Port for the workers on this machine, instead of a socket that nobody else can take
    #[arg(long, value_name = "PORT")]
    worker_port: Option<u16>,
}

/// Upstream's own port.
const WEB_PORT: u16 = 8010;
/// The one worker that a new master knows.
const WORKER: &str = "worker";
/// How many ports are tried.
const PORTS: u16 = 100;

pub(super) fn plan(arguments: &Arguments, context: &Context) -> anyhow::Result<(Plan, Closing)> {
    let common = &arguments.common;
    let reference = InstanceRef {
        role: Role::Master,
        name: common.name.clone(),
    };
    let mut draft = Draft::new(reference.clone(), context)?;
    let user = match &common.user {
        Some(user) => user.clone(),
        None => configured_user(&draft)?,
    };
    let home = place::home(&user, context)?;
    let instance = place::settle(&mut draft, common, common.user.as_deref(), &home, context)?;
    place::refuse(&instance, context)?;
    let others = records_of_others(&draft, context);
    let start = MasterStart {
        reference: reference.clone(),
        web_port: port(arguments.web_port, &others, context)?,
        worker_port: match arguments.worker_port {
            Some(given) => Some(port(Some(given), &others, context)?),
            None => None,
        },
    };
    let secrets = Secrets::new(&reference, common, context)?;

    let mut steps = Vec::new();
    for (file, password) in secrets.new_files() {
        credential(file, password, context, &mut steps);
    }
    draft.set(&format!("credentials.{LOGIN_CREDENTIAL}"), &secrets.login.0)?;
    steps.extend(draft.step(context));
    steps.extend(plan::give(&instance, &home, context)?);
    let worker: WorkerName = WORKER.parse()?;
    let set_up = UserStep::Fill {
        identity: Identity::of(&instance),
        directory: context.path(instance.directory.as_str()),
        contents: Contents {
            database: Some(reference.clone()),
            files: files(&start, &worker, &secrets),
        },
    };
    steps.push(set_up.into());
    let record = Record {
        web_port: start.web_port,
        worker_port: start.worker_port,
        worker: worker.as_str().to_owned(),
        worker_credential: Some(secrets.worker.0.clone()),
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
            place::told(&reference, &instance),
            format!("{}, workers at {workers}", pages.announcement()),
        ],
        steps,
    };
    let closing = closing(&instance, &pages, &secrets);
    Ok((plan, Box::new(move || closing.clone())))
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
            Some((packages, _)) => format!("no web pages, since the environment has no {packages}"),
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
    let (file, password) = &secrets.login;
    let password = match password {
        Some(password) => format!("the password `{password}`"),
        None => format!("the password in `{}/{file}`", paths::CREDENTIALS),
    };
    let Pages { port, missing } = pages;
    let place = match missing {
        None => format!(
            "is at http://localhost:{port}/, where everybody on this machine can read; to start builds, log in as \
             `{LOGIN}` with {password}"
        ),
        Some((packages, how)) => format!(
            "runs without web pages: the environment has no {packages}; {how}, and after `systemctl restart {}` they are \
             at http://localhost:{port}/, for `{LOGIN}` with {password}",
            reference.unit_name()
        ),
    };
    format!(
        "`{reference}` {place}\n\
         its `{}/master.cfg` is yours; next: `{next}`",
        instance.directory
    )
}

/// The passwords of a new master: that of its web pages, and that of its first worker. Each with its file in the
/// credentials directory; without a text where one of before is there.
struct Secrets {
    login: (String, Option<String>),
    worker: (String, Option<String>),
    /// What the first worker logs in with.
    worker_password: String,
}

impl Secrets {
    fn new(reference: &InstanceRef, common: &Common, context: &Context) -> anyhow::Result<Self> {
        let [login, worker] = match &reference.name {
            None => [LOGIN_CREDENTIAL.to_owned(), "password-of-worker".to_owned()],
            Some(name) => [
                format!("{LOGIN_CREDENTIAL}-{name}"),
                format!("password-of-first-worker-{name}"),
            ],
        };
        let path = |file: &str| context.path(paths::CREDENTIALS).join(file);
        let generated = |file: &str| -> anyhow::Result<Option<String>> {
            if path(file).exists() {
                return Ok(None);
            }
            passwords::generate().map(Some)
        };
        let given = password::given(common)?;
        if given.is_some() && path(&worker).exists() {
            bail!(
                "the credential `{worker}` is there already\nhint: leave the password out to use it"
            );
        }
        let new = match given {
            Some(given) => Some(given),
            None => generated(&worker)?,
        };
        // A worker elsewhere may know the one that is there.
        let worker_password = if let Some(password) = &new {
            password.clone()
        } else {
            let text = fs::read_to_string(path(&worker)).unwrap_or_default();
            text.lines().next().unwrap_or_default().to_owned()
        };
        Ok(Self {
            login: (login.clone(), generated(&login)?),
            worker: (worker, new),
            worker_password,
        })
    }

    fn new_files(&self) -> impl Iterator<Item = (&str, &str)> {
        [&self.login, &self.worker]
            .into_iter()
            .filter_map(|(file, password)| Some((file.as_str(), password.as_deref()?)))
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
        made(WORKER_TABLE, starter::worker_table(worker)),
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

/// The account of the instance's table, or the defaults'.
pub(super) fn configured_user(draft: &Draft) -> anyhow::Result<String> {
    let settings = draft.settings();
    if let Ok(instance) = settings.instance(&draft.reference) {
        return Ok(instance.user.as_str().to_owned());
    }
    let defaults = settings.defaults().map_err(InvalidConfiguration::from)?;
    Ok(defaults.user.as_str().to_owned())
}

/// Ports of masters that may be down at the moment.
fn records_of_others(draft: &Draft, context: &Context) -> Vec<u16> {
    let settings = draft.settings();
    settings
        .references()
        .filter(|other| **other != draft.reference)
        .filter_map(|other| Record::read(other, context))
        .flat_map(|record| [Some(record.web_port), record.worker_port])
        .flatten()
        .collect()
}

fn port(given: Option<u16>, others: &[u16], context: &Context) -> anyhow::Result<u16> {
    // Elsewhere, nobody listens yet.
    let is_free = |port: u16| {
        !others.contains(&port)
            && (context.is_elsewhere() || TcpListener::bind(("127.0.0.1", port)).is_ok())
    };
    if let Some(port) = given {
        if !is_free(port) {
            bail!(
                "the port {port} is in use\nhint: name another one, or none, and a free one is taken"
            );
        }
        return Ok(port);
    }
    match (WEB_PORT..WEB_PORT + PORTS).find(|port| is_free(*port)) {
        Some(port) => Ok(port),
        None => bail!(
            "no port from {WEB_PORT} to {} is free",
            WEB_PORT + PORTS - 1
        ),
    }
}
