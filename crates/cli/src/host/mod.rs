//! `host ...`: a host from files. `export` writes what a host is into a directory made for version control, `verify`
//! names every difference between such a directory and a host, `apply` removes them.
//!
//! There is one model, `profile`, for what the directory says and for what is there: `directory` reads and writes it
//! (`manifest` is its `host.toml`, `preseed` follows from it), `look` finds it on a host with `system`, `accounts`,
//! `managed` and, as the owners of directories that are not root's, `crate::inside`; `layout` has names and places.
//! `secrets` keeps secrets out of it, `credentials` are how they come back.
//! `differences` are data, from which `steps` makes the plan that `crate::plan` carries out.

mod accounts;
mod apply;
mod credentials;
mod differences;
mod directory;
mod export;
mod layout;
mod look;
mod managed;
mod manifest;
mod preseed;
mod profile;
mod secrets;
mod steps;
mod system;
mod verify;

use std::process::ExitCode;

use clap::Subcommand;

use crate::system::context::Context;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Write a profile of this host, without secrets, for version control
    Export(export::Arguments),
    /// Change this host to match a profile, and show each change
    Apply(apply::Arguments),
    /// Show every difference between this host and a profile
    Verify(verify::Arguments),
}

/// All of it is for root: credentials are for root's eyes alone, and so is whether they are there.
pub(crate) fn run(verb: &Verb, context: &Context) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Export(arguments) => export::run(arguments, context),
        Verb::Apply(arguments) => apply::run(arguments, context),
        Verb::Verify(arguments) => verify::run(arguments, context),
    }
}
