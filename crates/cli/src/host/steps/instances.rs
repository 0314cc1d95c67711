//! The content of instances' directories, written as their users, and the records that `create` would have written.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use buildbot_conda_core::names::{InstanceRef, Role};
use buildbot_conda_core::starter::{PASSWORDS, WORKER_CREDENTIAL, WORKER_TABLE, WorkerName};

use super::{Draft, Wish};
use crate::host::manifest::InstanceEntry;
use crate::host::system;
use crate::inside::fill::{Contents, Made};
use crate::inside::put::{Put, Text};
use crate::plan::{FileStep, Step, UserStep, give};
use crate::system::context::{Context, InvalidConfiguration};
use crate::system::record::{RECORDS, WorkerRecord, record_file};
use crate::system::values::{Identity, Mode};

/// An instance that is not set up gets its directory, with everything that the profile has of it.
pub(super) fn directory(
    reference: &InstanceRef,
    wish: &Wish<'_>,
    context: &Context,
    draft: &mut Draft,
) -> anyhow::Result<()> {
    let entry = entry(reference, wish)?;
    let instance = wish
        .settings
        .instance(reference)
        .map_err(InvalidConfiguration::from)?;
    let mut accounts = wish.profile.manifest.accounts.iter();
    let account = accounts.find(|account| account.name == entry.user);
    let home = account.map_or_else(
        || Path::new("/home").join(entry.user.as_str()),
        |account| PathBuf::from(&account.home),
    );
    draft.files.extend(give(instance, &home, context)?);
    let mut files = Vec::new();
    for (path, mode) in &entry.files {
        let key = (reference.clone(), path.clone());
        let text = wish.profile.instance_files.get(&key);
        files.push(Made {
            path: path.into(),
            text: text.context("find a file of an instance")?.clone(),
            mode: *mode,
        });
    }
    files.extend(passwords(reference, wish, context)?);
    draft.files.push(
        UserStep::Fill {
            identity: Identity::of(instance),
            directory: context.path(&entry.directory),
            contents: Contents {
                database: None,
                url: None,
                files,
            },
        }
        .into(),
    );
    draft.begun.insert(reference.clone());
    Ok(())
}

/// The passwords of a master's workers on this host, which a profile does not contain: the master reads them from its
/// own files, and root has them as the workers' credentials.
fn passwords(
    master: &InstanceRef,
    wish: &Wish<'_>,
    context: &Context,
) -> anyhow::Result<Vec<Made>> {
    let mut made = Vec::new();
    for entry in &wish.profile.manifest.instances {
        let record = entry.created.clone().map(serde_json::from_value);
        let Some(Ok(WorkerRecord {
            worker,
            instance: Some(instance),
            ..
        })) = record
        else {
            continue;
        };
        let configured = wish.settings.instance(&entry.reference);
        let configured = configured.map_err(InvalidConfiguration::from)?;
        let mut credentials = configured.credentials.iter();
        let password = credentials.find(|(name, _)| name.as_str() == WORKER_CREDENTIAL);
        let Some((_, file)) = password.filter(|_| instance == master.to_string()) else {
            continue;
        };
        let text = match wish.secrets.get(system::credential_name(file.as_str())) {
            Some(text) => text.clone(),
            None => fs::read_to_string(context.path(file.as_str())).unwrap_or_default(),
        };
        made.push(Made {
            path: Path::new(PASSWORDS).join(worker.parse::<WorkerName>()?.as_str()),
            text,
            mode: Mode::new(0o600),
        });
    }
    let is_read = wish
        .profile
        .manifest
        .instances
        .iter()
        .any(|entry| entry.reference == *master && entry.files.contains_key(WORKER_TABLE));
    Ok(if is_read { made } else { Vec::new() })
}

/// A file of an instance that is set up; a different existing file is kept next to it.
pub(super) fn file(
    reference: &InstanceRef,
    path: &str,
    wish: &Wish<'_>,
    context: &Context,
    draft: &mut Draft,
) -> anyhow::Result<()> {
    let entry = entry(reference, wish)?;
    let key = (reference.clone(), path.to_owned());
    let text = wish.profile.instance_files.get(&key);
    let text = text.context("find a file of an instance")?;
    let mut has = wish.host.profile.manifest.instances.iter();
    let has = has.find(|one| one.reference == *reference);
    let old_mode = has.and_then(|has| has.files.get(path));
    let old_text = wish.host.profile.instance_files.get(&key);
    let before = match (old_text, old_mode) {
        (Some(text), Some(mode)) => Some(Text {
            text: text.clone(),
            mode: *mode,
        }),
        _ => None,
    };
    draft.files.push(
        UserStep::Put(Put {
            identity: Identity {
                user: entry.user.clone(),
                group: None,
            },
            directory: context.path(&entry.directory),
            path: path.into(),
            keep: before.is_some(),
            before,
            after: Some(Text {
                text: text.clone(),
                mode: entry.files[path],
            }),
        })
        .into(),
    );
    if old_text == Some(text) {
        return Ok(());
    }
    if path == "buildbot.tac" {
        draft.changed.insert(reference.clone());
        draft.begun.insert(reference.clone());
    } else if reference.role == Role::Master {
        draft.reloads.insert(reference.clone());
    }
    Ok(())
}

/// The records with which `remove` and `create` know instances.
pub(super) fn record(
    reference: &InstanceRef,
    wish: &Wish<'_>,
    context: &Context,
    draft: &mut Draft,
) -> anyhow::Result<()> {
    let entry = entry(reference, wish)?;
    let path = record_file(reference, context);
    let Some(created) = &entry.created else {
        draft.files.push(FileStep::Remove { path }.into());
        return Ok(());
    };
    let parent: Step = FileStep::CreateDirectory {
        path: context.path(RECORDS),
        mode: Mode::new(0o755),
    }
    .into();
    if !context.path(RECORDS).is_dir() && !draft.files.contains(&parent) {
        draft.files.push(parent);
    }
    draft.files.push(
        FileStep::Write {
            path,
            text: serde_json::to_string(created).context("write a record")? + "\n",
            mode: Mode::new(0o644),
            secret: false,
        }
        .into(),
    );
    Ok(())
}

fn entry<'a>(reference: &InstanceRef, wish: &Wish<'a>) -> anyhow::Result<&'a InstanceEntry> {
    let mut instances = wish.profile.manifest.instances.iter();
    let found = instances.find(|instance| instance.reference == *reference);
    found.with_context(|| format!("find the instance `{reference}`"))
}
