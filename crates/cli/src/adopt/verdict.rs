//! What becomes of every word of a unit and of its scripts: it is taken over, left behind by name, or refused by name.
//! There is no fourth way: whoever reads a command or a directive has to give a [`Done`], and nothing makes one but a
//! verdict that was written down.

use buildbot_conda_core::unit_text::Place;

/// How many verdicts back one is not repeated.
const NEAR: usize = 50;

/// One of the three, with what is shown to people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is in what was understood.
    Taken,
    /// It is not in force any more, and the plan names it.
    Left,
    /// Nothing is adopted, for this reason.
    Refused {
        reason: String,
        /// A process that runs by this unit answers what is not known: its variables and where it runs.
        is_settled_by_process: bool,
    },
}

/// A command or a directive with its place and its verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Judged {
    pub(super) place: Place,
    /// As it is written, on one line.
    pub(super) text: String,
    pub(super) verdict: Verdict,
}

/// What a command came to, for the commands behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Went {
    /// It succeeds, or the service would not be what it is.
    Well,
    /// It fails.
    Wrong,
    /// Nobody knows.
    Either,
    /// What stands behind it in the same file, or function, is never reached.
    Returned,
    /// What stands behind it is never reached.
    Ended,
}

/// The proof that a command has its verdict.
#[derive(Debug)]
#[must_use]
pub(super) struct Done(Went);

impl Done {
    pub(super) fn went(&self) -> Went {
        self.0
    }

    /// What comes of a command that runs others, which have their own verdicts.
    pub(super) fn as_those(went: Went) -> Self {
        Self(went)
    }

    /// The same command is the last that runs.
    pub(super) fn and_ended(mut self) -> Self {
        self.0 = Went::Ended;
        self
    }
}

/// All verdicts in the order in which they were passed.
#[derive(Debug, Default)]
pub(super) struct Verdicts(pub(super) Vec<Judged>);

impl Verdicts {
    pub(super) fn taken(&mut self, place: &Place, text: &str) -> Done {
        self.pass(place, text, Verdict::Taken);
        Done(Went::Well)
    }

    pub(super) fn left(&mut self, place: &Place, text: &str) -> Done {
        self.pass(place, text, Verdict::Left);
        Done(Went::Either)
    }

    pub(super) fn refused(&mut self, place: &Place, reason: &str) -> Done {
        self.refuse(place, reason, false)
    }

    /// Refuses what a process that runs would answer.
    pub(super) fn not_known(&mut self, place: &Place, reason: &str) -> Done {
        self.refuse(place, reason, true)
    }

    fn refuse(&mut self, place: &Place, reason: &str, is_settled_by_process: bool) -> Done {
        let reason = crate::output::harmless(reason);
        let verdict = Verdict::Refused {
            reason: reason.clone(),
            is_settled_by_process,
        };
        self.pass(place, &reason, verdict);
        Done(Went::Either)
    }

    fn pass(&mut self, place: &Place, text: &str, verdict: Verdict) {
        let judged = Judged {
            place: place.clone(),
            text: shown(text),
            verdict,
        };
        // A function or a script that is called twice has the same to say.
        if !self.0.iter().rev().take(NEAR).any(|known| *known == judged) {
            self.0.push(judged);
        }
    }
}

/// A place as it is shown: what runs, and an option, have no lines.
pub(super) fn shown_place(place: &Place) -> String {
    match place.line {
        0 => place.file.clone(),
        _ => place.to_string(),
    }
}

/// On one line, and not too much of it: a script is somebody else's text.
pub(super) fn shown(text: &str) -> String {
    let line = crate::output::harmless(text);
    if line.chars().count() <= 80 {
        return line;
    }
    line.chars().take(77).chain("...".chars()).collect()
}
