//! The unit's main process: it is signalled and awaited through a descriptor, so that another process which has got the
//! same id is never affected, and its state is read from the runner's status file.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use buildbot_conda_core::foreign_text::ForeignText;
use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::paths;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::system::context::Context;
use crate::system::status_file::{self, StatusFile};

/// Time between two looks at the status file.
const POLL: Duration = Duration::from_millis(100);

/// Waits until a process has ended, at most `limit`; whether it has.
pub(crate) fn ends_within(process: &OwnedFd, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        // A pidfd is readable when its process has ended, pidfd_open(2).
        let mut polled = [PollFd::new(process, PollFlags::IN)];
        match rustix::event::poll(&mut polled, timeout.as_ref()) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => thread::sleep(POLL.min(left)),
        }
    }
}

/// The process that systemd watches.
#[derive(Debug)]
pub(crate) struct MainProcess {
    pid: u32,
    /// None if it has already exited.
    descriptor: Option<OwnedFd>,
    /// The usual path, and the one that is used if that cannot be written.
    status_files: [PathBuf; 2],
    reload_mark: PathBuf,
}

impl MainProcess {
    /// The process of systemd's `$MAINPID`; none for `0` or a process that has exited.
    pub(crate) fn open(
        pid: &OsStr,
        context: &Context,
        reference: &InstanceRef,
    ) -> anyhow::Result<Self> {
        let number: u32 = pid
            .to_str()
            .and_then(|text| {
                if text.is_empty() {
                    Some(0)
                } else {
                    text.parse().ok()
                }
            })
            .with_context(|| {
                format!(
                    "`MAINPID` is `{}`, which is not a process ID",
                    pid.display()
                )
            })?;
        let descriptor = i32::try_from(number)
            .ok()
            .and_then(Pid::from_raw)
            .and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok());
        Ok(Self {
            pid: number,
            descriptor,
            status_files: [
                context.path(&paths::status_file(reference)),
                context.path(&paths::spare_status_file(reference)),
            ],
            reload_mark: context.path(&paths::reload_mark(reference)),
        })
    }

    /// Its number; `0` is none.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it has exited.
    pub(crate) fn is_gone(&self) -> bool {
        self.wait(Duration::ZERO)
    }

    /// Sends a signal, unless the process has exited.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let Some(descriptor) = &self.descriptor else {
            return Err(anyhow!("process {} has exited", self.pid));
        };
        rustix::process::pidfd_send_signal(descriptor, signal)
            .with_context(|| format!("signal process {}", self.pid))
    }

    /// Waits until it has exited, for at most `limit`; returns whether it has.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        let Some(descriptor) = &self.descriptor else {
            return true;
        };
        ends_within(descriptor, limit)
    }

    /// Makes the process restart instead of exiting when its builds are finished.
    pub(crate) fn request_new_start(&self) -> anyhow::Result<()> {
        self.withdraw_new_start();
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        options
            .open(&self.reload_mark)
            .and_then(|mut file| write!(file, "{}", self.pid))
            .with_context(|| format!("write `{}`", self.reload_mark.display()))
    }

    /// Makes the process exit when its builds are finished.
    pub(crate) fn withdraw_new_start(&self) {
        // The file exists only during a reload.
        let _ = fs::remove_file(&self.reload_mark);
    }

    /// The current report of its runner; none if the file is about another process.
    pub(crate) fn status(&self) -> Option<StatusFile> {
        let found = self
            .status_files
            .iter()
            .filter_map(|path| status_file::read(path));
        found
            .filter(|status| status.pid == self.pid)
            .max_by_key(|status| status.serial)
    }

    /// Reads the status until `found` accepts it, the process has exited, or `limit` has passed.
    pub(crate) fn watch<T>(
        &self,
        limit: Duration,
        mut found: impl FnMut(&StatusFile) -> Option<T>,
    ) -> Option<T> {
        let end = Instant::now() + limit;
        loop {
            // Asked before the look, so that what it wrote last is still seen.
            let over = self.is_gone() || Instant::now() >= end;
            if let Some(result) = self.status().as_ref().and_then(&mut found) {
                return Some(result);
            }
            if over {
                return None;
            }
            thread::sleep(POLL);
        }
    }
    /// Waits until a drained process has exited, for at most `limit`. Returns the runner's message if Buildbot gives up
    /// draining and continues: its master did not answer, or the drain was cancelled.
    pub(crate) fn wait_while_draining(&self, limit: Duration) -> Option<ForeignText> {
        let mut drains = false;
        self.watch(limit, |status| {
            drains |= status.state == "stopping";
            (drains && status.state == "running")
                .then(|| status.message.clone().unwrap_or_default())
        })
    }
}
