//! systemd, through `systemctl`. A missing answer is an error: a unit runs or does not run only if systemd has reported
//! so.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, anyhow, bail};
use buildbot_conda_core::foreign_text::ForeignText;
use buildbot_conda_core::names::InstanceRef;

use super::context::Context;

/// The properties asked for, in the words of `org.freedesktop.systemd1(5)`.
const PROPERTIES: &str = "Id,LoadState,ActiveState,SubState,Result,MainPID,MemoryCurrent,\
                          ExecMainStatus,StatusText,ActiveEnterTimestampMonotonic,StateChangeTimestampMonotonic,ConditionResult,\
                          ConditionTimestampMonotonic,UnitFileState,NRestarts,MemoryMax";

/// Whether systemd runs this system, as `sd_booted(3)` finds out.
pub(crate) fn is_booted() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Whether there is a systemd to ask about the host that is looked at.
pub(crate) fn runs(context: &Context) -> bool {
    !context.is_elsewhere() && is_booted()
}

/// Runs `systemctl` to its successful end, and gives what it prints.
///
/// # Errors
///
/// When it cannot be run or fails, with its own words.
pub(crate) fn systemctl(words: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("systemctl")
        .args(words)
        .stdin(Stdio::null())
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC")
        .output()
        .map_err(|error| not_run("systemctl", error))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = ForeignText::lines_of(output.stderr.trim_ascii());
    let said: Vec<&str> = said.iter().map(ForeignText::as_str).collect();
    let reason = if said.is_empty() {
        output.status.to_string()
    } else {
        said.join("\n")
    };
    bail!("`{}` failed: {reason}", shown(words))
}

/// Why a program of systemd was not run: usually because there is no systemd, as in a container.
pub(crate) fn not_run(program: &str, error: std::io::Error) -> anyhow::Error {
    if error.kind() == std::io::ErrorKind::NotFound {
        return anyhow!(
            "run `{program}`: not installed, it is needed to manage services\n\
             hint: install the package `systemd`, or run this command on the host of the services"
        );
    }
    anyhow::Error::new(error).context(format!("run `{program}`"))
}

/// The command for people: without options that are always there, and of a long list of units the first alone.
fn shown(words: &[&str]) -> String {
    let verb = words.iter().take(1);
    let mut units = words.iter().skip_while(|word| **word != "--").skip(1);
    let first = units.next();
    let more = units.next().map(|_| &"...");
    let words: Vec<&str> = verb.chain(first).chain(more).copied().collect();
    format!("systemctl {}", words.join(" "))
}

/// Whether a unit has processes, or will have.
///
/// # Errors
///
/// If systemd does not report it.
pub(crate) fn is_running(unit: &str) -> anyhow::Result<bool> {
    one(unit, "Id,ActiveState")?.is_running()
}

/// One unit, with properties of which the first is `Id`.
///
/// # Errors
///
/// If systemd does not report it.
pub(crate) fn one(unit: &str, properties: &str) -> anyhow::Result<Unit> {
    let mut units = ask(&[unit.to_owned()], properties)?;
    units
        .pop_first()
        .map(|(_, found)| found)
        .with_context(|| format!("systemd returned no state of `{unit}`"))
}

/// Units that match a pattern and have processes, in systemd's order.
pub(crate) fn running_units(pattern: &str) -> anyhow::Result<Vec<String>> {
    let text = systemctl(&[
        "list-units",
        "--plain",
        "--no-legend",
        "--full",
        "--state=active,activating,reloading,deactivating",
        "--",
        pattern,
    ])?;
    let names = text
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    Ok(names.map(str::to_owned).collect())
}

/// Makes systemd reload its units and the configuration.
pub(crate) fn daemon_reload() -> anyhow::Result<()> {
    systemctl(&["daemon-reload"]).map(drop)
}

/// Makes systemd stop a unit, and returns when that is done.
pub(crate) fn stop(unit: &str) -> anyhow::Result<()> {
    systemctl(&["stop", "--", unit]).map(drop)
}

/// One unit as systemd sees it. A property that systemd did not print is empty.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unit(BTreeMap<String, String>);

impl Unit {
    /// A property's text.
    pub(crate) fn property(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// `active`, `failed`, `activating`, ...; `masked`.
    pub(crate) fn state(&self) -> &str {
        match self.property("ActiveState") {
            "" => "unknown",
            "inactive" if self.property("LoadState") == "masked" => "masked",
            state => state,
        }
    }

    /// Whether its last start was skipped, as a condition of the unit did not hold. The time of its last change of state
    /// does not show that: it is 0 for a unit that was only ever skipped.
    pub(crate) fn was_skipped(&self) -> bool {
        let checked = self.property("ConditionTimestampMonotonic");
        self.property("ActiveState") == "inactive"
            && self.property("ConditionResult") == "no"
            && !matches!(checked, "" | "0")
    }

    /// Whether it has processes, or will have some.
    ///
    /// # Errors
    ///
    /// If systemd does not report it.
    pub(crate) fn is_running(&self) -> anyhow::Result<bool> {
        match self.property("ActiveState") {
            "inactive" | "failed" => Ok(false),
            "active" | "activating" | "deactivating" | "maintenance" | "refreshing"
            | "reloading" => Ok(true),
            other => bail!(
                "unknown state of `{}`: `{}`",
                self.property("Id"),
                ForeignText::new(other)
            ),
        }
    }

    /// Whether it is started at boot, for words of `systemctl is-enabled`.
    pub(crate) fn enabled(&self) -> Option<bool> {
        match self.property("UnitFileState") {
            "" => None,
            state => Some(matches!(state, "enabled" | "enabled-runtime")),
        }
    }

    /// The exit status of a start that failed in systemd's own setup, before our program was reached. The next start
    /// may succeed.
    pub(crate) fn failed_set_up(&self) -> Option<u32> {
        let status = self.property("ExecMainStatus").parse().ok()?;
        let is_waiting = self.property("SubState").starts_with("auto-restart");
        let has_failed = self.property("ActiveState") == "failed" || is_waiting;
        (has_failed && (200..=245).contains(&status)).then_some(status)
    }

    /// The main process, if there is one.
    pub(crate) fn main_pid(&self) -> Option<u32> {
        self.property("MainPID")
            .parse()
            .ok()
            .filter(|pid| *pid != 0)
    }

    /// Memory of the control group in bytes, when systemd accounts for it.
    pub(crate) fn memory(&self) -> Option<u64> {
        self.number("MemoryCurrent")
    }

    /// What that cannot exceed, when there is a limit.
    pub(crate) fn memory_max(&self) -> Option<u64> {
        self.number("MemoryMax")
    }

    /// How often systemd has restarted it since it was last started by a person.
    pub(crate) fn restarts(&self) -> Option<u64> {
        self.number("NRestarts")
    }

    fn number(&self, property: &str) -> Option<u64> {
        // `[not set]`, `infinity` and 2^64-1 all mean that there is no value.
        let number = self.property(property).parse().ok();
        number.filter(|number| *number != u64::MAX)
    }

    /// Time since start-up of the machine at which the unit came into its state; a reload changes nothing about it.
    pub(crate) fn since(&self) -> Option<Duration> {
        let entered = match self.property("ActiveState") {
            "active" | "reloading" => self.property("ActiveEnterTimestampMonotonic"),
            _ => "",
        };
        let changed = self.property("StateChangeTimestampMonotonic");
        let microseconds = entered.parse().or_else(|_| changed.parse()).ok()?;
        (microseconds != 0).then(|| Duration::from_micros(microseconds))
    }

    /// When the main process was started; systemd prints `Sun 2026-11-29 16:14:11 UTC`.
    pub(crate) fn main_process_started(&self) -> Option<SystemTime> {
        let mut words = self.property("ExecMainStartTimestamp").split(' ');
        let (_weekday, day, time) = (words.next()?, words.next()?, words.next()?);
        (words.next() == Some("UTC"))
            .then(|| humantime::parse_rfc3339_weak(&format!("{day} {time}")).ok())?
    }
}

/// Asks systemd about the units of `references`; the result also contains unknown units, with the `LoadState`
/// `not-found`.
pub(crate) fn query<'r>(
    references: impl Iterator<Item = &'r InstanceRef>,
) -> anyhow::Result<BTreeMap<String, Unit>> {
    let names: Vec<String> = references.map(InstanceRef::unit_name).collect();
    ask(&names, PROPERTIES)
}

/// Asks systemd for some properties of units, by their names. Times are in UTC and in the words of systemd, as
/// `--timestamp=unix` needs 251.
pub(crate) fn ask(names: &[String], properties: &str) -> anyhow::Result<BTreeMap<String, Unit>> {
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut words = vec!["show", "--no-pager", "--property", properties, "--"];
    words.extend(names.iter().map(String::as_str));
    Ok(parse(&systemctl(&words)?))
}

/// Blocks of `Name=value` lines, one block for each unit, separated by empty lines.
fn parse(text: &str) -> BTreeMap<String, Unit> {
    text.split("\n\n")
        .map(|block| {
            let properties = block.lines().filter_map(|line| line.split_once('='));
            Unit(
                properties
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .collect(),
            )
        })
        .filter(|unit| !unit.property("Id").is_empty())
        .map(|unit| (unit.property("Id").to_owned(), unit))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_systemctl_become_units() {
        let units = parse(
            "Id=a.service\nActiveState=active\nActiveEnterTimestampMonotonic=1000000\n\
             StateChangeTimestampMonotonic=9000000\nMainPID=7\nMemoryCurrent=[not set]\n\
             StatusText=x=y\n\nId=b.service\nActiveState=inactive\nMainPID=0\n\
             ConditionResult=no\nConditionTimestampMonotonic=7\nStateChangeTimestampMonotonic=1500000\n\
             UnitFileState=disabled\nExecMainStartTimestamp=\n\n\
             Id=c.service\nUnitFileState=enabled\n\
             ExecMainStartTimestamp=Sun 2026-11-29 16:14:11 UTC\n",
        );
        let a = &units["a.service"];
        assert_eq!(
            (a.state(), a.main_pid(), a.memory()),
            ("active", Some(7), None)
        );
        assert_eq!(a.property("StatusText"), "x=y");
        assert_eq!(a.since(), Some(Duration::from_secs(1)));
        let b = &units["b.service"];
        assert_eq!((b.state(), b.main_pid()), ("inactive", None));
        let skipped = ["a.service", "b.service", "c.service"].map(|name| units[name].was_skipped());
        assert_eq!(skipped, [false, true, false]);
        assert_eq!(b.since(), Some(Duration::from_millis(1500)));
        let enabled = ["a.service", "b.service", "c.service"].map(|name| units[name].enabled());
        assert_eq!(enabled, [None, Some(false), Some(true)]);
        assert_eq!(b.main_process_started(), None);
        let started = units["c.service"].main_process_started();
        let expected = std::time::UNIX_EPOCH + Duration::from_secs(1_795_968_851);
        assert_eq!(started, Some(expected));
    }
    #[test]
    fn a_unit_runs_or_not_only_when_systemd_has_said_so() {
        let state = |text: &str| {
            let units = parse(&format!("Id=a.service\n{text}\n"));
            units["a.service"]
                .is_running()
                .map_err(|error| error.to_string())
        };
        for running in ["active", "activating", "deactivating", "reloading"] {
            assert_eq!(state(&format!("ActiveState={running}")), Ok(true));
        }
        assert_eq!(state("ActiveState=inactive"), Ok(false));
        assert_eq!(state("ActiveState=failed"), Ok(false));
        for silence in ["", "ActiveState=", "ActiveState=\u{1b}[31m"] {
            assert!(state(silence).is_err(), "{silence:?}");
        }
    }
}
