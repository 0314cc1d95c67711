//! `service reload`: a master takes up its changed configuration, a worker finishes its builds and
//! comes back fresh. Success means that it happened.

use std::time::Duration;

use anyhow::bail;
use buildbot_conda_core::names::Role;
use rustix::process::Signal;

use super::Service;
use crate::system::checkconfig::{Checked, checkconfig};
use crate::system::draining::{DRAIN_HINT, drains_on_signal};
use crate::system::main_process::MainProcess;

/// systemd ends a reload that takes too long, and the runner asks it for more time while there is
/// reason to; so there is no limit of ours. It only has to be far away.
const NO_LIMIT: Duration = Duration::from_hours(24 * 365);

pub(super) fn run(service: &Service<'_>) -> anyhow::Result<()> {
    match service.instance.reference.role {
        Role::Master => reload_master(service),
        Role::Worker => reload_worker(service),
    }
}

fn reload_master(service: &Service<'_>) -> anyhow::Result<()> {
    let main = &service.main;
    // Until it serves, a signal would kill it.
    let serving = main.watch(NO_LIMIT, |status| {
        matches!(status.state.as_str(), "running" | "reloading").then_some(())
    });
    if serving.is_none() {
        bail!("the master ended before it was serving");
    }
    check_configuration(service)?;
    let number = |main: &MainProcess| {
        let reconfiguration = main.status().and_then(|status| status.reconfiguration);
        reconfiguration.map_or(0, |reconfiguration| reconfiguration.number)
    };
    let before = number(main);
    main.signal(Signal::HUP)?;
    let outcome = main.watch(NO_LIMIT, |status| {
        status
            .reconfiguration
            .clone()
            .filter(|last| last.number > before && last.outcome != "running")
    });
    let Some(outcome) = outcome else {
        bail!("the master ended while it was reconfigured");
    };
    let message = outcome.message.unwrap_or_default();
    match outcome.outcome.as_str() {
        "complete" => Ok(()),
        "partial" => bail!(
            "the new configuration is in effect only in part: {message}\n\
             hint: mend the configuration and reload again; until then the master may malfunction"
        ),
        _ => bail!("the new configuration was not taken, the old one still serves: {message}"),
    }
}

/// Nothing has been touched when it fails.
fn check_configuration(service: &Service<'_>) -> anyhow::Result<()> {
    match checkconfig(service.instance, service.credentials)? {
        Checked::Good => Ok(()),
        Checked::Ended(said) => bail!(
            "`buildbot checkconfig` did not come to its end, the old configuration still serves: \
             the new one ends the process that reads it (`SystemExit`, `os._exit`)\n{}",
            said.trim_end()
        ),
        Checked::Refused(said) => bail!(
            "`buildbot checkconfig` refuses the new configuration, the old one still serves:\n{}",
            said.trim_end()
        ),
    }
}

fn reload_worker(service: &Service<'_>) -> anyhow::Result<()> {
    if !drains_on_signal(&service.main) {
        bail!(
            "`{}/buildbot.tac` does not let the worker drain, and nothing else of it can be reloaded\nhint: {DRAIN_HINT}",
            service.instance.directory
        );
    }
    service.main.signal(Signal::HUP)?;
    // Ends when the worker does; systemd then starts it again.
    if let Some(message) = service.main.wait_while_draining(NO_LIMIT) {
        bail!("the worker goes on: {message}\nhint: reload again when its master answers");
    }
    let ending = service.main.status();
    if ending.is_some_and(|status| status.state != "stopped") {
        bail!("the worker ended before its builds were finished; they are retried");
    }
    Ok(())
}
