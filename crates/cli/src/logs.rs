//! `logs`: the journal of one instance or of all. `journalctl` is what reads, filters, follows and
//! colours it, as the caller and with his rights; here is only how it is asked.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};
use buildbot_conda_core::names::InstanceRef;
use clap::{Args, ValueEnum};

use crate::system::context::{Context, InvalidConfiguration};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Instance whose log is shown, such as `master` or `worker@gpu`; without it, those of all
    #[arg(value_name = "REF")]
    reference: Option<InstanceRef>,
    /// Go on showing what is added, until interrupted
    #[arg(short, long)]
    follow: bool,
    /// Show the last N entries; 100, or all with `--since`
    #[arg(short = 'n', long, value_name = "N")]
    lines: Option<u64>,
    /// Show entries of this level and of worse ones
    #[arg(long, value_name = "LEVEL", ignore_case = true)]
    level: Option<Level>,
    /// Show entries from this time on, such as `today`, `-2h` or `2026-05-17 08:00`
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,
}

/// Levels in Buildbot's words; those of syslog(3) are understood too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Level {
    Debug,
    Info,
    Notice,
    #[value(alias = "warn")]
    Warning,
    #[value(alias = "err")]
    Error,
    #[value(alias = "crit")]
    Critical,
}

impl Level {
    /// The word for `journalctl --priority`; one alone means this and everything worse.
    fn priority(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Error => "err",
            Self::Critical => "crit",
        }
    }
}

/// Entries shown when nothing says how many.
const LINES: u64 = 100;

pub(crate) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    let settings = context.settings()?;
    let references: Vec<&InstanceRef> = settings
        .references()
        .filter(|known| arguments.reference.as_ref().is_none_or(|one| one == *known))
        .collect();
    if references.is_empty() {
        settings.check().map_err(InvalidConfiguration::from)?;
        match &arguments.reference {
            Some(wanted) => bail!(
                "no instance `{wanted}` in `{}`\nhint: `buildbot-conda list` names those there are",
                settings.file()
            ),
            None => bail!(
                "no instance in `{}`\nhint: `buildbot-conda create` makes one",
                settings.file()
            ),
        }
    }
    let mut command = Command::new("journalctl");
    if context.is_elsewhere() {
        command.arg("--root").arg(context.path("/"));
    }
    let error = command.args(words(arguments, &references)).exec();
    Err(error).context("run `journalctl`")
}

/// What `journalctl` is asked for, journalctl(1). An entry of several lines, such as a traceback,
/// comes out whole in these forms. Of all instances each line begins with its unit, since
/// the identifier in the ordinary form is the role alone.
fn words(arguments: &Arguments, references: &[&InstanceRef]) -> Vec<String> {
    let form = match arguments.reference {
        Some(_) => "short-iso",
        None => "with-unit",
    };
    let mut words = vec![
        "--no-pager".to_owned(),
        "--no-hostname".to_owned(),
        format!("--output={form}"),
    ];
    match (arguments.lines, &arguments.since) {
        (Some(lines), _) => words.push(format!("--lines={lines}")),
        (None, Some(_)) => words.push("--lines=all".to_owned()),
        (None, None) => words.push(format!("--lines={LINES}")),
    }
    if arguments.follow {
        words.push("--follow".to_owned());
    }
    if let Some(level) = arguments.level {
        words.push(format!("--priority={}", level.priority()));
    }
    if let Some(since) = &arguments.since {
        words.push(format!("--since={since}"));
    }
    let units = references.iter().map(|reference| reference.unit_name());
    words.extend(units.map(|unit| format!("--unit={unit}")));
    words
}
