//! The attack table: what somebody with an account on the host, or in control of a build, may try, and what holds then.
//!
//! A row is shown on booted machines with [`crate::attack`], or by the cheapest test that can see it, which it names.

use crate::faults::{Row, Shown, Table};

pub(crate) const ATTACKS: Table = Table {
    name: "attack",
    page: (
        "attacks.md",
        "What somebody with an account on the host, or in control of a build, may try, what holds then, and which test\n\
         shows it. A row without a test's name is shown on a booted Debian, with a real Buildbot.",
    ),
    headings: ["attack", "what holds"],
    rows: ROWS,
};

/// A row that machines show.
const fn on_machines(id: &'static str, attack: &'static str, holds: &'static str) -> Row {
    Row {
        id,
        event: attack,
        promise: holds,
        shown: Shown::OnMachines,
    }
}

/// A row that `test`, a function in `file`, shows.
const fn by_test(
    id: &'static str,
    attack: &'static str,
    holds: &'static str,
    [file, test]: [&'static str; 2],
) -> Row {
    Row {
        id,
        event: attack,
        promise: holds,
        shown: Shown::ByTest { file, test },
    }
}

const ROWS: &[Row] = &[
    on_machines(
        "traps-in-what-the-user-owns",
        "interpreter, environment, `buildbot.tac`, `master.cfg` and programs in directories of the service user are traps",
        "root executes none of them, whatever verb or package operation runs",
    ),
    on_machines(
        "links-in-state-and-logs",
        "state directory, `status.json` and logs are links to files of root, or a pipe",
        "root follows no link, waits for nobody and shows nothing of these files",
    ),
    by_test(
        "configuration-others-can-write",
        "the configuration, or a directory above it, can be written by others than root",
        "generator, launcher and commands refuse it",
        ["crates/core/src/trust.rs", "what_others_can_write_is_not"],
    ),
];
