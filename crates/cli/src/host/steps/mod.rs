//! From differences to a plan. What is stopped for it is stopped first and started last, so that each service sees the
//! old state or the new one; environments come before all that uses them.
//!
//! `accounts` and `environments` are what the rest needs, `system` is root's, `instances` is their users'.

mod accounts;
mod environments;
mod instances;
mod system;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::settings::{Instance, Settings};

use super::differences::{Difference, Item};
use super::look::Host;
use super::profile::Profile;
use crate::plan::{self, Plan, Step};
use crate::system::context::Context;

/// What shall be, what is, and how far to go.
pub(super) struct Wish<'a> {
    pub(super) profile: &'a Profile,
    /// Of the profile's configuration.
    pub(super) settings: &'a Settings,
    pub(super) host: &'a Host,
    pub(super) differences: &'a [Difference],
    /// Texts of missing credentials by name.
    pub(super) secrets: BTreeMap<String, String>,
    /// For what makes environments.
    pub(super) options: Vec<String>,
    pub(super) no_restart: bool,
    pub(super) title: String,
}

/// A plan on its way.
#[derive(Default)]
struct Draft {
    accounts: Vec<Step>,
    environments: Vec<Step>,
    files: Vec<Step>,
    /// After systemd has read its units again.
    units: Vec<Step>,
    /// Instances whose next start differs.
    changed: BTreeSet<String>,
    /// Masters of which only `master.cfg` and the like differ.
    reloads: BTreeSet<String>,
    /// Instances that are set up, or enabled.
    begun: BTreeSet<String>,
    needs_reload: bool,
    left: Vec<String>,
}

impl Wish<'_> {
    /// References of the instances for which something holds.
    fn instances(&self, holds: impl Fn(&Instance) -> bool) -> Vec<String> {
        let instances = self.settings.instances();
        let chosen = instances.filter(|instance| holds(instance));
        chosen
            .map(|instance| instance.reference.to_string())
            .collect()
    }
}

/// The plan, and lines about what is left to others.
pub(super) fn plan(wish: &Wish<'_>, context: &Context) -> anyhow::Result<(Plan, Vec<String>)> {
    let mut draft = Draft::default();
    for difference in wish.differences {
        match difference.item {
            Item::Package => package(difference, &mut draft),
            Item::Account => accounts::account(difference, wish, context, &mut draft)?,
            Item::Environment => environments::environment(difference, wish, context, &mut draft)?,
            Item::Configuration => system::configuration(wish, context, &mut draft)?,
            Item::UnitFile => system::unit_file(difference, wish, context, &mut draft)?,
            Item::Credential => system::credential(difference, wish, context, &mut draft)?,
            Item::Instance => instances::directory(difference, wish, context, &mut draft)?,
            Item::File => instances::file(difference, wish, context, &mut draft)?,
            Item::Record => instances::record(difference, wish, context, &mut draft)?,
            Item::Unit => system::unit(difference, context, &mut draft)?,
            Item::Mode => system::mode(difference, wish, context, &mut draft)?,
        }
    }
    let is_booted = !context.is_elsewhere() && Path::new("/run/systemd/system").is_dir();
    let mut steps = draft.accounts;
    steps.append(&mut draft.environments);
    let mut stopped = Vec::new();
    if is_booted && !wish.no_restart {
        for reference in &draft.changed {
            let unit = reference.parse::<InstanceRef>()?.unit_name();
            if plan::is_running(&unit)? {
                steps.push(Step::StopAfterBuilds { unit: unit.clone() });
                stopped.push(unit);
            }
        }
    }
    steps.append(&mut draft.files);
    steps.append(&mut draft.units);
    if is_booted {
        if draft.needs_reload {
            steps.push(Step::ReloadSystemd);
        }
        for reference in draft.reloads.difference(&draft.changed) {
            let unit = reference.parse::<InstanceRef>()?.unit_name();
            if !wish.no_restart && plan::is_running(&unit)? {
                let required = true;
                steps.push(Step::Reload { unit, required });
            }
        }
        for reference in starting(wish, &draft.begun) {
            let unit = reference.unit_name();
            if !stopped.contains(&unit) && !plan::is_running(&unit)? {
                stopped.push(unit);
            }
        }
        // Masters first: `master` sorts before `worker`.
        stopped.sort();
        steps.extend(stopped.into_iter().map(|unit| Step::Start { unit }));
    }
    let plan = Plan {
        title: wish.title.clone(),
        notes: Vec::new(),
        steps,
    };
    Ok((plan, draft.left))
}

/// Instances that were set up or enabled by this plan, and shall be started at boot: they are started now as well.
fn starting(wish: &Wish<'_>, begun: &BTreeSet<String>) -> Vec<InstanceRef> {
    let is_enabled = |reference: &InstanceRef| {
        let units = &wish.profile.manifest.units;
        units.get(&reference.unit_name()).map(String::as_str) == Some("enabled")
    };
    let is_set_up = |reference: &InstanceRef| {
        let name = reference.to_string();
        let mut instances = wish.profile.manifest.instances.iter();
        wish.host.filled.contains(&name)
            || instances.any(|one| one.reference == name && one.files.contains_key("buildbot.tac"))
    };
    let references = wish.settings.references();
    references
        .filter(|reference| begun.contains(&reference.to_string()))
        .filter(|reference| is_enabled(reference) && is_set_up(reference))
        .cloned()
        .collect()
}

fn package(difference: &Difference, draft: &mut Draft) {
    let name = &difference.name;
    let version = difference.wanted.as_deref().unwrap_or_default();
    let line = format!("left to you: {difference}\nhint: apt-get install {name}={version}");
    draft.left.push(line);
}
