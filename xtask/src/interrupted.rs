//! The table of interruptions: the moments at which dpkg was killed in the last run of the package's tests, the
//! resulting state, and the command that completed it. The tests write the rows to `target/interrupted`; this module
//! creates `docs/interrupted.md` from them.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use buildbot_conda_machine::Release;

/// What can be interrupted, as the tests name it.
const OPERATIONS: [&str; 4] = ["installation", "upgrade", "removal", "purge"];

/// The rows of an operation, those of the releases in turn as their moments are.
fn rows(workspace: &Path, operation: &str) -> Result<Vec<String>> {
    let mut columns = Vec::new();
    for release in Release::ALL {
        let name = format!("target/interrupted/{operation}-{release}.md");
        let text = fs::read_to_string(workspace.join(&name))
            .with_context(|| format!("read `{name}`\nhint: `cargo xtask test` creates it"))?;
        let lines = text.lines().map(|line| format!("| {release} {line}"));
        columns.push(lines.collect::<Vec<_>>().into_iter());
    }
    let mut rows = Vec::new();
    loop {
        let row: Vec<String> = columns.iter_mut().filter_map(Iterator::next).collect();
        if row.is_empty() {
            return Ok(rows);
        }
        rows.extend(row);
    }
}

/// Prints on stdout how many moments the last run has covered; none if a test has failed.
pub(crate) fn print(workspace: &Path) -> Result<()> {
    let mut text = String::from("\ninterrupted and completed:\n");
    for operation in OPERATIONS {
        let count = rows(workspace, operation).map_or(0, |rows| rows.len());
        writeln!(text, "{operation:12}  {count:3} moments")?;
    }
    std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes())
        .context("print the table of interruptions")
}

/// Writes `docs/interrupted.md`.
pub(crate) fn record(workspace: &Path) -> Result<()> {
    let mut text = String::from(
        "# Interrupted\n\n\
         Before each of these steps, dpkg and all processes that it had started were killed with SIGKILL, each time in a\n\
         separate Debian system. Then the command in the last column was run. The result was compared, byte for byte,\n\
         with that of an undisturbed run: the file system with owners and modes, dpkg's records, accounts, and answers to\n\
         questions. `tests/package/src/state.rs` lists what is not compared, such as logs, with the reasons. The table\n\
         contains each step of every maintainer script, once where nothing changes in between, and a selection of dpkg's\n\
         own steps; the releases alternate. This page is written by `cargo xtask faults --record`.\n",
    );
    for operation in OPERATIONS {
        let rows = rows(workspace, operation)?;
        ensure!(!rows.is_empty(), "find moments of the {operation}");
        write!(
            text,
            "\n## {}: {} moments\n\n\
             | release | script | killed before | dpkg's record then | completed by |\n|-|-|-|-|-|\n",
            operation[..1].to_uppercase() + &operation[1..],
            rows.len()
        )?;
        for row in rows {
            writeln!(text, "{row}")?;
        }
    }
    let path = workspace.join("docs/interrupted.md");
    fs::write(&path, text).with_context(|| format!("write `{}`", path.display()))?;
    eprintln!("wrote `{}`", path.display());
    Ok(())
}
