//! `env ...`: managed environments, each a directory of immutable generations that belong to root.
//!
//! What an environment is on disk is the crate `environments`; making a generation is the work of the program in the
//! package `buildbot-conda-env`, called by `builder`. Everything else is here, so that an environment can be looked at,
//! checked, switched back and removed without that program. `update` and `rollback` share `change`: try, restart, switch;
//! `recovery` takes back what does not come to that end; `instances` is what they do to services.

mod builder;
mod change;
mod create;
mod databases;
mod diff;
mod gc;
mod instances;
mod list;
mod lock;
mod recovery;
mod remove;
mod rollback;
mod scene;
mod show;
mod table;
mod update;
mod verify;

use std::process::ExitCode;

use clap::Subcommand;

use crate::system::context::Context;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make an environment from a file that says what is in it
    Create(create::Arguments),
    /// Make a new generation beside the one that serves, try it, and let it serve
    Update(update::Arguments),
    /// Let an earlier generation serve again
    Rollback(rollback::Arguments),
    /// Bring instances back that an interrupted command has left with another generation than the one that serves
    Recover(recovery::Arguments),
    /// List environments, their generations and who uses them
    List(list::Arguments),
    /// Show the packages of an environment
    Show(show::Arguments),
    /// Show what differs between two generations or environments
    Diff(diff::Arguments),
    /// Check that every file is still what its package brought
    Verify(verify::Arguments),
    /// Print a lock that makes the same environment again, anywhere
    Lock(lock::Arguments),
    /// Remove an environment with all its generations
    Remove(remove::Arguments),
    /// Remove generations that nobody uses any more
    Gc(gc::Arguments),
}

pub(crate) fn run(verb: &Verb, context: &Context) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Create(arguments) => create::run(arguments, context),
        Verb::Update(arguments) => update::run(arguments, context),
        Verb::Rollback(arguments) => rollback::run(arguments, context),
        Verb::Recover(arguments) => recovery::run(arguments, context),
        Verb::List(arguments) => list::run(arguments, context),
        Verb::Show(arguments) => show::run(arguments, context),
        Verb::Diff(arguments) => diff::run(arguments, context),
        Verb::Verify(arguments) => verify::run(arguments, context),
        Verb::Lock(arguments) => lock::run(arguments, context),
        Verb::Remove(arguments) => remove::run(arguments, context),
        Verb::Gc(arguments) => gc::run(arguments, context),
    }
}
