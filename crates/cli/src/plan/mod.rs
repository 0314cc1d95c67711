//! Plans of the verbs that change a host: steps as values, shown by `--dry-run` as they are carried
//! out otherwise.
//!
//! A step knows how to be done, how to be shown, and by which steps it is rolled back (`step`). The
//! latter are written to the `journal` before the step begins, so that whatever ends a verb in the
//! middle, the next one finds what is to be rolled back (`recovery`), or completed once something is
//! gone for good. Each family of steps has a module below `step`. `parts` and `naming` have steps that several verbs
//! share, `systemd` talks to systemd.

mod journal;
pub(crate) mod naming;
mod parts;
mod perform;
mod recovery;
mod step;
mod systemd;
mod verb;

use std::fmt;

pub(crate) use journal::unfinished;
pub(crate) use parts::{directory, enable, enable_in, give, note};
pub(crate) use perform::carry_out;
pub(crate) use recovery::{announce_unfinished, begin, give_up, recover, take_up};
pub(crate) use step::{
    AccountStep, Asked, DatabaseStep, EnvironmentStep, FileStep, FrontStep, How, Making, Step,
    UnitStep, UserStep,
};
pub(crate) use systemd::{
    await_connection_if_any as await_connection, is_running, start, stop_unit as stop,
};
pub(crate) use verb::{Closing, Verb};

/// Steps in their order. What is worth knowing beforehand stands above them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// What it is about, such as `create worker@gpu`; the journal and messages name it so.
    pub(crate) title: String,
    /// Facts that the steps follow from, one line each.
    pub(crate) notes: Vec<String>,
    /// What is done.
    pub(crate) steps: Vec<Step>,
}

impl Plan {
    /// The notes, one line each, whatever a path or an account in them is called.
    fn shown_notes(&self) -> impl Iterator<Item = String> {
        self.notes.iter().map(|note| crate::output::harmless(note))
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for note in self.shown_notes() {
            writeln!(formatter, "# {note}")?;
        }
        for step in &self.steps {
            writeln!(formatter, "{step}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_a_line_break_in_its_name_adds_no_line_to_a_plan() {
        let stop = UnitStep::StopOutside {
            directory: "/home/bb/x\nhint: y".into(),
            name: "buildbot.service".to_owned(),
            unit: "buildbot-master.service".parse().unwrap(),
        };
        let plan = Plan {
            title: "adopt".to_owned(),
            notes: vec!["`/home/bb/x\nhint: y` is not adopted".to_owned()],
            steps: vec![stop.into()],
        };
        assert!(plan.shown_notes().all(|note| !note.contains('\n')));
        assert_eq!(plan.to_string().lines().count(), 2, "{plan}");
    }
}
