//! The rules of an instance's unit, for commands that must see the host as the service does: those of the unit that
//! systemd has loaded, the administrator's drop-ins included, and where it has none, ours.

use std::path::Path;

use anyhow::{Context as _, anyhow};
use buildbot_conda_core::directives::{self, Assignment};
use buildbot_conda_core::dropin::{DropIn, FINGERPRINT_VARIABLE};
use buildbot_conda_core::paths;
use buildbot_conda_core::settings::Instance;
use buildbot_conda_core::unit_text::{self, Setting};

use super::{systemd, unit_files};

/// What `systemd-run --property` is given so that its command, in the unit `transient`, runs as the instance's account,
/// in the sandbox, with the environment and the credentials that the instance's own unit has.
///
/// # Errors
///
/// When systemd cannot be asked, a file of the unit cannot be read, or a value has a meaning in its own unit alone.
pub(crate) fn properties(instance: &Instance, transient: &str) -> anyhow::Result<Vec<String>> {
    let unit = instance.reference.unit_name();
    let given = if let Some(settings) = loaded(&unit)? {
        let settings = settings.iter().map(Assignment::from);
        directives::for_command(settings, &unit, transient)
    } else {
        let drop_in = DropIn::of(instance).map_err(|refused| anyhow!("{}", refused[0]))?;
        let directives = drop_in.directives();
        directives::for_command(directives.iter().map(Assignment::from), &unit, transient)
    };
    let mut properties =
        given.with_context(|| format!("run a command with the settings of `{unit}`"))?;
    // It states that the drop-in is in effect, which only the launcher needs.
    let fingerprint = format!("Environment={FINGERPRINT_VARIABLE}=");
    properties.retain(|property| !property.starts_with(&fingerprint));
    // Regardless of the files, the account is the configured one.
    properties.push(format!("User={}", instance.user.as_str()));
    if let Some(group) = &instance.group {
        properties.push(format!("Group={}", group.as_str()));
    }
    Ok(properties)
}

/// The settings of the files that systemd has loaded for a unit, in their order. `None` for a unit that is not loaded,
/// or has no drop-in of ours: then it runs nothing of ours.
fn loaded(unit: &str) -> anyhow::Result<Option<Vec<Setting>>> {
    let asked = systemd::ask(&[unit.to_owned()], "Id,LoadState,FragmentPath,DropInPaths")?;
    let Some(found) = asked.get(unit) else {
        return Ok(None);
    };
    let drop_ins = unit_text::words(found.property("DropInPaths")).unwrap_or_default();
    let ours = format!("{}/{unit}.d/{}", paths::GENERATED, paths::DROP_IN);
    if found.property("LoadState") != "loaded" || !drop_ins.contains(&ours) {
        return Ok(None);
    }
    let mut settings = Vec::new();
    for path in
        std::iter::once(found.property("FragmentPath")).chain(drop_ins.iter().map(String::as_str))
    {
        let text = unit_files::read(Path::new(path)).map_err(|reason| {
            anyhow!("read `{path}`: {reason}\nhint: run `systemctl daemon-reload`")
        })?;
        settings.extend(unit_text::parse(path, &text));
    }
    Ok(Some(settings))
}
