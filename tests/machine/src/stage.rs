//! A master and a worker on a machine, with builds that a test controls: shared by the fault tests.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::{Build, MASTER, Machine, Outcome, Output, Rest, WORKER, master_configuration};

/// The plain master's unit.
pub const MASTER_UNIT: &str = "buildbot-master.service";
/// The plain worker's unit.
pub const WORKER_UNIT: &str = "buildbot-worker.service";
/// The administrator's configuration.
pub const CONFIGURATION: &str = "/etc/buildbot-conda/config.toml";

/// For actions of a second or two, on a busy machine.
pub const SOON: Duration = Duration::from_mins(1);
/// For actions that include some restarts and a build.
pub const LATER: Duration = Duration::from_mins(3);

/// A machine with a master and a worker, and a builder `slow` that runs the shell script in the property `script`.
#[derive(Debug)]
pub struct Stage {
    /// Where it is.
    pub machine: Machine,
}

impl Stage {
    /// Replaces `master.cfg`.
    ///
    /// # Errors
    ///
    /// When it does not come about, or a command for it fails.
    pub fn write_master_configuration(&self, text: &str) -> Outcome {
        self.machine
            .write_file(&format!("{MASTER}/master.cfg"), text, "0600", "bb")
    }

    /// Starts both, and returns when the worker is attached.
    ///
    /// # Errors
    ///
    /// When it does not come about, or a command for it fails.
    pub fn start(&self) -> Outcome {
        self.systemctl(&["start", MASTER_UNIT])?;
        self.systemctl(&["start", WORKER_UNIT])?;
        self.rest().wait_for_worker("example", SOON)
    }

    /// The master's REST API.
    pub fn rest(&self) -> Rest<'_> {
        Rest::new(&self.machine)
    }

    /// Runs systemctl, which has to succeed.
    ///
    /// # Errors
    ///
    /// When it does not come about, or a command for it fails.
    pub fn systemctl(&self, words: &[&str]) -> Result<Output> {
        self.machine
            .run_within(LATER, &[&["systemctl"], words].concat())?
            .succeeded()
    }

    /// One property of a unit.
    ///
    /// # Errors
    ///
    /// When it does not come about, or a command for it fails.
    pub fn property(&self, unit: &str, name: &str) -> Result<String> {
        self.machine.unit_property(unit, name)
    }

    /// The number of a unit's main process.
    ///
    /// # Errors
    ///
    /// When it does not come about, or a command for it fails.
    pub fn main_pid(&self, unit: &str) -> Result<String> {
        let pid = self.property(unit, "MainPID")?;
        ensure!(pid != "0", "`{unit}` has no main process");
        Ok(pid)
    }

    /// Sends a signal to a unit's main process.
    ///
    /// # Errors
    ///
    /// When it does not come about, or a command for it fails.
    pub fn signal(&self, unit: &str, name: &str) -> Outcome {
        let pid = self.main_pid(unit)?;
        self.machine
            .shell(&format!("kill -s {name} {pid}"))?
            .succeeded()?;
        Ok(())
    }

    /// Changes a file by a sed script, and makes sure that something changed.
    ///
    /// # Errors
    ///
    /// When it does not come about, or a command for it fails.
    pub fn edit(&self, path: &str, script: &str) -> Outcome {
        let before = self.machine.read_file(path)?;
        self.machine
            .run(&["sed", "--in-place", "-e", script, path])?
            .succeeded()?;
        ensure!(
            self.machine.read_file(path)? != before,
            "`{script}` changes nothing in `{path}`:\n{before}"
        );
        Ok(())
    }

    /// Changes the worker's tac by a sed script.
    ///
    /// # Errors
    ///
    /// When it does not come about, or a command for it fails.
    pub fn edit_tac(&self, script: &str) -> Outcome {
        self.edit(&format!("{WORKER}/buildbot.tac"), script)
    }

    /// Adds lines to the configuration, below the table that ends it, and has systemd read it.
    ///
    /// # Errors
    ///
    /// When it does not come about, or a command for it fails.
    pub fn configure(&self, table: &str, line: &str) -> Outcome {
        self.edit(
            CONFIGURATION,
            &format!("/^\\[{table}\\]/a {}", line.replace('\\', "\\\\")),
        )?;
        self.systemctl(&["daemon-reload"])?;
        Ok(())
    }

    /// Waits until the status line of a unit holds one of `words`, and gives the line.
    ///
    /// # Errors
    ///
    /// When it does not come about, or a command for it fails.
    pub fn wait_for_status(&self, unit: &str, limit: Duration, words: &[&str]) -> Result<String> {
        let mut last = String::new();
        let found = self.machine.wait_until(
            &format!("the status line of `{unit}` holds one of {words:?}"),
            limit,
            || {
                last = self.property(unit, "StatusText")?;
                Ok(words
                    .iter()
                    .any(|word| last.contains(word))
                    .then(|| last.clone()))
            },
        );
        found.with_context(|| format!("the last status line was `{last}`"))
    }

    /// Waits until a unit's `ActiveState` is `state`.
    ///
    /// # Errors
    ///
    /// When it does not come about, or a command for it fails.
    pub fn wait_for_state(&self, unit: &str, limit: Duration, state: &str) -> Outcome {
        self.machine
            .wait_until(&format!("`{unit}` is `{state}`"), limit, || {
                Ok((self.property(unit, "ActiveState")? == state).then_some(()))
            })
    }

    /// Asks for a build that runs `script`, and returns its request's number once that script runs.
    ///
    /// # Errors
    ///
    /// When it does not come about, or a command for it fails.
    pub fn begin_build(&self, script: &str) -> Result<u64> {
        let request = self.rest().force("slow", &[("script", script)])?;
        self.wait_for_step()?;
        Ok(request)
    }

    /// Asks for a build that runs until [`Stage::release_builds`], and returns its request's number once it runs.
    ///
    /// # Errors
    ///
    /// When it does not come about, or a command for it fails.
    pub fn begin_held_build(&self) -> Result<u64> {
        self.hold_builds()?;
        self.begin_build(&held_script())
    }

    /// Makes builds of [`held_script`] wait from now on.
    ///
    /// # Errors
    ///
    /// If it does not happen, or a command for it fails.
    pub fn hold_builds(&self) -> Outcome {
        self.machine.run(&["rm", "-f", RELEASED])?.succeeded()?;
        Ok(())
    }

    /// Releases held builds and their retries.
    ///
    /// # Errors
    ///
    /// If it does not happen, or a command for it fails.
    pub fn release_builds(&self) -> Outcome {
        self.machine.run(&["touch", RELEASED])?.succeeded()?;
        Ok(())
    }

    /// Waits until a step of a build runs: something else than Python is in the worker's control group.
    ///
    /// # Errors
    ///
    /// When it does not come about, or a command for it fails.
    pub fn wait_for_step(&self) -> Outcome {
        self.machine.wait_until("a step runs", SOON, || {
            Ok(self
                .processes(WORKER_UNIT)?
                .iter()
                .any(|line| !line.contains("runner.py"))
                .then_some(()))
        })
    }

    /// The build of a request, which has to succeed.
    ///
    /// # Errors
    ///
    /// When it does not come about, or a command for it fails.
    pub fn ensure_success(&self, request: u64) -> Result<Build> {
        let build = self.rest().wait_for_build(request, LATER)?;
        ensure!(build.results == 0, "{build:?}");
        Ok(build)
    }

    /// A build right now, which has to succeed; gives what its step printed, header included.
    ///
    /// # Errors
    ///
    /// When it does not come about, or a command for it fails.
    pub fn build(&self, script: &str) -> Result<String> {
        let request = self.rest().force("slow", &[("script", script)])?;
        let build = self.rest().wait_for_build(request, LATER)?;
        let log = self.rest().log(&build, "wait")?;
        ensure!(build.results == 0, "{build:?}\n{log}");
        Ok(log)
    }

    /// The command lines of all processes in a unit's control group; none if it has no group.
    ///
    /// # Errors
    ///
    /// If it does not happen, or a command for it fails.
    pub fn processes(&self, unit: &str) -> Result<Vec<String>> {
        let group = self.property(unit, "ControlGroup")?;
        if group.is_empty() {
            return Ok(Vec::new());
        }
        // Processes and the group itself may go while they are looked at.
        let script = format!(
            "for process in $(cat /sys/fs/cgroup{group}/cgroup.procs 2>/dev/null || true); do \
             tr '\\0\\n' '  ' </proc/$process/cmdline 2>/dev/null && echo || true; done"
        );
        let listing = self.machine.shell(&script)?.succeeded()?;
        Ok(listing
            .stdout
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(str::to_owned)
            .collect())
    }

    /// The journal of a unit, and what `systemctl status` shows of it.
    ///
    /// # Errors
    ///
    /// When it does not come about, or a command for it fails.
    pub fn status_and_journal(&self, unit: &str) -> Result<String> {
        Ok(format!(
            "{}{}",
            self.machine.status(unit)?.stdout,
            self.machine.journal(unit)?
        ))
    }
}

/// What held builds wait for, in a directory that every sandbox lets them see.
const RELEASED: &str = "/home/bb/worker/builds-are-released";

/// The shell script of a held build.
pub fn held_script() -> String {
    format!("until test -e {RELEASED}; do sleep 0.1; done")
}

/// The usual configuration, whose builder `slow` runs the shell script that a build asks for.
pub fn scripted() -> String {
    master_configuration()
        .replace(
            "command=[\"sleep\", util.Property(\"seconds\", default=\"30\")]",
            "command=[\"sh\", \"-c\", util.Property(\"script\", default=\"true\")]",
        )
        .replace(
            "util.StringParameter(name=\"seconds\", default=\"30\")",
            "util.StringParameter(name=\"script\", default=\"true\")",
        )
}
