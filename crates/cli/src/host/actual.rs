//! The actual state of a host, in the form of a profile.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use buildbot_conda_core::foreign_text::ForeignText;
use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::settings::{Instance, Settings};
use buildbot_conda_core::values::AccountName;
use buildbot_conda_environments::lock_text;

use super::layout::lock_file;
use super::manifest::{EnvironmentEntry, InstanceEntry, Kind, Manifest};
use super::profile::Profile;
use super::{accounts, managed, system};
use crate::inside::inspection::{self, Question};
use crate::system::context::Context;
use crate::system::record::record_file;

/// What is looked at of what is not only ours.
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// Instances, with the paths of their files.
    pub(super) instances: Vec<(InstanceEntry, Vec<String>)>,
    /// Environments that conda made: prefix and lock file.
    pub(super) prefixes: BTreeMap<String, String>,
    /// Generations that instances are pinned to: environment and generation.
    pub(super) pinned: BTreeSet<(String, String)>,
    /// Files of credentials.
    pub(super) credentials: BTreeSet<String>,
    /// Whether every file of the environments is compared with its package.
    pub(super) damage: bool,
}

/// A host with its actual state.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) profile: Profile,
    /// Lines by prefix: what is not as its package brought it.
    pub(super) damage: BTreeMap<String, Vec<ForeignText>>,
    /// Instances whose directories have something in them.
    pub(super) filled: BTreeSet<InstanceRef>,
    /// What the profile cannot contain although users may expect it.
    pub(super) warnings: Vec<String>,
}

impl Selection {
    /// What the configuration names; `files` are the paths that are wanted of an instance.
    pub(super) fn configured(
        settings: &Settings,
        files: impl Fn(&Instance) -> Vec<String>,
        context: &Context,
    ) -> Self {
        let mut selection = Self::default();
        let mut names = BTreeSet::new();
        for instance in settings.instances() {
            let entry = InstanceEntry {
                reference: instance.reference.clone(),
                directory: instance.directory.to_string(),
                user: instance.user.clone(),
                files: BTreeMap::new(),
                created: None,
            };
            selection.instances.push((entry, files(instance)));
            let prefix = instance.prefix().to_string();
            match managed::of_prefix(&prefix) {
                Some((name, Some(generation))) => {
                    selection.pinned.insert((name, generation));
                }
                Some(_) => {}
                None => {
                    names.insert(prefix);
                }
            }
            let credentials = instance.credentials.values();
            selection
                .credentials
                .extend(credentials.map(|path| system::credential_name(path.as_str()).to_owned()));
        }
        let own = managed::names(context);
        let base = |prefix: &str| prefix.rsplit('/').next().unwrap_or_default().to_owned();
        for prefix in &names {
            let name = base(prefix);
            let is_taken = own.contains(&name)
                || names
                    .iter()
                    .any(|other| other != prefix && base(other) == name);
            let name = if is_taken {
                prefix.trim_start_matches('/').replace('/', "-")
            } else {
                name
            };
            selection.prefixes.insert(prefix.clone(), lock_file(&name));
        }
        selection
    }

    /// What a profile names, with every file of its environments.
    pub(super) fn of(profile: &Profile) -> Self {
        let Manifest {
            instances,
            environments,
            credentials,
            ..
        } = &profile.manifest;
        let mut selection = Self {
            credentials: credentials.iter().cloned().collect(),
            damage: true,
            ..Self::default()
        };
        for instance in instances {
            let files = instance.files.keys().cloned().collect();
            selection.instances.push((instance.clone(), files));
        }
        for environment in environments {
            match (environment.kind, managed::of_prefix(&environment.prefix)) {
                (Kind::Managed, Some((name, Some(generation)))) => {
                    selection.pinned.insert((name, generation));
                }
                (Kind::Managed, _) => {}
                (Kind::Conda, _) => {
                    let (prefix, lock) = (environment.prefix.clone(), environment.lock.clone());
                    selection.prefixes.insert(prefix, lock);
                }
            }
        }
        selection
    }
}

/// Looks at this host. A configuration that is not there is an empty text.
pub(super) fn read_host(selection: &Selection, context: &Context) -> anyhow::Result<Host> {
    let mut host = Host {
        profile: Profile::new(),
        damage: BTreeMap::new(),
        filled: BTreeSet::new(),
        warnings: Vec::new(),
    };
    host.profile.configuration = system::configuration(context)?;
    host.profile.unit_files = system::unit_files(context)?;
    read_environments(selection, context, &mut host)?;
    read_instances(selection, context, &mut host)?;
    let manifest = &mut host.profile.manifest;
    manifest.packages = system::packages(context);
    manifest.credentials = system::credentials(&selection.credentials, context);
    let references = selection
        .instances
        .iter()
        .map(|(instance, _)| instance.reference.clone());
    manifest.units = system::enablement(references, context)?;
    let users: BTreeSet<&AccountName> = selection
        .instances
        .iter()
        .map(|(instance, _)| &instance.user)
        .collect();
    for user in users {
        match accounts::find(user, context)? {
            Some(account) => manifest.accounts.push(account),
            None => host.warnings.push(format!("account `{user}` not found")),
        }
    }
    let directories = manifest
        .instances
        .iter()
        .map(|instance| instance.directory.as_str());
    let governed = system::governed(
        directories,
        &manifest.credentials,
        host.profile.unit_files.keys(),
    );
    for path in governed {
        if let Some(mode) = accounts::ownership(&context.path(&path), context)? {
            manifest.modes.insert(path, mode);
        }
    }
    Ok(host)
}

fn read_environments(
    selection: &Selection,
    context: &Context,
    host: &mut Host,
) -> anyhow::Result<()> {
    let pinned = &selection.pinned;
    let mut found = managed::environments(pinned, selection.damage, context)?;
    for (prefix, lock) in &selection.prefixes {
        if !context.path(&format!("{prefix}/conda-meta")).is_dir() {
            let warning = format!("environment `{prefix}` not found");
            host.warnings.push(warning);
            continue;
        }
        let owner = accounts::ownership(&context.path(prefix), context)?;
        let owner = owner.map_or_else(|| "root".to_owned(), |owner| owner.user.to_string());
        let question = Question::Environment {
            damage: selection.damage,
        };
        let answer = inspection::ask(&owner, prefix, &question, context)?;
        if !answer.strangers.is_empty() {
            let names: Vec<&str> = answer.strangers.iter().map(ForeignText::as_str).collect();
            host.warnings.push(format!(
                "`{prefix}` contains packages of pip, which are not in a lock: {}",
                names.join(", ")
            ));
        }
        let text = lock_text(&answer.packages)
            .with_context(|| format!("lock the environment `{prefix}`"))?;
        let entry = EnvironmentEntry {
            prefix: prefix.clone(),
            kind: Kind::Conda,
            generation: None,
            owner: Some(owner),
            lock: lock.clone(),
        };
        found.push((entry, text, answer.damage));
    }
    found.sort_by(|(one, ..), (other, ..)| one.prefix.cmp(&other.prefix));
    for (entry, text, damage) in found {
        let (text, is_changed) = without_secrets(&text);
        if is_changed {
            host.warnings.push(format!(
                "`{}`: credentials in addresses of channels are omitted",
                entry.lock
            ));
        }
        if !damage.is_empty() {
            host.damage.insert(entry.prefix.clone(), damage);
        }
        host.profile.locks.insert(entry.lock.clone(), text);
        host.profile.manifest.environments.push(entry);
    }
    Ok(())
}

/// Addresses of channels may have a name and a password, or Anaconda's `/t/TOKEN/`.
fn without_secrets(lock: &str) -> (String, bool) {
    let mut text = String::new();
    for line in lock.lines() {
        let mut line = line.to_owned();
        if let Some((scheme, rest)) = line.split_once("://") {
            let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
            let host = host.rsplit('@').next().unwrap_or(host);
            let path = match path
                .strip_prefix("t/")
                .and_then(|rest| rest.split_once('/'))
            {
                Some((_, rest)) => rest,
                None => path,
            };
            line = format!("{scheme}://{host}/{path}");
        }
        text += &line;
        text.push('\n');
    }
    let is_changed = text != lock;
    (text, is_changed)
}

fn read_instances(selection: &Selection, context: &Context, host: &mut Host) -> anyhow::Result<()> {
    for (entry, files) in &selection.instances {
        let mut entry = entry.clone();
        entry.files.clear();
        let is_there = accounts::find(&entry.user, context)?.is_some() || context.is_elsewhere();
        let directory = context.path(&entry.directory);
        if is_there && directory.is_dir() {
            let question = Question::Files(files.clone());
            let answer =
                inspection::ask(entry.user.as_str(), &entry.directory, &question, context)?;
            if answer.is_filled {
                host.filled.insert(entry.reference.clone());
            }
            for (path, (text, mode)) in answer.files {
                let key = (entry.reference.clone(), path.clone());
                host.profile.instance_files.insert(key, text);
                entry.files.insert(path, mode);
            }
        }
        entry.created = created(&record_file(&entry.reference, context))?;
        host.profile.manifest.instances.push(entry);
    }
    let instances = &mut host.profile.manifest.instances;
    instances.sort_by(|one, other| one.reference.cmp(&other.reference));
    Ok(())
}

/// The record of `create`, unchanged.
fn created(path: &Path) -> anyhow::Result<Option<serde_json::Value>> {
    match fs::read_to_string(path) {
        Err(_) => Ok(None),
        Ok(text) => serde_json::from_str(&text)
            .map(Some)
            .with_context(|| format!("read `{}`", path.display())),
    }
}
