//! Whether an instance can run from a generation that does not serve yet. Everything is asked of the generation's own
//! Buildbot, as the service user, with the unit's sandbox and credentials: this program runs once more for it, as
//! `service try`.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use buildbot_conda_core::names::{InstanceRef, Role};
use buildbot_conda_core::settings::{Instance, Upgrade};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::database::Master;
use crate::database::facts::{Facts, Relation};
use crate::output;
use crate::system::activation;
use crate::system::as_user;
use crate::system::checkconfig::{Checked, checkconfig};
use crate::system::context::{Context, InvalidConfiguration};

/// How long all of it may take, in addition to the reading of a configuration.
const PATIENCE: Duration = Duration::from_mins(3);

/// Prints the version of the interpreter's Buildbot.
const VERSION: &str = "import sys, importlib; print(importlib.import_module(sys.argv[1]).version)";

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[arg(value_name = "REF")]
    reference: InstanceRef,
    #[arg(value_name = "PREFIX")]
    prefix: PathBuf,
}

/// What was found out.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Version of Buildbot.
    pub(crate) buildbot: String,
    /// Whether the start would upgrade a master's database.
    pub(crate) upgrades: bool,
}

/// Tries `prefix` for an instance, as its user.
pub(crate) fn attempt(instance: &Instance, prefix: &Path) -> anyhow::Result<Outcome> {
    let reference = &instance.reference;
    let words: [OsString; 4] = [
        "service".into(),
        "try".into(),
        reference.to_string().into(),
        prefix.into(),
    ];
    let limit = instance.start_timeout.saturating_add(PATIENCE);
    let answer = as_user::ask(instance, &words, limit)?;
    if !answer.is_success {
        let text = answer.said.join("\n");
        let text = text.trim().trim_start_matches("error: ");
        bail!("`{reference}` would fail to start: {text}");
    }
    // It has run code of the service user, which may print anything: only what is understood is used.
    serde_json::from_slice(&answer.stdout)
        .map_err(|_| anyhow!("`{reference}` would fail to start: no answer"))
}

/// The part that runs as the service user.
pub(crate) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    let settings = context.settings()?;
    let configured = settings
        .instance(&arguments.reference)
        .map_err(InvalidConfiguration::from)?;
    let prefix = arguments.prefix.to_str().context("read a path")?;
    let instance = Instance {
        conda_env: prefix.parse().map_err(|error| anyhow!("{error}"))?,
        ..configured.clone()
    };
    let module = match instance.reference.role {
        Role::Master => "buildbot",
        Role::Worker => "buildbot_worker",
    };
    let buildbot = version(&instance, module)?;
    let upgrades = match instance.reference.role {
        Role::Master => try_master(&instance, context)?,
        Role::Worker => false,
    };
    let outcome = Outcome { buildbot, upgrades };
    output::print(serde_json::to_string(&outcome).context("write an answer")?)
}

fn version(instance: &Instance, module: &str) -> anyhow::Result<String> {
    let chain = activation::of_instance(
        instance,
        activation::python_of(instance).into(),
        ["-c", VERSION, module].map(OsString::from).to_vec(),
        BTreeMap::new(),
    )?;
    let output = Command::new(&chain.program)
        .args(&chain.arguments)
        .env_clear()
        .envs(&chain.environment)
        .current_dir("/")
        .output()
        .with_context(|| format!("run `{}`", chain.program.to_string_lossy()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.trim().lines().next_back().unwrap_or("no reason given");
        bail!("Python cannot import `{module}`: {last}");
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Whether its start would upgrade the database.
fn try_master(instance: &Instance, context: &Context) -> anyhow::Result<bool> {
    let credentials = env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    match checkconfig(instance, credentials.as_deref())? {
        Checked::Good => {}
        Checked::Ended(said) | Checked::Refused(said) => {
            bail!("`buildbot checkconfig` fails:\n{}", said.trim_end())
        }
    }
    let master = Master::new(instance, context)?;
    let facts = Facts::ask(&master, None, false)?;
    match (facts.relation, instance.upgrade) {
        (Relation::Current | Relation::Empty, _) => Ok(false),
        (Relation::Older, Upgrade::Auto) => Ok(true),
        (Relation::Older, Upgrade::Manual) => bail!(
            "Buildbot {} needs schema {} of the database, but `upgrade = \"manual\"` prevents an upgrade",
            facts.buildbot,
            facts.head_text()
        ),
        (Relation::Newer, _) => bail!(
            "the database is at schema {}, which Buildbot {} does not support yet",
            facts.revision_text(),
            facts.buildbot
        ),
        (Relation::Damaged, _) => bail!("the database `{}` cannot be read", facts.place),
    }
}
