//! Telling how far it is: systemd by `sd_notify(3)`, the status file in the runner's format, and
//! people on stderr. A thread keeps systemd patient for as long as this lives.

use std::env;
use std::ffi::OsString;
use std::fs::Permissions;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::paths;
use buildbot_conda_host::notify;
use serde_json::json;
use tempfile::NamedTempFile;

use super::Failure;

/// How often systemd hears of us, and how long it then waits for the next time.
const INTERVAL: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_mins(1);

/// What everybody is told at this moment.
#[derive(Debug)]
struct Reported {
    reference: String,
    socket: Option<OsString>,
    runtime: Option<PathBuf>,
    since: f64,
    buildbot: Option<String>,
    message: String,
}

/// Dropped, it says nothing more.
#[derive(Debug)]
pub(crate) struct Progress {
    reported: Arc<Mutex<Reported>>,
    /// Closed when this is dropped, which ends the thread.
    _alive: Sender<()>,
}

impl Progress {
    /// In a unit: systemd and the status file are told as well.
    pub(crate) fn of_service(reference: &InstanceRef) -> Self {
        let usual = paths::run_directory(reference);
        let given = env::var("RUNTIME_DIRECTORY").ok();
        let runtime = given.map(|given| paths::own_directory(&given, &usual).into());
        Self::new(reference, env::var_os("NOTIFY_SOCKET"), runtime)
    }

    /// By hand: stderr alone.
    pub(crate) fn by_hand(reference: &InstanceRef) -> Self {
        Self::new(reference, None, None)
    }

    fn new(reference: &InstanceRef, socket: Option<OsString>, runtime: Option<PathBuf>) -> Self {
        let reported = Arc::new(Mutex::new(Reported {
            reference: reference.to_string(),
            socket,
            runtime,
            since: now(),
            buildbot: None,
            message: "starting: checking the database".to_owned(),
        }));
        let (alive, end) = mpsc::channel();
        let shared = Arc::clone(&reported);
        thread::spawn(move || {
            loop {
                lock(&shared)
                    .notify_systemd(&format!("EXTEND_TIMEOUT_USEC={}\n", PATIENCE.as_micros()));
                if end.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        });
        Self {
            reported,
            _alive: alive,
        }
    }

    /// The version of the Buildbot installed, once known.
    pub(crate) fn buildbot(&self, version: &str) {
        lock(&self.reported).buildbot = Some(version.to_owned());
    }

    /// A new piece of work: everybody is told.
    pub(crate) fn doing(&self, what: &str) {
        eprintln!("{what}");
        self.status(what);
    }

    /// How far a piece of work is: the status line alone.
    pub(crate) fn status(&self, what: &str) {
        let mut reported = lock(&self.reported);
        reported.message = format!("starting: {what}");
        reported.notify_systemd("");
        reported.save("starting", None);
    }

    /// The end of a start.
    pub(crate) fn failed(&self, failure: &Failure) {
        let mut reported = lock(&self.reported);
        reported.message = failure.to_string().replace('\n', "; ");
        reported.since = now();
        reported.notify_systemd("");
        reported.save("failed", Some(failure.status));
    }
}

fn lock(reported: &Mutex<Reported>) -> std::sync::MutexGuard<'_, Reported> {
    // Words that another thread was just changing are still words.
    reported.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

impl Reported {
    fn notify_systemd(&self, first: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = notify::status(socket, first, &self.message) {
            // Without systemd's ear the work goes on; the journal has every word of it.
            eprintln!("warning: notify systemd at `{}`: {error}", socket.display());
        }
    }

    fn save(&self, state: &str, exit_status: Option<u8>) {
        let Some(runtime) = &self.runtime else { return };
        let mut status = json!({
            "version": 1,
            "reference": self.reference,
            "role": "master",
            "state": state,
            "since": self.since,
            "pid": std::process::id(),
            "buildbot": self.buildbot,
            "message": self.message,
            "reconfiguration": null,
            "worker": null,
        });
        if let Some(exit_status) = exit_status {
            status["exit_status"] = exit_status.into();
        }
        let write = || -> io::Result<()> {
            let mut file = NamedTempFile::with_prefix_in(".status-", runtime)?;
            writeln!(file, "{status}")?;
            let mode = Permissions::from_mode(0o644);
            file.as_file().set_permissions(mode)?;
            file.persist(runtime.join("status.json"))?;
            Ok(())
        };
        if let Err(error) = write() {
            eprintln!("warning: write `{}`: {error}", runtime.display());
        }
    }
}
