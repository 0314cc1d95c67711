//! Progress of long work: bars on a terminal, otherwise a line for each stage. Everything is written to stderr.

use std::io::IsTerminal as _;
use std::sync::Mutex;

use buildbot_conda_core::foreign_text::ForeignText;
use indicatif::{ProgressBar, ProgressStyle};

use crate::output;

/// One stage after another.
#[derive(Debug)]
pub(crate) struct Progress {
    /// None without a terminal.
    bar: Option<ProgressBar>,
    stage: Mutex<String>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        let style =
            ProgressStyle::with_template("{prefix:22} {wide_bar} {pos:>4}/{len:4} {msg:32!}")
                .expect("the template is good");
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            bar.set_style(style);
            bar
        });
        Self {
            bar,
            stage: Mutex::new(String::new()),
        }
    }

    /// A stage with `steps` steps starts, and the previous one has finished.
    pub(crate) fn begin(&self, stage: &str, steps: usize) {
        self.end();
        stage.clone_into(&mut self.stage.lock().expect("nobody panics with it"));
        match &self.bar {
            None => output::say(&format!("{stage} ({steps})")),
            Some(bar) => {
                bar.reset();
                bar.set_length(steps as u64);
                bar.set_prefix(stage.to_owned());
                bar.tick();
            }
        }
    }

    /// A step is done.
    pub(crate) fn step(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(ForeignText::new(what).to_string());
            bar.inc(1);
        }
    }

    /// Nothing more comes.
    pub(crate) fn end(&self) {
        let stage = std::mem::take(&mut *self.stage.lock().expect("nobody panics with it"));
        if let Some(bar) = &self.bar
            && !stage.is_empty()
        {
            bar.suspend(|| output::say(&format!("{stage} ({})", bar.position())));
            bar.finish_and_clear();
        }
    }
}
