//! How a master on this host gets to know a worker, and forgets it: by the list in its starter
//! configuration, as long as that is one. The file is its account's, and so are the eyes and hands.

use std::path::{Path, PathBuf};

use anyhow::bail;
use buildbot_conda_core::settings::Instance;
use buildbot_conda_core::starter::WorkerName;
use buildbot_conda_core::workers;

use super::{Step, UnitStep, UserStep, systemd};
use crate::inside::worker_list::{self, Edit, Seen};
use crate::output::harmless;
use crate::system::context::Context;
use crate::system::values::Identity;

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

/// Has `master` know a worker.
///
/// # Errors
///
/// When it does not know it, and its account cannot change that.
pub(crate) fn add(
    master: &Instance,
    name: &WorkerName,
    context: &Context,
) -> anyhow::Result<Naming> {
    let path = configuration(master, context);
    let told = harmless(&path.display().to_string());
    let seen = look(master, &path, context);
    let list = seen.as_ref().and_then(|seen| workers::find(&seen.text));
    let (Some(seen), Some(list)) = (&seen, list) else {
        // Whatever it is now, it may name the worker in its own way; the worker will tell.
        return Ok(Naming {
            note: Some(format!(
                "no plain list `{}` is seen in `{told}`; it has to name the worker, \
                 as by `worker.Worker(\"{}\", secret(\"worker-password\"))`",
                workers::VARIABLE,
                name.as_str()
            )),
            ..Naming::default()
        });
    };
    if list.contains(name.as_str()) {
        return Ok(Naming {
            is_named: true,
            ..Naming::default()
        });
    }
    if !seen.is_own {
        bail!(
            "`{told}` does not name the worker `{0}`, and `{user}` may not change it\n\
             hint: add \"{0}\" to its `{list}`, then `systemctl reload {unit}`",
            name.as_str(),
            user = master.user.as_str(),
            list = workers::VARIABLE,
            unit = master.reference.unit_name(),
        );
    }
    let edit = Edit {
        path,
        name: name.as_str().to_owned(),
        present: true,
        after: list.with(name),
        before: seen.text.clone(),
        required: true,
    };
    Ok(Naming {
        steps: steps(master, edit, context)?,
        note: None,
        is_named: true,
    })
}

/// Has `master` forget a worker. What it says otherwise is left to its owner.
///
/// # Errors
///
/// When systemd does not say whether the master runs.
pub(crate) fn take_out(master: &Instance, name: &str, context: &Context) -> anyhow::Result<Naming> {
    let path = configuration(master, context);
    let told = harmless(&path.display().to_string());
    let Some(seen) = look(master, &path, context) else {
        return Ok(Naming::default());
    };
    let left = |why: &str| Naming {
        note: Some(format!("`{told}` still names the worker `{name}`{why}")),
        is_named: true,
        ..Naming::default()
    };
    let list = workers::find(&seen.text).filter(|list| list.contains(name));
    let Some(list) = list else {
        let literals = [format!("\"{name}\""), format!("'{name}'")];
        let is_mentioned = literals.iter().any(|literal| seen.text.contains(literal));
        return Ok(if is_mentioned {
            left("")
        } else {
            Naming::default()
        });
    };
    let Some(after) = list.without(name) else {
        return Ok(left(": its builder needs one"));
    };
    if !seen.is_own {
        let user = master.user.as_str();
        return Ok(left(&format!(", as `{user}` may not change it")));
    }
    let edit = Edit {
        path,
        name: name.to_owned(),
        present: false,
        after,
        before: seen.text.clone(),
        required: true,
    };
    Ok(Naming {
        steps: steps(master, edit, context)?,
        ..Naming::default()
    })
}

/// Whether a master on this host runs, so that a worker can be there at once.
pub(crate) fn is_running(master: &Instance, context: &Context) -> anyhow::Result<bool> {
    Ok(
        crate::system::systemd::runs(context)
            && systemd::is_running(&master.reference.unit_name())?,
    )
}

fn steps(master: &Instance, edit: Edit, context: &Context) -> anyhow::Result<Vec<Step>> {
    let unit = master.reference.unit();
    let mut steps = vec![
        UserStep::NameWorker {
            identity: Identity::of(master),
            unit: unit.clone(),
            edit,
        }
        .into(),
    ];
    if is_running(master, context)? {
        steps.push(
            UnitStep::Reload {
                unit,
                required: true,
            }
            .into(),
        );
    }
    Ok(steps)
}

fn configuration(master: &Instance, context: &Context) -> PathBuf {
    context.path(&format!("{}/master.cfg", master.directory))
}

/// The configuration as its account sees it, or whoever cannot be that account; none where it
/// cannot be seen.
fn look(master: &Instance, path: &Path, context: &Context) -> Option<Seen> {
    if context.is_elsewhere() {
        return worker_list::see(path).ok()?;
    }
    if !rustix::process::geteuid().is_root() {
        // Somebody only asks for the plan; what the account may do is not seen from here.
        let seen = worker_list::see(path).ok()??;
        return Some(Seen {
            is_own: true,
            ..seen
        });
    }
    worker_list::look_as_user(&Identity::of(master), path).ok()?
}
