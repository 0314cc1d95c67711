//! The answers of the environment's Python and of its Buildbot. Both are programs of the service user.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use buildbot_conda_core::foreign_text::ForeignText;
use buildbot_conda_core::settings::Instance;
use serde::{Deserialize, Serialize};

use super::{heard, last_of};
use crate::database::dump::{self, Trouble};
use crate::database::facts::{Facts, Relation};
use crate::database::mark::Mark;
use crate::database::{Failure, Master};
use crate::doctor::finding::Check;
use crate::system::activation;
use crate::system::context::Context;

const PROGRAM: &str = concat!(
    include_str!("../../../../launcher/buildbot_conda_runner/causes.py"),
    include_str!("probe.py")
);
/// Imports, and a worker's tac.
const LIMIT: Duration = Duration::from_mins(1);
/// The beginning of the message in which our shell reports a script that did not return.
pub(in crate::doctor) const ACTIVATION_SCRIPT: &str = "the activation script `";

/// What `probe.py` answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::doctor) struct PythonFacts {
    pub(in crate::doctor) version: ForeignText,
    /// Where it thinks it is.
    pub(in crate::doctor) prefix: ForeignText,
    /// Modules that cannot be imported, and why.
    pub(in crate::doctor) imports: BTreeMap<ForeignText, ForeignText>,
    /// Modules that Buildbot does without.
    #[serde(default)]
    pub(in crate::doctor) missing: Vec<ForeignText>,
    /// Entry points that cannot be loaded, and why.
    pub(in crate::doctor) plugins: BTreeMap<ForeignText, ForeignText>,
    pub(in crate::doctor) bytecode: Option<Bytecode>,
    pub(in crate::doctor) tac: Option<Tac>,
    /// Settings of the tac that are alone on a line.
    pub(in crate::doctor) editable: Vec<ForeignText>,
}

/// How much of Buildbot is compiled.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(in crate::doctor) struct Bytecode {
    /// Whether a start can write what is missing.
    pub(in crate::doctor) writable: bool,
    pub(in crate::doctor) sources: usize,
    pub(in crate::doctor) missing: usize,
}

/// The settings of a worker's tac.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(in crate::doctor) struct Tac {
    /// Why it cannot be run.
    pub(in crate::doctor) failure: Option<ForeignText>,
    pub(in crate::doctor) workers: Vec<WorkerInTac>,
}

/// One `Worker(...)`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::doctor) struct WorkerInTac {
    pub(in crate::doctor) allow_shutdown: Option<ForeignText>,
    /// `HOST:PORT`; none if the worker connects in another way.
    pub(in crate::doctor) target: Option<ForeignText>,
    pub(in crate::doctor) reach: Option<Reach>,
}

/// How far it is to the master.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::doctor) struct Reach {
    /// `dns`, `tcp`, `tls` or `greeting`: the last one tried.
    pub(in crate::doctor) step: ForeignText,
    /// Why it failed; none if it did not.
    pub(in crate::doctor) reason: Option<ForeignText>,
}

/// What Buildbot makes of a master.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(in crate::doctor) struct MasterFacts {
    /// 78, 69 or 1 with Buildbot's words, when it makes nothing of it.
    pub(in crate::doctor) failure: Option<(u8, ForeignText)>,
    /// An upgrade was started and not finished.
    pub(in crate::doctor) is_marked: bool,
    pub(in crate::doctor) database: Option<Database>,
    /// What is listened on, `pb` or `www`, and the TCP port.
    pub(in crate::doctor) ports: Vec<(ForeignText, u16)>,
    /// What builds do inside the master's own service, in Buildbot's words.
    #[serde(default)]
    pub(in crate::doctor) own_work: Vec<ForeignText>,
    /// Where its base directory is, when that is not the instance's.
    #[serde(default)]
    pub(in crate::doctor) elsewhere: Option<ForeignText>,
    /// Why the database cannot be backed up.
    #[serde(default)]
    pub(in crate::doctor) trouble: Option<Trouble>,
}

/// A database as in [`Facts`].
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::doctor) struct Database {
    /// `empty`, `older`, `current`, `newer` or `damaged`.
    pub(in crate::doctor) relation: ForeignText,
    /// `sqlite`, `postgresql`, `mysql` or another one.
    #[serde(default)]
    pub(in crate::doctor) kind: ForeignText,
    /// How the configuration names kind and driver of a server, such as `postgresql+psycopg2`.
    #[serde(default)]
    pub(in crate::doctor) driver: Option<ForeignText>,
    pub(in crate::doctor) place: ForeignText,
    pub(in crate::doctor) revision: ForeignText,
    pub(in crate::doctor) head: ForeignText,
    pub(in crate::doctor) buildbot: ForeignText,
}

pub(super) fn ask(instance: &Instance, checks: &[Check]) -> anyhow::Result<PythonFacts> {
    let python = Path::new(instance.prefix().as_str()).join("bin/python");
    let role = instance.reference.role.as_str();
    let mut words = vec!["-c", PROGRAM, role, instance.directory.as_str()];
    for (check, wish) in [
        (Check::Python, "python"),
        (Check::Plugins, "plugins"),
        (Check::Bytecode, "bytecode"),
        (Check::Tac, "tac"),
        (Check::AllowShutdown, "tac"),
        (Check::Connection, "connection"),
    ] {
        if checks.contains(&check) {
            words.push(wish);
        }
    }
    // Looking leaves nothing behind.
    let extra = BTreeMap::from([("PYTHONDONTWRITEBYTECODE".into(), "1".into())]);
    let words = words.iter().map(Into::into).collect();
    let chain = activation::of_instance(instance, python.clone().into(), words, extra)?;
    // Terminated by a signal that the shell of activation scripts survives for a moment, so that it can name the
    // script.
    let mut command = Command::new("timeout");
    command
        .arg("--kill-after=5")
        .arg(LIMIT.as_secs().to_string())
        .arg(&chain.program)
        .args(&chain.arguments)
        .env_clear()
        .envs(&chain.environment)
        .current_dir("/");
    let began = Instant::now();
    let (answer, said) = heard(command, LIMIT + Duration::from_secs(10))?;
    serde_json::from_slice(&answer).map_err(|_| {
        let script = format!("error: {ACTIVATION_SCRIPT}");
        if let Some(line) = said.iter().find(|line| line.starts_with(&script)) {
            return anyhow!("{}", line.trim_start_matches("error: "));
        }
        let otherwise = if began.elapsed() < LIMIT {
            "no reason given".to_owned()
        } else {
            format!("it did not finish within {} s", LIMIT.as_secs())
        };
        anyhow!("`{}`: {}", python.display(), last_of(&said, &otherwise))
    })
}

pub(super) fn ask_master(instance: &Instance, context: &Context) -> MasterFacts {
    let mut master_facts = MasterFacts::default();
    let facts = match ask_database(instance, context, &mut master_facts) {
        Ok(facts) => facts,
        Err(failure) => {
            master_facts.failure = Some((failure.status, failure.reason.into()));
            return master_facts;
        }
    };
    let relation = match facts.relation {
        Relation::Empty => "empty",
        Relation::Older => "older",
        Relation::Current => "current",
        Relation::Newer => "newer",
        Relation::Damaged => "damaged",
    };
    master_facts.database = Some(Database {
        relation: relation.into(),
        kind: facts.kind.clone(),
        driver: facts
            .server
            .as_ref()
            .map(|server| server.driver.as_str().into()),
        place: facts.place.clone(),
        revision: facts.revision_text().into(),
        head: facts.head_text().into(),
        buildbot: facts.buildbot.clone(),
    });
    master_facts.trouble = dump::trouble(&facts);
    master_facts.elsewhere.clone_from(&facts.elsewhere);
    master_facts.own_work = facts.own_work;
    master_facts.ports = facts
        .ports
        .into_iter()
        .map(|port| (port.purpose, port.port))
        .collect();
    master_facts
}

fn ask_database(
    instance: &Instance,
    context: &Context,
    master_facts: &mut MasterFacts,
) -> Result<Facts, Failure> {
    let master = Master::new(instance, context)?;
    // A mark without content is still a mark.
    master_facts.is_marked = Mark::read(&master.backups).map_or(true, |mark| mark.is_some());
    Facts::ask(&master, None, false)
}
