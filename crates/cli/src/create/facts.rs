//! What there is on the host that a new worker depends on, read once.

use std::collections::BTreeSet;
use std::fs;

use buildbot_conda_core::names::Role;
use buildbot_conda_core::paths;
use buildbot_conda_core::settings::{Instance, Settings};
use buildbot_conda_core::starter::MASTER_CREDENTIAL;

use super::decision::{Facts, Master, Wish, account_name};
use super::{Common, Draft, place};
use crate::system::context::Context;
use crate::system::installations::is_for_everybody;
use crate::system::managed;
use crate::system::record::{Noted as _, Record, WorkerRecord};

pub(super) fn read(
    wish: &Wish,
    common: &Common,
    draft: &Draft,
    context: &Context,
) -> anyhow::Result<Facts> {
    let settings = draft.settings();
    let configured_user = draft.configured_user()?;
    let own = account_name(wish.name.as_ref());
    let candidates = wish.user.iter().chain([&configured_user, &own]);
    let homes =
        candidates.filter_map(|user| Some((user.clone(), place::home(user, context).ok()?)));
    let workers = settings.references().filter_map(|reference| {
        let record = WorkerRecord::read(reference, context)?;
        Some((reference.clone(), record))
    });
    Ok(Facts {
        masters: masters(&settings, context),
        taken: taken(&settings, draft, context),
        open_environment: is_open(&settings, common, draft, context),
        homes: homes.collect(),
        workers: workers.collect(),
        credentials: credentials(context),
        configured_user,
    })
}

/// Files in the credentials directory.
pub(super) fn credentials(context: &Context) -> BTreeSet<String> {
    let entries = fs::read_dir(context.path(paths::CREDENTIALS));
    let entries = entries.into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.collect()
}

/// Those that `create` has made, and those that have the credential of an older one.
fn masters(settings: &Settings, context: &Context) -> Vec<Master> {
    let masters = settings.instances();
    let masters = masters.filter(|instance| instance.reference.role == Role::Master);
    let known = masters.filter_map(|instance| {
        let record = Record::read(&instance.reference, context);
        let has_own = record
            .as_ref()
            .is_some_and(|record| record.worker_credential.is_some());
        let shared = shared_credential(instance).filter(|_| !has_own);
        (has_own || shared.is_some()).then(|| Master {
            instance: instance.clone(),
            record,
            shared,
        })
    });
    known.collect()
}

fn shared_credential(master: &Instance) -> Option<String> {
    let mut credentials = master.credentials.iter();
    let (_, file) = credentials.find(|(name, _)| name.as_str() == MASTER_CREDENTIAL)?;
    let file = file.to_string();
    let below = file.strip_prefix(&format!("{}/", paths::CREDENTIALS));
    Some(below.unwrap_or(&file).to_owned())
}

/// Accounts of the other instances that are set up.
fn taken(settings: &Settings, draft: &Draft, context: &Context) -> BTreeSet<String> {
    let others = settings.instances().filter(|other| {
        let tac = context.path(&format!("{}/buildbot.tac", other.directory));
        other.reference != draft.reference && tac.exists()
    });
    others.map(|other| other.user.as_str().to_owned()).collect()
}

/// Whether everybody can use the environment. One that was named is for whoever was named.
fn is_open(settings: &Settings, common: &Common, draft: &Draft, context: &Context) -> bool {
    let (environment, prefix) = if let Ok(instance) = settings.instance(&draft.reference) {
        (&instance.conda_env, instance.prefix())
    } else if let Ok(defaults) = settings.defaults() {
        let prefix = defaults.conda_env.prefix(&defaults.conda_root);
        (&defaults.conda_env, prefix)
    } else {
        return false;
    };
    let prefix = managed::prefix_of(environment, &prefix, context)
        .unwrap_or_else(|| prefix.as_str().to_owned());
    let is_given = common.conda_root.is_some() || common.conda_env.is_some();
    is_given || context.is_elsewhere() || is_for_everybody(prefix.as_ref())
}
