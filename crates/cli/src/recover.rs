//! `recover`: rolls back an interrupted command, or completes it if data has already been removed. The next command
//! that changes the host does the same automatically; this verb is for those who do not want to wait, want to see it
//! first, or have to give it up.

use std::process::ExitCode;

use clap::Args;

use crate::output;
use crate::plan;
use crate::system::context::Context;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Leave the host as it is and discard the unfinished command; its steps are stored in a file
    #[arg(long)]
    give_up: bool,
    /// Show what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

const NOTHING: &str = "no command was interrupted";

pub(crate) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    if arguments.dry_run {
        return show(arguments.give_up, context);
    }
    context.ensure_here_unless_shown("recover")?;
    context.ensure_root()?;
    if arguments.give_up {
        match plan::give_up(context)? {
            Some(path) => eprintln!("discarded; the steps are kept in `{}`", path.display()),
            None => eprintln!("{NOTHING}"),
        }
        return Ok(ExitCode::SUCCESS);
    }
    match plan::take_up(context)? {
        Some((begun, journal)) => {
            eprintln!("{begun}");
            plan::recover(begun, &journal)?;
        }
        None => eprintln!("{NOTHING}"),
    }
    Ok(ExitCode::SUCCESS)
}

fn show(give_up: bool, context: &Context) -> anyhow::Result<ExitCode> {
    let Some(begun) = plan::unfinished(context)? else {
        eprintln!("{NOTHING}");
        return Ok(ExitCode::SUCCESS);
    };
    let (title, steps) = (begun.title(), begun.steps());
    if give_up {
        eprintln!("`buildbot-conda {title}` was interrupted, these steps would be discarded:");
    } else {
        eprintln!("{begun}:");
    }
    output::print(steps)
}
