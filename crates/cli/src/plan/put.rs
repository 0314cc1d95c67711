//! One file in a service user's directory, written by that user: whole or not at all, and what it replaces is kept
//! unless the plan knows it.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use super::account;
use super::files::{self, Found};

/// What a file is; of the directory itself, the mode alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Text {
    pub(crate) text: String,
    /// Octal.
    pub(crate) mode: u32,
}

/// What is said to the service user's process.
#[derive(Debug, Serialize, Deserialize)]
struct Change {
    path: PathBuf,
    before: Option<Text>,
    after: Option<Text>,
    keep: bool,
}

/// Has `user` change the file.
pub(super) fn put(
    user: &str,
    directory: &Path,
    path: &Path,
    before: Option<&Text>,
    after: Option<&Text>,
    keep: bool,
) -> anyhow::Result<()> {
    let change = Change {
        path: path.to_owned(),
        before: before.cloned(),
        after: after.cloned(),
        keep,
    };
    let input = serde_json::to_string(&change).context("write a change")?;
    let place = directory.join(path);
    account::call(user, None, &["put"], directory, &input)
        .map(drop)
        .with_context(|| format!("write `{}` as `{user}`", place.display()))
}

/// As the service user: does what stands on standard input.
pub(crate) fn put_as_user(directory: &Path) -> anyhow::Result<()> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .context("read a change")?;
    let change: Change = serde_json::from_str(&text).context("read a change")?;
    if change.path.as_os_str().is_empty() {
        return set_mode(directory, change.after.as_ref());
    }
    let path = directory.join(&change.path);
    let there = match files::look(&path)? {
        Found::Nothing => None,
        Found::File { text, mode } => Some(Text { text, mode }),
        Found::Link(_) | Found::Directory => bail!("`{}` is no file", path.display()),
    };
    if there == change.after {
        return Ok(());
    }
    let is_known = there == change.before && !change.keep;
    let text_of = |text: &Option<Text>| text.as_ref().map(|text| text.text.clone());
    if let (Some(old), false) = (&there, is_known) {
        if text_of(&there) != text_of(&change.after) {
            files::write(&free_name(&path)?, &old.text, old.mode)?;
        }
    }
    match change.after {
        None => files::remove(&path),
        Some(new) => {
            let parent = path.parent().context("find the directory of a file")?;
            fs::create_dir_all(parent).with_context(|| format!("create `{}`", parent.display()))?;
            files::write(&path, &new.text, new.mode)
        }
    }
}

/// The directory itself has a mode alone.
fn set_mode(directory: &Path, after: Option<&Text>) -> anyhow::Result<()> {
    let Some(after) = after else {
        return Ok(());
    };
    fs::set_permissions(directory, fs::Permissions::from_mode(after.mode))
        .with_context(|| format!("set the mode of `{}`", directory.display()))
}

/// `NAME.replaced`, `NAME.replaced.1` and so on: the first that nothing has.
pub(crate) fn free_name(path: &Path) -> anyhow::Result<PathBuf> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.with_context(|| format!("name a copy of `{}`", path.display()))?;
    let names = std::iter::once(format!("{name}.replaced"))
        .chain((1..).map(|number| format!("{name}.replaced.{number}")));
    names
        .map(|name| path.with_file_name(name))
        .find(|path| path.symlink_metadata().is_err())
        .context("name a copy")
}
