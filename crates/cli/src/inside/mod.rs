//! Work that is done as the service user, or as the owner of files: hidden verbs of this program, each next to the
//! function with which root calls it. Question and answer are JSON; the answer is data, with a size limit.
//!
//! * `access`: what keeps an account from its environment or directory
//! * `fill`: fills or clears the directory of an instance
//! * `put`: one file of such a directory
//! * `worker_list`: the list of workers in a master's configuration
//! * `open`: opens a file, and passes it to root's process
//! * `inspection`: what is in a directory or an environment
//! * `environment`: an environment at its own prefix
//! * `profile`: the files of a profile of a host
//! * `server`: the `PostgreSQL` server of this host, as its own account; `reach`: a database by its URL
//! * `transfer`: the database of a master on its way to another one
//! * `trial`: whether an instance would run from a generation that is not current yet

pub(crate) mod access;
pub(crate) mod environment;
pub(crate) mod fill;
pub(crate) mod inspection;
pub(crate) mod open;
pub(crate) mod profile;
pub(crate) mod put;
pub(crate) mod reach;
pub(crate) mod server;
pub(crate) mod transfer;
pub(crate) mod trial;
pub(crate) mod worker_list;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;

use crate::output;
use crate::system::context::Context;

#[derive(Debug, Subcommand)]
pub(crate) enum Make {
    /// Report why this account cannot access what standard input names
    Access { directory: PathBuf },
    /// Create what standard input describes in an empty directory
    Fill { directory: PathBuf },
    /// Remove the contents of a directory
    Clear {
        directory: PathBuf,
        /// Keep the directory itself
        #[arg(long)]
        keep: bool,
    },
    /// Show a master's configuration, and whether it can be changed
    SeeList { path: PathBuf },
    /// Change its list of workers as standard input describes
    EditList { path: PathBuf },
    /// Open a file and pass it through the socket on standard input
    Open { path: PathBuf },
    /// Answer the questions on standard input about a directory, for `host`
    Inspect { directory: PathBuf },
    /// Write a file of a directory as standard input describes, for `host apply`
    Put { directory: PathBuf },
    /// Create an environment as standard input describes, for `host apply`
    Environment { prefix: PathBuf },
    /// Write the profile from standard input, for `host export`
    Profile { directory: PathBuf },
    /// Do what standard input describes with the database that it names
    Reach { directory: PathBuf },
    /// Do what standard input describes with the database server of this host
    Server { directory: PathBuf },
}

pub(crate) fn run(make: &Make, context: &Context) -> anyhow::Result<ExitCode> {
    match make {
        Make::Access { .. } => access::answer()?,
        Make::Fill { directory } => fill::fill_directory(directory, context)?,
        Make::Clear { directory, keep } => fill::clear_directory(directory, *keep)?,
        Make::SeeList { path } => {
            let seen = worker_list::read(path)?;
            let text = serde_json::to_string(&seen).context("write the result")?;
            output::print(text)?;
        }
        Make::EditList { path } => worker_list::apply_edit(path)?,
        Make::Open { path } => open::hand_over(path)?,
        Make::Inspect { directory } => inspection::answer(directory)?,
        Make::Put { directory } => put::put_as_user(directory)?,
        Make::Environment { .. } => environment::make_as_owner()?,
        Make::Profile { directory } => profile::write_as_owner(directory)?,
        Make::Reach { .. } => reach::answer()?,
        Make::Server { .. } => server::answer()?,
    }
    Ok(ExitCode::SUCCESS)
}
