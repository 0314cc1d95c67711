//! `bench start`: how long a start takes until Buildbot serves, and how much memory it uses, compared with a
//! hand-written unit, alternately on one booted machine.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use buildbot_conda_machine::{MASTER, Machine, PREFIX, WORKER, set_up};
use serde::Serialize;

use super::StartArguments;
use super::measure::{self, Figures, Series};
use crate::deb;

/// Runs inside the machine: starts a unit, queries Buildbot's web API until it serves or, for a worker, is attached,
/// and prints the seconds and the resident kilobytes of the main process.
const STOPWATCH: &str = r#"
import json, subprocess, sys, time, urllib.request

unit, role = sys.argv[1:]
path = {"master": "masters", "worker": "workers"}[role]

def serving():
    try:
        with urllib.request.urlopen("http://127.0.0.1:8010/api/v2/" + path, timeout=2) as answer:
            found = json.load(answer)[path]
    except (OSError, ValueError):
        return False
    return any(one.get("active") or one.get("connected_to") for one in found)

while role == "worker" and serving():
    time.sleep(0.05)
begin = time.monotonic()
subprocess.run(["systemctl", "start", "--no-block", unit], check=True)
while not serving():
    if time.monotonic() - begin > 60:
        sys.exit(unit + " does not serve")
    time.sleep(0.01)
seconds = time.monotonic() - begin
time.sleep(2)
show = ["systemctl", "show", "--property=MainPID", "--value", unit]
pid = subprocess.run(show, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
with open("/proc/%s/status" % pid) as status:
    resident = next(line.split()[1] for line in status if line.startswith("VmRSS:"))
print(seconds, resident)
"#;

#[derive(Serialize)]
struct Report {
    times: Vec<Figures>,
    memory: Vec<Memory>,
}

/// Resident memory of a main process, two seconds after it serves.
#[derive(Serialize)]
struct Memory {
    role: &'static str,
    /// Medians, in kilobytes.
    ours: u64,
    plain: u64,
}

pub(super) fn run(workspace: &Path, arguments: &StartArguments) -> Result<()> {
    deb::build(workspace)?;
    let machine = Machine::boot(set_up(arguments.release)?)?;
    for (role, program, directory) in [
        ("master", "buildbot", MASTER),
        ("worker", "buildbot-worker", WORKER),
    ] {
        let unit = format!(
            "[Service]\nUser=bb\nEnvironment=LANG=C.UTF-8 PATH={PREFIX}/bin:/usr/bin:/bin\n\
             ExecStart={PREFIX}/bin/{program} start --nodaemon {directory}\n"
        );
        machine.write_file(
            &format!("/etc/systemd/system/plain-{role}.service"),
            &unit,
            "0644",
            "root",
        )?;
    }
    machine.run(&["systemctl", "daemon-reload"])?.succeeded()?;
    let mut times = Vec::new();
    let mut memory = Vec::new();
    for role in ["master", "worker"] {
        if role == "worker" {
            machine
                .run(&["systemctl", "start", "buildbot-master"])?
                .succeeded()?;
        }
        let (series, kilobytes) = compete(&machine, role, arguments.runs)?;
        times.push(series);
        memory.push(kilobytes);
    }
    let report = Report {
        times: times.into_iter().flat_map(measure::compare).collect(),
        memory,
    };
    let text = if arguments.json {
        serde_json::to_string_pretty(&report).context("write JSON")? + "\n"
    } else {
        report.table()?
    };
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("write to standard output")
}

/// Starts and stops both units of a role in turn, after one start of each that warms the caches.
fn compete(machine: &Machine, role: &'static str, runs: usize) -> Result<(Vec<Series>, Memory)> {
    let units = [format!("plain-{role}"), format!("buildbot-{role}")];
    let mut times = [Vec::new(), Vec::new()];
    let mut resident = [Vec::new(), Vec::new()];
    for round in 0..=runs {
        for (index, unit) in units.iter().enumerate() {
            let (time, kilobytes) = once(machine, unit, role)?;
            if round > 0 {
                times[index].push(time);
                resident[index].push(kilobytes);
            }
        }
    }
    let [plain, ours] = times;
    let series = vec![
        Series {
            name: format!("{role}: plain unit"),
            times: plain,
            against: None,
            wanted: None,
        },
        Series {
            name: format!("{role}: ours"),
            times: ours,
            against: Some(0),
            wanted: Some(0.8),
        },
    ];
    let [plain, ours] = resident.map(|mut kilobytes| {
        kilobytes.sort_unstable();
        kilobytes
            .get(kilobytes.len() / 2)
            .copied()
            .unwrap_or_default()
    });
    Ok((series, Memory { role, ours, plain }))
}

fn once(machine: &Machine, unit: &str, role: &str) -> Result<(Duration, u64)> {
    let python = format!("{PREFIX}/bin/python");
    let output = machine
        .run(&[&python, "-c", STOPWATCH, unit, role])?
        .succeeded()?;
    machine.run(&["systemctl", "stop", unit])?.succeeded()?;
    let mut words = output.text().split_whitespace();
    let mut word = || {
        words
            .next()
            .with_context(|| format!("unexpected output of the stopwatch: `{}`", output.text()))
    };
    let seconds: f64 = word()?.parse().context("read the seconds")?;
    let kilobytes = word()?.parse().context("read the kilobytes")?;
    Ok((Duration::from_secs_f64(seconds), kilobytes))
}

impl Report {
    fn table(&self) -> Result<String> {
        let mut text = measure::table(&self.times);
        for Memory { role, ours, plain } in &self.memory {
            write!(
                text,
                "\n{role}, resident: ours {ours} kB, plain {plain} kB (wanted: at most 2048 kB more)"
            )?;
        }
        Ok(text + "\n")
    }
}
