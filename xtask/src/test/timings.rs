//! The durations of a run, stored for people and for the order of the next run.
//!
//! A line contains a part of the suite, a name and seconds, separated by tabs. `target/timings/last.tsv` contains those
//! of the last run, including the phases of tests, which the tests record themselves. A fresh clone uses
//! `tests/seconds.tsv`, which `cargo xtask faults --record` writes after a run.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

/// Below the workspace: the durations of the runner's tests.
pub(crate) const OF_RUNNER: &str = "target/timings/runner.tsv";
/// The durations of boots, layers, scenarios and machines; `tests/machine/src/timings.rs` defines the columns.
const OF_MACHINES: &str = "target/timings/machine.tsv";
/// The prefix of the part of a line for a phase of a test.
const WITHIN: &str = "within ";

/// How many of the slowest are printed.
const SHOWN: usize = 40;
/// Shorter durations do not matter for the order, and are not committed.
const COMMITTED_FROM: f64 = 2.0;

/// The seconds of the last run, and those of this one.
pub(crate) struct Timings {
    known: HashMap<(String, String), f64>,
    measured: Mutex<Vec<(String, String, Duration)>>,
}

impl Timings {
    /// What is known before a run.
    pub(crate) fn read(workspace: &Path) -> Self {
        let text = [committed(workspace), last(workspace)]
            .iter()
            // Without one of the files the order is not as good, and that is all.
            .filter_map(|path| fs::read_to_string(path).ok())
            .collect::<String>();
        Self::of(&text)
    }

    /// From the text of such files; of two lines with the same name, the later one counts.
    pub(crate) fn of(text: &str) -> Self {
        let known = text
            .lines()
            .filter_map(line)
            .map(|(part, name, seconds)| ((part.to_owned(), name.to_owned()), seconds));
        Self {
            known: known.collect(),
            measured: Mutex::default(),
        }
    }

    /// The seconds that something has taken.
    pub(crate) fn known(&self, part: &str, name: &str) -> Option<f64> {
        let key = (part.to_owned(), name.to_owned());
        self.known.get(&key).copied()
    }

    /// Notes what something took.
    pub(crate) fn keep(&self, part: &str, name: &str, took: Duration) {
        let mut measured = self.measured.lock().expect("nobody panics");
        measured.push((part.to_owned(), name.to_owned(), took));
    }

    /// Writes the file of this run, with what the tests have noted, and prints the slowest on stdout.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or written.
    pub(crate) fn finish(&self, workspace: &Path) -> Result<()> {
        let mut text = String::new();
        for (part, name, took) in self.measured.lock().expect("nobody panics").iter() {
            writeln!(text, "{part}\t{name}\t{:.2}", took.as_secs_f64())?;
        }
        let read = |name| {
            fs::read_to_string(workspace.join(name)).with_context(|| format!("read `{name}`"))
        };
        text += &read(OF_RUNNER)?;
        text.extend(read(OF_MACHINES)?.lines().filter_map(of_machine));
        let path = last(workspace);
        fs::write(&path, &text).with_context(|| format!("write `{}`", path.display()))?;

        let mut out = std::io::stdout().lock();
        write!(
            out,
            "{}\nall times are in `{}`\n",
            table(&text),
            path.display()
        )
        .context("print the seconds")
    }
}

/// Empties the files that tests add to. They are the caller's, who may be less than the root that adds to them.
///
/// # Errors
///
/// When they cannot be written.
pub(crate) fn begin(workspace: &Path) -> Result<()> {
    for name in [OF_RUNNER, OF_MACHINES] {
        let path = workspace.join(name);
        let directory = path.parent().expect("it lies in a directory");
        // The old file may belong to another account.
        let _ = fs::remove_file(&path);
        fs::create_dir_all(directory)
            .and_then(|()| fs::write(&path, ""))
            .with_context(|| format!("write `{name}`"))?;
    }
    Ok(())
}

/// Writes what matters of the last run's seconds for a clean clone.
///
/// # Errors
///
/// When there was no run, or the file cannot be written.
pub(crate) fn record(workspace: &Path) -> Result<()> {
    let path = last(workspace);
    let text = fs::read_to_string(&path).with_context(|| {
        format!(
            "read `{}`\nhint: `cargo xtask test` creates it",
            path.display()
        )
    })?;
    let mut lines: Vec<String> = text
        .lines()
        .filter_map(line)
        .filter(|(part, _, seconds)| !part.starts_with(WITHIN) && *seconds >= COMMITTED_FROM)
        .map(|(part, name, seconds)| format!("{part}\t{name}\t{seconds:.0}\n"))
        .collect();
    ensure!(!lines.is_empty(), "find seconds in `{}`", path.display());
    lines.sort();
    let path = committed(workspace);
    fs::write(&path, lines.concat()).with_context(|| format!("write `{}`", path.display()))?;
    eprintln!("wrote `{}`", path.display());
    Ok(())
}

fn last(workspace: &Path) -> PathBuf {
    workspace.join("target/timings/last.tsv")
}

fn committed(workspace: &Path) -> PathBuf {
    workspace.join("tests/seconds.tsv")
}

/// Part, name and seconds of a line.
fn line(line: &str) -> Option<(&str, &str, f64)> {
    let mut columns = line.split('\t');
    let (part, name, seconds) = (columns.next()?, columns.next()?, columns.next()?);
    Some((part, name, seconds.parse().ok()?))
}

/// A line of what happens on machines, in our columns: program, test, kind and seconds become part, name and seconds.
fn of_machine(line: &str) -> Option<String> {
    let mut columns = line.split('\t');
    let (program, test) = (columns.next()?, columns.next()?);
    let (kind, seconds) = (columns.next()?, columns.next()?);
    Some(format!("{WITHIN}{kind}\t{program} {test}\t{seconds}\n"))
}

/// The slowest, and for what happens within tests how often and how long altogether.
fn table(text: &str) -> String {
    let mut rows: Vec<(&str, &str, f64)> = text.lines().filter_map(line).collect();
    rows.sort_by(|one, other| other.2.total_cmp(&one.2));
    let (within, tests): (Vec<_>, Vec<_>) =
        rows.into_iter().partition(|row| row.0.starts_with(WITHIN));
    let mut table = String::from("\nthe slowest, in seconds:\n");
    for (part, name, seconds) in tests.iter().take(SHOWN) {
        writeln!(table, "{seconds:7.1}  {part}: {name}").expect("a string takes all");
    }
    let mut kinds: BTreeMap<&str, (usize, f64)> = BTreeMap::new();
    for (part, _, seconds) in within {
        let (count, sum) = kinds.entry(&part[WITHIN.len()..]).or_default();
        *count += 1;
        *sum += seconds;
    }
    table.push_str("within tests:\n");
    for (kind, (count, sum)) in kinds {
        writeln!(table, "{sum:7.1}  {kind}, {count} times").expect("a string takes all");
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_counts() {
        let timings = Timings::of("machine\tone\t12.5\nnot a line\nmachine\tone\t3.25\n");
        assert_eq!(timings.known("machine", "one"), Some(3.25));
        assert_eq!(timings.known("package", "one"), None);
    }

    #[test]
    fn the_table_has_the_slowest_first_and_sums_of_what_happens_within_tests() {
        let machines: String = "create\tx\tboot\t2.0\t0.3\ncreate\ty\tboot\t2.5\t\n"
            .lines()
            .filter_map(of_machine)
            .collect();
        let table = table(&format!("package\ta\t1.0\n{machines}machine\tb\t30.0\n"));
        let lines: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "   30.0  machine: b",
                "    1.0  package: a",
                "within tests:",
                "    4.5  boot, 2 times",
            ]
        );
    }
}
