//! `service next-step`: prints one line about the next step on this host, after the installation of the package.

use std::process::ExitCode;

use buildbot_conda_core::paths;
use buildbot_conda_core::settings::Instance;

use crate::survey::{create_command, is_set_up};
use crate::system::context::Context;
use crate::system::{installations, unit_files};

pub(super) fn run(context: &Context) -> anyhow::Result<ExitCode> {
    if let Some(step) = next(context)? {
        eprintln!("buildbot-conda: next: {step}");
    }
    Ok(ExitCode::SUCCESS)
}

/// None where everything that starts at boot is set up.
fn next(context: &Context) -> anyhow::Result<Option<String>> {
    if !unit_files::hand_made(context)?.is_empty() {
        let adopt = "`sudo buildbot-conda adopt --dry-run` shows how your own units would be adopted, \
                     and `sudo buildbot-conda adopt` adopts them";
        return Ok(Some(adopt.to_owned()));
    }
    let settings = context.settings()?;
    let mut waiting: Vec<&Instance> = Vec::new();
    for instance in settings.instances() {
        let is_enabled = !unit_files::links(&instance.reference.unit_name(), context)?.is_empty();
        if is_enabled && is_set_up(instance, context) == Some(false) {
            waiting.push(instance);
        }
    }
    let Some(first) = waiting.first() else {
        return Ok(None);
    };
    let create: Vec<String> = waiting
        .iter()
        .map(|instance| format!("`sudo {}`", create_command(&instance.reference)))
        .collect();
    let create = create.join(" and ");
    let name = installations::managed_name(&first.conda_env);
    let prefixes = [first.prefix().to_string(), paths::managed_prefix(&name)];
    let is_there = |prefix: &String| context.path(&format!("{prefix}/bin/python")).exists();
    if prefixes.iter().any(is_there) {
        return Ok(Some(create));
    }
    let found = installations::candidates(&name, &[], context);
    let environment = match found.iter().find(|found| found.only.is_none()) {
        Some(found) => format!("`sudo buildbot-conda set conda-env {}`", found.prefix),
        None if installations::has_builder(context) => {
            format!("`sudo buildbot-conda env create {name}`")
        }
        None => format!(
            "`sudo buildbot-conda env create {name}` (from the package `buildbot-conda-env`), or `sudo buildbot-conda set \
             conda-root DIR` for an existing Conda"
        ),
    };
    Ok(Some(format!("{environment}, then {create}")))
}
