//! The fault table as people see it: on the terminal after a run, and in `docs/faults.md`.
//!
//! Its rows and what tests report about them are `tests/machine`'s.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use buildbot_conda_machine::{Release, TABLE, Verdict, systemd_version, verdict};

use crate::interrupted;

/// What to do with the table of the last run.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Write it into `docs/faults.md` instead of printing it, where every row must be held, and the moments at which
    /// dpkg was interrupted into `docs/interrupted.md`
    #[arg(long)]
    record: bool,
}

/// Shows, or records, what the last run of the machine tests has seen.
pub(crate) fn run(workspace: &Path, arguments: &Arguments) -> Result<()> {
    if arguments.record {
        check(&Release::ALL)?;
        write(workspace)?;
        return interrupted::record(workspace);
    }
    print(&Release::ALL)
}

/// Prints the table of `releases` on stdout: a line for each row, then the sums.
pub(crate) fn print(releases: &[Release]) -> Result<()> {
    let width = TABLE.iter().map(|row| row.id.len()).max().unwrap_or(0);
    let mut text = format!("\n{:width$}", "event");
    for release in releases {
        write!(text, "  {:8}", release.code_name())?;
    }
    for row in TABLE {
        write!(text, "\n{:width$}", row.id)?;
        for &release in releases {
            write!(text, "  {:8}", verdict(row.id, release).text())?;
        }
    }
    text.push('\n');
    for &release in releases {
        let held = TABLE.len() - open(release).len();
        writeln!(text, "{release}: {held} of {} held", TABLE.len())?;
    }
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("print the fault table")
}

/// Fails unless every row of `releases` is held.
pub(crate) fn check(releases: &[Release]) -> Result<()> {
    let mut open_rows = Vec::new();
    for &release in releases {
        let names = open(release).into_iter();
        open_rows.extend(names.map(|id| format!("`{id}` on {release}")));
    }
    if !open_rows.is_empty() {
        bail!(
            "hold what the fault table promises: {}",
            open_rows.join(", ")
        );
    }
    Ok(())
}

/// Writes `docs/faults.md` from what the last run has shown on every release.
fn write(workspace: &Path) -> Result<()> {
    let path = workspace.join("docs/faults.md");
    fs::write(&path, page()?).with_context(|| format!("write `{}`", path.display()))?;
    eprintln!("wrote `{}`", path.display());
    Ok(())
}

/// The ids of the rows that are not held.
fn open(release: Release) -> Vec<&'static str> {
    let open = TABLE
        .iter()
        .filter(|row| verdict(row.id, release) != Verdict::Held);
    open.map(|row| row.id).collect()
}

fn page() -> Result<String> {
    let mut text = String::from(
        "# Fault table\n\n\
         What may happen to master and worker, what is promised then, and whether the machine tests have seen it\n\
         hold, each with a real Buildbot on a booted Debian. Written by `cargo xtask faults --record`.\n\n\
         | event | promise | test row |",
    );
    for release in Release::ALL {
        write!(text, " {release} (systemd {}) |", systemd_version(release)?)?;
    }
    text.push_str("\n|-|-|-|");
    text.push_str(&"-|".repeat(Release::ALL.len()));
    for row in TABLE {
        write!(text, "\n| {} | {} | `{}` |", row.event, row.promise, row.id)?;
        for release in Release::ALL {
            write!(text, " {} |", verdict(row.id, release).text())?;
        }
    }
    text.push('\n');
    Ok(text)
}
