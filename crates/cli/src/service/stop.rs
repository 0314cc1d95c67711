//! `service stop`: lets running builds finish for as long as `drain` allows. systemd's own signals follow in any case,
//! so nothing here makes a stop fail.

use std::time::Duration;

use buildbot_conda_core::names::Role;
use rustix::process::Signal;

use super::Service;
use crate::system::draining::{DRAIN_HINT, drains_on_signal};
use crate::system::status_file::STANDBY;

/// How long a master may take to react to a stop.
const NOTICE: Duration = Duration::from_secs(2);

pub(super) fn run(service: &Service<'_>) -> anyhow::Result<()> {
    if service.main.is_gone() {
        return Ok(());
    }
    match service.instance.reference.role {
        Role::Master => stop_master(service),
        Role::Worker => stop_worker(service),
    }
}

/// A clean shutdown first: once a master has started one, the following TERM leaves running builds to be retried after
/// the next start. With TERM alone, Buildbot cancels them permanently.
fn stop_master(service: &Service<'_>) -> anyhow::Result<()> {
    let main = &service.main;
    let running = main
        .status()
        .is_some_and(|status| !matches!(status.state.as_str(), "starting" | STANDBY));
    if !running {
        // Before a master serves, it has no builds, and the signal would stop it in an undefined state.
        return Ok(());
    }
    main.signal(Signal::USR1)?;
    main.watch(NOTICE, |status| (status.state == "stopping").then_some(()));
    wait(service);
    Ok(())
}

fn stop_worker(service: &Service<'_>) -> anyhow::Result<()> {
    let Service { main, instance, .. } = service;
    main.withdraw_new_start();
    if instance.drain.is_zero() {
        return Ok(());
    }
    if !drains_on_signal(main) {
        eprintln!(
            "warning: running builds are interrupted and retried, as `{directory}/buildbot.tac` \
             does not allow the worker to drain\nhint: {hint}",
            directory = instance.directory,
            hint = DRAIN_HINT,
        );
        return Ok(());
    }
    main.signal(Signal::HUP)?;
    wait(service);
    Ok(())
}

/// Waits for the builds, as long as `drain` allows and Buildbot itself waits for them.
fn wait(service: &Service<'_>) {
    if let Some(message) = service.main.wait_while_draining(service.instance.drain) {
        eprintln!("warning: running builds are interrupted and retried: {message}");
    }
}
