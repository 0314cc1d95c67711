//! Long work in named stages, of which several may run at once: each is announced, shown to be alive, timed and listed
//! at the end.

use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// Printed regularly while a stage prints nothing itself.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// The stages so far, in the order of their ends.
pub(crate) struct Stages {
    began: Instant,
    finished: Mutex<Vec<Stage>>,
    started: AtomicUsize,
    expected: usize,
}

struct Stage {
    name: String,
    took: Duration,
    passed: bool,
}

impl Stages {
    /// A list that will have `expected` entries.
    pub(crate) fn new(expected: usize) -> Self {
        Self {
            began: Instant::now(),
            finished: Mutex::default(),
            started: AtomicUsize::new(0),
            expected,
        }
    }

    /// Runs `work` as a stage and gives its result.
    pub(crate) fn run<T>(&self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let number = self.started.fetch_add(1, Ordering::Relaxed) + 1;
        eprintln!("[{number}/{}] {name}", self.expected);
        let started = Instant::now();
        let (end, ended) = mpsc::channel::<()>();
        let result = thread::scope(|scope| {
            scope.spawn(move || {
                while ended.recv_timeout(HEARTBEAT) == Err(mpsc::RecvTimeoutError::Timeout) {
                    eprintln!("      {name}: {:.0} s ...", started.elapsed().as_secs_f64());
                }
            });
            let result = work();
            drop(end);
            result
        });
        self.add(name, started.elapsed(), result.is_ok());
        result
    }

    /// As [`Stages::run`], but a failure does not stop what follows: it is printed and counted.
    pub(crate) fn attempt<T>(&self, name: &str, work: impl FnOnce() -> Result<T>) -> Option<T> {
        self.run(name, work)
            .inspect_err(|error| eprintln!("error: {name}: {error:#}"))
            .ok()
    }

    /// Counts something that has finished as a stage.
    pub(crate) fn add(&self, name: &str, took: Duration, passed: bool) {
        let outcome = if passed { "done" } else { "FAILED" };
        eprintln!("      {name}: {outcome} in {:.1} s", took.as_secs_f64());
        let mut finished = self.finished.lock().expect("nobody panics");
        finished.push(Stage {
            name: name.to_owned(),
            took,
            passed,
        });
    }

    /// Name and seconds of each finished stage.
    pub(crate) fn took(&self) -> Vec<(String, Duration)> {
        let finished = self.finished.lock().expect("nobody panics");
        let stages = finished.iter();
        stages
            .map(|stage| (stage.name.clone(), stage.took))
            .collect()
    }

    /// Prints each stage with its outcome and seconds, and `N passed, N failed`, on stdout. The last seconds are those
    /// since the beginning, which are fewer than the sum where stages ran at once.
    pub(crate) fn print(&self) -> Result<()> {
        let finished = self.finished.lock().expect("nobody panics");
        let mut out = std::io::stdout().lock();
        let width = finished
            .iter()
            .map(|stage| stage.name.len())
            .max()
            .unwrap_or_default();
        for stage in &*finished {
            let outcome = if stage.passed { "passed" } else { "FAILED" };
            let seconds = stage.took.as_secs_f64();
            writeln!(out, "{:width$}  {outcome}  {seconds:7.1} s", stage.name)
                .context("print a stage")?;
        }
        let failed = finished.iter().filter(|stage| !stage.passed).count();
        let passed = finished.len() - failed;
        let total = self.began.elapsed().as_secs_f64();
        writeln!(
            out,
            "{:width$}          {total:7.1} s\nstages: {passed} passed, {failed} failed",
            "in total"
        )
        .context("print the stages' outcome")
    }

    /// How many stages have failed.
    pub(crate) fn failed(&self) -> usize {
        let finished = self.finished.lock().expect("nobody panics");
        finished.iter().filter(|stage| !stage.passed).count()
    }
}
