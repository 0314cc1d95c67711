//! The activation scripts of a start, which run before any code of ours that could report their result. This module
//! records their progress, and defines what the shell becomes if one of them does not return.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use buildbot_conda_conda::{self as conda, Notes, Watch};
use buildbot_conda_core::foreign_text::ForeignText;
use buildbot_conda_core::paths;
use buildbot_conda_core::settings::Instance;
use nix::unistd::alarm;
use rustix::process::Signal;

use crate::notify;
use crate::refusal::Refusal;

/// The first word of a command line that reports that the shell has exited.
pub(crate) const ENDED: &str = "--script-ended";
/// Starts in a row whose scripts neither came back nor were reported. A power cut or a stop may be behind fewer.
const MOST_STARTS: u32 = 3;
/// Characters of what a script has printed last.
const LAST_WORDS: usize = 200;
/// `RUNTIME_DIRECTORY` of systemd.exec(5).
pub(crate) const RUN: &str = "RUNTIME_DIRECTORY";
/// Names in the run-time directory.
const MARK: &str = "activation";
const OUTPUT: &str = "activation.log";

/// What the shell gets so that its end is reported.
#[derive(Debug)]
pub(crate) struct Scripts {
    pub(crate) watch: Watch,
    /// What it has as standard output and standard error.
    pub(crate) output: Option<File>,
    /// Our own ones, handed on by their numbers.
    descriptors: Vec<OwnedFd>,
    /// How long a start may take; 0 means without limit.
    seconds: u32,
    status: String,
}

impl Scripts {
    /// Creates one for the scripts of an instance's environment, which may take as long as a start may.
    ///
    /// # Errors
    ///
    /// If those of the last starts neither returned nor were reported.
    pub(crate) fn new(
        scripts: &[PathBuf],
        instance: &Instance,
        run: Option<&OsStr>,
    ) -> Result<Self, Refusal> {
        let place = run
            .and_then(OsStr::to_str)
            .map(|run| paths::own_directory(run, &paths::run_directory(&instance.reference)))
            .map(PathBuf::from)
            .filter(|place| place.is_absolute());
        let seconds = limit(instance.start_timeout);
        let program = std::env::current_exe().unwrap_or_else(|_| paths::LAUNCHER.into());
        let mut command = vec![program.into_os_string(), ENDED.into()];
        command.push(seconds.to_string().into());
        command.push(place.clone().unwrap_or_default().into());
        let mut scripts = Self {
            watch: Watch {
                command,
                notes: None,
            },
            output: None,
            descriptors: Vec::new(),
            seconds,
            status: status(scripts),
        };
        if let Some(place) = place {
            scripts.take_notes(&place)?;
        }
        Ok(scripts)
    }

    /// Without notes where none can be written, as on a full disk.
    fn take_notes(&mut self, place: &Path) -> Result<(), Refusal> {
        let mark = place.join(MARK);
        let before = fs::read_to_string(&mark).unwrap_or_default();
        let (number, script) = before.split_once(' ').unwrap_or_default();
        let number = number.parse().unwrap_or(0) + 1;
        if number > MOST_STARTS {
            copy_output(place);
            let refusal = Refusal::Lost {
                script: script.to_owned(),
                starts: MOST_STARTS,
                last_words: last_words(place),
            };
            forget(place);
            return Err(refusal);
        }
        let output = place.join(OUTPUT);
        let opened = || -> io::Result<(File, [OwnedFd; 2])> {
            // A new file: something that a script left behind may still write to the last one.
            let _ = fs::remove_file(&output);
            let file = File::options()
                .append(true)
                .create_new(true)
                .mode(0o600)
                .open(&output)?;
            // Without the flag that would close them at the exec.
            let copies = [
                rustix::io::dup(io::stdout())?,
                rustix::io::dup(io::stderr())?,
            ];
            Ok((file, copies))
        };
        if let Ok((file, copies)) = opened() {
            self.watch.notes = Some(Notes {
                mark,
                number,
                output,
                descriptors: [copies[0].as_raw_fd(), copies[1].as_raw_fd()],
            });
            self.output = Some(file);
            self.descriptors = copies.into();
        }
        Ok(())
    }

    /// Must be called directly before the shell replaces this process.
    pub(crate) fn begin(&self) {
        notify::status(&self.status);
        // It survives the exec, and ends also what a script executes in place of the shell. The runner sets another one.
        if self.seconds > 0 {
            alarm::set(self.seconds);
        }
    }
}

/// What is shown while the scripts run, and stays there when one of them leaves no trace.
fn status(scripts: &[PathBuf]) -> String {
    let names = scripts.iter().filter_map(|script| script.file_name());
    let names: Vec<_> = names.map(|name| name.to_string_lossy()).collect();
    format!(
        "activating the environment: activate.d/{}",
        names.join(", ")
    )
}

/// Called when the shell has become this program: reports why Buildbot was not started.
pub(crate) fn ended(words: &[OsString]) -> ExitCode {
    let [seconds, place, script, status, command] = words else {
        notify::say(
            "error: usage: launcher --script-ended SECONDS DIRECTORY SCRIPT STATUS COMMAND",
        );
        return ExitCode::from(2);
    };
    let text = |word: &OsString| word.to_string_lossy().into_owned();
    let (script, command) = (text(script), text(command));
    let place = Path::new(place);
    let is_late = alarm::cancel().is_none() && seconds != "0";
    let refusal = if is_late {
        Refusal::Late {
            script,
            seconds: text(seconds),
            command,
            last_words: last_words(place),
        }
    } else if conda::is_left(&command) {
        Refusal::Left {
            script,
            status: text(status),
            last_words: last_words(place),
        }
    } else {
        // A stop, most likely; whether the script has killed its shell is known by the number of such starts.
        copy_output(place);
        notify::status(&format!("stopped in the activation script `{script}`"));
        let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::TERM);
        return ExitCode::from(78);
    };
    copy_output(place);
    forget(place);
    notify::report(&refusal.to_string());
    ExitCode::from(78)
}

/// Seconds for an alarm; 0 is none.
fn limit(duration: Duration) -> u32 {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    // As for the runner, what is longer than some years has no end.
    u32::try_from(seconds)
        .ok()
        .filter(|seconds| *seconds < 100_000_000)
        .unwrap_or(0)
}

/// The journal has what the scripts printed, whatever comes of them.
fn copy_output(place: &Path) {
    if let Ok(printed) = fs::read(place.join(OUTPUT)) {
        let printed = String::from_utf8_lossy(&printed).replace(conda::SEPARATOR, "");
        for line in printed.lines() {
            notify::say(line);
        }
    }
}

fn forget(place: &Path) {
    for name in [MARK, OUTPUT] {
        // Nothing exists if no notes could be written.
        let _ = fs::remove_file(place.join(name));
    }
}

/// `: TEXT`, the last line that was printed; nothing when there is none.
fn last_words(place: &Path) -> String {
    let printed = fs::read(place.join(OUTPUT)).unwrap_or_default();
    let printed = String::from_utf8_lossy(&printed);
    let by_this = printed.rsplit(conda::SEPARATOR).next().unwrap_or_default();
    // bash 5.2 reports this when `set -e` ends it within a function.
    let is_said = |line: &&str| !line.trim().is_empty() && !line.contains("pop_var_context");
    let last = by_this.lines().rev().find(is_said);
    last.map_or_else(String::new, |line| {
        let line: String = line.trim().chars().take(LAST_WORDS).collect();
        format!(": {}", ForeignText::new(&line).as_str())
    })
}
