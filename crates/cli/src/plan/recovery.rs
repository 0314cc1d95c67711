//! What an interrupted verb has left: the next verb, or `recover`, rolls it back, or completes it where something is
//! gone already.

use std::fmt;

use anyhow::bail;

use super::journal::{self, Begun, Journal};
use super::perform;
use crate::system::context::Context;

/// Takes the lock, and first puts right what an interrupted verb has left. What others keep from being rolled back is
/// reported and dropped.
///
/// # Errors
///
/// When another verb is at work, or root cannot roll back what is left.
pub(crate) fn begin(context: &Context) -> anyhow::Result<Journal> {
    let journal = Journal::lock(context)?;
    if let Some(begun) = journal.read()? {
        eprintln!("{begun} first");
        recover(begun, &journal)?;
    }
    Ok(journal)
}

/// For those who only look: says what is going to be done first.
pub(crate) fn announce_unfinished(context: &Context) {
    match journal::unfinished(context) {
        Ok(Some(begun)) => eprintln!("{begun} first"),
        Ok(None) => {}
        Err(error) => eprintln!("warning: {error:#}"),
    }
}

/// Rolls back or completes what is unfinished.
///
/// # Errors
///
/// When root cannot.
pub(crate) fn recover(mut begun: Begun, journal: &Journal) -> anyhow::Result<()> {
    if begun.goes_forward() {
        // Data that is left is a message and no reason to keep anybody from anything.
        if let Err(error) = perform::complete(begun, journal) {
            eprintln!("warning: {error:#}");
        }
        return Ok(());
    }
    match begun
        .undo
        .iter()
        .find_map(|step| step.obstacle().transpose())
    {
        None => {}
        Some(Ok(reason)) => {
            eprintln!("warning: nothing is rolled back: {reason}");
            return journal.close();
        }
        Some(Err(error)) => {
            eprintln!("warning: no database is removed: {error:#}");
            begun.undo.retain(|step| !step.removes_database());
        }
    }
    let left = perform::roll_back(begun, journal)?;
    for reason in &left.dropped {
        eprintln!("warning: not rolled back: {reason}");
    }
    if left.kept.is_empty() {
        return Ok(());
    }
    bail!("{left}");
}

/// What is unfinished, with the lock; none where nothing is.
pub(crate) fn take_up(context: &Context) -> anyhow::Result<Option<(Begun, Journal)>> {
    let journal = Journal::lock(context)?;
    Ok(journal.read()?.map(|begun| (begun, journal)))
}

/// Forgets what is unfinished, read or not. The file that had it is kept under another name, which is given; none where
/// nothing was unfinished.
pub(crate) fn give_up(context: &Context) -> anyhow::Result<Option<std::path::PathBuf>> {
    Journal::lock(context)?.put_aside()
}

impl fmt::Display for Begun {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.goes_forward() {
            "completing it"
        } else {
            "rolling it back"
        };
        let title = self.title();
        write!(
            formatter,
            "`buildbot-conda {title}` was interrupted, {what}"
        )
    }
}

impl Begun {
    /// The command, as it was called.
    pub(crate) fn title(&self) -> String {
        crate::output::harmless(&self.title)
    }

    /// The steps that are left to do.
    pub(crate) fn steps(&self) -> String {
        let undo = perform::with_final_reload(self.undo.clone());
        let steps = undo.iter().chain(&self.remaining);
        let lines: Vec<String> = steps.map(|step| format!("{step}\n")).collect();
        lines.concat()
    }
}
