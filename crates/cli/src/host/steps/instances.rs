//! What is in instances' directories, done as their users, and what `create` would have noted of them.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use buildbot_conda_core::names::{InstanceRef, Role};

use super::{Draft, Wish};
use crate::host::differences::Difference;
use crate::host::manifest::InstanceEntry;
use crate::inside::fill::{Contents, Made};
use crate::inside::put::{Put, Text};
use crate::plan::{Step, give};
use crate::system::context::{Context, InvalidConfiguration};
use crate::system::record::{RECORDS, record_file};

/// An instance that is not set up gets its directory, with everything that the profile has of it.
pub(super) fn directory(
    difference: &Difference,
    wish: &Wish<'_>,
    context: &Context,
    draft: &mut Draft,
) -> anyhow::Result<()> {
    let reference = &difference.name;
    let entry = entry(reference, wish)?;
    let instance = wish
        .settings
        .instance(&reference.parse()?)
        .map_err(InvalidConfiguration::from)?;
    let mut accounts = wish.profile.manifest.accounts.iter();
    let account = accounts.find(|account| account.name == entry.user);
    let home = account.map_or_else(
        || Path::new("/home").join(&entry.user),
        |account| PathBuf::from(&account.home),
    );
    draft.files.extend(give(instance, &home, context));
    let mut files = Vec::new();
    for (path, mode) in &entry.files {
        let key = (reference.clone(), path.clone());
        let text = wish.profile.instance_files.get(&key);
        files.push(Made {
            path: path.into(),
            text: text.context("find a file of an instance")?.clone(),
            mode: octal(mode)?,
        });
    }
    draft.files.push(Step::Fill {
        user: entry.user.clone(),
        group: instance
            .group
            .as_ref()
            .map(|group| group.as_str().to_owned()),
        directory: context.path(&entry.directory),
        contents: Contents {
            database: None,
            files,
        },
    });
    draft.begun.insert(reference.clone());
    Ok(())
}

/// A file of an instance that is set up; another one is kept beside it.
pub(super) fn file(
    difference: &Difference,
    wish: &Wish<'_>,
    context: &Context,
    draft: &mut Draft,
) -> anyhow::Result<()> {
    let (reference, path) = difference.name.split_once(':').context("name a file")?;
    let entry = entry(reference, wish)?;
    let key = (reference.to_owned(), path.to_owned());
    let text = wish.profile.instance_files.get(&key);
    let text = text.context("find a file of an instance")?;
    let mut has = wish.host.profile.manifest.instances.iter();
    let has = has.find(|one| one.reference == reference);
    let old_mode = has.and_then(|has| has.files.get(path));
    let old_text = wish.host.profile.instance_files.get(&key);
    let before = match (old_text, old_mode) {
        (Some(text), Some(mode)) => Some(Text {
            text: text.clone(),
            mode: octal(mode)?,
        }),
        _ => None,
    };
    draft.files.push(Step::Put(Put {
        user: entry.user.clone(),
        directory: context.path(&entry.directory),
        path: path.into(),
        keep: before.is_some(),
        before,
        after: Some(Text {
            text: text.clone(),
            mode: octal(&entry.files[path])?,
        }),
    }));
    if old_text == Some(text) {
        return Ok(());
    }
    let role = reference.parse::<InstanceRef>()?.role;
    if path == "buildbot.tac" {
        draft.changed.insert(reference.to_owned());
        draft.begun.insert(reference.to_owned());
    } else if role == Role::Master {
        draft.reloads.insert(reference.to_owned());
    }
    Ok(())
}

/// By these `remove` and `create` know instances.
pub(super) fn record(
    difference: &Difference,
    wish: &Wish<'_>,
    context: &Context,
    draft: &mut Draft,
) -> anyhow::Result<()> {
    let entry = entry(&difference.name, wish)?;
    let path = record_file(&difference.name.parse()?, context);
    let Some(created) = &entry.created else {
        draft.files.push(Step::Remove { path });
        return Ok(());
    };
    let parent = Step::CreateDirectory {
        path: context.path(RECORDS),
        mode: 0o755,
    };
    if !context.path(RECORDS).is_dir() && !draft.files.contains(&parent) {
        draft.files.push(parent);
    }
    draft.files.push(Step::Write {
        path,
        text: serde_json::to_string(created).context("write a record")? + "\n",
        mode: 0o644,
        secret: false,
    });
    Ok(())
}

fn entry<'a>(reference: &str, wish: &Wish<'a>) -> anyhow::Result<&'a InstanceEntry> {
    let mut instances = wish.profile.manifest.instances.iter();
    let found = instances.find(|instance| instance.reference == reference);
    found.with_context(|| format!("find the instance `{reference}`"))
}

fn octal(text: &str) -> anyhow::Result<u32> {
    u32::from_str_radix(text, 8).with_context(|| format!("read the mode `{text}`"))
}
