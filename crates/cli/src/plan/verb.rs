//! What a verb does with its plan.

use super::Plan;
use super::perform::carry_out;
use super::recovery::{announce_unfinished, begin};
use crate::output;
use crate::system::context::Context;

/// Shows the plan of `verb` where that is all that is wanted, or carries it out. What belongs to it is given back in the
/// second case alone.
///
/// # Errors
///
/// When there is no plan, or a step fails.
pub(crate) fn show_or_carry_out<T>(
    verb: &str,
    dry_run: bool,
    context: &Context,
    plan: impl FnOnce() -> anyhow::Result<(Plan, T)>,
) -> anyhow::Result<Option<T>> {
    if dry_run {
        announce_unfinished(context);
        output::print(plan()?.0)?;
        return Ok(None);
    }
    context.ensure_here_unless_shown(verb)?;
    context.ensure_root()?;
    let journal = begin(context)?;
    let (plan, more) = plan()?;
    for note in &plan.notes {
        eprintln!("{note}");
    }
    carry_out(&plan, &journal, None)?;
    Ok(Some(more))
}
