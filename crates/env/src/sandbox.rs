//! Runs programs from packages without privileges: as an account that nothing else on the host uses, without network or
//! terminal, without write access to any file, and without remaining processes. Root only writes their input and reads
//! their output.
//!
//! If this program does not run as root, the account is not changed, because the packages belong to it.

use std::ffi::OsStr;
use std::fs::{self, DirEntry};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal};

/// The range from which systemd assigns accounts to running services, and which nothing else uses.
const ACCOUNTS: std::ops::RangeInclusive<u32> = 61184..=65519;
/// Bytes of address space: more than a compiler of Python needs for the largest module.
const MEMORY: &str = "--as=17179869184";
/// Files that are open, and processes of the account at a time.
const COUNTS: [&str; 2] = ["--nofile=256", "--nproc=256"];
/// A network without interfaces, and processes that all end with the first one.
const NAMESPACES: [&str; 4] = ["--net", "--ipc", "--pid", "--fork"];
/// How often to check whether processes have exited.
const POLL: Duration = Duration::from_millis(2);
/// The current directory, however deep it is in directories that the account cannot enter.
const HERE: &str = "/proc/self/cwd";

/// How such programs are run on this host.
#[derive(Debug)]
pub(crate) struct Sandbox {
    /// The account; none if this process does not run as root.
    account: Option<u32>,
    has_namespaces: bool,
    /// What cannot be had here, for people.
    pub(crate) warning: Option<String>,
}

impl Sandbox {
    /// Determines what is available.
    ///
    /// # Errors
    ///
    /// If there is no usable account.
    pub(crate) fn new() -> anyhow::Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self {
                account: None,
                has_namespaces: false,
                warning: None,
            });
        }
        let attempt = plain("unshare")
            .args(NAMESPACES)
            .args(["--", "true"])
            .output();
        let refusal = refusal(&attempt.context("run `unshare`")?);
        Ok(Self {
            account: Some(unused_account()?),
            has_namespaces: refusal.is_none(),
            warning: refusal.map(|reason| {
                format!(
                    "modules are compiled by an unprivileged account, but with network access, \
                     because this kernel or container does not support network isolation: {reason}"
                )
            }),
        })
    }

    /// `program`, a path below `directory`, with these arguments and no environment but `variables`; libraries are those
    /// of the directory.
    pub(crate) fn command<'a>(
        &self,
        directory: &Path,
        program: &str,
        variables: &[&str],
        arguments: impl IntoIterator<Item = &'a str>,
    ) -> Command {
        // With its own session, it has no terminal to type into.
        let mut command = plain("setsid");
        command.args(["setpriv", "--pdeathsig=KILL", "--"]);
        command.args(["prlimit", "--core=0", "--fsize=0", MEMORY]);
        command.args(COUNTS).arg("--");
        if self.has_namespaces {
            command.arg("unshare").args(NAMESPACES).arg("--");
        }
        // Once more: it is forgotten where the account changes.
        command.args(["setpriv", "--no-new-privs", "--pdeathsig=KILL"]);
        if let Some(account) = self.account {
            command
                .arg(format!("--reuid={account}"))
                .arg(format!("--regid={account}"))
                .args(["--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]);
        }
        // Set for this program only: the programs before it belong to the host and run as root.
        command.args(["--", "env", "--ignore-environment"]);
        command.arg(format!("LD_LIBRARY_PATH={HERE}/lib"));
        command.args(variables).arg(format!("{HERE}/{program}"));
        command.args(arguments).current_dir(directory);
        command
    }

    /// Ends all that the programs are and have left. Where they have a namespace the kernel does most of it.
    pub(crate) fn end(&self) {
        let Some(account) = self.account else { return };
        // One that makes new ones without end has no more of them than it is allowed.
        for _ in 0..1000 {
            let left = processes_of(account);
            if left.is_empty() {
                return;
            }
            for process in left {
                // It may be gone by now.
                let _ = rustix::process::kill_process(process, Signal::KILL);
            }
            thread::sleep(POLL);
        }
    }
}

/// A program of the host with none of this process's environment.
fn plain(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .envs([
            ("LC_ALL", "C.UTF-8"),
            ("PATH", "/usr/bin:/bin:/usr/sbin:/sbin"),
        ])
        .current_dir("/")
        .stdin(Stdio::null());
    command
}

fn refusal(output: &Output) -> Option<String> {
    let said = String::from_utf8_lossy(&output.stderr);
    (!output.status.success()).then(|| said.trim().to_owned())
}

/// An account that is unknown on this host and has no processes. Two simultaneous commands get different ones.
fn unused_account() -> anyhow::Result<u32> {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    let count = ACCOUNTS.end() - ACCOUNTS.start() + 1;
    // Far from those of the next process.
    let first = std::process::id()
        .wrapping_mul(64)
        .wrapping_add(ASKED.fetch_add(1, Ordering::Relaxed));
    for attempt in 0..count {
        let place = first.wrapping_add(attempt) % count;
        let account = ACCOUNTS.start() + place;
        let known = plain("getent")
            .args(["passwd", "--", &account.to_string()])
            .stdout(Stdio::null())
            .status()
            .context("run `getent`")?;
        // Not found, getent(1).
        if known.code() == Some(2) && processes_of(account).is_empty() {
            return Ok(account);
        }
    }
    bail!("all accounts for unprivileged processes are in use")
}

/// Those that have not exited, whether they were waited for or not.
fn processes_of(account: u32) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_alive = |entry: &DirEntry| {
        let status = fs::read_to_string(entry.path().join("status"));
        status.is_ok_and(|text| !text.contains("\nState:\tZ"))
    };
    let of_it = entries.filter(|entry| {
        let found = entry.metadata();
        found.is_ok_and(|found| found.uid() == account) && is_alive(entry)
    });
    let numbers = of_it.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter_map(Pid::from_raw).collect()
}
