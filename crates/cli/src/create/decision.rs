//! What a new worker is, as a function of what was asked for and what is there: nothing is looked at or done here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::bail;
use buildbot_conda_core::names::{InstanceName, InstanceRef, NameError, Role};
use buildbot_conda_core::paths;
use buildbot_conda_core::settings::Instance;
use buildbot_conda_core::starter::{Address, WORKER_PORT, Way, WorkerName};

use crate::system::record::{Asked, Record, WorkerRecord};

/// The account of the worker beside a master; a further one has its name behind that.
const ACCOUNT: &str = "bb-worker";
/// Longest name of an account.
const LONGEST_ACCOUNT: usize = 31;

/// What was asked for.
#[derive(Debug, Default)]
pub(super) struct Wish {
    pub(super) name: Option<InstanceName>,
    /// `HOST`, `HOST:PORT` or a reference.
    pub(super) master: Option<String>,
    pub(super) worker_name: Option<WorkerName>,
    pub(super) user: Option<String>,
    pub(super) tls: bool,
    pub(super) has_password: bool,
    /// By an invitation, which has all of it.
    pub(super) is_invited: bool,
}

/// A master of this host that `create` can make workers for.
#[derive(Debug, Clone)]
pub(super) struct Master {
    pub(super) instance: Instance,
    pub(super) record: Option<Record>,
    /// The file of the one password of its workers, below the credentials directory; none where each has its own.
    pub(super) shared: Option<String>,
}

/// What is there.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) masters: Vec<Master>,
    /// The account that the configuration gives the new worker.
    pub(super) configured_user: String,
    /// Accounts of the other instances that are set up.
    pub(super) taken: BTreeSet<String>,
    /// Whether another account than the configured one can use the environment.
    pub(super) open_environment: bool,
    /// Home directories by accounts, as far as there are such.
    pub(super) homes: BTreeMap<String, PathBuf>,
    /// Workers of this host that were made by `create`.
    pub(super) workers: Vec<(InstanceRef, WorkerRecord)>,
    /// Files in the credentials directory.
    pub(super) credentials: BTreeSet<String>,
}

/// Where its password comes from; each with the file in the credentials directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Secret {
    /// It is there already: that of the master's first worker, of all its workers, or of a worker of before.
    Present(String),
    /// What was given on the command line.
    Given(String),
    /// What nobody knows yet.
    Generated(String),
    /// A person is asked for it.
    Asked(String),
}

/// What is going to be made.
#[derive(Debug)]
pub(super) struct Decision {
    pub(super) reference: InstanceRef,
    /// The account to be configured; none where the configured one stays.
    pub(super) user: Option<String>,
    /// Home of the account that runs it.
    pub(super) home: PathBuf,
    /// Whether that account is made where there is none.
    pub(super) makes_account: bool,
    /// On this host.
    pub(super) master: Option<Master>,
    pub(super) way: Way,
    pub(super) worker: WorkerName,
    pub(super) secret: Secret,
    pub(super) record: WorkerRecord,
}

impl Master {
    /// Whether each of its workers has a password of its own, which the master reads as data.
    pub(super) fn has_own_passwords(&self) -> bool {
        let record = self.record.as_ref();
        record.is_some_and(|record| record.worker_credential.is_some())
    }

    fn way(&self, tls: bool) -> anyhow::Result<Way> {
        let reference = &self.instance.reference;
        let port = match &self.record {
            Some(record) => record.worker_port,
            None => Some(WORKER_PORT),
        };
        let address = |port| Address {
            host: "localhost".to_owned(),
            port,
        };
        match (port, tls) {
            (None, true) => bail!(
                "`{reference}` accepts workers of this host on a socket, which needs no TLS\nhint: omit `--tls`"
            ),
            (None, false) => Ok(Way::Socket(paths::worker_socket(reference))),
            (Some(port), true) => Ok(Way::Tls(address(port))),
            (Some(port), false) => Ok(Way::Tcp(address(port))),
        }
    }
}

impl Secret {
    /// The file below the credentials directory.
    pub(super) fn file(&self) -> &str {
        match self {
            Self::Present(file) | Self::Given(file) | Self::Generated(file) | Self::Asked(file) => {
                file
            }
        }
    }
}

/// Decides all of it.
///
/// # Errors
///
/// What cannot be.
pub(super) fn decide(wish: &Wish, facts: &Facts) -> anyhow::Result<Decision> {
    let reference = InstanceRef {
        role: Role::Worker,
        name: wish.name.clone(),
    };
    let given = wish.master.as_deref().map(place_of_master).transpose()?;
    let here = |wanted| -> anyhow::Result<_> {
        let master = choose_master(wanted, &facts.masters)?;
        Ok((Some(master.clone()), master.way(wish.tls)?))
    };
    let (master, way) = match &given {
        Some(Place::Elsewhere(address)) if wish.is_invited => (None, Way::Pinned(address.clone())),
        Some(Place::Elsewhere(address)) if wish.tls => (None, Way::Tls(address.clone())),
        Some(Place::Elsewhere(address)) => (None, Way::Tcp(address.clone())),
        Some(Place::Here(wanted)) => here(Some(wanted))?,
        None => here(None)?,
    };
    let worker = worker_name(wish, master.as_ref())?;
    let record = WorkerRecord {
        asked: Asked::default(),
        master: way.to_string(),
        worker: worker.as_str().to_owned(),
        instance: master
            .as_ref()
            .map(|master| master.instance.reference.to_string()),
    };
    refuse_namesake(&record, &reference, facts)?;
    let own = own_account(wish, facts);
    let user = wish.user.clone().or_else(|| own.clone());
    let account = user
        .clone()
        .unwrap_or_else(|| facts.configured_user.clone());
    let home = match facts.homes.get(&account) {
        Some(home) => home.clone(),
        None if own.is_some() => PathBuf::from(format!("/home/{account}")),
        None => bail!("select the account: account `{account}` not found"),
    };
    Ok(Decision {
        secret: secret(wish, &reference, master.as_ref(), &worker, facts)?,
        makes_account: own.is_some(),
        reference,
        user,
        home,
        master,
        way,
        worker,
        record,
    })
}

/// Where the master is that `--master` names.
enum Place {
    Here(InstanceRef),
    Elsewhere(Address),
}

/// An instance of this host, or the address of another; what is nearly an instance is a slip of the fingers.
fn place_of_master(text: &str) -> anyhow::Result<Place> {
    match InstanceRef::typed(text) {
        Ok(reference) => Ok(Place::Here(reference)),
        Err(error @ NameError::Mistyped { .. }) if !text.contains(['.', ':']) => Err(error.into()),
        Err(error) if text.contains('@') => Err(error.into()),
        Err(_) => Ok(Place::Elsewhere(Address::with_any_port(text)?)),
    }
}

/// The master that is named, or the plain one, or the only one.
fn choose_master<'a>(
    wanted: Option<&InstanceRef>,
    masters: &'a [Master],
) -> anyhow::Result<&'a Master> {
    let mut candidates: Vec<&Master> = masters.iter().collect();
    let is_plain = |master: &&Master| master.instance.reference.name.is_none();
    if let Some(wanted) = wanted {
        candidates.retain(|master| master.instance.reference == *wanted);
    } else if candidates.iter().any(is_plain) {
        candidates.retain(is_plain);
    }
    if let [master] = candidates[..] {
        return Ok(master);
    }
    let text = match (wanted, candidates.len()) {
        (Some(wanted), _) => {
            format!("`{wanted}` was not created with `buildbot-conda create master`")
        }
        (None, 0) => {
            "no master on this host was created with `buildbot-conda create master`".to_owned()
        }
        (None, _) => "there are several masters on this host".to_owned(),
    };
    bail!("{text}\nhint: specify the master with `--master HOST` or `--master master@NAME`");
}

/// The name that was given, that of the instance, or the one that the master has from its first minute.
fn worker_name(wish: &Wish, master: Option<&Master>) -> anyhow::Result<WorkerName> {
    if let Some(name) = &wish.worker_name {
        return Ok(name.clone());
    }
    let record = master.and_then(|master| master.record.as_ref());
    match (&wish.name, record) {
        (Some(name), _) => Ok(WorkerName::of(name)),
        (None, Some(record)) => Ok(record.worker.parse()?),
        (None, None) => Ok("worker".parse()?),
    }
}

/// Two workers of one name would take turns in throwing each other out.
fn refuse_namesake(
    record: &WorkerRecord,
    reference: &InstanceRef,
    facts: &Facts,
) -> anyhow::Result<()> {
    let others = facts.workers.iter();
    let mut others = others.filter(|(other, _)| other != reference);
    let same =
        others.find(|(_, other)| other.master == record.master && other.worker == record.worker);
    if let Some((other, _)) = same {
        bail!(
            "`{other}` already is the worker `{}` of the master at {}\n\
             hint: choose another name with `--worker-name`",
            record.worker,
            record.master
        );
    }
    Ok(())
}

/// Builds can read all that their account can: a worker gets an account of its own where the configured one runs
/// something else too, and the environment is open to it.
fn own_account(wish: &Wish, facts: &Facts) -> Option<String> {
    let own = account_name(wish.name.as_ref());
    let configured = &facts.configured_user;
    if wish.user.is_some() || *configured == own || !facts.taken.contains(configured) {
        return None;
    }
    facts.open_environment.then_some(own)
}

/// `bb-worker`, `bb-worker-gpu`. A name that is too long for an account ends in a number that tells it from others.
pub(super) fn account_name(name: Option<&InstanceName>) -> String {
    let Some(name) = name else {
        return ACCOUNT.to_owned();
    };
    let whole = format!("{ACCOUNT}-{name}");
    if whole.len() <= LONGEST_ACCOUNT {
        return whole;
    }
    // FNV-1a: short, and the same in every version of this program.
    let hash = name.as_str().bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    let end = format!("-{:04x}", hash & 0xffff);
    format!("{}{end}", &whole[..LONGEST_ACCOUNT - end.len()])
}

fn secret(
    wish: &Wish,
    reference: &InstanceRef,
    master: Option<&Master>,
    worker: &WorkerName,
    facts: &Facts,
) -> anyhow::Result<Secret> {
    let shared = master.and_then(|master| master.shared.clone());
    if let (Some(file), false) = (shared, wish.has_password) {
        return Ok(Secret::Present(file));
    }
    let record = master.and_then(|master| master.record.as_ref());
    let first = record.filter(|record| record.worker == worker.as_str());
    let first = first.and_then(|record| record.worker_credential.clone());
    let is_there = |file: &String| facts.credentials.contains(file);
    // What the master has for its first worker from the beginning.
    if let (Some(file), false) = (first.filter(is_there), wish.has_password) {
        return Ok(Secret::Present(file));
    }
    let mut file = match &reference.name {
        None => "password-of-worker".to_owned(),
        Some(name) => format!("password-of-worker-{name}"),
    };
    let mut records = facts
        .masters
        .iter()
        .filter_map(|master| master.record.as_ref());
    if records.any(|record| record.worker_credential.as_ref() == Some(&file)) {
        // That one is for a master's first worker.
        file = format!("{file}.{}", worker.as_str());
    }
    Ok(match (wish.has_password, is_there(&file)) {
        // What was left there by an instance of before is replaced.
        (true, true) if wish.is_invited => Secret::Given(file),
        (true, true) => {
            bail!("the credential `{file}` already exists\nhint: omit the password to use it")
        }
        (true, false) => Secret::Given(file),
        (false, true) => Secret::Present(file),
        (false, false) if master.is_some_and(Master::has_own_passwords) => Secret::Generated(file),
        (false, false) => Secret::Asked(file),
    })
}

#[cfg(test)]
mod tests;
