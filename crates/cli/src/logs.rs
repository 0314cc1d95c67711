//! `logs`: shows the journal of one instance or of all. `journalctl` reads, filters, follows and colours it, with the
//! caller's account and rights; this module builds its command line, and indents entries of several lines.

use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Write as _};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, bail};
use buildbot_conda_core::foreign_text::harmless_lines;
use buildbot_conda_core::names::InstanceRef;
use clap::{Args, ValueEnum};

use crate::system::context::{Context, InvalidConfiguration, no_instance};
use crate::system::{journal, systemd};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Instance to show, such as `master` or `worker@gpu`; by default all
    #[arg(value_name = "REF")]
    reference: Option<InstanceRef>,
    /// Show new entries as they are added, until interrupted
    #[arg(short, long)]
    follow: bool,
    /// Show the last N entries; by default 100, or all with `--since`
    #[arg(short = 'n', long, value_name = "N")]
    lines: Option<u64>,
    /// Show entries of this level and of more severe ones
    #[arg(long, value_name = "LEVEL", ignore_case = true)]
    level: Option<Level>,
    /// Show entries since this time, such as `today`, `-2h` or `2026-05-17 08:00`
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

/// Number of entries if no option sets it.
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
            Some(wanted) => return Err(no_instance(wanted, &settings)),
            None => bail!(
                "no instances in `{}`\nhint: create one with `buildbot-conda create`",
                settings.file()
            ),
        }
    }
    let mut command = Command::new("journalctl");
    if context.is_elsewhere() {
        command.arg("--root").arg(context.path("/"));
    }
    command.args(words(arguments, &references));
    show(command)
}

/// Passes on what it prints, line by line, and gives its exit status.
fn show(mut command: Command) -> anyhow::Result<ExitCode> {
    if io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        // It does not see the terminal any more.
        command.env("SYSTEMD_COLORS", "1");
    }
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| systemd::not_run("journalctl", error))?;
    let stdout = child.stdout.take().expect("it is a pipe");
    let mut reader = BufReader::new(stdout);
    let mut lines = journal::Lines::default();
    let mut bytes = Vec::new();
    while reader
        .read_until(b'\n', &mut bytes)
        .context("read the journal")?
        > 0
    {
        let line = String::from_utf8_lossy(&bytes);
        let (line, _) = lines.next(line.trim_end_matches('\n'));
        let line = without_orders(&line);
        let mut stdout = io::stdout().lock();
        if writeln!(stdout, "{line}")
            .and_then(|()| stdout.flush())
            .is_err()
        {
            // The reader has closed the pipe.
            let _ = child.kill();
            break;
        }
        bytes.clear();
    }
    let status = child.wait().context("wait for `journalctl`")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(0)))
}

/// A line with the colours of `journalctl` (ECMA-48, SGR), and nothing else that a terminal obeys or that hides what is
/// there: of what a build has printed, it replaces control characters alone.
fn without_orders(line: &str) -> String {
    let mut parts = line.split('\u{1b}');
    let mut shown = harmless_lines(parts.next().unwrap_or_default()).into_owned();
    for part in parts {
        let color = part
            .strip_prefix('[')
            .and_then(|rest| rest.find(|character: char| !"0123456789;".contains(character)))
            .filter(|length| part[1 + length..].starts_with('m'));
        // Digits are visible anyhow.
        let escape = color.map_or("\\u{1b}", |_| "\u{1b}");
        shown.extend([escape, &harmless_lines(part)]);
    }
    shown
}

/// Arguments of `journalctl`, journalctl(1). Each line starts with its unit, because the identifier in the usual format
/// is only the role.
fn words(arguments: &Arguments, references: &[&InstanceRef]) -> Vec<String> {
    let mut words = vec![
        "--no-pager".to_owned(),
        "--no-hostname".to_owned(),
        format!("--output={}", journal::FORM),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colors_stay_and_nothing_else_is_obeyed() {
        for (line, shown) in [
            ("a\tb", "a\tb"),
            (
                "\u{1b}[0;1;31ma\u{1b}[0m b\u{1b}[m",
                "\u{1b}[0;1;31ma\u{1b}[0m b\u{1b}[m",
            ),
            ("a\u{202e}b", "a\\u{202e}b"),
            ("\u{1b}[1m\u{200b}", "\u{1b}[1m\\u{200b}"),
            ("\u{1b}[2Ja\u{1b}]0;t\u{7}", "\\u{1b}[2Ja\\u{1b}]0;t\\u{7}"),
            ("\u{1b}[?25m\u{9b}m\r", "\\u{1b}[?25m\\u{9b}m "),
            ("\u{1b}", "\\u{1b}"),
        ] {
            assert_eq!(without_orders(line), shown, "{line:?}");
        }
    }
}
