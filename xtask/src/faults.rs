//! Prints the tables of guarantees: on the terminal after a run, and in `docs/faults.md` and `docs/attacks.md`.
//!
//! `tests/machine` contains their rows and records the results of tests.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use buildbot_conda_machine::{
    Release, Row, Shown, TABLES, Table, Verdict, systemd_version, verdict,
};

use crate::test::timings;
use crate::{interrupted, matrix};

/// What to do with the tables of the last run.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Write them into `docs/faults.md` and `docs/attacks.md` instead of printing them, where every row must be held, and
    /// the moments at which dpkg was interrupted into `docs/interrupted.md`, the matrix into
    /// `docs/matrix.md`, and the seconds of tests into `tests/seconds.tsv`
    #[arg(long)]
    record: bool,
}

/// Shows, or records, what the last run of the machine tests has seen.
pub(crate) fn run(workspace: &Path, arguments: &Arguments) -> Result<()> {
    if arguments.record {
        check(&Release::ALL)?;
        for table in &TABLES {
            write(workspace, table)?;
        }
        interrupted::record(workspace)?;
        matrix::record(workspace)?;
        return timings::record(workspace);
    }
    print(&Release::ALL)
}

/// Prints the tables of `releases` on stdout: a line for each row, then the sums.
pub(crate) fn print(releases: &[Release]) -> Result<()> {
    let mut text = String::new();
    for table in &TABLES {
        let width = table.rows.iter().map(|row| row.id.len()).max().unwrap_or(0);
        write!(text, "\n{:width$}", table.headings[0])?;
        for release in releases {
            write!(text, "  {:8}", release.code_name())?;
        }
        for row in table.rows {
            write!(text, "\n{:width$}", row.id)?;
            for &release in releases {
                write!(text, "  {:8}", cell(row, release))?;
            }
        }
        text.push('\n');
        let reported = table.rows.iter().filter(|row| is_reported(row)).count();
        for &release in releases {
            let held = reported - open(table, release).len();
            writeln!(text, "{release}: {held} of {reported} held")?;
        }
    }
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("print the tables")
}

/// Fails unless every row of `releases` is held.
pub(crate) fn check(releases: &[Release]) -> Result<()> {
    let mut open_rows = Vec::new();
    for table in &TABLES {
        for &release in releases {
            let names = open(table, release).into_iter();
            open_rows.extend(names.map(|id| format!("`{id}` on {release}")));
        }
    }
    if !open_rows.is_empty() {
        bail!("rows that failed: {}", open_rows.join(", "));
    }
    Ok(())
}

/// Writes the page of a table from what the last run has shown on every release.
fn write(workspace: &Path, table: &Table) -> Result<()> {
    let path = workspace.join("docs").join(table.page.0);
    fs::write(&path, page(table)?).with_context(|| format!("write `{}`", path.display()))?;
    eprintln!("wrote `{}`", path.display());
    Ok(())
}

fn is_reported(row: &Row) -> bool {
    row.shown == Shown::OnMachines
}

/// The ids of the rows that are not held. A row of a cheaper test is: without it the run has failed.
fn open(table: &Table, release: Release) -> Vec<&'static str> {
    let is_open = |row: &&Row| is_reported(row) && verdict(row.id, release) != Verdict::Held;
    table
        .rows
        .iter()
        .filter(is_open)
        .map(|row| row.id)
        .collect()
}

/// What is known of a row on a release.
fn cell(row: &Row, release: Release) -> &'static str {
    match row.shown {
        Shown::OnMachines => verdict(row.id, release).text(),
        Shown::ByTest { .. } => "by test",
    }
}

fn page(table: &Table) -> Result<String> {
    let heading = table.name[..1].to_uppercase() + &table.name[1..];
    let [event, promise] = table.headings;
    let mut text = format!(
        "# {heading} table\n\n{} Written by `cargo xtask faults --record`.\n\n\
         | {event} | {promise} | test row |",
        table.page.1
    );
    for release in Release::ALL {
        write!(text, " {release} (systemd {}) |", systemd_version(release)?)?;
    }
    text.push_str("\n|-|-|-|");
    text.push_str(&"-|".repeat(Release::ALL.len()));
    for row in table.rows {
        write!(text, "\n| {} | {} | `{}`", row.event, row.promise, row.id)?;
        if let Shown::ByTest { file, test } = row.shown {
            write!(text, ", `{file}`: `{test}`")?;
        }
        text.push_str(" |");
        for release in Release::ALL {
            write!(text, " {} |", cell(row, release))?;
        }
    }
    text.push('\n');
    Ok(text)
}
