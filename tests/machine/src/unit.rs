//! One unit of a machine: operations of systemd on it, and its state.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::process::Output;
use crate::{Machine, Outcome};

/// From systemd's decision to restart a unit until it serves, on a busy machine.
const STARTED: Duration = Duration::from_mins(2);

/// A unit by its name.
#[derive(Clone, Copy, Debug)]
pub struct Unit<'machine> {
    machine: &'machine Machine,
    name: &'machine str,
}

impl<'machine> Unit<'machine> {
    /// The plain master's.
    pub fn master(machine: &'machine Machine) -> Self {
        Self::named(machine, "buildbot-master.service")
    }

    /// The plain worker's.
    pub fn worker(machine: &'machine Machine) -> Self {
        Self::named(machine, "buildbot-worker.service")
    }

    /// Any unit, by its full name.
    pub fn named(machine: &'machine Machine, name: &'machine str) -> Self {
        Self { machine, name }
    }

    /// `systemctl VERB UNIT`, whatever comes of it.
    ///
    /// # Errors
    ///
    /// When it cannot be run or does not end.
    pub fn call(self, verb: &str) -> Result<Output> {
        self.machine.run(&["systemctl", verb, self.name])
    }

    /// `systemctl VERB UNIT`, which must succeed.
    ///
    /// # Errors
    ///
    /// When it does not, with the end of the unit's journal.
    pub fn succeed(self, verb: &str) -> Outcome {
        let output = self.call(verb)?;
        ensure!(output.status == 0, "{output}\n{}", self.journal_end()?);
        Ok(())
    }

    /// `systemctl VERB UNIT`, which must fail; gives what systemctl said and the unit's status page.
    ///
    /// # Errors
    ///
    /// When it succeeds.
    pub fn fail(self, verb: &str) -> Result<String> {
        let output = self.call(verb)?;
        ensure!(
            output.status != 0,
            "`systemctl {verb} {}` succeeds\n{}",
            self.name,
            self.journal_end()?
        );
        Ok(format!("{output}{}", self.machine.status(self.name)?))
    }

    /// One property, as `systemctl show` prints its value.
    ///
    /// # Errors
    ///
    /// When systemctl fails.
    pub fn property(self, name: &str) -> Result<String> {
        self.machine.unit_property(self.name, name)
    }

    /// The status line, which the service itself writes.
    ///
    /// # Errors
    ///
    /// When systemctl fails.
    pub fn status_text(self) -> Result<String> {
        self.property("StatusText")
    }

    /// The main process; 0 when there is none.
    ///
    /// # Errors
    ///
    /// When systemctl fails.
    pub fn main_pid(self) -> Result<u32> {
        let text = self.property("MainPID")?;
        text.parse().with_context(|| format!("read PID `{text}`"))
    }

    /// Every message of the unit since the machine's first boot.
    ///
    /// # Errors
    ///
    /// When journalctl fails.
    pub fn journal(self) -> Result<String> {
        self.machine.journal(self.name)
    }

    /// Its last messages, for a failing test.
    fn journal_end(self) -> Result<String> {
        let journal = self.journal()?;
        let lines: Vec<&str> = journal.lines().collect();
        let first = lines.len().saturating_sub(40);
        let status = self.machine.status(self.name)?;
        Ok(format!(
            "{status}{}",
            lines.get(first..).unwrap_or_default().join("\n")
        ))
    }

    /// Sends a signal to the main process, by systemd.
    ///
    /// # Errors
    ///
    /// When systemd refuses.
    pub fn kill(self, signal: &str) -> Outcome {
        let signal = format!("--signal={signal}");
        // The option was renamed after 252, which does not know `--kill-whom`.
        let words = ["systemctl", "kill", "--kill-who=main", &signal, self.name];
        self.machine.run(&words)?.succeeded()?;
        Ok(())
    }

    /// Waits until `ActiveState=` is `state`.
    ///
    /// # Errors
    ///
    /// When it is not within two minutes.
    pub fn wait_for_state(self, state: &str) -> Outcome {
        let what = format!("`{}` is {state}", self.name);
        self.machine.wait_until(&what, STARTED, || {
            Ok((self.property("ActiveState")? == state).then_some(()))
        })
    }

    /// Waits until it is active with another main process than `old`.
    ///
    /// # Errors
    ///
    /// When it is not within two minutes.
    pub fn wait_for_successor(self, old: u32) -> Outcome {
        let what = format!("`{}` has another process than {old}", self.name);
        self.machine.wait_until(&what, STARTED, || {
            let active = self.property("ActiveState")? == "active";
            Ok((active && self.main_pid()? != old).then_some(()))
        })
    }

    /// Waits until the status line contains `part`, and gives it.
    ///
    /// # Errors
    ///
    /// When it does not within two minutes.
    pub fn wait_for_status_text(self, part: &str) -> Result<String> {
        let what = format!("the status line of `{}` contains `{part}`", self.name);
        self.machine.wait_until(&what, STARTED, || {
            let text = self.status_text()?;
            Ok(text.contains(part).then_some(text))
        })
    }

    /// Checks that it has failed permanently with exit `status`, without a restart.
    ///
    /// # Errors
    ///
    /// If it is in another state, including restarts: a unit that waits for one is not `failed`.
    pub fn ensure_failed_once(self, status: u8) -> Outcome {
        let names = ["ActiveState", "ExecMainStatus", "NRestarts"];
        let found = names
            .iter()
            .map(|name| self.property(name))
            .collect::<Result<Vec<_>>>()?;
        ensure!(
            found == ["failed", &status.to_string(), "0"],
            "{names:?} are {found:?}\n{}",
            self.journal_end()?
        );
        Ok(())
    }
}
