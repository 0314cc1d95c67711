//! `status`: all instances in one table, or one in detail.

use std::process::{Command, ExitCode};

use buildbot_conda_core::foreign_text::harmless_lines;
use buildbot_conda_core::names::InstanceRef;
use clap::Args;

use crate::listing::{self, Options};
use crate::output;
use crate::survey::{self, Row};
use crate::system::context::{Context, InvalidConfiguration, no_instance};
use crate::system::{journal, status_file};
use crate::table;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Instance to show in detail, such as `master` or `worker@gpu`
    #[arg(value_name = "REF")]
    reference: Option<InstanceRef>,
    #[command(flatten)]
    options: Options,
}

/// Lines of the journal that the detail ends with.
const LOG_LINES: usize = 10;
/// Lines of one entry behind its first.
const FURTHER_LINES: usize = 2;

pub(crate) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    let wanted = arguments.reference.as_ref();
    let text = |rows: &[Row]| match (wanted, rows) {
        (Some(_), [row]) => detail(row, context),
        _ => table::of(rows),
    };
    let read = || read_rows(wanted, context);
    listing::show(&arguments.options, wanted.is_some(), read, text)
}

/// The rows of all instances, or the one of `wanted`.
fn read_rows(wanted: Option<&InstanceRef>, context: &Context) -> anyhow::Result<Vec<Row>> {
    let settings = context.settings()?;
    let mut rows = survey::survey(&settings, context)?;
    if let Some(reference) = wanted {
        let wanted = reference.to_string();
        rows.retain(|row| row.instance == wanted);
        if rows.is_empty() {
            // Unless a problem of the file hides its table.
            if settings.has_table(reference).is_none() {
                settings.check().map_err(InvalidConfiguration::from)?;
            }
            return Err(no_instance(reference, &settings));
        }
    }
    Ok(rows)
}

fn detail(row: &Row, context: &Context) -> String {
    let mut text = String::new();
    let width = output::width();
    let mut line = |name: &str, value: &str| {
        text += &output::fold(&format!("{name:>15}: {value}"), 0, 17, width);
    };
    line("instance", &row.instance);
    line("unit", &row.unit);
    line("state", &row.state);
    if let Some(message) = &row.message {
        line("doing", message);
    }
    if let Some(pid) = row.pid {
        line("main process", &pid.to_string());
    }
    if let Some(bytes) = row.memory {
        line("memory", &format!("{} MiB", bytes >> 20));
    }
    if let Some(version) = &row.buildbot {
        line("Buildbot", version);
    }
    if let Some(directory) = &row.directory {
        line("directory", directory);
    }
    if let Some(environment) = &row.environment {
        line("environment", environment);
    }
    if let Some(next) = &row.next_environment {
        line("next start", next);
    }
    let status = row.status.as_ref();
    if let Some(reload) = status.and_then(|status| status.reconfiguration.as_ref()) {
        let message = reload.message.as_deref().unwrap_or_default();
        line("last reload", &format!("{} {message}", reload.outcome));
    }
    if let Some(database) = status.and_then(|status| status.database.as_ref()) {
        let text = format!("{}, as `{}`", database.place, database.name);
        line("database", &text);
    }
    for certificate in status.iter().flat_map(|status| status.shown_certificates()) {
        line("certificate", &certificate.days_left(status_file::now()).1);
    }
    if let Some(worker) = status.and_then(|status| status.worker.as_ref()) {
        line("connection", &worker.connection);
    }
    if !context.is_elsewhere()
        && let Some(log) = last_log_lines(&row.unit, width)
    {
        text.push('\n');
        text.push_str(&log);
    }
    text
}

/// The unit's last lines in the journal, none of them longer than the width of the terminal; none if this user may not
/// read it. A long entry, such as the environment of a build, leaves room for the others.
fn last_log_lines(unit: &str, width: Option<usize>) -> Option<String> {
    let output = Command::new("journalctl")
        .args([
            "--quiet",
            "--no-pager",
            "--no-hostname",
            "--output",
            journal::FORM,
            "--lines",
            &LOG_LINES.to_string(),
            "--unit",
            unit,
        ])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = journal::last_lines(&harmless_lines(&text), LOG_LINES, FURTHER_LINES);
    let cut = |line: &String| -> String {
        line.chars()
            .take(width.unwrap_or(usize::MAX))
            .collect::<String>()
            + "\n"
    };
    (output.status.success() && !lines.is_empty()).then(|| lines.iter().map(cut).collect())
}
