//! `bench farm`: many workers of one host, as slots of one service and as separate services, on a booted machine: their
//! memory, the time until they return to a restarted master, the time of `doctor` and `list`, and whether the last
//! `create worker` of a loop takes as long as the first.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use buildbot_conda_machine::{Machine, installed};
use serde::{Deserialize, Serialize};

use super::FarmArguments;
use super::measure::{self, Figures, Series};
use crate::deb;

/// Maximum seconds from a restart until all are attached, and for `doctor`, on two cores.
const ATTACHED: f64 = 10.0;
const DOCTOR: f64 = 15.0;
/// Workers at the beginning of the loop, and at its end, that are compared.
const COMPARED: usize = 20;
/// Maximum duration of the last ones, compared with the first ones.
const GROWTH: f64 = 1.5;
/// For a loop over all of them.
const LIMIT: Duration = Duration::from_hours(2);

/// Run inside of the machine, with the number of workers and of runs; prints the seconds and the kilobytes as JSON.
const STOPWATCH: &str = r#"
import glob, json, subprocess, sys, time

count, runs = (int(word) for word in sys.argv[1:])

def call(*words, check=True):
    begin = time.monotonic()
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if check and done.returncode:
        sys.exit("%s: %s" % (" ".join(words), done.stdout[-2000:]))
    return time.monotonic() - begin

def connected(since):
    """Workers of this host that have been connected since then."""
    found = 0
    for path in glob.glob("/run/buildbot-conda/worker*/status.json"):
        try:
            with open(path) as file:
                worker = json.load(file).get("worker") or {}
        except (OSError, ValueError):
            continue
        if worker.get("connection") == "connected" and worker["since"] >= since:
            text = worker["message"].partition(" of ")
            found += int(text[0]) if text[0].isdigit() else 1
    return found

def attached(since):
    begin = time.monotonic()
    while connected(since) < count:
        if time.monotonic() - begin > 300:
            sys.exit("%d of %d workers are connected" % (connected(since), count))
        time.sleep(0.1)

def restart():
    since, begin = int(time.time()), time.monotonic()
    call("systemctl", "restart", "buildbot-master")
    attached(since)
    time.sleep(2)
    return time.monotonic() - begin - 2

def memory():
    """Of all workers, pages that processes share counted once."""
    total = 0
    units = "buildbot-worker.service", "buildbot-worker@*.service"
    text = subprocess.check_output(["systemctl", "show", "--property=MainPID", "--value", *units], text=True)
    for pid in text.split():
        if pid != "0":
            with open("/proc/%s/smaps_rollup" % pid) as file:
                total += next(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    return total

def processor():
    """Seconds that the machine has used so far, whatever else its host does."""
    for path in "/sys/fs/cgroup/cpu.stat", "/sys/fs/cgroup/unified/cpu.stat":
        try:
            with open(path) as file:
                return int(file.readline().split()[1]) / 1e6
        except OSError:
            pass
    sys.exit("the machine has no `cpu.stat`")

def measured():
    attached(0)
    time.sleep(2)
    before = processor()
    call("buildbot-conda", "doctor", check=False)
    used = processor() - before
    return {
        "memory": memory(),
        "processor": used,
        "restart": [restart() for _ in range(runs)],
        "doctor": [call("buildbot-conda", "doctor", check=False) for _ in range(runs)],
        "list": [call("buildbot-conda", "list") for _ in range(runs)],
    }

call("buildbot-conda", "create", "master")
result = {"create": []}
call("buildbot-conda", "create", "worker", "slots", "--slots", str(count))
result["slots"] = measured()
call("buildbot-conda", "remove", "worker@slots", "--data", "--yes")
for number in range(count):
    result["create"].append(call("buildbot-conda", "create", "worker", "w%d" % number))
result["units"] = measured()
print(json.dumps(result))
"#;

/// What the stopwatch prints.
#[derive(Deserialize)]
struct Measured {
    create: Vec<f64>,
    slots: Seen,
    units: Seen,
}

/// What was seen of all workers at once.
#[derive(Deserialize)]
struct Seen {
    /// Kilobytes.
    memory: u64,
    /// Processor time of `doctor` in seconds.
    processor: f64,
    restart: Vec<f64>,
    doctor: Vec<f64>,
    list: Vec<f64>,
}

#[derive(Serialize)]
struct Report {
    times: Vec<Figures>,
    limits: Vec<Limit>,
    memory: Memory,
    processor: Processor,
}

/// Processor time of `doctor` in seconds, which does not depend on the load of the machine.
#[derive(Serialize)]
struct Processor {
    slots: f64,
    units: f64,
}

/// An absolute time, without a comparison.
#[derive(Serialize)]
struct Limit {
    name: String,
    /// Median, in seconds.
    seconds: f64,
    /// Most that is wanted.
    wanted: f64,
}

/// Memory of all workers together, in kilobytes.
#[derive(Serialize)]
struct Memory {
    slots: u64,
    units: u64,
}

pub(super) fn run(workspace: &Path, arguments: &FarmArguments) -> Result<()> {
    // Another package can be measured the same way.
    if std::env::var_os("BUILDBOT_CONDA_DEB").is_none() {
        deb::build(workspace)?;
    }
    let machine = Machine::boot(installed(arguments.release)?)?;
    let python = format!("{}/bin/python", buildbot_conda_machine::PREFIX);
    let (count, runs) = (arguments.workers.to_string(), arguments.runs.to_string());
    let output = machine
        .run_within(LIMIT, &[&python, "-c", STOPWATCH, &count, &runs])?
        .succeeded()?;
    let last = output.text().lines().last().unwrap_or_default();
    let measured: Measured = serde_json::from_str(last).context("read the stopwatch")?;
    let report = Report::new(measured, arguments.workers);
    let text = if arguments.json {
        serde_json::to_string_pretty(&report).context("write JSON")? + "\n"
    } else {
        report.table()?
    };
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("write to standard output")
}

impl Report {
    fn new(measured: Measured, workers: usize) -> Self {
        let Measured {
            create,
            slots,
            units,
        } = measured;
        let compared = COMPARED.min(create.len() / 2).max(1);
        let first = create.iter().take(compared).copied().collect();
        let last = create.iter().rev().take(compared).copied().collect();
        let named = |name: String, seconds: Vec<f64>, against, wanted| Series {
            name,
            times: seconds.into_iter().map(Duration::from_secs_f64).collect(),
            against,
            wanted,
        };
        let of_slots = |what: &str| format!("{what}, {workers} slots");
        let of_units = |what: &str| format!("{what}, {workers} units");
        let attached = "restart of the master until all are attached";
        let times = measure::compare(vec![
            named(
                format!("create worker, the first {compared}"),
                first,
                None,
                None,
            ),
            named(
                format!("create worker, the last {compared} of {workers}"),
                last,
                Some(0),
                Some(GROWTH),
            ),
            named(of_slots(attached), slots.restart, None, None),
            named(of_units(attached), units.restart, Some(2), None),
            named(of_slots("doctor"), slots.doctor, None, None),
            named(of_units("doctor"), units.doctor, Some(4), None),
            named(of_slots("list"), slots.list, None, None),
            named(of_units("list"), units.list, Some(6), None),
        ]);
        let limits = [(2, ATTACHED), (5, DOCTOR)].map(|(place, wanted)| Limit {
            name: times[place].name.clone(),
            seconds: times[place].median / 1e3,
            wanted,
        });
        Self {
            times,
            limits: limits.into(),
            memory: Memory {
                slots: slots.memory,
                units: units.memory,
            },
            processor: Processor {
                slots: slots.processor,
                units: units.processor,
            },
        }
    }

    fn table(&self) -> Result<String> {
        let mut text = measure::table(&self.times);
        for Limit {
            name,
            seconds,
            wanted,
        } in &self.limits
        {
            write!(text, "\n{name}: {seconds:.1} s (wanted: at most {wanted})")?;
        }
        let Processor { slots, units } = self.processor;
        write!(
            text,
            "\nprocessor time of doctor: slots {slots:.1} s, units {units:.1} s"
        )?;
        let Memory { slots, units } = self.memory;
        writeln!(
            text,
            "\nmemory of all workers: slots {slots} kB, units {units} kB"
        )?;
        Ok(text)
    }
}
