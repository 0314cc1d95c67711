//! The only way in which root lets a service user do something: this program runs again as that user, in a clean
//! environment, supervised by root's process.
//!
//! Root reads only what root wrote; a process of the user reads the user's files, runs the user's code and writes to
//! the user's directories. Whatever the user does with such a process must not affect root:
//!
//! * it has its own session, so there is no terminal that it could type into (TIOCSTI), and no `^C` except root's
//! * it has three descriptors: the one that root passes on, and two pipes, from which root reads a limited number of
//!   bytes
//! * it has a time limit, and a signal to root's process terminates it, even if it is stopped
//! * none of its processes remains: systemd terminates all processes of a unit; without systemd, a process that loses
//!   its parent becomes a child of root's process, which terminates it
//!
//! Processes that examine or change a service run with the rules of its unit if systemd is running.

use std::env;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, lchown};
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use buildbot_conda_core::names::Role;
use buildbot_conda_core::paths;
use buildbot_conda_core::settings::Instance;
use buildbot_conda_core::values::AccountName;
use rustix::process::{Pid, Signal, WaitOptions};

use super::accounts::{User, find_user};
use super::children::{self, Bounds, Input, Lines, Stopped, Stream};
use super::{interrupt, systemd, unit_settings};
use crate::output;
use crate::system::context::{AS_ROOT, Context};

/// Maximum number of bytes that root reads from each stream.
const MOST_SAID: usize = 8 << 20;
/// How long the examination or change of one file may take. Root may hold the lock of a plan meanwhile, and a user who
/// stops the process blocks root's other commands for this time.
const MOMENT: Duration = Duration::from_mins(2);
/// How long the examination or change of many files may take: the largest environment is verified within this time.
pub(crate) const FILES: Duration = Duration::from_mins(15);
/// How long a backup of a large database, or an environment over a slow connection, may take.
pub(crate) const LONG: Duration = Duration::from_hours(24);
/// How long systemd lets a command exit by itself before it kills it, in seconds.
const GRACE: u32 = 10;
/// How long a process that was killed is waited for. One that the kernel keeps is left to it.
const LAST_BREATH: Duration = Duration::from_secs(2);
/// Generations of orphans that are terminated; an account with more creates new ones faster than they are terminated.
const MOST_ORPHANS: usize = 1000;

/// Only one without systemd at a time, because the orphans of two could not be distinguished.
static ALONE: Mutex<()> = Mutex::new(());
static UNITS: AtomicU32 = AtomicU32::new(0);

/// Runs this command line as the service user, unless this process already runs as that user, and returns its exit
/// status; `None` means that this process does the work itself.
pub(crate) fn hand_over(
    instance: &Instance,
    context: &Context,
) -> anyhow::Result<Option<ExitCode>> {
    hand_over_with(instance, context, None)
}

/// As [`hand_over`]. A file can be passed as standard input: the command line then has an additional word that states
/// this.
pub(crate) fn hand_over_with(
    instance: &Instance,
    context: &Context,
    input: Option<(&str, &File)>,
) -> anyhow::Result<Option<ExitCode>> {
    if !is_for_another(instance, context)? {
        return Ok(None);
    }
    let mut words: Vec<OsString> = own_arguments().collect();
    let input = match input {
        None => Input::Empty,
        Some((word, file)) => {
            words.push(word.into());
            Input::Handed(file.try_clone().context("pass a file")?.into())
        }
    };
    relay(Job::with_state(instance, LONG)?, &words, input).map(Some)
}

/// Runs another command line as the service user, and returns its output; its messages go to standard error.
///
/// # Errors
///
/// If it fails, with its own message.
pub(crate) fn obtain(instance: &Instance, words: &[OsString]) -> anyhow::Result<String> {
    obtain_within(LONG, instance, words, "")
}

/// As [`obtain`], for at most `limit` and with a text as standard input.
pub(crate) fn obtain_within(
    limit: Duration,
    instance: &Instance,
    words: &[OsString],
    input: &str,
) -> anyhow::Result<String> {
    let input = Input::Text(input.as_bytes().to_owned());
    let answer = answer(Job::with_state(instance, limit)?, words, input)?;
    let said = answer.said.join("\n");
    if !answer.is_success {
        bail!("{}", said.strip_prefix("error: ").unwrap_or(&said));
    }
    if !said.is_empty() {
        eprintln!("{said}");
    }
    String::from_utf8(answer.stdout).context("read an answer, which is not UTF-8")
}

/// Whether the service user of an instance has to do the work: a process of that user does it itself, and below a root
/// directory, the caller acts as the service user.
///
/// # Errors
///
/// If there is no such account, or this process may not do it.
pub(crate) fn is_for_another(instance: &Instance, context: &Context) -> anyhow::Result<bool> {
    if context.is_elsewhere() {
        return Ok(false);
    }
    let user = account_of(instance)?;
    let own = rustix::process::geteuid();
    if own.as_raw() == user.uid {
        return Ok(false);
    }
    if !own.is_root() {
        bail!("only root and `{}` can do this\nhint: {AS_ROOT}", user.name);
    }
    Ok(true)
}

fn account_of(instance: &Instance) -> anyhow::Result<User> {
    find_user(instance.user.as_str())
        .map_err(|error| anyhow!("{error}\nhint: create it, or set `user` in the configuration"))
}

/// What a command of the service user has answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) is_success: bool,
    /// Whatever the user wants: data to be understood, never words to be obeyed.
    pub(crate) stdout: Vec<u8>,
    /// Lines of standard error, without control characters.
    pub(crate) said: Vec<String>,
}

/// Runs this program as the service user of an instance to examine something, for at most `limit`, with the rules of
/// its unit; nothing is created or changed for it.
///
/// # Errors
///
/// If there is no answer.
pub(crate) fn ask(
    instance: &Instance,
    words: &[OsString],
    limit: Duration,
) -> anyhow::Result<Answer> {
    answer(Job::of(instance, limit)?, words, Input::Empty)
}

/// Calls `service make WORDS -- PATH` as `user`, about one file, and gives its standard output.
pub(crate) fn call(
    user: &str,
    group: Option<&str>,
    words: &[&str],
    path: &Path,
    input: &str,
) -> anyhow::Result<String> {
    call_within(MOMENT, user, group, words, path, input)
}

/// As [`call`], for work that takes longer.
pub(crate) fn call_within(
    limit: Duration,
    user: &str,
    group: Option<&str>,
    words: &[&str],
    path: &Path,
    input: &str,
) -> anyhow::Result<String> {
    let job = Job::in_session(find_user(user)?, group, limit);
    make(job, words, path, Input::Text(input.as_bytes().to_owned()))
}

/// As [`call`], with a socket as standard input.
pub(crate) fn call_with(
    user: &str,
    group: Option<&str>,
    words: &[&str],
    path: &Path,
    input: OwnedFd,
) -> anyhow::Result<String> {
    let job = Job::in_session(find_user(user)?, group, MOMENT);
    make(job, words, path, Input::Handed(input.into()))
}

fn make(job: Job, words: &[&str], path: &Path, input: Input) -> anyhow::Result<String> {
    let mut all: Vec<OsString> = vec!["service".into(), "make".into()];
    all.extend(words.iter().map(Into::into));
    all.extend(["--".into(), path.into()]);
    let answer = answer(job, &all, input)?;
    if answer.is_success {
        return String::from_utf8(answer.stdout).context("read an answer, which is not UTF-8");
    }
    let said = answer.said.join("\n");
    Err(anyhow!(
        "{}",
        said.strip_prefix("error: ").unwrap_or(&said).to_owned()
    ))
}

/// A command as another user, before its last words.
struct Job {
    user: User,
    way: Way,
    limit: Duration,
}

enum Way {
    /// A unit for the time of one command.
    Systemd { command: Command, unit: String },
    /// Its own session.
    Session(Command),
}

impl Job {
    /// Under the rules of the instance's unit, where systemd runs (`sd_booted(3)`).
    fn of(instance: &Instance, limit: Duration) -> anyhow::Result<Self> {
        let user = account_of(instance)?;
        if !systemd::is_booted() {
            let group = instance.group.as_ref().map(AccountName::as_str);
            return Ok(Self::in_session(user, group, limit));
        }
        let number = UNITS.fetch_add(1, Ordering::Relaxed);
        let unit = format!(
            "buildbot-conda-command-{}-{number}.service",
            std::process::id()
        );
        let mut command = through_systemd(instance, &unit)?;
        for property in [
            format!("RuntimeMaxSec={}", limit.as_secs()),
            format!("TimeoutStopSec={GRACE}"),
        ] {
            command.arg("--property").arg(property);
        }
        Ok(Self {
            user,
            way: Way::Systemd { command, unit },
            limit,
        })
    }

    /// As [`Job::of`], for work that needs the directories of the instance that the service user cannot
    /// create.
    fn with_state(instance: &Instance, limit: Duration) -> anyhow::Result<Self> {
        let mut job = Self::of(instance, limit)?;
        if instance.reference.role == Role::Master {
            let backups = paths::backup_directory(&instance.reference);
            make_directory(paths::BACKUPS, &backups, &job.user)?;
        }
        if let Way::Systemd { command, .. } = &mut job.way {
            let state = format!("buildbot-conda/instances/{}", instance.reference);
            for property in [
                &format!("StateDirectory={state}"),
                "StateDirectoryMode=0700",
            ] {
                command.arg("--property").arg(property);
            }
        } else {
            let state = paths::state_directory(&instance.reference);
            make_directory(paths::STATE, &state, &job.user)?;
        }
        Ok(job)
    }

    /// Without any rules, in its own session.
    fn in_session(user: User, group: Option<&str>, limit: Duration) -> Self {
        let mut command = Command::new("setsid");
        command.args(drop_rights(&user, group));
        command.args(["--reset-env", "--no-new-privs"]);
        // Work that is rolled back must not continue if this process is killed.
        command.args(["--pdeathsig=KILL", "--", "env", "LANG=C.UTF-8"]);
        Self {
            user,
            way: Way::Session(command),
            limit,
        }
    }

    /// Runs it with these last words of the command line.
    fn run(
        self,
        words: &[OsString],
        input: Input,
        heard: impl FnMut(Stream, &[u8]),
    ) -> anyhow::Result<ExitStatus> {
        let bounds = Bounds {
            // A command that systemd terminates at the limit reports this itself.
            time: Some(
                self.limit
                    .saturating_add(2 * Duration::from_secs(GRACE.into())),
            ),
            printed: MOST_SAID,
            interruptible: true,
        };
        let hold = interrupt::Hold::new()?;
        let uid = self.user.uid;
        let result = match self.way {
            Way::Systemd { mut command, unit } => {
                command.arg("--").arg(paths::CLI).args(words);
                children::follow(
                    command,
                    input,
                    &bounds,
                    |child| end_unit(child, &unit),
                    heard,
                )
            }
            Way::Session(mut command) => {
                command.arg(paths::CLI).args(words).current_dir("/");
                let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
                rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
                    .context("become the reaper of child processes")?;
                let bounds = Bounds {
                    time: Some(self.limit),
                    ..bounds
                };
                let result = children::follow(command, input, &bounds, children::end, heard);
                end_orphans(uid);
                result
            }
        };
        if matches!(result, Err(Stopped::Interrupted)) {
            hold.give_way();
        }
        result.with_context(|| format!("run a command as `{}`", self.user.name))
    }
}

/// `setpriv(1)` up to where its options for a clean environment would be.
pub(crate) fn drop_rights(user: &User, group: Option<&str>) -> [OsString; 4] {
    let group = group.map_or_else(|| user.gid.to_string(), str::to_owned);
    [
        "setpriv".into(),
        format!("--reuid={}", user.name).into(),
        format!("--regid={group}").into(),
        "--init-groups".into(),
    ]
}

/// Ends a unit with all of its processes, then the program that waits for it.
fn end_unit(child: &mut Child, unit: &str) {
    // Within GRACE; if it cannot be terminated, RuntimeMaxSec= remains.
    let _ = systemd::stop(unit);
    children::wait_until(LAST_BREATH, || {
        child.try_wait().is_ok_and(|ended| ended.is_some())
    });
    children::end(child);
}

/// Terminates the processes of an account that have become children of this one, until there are none: a child of a
/// terminated process becomes a child of this one as well.
fn end_orphans(uid: u32) {
    // Root's own children are awaited elsewhere.
    if uid == 0 {
        return;
    }
    for _ in 0..MOST_ORPHANS {
        let orphans = children_of(uid);
        if orphans.is_empty() {
            return;
        }
        for orphan in orphans {
            // A child keeps its number until it has been waited for.
            let _ = rustix::process::kill_process(orphan, Signal::KILL);
            children::wait_until(LAST_BREATH, || {
                let ended = rustix::process::waitpid(Some(orphan), WaitOptions::NOHANG);
                !matches!(ended, Ok(None))
            });
        }
    }
}

/// The children of this process that run as an account.
fn children_of(uid: u32) -> Vec<Pid> {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten();
    let lists = tasks.flatten().filter_map(|task| {
        // proc_pid_task(5)
        fs::read_to_string(task.path().join("children")).ok()
    });
    let numbers: Vec<i32> = lists
        .flat_map(|list| {
            let numbers = list.split_whitespace().map(str::parse);
            numbers.filter_map(Result::ok).collect::<Vec<_>>()
        })
        .collect();
    let is_of = |number: &i32| {
        fs::metadata(format!("/proc/{number}")).is_ok_and(|metadata| metadata.uid() == uid)
    };
    let pids = numbers.into_iter().filter(is_of);
    pids.filter_map(Pid::from_raw).collect()
}

/// A service for the time of one command, under the rules of the instance's own; the command itself
/// is left to be added.
fn through_systemd(instance: &Instance, unit: &str) -> anyhow::Result<Command> {
    let mut command = Command::new("systemd-run");
    command.args([
        "--quiet",
        "--wait",
        "--pipe",
        "--collect",
        "--service-type=exec",
    ]);
    command.arg(format!("--unit={unit}"));
    command.arg(format!(
        "--description=buildbot-conda for {}",
        instance.reference.unit_name()
    ));
    for property in unit_settings::properties(instance, unit)? {
        command.arg("--property").arg(property);
    }
    for property in [
        "UMask=0077",
        "Environment=LANG=C.UTF-8",
        "WorkingDirectory=/",
    ] {
        command.arg("--property").arg(property);
    }
    Ok(command)
}

/// As systemd does for `StateDirectory=`. The parent directories are owned by root, so no other account can interfere.
fn make_directory(parent: &str, path: &str, user: &User) -> anyhow::Result<()> {
    let made = || {
        fs::create_dir_all(parent)?;
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => lchown(path, Some(user.uid), None),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    };
    made().with_context(|| format!("create `{path}`"))
}

fn own_arguments() -> impl Iterator<Item = OsString> {
    env::args_os().skip(1)
}

fn answer(job: Job, words: &[OsString], input: Input) -> anyhow::Result<Answer> {
    let mut stdout = Vec::new();
    let mut said = Vec::new();
    let mut lines = Lines::default();
    let mut hear = |_, line: &str| said.push(line.to_owned());
    let status = job.run(words, input, |stream, bytes| match stream {
        Stream::Stdout => stdout.extend_from_slice(bytes),
        Stream::Stderr => lines.take(stream, bytes, &mut hear),
    })?;
    lines.finish(&mut hear);
    Ok(Answer {
        is_success: status.success(),
        stdout,
        said,
    })
}

/// Passes on its messages, without anything that could control a terminal.
fn relay(job: Job, words: &[OsString], input: Input) -> anyhow::Result<ExitCode> {
    let mut printed = Ok(ExitCode::SUCCESS);
    let mut lines = Lines::default();
    let mut hear = |stream, line: &str| match stream {
        Stream::Stdout => printed = output::print(format_args!("{line}\n")),
        Stream::Stderr => eprintln!("{line}"),
    };
    let status = job.run(words, input, |stream, bytes| {
        lines.take(stream, bytes, &mut hear);
    })?;
    lines.finish(&mut hear);
    printed?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}
