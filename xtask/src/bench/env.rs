//! `bench env`: measures the creation of an environment for Buildbot from a local channel, on this host and its disk.
//!
//! A cold creation is compared with py-rattler in the same run: its `install` of the same packages into an empty prefix
//! from an empty cache, and then Python's own `compileall` with all processors, without the time for starting its
//! interpreter and solving. For ours, the whole command is measured, which also verifies every archive and syncs
//! everything to disk. In the comparison without compilation, ours uses the bytecode of an earlier run, and py-rattler
//! skips it.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use buildbot_conda_machine::{Channel, Version, python_with_rattler};
use serde::Serialize;

use super::EnvArguments;
use super::measure::{self, Figures, Series};
use crate::deb;

/// How much longer a cold creation may take than py-rattler's.
const COLD: f64 = 1.3;
/// How long a creation from a warm cache may take, in milliseconds.
const WARM: f64 = 500.0;
/// How long an update without changes may take, in milliseconds.
const UNCHANGED: f64 = 100.0;
/// Bytes that the package may have.
const SIZE: u64 = 8_000_000;

/// Arguments: channel, lock, prefix, cache. Prints the seconds of `install` and of `compileall`.
const PEER: &str = r##"
import asyncio, pathlib, subprocess, sys, time
from rattler import Channel, MatchSpec, VirtualPackage, install, solve

channel, lock, prefix, cache = sys.argv[1:]
names = [line.split("#")[0].rsplit("/", 1)[1] for line in open(lock) if "://" in line]
parts = [name.removesuffix(".conda").rsplit("-", 2) for name in names]
specs = [MatchSpec("%s==%s=%s" % tuple(part)) for part in parts]

async def main():
    records = await solve([Channel(channel)], specs, platforms=["linux-64", "noarch"],
                          virtual_packages=VirtualPackage.detect())
    assert len(records) == len(names), (len(records), len(names))
    begin = time.monotonic()
    await install(records, target_prefix=prefix, cache_dir=pathlib.Path(cache), show_progress=False)
    return time.monotonic() - begin

installed = asyncio.run(main())
begin = time.monotonic()
command = [prefix + "/bin/python", "-m", "compileall", "-q", "-j0", prefix + "/lib"]
# Some packages carry templates that are no valid Python.
subprocess.run(command, stdout=subprocess.DEVNULL)
print(installed, time.monotonic() - begin)
"##;

#[derive(Serialize)]
struct Report {
    times: Vec<Figures>,
    limits: Vec<Limit>,
}

/// An absolute figure.
#[derive(Serialize)]
struct Limit {
    name: &'static str,
    /// Median, in milliseconds, or a size in bytes.
    value: f64,
    wanted: f64,
}

/// A directory that represents a host, with both packages in it.
struct Host {
    scratch: tempfile::TempDir,
    lock: PathBuf,
}

pub(super) fn run(workspace: &Path, arguments: &EnvArguments) -> Result<()> {
    let package = deb::build_environments(workspace)?;
    let main = deb::build(workspace)?;
    // Not in /tmp, which may be memory.
    let scratch = tempfile::tempdir_in(workspace.join("target")).context("make a directory")?;
    let channel = Channel::made()?;
    let at = channel.directory().to_str().context("read a path")?;
    let lock = scratch.path().join("lock.txt");
    fs::write(&lock, channel.lock(Version::V4_3_0, at)?).context("write a lock")?;
    for package in [&main, &package] {
        deb::run_on_stderr(
            Command::new("dpkg-deb")
                .arg("--extract")
                .arg(package)
                .arg(scratch.path().join("root")),
        )?;
    }
    let host = Host { scratch, lock };
    let python = python_with_rattler()?;

    let mut times: [Vec<Duration>; 6] = Default::default();
    // The first round has the packages of the channel in memory.
    for round in 0..=arguments.runs {
        let (installed, compiled) = host.peer(&python, at)?;
        host.forget(&["var"])?;
        let cold = host.env("create")?;
        host.forget(&[
            "var/lib",
            "var/cache/buildbot-conda/pkgs",
            "var/cache/buildbot-conda/archives",
        ])?;
        let without = host.env("create")?;
        host.forget(&["var/lib"])?;
        let warm = host.env("create")?;
        let unchanged = host.env("update")?;
        let taken = [
            installed + compiled,
            cold,
            installed,
            without,
            warm,
            unchanged,
        ];
        if round > 0 {
            for (times, taken) in times.iter_mut().zip(taken) {
                times.push(taken);
            }
        }
    }
    let names = [
        ("py-rattler install, compileall", None),
        ("env create, cold", Some((0, Some(COLD)))),
        ("py-rattler install", None),
        ("env create, cold, bytecode known", Some((2, None))),
        ("env create, warm", None),
        ("env update, no change", None),
    ];
    let series = names
        .into_iter()
        .zip(times)
        .map(|((name, against), times)| Series {
            name: name.to_owned(),
            times,
            against: against.map(|(other, _)| other),
            wanted: against.and_then(|(_, wanted)| wanted),
        });
    let times = measure::compare(series.collect());
    let size = fs::metadata(&package).context("examine the package")?.len();
    #[expect(clippy::cast_precision_loss, reason = "some million bytes")]
    let bytes = |size: u64| size as f64;
    let limits = vec![
        limit("env create, warm, milliseconds", times[4].median, WARM),
        limit(
            "env update, no change, milliseconds",
            times[5].median,
            UNCHANGED,
        ),
        limit("buildbot-conda-env .deb, bytes", bytes(size), bytes(SIZE)),
    ];
    let report = Report { times, limits };
    let text = if arguments.json {
        serde_json::to_string_pretty(&report).context("write JSON")? + "\n"
    } else {
        report.table()?
    };
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("write to standard output")
}

fn limit(name: &'static str, value: f64, wanted: f64) -> Limit {
    Limit {
        name,
        value,
        wanted,
    }
}

impl Host {
    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// The whole command.
    fn env(&self, verb: &str) -> Result<Duration> {
        let begin = Instant::now();
        let output = Command::new(self.path("root/usr/bin/buildbot-conda"))
            .arg("--root")
            .arg(self.path("root"))
            .args(["env", verb, "buildbot", "--file"])
            .arg(&self.lock)
            .stdin(Stdio::null())
            .output();
        let taken = begin.elapsed();
        let output = output.context("run `buildbot-conda env`")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`env {verb}` failed: {said}");
        Ok(taken)
    }

    /// py-rattler's `install`, and Python's `compileall` after it.
    fn peer(&self, python: &Path, channel: &str) -> Result<(Duration, Duration)> {
        let (prefix, cache) = (self.path("prefix"), self.path("cache"));
        let line = deb::output(
            Command::new(python)
                .args(["-c", PEER, channel])
                .args([&self.lock, &prefix, &cache]),
        )?;
        let seconds: Vec<f64> = line
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()
            .context("read the stopwatch")?;
        let [installed, compiled] = seconds[..] else {
            anyhow::bail!("unexpected output of the stopwatch: `{line}`");
        };
        for directory in [prefix, cache] {
            fs::remove_dir_all(&directory).context("remove an environment")?;
        }
        settle()?;
        let duration = Duration::from_secs_f64;
        Ok((duration(installed), duration(compiled)))
    }

    /// Removes directories of the host, and lets the disk come to rest.
    fn forget(&self, names: &[&str]) -> Result<()> {
        for name in names {
            let directory = self.path("root").join(name);
            if directory.exists() {
                fs::remove_dir_all(&directory)
                    .with_context(|| format!("remove `{}`", directory.display()))?;
            }
        }
        settle()
    }
}

/// Data that others wrote must not be synced during a measurement.
fn settle() -> Result<()> {
    deb::run_on_stderr(&mut Command::new("sync"))
}

impl Report {
    fn table(&self) -> Result<String> {
        let mut text = measure::table(&self.times) + "\n";
        for Limit {
            name,
            value,
            wanted,
        } in &self.limits
        {
            writeln!(text, "{name}: {value:.0} (wanted: at most {wanted})")?;
        }
        Ok(text)
    }
}
