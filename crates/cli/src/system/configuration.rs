//! How verbs check and change the configuration: one key at a time, refused if the change would cause new problems, and
//! written atomically.

use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, anyhow, bail};
use buildbot_conda_core::edit::{self, EditError};
use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::settings::{Hardening, Refusal, Settings};
use buildbot_conda_host::systemd::{STRICT_SYSTEMD, too_old_for_strict};

use super::context::{AS_ROOT, Context, InvalidConfiguration};
use super::files;

/// Refuses settings that have a problem, or need more than this host has.
pub(crate) fn ensure_good(settings: &Settings, context: &Context) -> anyhow::Result<()> {
    settings.check().map_err(InvalidConfiguration::from)?;
    let Some(version) = too_old_for_strict(Some(&context.path("/"))) else {
        return Ok(());
    };
    let strict = settings
        .instances()
        .filter(|instance| instance.hardening == Hardening::Strict);
    let names: Vec<String> = strict
        .map(|instance| format!("`{}`", instance.reference))
        .collect();
    if names.is_empty() {
        return Ok(());
    }
    bail!(
        "`hardening = \"strict\"` of {} needs systemd {STRICT_SYSTEMD}, and this host has {version}\n\
         hint: choose `hardening = \"standard\"`",
        names.join(", ")
    )
}

/// The text with one key changed, in the table of `reference` or in `[defaults]` without one.
///
/// # Errors
///
/// When that brings problems that the text did not have, those that only the host knows of included, such as where a
/// credential is.
pub(crate) fn with_key(
    text: &str,
    reference: Option<&InstanceRef>,
    key: &str,
    value: &str,
    context: &Context,
) -> anyhow::Result<String> {
    let file = context.configuration().to_string_lossy().into_owned();
    let after = edit::set(&file, text, reference, key, value).map_err(refused)?;
    ensure_no_worse(&context.settings_from(text), &context.settings_from(&after))?;
    Ok(after)
}

/// Why a key was not changed.
pub(crate) fn refused(error: EditError) -> anyhow::Error {
    match error {
        EditError::Refused(refusal) => InvalidConfiguration::Refused(refusal).into(),
        other @ EditError::NoTable { .. } => anyhow!(other),
    }
}

/// Refuses settings with problems that there were not before.
pub(crate) fn ensure_no_worse(
    before: &Settings,
    after: &Settings,
) -> Result<(), InvalidConfiguration> {
    let mut problems = after.problems().to_vec();
    problems.retain(|new| {
        let known = before.problems();
        known.iter().all(|old| old.reason != new.reason)
    });
    if problems.is_empty() {
        return Ok(());
    }
    let file = after.file().to_owned();
    Err(InvalidConfiguration::Refused(Refusal::Problems {
        file,
        problems,
    }))
}

/// Puts a text in the place of the configuration, which keeps its owner and mode.
pub(crate) fn replace(text: &str, context: &Context) -> anyhow::Result<()> {
    let path = context.configuration();
    let file = path.display();
    // A link is the administrator's arrangement; what it leads to is what changes.
    let target = path
        .canonicalize()
        .with_context(|| format!("resolve `{file}`"))?;
    let mode = target
        .metadata()
        .with_context(|| format!("examine `{file}`"))?
        .permissions()
        .mode();
    files::write(&target, text, mode & 0o7777).map_err(|error| {
        let cause = error.downcast_ref::<io::Error>();
        if cause.is_some_and(|cause| cause.kind() == ErrorKind::PermissionDenied) {
            // Without the name of the temporary file, which means nothing to users.
            anyhow!("write `{file}`: permission denied\nhint: {AS_ROOT}")
        } else {
            error
        }
    })
}
