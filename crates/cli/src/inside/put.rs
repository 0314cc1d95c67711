//! One file in a service user's directory, written atomically by that user. A replaced file is kept unless the plan
//! knows its content.

use std::fmt;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use crate::output::harmless;
use crate::system::as_user;
use crate::system::files::{self, Found};
use crate::system::values::{Identity, Mode};

/// What a file is; of the directory itself, the mode alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Text {
    pub(crate) text: String,
    pub(crate) mode: Mode,
}

/// The content of a file becomes `after`, or the file is removed if that is none. A file with other content than
/// `before` and `after` is kept next to it; with `keep`, so is `before`. The directory is created if it is missing, and
/// removed if it is empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Put {
    #[serde(flatten)]
    pub(crate) identity: Identity,
    pub(crate) directory: PathBuf,
    /// Relative to the directory; empty for the directory itself.
    pub(crate) path: PathBuf,
    pub(crate) before: Option<Text>,
    pub(crate) after: Option<Text>,
    pub(crate) keep: bool,
}

impl Put {
    /// The change that rolls it back, whether it was carried out or not.
    pub(crate) fn inverse(&self) -> Self {
        Self {
            before: self.after.clone(),
            after: self.before.clone(),
            keep: false,
            ..self.clone()
        }
    }
}

impl fmt::Display for Put {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_itself = self.path.as_os_str().is_empty();
        let place = if is_itself {
            self.directory.clone()
        } else {
            self.directory.join(&self.path)
        };
        let (user, place) = (&self.identity.user, harmless(&place.display().to_string()));
        match &self.after {
            Some(text) if is_itself && self.before.is_none() => {
                write!(
                    formatter,
                    "as `{user}`, create `{place}`, mode {}",
                    text.mode
                )
            }
            Some(text) if is_itself => {
                write!(
                    formatter,
                    "as `{user}`, change the mode of `{place}` to {}",
                    text.mode
                )
            }
            Some(text) => {
                write!(
                    formatter,
                    "as `{user}`, write `{place}`, mode {}",
                    text.mode
                )
            }
            None if is_itself => {
                write!(formatter, "as `{user}`, remove `{place}` if it is empty")
            }
            None => write!(formatter, "as `{user}`, remove `{place}`"),
        }
    }
}

/// Lets the user change the file.
pub(crate) fn put(put: &Put) -> anyhow::Result<()> {
    let input = serde_json::to_string(put).context("write a change")?;
    let place = put.directory.join(&put.path);
    let user = &put.identity.user;
    let group = put.identity.group();
    as_user::call(user.as_str(), group, &["put"], &put.directory, &input)
        .map(drop)
        .with_context(|| format!("write `{}` as `{user}`", place.display()))
}

/// As the service user: carries out what standard input describes.
pub(crate) fn put_as_user(directory: &Path) -> anyhow::Result<()> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .context("read a change")?;
    let change: Put = serde_json::from_str(&text).context("read a change")?;
    if change.path.as_os_str().is_empty() {
        return set_mode(directory, change.after.as_ref());
    }
    let path = directory.join(&change.path);
    let there = match files::inspect(&path)? {
        Found::Nothing => None,
        Found::File { text, mode } => Some(Text {
            text,
            mode: Mode::new(mode),
        }),
        Found::Link(_) | Found::Directory => bail!("`{}` is not a file", path.display()),
    };
    if there == change.after {
        return Ok(());
    }
    let is_known = there == change.before && !change.keep;
    let text_of = |text: &Option<Text>| text.as_ref().map(|text| text.text.clone());
    let is_other = text_of(&there) != text_of(&change.after);
    if let Some(old) = there.filter(|_| is_other && !is_known) {
        files::write(&free_name(&path)?, &old.text, old.mode.bits())?;
    }
    match change.after {
        None => files::remove(&path),
        Some(new) => {
            let parent = path.parent().context("find the directory of a file")?;
            fs::create_dir_all(parent).with_context(|| format!("create `{}`", parent.display()))?;
            files::write(&path, &new.text, new.mode.bits())
        }
    }
}

/// The directory itself has a mode alone.
fn set_mode(directory: &Path, after: Option<&Text>) -> anyhow::Result<()> {
    let Some(after) = after else {
        // A directory that is not empty stays; one that another process has removed is fine.
        let _ = fs::remove_dir(directory);
        return Ok(());
    };
    fs::create_dir_all(directory).with_context(|| format!("create `{}`", directory.display()))?;
    fs::set_permissions(directory, fs::Permissions::from_mode(after.mode.bits()))
        .with_context(|| format!("set the mode of `{}`", directory.display()))
}

/// `NAME.replaced`, `NAME.replaced.1` and so on: the first that nothing has.
pub(crate) fn free_name(path: &Path) -> anyhow::Result<PathBuf> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name =
        name.with_context(|| format!("determine the name of a copy of `{}`", path.display()))?;
    let names = std::iter::once(format!("{name}.replaced"))
        .chain((1..).map(|number| format!("{name}.replaced.{number}")));
    names
        .map(|name| path.with_file_name(name))
        .find(|path| path.symlink_metadata().is_err())
        .context("determine the name of a copy")
}
