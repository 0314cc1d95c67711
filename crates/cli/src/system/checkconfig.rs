//! `buildbot checkconfig` in an instance's environment, with a limit.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use buildbot_conda_core::settings::Instance;
use rustix::fs::MemfdFlags;

use super::activation;

/// Calls Buildbot's own command line; the script in `bin` may have been moved with its prefix. An exit
/// status of 0 is not believed alone: a configuration that ends the process leaves one, too.
const BUILDBOT: &str = concat!(
    include_str!("master_of.py"),
    "
import sys
from buildbot.scripts import checkconfig, runner
original, load = checkconfig.checkconfig, checkconfig._loadConfig
base, configuration = place_of(sys.argv[-1])
checkconfig.getConfigFileFromTac = lambda *words, **named: configuration
checkconfig._loadConfig = lambda basedir, configFile, quiet: load(base, configFile, quiet)
def check(config):
    status = original(config)
    if not status:
        print('\\nchecked to the end', flush=True)
    return status
checkconfig.checkconfig = check
sys.argv[0] = 'buildbot'
runner.run()
"
);
/// Its last line if the check has succeeded.
const CHECKED: &str = "\nchecked to the end\n";

/// Bytes of a refusal that are passed on.
const MOST_SAID: u64 = 64 << 10;

/// Buildbot's result for a configuration.
pub(crate) enum Checked {
    Good,
    /// It terminated the process that read it, after this output.
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

/// Runs to the end or the limit; returns whether it succeeded, and its output.
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
            bail!("it did not finish within {} seconds", limit.as_secs());
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
