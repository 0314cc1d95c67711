//! `env ...`: managed environments, each a directory of immutable generations owned by root.
//!
//! The crate `environments` defines the files on disk, and the program of the package `buildbot-conda-env`, which
//! `builder` calls, creates generations. Everything else is here, so that an environment can be shown, verified, rolled
//! back and removed without that program. `update` and `rollback` share `change`: test, restart, switch. `recovery`
//! reverts incomplete changes, and `instances` restarts services.

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
mod sbom;
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
    /// Create an environment from a file that lists its packages
    Create(create::Arguments),
    /// Create a new generation, test it, and make it current
    Update(update::Arguments),
    /// Make an earlier generation current again
    Rollback(rollback::Arguments),
    /// Return instances to the current generation after an interruption
    Recover(recovery::Arguments),
    /// List environments, their generations and the instances that use them
    List(list::Arguments),
    /// Show the packages of an environment
    Show(show::Arguments),
    /// Show the differences between two generations or environments
    Diff(diff::Arguments),
    /// Verify that every file is unchanged since its package was installed
    Verify(verify::Arguments),
    /// Print a lock, which recreates the same environment on any host
    Lock(lock::Arguments),
    /// Print a software bill of materials
    Sbom(sbom::Arguments),
    /// Remove an environment with all its generations
    Remove(remove::Arguments),
    /// Remove generations that are no longer used
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
        Verb::Sbom(arguments) => sbom::run(arguments, context),
        Verb::Remove(arguments) => remove::run(arguments, context),
        Verb::Gc(arguments) => gc::run(arguments, context),
    }
}
