//! What an instance is at a moment, for verbs that report what they have changed.

use anyhow::Context as _;
use buildbot_conda_core::names::InstanceRef;
use serde::Serialize;
use serde_json::Value;

use super::context::Context;
use super::systemd;

/// What a change of it is seen by. Keys may be added, none changes its meaning.
#[derive(Debug, Serialize)]
struct InstanceState {
    instance: String,
    user: String,
    directory: String,
    /// Prefix of its environment.
    environment: String,
    /// Whether its directory is set up.
    created: bool,
    /// Whether it is started at boot; null without systemd, as the state.
    enabled: Option<bool>,
    /// systemd's word.
    state: Option<String>,
}

/// That of an instance; null where it is not configured.
///
/// # Errors
///
/// When configuration or systemd cannot be read.
pub(crate) fn of(reference: &InstanceRef, context: &Context) -> anyhow::Result<Value> {
    let settings = context.settings()?;
    let Ok(instance) = settings.instance(reference) else {
        return Ok(Value::Null);
    };
    let unit = if systemd::runs(context) {
        let unit = reference.unit_name();
        Some(systemd::one(&unit, "Id,ActiveState,UnitFileState")?)
    } else {
        None
    };
    let tac = context.path(&format!("{}/buildbot.tac", instance.directory));
    let state = InstanceState {
        instance: reference.to_string(),
        user: instance.user.as_str().to_owned(),
        directory: instance.directory.to_string(),
        environment: instance.prefix().as_str().to_owned(),
        created: tac.symlink_metadata().is_ok(),
        enabled: unit.as_ref().and_then(systemd::Unit::enabled),
        state: unit.map(|unit| unit.state().to_owned()),
    };
    serde_json::to_value(state).context("describe an instance")
}
