//! The matrix: on which systems the last run has carried the smoke test through, and with which pairs of Python and
//! Buildbot the runner. The rows are the tests', in `target/matrix`; here they become `docs/matrix.md`.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use buildbot_conda_machine::{System, matrix_directory};

const HEAD: &str = "\
# Matrix

On each of these systems, the smoke test installed the package with a preseed, created a master and a worker, ran a
build, and called `list`, `status`, `check`, `doctor` and `drain`. It reloaded both instances with status 0 in the same
process, restarted them, rebooted the machine, and purged the package. This page is written by
`cargo xtask faults --record`, and by `cargo xtask test` with `--arm64` or `--pairs`.

| system | systemd | result |
|---|---|---|
";

const PAIRS: &str = "
With each of these pairs, the runner started a master and a worker twice, ran builds, reloaded both, drained the worker,
stopped the master, read a secret as systemd passes it, and distinguished an invalid configuration (status 78) from an
unreachable database (69).

| Python | Buildbot | result |
|---|---|---|
";

/// Writes `docs/matrix.md` after a run that had every system.
///
/// # Errors
///
/// When one of them is missing, or as [`update`].
pub(crate) fn record(workspace: &Path) -> Result<()> {
    for system in System::ALL {
        let file = matrix_directory()?.join(format!("system-{system}"));
        ensure!(
            file.is_file(),
            "find `{}`\nhint: `cargo xtask test` creates it",
            file.display()
        );
    }
    update(workspace)
}

/// Writes the tested combinations to `docs/matrix.md`. Others keep their existing rows.
///
/// # Errors
///
/// If a row cannot be read, or the page cannot be written.
pub(crate) fn update(workspace: &Path) -> Result<()> {
    let path = workspace.join("docs/matrix.md");
    let page = fs::read_to_string(&path).unwrap_or_default();
    let mut rows: Vec<String> = page.lines().map(str::to_owned).collect();
    let directory = matrix_directory()?;
    for entry in fs::read_dir(&directory).context("list the rows of the matrix")? {
        let entry = entry.context("list the rows of the matrix")?;
        let row = fs::read_to_string(entry.path()).context("read a row of the matrix")?;
        rows.push(row.trim_end().to_owned());
    }
    let mut text = HEAD.to_owned();
    for system in System::ALL.into_iter().chain([System::Arm64]) {
        let start = format!("| {system} |");
        // The newest one comes last.
        let row = rows.iter().rev().find(|row| row.starts_with(&start));
        text.extend(row.map(|row| format!("{row}\n")));
    }
    rows.retain(|row| row.starts_with("| 3."));
    rows.sort_by_key(|row| order(row));
    rows.dedup();
    text += PAIRS;
    text.extend(rows.into_iter().map(|row| row + "\n"));
    fs::write(&path, text).with_context(|| format!("write `{}`", path.display()))
}

/// Numbers of a row in their order.
fn order(row: &str) -> Vec<u32> {
    let words = row.split(|character: char| !character.is_ascii_digit());
    words.filter_map(|word| word.parse().ok()).collect()
}
