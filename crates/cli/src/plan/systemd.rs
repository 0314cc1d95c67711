//! systemd as the steps of a plan need it: start, stop, reload, and the Buildbots of hand-made units.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::bail;
use buildbot_conda_core::foreign_text::ForeignText;
use buildbot_conda_core::names::{InstanceRef, Role, Unit};
use buildbot_conda_core::paths;
use rustix::process::Signal;

use crate::system::buildbots::{self, Buildbot};
use crate::system::context::Context;
use crate::system::draining;
use crate::system::foreign_file;
use crate::system::status_file::{self, WorkerStatus};
use crate::system::systemd::{self, systemctl};

pub(super) use crate::system::systemd::daemon_reload as reload;
pub(crate) use crate::system::systemd::{is_booted, is_running};

/// How long a Buildbot may take to act on a signal before systemd ends it all the same.
const NOTICE: Duration = Duration::from_secs(15);
/// How long a Buildbot that systemd does not end may take to stop.
const END: Duration = Duration::from_mins(1);
/// From the start of a worker to its connection; one whose master is not there yet tries again
/// after some seconds.
const CONNECTION: Duration = Duration::from_mins(1);
/// Time between two looks.
const POLL: Duration = Duration::from_millis(100);
/// Lines of an error that are passed on beside its first.
const MOST_LINES: usize = 10;

/// Starts a unit and returns when it serves; one whose conditions do not hold is a failure here.
pub(crate) fn start(unit: &str) -> anyhow::Result<()> {
    // What failed before must not count against it. Of a unit that systemd has not loaded yet there is nothing to reset.
    let _ = systemctl(&["reset-failed", "--", unit]);
    if systemctl(&["start", "--", unit]).is_err() || !is_running(unit)? {
        let reference = unit.parse::<Unit>().ok();
        let why = reference
            .and_then(|unit| why_not(unit.reference()))
            .or_else(|| last_error(unit));
        let why = why.map_or_else(String::new, |why| format!(": {why}"));
        bail!("`{unit}` failed to start{why}\nhint: `journalctl -u {unit}` shows details");
    }
    Ok(())
}

/// Has a master that runs take its configuration. One that does not run reads it when it starts.
pub(super) fn reload_unit(unit: &str, required: bool) -> anyhow::Result<()> {
    if !systemd::is_booted() || !is_running(unit)? {
        return Ok(());
    }
    if systemctl(&["reload", "--", unit]).is_ok() {
        return Ok(());
    }
    // Its words are the last in the journal, once the journal has them.
    let _ = Command::new("journalctl").arg("--sync").status();
    let why = last_error(unit).map_or_else(String::new, |why| format!(": {why}"));
    let text = format!("`{unit}` rejects its configuration{why}");
    if required {
        bail!("{text}\nhint: `journalctl -u {unit}` shows details");
    }
    eprintln!("{text}");
    Ok(())
}

/// What the runner said at the end.
fn why_not(reference: &InstanceRef) -> Option<ForeignText> {
    let status = status_file::read(paths::status_file(reference).as_ref())?;
    (status.state == "failed").then_some(())?;
    status.message
}

/// The last error in the unit's journal, with the lines that belong to it: what ended before the
/// runner began is told only there.
fn last_error(unit: &str) -> Option<ForeignText> {
    let output = Command::new("journalctl")
        .args([
            "--no-pager",
            "--quiet",
            "--output=cat",
            "--lines=40",
            "--unit",
            unit,
        ])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    error_in(&text, unit)
}

/// It ends where systemd or a hint has the word again, and is one line here.
fn error_in(journal: &str, unit: &str) -> Option<ForeignText> {
    let lines: Vec<&str> = journal.lines().collect();
    let start = lines.iter().rposition(|line| line.starts_with("error: "))?;
    let first = lines[start].trim_start_matches("error: ");
    let name = unit.trim_end_matches(".service");
    let more = lines[start + 1..]
        .iter()
        .map(|line| line.trim())
        .take_while(|line| !line.starts_with("hint: ") && !line.contains(name))
        .filter(|line| !line.is_empty())
        .take(MOST_LINES);
    let all: Vec<&str> = [first].into_iter().chain(more).collect();
    Some(ForeignText::new(&all.join(" ")))
}

/// Stops a unit. With `keep_builds` its Buildbot is first told to shut down cleanly: builds that
/// the TERM then ends are retried by the next start, while TERM alone would cancel them.
pub(super) fn stop(unit: &str, keep_builds: bool) -> anyhow::Result<()> {
    if keep_builds {
        keep_builds_of(unit)?;
    }
    systemd::stop(unit)?;
    if is_running(unit)? {
        bail!("`{unit}` is still running after `systemctl stop`");
    }
    Ok(())
}

/// Stops a unit of ours, whose own stop keeps builds.
pub(crate) fn stop_unit(unit: &str) -> anyhow::Result<()> {
    stop(unit, false)
}

/// Stops a unit of ours; a worker whose tac allows it finishes its builds first.
pub(super) fn stop_after_builds(unit: &Unit) -> anyhow::Result<()> {
    let context = Context::default();
    let reference = unit.reference();
    if reference.role == Role::Worker && draining::is_possible(reference, &context) {
        return draining::stop_after_builds(reference, &context);
    }
    stop(&unit.to_string(), false)
}

fn keep_builds_of(unit: &str) -> anyhow::Result<()> {
    buildbots::of_unit(unit)?.iter().for_each(keep_builds);
    Ok(())
}

fn keep_builds(buildbot: &Buildbot) {
    // Whatever has no handler for it would be killed.
    if !buildbot.is_master() {
        return;
    }
    let log = LogEnd::of(buildbot);
    if !buildbot.signal(Signal::USR1) {
        return;
    }
    let deadline = Instant::now() + NOTICE;
    while Instant::now() < deadline && !log.has_grown_by("clean shutdown") && buildbot.is_master() {
        thread::sleep(POLL);
    }
}

/// The account that a process runs as.
fn owner(buildbot: &Buildbot) -> Option<u32> {
    let process = fs::metadata(format!("/proc/{}", buildbot.pid));
    process.ok().map(|process| process.uid())
}

/// Stops the Buildbot of a directory that systemd does not know, with the signals of its own `stop`.
pub(super) fn stop_outside(directory: &Path) -> anyhow::Result<()> {
    // Somebody else's program that reads the log has it open as well.
    let owners = [directory, &directory.join("twistd.log")].map(|path| {
        let found = fs::symlink_metadata(path);
        found.map(|metadata| metadata.uid()).ok()
    });
    let found = buildbots::outside(&[]).into_iter();
    let its_own = |found: &Buildbot| {
        let uid = owner(found);
        found.directory == directory && uid.is_some() && owners.contains(&uid)
    };
    for buildbot in found.filter(its_own) {
        keep_builds(&buildbot);
        buildbot.signal(Signal::TERM);
        if !buildbot.ends_within(END) {
            bail!(
                "the process {} in `{}` is still running {} s after it was told to stop",
                buildbot.pid,
                directory.display(),
                END.as_secs()
            );
        }
    }
    Ok(())
}

/// The `twistd.log` of a process from now on: where Buildbot says that it has taken a signal.
struct LogEnd {
    /// None where there is none that is its own: then it is not known.
    file: Option<File>,
    length: u64,
}

impl LogEnd {
    fn of(buildbot: &Buildbot) -> Self {
        let found = foreign_file::open(&buildbot.directory.join("twistd.log"));
        let found = found.and_then(|file| Ok((file.metadata()?, file)));
        let own = found
            .ok()
            .filter(|(found, _)| Some(found.uid()) == owner(buildbot));
        match own {
            Some((found, file)) => Self {
                length: found.len(),
                file: Some(file),
            },
            None => Self {
                file: None,
                length: 0,
            },
        }
    }

    fn has_grown_by(&self, words: &str) -> bool {
        let mut text = vec![0; 1 << 20];
        let read = self
            .file
            .as_ref()
            .and_then(|file| file.read_at(&mut text, self.length).ok());
        String::from_utf8_lossy(&text[..read.unwrap_or_default()]).contains(words)
    }
}

/// Waits for what a worker's master says to it; one that says nothing is left to be awaited by the worker.
pub(crate) fn await_connection_if_any(reference: &InstanceRef) -> anyhow::Result<()> {
    await_attempt(reference, false, |_| Ok(()))
}

/// Waits until a worker says that its master has taken it. Where it is not `required`, nothing may answer yet; what
/// answers and lets nobody log in is no master that will.
pub(super) fn await_connection(reference: &InstanceRef, required: bool) -> anyhow::Result<()> {
    await_attempt(reference, required, |status| {
        if status.is_some_and(|worker| worker.reached) {
            bail!(
                "`{reference}` cannot log in to its master\n\
                 hint: the port must be one for workers; with `--tls`, this host must trust the certificate of the master"
            );
        }
        Ok(())
    })
}

/// `without` judges a worker that goes on trying.
fn await_attempt(
    reference: &InstanceRef,
    required: bool,
    without: impl Fn(Option<&WorkerStatus>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let file = paths::status_file(reference);
    let deadline = Instant::now() + CONNECTION;
    loop {
        let status = status_file::read(file.as_ref());
        let message = status.as_ref().and_then(|status| status.message.as_deref());
        let message = message.unwrap_or("no reason given");
        let worker = status.as_ref().and_then(|status| status.worker.as_ref());
        let late = Instant::now() > deadline;
        match worker.map(|worker| (worker.connection.as_str(), worker.pending)) {
            Some(("connected", _)) => return Ok(()),
            Some(("refused", _)) if worker.is_some_and(WorkerStatus::distrusts_master) => bail!(
                "`{reference}` does not connect: {message}\n\
                 hint: the master needs a certificate for this address that is not expired and from an authority that this host trusts"
            ),
            Some(("refused", _)) => bail!(
                "the master rejects `{reference}`: {message}\n\
                 hint: its `master.cfg` must contain the worker with the same password, and must be loaded"
            ),
            // Somewhere else there may be nothing yet, and a worker waits for its master. One that
            // is there shall have answered: what it refuses must not end as a success.
            Some((_, pending)) if !required && (late || !pending) => {
                eprintln!("{reference}: {message}");
                return without(worker);
            }
            _ if late => bail!("`{reference}` does not connect: {message}"),
            _ => thread::sleep(POLL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_has_all_of_its_lines() {
        let unit = "buildbot-master@0.service";
        let journal = "error: old\nan error: not one\nerror: `buildbot checkconfig` refuses it:\n\
                       Configuration Errors:\n  builder 'x' uses unknown workers 'y'\n\n\
                       buildbot-master@0.service: Control process exited\nmore\n";
        assert_eq!(
            error_in(journal, unit).as_deref(),
            Some(
                "`buildbot checkconfig` refuses it: Configuration Errors: \
                 builder 'x' uses unknown workers 'y'"
            )
        );
        let journal = "error: no Conda\nhint: make it\n";
        assert_eq!(error_in(journal, unit).as_deref(), Some("no Conda"));
        assert_eq!(error_in("an error: x\n", unit), None);
    }
}
