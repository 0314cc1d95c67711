//! Several scenarios on one machine, one after the other: a failing one is named and hides none of the others.

use std::fmt;
use std::time::Instant;

use anyhow::{Context as _, bail};

use crate::{Outcome, timings};

/// Scenarios that start with the machine in the same state.
pub struct Scenarios<'machine> {
    restore: Box<dyn Fn() -> Outcome + 'machine>,
    failures: Vec<String>,
}

impl fmt::Debug for Scenarios<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.failures.fmt(formatter)
    }
}

impl<'machine> Scenarios<'machine> {
    /// `restore` puts the machine in order after each scenario, whatever that has left.
    pub fn new(restore: impl Fn() -> Outcome + 'machine) -> Self {
        Self {
            restore: Box::new(restore),
            failures: Vec::new(),
        }
    }

    /// Runs the next one.
    pub fn run(&mut self, name: &str, scenario: impl FnOnce() -> Outcome) {
        let started = Instant::now();
        let outcomes = [
            scenario().with_context(|| format!("scenario `{name}`")),
            (self.restore)().with_context(|| format!("restore the machine after `{name}`")),
        ];
        let failures = outcomes.into_iter().filter_map(Result::err);
        self.failures
            .extend(failures.map(|error| format!("{error:#}")));
        timings::record(&format!("scenario {name}"), started.elapsed(), None);
    }

    /// The outcome of all.
    ///
    /// # Errors
    ///
    /// When some have failed; each is in the message.
    pub fn finish(self) -> Outcome {
        if self.failures.is_empty() {
            return Ok(());
        }
        bail!(
            "{} failures in scenarios on one machine\n{}",
            self.failures.len(),
            self.failures.join("\n")
        )
    }
}
