//! The matrix: on which systems the last run has carried the smoke test through, and with which pairs of Python and
//! Buildbot the runner. The rows are the tests', in `target/machine/matrix`; here they become `docs/matrix.md`.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use buildbot_conda_machine::{System, machines_directory};

const HEAD: &str = "\
# Matrix

On each of these systems the package was installed with a preseed, a master and a worker were made, a build was carried
through, `list`, `status`, `check`, `doctor` and `drain` answered, both were reloaded with status 0 and without another
process, restarted, the machine was rebooted, and the package purged. Written by `cargo xtask faults --record`.

| system | systemd | result |
|---|---|---|
";

const PAIRS: &str = "
With each of these pairs the runner started a master and a worker twice, carried builds through, reloaded both, drained
the worker, stopped the master, read a secret as systemd hands it over, and told a bad configuration (status 78) from an
unreachable database (69).

| Python | Buildbot | result |
|---|---|---|
";

/// Writes `docs/matrix.md`.
pub(crate) fn record(workspace: &Path) -> Result<()> {
    let directory = machines_directory().join("matrix");
    let mut text = HEAD.to_owned();
    for system in System::ALL {
        let file = directory.join(format!("system-{system}"));
        text += &fs::read_to_string(&file).with_context(|| {
            format!(
                "read `{}`\nhint: `cargo xtask test` makes it",
                file.display()
            )
        })?;
    }
    let path = workspace.join("docs/matrix.md");
    let page = fs::read_to_string(&path).unwrap_or_default();
    // What was tried by hand stays until it is tried again.
    let mut pairs: Vec<String> = page
        .lines()
        .filter(|line| line.starts_with("| 3."))
        .map(|line| format!("{line}\n"))
        .collect();
    for entry in fs::read_dir(&directory).context("list the rows of the matrix")? {
        let entry = entry.context("list the rows of the matrix")?;
        if entry.file_name().to_string_lossy().starts_with("pair-") {
            let row = fs::read_to_string(entry.path()).context("read a row of the matrix")?;
            pairs.push(row);
        }
    }
    pairs.sort_by_key(|row| order(row));
    pairs.dedup();
    text += PAIRS;
    text.extend(pairs);
    fs::write(&path, text).with_context(|| format!("write `{}`", path.display()))
}

/// Numbers of a row in their order.
fn order(row: &str) -> Vec<u32> {
    let words = row.split(|character: char| !character.is_ascii_digit());
    words.filter_map(|word| word.parse().ok()).collect()
}
