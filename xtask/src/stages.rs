//! Long work in named stages: each is announced, shown to be alive, timed and listed at the end.

use std::io::Write as _;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// A sign of life while a stage says nothing itself.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// The stages so far, in the order of their starts.
pub(crate) struct Stages {
    finished: Vec<Stage>,
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
            finished: Vec::new(),
            expected,
        }
    }

    /// Runs `work` as a stage and gives its result.
    pub(crate) fn run<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        eprintln!("[{}/{}] {name}", self.finished.len() + 1, self.expected);
        let started = Instant::now();
        let (end, ended) = mpsc::channel::<()>();
        let heart = thread::spawn(move || {
            while ended.recv_timeout(HEARTBEAT) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("      {:.0} s ...", started.elapsed().as_secs_f64());
            }
        });
        let result = work();
        drop(end);
        heart.join().expect("printing does not panic");

        let took = started.elapsed();
        let outcome = if result.is_ok() { "done" } else { "FAILED" };
        eprintln!("      {outcome} in {:.1} s", took.as_secs_f64());
        self.finished.push(Stage {
            name: name.to_owned(),
            took,
            passed: result.is_ok(),
        });
        result
    }

    /// As [`Stages::run`] where a failure shall not stop what follows: it is printed and counted.
    pub(crate) fn attempt<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Option<T> {
        self.run(name, work)
            .inspect_err(|error| eprintln!("error: {error:#}"))
            .ok()
    }

    /// Prints each stage with its outcome and seconds, and `N passed, N failed`, on stdout.
    pub(crate) fn print(&self) -> Result<()> {
        let mut out = std::io::stdout().lock();
        let width = self
            .finished
            .iter()
            .map(|stage| stage.name.len())
            .max()
            .unwrap_or_default();
        let mut total = 0.0;
        for stage in &self.finished {
            let outcome = if stage.passed { "passed" } else { "FAILED" };
            let seconds = stage.took.as_secs_f64();
            total += seconds;
            writeln!(out, "{:width$}  {outcome}  {seconds:7.1} s", stage.name)
                .context("print a stage")?;
        }
        let failed = self.failed();
        let passed = self.finished.len() - failed;
        writeln!(
            out,
            "{:width$}          {total:7.1} s\nstages: {passed} passed, {failed} failed",
            ""
        )
        .context("print the sum of the stages")
    }

    /// How many stages have failed.
    pub(crate) fn failed(&self) -> usize {
        self.finished.iter().filter(|stage| !stage.passed).count()
    }
}
