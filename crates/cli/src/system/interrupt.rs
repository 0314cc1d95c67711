//! The signals that ask this program to stop: `^C`, TERM, and HUP from a closed terminal. They terminate it at once,
//! like any other program, except while a [`Hold`] exists: then they are recorded, and the holder checks for them.

use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use anyhow::Context as _;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

static SIGNALS: LazyLock<io::Result<Vec<Watched>>> = LazyLock::new(watch);
static HOLDS: AtomicUsize = AtomicUsize::new(0);

struct Watched {
    signal: i32,
    /// Whether it ends this process.
    is_final: Arc<AtomicBool>,
    noted: Arc<AtomicBool>,
}

/// While it lives, signals are noted and end nothing.
#[derive(Debug)]
pub(crate) struct Hold(());

impl Hold {
    pub(crate) fn new() -> anyhow::Result<Self> {
        if let Err(error) = &*SIGNALS {
            return Err(anyhow::anyhow!("{error}")).context("set up a signal handler");
        }
        HOLDS.fetch_add(1, Ordering::SeqCst);
        set_final(false);
        Ok(Self(()))
    }

    /// Terminates this process with the recorded signal, unless another holder exists.
    pub(crate) fn give_way(self) {
        let is_last = HOLDS.load(Ordering::SeqCst) == 1;
        drop(self);
        let noted = watched().find(|watched| watched.noted.load(Ordering::SeqCst));
        if let Some(watched) = noted.filter(|_| is_last) {
            // It returns only where the signal's own action does not end a process.
            let _ = low_level::emulate_default_handler(watched.signal);
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if HOLDS.fetch_sub(1, Ordering::SeqCst) == 1 {
            set_final(true);
        }
    }
}

/// Whether a signal has been noted since the start, or since it was forgotten.
pub(crate) fn is_noted() -> bool {
    watched().any(|watched| watched.noted.load(Ordering::SeqCst))
}

/// The recorded signal has been handled: from here on, only another signal counts.
pub(crate) fn forget() {
    for watched in watched() {
        watched.noted.store(false, Ordering::SeqCst);
    }
}

fn watched() -> impl Iterator<Item = &'static Watched> {
    SIGNALS.as_ref().ok().into_iter().flatten()
}

fn set_final(is_final: bool) {
    for watched in watched() {
        watched.is_final.store(is_final, Ordering::SeqCst);
    }
}

fn watch() -> io::Result<Vec<Watched>> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut all = Vec::new();
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // The caller has set this, for example with nohup(1).
        if is_ignored(&status, signal) {
            continue;
        }
        let watched = Watched {
            signal,
            is_final: Arc::new(AtomicBool::new(true)),
            noted: Arc::new(AtomicBool::new(false)),
        };
        flag::register_conditional_default(signal, Arc::clone(&watched.is_final))?;
        flag::register(signal, Arc::clone(&watched.noted))?;
        all.push(watched);
    }
    Ok(all)
}

/// Whether the text of a `/proc/PID/status` (proc(5)) has the signal among those that are ignored.
fn is_ignored(status: &str, signal: i32) -> bool {
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_found_in_the_mask() {
        let status = "Name:\tx\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000002\n";
        assert!(is_ignored(status, SIGHUP));
        assert!(!is_ignored(status, SIGINT));
        assert!(!is_ignored("", SIGHUP));
    }
}
