//! Workers of other hosts: a master invites one by a line, which its host joins by; later the line is revoked or
//! replaced.
//!
//! `door` is how a master is opened to the network, with a certificate of this host's own authority (`openssl`). The line
//! itself is `buildbot_conda_core::invitation`. Who was invited is noted in `invitations`; `upkeep` revokes what was not
//! used in its time, and renews certificates. `convert` has an older master read its workers as all of these need it.

mod convert;
mod door;
mod invitations;
mod invite;
mod join;
mod openssl;
mod revoke;
mod rotate;
mod upkeep;

pub(crate) use convert::{Arguments as ConvertArguments, run as convert};
pub(crate) use invite::{Arguments as InviteArguments, run as invite};
pub(crate) use join::{Arguments as JoinArguments, refuse_line, run as join};
pub(crate) use revoke::run as revoke;
pub(crate) use rotate::run as rotate;
pub(crate) use upkeep::run as upkeep;

use anyhow::{bail, ensure};
use buildbot_conda_core::names::{InstanceRef, Role};
use buildbot_conda_core::settings::{Instance, Settings};
use buildbot_conda_core::starter::{Tag, WorkerName};
use clap::Args;
use serde_json::{Value, json};

use crate::output::Manner;
use crate::plan::naming;
use crate::system::context::Context;
use crate::system::record::{Noted as _, Record};

/// A worker that a master knows.
#[derive(Debug, Args)]
pub(crate) struct WorkerArguments {
    /// The worker's name at the master
    #[arg(value_name = "NAME")]
    name: WorkerName,
    /// The master, if this host has several
    #[arg(long, value_name = "REF")]
    master: Option<InstanceRef>,
    #[command(flatten)]
    manner: Manner,
}

/// What a master knows of a worker, for reports; null where it knows nothing.
fn state(master: &Instance, name: &WorkerName, context: &Context) -> anyhow::Result<Value> {
    let details = naming::details(master, name.as_str(), context);
    let has_password = naming::password(master, name.as_str(), context).is_some();
    if details.is_none() && !has_password {
        return Ok(Value::Null);
    }
    let details = details.unwrap_or_default();
    let invited = invitations::of(master, name, context)?;
    let tags: Vec<&str> = details.tags.iter().map(Tag::as_str).collect();
    Ok(json!({
        "worker": name.as_str(),
        "master": master.reference.to_string(),
        "slots": details.slots,
        "tags": tags,
        "invitation": invited.as_ref().map(|one| one.state(invitations::now(), context).name()),
        "until": invited.map(|one| one.until),
    }))
}

/// The master that is meant: the given one, or the plain one, or the only one, with what is noted of it.
fn choose<'a>(
    given: Option<&InstanceRef>,
    settings: &'a Settings,
    context: &Context,
) -> anyhow::Result<(&'a Instance, Record)> {
    let masters = settings.instances();
    let masters = masters.filter(|instance| instance.reference.role == Role::Master);
    let noted = |master: &'a Instance| Some((master, Record::read(&master.reference, context)?));
    let mut candidates: Vec<(&Instance, Record)> = match given {
        Some(given) => {
            let Some(master) = masters.into_iter().find(|one| one.reference == *given) else {
                bail!("master `{given}` is not configured");
            };
            let Some(found) = noted(master) else {
                bail!("`{given}` was not created with `buildbot-conda create master`");
            };
            vec![found]
        }
        None => masters.filter_map(noted).collect(),
    };
    if candidates
        .iter()
        .any(|(one, _)| one.reference.name.is_none())
    {
        candidates.retain(|(one, _)| one.reference.name.is_none());
    }
    match (candidates.pop(), candidates.is_empty()) {
        (Some(found), true) => Ok(found),
        (None, _) => bail!(
            "no master on this host was created with `buildbot-conda create master`\nhint: create one"
        ),
        (Some(_), false) => bail!("there are several masters on this host\nhint: name one of them"),
    }
}

/// The master that is meant by `--master`. Its workers have passwords of their own, which it reads as data.
fn master<'a>(
    given: Option<&InstanceRef>,
    settings: &'a Settings,
    context: &Context,
) -> anyhow::Result<&'a Instance> {
    let (master, record) = choose(given, settings, context)?;
    ensure!(
        record.worker_credential.is_some(),
        "the workers of `{0}` are in its `master.cfg`, and those of other hosts are invited by a master that has them in \
         `workers.toml`\nhint: `buildbot-conda convert {0}` moves them there",
        master.reference
    );
    Ok(master)
}
