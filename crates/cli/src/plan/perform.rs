//! Carrying a plan out, step by step, and rolling back what was done when a step fails or somebody interrupts. After
//! the first step that nothing rolls back there is no way but forward.

use std::fmt;
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};

use super::Plan;
use super::journal::{Begun, Journal};
use super::step::{FileStep, Step, Undo, UnitStep};
use crate::output::StepLine;
use crate::system::interrupt;
use crate::system::values::Mode;

/// Does every step. When one fails, what was done before is rolled back, unless something is gone by then: then the
/// rest is done all the same.
///
/// The steps that roll the whole back are written to `record`.
///
/// # Errors
///
/// The failure of a step, and whether all changes were rolled back.
pub(crate) fn carry_out(
    plan: &Plan,
    journal: &Journal,
    record: Option<&Path>,
) -> anyhow::Result<()> {
    // A signal does not end this process in the middle of a step; it is looked for between them.
    let _hold = interrupt::Hold::new()?;
    carry_out_until(plan, journal, record, interrupt::is_noted)
}

fn carry_out_until(
    plan: &Plan,
    journal: &Journal,
    record: Option<&Path>,
    is_interrupted: impl Fn() -> bool,
) -> anyhow::Result<()> {
    let mut begun = Begun::new(&plan.title);
    for (place, step) in plan.steps.iter().enumerate() {
        let outcome = if is_interrupted() {
            Err(anyhow!("interrupted"))
        } else {
            step.undo()
        };
        let outcome = match outcome {
            Ok(Undo::Impossible) => {
                begun.undo.clear();
                begun.remaining = plan.steps[place..].to_vec();
                return complete(begun, journal);
            }
            Ok(Undo::Steps(undo)) => {
                let line = StepLine::begin(step);
                line.end_with(note(undo, &mut begun, journal).and_then(|()| step.perform()))
            }
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            return Err(after_failure(&error, begun, journal));
        }
    }
    if let Some(path) = record
        && let Err(error) = write_record(path, &mut begun, journal)
    {
        return Err(after_failure(&error, begun, journal));
    }
    journal.close()
}

/// The record counts once the journal is closed; until then it is one more thing to roll back.
fn write_record(path: &Path, begun: &mut Begun, journal: &Journal) -> anyhow::Result<()> {
    let step = FileStep::Write {
        path: path.to_owned(),
        text: serde_json::to_string_pretty(&begun.undo).context("write a record")?,
        mode: Mode::new(0o600),
        secret: true,
    };
    let step = Step::from(step);
    if let Undo::Steps(undo) = step.undo()? {
        note(undo, begun, journal)?;
    }
    step.perform()
}

/// Writes down how a step is rolled back before it begins.
fn note(mut undo: Vec<Step>, begun: &mut Begun, journal: &Journal) -> anyhow::Result<()> {
    undo.append(&mut begun.undo);
    begun.undo = undo;
    journal.write(begun)
}

/// Does what is left of a plan that nothing rolls back any more. A step that fails keeps none of the others from being
/// done, and is not tried again: what it would have removed is left, and its reason is the error.
///
/// # Errors
///
/// When a step fails.
pub(super) fn complete(mut begun: Begun, journal: &Journal) -> anyhow::Result<()> {
    // What came before counts no more; another signal ends what a step waits for.
    interrupt::forget();
    let mut reasons = Vec::new();
    while let Some(step) = begun.remaining.first().cloned() {
        journal.write(&begun)?;
        let line = StepLine::begin(&step);
        if let Err(error) = line.end_with(step.perform()) {
            reasons.push(format!("{error:#}"));
        }
        begun.remaining.remove(0);
    }
    journal.close()?;
    if reasons.is_empty() {
        return Ok(());
    }
    bail!(
        "not everything could be removed: {}\nhint: everything else was removed; remove the rest by hand",
        reasons.join("; ")
    )
}

/// What a rollback has not done, by its reasons.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// It depends on what others have written; nobody tries again.
    pub(super) dropped: Vec<String>,
    /// Root's own; the journal has these steps, and the next verb tries again.
    pub(super) kept: Vec<String>,
}

impl fmt::Display for Left {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.kept.is_empty() {
            let reasons = [&self.kept[..], &self.dropped[..]].concat().join("; ");
            return write!(
                formatter,
                "not everything could be rolled back: {reasons}\n\
                 hint: retry with `buildbot-conda recover`, or keep the current state with `buildbot-conda recover --give-up`"
            );
        }
        formatter.write_str("all changes were rolled back")?;
        if self.dropped.is_empty() {
            return Ok(());
        }
        write!(formatter, ", except: {}", self.dropped.join("; "))
    }
}

fn after_failure(error: &anyhow::Error, begun: Begun, journal: &Journal) -> anyhow::Error {
    eprintln!("this step failed, rolling back");
    // The reason first, any hint of it last.
    let text = format!("{error:#}");
    let (reason, hint) = match text.split_once("\nhint: ") {
        Some((reason, hint)) => (reason, format!("\nhint: {hint}")),
        None => (text.as_str(), String::new()),
    };
    match roll_back(begun, journal) {
        Ok(left) if left.kept.is_empty() => anyhow!("{reason}; {left}{hint}"),
        Ok(left) => anyhow!("{reason}; and {left}"),
        Err(other) => anyhow!("{reason}; and {other:#}{hint}"),
    }
}

/// Does the steps that roll something back, all of them, whichever fail. Those of root's own stay in the journal.
pub(super) fn roll_back(mut begun: Begun, journal: &Journal) -> anyhow::Result<Left> {
    // What has brought us here must not end what rolls it back.
    interrupt::forget();
    journal.write(&begun)?;
    let mut left = Left::default();
    let mut steps = Vec::new();
    for step in with_final_reload(std::mem::take(&mut begun.undo)) {
        let line = StepLine::begin_rollback(&step);
        match line.end_with(step.perform()) {
            Ok(()) => {}
            // The first line: a hint says what to do about a plan that goes on.
            Err(error) if step.relies_on_others() => {
                let text = format!("{error:#}");
                left.dropped
                    .push(text.lines().next().unwrap_or_default().to_owned());
            }
            Err(error) => {
                left.kept.push(format!("{error:#}"));
                steps.push(step);
            }
        }
    }
    if steps.is_empty() {
        journal.close()?;
        return Ok(left);
    }
    begun.undo = steps;
    journal.write(&begun)?;
    Ok(left)
}

/// After the last file that systemd reads has been rolled back, systemd reads its units again: otherwise it would say of
/// every instance that it should.
pub(super) fn with_final_reload(mut undo: Vec<Step>) -> Vec<Step> {
    let reload = Step::from(UnitStep::ReloadSystemd);
    let is_read = |step: &Step| matches!(step, Step::File(step) if step.is_read_by_systemd());
    if let Some(last) = undo.iter().rposition(is_read)
        && !undo[last..].contains(&reload)
    {
        undo.push(reload);
    }
    undo
}

#[cfg(test)]
mod tests;
