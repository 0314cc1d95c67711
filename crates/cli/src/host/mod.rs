//! `host ...`: describes a host as files. `export` writes the state of a host to a directory for version control,
//! `verify` shows every difference between such a directory and a host, and `apply` removes the differences.
//!
//! The model `profile` describes both the directory and the actual state: `directory` reads and writes it (`manifest`
//! is its `host.toml`, `preseed` is derived from it), and `actual` finds it on a host with `system`, `accounts`,
//! `managed` and, as the owners of directories of other accounts, `crate::inside`; `layout` contains names and places.
//! `secrets` keeps secrets out of it, and `credentials` obtains them again. `differences` are data, from which `steps`
//! creates the plan that `crate::plan` carries out.

mod accounts;
mod actual;
mod apply;
mod credentials;
mod differences;
mod directory;
mod export;
mod layout;
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
