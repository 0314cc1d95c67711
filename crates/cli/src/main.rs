//! `buildbot-conda`: the administrator's command. One file per verb; this one has the grammar and
//! decides the exit status.

// First, so that its `eprintln!` and `eprint!` are those of all other modules.
#[macro_use]
mod output;

mod adopt;
mod backup;
mod check;
mod completions;
mod create;
mod database;
mod doctor;
mod drain;
mod env;
mod headless;
mod host;
mod inside;
mod list;
mod listing;
mod logs;
mod manual;
mod plan;
mod recover;
mod remove;
mod repo;
mod restore;
mod run;
mod service;
mod set;
mod show;
mod status;
mod survey;
mod system;
mod table;
mod upgrade;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::database::Failure;
use crate::system::context::{Context, InvalidConfiguration};
use crate::system::search_path;

/// Buildbot from a Conda environment, as honest systemd services
#[derive(Debug, Parser)]
#[command(name = "buildbot-conda", version, max_term_width = 100)]
struct Arguments {
    /// Look below DIR instead of `/`, and leave the running system alone
    #[arg(long, global = true, value_name = "DIR")]
    root: Option<PathBuf>,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List every instance with its state
    List(list::Arguments),
    /// Show the state of all instances, or one in detail
    Status(status::Arguments),
    /// Show the journal of an instance, or of all
    Logs(logs::Arguments),
    /// Examine everything that can be wrong, and say what mends it
    Doctor(doctor::Arguments),
    /// Check the configuration and name every problem in it
    Check(check::Arguments),
    /// Show what an instance uses: settings, unit and drop-in
    Show(show::Arguments),
    /// Run a command in an activated environment
    Run(run::Arguments),
    /// Change one key of the configuration, keeping its comments
    Set(set::Arguments),
    /// Let running builds finish, then stop an instance and leave it down
    Drain(drain::Arguments),
    /// Back up a master's database, while it runs or not
    Backup(backup::Arguments),
    /// Put a backup in the place of a stopped master's database, or list the backups
    Restore(restore::Arguments),
    /// Back up and upgrade a stopped master's database
    Upgrade(upgrade::Arguments),
    /// Boot without a graphical desktop, or with it again
    #[command(subcommand)]
    Headless(headless::Verb),
    /// Print the completions of a shell for this command
    Completions(completions::Arguments),
    /// Write the manual pages of this command
    #[command(hide = true)]
    Manual(manual::Arguments),
    /// Managed environments: made from a file, updated, rolled back, verified
    #[command(subcommand)]
    Env(env::Verb),
    /// This host as files: export it, bring it to what they say, name every difference
    #[command(subcommand)]
    Host(host::Verb),
    /// Make, extend and verify a signed apt repository
    #[command(subcommand)]
    Repo(repo::Verb),
    /// Make a master or a worker that serves, in one command
    #[command(subcommand)]
    Create(create::Verb),
    /// Stop an instance, disable it and take it out of the configuration
    Remove(remove::Arguments),
    /// Roll back or complete what an interrupted command has left
    Recover(recover::Arguments),
    /// Take over units that were written by hand, or go back to them
    Adopt(adopt::Arguments),
    /// What the units call
    #[command(subcommand)]
    Service(service::Verb),
}

fn main() -> ExitCode {
    if let Err(error) = search_path::settle() {
        eprintln!("error: begin again with the system's `PATH`: {error}");
        return ExitCode::FAILURE;
    }
    keep_descriptors();
    let arguments = Arguments::parse();
    let context = Context::new(arguments.root);
    let outcome = match arguments.verb {
        Verb::List(arguments) => list::run(&arguments, &context),
        Verb::Status(arguments) => status::run(&arguments, &context),
        Verb::Logs(arguments) => logs::run(&arguments, &context),
        Verb::Doctor(arguments) => doctor::run(&arguments, &context),
        Verb::Check(arguments) => check::run(&arguments, &context),
        Verb::Show(arguments) => show::run(&arguments, &context),
        Verb::Run(arguments) => run::run(arguments, &context),
        Verb::Set(arguments) => set::run(&arguments, &context),
        Verb::Drain(arguments) => drain::run(&arguments, &context),
        Verb::Backup(arguments) => backup::run(&arguments, &context),
        Verb::Restore(arguments) => restore::run(&arguments, &context),
        Verb::Upgrade(arguments) => upgrade::run(&arguments, &context),
        Verb::Headless(verb) => headless::run(&verb, &context),
        Verb::Completions(arguments) => completions::run(&arguments, &Arguments::command()),
        Verb::Manual(arguments) => manual::run(&arguments, Arguments::command()),
        Verb::Env(verb) => env::run(&verb, &context),
        Verb::Host(verb) => host::run(&verb, &context),
        Verb::Repo(verb) => repo::run(&verb),
        Verb::Create(verb) => create::run(&verb, &context),
        Verb::Remove(arguments) => remove::run(&arguments, &context),
        Verb::Recover(arguments) => recover::run(&arguments, &context),
        Verb::Adopt(arguments) => adopt::run(&arguments, &context),
        Verb::Service(verb) => service::run(&verb, &context),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(exit_status(&error))
    })
}

/// Nothing that is started from here on inherits what the caller of this program had open beside the standard streams:
/// much of it runs as somebody else. The lock of a start goes along, as the runner and the launcher expect.
fn keep_descriptors() {
    let lock = std::env::var(database::lock::VARIABLE).ok();
    let lock: Option<i32> = lock.and_then(|number| number.parse().ok());
    close_fds::set_fds_cloexec(3, lock.as_slice());
}

/// 78 when the configuration is at fault, a database's failure has its own, else 1; 2, for usage, is
/// clap's.
fn exit_status(error: &anyhow::Error) -> u8 {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        failure.status
    } else if error.downcast_ref::<InvalidConfiguration>().is_some() {
        78
    } else {
        1
    }
}
