//! Finds environments of this host by the names that people use.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use buildbot_conda_core::paths;
use buildbot_conda_environments::{Environment, EnvironmentName, GenerationId, Store};

use crate::system::context::Context;

/// All environments of this host.
pub(super) fn store(context: &Context) -> Store {
    Store::new(context.path(paths::ENVIRONMENTS))
}

/// An environment and the generation that serves.
pub(super) fn existing(
    name: &EnvironmentName,
    context: &Context,
) -> anyhow::Result<(Environment, GenerationId)> {
    let environment = store(context).environment(name);
    match environment.current()? {
        Some(current) => Ok((environment, current)),
        None => bail!(
            "environment `{name}` not found\nhint: create it with `buildbot-conda env create {name} --file FILE`"
        ),
    }
}

/// Where packages are: the name of a managed environment, with `@GENERATION` where it is not the one that serves, or
/// the path of any environment of Conda's.
pub(super) fn prefix_of(target: &str, context: &Context) -> anyhow::Result<PathBuf> {
    if target.contains('/') {
        let path = Path::new(target);
        if !path.join("conda-meta").is_dir() {
            bail!("Conda environment `{target}` not found");
        }
        return Ok(path.to_owned());
    }
    let (name, generation) = match target.split_once('@') {
        None => (target, None),
        Some((name, generation)) => (name, Some(generation)),
    };
    let (environment, current) = existing(&name.parse()?, context)?;
    let generation = match generation {
        None => current,
        Some(text) => one_of(&environment, text)?,
    };
    Ok(environment.prefix(&generation))
}

/// A generation by its name or the beginning of it.
pub(super) fn one_of(environment: &Environment, text: &str) -> anyhow::Result<GenerationId> {
    let generations = environment.generations()?;
    let mut found = generations
        .into_iter()
        .filter(|generation| !text.is_empty() && generation.as_str().starts_with(text));
    let name = environment.name();
    let generation = found.next().with_context(|| {
        format!(
            "generation `{text}` of `{name}` not found\nhint: `buildbot-conda env list {name}` shows them"
        )
    })?;
    if found.next().is_some() {
        bail!("several generations of `{name}` begin with `{text}`");
    }
    Ok(generation)
}
