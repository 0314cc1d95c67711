//! How a master on this host gets to know a worker, and forgets it: by the table of workers beside its starter
//! configuration, or the list in an older one, as long as that is one. The files are their account's, which reads and
//! changes them.

use std::path::{Path, PathBuf};

use anyhow::bail;
use buildbot_conda_core::settings::Instance;
use buildbot_conda_core::starter::{Details, PASSWORDS, WORKER_TABLE, WorkerName};
use buildbot_conda_core::workers;

use super::{Step, UnitStep, UserStep, systemd};
use crate::inside::put::{Put, Text};
use crate::inside::worker_list::{self, Edit, Names, Seen};
use crate::output::harmless;
use crate::system::context::Context;
use crate::system::values::{Identity, Mode};

/// What a plan gets from it.
#[derive(Debug, Default)]
pub(crate) struct Naming {
    pub(crate) steps: Vec<Step>,
    /// For people.
    pub(crate) note: Option<String>,
    /// Whether the master's configuration names the worker once the steps are done; unknown counts
    /// as no.
    pub(crate) is_named: bool,
}

/// Where a master has the names of its workers.
#[derive(Debug)]
pub(crate) enum Workers {
    /// In the list of an older starter's `master.cfg`; they share a password.
    Listed,
    /// In `workers.toml`, with a password each. The one that the worker is to have is handed over, unless the master
    /// has it already.
    Tabled {
        password: Option<String>,
        /// What else it says of it; none where that stays as it is.
        details: Option<Details>,
    },
}

impl Workers {
    fn file(&self) -> &'static str {
        match self {
            Self::Listed => "master.cfg",
            Self::Tabled { .. } => WORKER_TABLE,
        }
    }

    /// What a person has to do where this program cannot.
    fn instead(&self, name: &str) -> String {
        match self {
            Self::Listed => format!(
                "it contains no plain list `{}`; add the worker to \
                 it, for example with `worker.Worker(\"{name}\", secret(\"worker-password\"))`",
                workers::VARIABLE
            ),
            Self::Tabled { .. } => format!(
                "it cannot be read; add the worker `{name}` to the master, with the password in its credential"
            ),
        }
    }
}

/// Has `master` know a worker.
///
/// # Errors
///
/// When it does not know it, and its account cannot change that.
pub(crate) fn add(
    master: &Instance,
    name: &WorkerName,
    workers: &Workers,
    context: &Context,
) -> anyhow::Result<Naming> {
    let path = file_of(master, workers.file(), context);
    let shown = harmless(&path.display().to_string());
    let seen = read_file(master, &path, context);
    let names = seen
        .as_ref()
        .and_then(|seen| Names::read(&path, &seen.text));
    let (Some(seen), Some(names)) = (&seen, names) else {
        // Whatever it is now, it may name the worker in its own way; the worker will say so.
        return Ok(Naming {
            note: Some(format!("`{shown}`: {}", workers.instead(name.as_str()))),
            ..Naming::default()
        });
    };
    let was = names.details(name.as_str());
    let (password, wanted) = match workers {
        Workers::Tabled { password, details } => (password.as_ref(), details.clone()),
        Workers::Listed => (None, None),
    };
    let becomes = wanted.or_else(|| was.clone()).unwrap_or_default();
    if let Some(other) = names.namesake(name, &becomes) {
        bail!(
            "`{shown}` contains the worker `{other}`, whose slots share a name with `{}`\n\
             hint: choose another name, or fewer slots",
            name.as_str()
        );
    }
    let password = password.map(|new| put(master, name.as_str(), None, Some(new), context));
    let is_as_wanted = was.as_ref() == Some(&becomes);
    if is_as_wanted && password.is_none() {
        return Ok(Naming {
            is_named: true,
            ..Naming::default()
        });
    }
    if !seen.is_own {
        bail!(
            "`{shown}` does not contain the worker `{0}`, and `{user}` cannot change it\n\
             hint: add \"{0}\" to it, then run `systemctl reload {unit}`",
            name.as_str(),
            user = master.user.as_str(),
            unit = master.reference.unit_name(),
        );
    }
    let edit = Edit {
        path,
        name: name.as_str().to_owned(),
        after: names.with(name, &becomes),
        was,
        becomes: Some(becomes),
        before: seen.text.clone(),
        required: true,
    };
    let mut steps: Vec<Step> = password.into_iter().collect();
    steps.extend(reloaded(master, (!is_as_wanted).then_some(edit), context)?);
    Ok(Naming {
        steps,
        note: matches!(workers, Workers::Listed).then(|| superseded(master)),
        is_named: true,
    })
}

/// What the administrator of an older starter is told while this program still changes its list.
fn superseded(master: &Instance) -> String {
    format!(
        "the workers of `{0}` are in its `master.cfg`, which a later version of buildbot-conda does not change any more; \
         `buildbot-conda convert {0}` moves them to `{WORKER_TABLE}`",
        master.reference
    )
}

/// Has `master` forget a worker. What it says otherwise is left to its owner.
///
/// # Errors
///
/// When systemd does not say whether the master runs.
pub(crate) fn take_out(
    master: &Instance,
    name: &str,
    workers: &Workers,
    context: &Context,
) -> anyhow::Result<Naming> {
    let path = file_of(master, workers.file(), context);
    let shown = harmless(&path.display().to_string());
    let Some(seen) = read_file(master, &path, context) else {
        return Ok(Naming::default());
    };
    let left = |why: &str| Naming {
        note: Some(format!("`{shown}` still contains the worker `{name}`{why}")),
        is_named: true,
        ..Naming::default()
    };
    let names = Names::read(&path, &seen.text).filter(|names| names.contains(name));
    let Some(names) = names else {
        let literals = [format!("\"{name}\""), format!("'{name}'")];
        let is_mentioned = literals.iter().any(|literal| seen.text.contains(literal));
        return Ok(if is_mentioned {
            left("")
        } else {
            Naming::default()
        });
    };
    let Some(after) = names.without(name) else {
        return Ok(left(", because its builder needs a worker"));
    };
    if !seen.is_own {
        let user = master.user.as_str();
        return Ok(left(&format!(", because `{user}` cannot change it")));
    }
    let edit = Edit {
        path,
        name: name.to_owned(),
        was: names.details(name),
        becomes: None,
        after,
        before: seen.text.clone(),
        required: true,
    };
    let mut steps = reloaded(master, Some(edit), context)?;
    // One that root does not know stays there: nothing uses it.
    if let Workers::Tabled {
        password: Some(password),
        ..
    } = workers
    {
        steps.push(put(master, name, Some(password), None, context));
    }
    Ok(Naming {
        steps,
        ..Naming::default()
    })
}

/// Whether the table of a master has a worker.
pub(crate) fn is_named(master: &Instance, name: &str, context: &Context) -> bool {
    details(master, name, context).is_some()
}

/// What the table of a master says of a worker; none where it is not there.
pub(crate) fn details(master: &Instance, name: &str, context: &Context) -> Option<Details> {
    let path = file_of(master, WORKER_TABLE, context);
    let seen = read_file(master, &path, context)?;
    Names::read(&path, &seen.text)?.details(name)
}

/// The password that a master has for a worker, if it has one.
pub(crate) fn password(master: &Instance, name: &str, context: &Context) -> Option<String> {
    let text = text(master, &format!("{PASSWORDS}/{name}"), context)?;
    text.lines().next().map(str::to_owned)
}

/// The text of a file in a master's directory, as its account sees it.
pub(crate) fn text(master: &Instance, name: &str, context: &Context) -> Option<String> {
    Some(seen(master, name, context)?.text)
}

/// A file in a master's directory, as its account sees it.
pub(crate) fn seen(master: &Instance, name: &str, context: &Context) -> Option<Seen> {
    read_file(master, &file_of(master, name, context), context)
}

/// The password of a worker, in the file that its master reads it from.
pub(crate) fn put(
    master: &Instance,
    name: &str,
    before: Option<&String>,
    after: Option<&String>,
    context: &Context,
) -> Step {
    UserStep::Put(password_file(master, name, before, after, context)).into()
}

/// The file of [`put`].
pub(crate) fn password_file(
    master: &Instance,
    name: &str,
    before: Option<&String>,
    after: Option<&String>,
    context: &Context,
) -> Put {
    let text = |password: &String| Text {
        text: format!("{password}\n"),
        mode: Mode::new(0o600),
    };
    Put {
        identity: Identity::of(master),
        directory: context.path(master.directory.as_str()),
        path: Path::new(PASSWORDS).join(name),
        before: before.map(text),
        after: after.map(text),
        keep: false,
    }
}

/// Whether a master on this host runs, so that a worker can be there at once.
pub(crate) fn is_running(master: &Instance, context: &Context) -> anyhow::Result<bool> {
    Ok(
        crate::system::systemd::runs(context)
            && systemd::is_running(&master.reference.unit_name())?,
    )
}

/// A change, if there is one, and the reload by which the master takes it.
fn reloaded(master: &Instance, edit: Option<Edit>, context: &Context) -> anyhow::Result<Vec<Step>> {
    let unit = master.reference.unit();
    let mut steps = Vec::new();
    if let Some(edit) = edit {
        let step = UserStep::NameWorker {
            identity: Identity::of(master),
            unit: unit.clone(),
            edit,
        };
        steps.push(step.into());
    }
    if is_running(master, context)? {
        let required = true;
        steps.push(UnitStep::Reload { unit, required }.into());
    }
    Ok(steps)
}

fn file_of(master: &Instance, name: &str, context: &Context) -> PathBuf {
    context.path(&format!("{}/{name}", master.directory))
}

/// The configuration as its account sees it, or whoever cannot be that account; none where it
/// cannot be seen.
fn read_file(master: &Instance, path: &Path, context: &Context) -> Option<Seen> {
    if context.is_elsewhere() {
        return worker_list::read(path).ok()?;
    }
    if !rustix::process::geteuid().is_root() {
        // Somebody only asks for the plan; what the account may do is not seen from here.
        let seen = worker_list::read(path).ok()??;
        return Some(Seen {
            is_own: true,
            ..seen
        });
    }
    worker_list::read_as_user(&Identity::of(master), path).ok()?
}
