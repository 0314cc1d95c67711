//! The package's units: enabled as was answered, started after an installation, stopped before a removal. systemd's
//! links are the truth, and Debian's record of them is kept by `deb-systemd-helper`.

use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use buildbot_conda_core::names::{InstanceRef, Role};
use buildbot_conda_core::questions::{Question, services};
use buildbot_conda_host::unit_files::Runs;

use super::{Answers, say};
use crate::system::context::Context;
use crate::system::unit_files::{self, UNITS, is_ours};
use crate::system::{files, programs, systemd};

/// preinst leaves it when the units are to be started. In `/run`, as a reboot starts what is enabled anyway.
const MARK: &str = "/run/buildbot-conda.start";
/// Longest wait for a start, in seconds. The job itself continues in systemd.
const PATIENCE: &str = "10";
/// Exit status of `timeout` for a command that has taken too long.
const TOO_LONG: i32 = 124;

/// What becomes of a unit's links.
#[derive(Debug, PartialEq, Eq)]
enum Settling {
    /// What debhelper's fragments do: enabled once, and later an administrator's `systemctl disable` is respected.
    Keep,
    Enable,
    Disable,
    /// It is as was answered: only Debian's record is brought up to date.
    Record,
}

/// What becomes of a unit that was `wanted` or not, if anything was answered.
fn decide(wanted: Option<bool>, is_first: bool, is_enabled: bool) -> Settling {
    match wanted {
        None => Settling::Keep,
        Some(false) if is_enabled => Settling::Disable,
        Some(false) => Settling::Record,
        Some(true) if is_first || is_enabled => Settling::Keep,
        Some(true) => Settling::Enable,
    }
}

/// Names every unit file that takes precedence over the package's and does not call our launcher. It is not changed.
pub(super) fn report_hand_made(context: &Context) {
    let unit_files = context.unit_files();
    for name in unit_files.files().into_keys().filter(|name| is_ours(name)) {
        let Runs::HandMade(path) = unit_files.of_unit(name).runs else {
            continue;
        };
        let is_adoptable = path.parent() == Some(&context.path(UNITS));
        let way = if is_adoptable {
            "`buildbot-conda adopt` adopts it"
        } else {
            "`buildbot-conda doctor` shows details"
        };
        let path = path.display();
        say(&format!(
            "notice: {path} overrides the package's unit and is not changed; {way}"
        ));
    }
}

/// Enables and disables the plain units. A failure is not the installation's: `systemctl enable` repairs it.
pub(super) fn settle(answers: &Answers, context: &Context) -> anyhow::Result<()> {
    let answer = answers.to_act_on(Question::Services, answers.is_first);
    let chosen = answer.and_then(|answer| match services(answer) {
        Ok(roles) => Some(roles),
        Err(error) => {
            say(&format!(
                "warning: the debconf answer about services is not valid: {error}"
            ));
            None
        }
    });
    let unit_files = context.unit_files();
    for role in Role::ALL {
        let reference = InstanceRef::plain(role);
        let unit = reference.unit_name();
        let runs = unit_files.of(&reference).runs;
        if matches!(runs, Runs::HandMade(_)) {
            continue;
        }
        let wanted = chosen.as_ref().map(|roles| roles.contains(&role));
        let settling = decide(wanted, answers.is_first, is_enabled(&unit, context)?);
        if let Err(error) = carry_out(&settling, &unit, context) {
            say(&format!(
                "warning: cannot enable or disable {unit}: {error:#}"
            ));
        }
        if wanted == Some(true) && matches!(runs, Runs::Masked(_)) {
            say(&format!(
                "notice: {unit} is still masked; `systemctl unmask {unit}` allows it to start"
            ));
        }
    }
    Ok(())
}

fn carry_out(settling: &Settling, unit: &str, context: &Context) -> anyhow::Result<()> {
    match settling {
        Settling::Keep if helper("was-enabled", unit)? => run_helper("enable", unit),
        Settling::Keep | Settling::Record => run_helper("update-state", unit),
        Settling::Disable => {
            run_helper("disable", unit)?;
            run_helper("update-state", unit)
        }
        // As a first installation does, by the administrator's presets if there are any, systemd.preset(5): once the
        // helper has a record of a unit, it enables that no more.
        Settling::Enable => {
            run_helper("purge", unit)?;
            run_helper("enable", unit)?;
            if !is_enabled(unit, context)? {
                say(&format!(
                    "notice: {unit} is disabled by a preset; `systemctl enable {unit}` enables it"
                ));
            }
            Ok(())
        }
    }
}

/// The answer of Debian's helper to a question about a unit.
fn helper(question: &str, unit: &str) -> anyhow::Result<bool> {
    let status = Command::new("deb-systemd-helper")
        .args(["--quiet", question, unit])
        .stdin(Stdio::null())
        .status()
        .context("run `deb-systemd-helper`")?;
    match status.code() {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        _ => bail!("`deb-systemd-helper {question} {unit}` failed: {status}"),
    }
}

fn run_helper(verb: &str, unit: &str) -> anyhow::Result<()> {
    let mut command = Command::new("deb-systemd-helper");
    command.args([verb, unit]);
    programs::run(command)
}

fn is_enabled(unit: &str, context: &Context) -> anyhow::Result<bool> {
    Ok(!unit_files::links(unit, context)?.is_empty())
}

/// Lets systemd, and thereby the generator, read the configuration; starts the units after an installation.
pub(super) fn start(context: &Context) -> anyhow::Result<()> {
    let mark = context.path(MARK);
    if systemd::runs(context) {
        if let Err(error) = systemd::daemon_reload() {
            say(&format!("warning: {error:#}"));
        }
        if mark.exists() {
            start_units(context)?;
        }
    }
    files::remove(&mark)
}

/// A unit that is not set up is skipped by its own conditions. A start that takes longer or fails is reported by
/// systemd, and does not make the installation fail.
fn start_units(context: &Context) -> anyhow::Result<()> {
    let units = units_to_start(context)?;
    if units.is_empty() {
        return Ok(());
    }
    let status = Command::new("timeout")
        .args([PATIENCE, "deb-systemd-invoke", "start"])
        .args(&units)
        .stdin(Stdio::null())
        .status()
        .context("run `deb-systemd-invoke`")?;
    let outcome = match status.code() {
        Some(0) => return Ok(()),
        Some(TOO_LONG) => "some services are still starting",
        _ => "some services did not start",
    };
    let units = units.join(" ");
    say(&format!(
        "notice: {outcome}; see `systemctl status {units}`"
    ));
    Ok(())
}

/// Ours, and named instances that were enabled before a removal.
fn units_to_start(context: &Context) -> anyhow::Result<Vec<String>> {
    let unit_files = context.unit_files();
    let mut names: Vec<String> = Vec::new();
    for role in Role::ALL {
        let unit = InstanceRef::plain(role).unit_name();
        if is_enabled(&unit, context)? {
            names.push(unit);
        }
    }
    let wants = context.path(&format!("{UNITS}/multi-user.target.wants"));
    let links = unit_files::entries(&wants)?.into_iter();
    names.extend(links.filter(|name| is_ours(name) && name.contains('@')));
    names.retain(|name| {
        let runs = unit_files.of_unit(name).runs;
        matches!(runs, Runs::Ours | Runs::Copy(_) | Runs::Replaced(_))
    });
    Ok(names)
}

/// Stops our running services, named instances included; a unit that an administrator wrote by hand is not stopped.
/// Waits as long as the units' own stops do: a worker that is configured to finish its builds does so.
pub(super) fn stop(context: &Context) -> anyhow::Result<()> {
    if !systemd::runs(context) {
        return Ok(());
    }
    let unit_files = context.unit_files();
    let mut units = systemd::running_units("buildbot-*.service")?;
    units.retain(|name| {
        is_ours(name) && !matches!(unit_files.of_unit(name).runs, Runs::HandMade(_))
    });
    // They would call a command that is gone. The generator has those of backups started.
    let patterns = [
        "buildbot-backup@*.timer",
        "buildbot-conda-*.timer",
        "buildbot-conda-*.socket",
    ];
    let timers = systemd::systemctl(&[&["stop", "--"][..], &patterns].concat()).map(drop);
    if units.is_empty() {
        return timers;
    }
    let status = Command::new("deb-systemd-invoke")
        .arg("stop")
        .args(&units)
        .stdin(Stdio::null())
        .status()
        .context("run `deb-systemd-invoke`")?;
    if !status.success() {
        bail!("stop {}: {status}", units.join(", "));
    }
    timers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_change_as_was_answered_and_else_not() {
        use Settling::{Disable, Enable, Keep, Record};
        for (wanted, is_first, is_enabled, expected) in [
            (None, false, true, Keep),
            (None, true, false, Keep),
            (Some(true), true, false, Keep),
            (Some(true), false, true, Keep),
            (Some(true), false, false, Enable),
            (Some(false), false, true, Disable),
            (Some(false), true, true, Disable),
            (Some(false), true, false, Record),
        ] {
            let settling = decide(wanted, is_first, is_enabled);
            assert_eq!(settling, expected, "{wanted:?} {is_first} {is_enabled}");
        }
    }
}
