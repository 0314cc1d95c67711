//! `bench cli`: the command where it is called often: `check` of a large configuration, `run` in
//! scripts, and `status --json` for monitoring, on a booted machine against systemd's own answer.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use buildbot_conda_machine::{Machine, PREFIX, set_up};
use serde::Serialize;

use super::CliArguments;
use super::launch::{self, Binaries};
use super::measure::{self, Contender, Figures, Series};
use crate::deb;

/// Instances of the configuration that is checked.
const CHECKED: usize = 1000;
/// How long its check may take, in milliseconds.
const CHECK_LIMIT: f64 = 50.0;
/// Instances whose state is asked for.
const ASKED: usize = 200;

/// Runs inside the machine: measures `status --json` and the `systemctl show` on which it is based, alternately, after
/// one run of each that warms the caches, and prints the seconds of both as JSON.
const STOPWATCH: &str = r#"
import json, os, subprocess, sys, time

count, runs = (int(word) for word in sys.argv[1:])
units = ["buildbot-worker@w%d.service" % number for number in range(count)]
for number in range(count):
    directory = "/run/buildbot-conda/worker@w%d" % number
    os.makedirs(directory, exist_ok=True)
    with open(directory + "/status.json", "w") as status:
        json.dump({"version": 1, "state": "running", "pid": 1, "message": "connected"}, status)
# Loaded for good, as units that run are.
subprocess.run(["systemctl", "enable", "--quiet", *units], check=True)
properties = ("Id,LoadState,ActiveState,SubState,Result,MainPID,MemoryCurrent,ExecMainStatus,StatusText,"
              "StateChangeTimestampMonotonic,ConditionResult,UnitFileState")
commands = [
    ["systemctl", "show", "--no-pager", "--timestamp=unix", "--property", properties, "--", *units],
    ["buildbot-conda", "status", "--json"],
]
rows = json.loads(subprocess.check_output(commands[1]))
assert len(rows) == count and all(row["enabled"] for row in rows), rows[:2]
times = [[], []]
for turn in range(runs + 1):
    for command, series in zip(commands, times):
        begin = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        if turn:
            series.append(time.monotonic() - begin)
print(json.dumps(times))
"#;

#[derive(Serialize)]
struct Report {
    times: Vec<Figures>,
    check: Limit,
}

/// An absolute time, without a comparison.
#[derive(Serialize)]
struct Limit {
    name: String,
    /// Median, in milliseconds.
    milliseconds: f64,
    /// Most that is wanted.
    wanted: f64,
}

pub(super) fn run(workspace: &Path, arguments: &CliArguments) -> Result<()> {
    let scratch = tempfile::tempdir().context("create a scratch directory")?;
    let binaries = Binaries::build(workspace, scratch.path())?;
    let small = launch::host(&scratch.path().join("small"), false)?;
    let large = launch::generator_host(&scratch.path().join("large"), CHECKED)?;
    let mut check = Command::new(&binaries.cli);
    check.arg("--root").arg(large).arg("check");
    let contenders = vec![
        Contender {
            name: "env -i VAR=... true".to_owned(),
            command: launch::bare_exec(&binaries.launcher, &small)?,
            against: None,
            wanted: None,
        },
        Contender {
            name: "buildbot-conda run -- true".to_owned(),
            command: launch::cli_run(&binaries.cli, &small),
            against: Some(0),
            wanted: Some(2.5),
        },
        Contender {
            name: format!("buildbot-conda check, {CHECKED} instances"),
            command: check,
            against: None,
            wanted: None,
        },
    ];
    let mut times = measure::compete(contenders, arguments.runs)?;
    let checked = times.last().context("find the figures of `check`")?;
    let check = Limit {
        name: checked.name.clone(),
        milliseconds: checked.median,
        wanted: CHECK_LIMIT,
    };
    if !arguments.without_machine {
        times.extend(status(workspace, arguments)?);
    }
    let report = Report { times, check };
    let text = if arguments.json {
        serde_json::to_string_pretty(&report).context("write JSON")? + "\n"
    } else {
        report.table()?
    };
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("write to standard output")
}

/// `status --json` on a booted machine.
fn status(workspace: &Path, arguments: &CliArguments) -> Result<Vec<Figures>> {
    deb::build(workspace)?;
    let machine = Machine::boot(set_up(arguments.release)?)?;
    let mut text = String::new();
    for number in 0..ASKED {
        write!(text, "['worker@w{number}']\ndirectory = '/srv/w{number}'\n")?;
    }
    machine.write_file("/etc/buildbot-conda/config.toml", &text, "0644", "root")?;
    machine.run(&["systemctl", "daemon-reload"])?.succeeded()?;
    let python = format!("{PREFIX}/bin/python");
    let (count, runs) = (ASKED.to_string(), arguments.runs.to_string());
    let limit = Duration::from_mins(10);
    let output = machine
        .run_within(limit, &[&python, "-c", STOPWATCH, &count, &runs])?
        .succeeded()?;
    let [show, status]: [Vec<f64>; 2] =
        serde_json::from_str(output.text().trim()).context("read the stopwatch")?;
    let series = |name: &str, seconds: Vec<f64>, against, wanted| Series {
        name: format!("{name}, {ASKED} instances"),
        times: seconds.into_iter().map(Duration::from_secs_f64).collect(),
        against,
        wanted,
    };
    Ok(measure::compare(vec![
        series("systemctl show", show, None, None),
        series("buildbot-conda status --json", status, Some(0), Some(1.5)),
    ]))
}

impl Report {
    fn table(&self) -> Result<String> {
        let mut text = measure::table(&self.times);
        let Limit {
            name,
            milliseconds,
            wanted,
        } = &self.check;
        writeln!(
            text,
            "\n{name}: {milliseconds:.3} ms (wanted: at most {wanted})"
        )?;
        Ok(text)
    }
}
