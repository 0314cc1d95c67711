//! The loop that follows processes. Each of its callers gets a separate thread: the kernel identifies a tracer by its
//! thread, and it must not see the children of other threads.

use std::collections::{HashMap, HashSet};
use std::io;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::sight::{has_succeeded, status_field};
use crate::{Exec, Step};

/// An action of a traced process, which is stopped meanwhile.
#[derive(Debug)]
pub enum Event {
    /// It has become another program.
    Exec(Exec),
    /// It is about to change a file or start a program.
    Step(Step),
    /// The last [`Event::Step`] of this process has been made; in vain, when it is not `true`.
    Made(Pid, bool),
    /// It has come into being as a child of `parent`.
    Child {
        /// The new process.
        pid: Pid,
        /// Who has started it.
        parent: Pid,
    },
}

/// What to do with the traced processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// They continue.
    Continue,
    /// All of them are killed with SIGKILL, before the step that was shown.
    Kill,
    /// They continue without being traced.
    Leave,
}

/// How [`run`] came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The first process has exited with this status; 128 plus the signal's number if a signal terminated it.
    Exited(i32),
    /// All of them were killed by [`Next::Kill`].
    Killed,
}

/// Runs `command` with empty input and discarded output, and shows `see` the actions of it and all its children,
/// including [`Event::Step`]s.
///
/// # Errors
///
/// If it cannot be started or traced.
pub fn run(command: &Command, see: impl FnMut(&Event) -> Next + Send) -> io::Result<Ended> {
    let mut gate = Command::new("sh");
    gate.args(["-c", "read -r go && exec \"$@\" </dev/null", "gate"])
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    thread::scope(|scope| {
        let tracer = scope.spawn(move || {
            let mut child = gate.spawn()?;
            let first = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
            let mut tracer = Tracer::new(first, true);
            tracer.seize(first, Options::PTRACE_O_EXITKILL)?;
            // It waits for this line, so that nothing happens unseen.
            if let Some(mut stdin) = child.stdin.take() {
                stdin.write_all(b"go\n")?;
            }
            tracer.follow(see)
        });
        tracer.join().expect("the tracer does not panic")
    })
}

/// Follows the process `first` and its children from now on, without [`Event::Step`]s, in a separate thread until `see`
/// returns [`Next::Leave`]. Returns when it is attached; joining the thread returns the owner of `see`.
///
/// # Errors
///
/// If it cannot be traced.
pub fn attach<T: Send + 'static>(
    first: Pid,
    mut keeper: T,
    see: impl Fn(&mut T, &Event) -> Next + Send + 'static,
) -> io::Result<JoinHandle<io::Result<T>>> {
    let (attached, wait) = mpsc::channel();
    let thread = thread::spawn(move || {
        let mut tracer = Tracer::new(first, false);
        let result = tracer.seize(first, Options::empty());
        let failed = result.is_err();
        // The receiver is gone if the caller is, and then it does not matter.
        let _ = attached.send(result);
        if !failed {
            tracer.follow(|event| see(&mut keeper, event))?;
        }
        // The end of this thread lets go of everything.
        Ok(keeper)
    });
    wait.recv().map_err(io::Error::other)??;
    Ok(thread)
}

struct Tracer {
    first: Pid,
    /// Stop at system calls as well?
    steps: bool,
    known: HashSet<Pid>,
    /// Those between the entry and the exit of a system call; is it a step?
    inside: HashMap<Pid, bool>,
}

impl Tracer {
    fn new(first: Pid, steps: bool) -> Self {
        Self {
            first,
            steps,
            known: HashSet::from([first]),
            inside: HashMap::new(),
        }
    }

    fn seize(&self, pid: Pid, more: Options) -> io::Result<()> {
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACECLONE
            | more;
        ptrace::seize(pid, options)?;
        if self.steps {
            // It is running; only a stopped process can be configured to stop at its system calls.
            ptrace::interrupt(pid)?;
        }
        Ok(())
    }

    fn follow(&mut self, mut see: impl FnMut(&Event) -> Next) -> io::Result<Ended> {
        let mut ended = None;
        let mut killed = false;
        loop {
            let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
            let status = match waitpid(None, Some(flags)) {
                Ok(status) => status,
                Err(Errno::EINTR) => continue,
                Err(Errno::ECHILD) if killed => return Ok(Ended::Killed),
                Err(Errno::ECHILD) => return ended.ok_or_else(|| io::Error::from(Errno::ECHILD)),
                Err(error) => return Err(error.into()),
            };
            let (pid, signal, event) = match status {
                WaitStatus::Exited(pid, status) => {
                    ended = self.gone(pid, status).or(ended);
                    continue;
                }
                WaitStatus::Signaled(pid, signal, _) => {
                    ended = self.gone(pid, 128 + signal as i32).or(ended);
                    continue;
                }
                WaitStatus::PtraceSyscall(pid) => {
                    let event = if let Some(is_step) = self.inside.remove(&pid) {
                        is_step.then(|| Event::Made(pid, has_succeeded(pid)))
                    } else {
                        let step = Step::of(pid);
                        self.inside.insert(pid, step.is_some());
                        step.map(Event::Step)
                    };
                    (pid, None, event)
                }
                WaitStatus::PtraceEvent(pid, _, libc::PTRACE_EVENT_EXEC) => {
                    (pid, None, Exec::of(pid).map(Event::Exec))
                }
                WaitStatus::PtraceEvent(pid, ..) => (pid, None, None),
                WaitStatus::Stopped(pid, signal) => (pid, Some(signal), None),
                _ => continue,
            };
            if self.known.insert(pid)
                && let Some(parent) = status_field(pid, "PPid:", 0)
                && let Ok(parent) = i32::try_from(parent)
            {
                let parent = Pid::from_raw(parent);
                killed |= self.decide(see(&Event::Child { pid, parent }))?;
            }
            if let Some(event) = event {
                match see(&event) {
                    Next::Leave => return Ok(Ended::Exited(0)),
                    next => killed |= self.decide(next)?,
                }
            }
            if killed {
                // It may have been created just when the others were killed.
                ignore_gone(kill(pid, Signal::SIGKILL))?;
            } else {
                self.resume(pid, signal)?;
            }
        }
    }

    fn decide(&self, next: Next) -> io::Result<bool> {
        if next == Next::Kill {
            for &pid in &self.known {
                ignore_gone(kill(pid, Signal::SIGKILL))?;
            }
        }
        Ok(next == Next::Kill)
    }

    fn gone(&mut self, pid: Pid, status: i32) -> Option<Ended> {
        self.known.remove(&pid);
        self.inside.remove(&pid);
        (pid == self.first).then_some(Ended::Exited(status))
    }

    fn resume(&self, pid: Pid, signal: Option<Signal>) -> io::Result<()> {
        ignore_gone(if self.steps {
            ptrace::syscall(pid, signal)
        } else {
            ptrace::cont(pid, signal)
        })
    }
}

/// A process that has been killed meanwhile is not there to be resumed.
fn ignore_gone(result: nix::Result<()>) -> io::Result<()> {
    match result {
        Err(Errno::ESRCH) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
