//! What a verb does with its plan: it is shown, or carried out, and what has changed is reported. A verb that is repeated
//! finds no step that is left to be done, which is success.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::Value;

use super::Plan;
use super::perform::carry_out;
use super::recovery::{announce_unfinished, begin};
use crate::output::{self, Manner, Outcome};
use crate::system::context::Context;

/// One that changes a host by a plan.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Verb {
    /// As it is typed.
    pub(crate) name: &'static str,
    pub(crate) manner: Manner,
    /// Whether it also changes a root directory that is not this host's.
    pub(crate) works_elsewhere: bool,
    /// Where the steps are recorded that take the whole back, if anywhere.
    pub(crate) record: Option<fn(&Plan) -> Option<PathBuf>>,
}

/// What is said at the end.
#[derive(Debug, Default)]
pub(crate) struct Closing {
    /// To people, when something was done.
    pub(crate) message: String,
    /// What it is all about, in any case: a key, and the text for standard output.
    pub(crate) data: Option<(&'static str, String)>,
}

impl From<String> for Closing {
    fn from(message: String) -> Self {
        Self {
            message,
            data: None,
        }
    }
}

impl Verb {
    /// Shows the plan where that is all that is wanted, or carries it out. `state` is what changes, as it is at that
    /// moment.
    ///
    /// # Errors
    ///
    /// When there is no plan, or a step fails.
    pub(crate) fn run<T>(
        &self,
        context: &Context,
        plan: impl FnOnce() -> anyhow::Result<(Plan, T)>,
        state: impl Fn(&T) -> anyhow::Result<Value>,
        closing: impl FnOnce(T) -> Closing,
    ) -> anyhow::Result<ExitCode> {
        let Manner { dry_run, json } = self.manner;
        let mut journal = None;
        if dry_run {
            announce_unfinished(context);
        } else {
            if !self.works_elsewhere {
                context.ensure_here_unless_shown(self.name)?;
            }
            context.ensure_root()?;
            journal = Some(begin(context)?);
        }
        let (plan, more) = plan()?;
        if dry_run && !json {
            if plan.steps.is_empty() {
                eprintln!("nothing to do");
            }
            return output::print(plan);
        }
        let state = || if json { state(&more) } else { Ok(Value::Null) };
        let mut outcome = Outcome {
            changed: !plan.steps.is_empty(),
            dry_run,
            before: state()?,
            steps: plan.steps.iter().map(ToString::to_string).collect(),
            ..Outcome::default()
        };
        for note in plan.shown_notes() {
            eprintln!("{note}");
        }
        let Some(journal) = journal else {
            return outcome.print();
        };
        let record = self.record.and_then(|record| record(&plan));
        carry_out(&plan, &journal, record.as_deref())?;
        outcome.after = Some(state()?);
        drop(journal);
        let Closing { message, data } = closing(more);
        if !outcome.changed {
            eprintln!("nothing to do");
        } else if !message.is_empty() {
            eprintln!("{message}");
        }
        match data {
            Some((key, text)) if json => {
                outcome.more.insert(key.to_owned(), text.into());
            }
            Some((_, text)) => return output::print(text),
            None => {}
        }
        if json {
            return outcome.print();
        }
        Ok(ExitCode::SUCCESS)
    }
}
