//! `buildbot-conda`: the administrator's command. Each verb has a file; this one contains the grammar and determines
//! the exit status.

#![warn(
    clippy::print_stderr,
    reason = "the macros of the standard library panic when nobody reads"
)]

// First, so that its `eprintln!` and `eprint!` are those of all other modules.
#[macro_use]
mod output;

mod adopt;
mod backup;
mod build;
mod candidates;
mod check;
mod completions;
mod control;
mod create;
mod database;
mod doctor;
mod drain;
mod env;
mod farm;
mod grammar;
mod headless;
mod host;
mod inside;
mod list;
mod listing;
mod logs;
mod manual;
mod metrics;
mod migrate;
mod notify;
mod package;
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
mod web;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::database::Failure;
use crate::system::context::{Context, InvalidConfiguration};
use crate::system::search_path;

/// Run Buildbot from Conda environments as systemd services
#[derive(Debug, Parser)]
#[command(name = "buildbot-conda", version, max_term_width = 100)]
struct Arguments {
    /// Use DIR as the root, and do not touch the running system
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        help_heading = "Global options"
    )]
    root: Option<PathBuf>,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Create and start a master or a worker
    #[command(subcommand)]
    Create(create::Verb),
    /// Replace units that were written by hand, or restore them
    Adopt(adopt::Arguments),
    /// Stop and disable an instance, and remove its configuration
    Remove(remove::Arguments),
    /// List all instances with their states
    List(list::Arguments),
    /// Show the state of all instances, or of one in detail
    Status(status::Arguments),
    /// Show the journal of one instance, or of all
    Logs(logs::Arguments),
    /// Show the result of a build, and why it failed
    Build(build::Arguments),
    /// Print numbers about all instances, for Prometheus
    Metrics(metrics::Arguments),
    /// Find problems, and print the commands that fix them
    Doctor(doctor::Arguments),
    /// Let running builds finish, then stop the instances
    Drain(drain::Arguments),
    /// Run a command in an activated environment
    Run(run::Arguments),
    /// Invite a worker on another host: print a line for `join`
    Invite(farm::InviteArguments),
    /// Create a worker from the line that `invite` has printed
    Join(farm::JoinArguments),
    /// Revoke the access of a worker, or an invitation
    Revoke(farm::WorkerArguments),
    /// Change the password of a worker
    Rotate(farm::WorkerArguments),
    /// Move the workers of an older `master.cfg` to `workers.toml`
    Convert(farm::ConvertArguments),
    /// Publish the web pages of a master through nginx or Caddy
    #[command(subcommand)]
    Web(web::Verb),
    /// Roll back or complete an interrupted command
    Recover(recover::Arguments),
    /// Set a key of the configuration, and keep the comments
    Set(set::Arguments),
    /// Remove a key of the configuration, so its default applies
    Unset(set::UnsetArguments),
    /// Check the configuration, and report every error
    Check(check::Arguments),
    /// Show the effective settings, unit and drop-in of an instance
    Show(show::Arguments),
    /// Back up the database of a running or stopped master
    Backup(backup::Arguments),
    /// Restore the database of a stopped master, or list backups
    Restore(restore::Arguments),
    /// Back up and upgrade the database of a stopped master
    Upgrade(upgrade::Arguments),
    /// Move the builds of a master to another database
    Migrate(migrate::Arguments),
    /// Create, update, roll back and verify managed environments
    #[command(subcommand)]
    Env(env::Verb),
    /// Export this host to files, apply them, or show differences
    #[command(subcommand)]
    Host(host::Verb),
    /// Boot with or without a graphical desktop
    #[command(subcommand)]
    Headless(headless::Verb),
    /// Create, extend and verify a signed apt repository
    #[command(subcommand)]
    Repo(repo::Verb),
    /// Print the completions for a shell
    Completions(completions::Arguments),
    /// Print the candidates for the next word of a command line
    #[command(hide = true)]
    Candidates(candidates::Arguments),
    /// Write the manual pages of this command
    #[command(hide = true)]
    Manual(manual::Arguments),
    /// Commands that the units run
    #[command(subcommand, hide = true)]
    Service(service::Verb),
    /// `systemctl start`
    #[command(hide = true)]
    Start(control::Arguments),
    /// `systemctl stop`
    #[command(hide = true)]
    Stop(control::Arguments),
    /// `systemctl restart`
    #[command(hide = true)]
    Restart(control::Arguments),
    /// `systemctl reload`
    #[command(hide = true)]
    Reload(control::Arguments),
    /// `systemctl enable`
    #[command(hide = true)]
    Enable(control::Arguments),
    /// `systemctl disable`
    #[command(hide = true)]
    Disable(control::Arguments),
    /// Commands that the maintainer scripts run
    #[command(subcommand, hide = true)]
    Package(package::Verb),
}

fn main() -> ExitCode {
    if let Err(error) = search_path::settle() {
        eprintln!("error: restart with the system's `PATH`: {error}");
        return ExitCode::FAILURE;
    }
    keep_descriptors();
    if let Err(error) = farm::refuse_line(std::env::args_os()) {
        eprintln!("error: {error}");
        return ExitCode::from(2);
    }
    let matches = grammar::complete(Arguments::command()).get_matches();
    let arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let context = Context::new(arguments.root);
    let outcome = match arguments.verb {
        Verb::List(arguments) => list::run(&arguments, &context),
        Verb::Status(arguments) => status::run(&arguments, &context),
        Verb::Logs(arguments) => logs::run(&arguments, &context),
        Verb::Build(arguments) => build::run(&arguments, &context),
        Verb::Metrics(arguments) => metrics::run(&arguments, &context),
        Verb::Migrate(arguments) => migrate::run(&arguments, &context),
        Verb::Doctor(arguments) => doctor::run(&arguments, &context),
        Verb::Check(arguments) => check::run(&arguments, &context),
        Verb::Show(arguments) => show::run(&arguments, &context),
        Verb::Run(arguments) => run::run(arguments, &context),
        Verb::Set(arguments) => set::run(&arguments, &context),
        Verb::Unset(arguments) => set::run_unset(&arguments, &context),
        Verb::Start(arguments) => control::run("start", &arguments, &context),
        Verb::Stop(arguments) => control::run("stop", &arguments, &context),
        Verb::Restart(arguments) => control::run("restart", &arguments, &context),
        Verb::Reload(arguments) => control::run("reload", &arguments, &context),
        Verb::Enable(arguments) => control::run("enable", &arguments, &context),
        Verb::Disable(arguments) => control::run("disable", &arguments, &context),
        Verb::Drain(arguments) => drain::run(&arguments, &context),
        Verb::Backup(arguments) => backup::run(&arguments, &context),
        Verb::Restore(arguments) => restore::run(&arguments, &context),
        Verb::Upgrade(arguments) => upgrade::run(&arguments, &context),
        Verb::Headless(verb) => headless::run(&verb, &context),
        Verb::Completions(arguments) => {
            completions::run(&arguments, &grammar::complete(Arguments::command()))
        }
        Verb::Candidates(arguments) => candidates::run(
            &arguments,
            &grammar::complete(Arguments::command()),
            &context,
        ),
        Verb::Manual(arguments) => manual::run(&arguments, grammar::complete(Arguments::command())),
        Verb::Env(verb) => env::run(&verb, &context),
        Verb::Host(verb) => host::run(&verb, &context),
        Verb::Repo(verb) => repo::run(&verb),
        Verb::Create(verb) => create::run(&verb, &context),
        Verb::Remove(arguments) => remove::run(&arguments, &context),
        Verb::Invite(arguments) => farm::invite(&arguments, &context),
        Verb::Join(arguments) => farm::join(&arguments, &context),
        Verb::Revoke(arguments) => farm::revoke(&arguments, &context),
        Verb::Rotate(arguments) => farm::rotate(&arguments, &context),
        Verb::Convert(arguments) => farm::convert(&arguments, &context),
        Verb::Web(verb) => web::run(&verb, &context),
        Verb::Recover(arguments) => recover::run(&arguments, &context),
        Verb::Adopt(arguments) => adopt::run(&arguments, &context),
        Verb::Service(service::Verb::Upkeep) => farm::upkeep(&context),
        Verb::Service(service::Verb::Notify { reference }) => notify::run(&reference, &context),
        Verb::Service(verb) => service::run(&verb, &context),
        Verb::Package(verb) => package::run(&verb, &context),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(exit_status(&error))
    })
}

/// Programs that are started from here on inherit none of the caller's open files except the standard streams, because
/// many of them run as other accounts. The lock of a start is inherited, as the runner and the launcher expect.
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
