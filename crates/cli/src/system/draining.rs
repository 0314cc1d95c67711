//! Draining: running builds finish, however long they take, no new ones start, and the service then stays stopped.
//!
//! systemd is not asked to stop before the builds are finished, because its stop has a time limit. A drained worker
//! exits by itself, and `Restart=always` would restart it some seconds later, so the stop follows immediately. The
//! runner reports the progress in Buildbot's own words.

use std::ffi::OsString;
use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::bail;
use buildbot_conda_core::foreign_text::ForeignText;
use buildbot_conda_core::names::{InstanceRef, Role};
use rustix::process::Signal;

use super::context::{Context, InvalidConfiguration};
use super::main_process::MainProcess;
use super::status_file::STANDBY;
use super::systemd::{self, Unit};

/// How long Buildbot may take to react to a drain request. A busy one takes a second or two.
const NOTICE: Duration = Duration::from_mins(1);
/// Builds may take any time; this is only a very large limit.
const NO_LIMIT: Duration = Duration::from_hours(24 * 365);

/// What is to be done about the instance.
pub(crate) enum Plan {
    /// It is down already.
    Nothing,
    /// It has no builds: it is being started, or waits for its next start.
    Stop,
    /// Signal it, wait for its end, and keep it down.
    Drain(MainProcess),
}

/// What a tac needs so that a signal lets its worker drain.
pub(crate) const DRAIN_HINT: &str = "write `allow_shutdown = 'signal'` in it, and pass it to `Worker(..., allow_shutdown=allow_shutdown)`";

/// Whether the instance can finish its builds before it ends.
pub(crate) fn is_possible(reference: &InstanceRef, context: &Context) -> bool {
    plan(reference, context).is_ok()
}

/// Lets builds finish, and then stops the instance.
pub(crate) fn stop_after_builds(reference: &InstanceRef, context: &Context) -> anyhow::Result<()> {
    match plan(reference, context)? {
        Plan::Nothing => Ok(()),
        Plan::Stop => stop(reference),
        Plan::Drain(main) => drain(&main, reference),
    }
}

pub(crate) fn plan(reference: &InstanceRef, context: &Context) -> anyhow::Result<Plan> {
    let (unit, pid) = ask(reference)?;
    if !unit.is_running()? {
        // An unconfigured name is a typing error, not an instance that is stopped.
        context
            .settings()?
            .instance(reference)
            .map_err(InvalidConfiguration::from)?;
        return Ok(Plan::Nothing);
    }
    let Some(pid) = pid else {
        return Ok(Plan::Stop);
    };
    let main = MainProcess::open(&OsString::from(pid.to_string()), context, reference)?;
    // Asked again: between the first answer and the descriptor the process may have been replaced.
    if ask(reference)?.1 != Some(pid) {
        bail!("`{reference}` has just been restarted\nhint: try again");
    }
    let Some(status) = main.status() else {
        if unit.state() == "activating" {
            return Ok(Plan::Stop);
        }
        bail!(
            "the process {pid} of `{unit}` cannot be drained: it does not report its state",
            unit = reference.unit_name()
        );
    };
    if matches!(status.state.as_str(), "starting" | STANDBY) {
        return Ok(Plan::Stop);
    }
    if reference.role == Role::Worker {
        let allowed = status.worker.and_then(|worker| worker.allow_shutdown);
        if allowed.as_deref() != Some("signal") {
            let directory = context.settings().ok().and_then(|settings| {
                let instance = settings.instance(reference).ok()?;
                Some(format!("{}/", instance.directory))
            });
            bail!(
                "`{}buildbot.tac` does not allow the worker to drain\nhint: {DRAIN_HINT}, and restart the worker once",
                directory.unwrap_or_default()
            );
        }
    }
    Ok(Plan::Drain(main))
}

/// State and main process of the unit as systemd sees it.
fn ask(reference: &InstanceRef) -> anyhow::Result<(Unit, Option<u32>)> {
    let unit = systemd::one(&reference.unit_name(), "Id,ActiveState,MainPID")?;
    let pid = unit.main_pid();
    Ok((unit, pid))
}

/// Whether HUP lets the worker finish its builds; without its tac's consent it would die.
pub(crate) fn drains_on_signal(main: &MainProcess) -> bool {
    let worker = main.status().and_then(|status| status.worker);
    worker.and_then(|worker| worker.allow_shutdown).as_deref() == Some("signal")
}

/// The signal upon which Buildbot finishes its builds and ends, and its name for kill(1).
pub(crate) fn signal_of(role: Role) -> (&'static str, Signal) {
    match role {
        Role::Master => ("USR1", Signal::USR1),
        Role::Worker => ("HUP", Signal::HUP),
    }
}

pub(crate) fn drain(main: &MainProcess, reference: &InstanceRef) -> anyhow::Result<()> {
    let begun = Instant::now();
    main.withdraw_new_start();
    main.signal(signal_of(reference.role).1)?;
    // A reconfiguration may come to its end first.
    let noticed = main.watch(NOTICE, |status| (status.state == "stopping").then_some(()));
    if noticed.is_none() && !main.is_gone() {
        bail!(
            "`{reference}` did not start to drain within {} s; nothing was changed",
            NOTICE.as_secs()
        );
    }
    say(
        reference,
        "draining; if this command is interrupted, the builds still finish, but a worker then restarts",
    );
    let mut last = ForeignText::default();
    let resumed = main.watch(NO_LIMIT, |status| {
        let message = status.message.clone().unwrap_or_default();
        if message != last {
            say(reference, &message);
            last.clone_from(&message);
        }
        // Buildbot gives up draining if the master does not answer, or if it is asked to.
        (status.state == "running").then_some(message)
    });
    if let Some(message) = resumed {
        bail!("`{reference}` stopped draining: {message}");
    }
    let ended_well = main
        .status()
        .is_some_and(|status| status.state == "stopped");
    stop(reference)?;
    if !ended_well {
        bail!(
            "`{reference}` exited before its builds were finished; it is stopped, and they are retried\n\
             hint: `buildbot-conda status {reference}` shows why"
        );
    }
    let seconds = begun.elapsed().as_secs();
    say(reference, &format!("drained in {seconds} s and stopped"));
    Ok(())
}

pub(crate) fn stop(reference: &InstanceRef) -> anyhow::Result<()> {
    systemd::stop(&reference.unit_name())
}

/// One line about the progress; a closed terminal does not stop a drain.
pub(crate) fn say(reference: &InstanceRef, text: &str) {
    let _ = writeln!(std::io::stderr(), "{reference}: {text}");
}
