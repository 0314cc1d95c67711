//! The Buildbots of units that are not ours: they are identified by where they run and which files they have open, not
//! by their command line. `buildbot start`, `restart`, `twistd` and `python -m` all result in a Python process that
//! works in its base directory, or has the log or the database there open.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use buildbot_conda_core::names::{Role, Unit};
use rustix::process::{Pid, PidfdFlags, Signal};

use super::accounts;
use super::context::Context;
use super::main_process::ends_within;
use super::systemd;

/// Bytes of a process's environment that are read.
const LARGEST: u64 = 1 << 20;
/// Open files of a process that are looked at.
const MOST_FILES: usize = 65536;
/// Bit of a signal in the masks of `/proc/PID/status`, proc(5).
const USR1_BIT: u64 = 1 << 9;

/// A process that is a Buildbot, held by a descriptor: the number is not used again while it is open.
#[derive(Debug)]
pub(crate) struct Buildbot {
    pub(crate) pid: u32,
    process: OwnedFd,
    /// Where its `buildbot.tac` is.
    pub(crate) directory: PathBuf,
    /// It has files of Buildbot open, or handles a master's signal.
    is_certain: bool,
    /// The path of its control group.
    group: String,
}

/// Facts about a process from proc(5).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) pid: u32,
    pub(crate) directory: PathBuf,
    /// The program file without links.
    pub(crate) program: PathBuf,
    /// The variables that it was started with.
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) umask: u32,
    pub(crate) uid: u32,
    /// The name of its account; empty when it has none.
    pub(crate) user: String,
    pub(crate) nice: i32,
}

/// The Buildbots of a running unit; none of them is a child of another one.
///
/// # Errors
///
/// If systemd does not report the unit.
pub(crate) fn of_unit(unit: &str) -> anyhow::Result<Vec<Buildbot>> {
    let found = systemd::one(unit, "Id,ControlGroup,MainPID")?;
    let group = found.property("ControlGroup");
    let list = fs::read_to_string(format!("/sys/fs/cgroup{group}/cgroup.procs"));
    // Without a group nothing runs; on an old hierarchy there is the main process at least.
    let list = match list {
        Ok(list) if !group.is_empty() => list,
        _ => found.property("MainPID").to_owned(),
    };
    let numbers = list.lines().filter_map(|line| line.trim().parse().ok());
    let mut buildbots: Vec<Buildbot> = numbers.filter_map(Buildbot::find).collect();
    // A Python that only works in such a directory may be `conda run`, or a step.
    if buildbots.iter().any(|found| found.is_certain) {
        buildbots.retain(|found| found.is_certain);
    }
    Ok(without_children(buildbots))
}

/// The Buildbots of the host that run neither by one of `units` nor by one of ours. What `su` starts is moved by PAM from
/// the unit to the scope of a session; cron, `screen` and `tmux` start them as well.
pub(crate) fn outside(units: &[String]) -> Vec<Buildbot> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_of_unit = |found: &Buildbot| {
        let mut groups = found.group.split('/');
        groups.any(|name| units.iter().any(|unit| unit == name) || name.parse::<Unit>().is_ok())
    };
    let found = numbers
        .filter_map(Buildbot::find)
        .filter(|found| found.is_certain && !is_of_unit(found));
    without_children(found.collect())
}

fn without_children(mut buildbots: Vec<Buildbot>) -> Vec<Buildbot> {
    let all: Vec<u32> = buildbots.iter().map(|found| found.pid).collect();
    buildbots.retain(|found| !ancestors(found.pid).iter().any(|pid| all.contains(pid)));
    buildbots
}

impl Buildbot {
    fn find(pid: u32) -> Option<Self> {
        let number = Pid::from_raw(i32::try_from(pid).ok()?)?;
        let process = rustix::process::pidfd_open(number, PidfdFlags::empty()).ok()?;
        let program = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        let is_python = program.file_name()?.to_str()?.starts_with("python");
        let (directory, has_files) = is_python.then(|| base_directory(pid))??;
        Some(Self {
            pid,
            process,
            directory,
            is_certain: has_files || takes_usr1(pid),
            group: fs::read_to_string(format!("/proc/{pid}/cgroup"))
                .map_or_else(|_| String::new(), |text| group_in(&text).to_owned()),
        })
    }

    /// Whether it is a master: it has a handler for USR1, and nothing is killed by it.
    pub(crate) fn is_master(&self) -> bool {
        takes_usr1(self.pid)
    }

    /// What it is, by the signals that it takes.
    pub(crate) fn role(&self) -> Role {
        if self.is_master() {
            Role::Master
        } else {
            Role::Worker
        }
    }

    /// The unit or scope of systemd that it runs in.
    pub(crate) fn scope(&self) -> &str {
        let is_unit = |name: &&str| {
            let kind = name.rsplit_once('.').map(|(_, kind)| kind);
            kind.is_some_and(|kind| ["service", "scope"].contains(&kind))
        };
        self.group.rsplit('/').find(is_unit).unwrap_or("/")
    }

    /// Waits until it has ended, at most `limit`; whether it has.
    pub(crate) fn ends_within(&self, limit: Duration) -> bool {
        ends_within(&self.process, limit)
    }

    /// Whether the signal was sent.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        rustix::process::pidfd_send_signal(&self.process, signal).is_ok()
    }

    /// Facts about the process; none if it has exited.
    pub(crate) fn facts(&self) -> Option<Facts> {
        let pid = self.pid;
        let number = |text: Option<String>, radix| {
            u32::from_str_radix(text?.split_whitespace().next()?, radix).ok()
        };
        let mut bytes = Vec::new();
        let file = fs::File::open(format!("/proc/{pid}/environ")).ok()?;
        file.take(LARGEST).read_to_end(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let variables = text.split('\0').filter_map(|line| line.split_once('='));
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in brackets may have anything in it; the nice value is the 19th field.
        let (_, fields) = stat.rsplit_once(')')?;
        let uid = number(status_line(pid, "Uid:"), 10)?;
        let user = accounts::name_of_user(uid, &Context::default());
        Some(Facts {
            pid,
            directory: self.directory.clone(),
            program: fs::read_link(format!("/proc/{pid}/exe")).ok()?,
            environment: variables
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            umask: number(status_line(pid, "Umask:"), 8)?,
            uid,
            user: user.ok().flatten().unwrap_or_default(),
            nice: fields.split_whitespace().nth(16)?.parse().ok()?,
        })
    }
}

/// Where a process has its `buildbot.tac`: next to one of its open files, which is returned as well, or in its working
/// directory.
fn base_directory(pid: u32) -> Option<(PathBuf, bool)> {
    let has_tac = |directory: &Path| directory.join("buildbot.tac").exists();
    let open = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten();
    let files = open.flatten().take(MOST_FILES);
    let beside = files
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| ["twistd.log", "state.sqlite", "http.log"].contains(&name))
        })
        .find_map(|path| Some(path.parent().filter(|parent| has_tac(parent))?.to_owned()));
    if let Some(directory) = beside {
        return Some((directory, true));
    }
    let current = fs::read_link(format!("/proc/{pid}/cwd")).ok();
    Some((current.filter(|path| has_tac(path))?, false))
}

fn takes_usr1(pid: u32) -> bool {
    let mask = status_line(pid, "SigCgt:");
    let mask = mask.and_then(|text| u64::from_str_radix(&text, 16).ok());
    mask.is_some_and(|mask| mask & USR1_BIT != 0)
}

fn ancestors(pid: u32) -> Vec<u32> {
    let parent = |pid: u32| {
        status_line(pid, "PPid:")?
            .parse::<u32>()
            .ok()
            .filter(|pid| *pid > 1)
    };
    std::iter::successors(parent(pid), |pid| parent(*pid))
        .take(100)
        .collect()
}

/// The path in the hierarchy that systemd uses, which may be another than the unified one, cgroups(7).
fn group_in(text: &str) -> &str {
    let find = |kind: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(':'));
        let found = lines.find_map(|(_, rest)| rest.strip_prefix(kind));
        found.filter(|path| *path != "/")
    };
    find(":").or_else(|| find("name=systemd:")).unwrap_or("/")
}

fn status_line(pid: u32, key: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::group_in;

    #[test]
    fn the_group_is_that_of_the_hierarchy_that_systemd_uses() {
        let unit = "/system.slice/buildbot.service";
        for (text, group) in [
            ("0::/system.slice/buildbot.service\n", unit),
            (
                "1:name=systemd:/\n0::/system.slice/buildbot.service\n",
                unit,
            ),
            (
                "10:cpu:/x\n1:name=systemd:/system.slice/buildbot.service\n0::/\n",
                unit,
            ),
            ("10:cpu:/x\n", "/"),
            ("", "/"),
        ] {
            assert_eq!(group_in(text), group, "{text}");
        }
    }
}
