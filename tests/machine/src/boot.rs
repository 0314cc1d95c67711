//! One boot of a tree: from the start of the guardian to its end, on either side.
//!
//! The recipe: private mount and PID namespaces, the unified cgroup hierarchy mounted there, systemd-nspawn without
//! registration and with its own network. It needs no systemd on the host.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::process::{self, Output};
use crate::timings;
use crate::tree::Tree;

const GUARDIAN: &str = include_str!("guardian.sh");

/// What commands in a machine find in their environment: what a root login gives, without the host's variables.
const ENVIRONMENT: &[(&str, &str)] = &[
    (
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ),
    ("HOME", "/root"),
    ("LANG", "C.UTF-8"),
    ("TERM", "dumb"),
    ("SYSTEMD_PAGER", ""),
];

/// From the start of the guardian to a systemd that answers.
const BOOT_LIMIT: Duration = Duration::from_mins(1);
/// From a power-off to the end of the guardian: longer than systemd's own 90 s for one hanging unit.
const POWER_OFF_LIMIT: Duration = Duration::from_mins(2);

/// A machine that is on.
#[derive(Debug)]
pub(crate) struct Boot {
    guardian: Child,
    /// PID of the machine's PID 1 as this process sees it.
    init: Pid,
    started: Instant,
}

impl Boot {
    /// Boots `tree` and waits until systemd has finished starting units.
    pub(crate) fn start(tree: &Tree) -> Result<Self> {
        let console_path = tree.directory.join("console");
        let console = File::create(&console_path)
            .with_context(|| format!("create `{}`", console_path.display()))?;
        let guardian = guardian_command(tree)
            .stdin(Stdio::piped())
            .stdout(console.try_clone().context("share the console's file")?)
            .stderr(console)
            .spawn()
            .context("start `unshare`")?;
        let started = Instant::now();
        let deadline = started + BOOT_LIMIT;
        // From here on, dropping the guardian's standard input terminates everything that was started.
        let mut guardian = Unfinished(Some(guardian));
        let init = loop {
            let child = guardian.0.as_mut().expect("it is taken once, below");
            if let Some(status) = child.try_wait().context("wait for the guardian")? {
                bail!(
                    "boot a machine: its guardian ended with {status}\n{}",
                    console_text(&console_path)
                );
            }
            if let Some(init) = find_init(child.id())
                && command_in(
                    init,
                    &["systemctl", "is-system-running", "--wait"],
                    Duration::from_mins(1),
                    b"",
                )
                .is_ok_and(|output| matches!(output.text(), "running" | "degraded"))
            {
                break init;
            }
            if Instant::now() > deadline {
                bail!(
                    "boot a machine within {} s\n{}",
                    BOOT_LIMIT.as_secs(),
                    console_text(&console_path)
                );
            }
            thread::sleep(Duration::from_millis(20));
        };
        let boot = Self {
            guardian: guardian.0.take().expect("it is taken only here"),
            init,
            started,
        };
        timings::record("boot", started.elapsed(), boot.busy());
        Ok(boot)
    }

    /// PID of the machine's PID 1 as this process sees it.
    pub(crate) fn init(&self) -> Pid {
        self.init
    }

    /// What the processes of the machine have had of the processor, those that commands from outside started left out;
    /// cgroups(7) has the file.
    fn busy(&self) -> Option<Duration> {
        let path = format!(
            "/proc/{}/root/sys/fs/cgroup/cpu.stat",
            self.init.as_raw_nonzero()
        );
        let text = fs::read_to_string(path).ok()?;
        let mut lines = text.lines();
        let microseconds = lines.find_map(|line| line.strip_prefix("usage_usec "))?;
        Some(Duration::from_micros(microseconds.parse().ok()?))
    }

    /// Keeps how long it has been on. Nothing is known of one that is off already.
    fn record(&self) {
        if let Some(busy) = self.busy() {
            timings::record("machine", self.started.elapsed(), Some(busy));
        }
    }

    /// Runs a command in all of the machine's namespaces, with a plain environment.
    pub(crate) fn run(&self, words: &[&str], limit: Duration, input: &[u8]) -> Result<Output> {
        command_in(self.init, words, limit, input)
    }

    /// Shuts down as an administrator does, every unit stopped in order.
    pub(crate) fn power_off(mut self) -> Result<()> {
        self.record();
        // The answer gets lost when the machine is faster than the command.
        let _ = self.run(
            &["systemctl", "--no-block", "poweroff"],
            Duration::from_secs(20),
            b"",
        );
        match process::wait(&mut self.guardian, POWER_OFF_LIMIT)? {
            Some(_) => Ok(()),
            None => bail!("power off a machine within {} s", POWER_OFF_LIMIT.as_secs()),
        }
    }

    /// Ends every process of the machine at once, without a word.
    pub(crate) fn cut_power(mut self) -> Result<()> {
        self.record();
        kill_process(self.init, Signal::KILL).context("kill a machine's PID 1")?;
        self.guardian.wait().context("wait for the guardian")?;
        Ok(())
    }
}

impl Drop for Boot {
    fn drop(&mut self) {
        self.record();
        end(&mut self.guardian);
    }
}

/// A guardian that nothing owns yet.
struct Unfinished(Option<Child>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            end(child);
        }
    }
}

fn end(guardian: &mut Child) {
    drop(guardian.stdin.take());
    // It has exited already, or exits now; a destructor cannot handle an error.
    let _ = guardian.wait();
}

fn guardian_command(tree: &Tree) -> Command {
    use std::os::unix::process::CommandExt as _;
    let root = tree.directory.join("root");
    let mut command = Command::new("unshare");
    command
        .args([
            "--mount",
            "--pid",
            "--fork",
            "--mount-proc",
            "--kill-child=KILL",
            "--propagation=private",
            "--",
        ])
        .args(["sh", "-c", GUARDIAN, "guardian"])
        .arg(&tree.directory)
        .arg(tree.mount_options())
        .arg(&tree.name)
        .args([
            "--",
            "systemd-nspawn",
            "--quiet",
            "--boot",
            "--register=no",
            "--keep-unit",
            "--private-network",
        ])
        .args([
            "--console=pipe",
            "--resolv-conf=off",
            "--timezone=off",
            "--link-journal=no",
            "--settings=no",
        ])
        .arg(format!("--machine={}", tree.name))
        .arg(format!("--hostname={}", tree.host_name))
        .arg("--directory")
        .arg(root)
        .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
        // A ^C at the terminal is for the program that wants the machine; its end then ends the machine in order.
        .process_group(0);
    command
}

fn command_in(init: Pid, words: &[&str], limit: Duration, input: &[u8]) -> Result<Output> {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--target={}", init.as_raw_nonzero()))
        .args([
            "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd", "--",
        ])
        .args(words)
        .env_clear()
        .envs(ENVIRONMENT.iter().copied());
    let mut output = process::run(&mut command, input, limit)?;
    output.command = words.join(" ");
    Ok(output)
}

/// The machine's PID 1 once it is systemd: a descendant of the guardian that is PID 1 of a separate namespace.
///
/// Before it becomes systemd, it still sees the host's files, and so would a command that enters its namespaces.
fn find_init(guardian: u32) -> Option<Pid> {
    let mut seen = Vec::from([guardian]);
    let processes = all_processes();
    let mut index = 0;
    while let Some(&parent) = seen.get(index) {
        for process in processes.iter().filter(|process| process.parent == parent) {
            if parent != guardian && process.innermost_pid == 1 && process.name == "systemd" {
                return Pid::from_raw(i32::try_from(process.pid).ok()?);
            }
            seen.push(process.pid);
        }
        index += 1;
    }
    None
}

struct Process {
    pid: u32,
    parent: u32,
    innermost_pid: u32,
    name: String,
}

fn all_processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    // A process that ends while it is looked at is not the one.
    entries
        .filter_map(|entry| read_process(&entry.path()))
        .collect()
}

fn read_process(directory: &Path) -> Option<Process> {
    let pid = directory.file_name()?.to_str()?.parse().ok()?;
    let status = fs::read_to_string(directory.join("status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().last()
    };
    Some(Process {
        pid,
        parent: field("PPid:")?.parse().ok()?,
        innermost_pid: field("NSpid:")?.parse().ok()?,
        name: field("Name:")?.to_owned(),
    })
}

/// The end of what the machine and its guardian wrote to the console.
fn console_text(path: &Path) -> String {
    let mut text = Vec::new();
    if let Ok(mut file) = File::open(path) {
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        // If it cannot be read: an empty text, in addition to the error that is being reported.
        let _ = file.seek(std::io::SeekFrom::Start(length.saturating_sub(4000)));
        let _ = file.read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}
