//! Managed environments for a profile: names, prefixes, and the lock of each generation that counts.

use std::collections::BTreeSet;

use anyhow::Context as _;
use buildbot_conda_core::foreign_text::ForeignText;
use buildbot_conda_core::paths;
use buildbot_conda_environments::{
    Environment, GenerationId, Store, lock_text, packages_of, verify,
};

use super::layout::lock_file;
use super::manifest::{EnvironmentEntry, Kind};
use crate::system::context::Context;

/// An environment, its lock, and the files that have changed since its installation.
pub(super) type Found = (EnvironmentEntry, String, Vec<ForeignText>);

/// Name and pinned generation of the managed environment that a configured prefix is.
pub(super) fn of_prefix(prefix: &str) -> Option<(String, Option<String>)> {
    let rest = prefix.strip_prefix(paths::ENVIRONMENTS)?;
    let (name, last) = rest.strip_prefix('/')?.split_once('/')?;
    let generation = (last != "current").then(|| last.to_owned());
    (!last.contains('/')).then(|| (name.to_owned(), generation))
}

/// Names of all that there are.
pub(super) fn names(context: &Context) -> BTreeSet<String> {
    let environments = store(context).environments().unwrap_or_default();
    let names = environments.iter().map(|one| one.name().to_string());
    names.collect()
}

/// Those that serve, and the generations of `pinned` that are there.
pub(super) fn environments(
    pinned: &BTreeSet<(String, String)>,
    damage: bool,
    context: &Context,
) -> anyhow::Result<Vec<Found>> {
    let mut found = Vec::new();
    for environment in store(context).environments()? {
        let name = environment.name().to_string();
        if let Some(current) = environment.current()? {
            let prefix = paths::managed_prefix(&name);
            found.push(one(&environment, &current, prefix, &name, damage)?);
        }
    }
    for (name, generation) in pinned {
        let environment = store(context).environment(&name.parse()?);
        let id: GenerationId = generation.parse()?;
        if environment.prefix(&id).is_dir() {
            let prefix = format!("{}/{name}/{generation}", paths::ENVIRONMENTS);
            let label = format!("{name}@{generation}");
            found.push(one(&environment, &id, prefix, &label, damage)?);
        }
    }
    Ok(found)
}

fn one(
    environment: &Environment,
    generation: &GenerationId,
    prefix: String,
    label: &str,
    damage: bool,
) -> anyhow::Result<Found> {
    let path = environment.prefix(generation);
    let text = lock_text(&packages_of(&path)?)
        .with_context(|| format!("lock the environment `{prefix}`"))?;
    let findings = if damage { verify(&path)? } else { Vec::new() };
    let damage = findings
        .iter()
        .map(|finding| format!("{} {}", finding.what, finding.path).into())
        .collect();
    let entry = EnvironmentEntry {
        prefix,
        kind: Kind::Managed,
        generation: Some(generation.to_string()),
        owner: None,
        lock: lock_file(label),
    };
    Ok((entry, text, damage))
}

/// All environments of this host.
pub(super) fn store(context: &Context) -> Store {
    Store::new(context.path(paths::ENVIRONMENTS))
}
