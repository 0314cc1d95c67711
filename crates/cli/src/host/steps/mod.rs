//! From differences to a plan. Services that have to be stopped are stopped first and started last, so that each
//! service sees either the old state or the new one; environments come before their users.
//!
//! `accounts` and `environments` are needed by the rest, `system` contains files of root, and `instances` those of
//! service users.

mod accounts;
mod environments;
mod instances;
mod system;

use std::collections::{BTreeMap, BTreeSet};

use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::settings::{Instance, Settings};

use super::actual::Host;
use super::differences::{Difference, Subject};
use super::profile::Profile;
use crate::plan::{self, Plan, Step, UnitStep};
use crate::system::context::Context;
use crate::system::systemd;

/// The desired state, the actual state, and the limits of the change.
pub(super) struct Wish<'a> {
    pub(super) profile: &'a Profile,
    /// Settings from the configuration of the profile.
    pub(super) settings: &'a Settings,
    pub(super) host: &'a Host,
    pub(super) differences: &'a [Difference],
    /// Texts of missing credentials by name.
    pub(super) secrets: BTreeMap<String, String>,
    /// Options for the program that creates environments.
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
    /// After systemd has reloaded its units.
    units: Vec<Step>,
    /// Instances whose next start differs.
    changed: BTreeSet<InstanceRef>,
    /// Masters of which only `master.cfg` and the like differ.
    reloads: BTreeSet<InstanceRef>,
    /// Instances that are set up, or enabled.
    begun: BTreeSet<InstanceRef>,
    needs_reload: bool,
    left: Vec<String>,
}

impl Wish<'_> {
    /// The instances for which something holds.
    fn instances(&self, holds: impl Fn(&Instance) -> bool) -> Vec<InstanceRef> {
        let instances = self.settings.instances();
        let chosen = instances.filter(|instance| holds(instance));
        chosen.map(|instance| instance.reference.clone()).collect()
    }
}

/// The plan, and lines about what is left to others.
pub(super) fn plan(wish: &Wish<'_>, context: &Context) -> anyhow::Result<(Plan, Vec<String>)> {
    let mut draft = Draft::default();
    for difference in wish.differences {
        let draft = &mut draft;
        match &difference.subject {
            Subject::Package(name) => package(name, difference, draft),
            Subject::Account(name) => accounts::account(name, difference, wish, context, draft)?,
            Subject::Environment(prefix) => {
                environments::environment(prefix, difference, wish, context, draft)?;
            }
            Subject::Configuration => system::configuration(wish, context, draft)?,
            Subject::UnitFile(name) => system::unit_file(name, wish, context, draft)?,
            Subject::Credential(name) => {
                system::credential(name, difference, wish, context, draft)?;
            }
            Subject::Instance(reference) => instances::directory(reference, wish, context, draft)?,
            Subject::File(reference, path) => {
                instances::file(reference, path, wish, context, draft)?;
            }
            Subject::Record(reference) => instances::record(reference, wish, context, draft)?,
            Subject::Unit(unit) => system::unit(unit, difference, context, draft)?,
            Subject::Mode(path) => system::mode(path, difference, wish, context, draft)?,
        }
    }
    let is_booted = systemd::runs(context);
    let mut steps = draft.accounts;
    steps.append(&mut draft.environments);
    let mut stopped = Vec::new();
    if is_booted && !wish.no_restart {
        for reference in &draft.changed {
            let unit = reference.unit();
            if plan::is_running(&unit.to_string())? {
                steps.push(UnitStep::StopAfterBuilds { unit: unit.clone() }.into());
                stopped.push(unit);
            }
        }
    }
    steps.append(&mut draft.files);
    steps.append(&mut draft.units);
    if is_booted {
        if draft.needs_reload {
            steps.push(UnitStep::ReloadSystemd.into());
        }
        for reference in draft.reloads.difference(&draft.changed) {
            let unit = reference.unit();
            if !wish.no_restart && plan::is_running(&unit.to_string())? {
                let required = true;
                steps.push(UnitStep::Reload { unit, required }.into());
            }
        }
        for reference in starting(wish, &draft.begun) {
            let unit = reference.unit();
            if !stopped.contains(&unit) && !plan::is_running(&unit.to_string())? {
                stopped.push(unit);
            }
        }
        // Masters first: `master` sorts before `worker`.
        stopped.sort();
        steps.extend(
            stopped
                .into_iter()
                .map(|unit| UnitStep::Start { unit }.into()),
        );
    }
    let plan = Plan {
        title: wish.title.clone(),
        notes: Vec::new(),
        steps,
    };
    Ok((plan, draft.left))
}

/// Instances that this plan has set up or enabled, and that start at boot, are started now as well.
fn starting(wish: &Wish<'_>, begun: &BTreeSet<InstanceRef>) -> Vec<InstanceRef> {
    let is_enabled = |reference: &InstanceRef| {
        let units = &wish.profile.manifest.units;
        units.get(&reference.unit()).map(String::as_str) == Some("enabled")
    };
    let is_set_up = |reference: &InstanceRef| {
        let mut instances = wish.profile.manifest.instances.iter();
        wish.host.filled.contains(reference)
            || instances
                .any(|one| one.reference == *reference && one.files.contains_key("buildbot.tac"))
    };
    let references = wish.settings.references();
    references
        .filter(|reference| begun.contains(*reference))
        .filter(|reference| is_enabled(reference) && is_set_up(reference))
        .cloned()
        .collect()
}

fn package(name: &str, difference: &Difference, draft: &mut Draft) {
    let version = difference.wanted.as_deref().unwrap_or_default();
    let line =
        format!("manual change needed: {difference}\nhint: apt-get install {name}={version}");
    draft.left.push(line);
}
