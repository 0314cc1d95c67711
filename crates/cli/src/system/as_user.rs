//! Becoming the service user. Root reads only what root wrote: whatever looks at the master's files
//! or runs its code is this program again, as the service user, with the unit's sandbox and
//! credentials, in a clean environment.

use std::env;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, lchown};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use buildbot_conda_core::paths;
use buildbot_conda_core::settings::Instance;

use super::accounts::find_user;
use super::children::{self, Stream};
use super::unit_settings;
use crate::output::{self, harmless};
use crate::system::context::Context;

/// Bytes of what is said as the service user.
const MOST_SAID: u64 = 8 << 20;
/// Counts the units of commands, so that each has a name of its own.
static COMMANDS: AtomicUsize = AtomicUsize::new(0);

/// Runs this command line as the service user unless this process is that already, and gives its
/// exit status; `None` says that the work is this process's own.
pub(crate) fn hand_over(
    instance: &Instance,
    context: &Context,
) -> anyhow::Result<Option<ExitCode>> {
    hand_over_with(instance, context, None)
}

/// As [`hand_over`]. A file that perhaps root alone can read is handed over with it, as standard input: the command
/// line then has one word more, which says so.
pub(crate) fn hand_over_with(
    instance: &Instance,
    context: &Context,
    input: Option<(&str, &File)>,
) -> anyhow::Result<Option<ExitCode>> {
    // Below a root directory, whoever runs this plays the service user.
    if context.is_elsewhere() {
        return Ok(None);
    }
    let user = instance.user.as_str();
    let uid = ask_id("-u", user)?;
    let own = rustix::process::geteuid();
    if own.as_raw() == uid {
        return Ok(None);
    }
    if !own.is_root() {
        bail!("only root and `{user}` can do this\nhint: call it with sudo");
    }
    let mut words: Vec<OsString> = own_arguments().collect();
    let input = match input {
        None => Stdio::null(),
        Some((word, file)) => {
            words.push(word.into());
            file.try_clone().context("hand over a file")?.into()
        }
    };
    // sd_booted(3)
    let command = if Path::new("/run/systemd/system").is_dir() {
        let mut command = through_systemd(instance)?;
        let state = format!("buildbot-conda/instances/{}", instance.reference);
        for property in [
            &format!("StateDirectory={state}"),
            "StateDirectoryMode=0700",
        ] {
            command.arg("--property").arg(property);
        }
        command.arg("--").arg(paths::CLI).args(words);
        command
    } else {
        make_state_directory(instance, uid)?;
        through_setpriv(instance, words.into_iter())?
    };
    relay(command, input).map(Some)
}

/// A command line by which root has this program run as the service user to look at something, for
/// at most `limit`; nothing is made or changed for it.
pub(crate) fn looking(
    instance: &Instance,
    words: &[OsString],
    limit: Duration,
) -> anyhow::Result<Command> {
    if !Path::new("/run/systemd/system").is_dir() {
        return through_setpriv(instance, words.iter().cloned());
    }
    let mut command = through_systemd(instance)?;
    command
        .arg("--property")
        .arg(format!("RuntimeMaxSec={}", limit.as_secs()));
    command.arg("--").arg(paths::CLI).args(words);
    Ok(command)
}

fn ask_id(option: &str, user: &str) -> anyhow::Result<u32> {
    let output = Command::new("id")
        .args([option, "--", user])
        .output()
        .context("run `id`")?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.trim().parse() {
        Ok(number) if output.status.success() => Ok(number),
        _ => bail!("no account `{user}`\nhint: make it, or set `user` in the configuration"),
    }
}

/// A service for the time of one command, under the rules of the instance's own; the command itself
/// is left to be added.
fn through_systemd(instance: &Instance) -> anyhow::Result<Command> {
    let unit = format!(
        "buildbot-conda-command-{}-{}.service",
        std::process::id(),
        COMMANDS.fetch_add(1, Ordering::Relaxed)
    );
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
    for property in unit_settings::properties(instance, &unit)? {
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

/// Without systemd, as in a container or a rescue system: no sandbox and no credentials.
fn through_setpriv(
    instance: &Instance,
    words: impl Iterator<Item = OsString>,
) -> anyhow::Result<Command> {
    let user = instance.user.as_str();
    let gid = match &instance.group {
        Some(group) => group.as_str().to_owned(),
        None => ask_id("-g", user)?.to_string(),
    };
    let mut command = Command::new("setpriv");
    command
        .args([&format!("--reuid={user}"), &format!("--regid={gid}")])
        .args(["--init-groups", "--reset-env", "--no-new-privs", "--"])
        .args(["env", "LANG=C.UTF-8", paths::CLI])
        .args(words)
        .current_dir("/");
    Ok(command)
}

/// As systemd does for `StateDirectory=`. The parents are root's, so nobody else can put anything
/// in the way.
fn make_state_directory(instance: &Instance, uid: u32) -> anyhow::Result<()> {
    let path = paths::state_directory(&instance.reference);
    let made = || {
        fs::create_dir_all(paths::STATE)?;
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => lchown(&path, Some(uid), None),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    };
    made().with_context(|| format!("create `{path}`"))
}

fn own_arguments() -> impl Iterator<Item = OsString> {
    env::args_os().skip(1)
}

/// Passes on what it says, without anything that could steer a terminal.
fn relay(command: Command, input: Stdio) -> anyhow::Result<ExitCode> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut printed = Ok(ExitCode::SUCCESS);
    let status = children::run_with(command, input, None, |stream, line| match stream {
        Stream::Stdout => printed = output::print(format_args!("{line}\n")),
        Stream::Stderr => eprintln!("{line}"),
    })
    .with_context(|| format!("run `{program}`"))?;
    printed?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}

/// Calls `service make WORDS -- PATH` as `user`, and gives its standard output.
pub(crate) fn call(
    user: &str,
    group: Option<&str>,
    words: &[&str],
    path: &Path,
    input: &str,
) -> anyhow::Result<String> {
    let user = find_user(user)?;
    let group = group.map_or_else(|| user.gid.to_string(), str::to_owned);
    // A session of its own has no terminal that the user could type into (TIOCSTI).
    let mut child = Command::new("setsid")
        .arg("setpriv")
        .args([
            &format!("--reuid={}", user.name),
            &format!("--regid={group}"),
        ])
        .args(["--init-groups", "--reset-env", "--no-new-privs"])
        // Nobody goes on with what is taken back when this process is killed.
        .args(["--pdeathsig=KILL", "--"])
        .args(["env", "LANG=C.UTF-8", paths::CLI, "service", "make"])
        .args(words)
        .arg("--")
        .arg(path)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("run `setsid setpriv`")?;
    if let Some(mut pipe) = child.stdin.take() {
        // It may have ended already; then its own words say why.
        let _ = pipe.write_all(input.as_bytes());
    }
    let mut text = String::new();
    if let Some(pipe) = child.stdout.take() {
        // It is the user's process: he may have it say anything, to a limit.
        pipe.take(MOST_SAID)
            .read_to_string(&mut text)
            .context("read what `setpriv` says")?;
    }
    let output = child.wait_with_output().context("wait for `setpriv`")?;
    if output.status.success() {
        return Ok(text);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<String> = said.lines().map(harmless).collect();
    let said = lines.join("\n");
    Err(anyhow!(
        "{}",
        said.strip_prefix("error: ").unwrap_or(&said).to_owned()
    ))
}
