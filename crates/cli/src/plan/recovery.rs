//! The beginning of every verb that changes a host: nobody else changes it meanwhile, and what an interrupted verb has
//! left is rolled back first.

use super::journal::Journal;
use super::perform;
use crate::system::context::Context;

/// Takes the lock, and rolls back what an interrupted verb has left.
///
/// # Errors
///
/// When another verb is at work, or what is left cannot be rolled back.
pub(crate) fn begin(context: &Context) -> anyhow::Result<Journal> {
    let journal = Journal::lock(context)?;
    if let Some(begun) = journal.read()? {
        eprintln!(
            "`buildbot-conda {}` was interrupted, taking it back first",
            begun.title
        );
        perform::take_back(begun, &journal)?;
    }
    Ok(journal)
}
