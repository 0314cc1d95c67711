//! `service reload`: a master applies its changed configuration; a worker finishes its builds and restarts. Success
//! means that this has happened.

use std::time::Duration;

use anyhow::bail;
use buildbot_conda_core::dropin::DropIn;
use buildbot_conda_core::foreign_text::ForeignText;
use buildbot_conda_core::names::Role;
use rustix::process::Signal;

use super::Service;
use crate::system::checkconfig::{Checked, checkconfig};
use crate::system::draining::{DRAIN_HINT, drains_on_signal};
use crate::system::main_process::MainProcess;
use crate::system::status_file::{STANDBY, StatusFile};

/// systemd aborts a reload that takes too long, and the runner asks for more time as long as there is a reason; so this
/// program has no limit of its own, only a very large one.
const NO_LIMIT: Duration = Duration::from_hours(24 * 365);

pub(super) fn run(service: &Service<'_>) -> anyhow::Result<()> {
    match service.instance.reference.role {
        Role::Master => reload_master(service),
        Role::Worker => reload_worker(service),
    }
}

fn reload_master(service: &Service<'_>) -> anyhow::Result<()> {
    let main = &service.main;
    // Before the instance serves, a signal would kill it.
    let serving = main.watch(NO_LIMIT, |status| match status.state.as_str() {
        "running" | "reloading" => Some(true),
        STANDBY => Some(false),
        _ => None,
    });
    let Some(serves) = serving else {
        bail!("the master stopped before it was ready");
    };
    check_configuration(service)?;
    if !serves {
        // Kept by the runner: the configuration is in effect when it serves.
        return main.signal(Signal::HUP);
    }
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
        bail!("the master stopped during the reconfiguration");
    };
    let message = outcome.message.unwrap_or_default();
    match outcome.outcome.as_str() {
        "complete" => Ok(()),
        "partial" => bail!(
            "the new configuration is only partly in effect: {message}\n\
             hint: fix the configuration and reload again; until then the master may malfunction"
        ),
        _ => bail!("the new configuration was rejected, the old one is still in effect: {message}"),
    }
}

/// Credentials are handed over at a start and never again: a new one would be missing where `master.cfg` looks for it.
fn refuse_new_credentials(service: &Service<'_>) -> anyhow::Result<()> {
    let has = |name: &str| {
        let directory = service.credentials.as_ref();
        directory.is_some_and(|directory| directory.join(name).exists())
    };
    let names = service.instance.credentials.keys();
    let missing: Vec<String> = names
        .filter(|name| !has(name.as_str()))
        .map(|name| format!("`{}`", name.as_str()))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    bail!(
        "the master was started without the credential {}, and a reload cannot add credentials; the old \
         configuration is still in effect\nhint: `systemctl restart {}`",
        missing.join(", "),
        service.instance.reference.unit_name()
    )
}

/// Nothing has been touched when it fails.
fn check_configuration(service: &Service<'_>) -> anyhow::Result<()> {
    refuse_new_credentials(service)?;
    match checkconfig(service.instance, service.credentials.as_deref())? {
        Checked::Good => Ok(()),
        Checked::Ended(said) => bail!(
            "`buildbot checkconfig` did not finish, the old configuration is still in effect: \
             the new one terminates the process that reads it (`SystemExit`, `os._exit`)\n{}",
            said.trim_end()
        ),
        Checked::Refused(said) => bail!(
            "`buildbot checkconfig` rejects the new configuration, the old one is still in effect:\n{}",
            said.trim_end()
        ),
    }
}

fn reload_worker(service: &Service<'_>) -> anyhow::Result<()> {
    if !drains_on_signal(&service.main) {
        bail!(
            "`{}/buildbot.tac` does not allow the worker to drain, so it cannot be reloaded\nhint: {DRAIN_HINT}",
            service.instance.directory
        );
    }
    let before = service.main.status();
    let begun = before.as_ref().and_then(|status| status.begun);
    if let Some(in_force) = before.and_then(|status| status.drop_in) {
        refuse_other_set_up(service, &in_force)?;
    }
    service.main.request_new_start()?;
    service.main.signal(Signal::HUP)?;
    let outcome = service.main.watch(NO_LIMIT, {
        let mut drains = false;
        move |status| {
            if begun.is_some() && status.begun != begun {
                return is_settled(status).then_some(Outcome::Fresh);
            }
            drains |= status.state == "stopping";
            (drains && status.state == "running").then(|| Outcome::GoesOn(message(status)))
        }
    });
    match outcome {
        Some(Outcome::Fresh) => Ok(()),
        Some(Outcome::GoesOn(message)) => {
            service.main.withdraw_new_start();
            bail!("the worker keeps running: {message}\nhint: reload again when its master answers")
        }
        None => ended(service, begun),
    }
}

/// The result of reloading a worker whose process continues.
enum Outcome {
    /// It has started again.
    Fresh,
    /// It does not drain, in the runner's words.
    GoesOn(ForeignText),
}

/// What systemd has set up for the process cannot be changed without a new process.
fn refuse_other_set_up(service: &Service<'_>, in_force: &str) -> anyhow::Result<()> {
    let instance = service.instance;
    if DropIn::of(instance).is_ok_and(|drop_in| drop_in.fingerprint() == in_force) {
        return Ok(());
    }
    let reference = &instance.reference;
    bail!(
        "the account, timeouts, credentials or sandbox of the worker have changed, which needs a restart\n\
         hint: run `buildbot-conda drain {reference}`, which lets running builds finish, and then `systemctl start {}`",
        reference.unit_name()
    )
}

/// Whether a new start is connected to its master, or has shown why it is not.
fn is_settled(status: &StatusFile) -> bool {
    let worker = status.worker.as_ref();
    status.state == "running" && worker.is_some_and(|worker| !worker.pending)
}

fn message(status: &StatusFile) -> ForeignText {
    status.message.clone().unwrap_or_default()
}

fn ended(service: &Service<'_>, begun: Option<f64>) -> anyhow::Result<()> {
    let Some(status) = service.main.status() else {
        bail!("the worker has stopped");
    };
    if begun.is_some() && status.begun != begun {
        bail!("the worker failed to restart: {}", message(&status));
    }
    if status.state != "stopped" {
        bail!("the worker stopped before its builds were finished; they are retried");
    }
    // The runner of an earlier version ends, and systemd starts the worker again.
    if begun.is_some() {
        bail!("the worker was stopped during the reload");
    }
    Ok(())
}
