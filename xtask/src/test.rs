//! `cargo xtask test`: every check. Compilers, waiting tests and computing tests run in parallel, and each starts as
//! soon as its requirements are ready. A failure hides no other one.

mod arm64;
mod pairs;
mod pool;
pub(crate) mod prepare;
mod programs;
mod runner;
pub(crate) mod timings;

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{self, Sender};
use std::thread::{self, ScopedJoinHandle};

use anyhow::{Context as _, Result, bail};
use buildbot_conda_machine::{Release, forget_faults};
use rustix::process::setpriority_process;

use crate::check::FORMAT;
use crate::stages::Stages;
use crate::{deb, faults, interrupted, prerequisites, reproduce};
use pool::{Job, Pool};
use programs::{Compiled, Test};
use timings::Timings;

/// Tests of machines and of the package that need the package of environments as well, by their programs.
const WITH_ENVIRONMENTS: [&str; 7] = [
    "environments",
    "environments_interrupted",
    "hosts",
    "lintian",
    "newcomer",
    "rebuild",
    "sbom",
];

/// Programs of tests that no table promises for each release: every test in them runs on one of the releases, half of the
/// tests on each, unless all or one release is asked for. Two processors have no time for more on every change.
const IN_TURN: [&str; 11] = [
    "debconf_dialog",
    "debian",
    "doctor",
    "environments",
    "environments_interrupted",
    "hosts",
    "lifecycle",
    "many",
    "metrics",
    "rebuild",
    "web",
];

/// For cargo: the examples in documents, with the same features as the tests.
const DOCUMENTS: [&str; 6] = [
    "test",
    "--quiet",
    "--doc",
    "--workspace",
    "--exclude",
    "buildbot-conda-env",
];

/// The parts of the suite, as the directories of their packages in `tests` are called; all others are units.
const MACHINES: &str = "machine";
const PACKAGE: &str = "package";
const UNITS: &str = "units";
const RUNNER: &str = "runner";

/// What to run.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each of them is a word of the command line"
)]
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Leave out what needs the package or a booted machine
    #[arg(long, conflicts_with = "release")]
    fast: bool,
    /// Build, lint and test the crate of environments alone, which is left out of `--fast`
    #[arg(long, conflicts_with_all = ["fast", "release"])]
    env: bool,
    /// Build both packages for arm64 and carry the smoke test through on a machine of that kind, which an emulator runs
    #[arg(long, conflicts_with_all = ["fast", "env", "release"])]
    arm64: bool,
    /// Try every pair of Python and Buildbot with the Pythons of this machine, of which the other runs try a few
    #[arg(long, conflicts_with_all = ["fast", "env", "release", "arm64"])]
    pairs: bool,
    /// Leave out the tests of other releases than this one
    #[arg(long)]
    release: Option<Release>,
    /// Run every test on each release and each Buildbot, also those that take turns, and build the package twice
    #[arg(long, conflicts_with_all = ["fast", "release"])]
    every: bool,
}

/// What the parts of a run share.
struct Run<'run> {
    workspace: &'run Path,
    releases: Vec<Release>,
    /// Whether the tests in [`IN_TURN`] run on each of them.
    every: bool,
    stages: Stages,
    pool: Pool<'run>,
}

/// Runs everything, prints what came of it, and fails if something did.
pub(crate) fn run(workspace: &Path, arguments: &Arguments) -> Result<()> {
    if arguments.env {
        return environments_alone(workspace);
    }
    if arguments.arm64 {
        return arm64::run(workspace);
    }
    if arguments.pairs {
        return pairs::run(workspace);
    }
    let timings = Timings::read(workspace);
    timings::begin(workspace)?;
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let every = arguments.every || arguments.release.is_some();
    let run = Run {
        workspace,
        releases: arguments
            .release
            .map_or(Release::ALL.to_vec(), |release| vec![release]),
        every,
        stages: Stages::new(match (arguments.fast, every) {
            (true, _) => 6,
            (false, true) => 12,
            (false, false) => 11,
        }),
        // Most tests wait for Buildbot, systemd or dpkg most of their time.
        pool: Pool::new(4 * cores, &timings),
    };
    run.stages.attempt("requirements from Debian", || {
        if arguments.fast {
            prerequisites::for_python()
        } else {
            prerequisites::for_tests()
        }
    });
    if arguments.fast {
        run.carry_out(|| run.fast());
    } else {
        forget_faults()?;
        run.carry_out(|| run.full());
        run.stages.attempt("tables of faults and attacks", || {
            faults::check(&run.releases)
        });
    }
    run.conclude(&timings)?;
    if !arguments.fast {
        faults::print(&run.releases)?;
        interrupted::print(workspace)?;
    }
    finish(&run.stages)
}

/// The crate of environments, for those who change it.
fn environments_alone(workspace: &Path) -> Result<()> {
    let stages = Stages::new(2);
    let package = stages.attempt("package of environments is built", || {
        deb::build_environments(workspace)
    });
    if package.is_some() {
        stages.attempt("environments", || deb::check_environments(workspace));
    }
    stages.print()?;
    finish(&stages)
}

fn finish(stages: &Stages) -> Result<()> {
    match stages.failed() {
        0 => Ok(()),
        failed => bail!("{failed} of the stages failed"),
    }
}

impl Run<'_> {
    /// Calls `add`, which adds tests when they are ready, while those that have been added are run.
    fn carry_out(&self, add: impl FnOnce() + Send) {
        thread::scope(|scope| {
            scope.spawn(|| {
                add();
                self.pool.close();
            });
            self.pool.run();
        });
    }

    fn fast(&self) {
        thread::scope(|scope| {
            let pythons = scope.spawn(|| self.virtual_environments());
            if let Some(compiled) = self.compile_tests() {
                self.add_units(compiled.tests);
                self.add_runner(joined(pythons), &compiled.programs);
            }
            self.check_code();
        });
    }

    /// What tests wait for is compiled first, and everything else is done while machines wait for Buildbot.
    fn full(&self) {
        thread::scope(|scope| {
            scope.spawn(|| {
                self.stages
                    .attempt("roots and environments for machines", || {
                        prepare::call(&self.releases, true)
                    })
            });
            let pythons = scope.spawn(|| self.virtual_environments());
            let (built, package) = mpsc::channel();
            scope.spawn(move || self.build(&built));
            let (built, environments) = mpsc::channel();
            scope.spawn(move || self.build_environments(&built));

            let Some(Compiled {
                tests, programs, ..
            }) = self.compile_tests()
            else {
                return;
            };
            let (tests, units): (Vec<Test>, Vec<Test>) = tests
                .into_iter()
                .filter(|test| self.is_wanted(test))
                .partition(|test| part(test) != UNITS);
            self.add_units(units);
            self.add_runner(joined(pythons), &programs);
            self.pool.add(pairs::jobs(self.workspace, pairs::few()));
            scope.spawn(|| patiently(|| self.check_code()));

            // Without a package the tests of it cannot be run, and its stage has failed.
            let Ok(package) = package.recv() else { return };
            let (later, now): (Vec<Test>, Vec<Test>) = tests
                .into_iter()
                .partition(|test| WITH_ENVIRONMENTS.contains(&test.program.name.as_str()));
            self.add_tests(now, &package, None);
            if let Ok(environments) = environments.recv() {
                self.add_tests(later, &package, Some(&environments));
            }
        });
    }

    /// Builds the package, and with `--every` once more, after those who wait for it have got it.
    fn build(&self, built: &Sender<PathBuf>) {
        let package = self
            .stages
            .attempt("package is built", || deb::build(self.workspace));
        if let Some(package) = package {
            // Nothing waits for it if the tests cannot be compiled.
            let _ = built.send(package.clone());
            if self.every {
                patiently(|| {
                    self.stages.attempt("package is built again", || {
                        reproduce::check(self.workspace, &package)
                    })
                });
            }
        }
    }

    /// The same with the package of environments, and then its lints and tests.
    fn build_environments(&self, built: &Sender<PathBuf>) {
        let package = self.stages.attempt("package of environments is built", || {
            deb::build_environments(self.workspace)
        });
        if let Some(package) = package {
            // As above.
            let _ = built.send(package);
            patiently(|| {
                self.stages
                    .attempt("environments", || deb::check_environments(self.workspace))
            });
        }
    }

    fn compile_tests(&self) -> Option<Compiled> {
        let compiled = self
            .stages
            .attempt("tests are compiled", || programs::compile(self.workspace));
        self.stages.attempt("lints", || match &compiled {
            Some(Compiled { lints, .. }) if lints.is_empty() => Ok(()),
            Some(Compiled { lints, .. }) => bail!("warnings are errors here\n{lints}"),
            None => bail!("the code does not compile"),
        });
        compiled
    }

    fn check_code(&self) {
        let run = |words: &[&str]| check(&mut cargo(self.workspace, words));
        self.stages.attempt("format", || run(&FORMAT));
        self.stages
            .attempt("examples in documents", || run(&DOCUMENTS));
    }

    fn virtual_environments(&self) -> Option<runner::Environments> {
        self.stages.attempt("virtual environments", || {
            runner::environments(self.workspace)
        })
    }

    fn add_runner(&self, environments: Option<runner::Environments>, programs: &Path) {
        let Some(environments) = environments else {
            return;
        };
        // Each of its processes starts a Buildbot and waits for it.
        let slots = 2 * thread::available_parallelism().map_or(1, NonZero::get);
        let mut command = runner::command(self.workspace, &environments, slots, programs);
        if self.every {
            command.env("RUNNER_TEST_EVERY", "1");
        }
        command.env(
            "RUNNER_TEST_TIMINGS",
            self.workspace.join(timings::OF_RUNNER),
        );
        self.pool.add([Job {
            part: RUNNER,
            name: "against each Buildbot".to_owned(),
            usual: 200.0,
            slots,
            work: Box::new(|| programs::run(command)),
        }]);
    }

    fn add_units(&self, tests: Vec<Test>) {
        self.pool.add(
            tests
                .into_iter()
                .filter(|test| part(test) == UNITS)
                .map(|test| Job {
                    part: UNITS,
                    name: test.title(),
                    usual: 0.1,
                    slots: 2,
                    work: Box::new(move || test.run(|program| Command::new(program))),
                }),
        );
    }

    fn is_wanted(&self, test: &Test) -> bool {
        if test.name.starts_with(arm64::MODULE) {
            return false;
        }
        let Some((release, name)) = of_release(&test.name) else {
            return true;
        };
        let is_in_turn = !self.every && IN_TURN.contains(&test.program.name.as_str());
        self.releases.contains(&release) && (!is_in_turn || release == whose_turn(name))
    }

    /// Adds tests of machines and of the package. They run as root, with sudo if necessary: booting needs root,
    /// compiling does not.
    fn add_tests(&self, tests: Vec<Test>, package: &Path, environments: Option<&Path>) {
        let package = package.to_owned();
        // A test that is missing in the list above must not use an old one.
        let environments = environments
            .unwrap_or(Path::new("/not/built/yet"))
            .to_owned();
        self.pool.add(tests.into_iter().map(|test| {
            let (package, environments) = (package.clone(), environments.clone());
            let part = part(&test);
            Job {
                part,
                name: test.title(),
                usual: if part == MACHINES { 60.0 } else { 30.0 },
                // Machines wait for Buildbot more than they compute; dpkg does not.
                slots: if part == MACHINES { 1 } else { 2 },
                work: Box::new(move || {
                    test.run(|program| {
                        let mut command = prerequisites::as_root(program);
                        command
                            .env("BUILDBOT_CONDA_DEB", package)
                            .env("BUILDBOT_CONDA_ENV_DEB", environments);
                        command
                    })
                }),
            }
        }));
    }

    /// Prints what came of the tests and stages, and keeps the seconds.
    fn conclude(&self, timings: &Timings) -> Result<()> {
        for (part, outcome) in self.pool.outcomes() {
            let name = format!(
                "{part}: {} passed, {} failed, in parallel",
                outcome.passed, outcome.failed
            );
            self.stages.add(&name, outcome.sum, outcome.failed == 0);
        }
        for (name, took) in self.stages.took() {
            timings.keep("stage", &name, took);
        }
        timings.finish(self.workspace)?;
        self.stages.print()?;
        for failure in self.pool.failures() {
            eprintln!("FAILED  {failure}");
        }
        Ok(())
    }
}

/// What a thread of this module gives.
fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().expect("no stage panics")
}

/// Which part of the suite a test belongs to.
/// The release that a test is of, and its name without that.
fn of_release(name: &str) -> Option<(Release, &str)> {
    let mut parts = name.split("::");
    let release = parts.find_map(|part| part.parse().ok())?;
    Some((release, parts.last()?))
}

/// The release for a test that runs on only one of them: always the same, so that a failure is reproducible.
fn whose_turn(name: &str) -> Release {
    let sum: usize = name.bytes().map(usize::from).sum();
    Release::ALL[sum % Release::ALL.len()]
}

fn part(test: &Test) -> &'static str {
    match test.program.package.as_str() {
        MACHINES => MACHINES,
        PACKAGE => PACKAGE,
        _ => UNITS,
    }
}

/// Runs `work` and everything that it starts with the lowest priority for processors.
fn patiently<T>(work: impl FnOnce() -> T) -> T {
    // Of this thread, and so of what it starts: setpriority(2), "C library/kernel differences". In vain nothing is lost.
    if let Err(error) = setpriority_process(None, 10) {
        eprintln!("warning: lower the priority of a compilation: {error}");
    }
    work()
}

/// cargo in the workspace.
fn cargo(workspace: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace).args(words);
    command
}

/// Runs a command that shows its own output, and fails unless it succeeds.
fn check(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command
        .status()
        .with_context(|| format!("start `{name}`"))?;
    if !status.success() {
        bail!("run `{name}`: {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_takes_turns_has_one_release() {
        assert_eq!(
            of_release("trixie::a_name"),
            Some((Release::Trixie, "a_name"))
        );
        assert_eq!(of_release("tests::a_name"), None);
        assert_eq!(whose_turn("b"), Release::ALL[0]);
        assert_eq!(whose_turn("a"), Release::ALL[1]);
    }

    /// Otherwise, nobody would notice that a test is missing in the tables.
    #[test]
    fn what_a_table_promises_for_each_release_takes_no_turns() {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/machine/tests");
        for program in IN_TURN {
            let path = tests.join(program).with_extension("rs");
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let has_rows = text.contains(" fault(") || text.contains(" attack(");
            assert!(!has_rows, "{program}");
        }
    }

    /// `matrix` calls it only on the emulated machine, which has a separate command.
    #[test]
    fn a_test_that_calls_for_the_package_of_environments_waits_for_it() {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/machine/tests");
        for entry in std::fs::read_dir(tests).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap();
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            if text.contains("environments_package") && name != "matrix" {
                assert!(WITH_ENVIRONMENTS.contains(&name), "{name}");
            }
        }
    }
}
