//! Pairs of Python and Buildbot: runs `pairs.py` of the runner's tests with each Python of this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use buildbot_conda_machine::{matrix_directory, virtual_environment};

use super::pool::{Finished, Job};
use super::{RUNNER, finish, programs, runner};
use crate::stages::Stages;
use crate::{matrix, prerequisites};

/// Minor versions of Python 3 that may be had, the oldest first.
const PYTHONS: std::ops::RangeInclusive<u32> = 9..=14;

/// The versions of Buildbot that `pairs/` pins, the oldest first.
const BUILDBOTS: [&str; 5] = ["2.10.5", "3.5.0", "3.11.9", "4.0.4", "4.3.0"];

/// A Python, and a Buildbot for it.
pub(super) struct Pair {
    minor: u32,
    python: PathBuf,
    buildbot: &'static str,
}

/// The extreme combinations, which every run of the whole suite tests: the oldest and the newest of both, as far as
/// they work together.
pub(super) fn few() -> Vec<Pair> {
    let (oldest, newest) = (BUILDBOTS[0], BUILDBOTS[BUILDBOTS.len() - 1]);
    let pythons: Vec<u32> = PYTHONS.filter(|minor| find(*minor).is_some()).collect();
    let corners = [pythons.first(), pythons.last()];
    let mut corners: Vec<u32> = corners.into_iter().flatten().copied().collect();
    corners.dedup();
    all_of(corners.into_iter(), &[oldest, newest])
}

/// Every pair with a Python of this machine.
fn all_of(minors: impl Iterator<Item = u32>, buildbots: &[&'static str]) -> Vec<Pair> {
    let pythons = minors.filter_map(|minor| Some((minor, find(minor)?)));
    let pairs = pythons.flat_map(|(minor, python)| {
        let pair = move |buildbot: &&'static str| Pair {
            minor,
            python: python.clone(),
            buildbot,
        };
        buildbots.iter().map(pair)
    });
    pairs.filter(is_possible).collect()
}

/// The workers of old ones import `pipes` at each command, which Python 3.13 does not have any more.
fn is_possible(pair: &Pair) -> bool {
    pair.minor < 13 || !matches!(pair.buildbot, "2.10.5" | "3.5.0")
}

/// The interpreter of a minor version: on the PATH, or one that pyenv has built.
fn find(minor: u32) -> Option<PathBuf> {
    let name = format!("python3.{minor}");
    let pyenv = std::env::var_os("PYENV_ROOT")
        .or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".pyenv").into()));
    let versions = fs::read_dir(Path::new(&pyenv.unwrap_or_default()).join("versions"));
    let built = versions.into_iter().flatten().flatten();
    let mut built: Vec<PathBuf> = built.map(|entry| entry.path().join("bin")).collect();
    built.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut candidates = built.into_iter().chain(std::env::split_paths(&path));
    let found = candidates.find(|directory| {
        // The wrappers of pyenv exist whether the Python is installed or not.
        let mut command = Command::new(directory.join(&name));
        let output = command.args(["-c", "import ensurepip, ssl"]).output();
        output.is_ok_and(|output| output.status.success())
    });
    found.map(|directory| directory.join(name))
}

/// A job for each pair. It makes the virtual environment where that is missing.
pub(super) fn jobs(workspace: &Path, pairs: Vec<Pair>) -> impl Iterator<Item = Job<'_>> {
    pairs.into_iter().map(move |pair| Job {
        part: RUNNER,
        name: pair.name(),
        usual: 60.0,
        slots: 2,
        work: Box::new(move || match command(workspace, &pair) {
            Ok(command) => programs::run(command),
            Err(error) => Finished {
                passed: false,
                output: format!("error: {error:#}"),
            },
        }),
    })
}

impl Pair {
    fn name(&self) -> String {
        format!("Python 3.{} with Buildbot {}", self.minor, self.buildbot)
    }
}

fn command(workspace: &Path, pair: &Pair) -> Result<Command> {
    let tests = runner::directory(workspace);
    let requirements = tests.join(format!("pairs/{}.txt", pair.buildbot));
    let venv = virtual_environment(&pair.python, pair.buildbot, &requirements, &[])?;
    let python = venv.join("bin/python");
    let mut command = Command::new(&python);
    command
        .current_dir(tests)
        .args(["-m", "pytest", "--quiet", "pairs.py"])
        .env("RUNNER_TEST_ROWS", matrix_directory()?)
        .env("RUNNER_TEST_PYTHONS", python);
    Ok(command)
}

/// Runs every pair, one after the other.
///
/// # Errors
///
/// When one fails.
pub(super) fn run(workspace: &Path) -> Result<()> {
    prerequisites::for_python()?;
    let pairs = all_of(PYTHONS, &BUILDBOTS);
    let stages = Stages::new(pairs.len());
    for job in jobs(workspace, pairs) {
        stages.attempt(&job.name, || {
            let finished = (job.work)();
            ensure!(finished.passed, "{}", finished.output.trim_end());
            Ok(())
        });
    }
    stages.print()?;
    matrix::update(workspace)?;
    finish(&stages)
}
