//! `create master [NAME]`.

use std::net::TcpListener;

use anyhow::bail;
use buildbot_conda_core::names::{InstanceRef, Role};
use buildbot_conda_core::starter::{self, MASTER_CREDENTIAL, MasterStart};
use clap::Args;

use super::{Common, Draft, credential, enable_and_start, password, place};
use crate::inside::fill::{Contents, Made};
use crate::plan::{self, Plan, UserStep};
use crate::system::context::{Context, InvalidConfiguration};
use crate::system::record::{Noted as _, Record};
use crate::system::values::{Identity, Mode};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(super) common: Common,
    /// Port of the web pages on this machine; by default 8010, or the next one that is free
    #[arg(long, value_name = "PORT")]
    web_port: Option<u16>,
    /// Port of the workers on this machine; by default 9989, or the next one that is free
    #[arg(long, value_name = "PORT")]
    worker_port: Option<u16>,
}

/// Upstream's own ports.
const WEB_PORT: u16 = 8010;
const WORKER_PORT: u16 = 9989;
/// How many ports are tried.
const PORTS: u16 = 100;

pub(super) fn plan(arguments: &Arguments, context: &Context) -> anyhow::Result<(Plan, String)> {
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
        web_port: port(arguments.web_port, WEB_PORT, &others, context)?,
        worker_port: port(arguments.worker_port, WORKER_PORT, &others, context)?,
        worker: "worker".parse()?,
    };

    let mut steps = Vec::new();
    let file = match &reference.name {
        None => MASTER_CREDENTIAL.to_owned(),
        Some(name) => format!("{MASTER_CREDENTIAL}-{name}"),
    };
    let is_there = context
        .path(&format!(
            "{}/{file}",
            buildbot_conda_core::paths::CREDENTIALS
        ))
        .exists();
    match password::given(common)? {
        Some(_) if is_there => bail!(
            "the credential `{file}` is there already\nhint: leave the password out to use it"
        ),
        Some(password) => credential(&file, &password, context, &mut steps),
        // A worker elsewhere may know the one that is there.
        None if is_there => {}
        None => credential(&file, &password::generate()?, context, &mut steps),
    }
    draft.set(&format!("credentials.{MASTER_CREDENTIAL}"), &file)?;
    steps.extend(draft.step(context));
    steps.extend(plan::give(&instance, &home, context)?);
    steps.push(
        UserStep::Fill {
            identity: Identity::of(&instance),
            directory: context.path(instance.directory.as_str()),
            contents: Contents {
                database: Some(reference.clone()),
                files: vec![Made {
                    path: "master.cfg".into(),
                    text: starter::master_cfg(&start),
                    mode: Mode::new(0o600),
                }],
            },
        }
        .into(),
    );
    let record = Record {
        web_port: start.web_port,
        worker_port: start.worker_port,
        worker: start.worker.as_str().to_owned(),
    };
    steps.extend(plan::note(&record, &reference, context)?);
    enable_and_start(&reference, context, &mut steps);
    let next = match &reference.name {
        None => "buildbot-conda create worker".to_owned(),
        Some(_) => format!("buildbot-conda create worker NAME --master {reference}"),
    };
    let closing = format!(
        "`{reference}` is at http://localhost:{}/, its `{}/master.cfg` is yours; next: `{next}`",
        start.web_port, instance.directory
    );
    let plan = Plan {
        title: format!("create {}", title(&reference)),
        notes: vec![
            place::told(&reference, &instance),
            format!(
                "web pages at http://localhost:{}/, workers at localhost:{}",
                start.web_port, start.worker_port
            ),
        ],
        steps,
    };
    Ok((plan, closing))
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
        .flat_map(|record| [record.web_port, record.worker_port])
        .collect()
}

fn port(given: Option<u16>, first: u16, others: &[u16], context: &Context) -> anyhow::Result<u16> {
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
    match (first..first + PORTS).find(|port| is_free(*port)) {
        Some(port) => Ok(port),
        None => bail!("no port from {first} to {} is free", first + PORTS - 1),
    }
}
