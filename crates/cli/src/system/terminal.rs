//! Runs an interactive command of another account for root. If a standard stream of root is a terminal, the command
//! gets its own terminal instead, and this process passes on what is typed and printed: in root's terminal, the command
//! could inject input, or continue to read after its end. Other streams are passed to the command unchanged.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Gid, OFlags, Uid};
use rustix::process::{Pid, Signal};
use rustix::pty::OpenptFlags;
use rustix::termios::{OptionalActions, Termios};

use super::{children, interrupt};

/// Becomes the leader of a session, makes the terminal that the first word names the terminal of the session
/// (setsid(2): the first one that it opens), and executes the command in the other words.
const TAKE_TERMINAL: &str = ": <>\"$0\"; exec \"$@\"";
/// `^C`, as a terminal without line editing gives it.
const INTERRUPT: u8 = 3;
/// How often the command is looked after.
const POLL: Duration = Duration::from_millis(50);
/// How long it may take to exit after it was asked to.
const GRACE: Duration = Duration::from_secs(5);
/// How long its last words are waited for.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Runs the command that `words` make and `prepare` completes, whose last act is to become the user `uid`, in a session of
/// its own, to its end. A signal to this process ends both.
///
/// # Errors
///
/// When it cannot be started, or its terminal fails.
pub(crate) fn run_in_front(
    words: impl IntoIterator<Item = OsString>,
    uid: u32,
    prepare: impl FnOnce(&mut Command),
) -> anyhow::Result<ExitStatus> {
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let streams = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
    let are_terminals = streams.map(|stream| stream.is_terminal());
    // What is printed goes where it would have gone: stdout first.
    let shown = [1, 2, 0].into_iter().find(|number| are_terminals[*number]);
    let hold = interrupt::Hold::new()?;
    let mut command = Command::new("setsid");
    let mut relay = None;
    if let Some(number) = shown {
        let terminal = Terminal::like(streams[number], uid).context("create a terminal")?;
        command
            .args(["sh", "-c", TAKE_TERMINAL])
            .arg(&terminal.name);
        let set = [Command::stdin, Command::stdout, Command::stderr];
        for (set, _) in set.iter().zip(are_terminals).filter(|(_, is)| *is) {
            let inner = terminal.inner.try_clone().context("create a terminal")?;
            set(&mut command, Stdio::from(inner));
        }
        relay = Some(
            Relay::new(terminal.outer, streams[number], are_terminals[0])
                .context("pass on a terminal")?,
        );
    }
    command.args(words);
    prepare(&mut command);
    let mut child = command.spawn().context("run `setsid`")?;
    // The last of our own ends: the terminal is closed when the command has exited.
    drop(command);
    let status = attend(&mut child, relay.as_mut());
    drop(relay);
    let Some(status) = status.context("pass on a terminal")? else {
        hold.give_way();
        anyhow::bail!("interrupted");
    };
    Ok(status)
}

/// The exit status as in a shell.
pub(crate) fn code_of(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// A pair of a terminal and its controlling side.
struct Terminal {
    outer: OwnedFd,
    inner: OwnedFd,
    name: OsString,
}

impl Terminal {
    /// One with the settings and the size of another, for the user `uid`.
    fn like(other: BorrowedFd<'_>, uid: u32) -> io::Result<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let outer = rustix::pty::openpt(flags)?;
        rustix::pty::grantpt(&outer)?;
        rustix::pty::unlockpt(&outer)?;
        let inner = rustix::pty::ioctl_tiocgptpeer(&outer, flags)?;
        let settings = rustix::termios::tcgetattr(other)?;
        rustix::termios::tcsetattr(&inner, OptionalActions::Now, &settings)?;
        copy_size(other, outer.as_fd());
        // As after a login: programs open it by its name.
        rustix::fs::fchown(&inner, Some(Uid::from_raw(uid)), None::<Gid>)?;
        let flags = rustix::fs::fcntl_getfl(&outer)?;
        rustix::fs::fcntl_setfl(&outer, flags | OFlags::NONBLOCK)?;
        let name = rustix::pty::ptsname(&outer, Vec::new())?;
        Ok(Self {
            outer,
            inner,
            name: OsString::from_vec(name.into_bytes()),
        })
    }
}

fn copy_size(from: BorrowedFd<'_>, to: BorrowedFd<'_>) {
    // Without a size, it is like a terminal that does not know its size.
    if let Ok(size) = rustix::termios::tcgetwinsize(from) {
        let _ = rustix::termios::tcsetwinsize(to, size);
    }
}

/// What passes between root's terminal and the command's.
struct Relay {
    /// None once the other end is closed.
    outer: Option<File>,
    shown: File,
    /// Whether what is typed is for the command.
    keyboard: Option<Keyboard>,
    /// Typed, and not taken yet.
    typed: Vec<u8>,
    is_resized: Arc<AtomicBool>,
}

/// Root's terminal without line editing, which is the business of the other one; as before when dropped.
struct Keyboard {
    file: File,
    settings: Termios,
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        // One that is gone needs no settings.
        let _ = rustix::termios::tcsetattr(&self.file, OptionalActions::Drain, &self.settings);
    }
}

impl Relay {
    fn new(outer: OwnedFd, shown: BorrowedFd<'_>, has_keyboard: bool) -> io::Result<Self> {
        let is_resized = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal_hook::consts::SIGWINCH, Arc::clone(&is_resized))?;
        let keyboard = if has_keyboard {
            let file = File::from(io::stdin().as_fd().try_clone_to_owned()?);
            let settings = rustix::termios::tcgetattr(&file)?;
            let mut raw = settings.clone();
            raw.make_raw();
            rustix::termios::tcsetattr(&file, OptionalActions::Now, &raw)?;
            Some(Keyboard { file, settings })
        } else {
            None
        };
        Ok(Self {
            outer: Some(outer.into()),
            shown: shown.try_clone_to_owned()?.into(),
            keyboard,
            typed: Vec::new(),
            is_resized,
        })
    }

    /// Passes on the available bytes, after at most `limit`; returns whether `^C` was typed.
    fn pass(&mut self, limit: Duration) -> io::Result<bool> {
        let Some(outer) = &self.outer else {
            std::thread::sleep(Duration::from_millis(2));
            return Ok(false);
        };
        if self.is_resized.swap(false, Ordering::Relaxed) {
            copy_size(self.shown.as_fd(), outer.as_fd());
        }
        let mut wanted = PollFlags::IN;
        if !self.typed.is_empty() {
            wanted |= PollFlags::OUT;
        }
        let mut polled = vec![PollFd::new(outer, wanted)];
        let keyboard = self.keyboard.as_ref().filter(|_| self.typed.is_empty());
        if let Some(keyboard) = keyboard {
            polled.push(PollFd::new(&keyboard.file, PollFlags::IN));
        }
        match rustix::event::poll(&mut polled, Timespec::try_from(limit).ok().as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        let is_typed = polled
            .get(1)
            .is_some_and(|polled| !polled.revents().is_empty());
        drop(polled);
        let mut is_interrupted = false;
        if is_typed && let Some(keyboard) = &self.keyboard {
            let mut bytes = [0; 1 << 10];
            match rustix::io::read(&keyboard.file, &mut bytes) {
                // The terminal is closed; the signal that reports this arrives, too.
                Ok(0) | Err(rustix::io::Errno::IO) => self.keyboard = None,
                Ok(length) => {
                    is_interrupted = bytes[..length].contains(&INTERRUPT);
                    self.typed.extend_from_slice(&bytes[..length]);
                }
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.write_typed();
        self.show();
        Ok(is_interrupted)
    }

    fn write_typed(&mut self) {
        if let Some(outer) = &self.outer
            && !self.typed.is_empty()
            && let Ok(written) = rustix::io::write(outer, &self.typed)
        {
            self.typed.drain(..written);
        }
    }

    fn show(&mut self) {
        let Some(outer) = &self.outer else { return };
        let mut bytes = [0; 16 << 10];
        match rustix::io::read(outer, &mut bytes) {
            Ok(length) if length > 0 => {
                // The terminal is closed; the signal that reports this arrives, too.
                let _ = self.shown.write_all(&bytes[..length]);
            }
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            // EIO: the other end is closed.
            Ok(_) | Err(_) => self.outer = None,
        }
    }
}

/// Waits for the end of a command. None if a signal to this process has ended it.
fn attend(child: &mut Child, mut relay: Option<&mut Relay>) -> io::Result<Option<ExitStatus>> {
    let mut ended: Option<(ExitStatus, Instant)> = None;
    loop {
        if ended.is_none() {
            ended = child.try_wait()?.map(|status| (status, Instant::now()));
        }
        if let Some((status, since)) = ended {
            let is_silent = relay.as_ref().is_none_or(|relay| relay.outer.is_none());
            if is_silent || since.elapsed() > LAST_WORDS {
                return Ok(Some(status));
            }
        }
        let is_interrupted = if let Some(relay) = &mut relay {
            // A stopped process does not handle a `^C` from its terminal.
            relay.pass(POLL)? && is_stopped(child.id())
        } else {
            children::wait_until(POLL, || {
                interrupt::is_noted() || !matches!(child.try_wait(), Ok(None))
            });
            false
        };
        if ended.is_none() && (is_interrupted || interrupt::is_noted()) {
            end_session(child);
            return Ok(None);
        }
    }
}

/// The state of a process, `proc_pid_stat(5)`.
fn is_stopped(pid: u32) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before it may have anything in it, brackets too.
    let state = text
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    state == Some('T')
}

/// Ends the processes of a session's first group, in order where they can.
fn end_session(child: &mut Child) {
    let leader = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let send = |signal| {
        if let Some(leader) = leader {
            // It has not been waited for, so the number is still its own.
            let _ = rustix::process::kill_process_group(leader, signal);
        }
    };
    send(Signal::TERM);
    send(Signal::CONT);
    children::wait_until(GRACE, || !matches!(child.try_wait(), Ok(None)));
    if matches!(child.try_wait(), Ok(None)) {
        send(Signal::KILL);
        children::end(child);
    }
}
