//! The workers that a master's files name (`buildbot_conda_core::workers` and `worker_table`), read and changed as the
//! account that owns the file. For root, the text is only data: it is not executed, followed or shown.

use std::fmt;
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use buildbot_conda_core::starter::{Details, WORKER_TABLE, WorkerName};
use buildbot_conda_core::worker_table::{self, WorkerTable};
use buildbot_conda_core::workers::{self, WorkerList};
use rustix::fs::Access;
use serde::{Deserialize, Serialize};

use crate::system::as_user;
use crate::system::values::{Identity, Mode};

/// Bytes; real ones have some thousands.
const LARGEST: u64 = 1 << 20;
/// The name of the new file until it replaces the old one.
const STAGE: &str = ".workers.being-made";

/// A master's configuration as its account sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) text: String,
    /// Whether the account can replace the file: it owns both the file and the directory.
    pub(crate) is_own: bool,
    /// The file itself, where a link leads to it.
    pub(crate) file: PathBuf,
    pub(crate) mode: Mode,
}

/// A name on its way into the list or out of it. The file becomes `after`, or where it is not
/// `before` any more, its list alone is changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Edit {
    pub(crate) path: PathBuf,
    /// As the master knows it.
    pub(crate) name: String,
    /// The details of the worker before the change; none if it was not listed. A list contains only names.
    pub(crate) was: Option<Details>,
    /// The same afterwards.
    pub(crate) becomes: Option<Details>,
    pub(crate) before: String,
    pub(crate) after: String,
    /// Whether it is an error if the list does not exist any more. A rollback then has nothing to do.
    pub(crate) required: bool,
}

/// The workers that a file names, as far as it is understood: a starter's `workers.toml`, or the list in an older
/// `master.cfg`.
pub(crate) enum Names<'a> {
    List(WorkerList<'a>),
    Table(WorkerTable<'a>),
}

fn is_table(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == WORKER_TABLE)
}

impl<'a> Names<'a> {
    pub(crate) fn read(path: &Path, text: &'a str) -> Option<Self> {
        if is_table(path) {
            worker_table::read(text).map(Self::Table)
        } else {
            workers::find(text).map(Self::List)
        }
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        match self {
            Self::List(list) => list.contains(name),
            Self::Table(table) => table.contains(name),
        }
    }

    /// The details of a worker; none if it is not listed.
    pub(crate) fn details(&self, name: &str) -> Option<Details> {
        self.contains(name).then(|| match self {
            Self::List(_) => Details::default(),
            Self::Table(table) => table.details(name),
        })
    }

    /// Another worker that has one of the names.
    pub(crate) fn namesake(&self, name: &WorkerName, details: &Details) -> Option<&str> {
        match self {
            Self::List(_) => None,
            Self::Table(table) => table.namesake(name, details),
        }
    }

    pub(crate) fn with(&self, name: &WorkerName, details: &Details) -> String {
        match self {
            Self::List(list) => list.with(name),
            Self::Table(table) => table.with(name, details),
        }
    }

    pub(crate) fn without(&self, name: &str) -> Option<String> {
        match self {
            Self::List(list) => list.without(name),
            Self::Table(table) => table.without(name),
        }
    }
}

impl Edit {
    /// The change that rolls it back.
    pub(crate) fn inverse(&self) -> Self {
        Self {
            path: self.path.clone(),
            name: self.name.clone(),
            was: self.becomes.clone(),
            becomes: self.was.clone(),
            before: self.after.clone(),
            after: self.before.clone(),
            required: false,
        }
    }

    /// The whole text that results from `text`; none if nothing changes.
    fn applied(&self, text: &str) -> anyhow::Result<Option<String>> {
        if text == self.after {
            return Ok(None);
        }
        if text == self.before {
            return Ok(Some(self.after.clone()));
        }
        let path = self.path.display();
        let names = Names::read(&self.path, text);
        if names.is_none() && !self.required {
            return Ok(None);
        }
        let Some(names) = names else {
            bail!("`{path}` was changed in the meantime, and its workers can no longer be read");
        };
        let there = names.details(&self.name);
        Ok(match &self.becomes {
            becomes if *becomes == there => None,
            Some(details) => Some(names.with(&self.name.parse::<WorkerName>()?, details)),
            None => names.without(&self.name),
        })
    }
}

impl fmt::Display for Edit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, preposition) = match (&self.was, &self.becomes) {
            (None, Some(_)) => ("add", "to"),
            (Some(_), Some(_)) => ("change", "in"),
            (_, None) => ("remove", "from"),
        };
        let file = crate::output::harmless(&self.path.display().to_string());
        let name = &self.name;
        if is_table(&self.path) {
            return write!(formatter, "{verb} \"{name}\" {preposition} `{file}`");
        }
        let list = workers::VARIABLE;
        write!(
            formatter,
            "{verb} \"{name}\" {preposition} `{list}` in `{file}`"
        )
    }
}

/// Lets `user` read a file; none if it does not exist.
pub(crate) fn read_as_user(identity: &Identity, path: &Path) -> anyhow::Result<Option<Seen>> {
    let user = identity.user.as_str();
    let answer = as_user::call(user, identity.group(), &["see-list"], path, "")?;
    serde_json::from_str(&answer).with_context(|| format!("examine `{}`", path.display()))
}

/// Lets `user` make a change.
pub(crate) fn change(identity: &Identity, edit: &Edit) -> anyhow::Result<()> {
    let input = serde_json::to_string(edit).context("write a change")?;
    let user = &identity.user;
    as_user::call(
        user.as_str(),
        identity.group(),
        &["edit-list"],
        &edit.path,
        &input,
    )
    .map(drop)
    .with_context(|| format!("change `{}` as `{user}`", edit.path.display()))
}

/// Reads a file with the rights of this process.
pub(crate) fn read(path: &Path) -> anyhow::Result<Option<Seen>> {
    let seen = || -> io::Result<Option<Seen>> {
        let Some((file, metadata)) = buildbot_conda_host::open(path)? else {
            return Ok(None);
        };
        if !metadata.is_file() {
            return Ok(None);
        }
        let content = buildbot_conda_host::read_at_most(&file, LARGEST)?.unwrap_or_default();
        let Ok(text) = String::from_utf8(content) else {
            return Ok(None);
        };
        let real = path.canonicalize()?;
        let parent = real.parent().unwrap_or(Path::new("/"));
        let can_write = rustix::fs::access(parent, Access::WRITE_OK | Access::EXEC_OK).is_ok();
        let is_own = can_write && metadata.uid() == rustix::process::geteuid().as_raw();
        let mode = Mode::new(metadata.permissions().mode() & 0o7777);
        let file = real;
        Ok(Some(Seen {
            text,
            is_own,
            file,
            mode,
        }))
    };
    seen().with_context(|| format!("read `{}`", path.display()))
}

/// As the service user: makes the change that standard input describes, atomically. A link is an arrangement of the
/// owner; its target is changed.
pub(crate) fn apply_edit(path: &Path) -> anyhow::Result<()> {
    let mut input = String::new();
    io::stdin()
        .read_to_string(&mut input)
        .context("read a change")?;
    let edit: Edit = serde_json::from_str(&input).context("read a change")?;
    let name = path.display();
    let text = read(path)?.map(|seen| seen.text);
    if text.is_none() && edit.required {
        bail!("`{name}` is no longer a text file");
    }
    let Some(after) = text.map(|text| edit.applied(&text)).transpose()?.flatten() else {
        return Ok(());
    };
    replace(path, &after).with_context(|| format!("write `{name}`"))
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let path = path.canonicalize()?;
    let parent = path.parent().unwrap_or(Path::new("/"));
    let mode = path.metadata()?.permissions().mode() & 0o7777;
    let stage = parent.join(STAGE);
    // What a killed one has left.
    match fs::remove_file(&stage) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = File::options();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&stage)?;
    file.write_all(text.as_bytes())?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()?;
    fs::rename(&stage, &path)?;
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "WORKERS = [\"a\"]\nx = WORKERS\n";
    const AFTER: &str = "WORKERS = [\"a\", \"b\"]\nx = WORKERS\n";

    fn edit() -> Edit {
        Edit {
            path: "/m/master.cfg".into(),
            name: "b".to_owned(),
            was: None,
            becomes: Some(Details::default()),
            before: BEFORE.to_owned(),
            after: AFTER.to_owned(),
            required: true,
        }
    }

    #[test]
    fn a_change_is_made_and_taken_back_once() {
        let (there, back) = (edit(), edit().inverse());
        assert_eq!(there.applied(BEFORE).unwrap().as_deref(), Some(AFTER));
        assert_eq!(there.applied(AFTER).unwrap(), None);
        assert_eq!(back.applied(AFTER).unwrap().as_deref(), Some(BEFORE));
        assert_eq!(back.applied(BEFORE).unwrap(), None);
    }

    #[test]
    fn what_somebody_else_has_changed_meanwhile_stays() {
        let mine = |text: &str| format!("# mine\n{text}");
        let (there, back) = (edit(), edit().inverse());
        assert_eq!(there.applied(&mine(BEFORE)).unwrap(), Some(mine(AFTER)));
        assert_eq!(back.applied(&mine(AFTER)).unwrap(), Some(mine(BEFORE)));
        assert_eq!(there.applied(&mine(AFTER)).unwrap(), None);
        assert!(there.applied("WORKERS = list()\n").is_err());
        assert_eq!(back.applied("WORKERS = list()\n").unwrap(), None);
    }

    #[test]
    fn a_file_keeps_its_mode_and_its_link() {
        let directory = tempfile::tempdir().unwrap();
        let (real, link) = (directory.path().join("real"), directory.path().join("link"));
        fs::write(&real, BEFORE).unwrap();
        fs::set_permissions(&real, Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("real", &link).unwrap();
        // As a killed one leaves it.
        fs::write(directory.path().join(STAGE), "half").unwrap();
        let seen = read(&link).unwrap().unwrap();
        assert!(seen.is_own && seen.text == BEFORE);
        replace(&link, AFTER).unwrap();
        assert_eq!(fs::read_to_string(&real).unwrap(), AFTER);
        assert_eq!(
            real.metadata().unwrap().permissions().mode() & 0o7777,
            0o640
        );
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
        assert_eq!(read(&directory.path().join("none")).unwrap(), None);
        assert_eq!(read(directory.path()).unwrap(), None);
    }
}
