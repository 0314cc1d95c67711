//! How long everything takes: what a run has measured, kept for people and for the order of the next run.
//!
//! A line has a part of the suite, a name and seconds, with tabs in between. `target/timings/last.tsv` has those of the
//! last run. Tests add what they do themselves, boots and set-ups, to the file that [`VARIABLE`] names. A fresh clone
//! goes by `tests/seconds.tsv`, which `cargo xtask faults --record` writes from a run.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

/// Tells tests where to note the seconds of boots and set-ups.
pub(crate) const VARIABLE: &str = "BUILDBOT_CONDA_TIMINGS";

/// For a test that nobody has seen yet: early, so that it is not the last one.
const UNKNOWN: f64 = 60.0;
/// How many of the slowest are printed.
const SHOWN: usize = 40;
/// What takes less does not matter for the order, and is not committed.
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

    /// From the text of such files; of two lines for the same the later one counts.
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

    /// The seconds that something will probably take.
    pub(crate) fn expected(&self, part: &str, name: &str) -> f64 {
        let key = (part.to_owned(), name.to_owned());
        self.known.get(&key).copied().unwrap_or(UNKNOWN)
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
        let notes = notes(workspace);
        text +=
            &fs::read_to_string(&notes).with_context(|| format!("read `{}`", notes.display()))?;
        let path = last(workspace);
        fs::write(&path, &text).with_context(|| format!("write `{}`", path.display()))?;

        let mut out = std::io::stdout().lock();
        write!(out, "{}\nall in `{}`\n", table(&text), path.display()).context("print the seconds")
    }
}

/// Makes an empty file for what the tests note, and gives its path. It is the caller's, who may be less than root.
///
/// # Errors
///
/// When it cannot be written.
pub(crate) fn begin(workspace: &Path) -> Result<PathBuf> {
    let notes = notes(workspace);
    let directory = notes.parent().expect("it lies in a directory");
    fs::create_dir_all(directory)
        .and_then(|()| fs::write(&notes, ""))
        .with_context(|| format!("write `{}`", notes.display()))?;
    Ok(notes)
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
            "read `{}`\nhint: `cargo xtask test` makes it",
            path.display()
        )
    })?;
    let mut lines: Vec<String> = text
        .lines()
        .filter_map(line)
        .filter(|(part, _, seconds)| !is_detail(part) && *seconds >= COMMITTED_FROM)
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

fn notes(workspace: &Path) -> PathBuf {
    workspace.join("target/timings/notes.tsv")
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

/// Is it something that happens within tests, and not one of them?
fn is_detail(part: &str) -> bool {
    matches!(part, "boot" | "shutdown" | "set-up")
}

/// The slowest, and for what happens within tests how often and how long altogether.
fn table(text: &str) -> String {
    let mut rows: Vec<(&str, &str, f64)> = text.lines().filter_map(line).collect();
    rows.sort_by(|one, other| other.2.total_cmp(&one.2));
    let mut table = String::from("\nthe slowest, in seconds:\n");
    for (part, name, seconds) in rows.iter().filter(|row| row.0 != "boot").take(SHOWN) {
        writeln!(table, "{seconds:7.1}  {part}: {name}").expect("a string takes all");
    }
    for kind in ["boot", "shutdown", "set-up"] {
        let seconds: Vec<f64> = rows
            .iter()
            .filter(|row| row.0 == kind)
            .map(|row| row.2)
            .collect();
        let sum = seconds.iter().fold(0.0, |sum, seconds| sum + seconds);
        writeln!(table, "{sum:7.1}  {kind}, {} times", seconds.len()).expect("a string takes all");
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_counts_and_what_is_unknown_comes_early() {
        let timings = Timings::of("machine\tone\t12.5\nnot a line\nmachine\tone\t3.25\n");
        assert!((timings.expected("machine", "one") - 3.25).abs() < f64::EPSILON);
        assert!((timings.expected("package", "one") - UNKNOWN).abs() < f64::EPSILON);
    }

    #[test]
    fn the_table_has_the_slowest_first_and_sums_of_what_happens_within_tests() {
        let table = table("package\ta\t1.0\nboot\tx\t2.0\nmachine\tb\t30.0\nboot\ty\t2.5\n");
        let lines: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "   30.0  machine: b",
                "    1.0  package: a",
                "    4.5  boot, 2 times",
                "    0.0  shutdown, 0 times",
                "    0.0  set-up, 0 times",
            ]
        );
    }
}
