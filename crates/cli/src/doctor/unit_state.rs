//! Whether a unit runs, starts at the next boot, and what it reports.

use buildbot_conda_core::settings::Instance;

use super::finding::{Check, Finding};
use super::scene::Scene;
use crate::survey;
use crate::system::systemd::Unit;

pub(super) fn examine(instance: &Instance, scene: &Scene<'_>) -> Vec<Finding> {
    let reference = Some(&instance.reference);
    let Some(unit) = scene.unit(instance) else {
        let unseen = |check| Finding::unseen(check, reference, "systemd is not running");
        return vec![unseen(Check::UnitEnabled), unseen(Check::UnitState)];
    };
    if scene.is_set_up(instance) == Some(false) && !scene.has_served(instance) {
        let seen = format!(
            "`{}` is empty or missing: not set up, skipped at boot; create it with `{}`",
            instance.directory,
            survey::create_command(&instance.reference)
        );
        let unseen = |check| Finding::unseen(check, reference, seen.clone());
        return vec![unseen(Check::UnitEnabled), unseen(Check::UnitState)];
    }
    if unit.property("LoadState") == "masked" {
        return Vec::new();
    }
    let is_off = unit.property("UnitFileState") == "disabled";
    if is_off && unit.property("ActiveState") == "inactive" {
        // An administrator has decided this: neither half is an oversight.
        let seen = format!(
            "`{}` is disabled and stopped",
            instance.reference.unit_name()
        );
        let ok = |check| Finding::ok(check, reference, seen.clone());
        return vec![ok(Check::UnitEnabled), ok(Check::UnitState)];
    }
    vec![enabled(instance, unit), state(instance, unit)]
}

fn enabled(instance: &Instance, unit: &Unit) -> Finding {
    let reference = Some(&instance.reference);
    let name = instance.reference.unit_name();
    match unit.property("UnitFileState") {
        "enabled" | "static" | "generated" | "alias" | "indirect" => Finding::ok(
            Check::UnitEnabled,
            reference,
            format!("`{name}` starts at boot"),
        ),
        state => {
            let state = if state.is_empty() { "unknown" } else { state };
            let seen = format!("`{name}` does not start at boot: it is {state}");
            Finding::warning(Check::UnitEnabled, reference, seen).command([
                "systemctl",
                "enable",
                &name,
            ])
        }
    }
}

fn state(instance: &Instance, unit: &Unit) -> Finding {
    let reference = Some(&instance.reference);
    let name = instance.reference.unit_name();
    let start = ["systemctl", "start", &name];
    let why = match unit.failed_set_up() {
        Some(status) => survey::set_up_failure(status, instance),
        None => unit.property("StatusText").to_owned(),
    };
    let because = if why.is_empty() {
        why
    } else {
        format!(": {why}")
    };
    match (unit.property("ActiveState"), unit.property("SubState")) {
        // As a worker of an earlier version does at the end of a reload.
        (_, "auto-restart" | "auto-restart-queued") if unit.property("Result") == "success" => {
            let seen = format!("`{name}` exited normally and restarts in a few seconds");
            Finding::ok(Check::UnitState, reference, seen)
        }
        (_, "auto-restart" | "auto-restart-queued") => {
            let seen = format!("`{name}` restarts again and again{because}");
            Finding::problem(Check::UnitState, reference, seen)
                .words(format!("`journalctl --unit {name}` shows details"))
        }
        ("failed", _) => {
            let status = unit.property("ExecMainStatus");
            let seen = format!("`{name}` has failed with status {status}{because}");
            Finding::problem(Check::UnitState, reference, seen)
                .command(start)
                .words("fix the reported cause first")
        }
        ("inactive", _) => {
            let seen = format!("`{name}` is stopped");
            Finding::warning(Check::UnitState, reference, seen).command(start)
        }
        (state, _) => Finding::ok(Check::UnitState, reference, format!("`{name}` is {state}")),
    }
}
