//! `service reload`: a master takes up its changed configuration, a worker finishes its builds and
//! comes back fresh. Success means that it happened.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use buildbot_conda_core::names::Role;
use buildbot_conda_core::settings::Instance;
use rustix::fs::MemfdFlags;
use rustix::process::Signal;

use super::Service;
use crate::activation;
use crate::output::harmless;

/// What a tac needs so that a signal lets its worker drain.
pub(crate) const DRAIN_HINT: &str = "write `allow_shutdown = 'signal'` in it, and hand it to `Worker(..., allow_shutdown=allow_shutdown)`";

/// Calls Buildbot's own command line; the script in `bin` may have been moved with its prefix. An exit
/// status of 0 is not believed alone: a configuration that ends the process leaves one, too.
const BUILDBOT: &str = "
import sys
from buildbot.scripts import checkconfig, runner
original = checkconfig.checkconfig
def check(config):
    status = original(config)
    if not status:
        print('\\nchecked to the end', flush=True)
    return status
checkconfig.checkconfig = check
sys.argv[0] = 'buildbot'
runner.run()
";
/// What it says last when the check has succeeded.
const CHECKED: &str = "\nchecked to the end\n";

/// Bytes of a refusal that are passed on.
const MOST_SAID: u64 = 64 << 10;

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
    let number = |main: &super::MainProcess| {
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
    let message = harmless(&outcome.message.unwrap_or_default());
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

/// What Buildbot says of a configuration.
pub(crate) enum Checked {
    Good,
    /// It ended the process that read it, after these words.
    Ended(String),
    /// In Buildbot's words.
    Refused(String),
}

/// `buildbot checkconfig` in the instance's environment.
pub(crate) fn checkconfig(
    instance: &Instance,
    credentials: Option<&Path>,
) -> anyhow::Result<Checked> {
    let python = activation::python_of(instance);
    let arguments = ["-c", BUILDBOT, "checkconfig", instance.directory.as_str()];
    let mut extra = BTreeMap::new();
    if let Some(directory) = credentials {
        extra.insert("CREDENTIALS_DIRECTORY".into(), directory.into());
    }
    let chain = activation::of_instance(
        instance,
        python.into(),
        arguments.iter().map(Into::into).collect(),
        extra,
    )?;
    let mut command = Command::new(&chain.program);
    command
        .args(&chain.arguments)
        .env_clear()
        .envs(&chain.environment)
        .current_dir(instance.directory.as_str());
    let (success, said) =
        run_with_limit(command, instance.start_timeout).context("run `buildbot checkconfig`")?;
    Ok(match (success, said.ends_with(CHECKED)) {
        (true, true) => Checked::Good,
        (true, false) => Checked::Ended(said),
        (false, _) => Checked::Refused(said),
    })
}

/// Runs to the end or the limit; whether it succeeded, and all that it said.
fn run_with_limit(mut command: Command, limit: Duration) -> anyhow::Result<(bool, String)> {
    // A file in memory and not a pipe: a process that the configuration left behind could hold a
    // pipe open for ever.
    let mut said = File::from(rustix::fs::memfd_create(
        "checkconfig",
        MemfdFlags::CLOEXEC,
    )?);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(said.try_clone()?)
        .stderr(said.try_clone()?)
        .spawn()?;
    let end = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= end {
            child.kill()?;
            child.wait()?;
            bail!("it did not end within {} seconds", limit.as_secs());
        }
        thread::sleep(Duration::from_millis(20));
    };
    let mut text = Vec::new();
    said.seek(SeekFrom::Start(0))?;
    said.take(MOST_SAID).read_to_end(&mut text)?;
    Ok((
        status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    ))
}

/// Whether HUP lets the worker finish its builds; without its tac's consent it would die.
pub(super) fn drains_on_signal(service: &Service<'_>) -> bool {
    let worker = service.main.status().and_then(|status| status.worker);
    worker.and_then(|worker| worker.allow_shutdown).as_deref() == Some("signal")
}

fn reload_worker(service: &Service<'_>) -> anyhow::Result<()> {
    if !drains_on_signal(service) {
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
