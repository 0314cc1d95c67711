//! Workers of other hosts: a master invites one by a line, which its host joins by; later the line is revoked or
//! replaced.
//!
//! `door` is how a master is opened to the network, with a certificate of this host's own authority (`openssl`). The line
//! itself is `buildbot_conda_core::invitation`. Who was invited is noted in `invitations`; `upkeep` revokes what was not
//! used in its time, and renews certificates.

mod door;
mod invitations;
mod invite;
mod join;
mod openssl;
mod revoke;
mod rotate;
mod upkeep;

pub(crate) use invite::{Arguments as InviteArguments, run as invite};
pub(crate) use join::{Arguments as JoinArguments, refuse_line, run as join};
pub(crate) use revoke::run as revoke;
pub(crate) use rotate::run as rotate;
pub(crate) use upkeep::run as upkeep;

use anyhow::{bail, ensure};
use buildbot_conda_core::names::{InstanceRef, Role};
use buildbot_conda_core::settings::{Instance, Settings};
use buildbot_conda_core::starter::WorkerName;
use clap::Args;

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
    /// Show what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// The master that is meant: the given one, or the plain one, or the only one. Its workers have passwords of their own,
/// which it reads as data.
fn master<'a>(
    given: Option<&InstanceRef>,
    settings: &'a Settings,
    context: &Context,
) -> anyhow::Result<&'a Instance> {
    let masters = settings.instances();
    let masters = masters.filter(|instance| instance.reference.role == Role::Master);
    let made = |instance: &&Instance| Record::read(&instance.reference, context).is_some();
    let mut candidates: Vec<&Instance> = match given {
        Some(given) => masters.filter(|one| one.reference == *given).collect(),
        None => masters.filter(made).collect(),
    };
    if candidates.iter().any(|one| one.reference.name.is_none()) {
        candidates.retain(|one| one.reference.name.is_none());
    }
    let [master] = candidates[..] else {
        match (given, candidates.len()) {
            (Some(given), _) => bail!("the configuration has no master `{given}`"),
            (None, 0) => bail!(
                "this host has no master that `buildbot-conda create master` made\nhint: make one"
            ),
            (None, _) => bail!("several masters are here\nhint: name one with `--master REF`"),
        }
    };
    let record = Record::read(&master.reference, context);
    ensure!(
        record.is_some_and(|record| record.worker_credential.is_some()),
        "the workers of `{}` share one password, or have theirs in its `master.cfg`\n\
         hint: only a master whose `master.cfg` reads its workers from `workers.toml`, as `buildbot-conda create master` \
         makes it, takes workers by invitation",
        master.reference
    );
    Ok(master)
}
