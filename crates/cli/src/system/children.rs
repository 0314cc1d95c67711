//! Child processes that are supervised while they run: with a time limit and limits on their output, because many of
//! them run code of other accounts. The caller defines how remaining processes of a child are terminated.

use std::io::{self, ErrorKind, Read, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use thiserror::Error;

use super::interrupt;
use crate::output::harmless;

/// How often a child is looked after, at least.
const POLL: Duration = Duration::from_millis(50);
/// The same once it has closed its pipes, when it is about to end.
const POLL_AT_END: Duration = Duration::from_millis(2);
/// How long to wait for output once a child has exited: a process that it has left behind may hold its pipes open
/// forever.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Bytes on each stream of a program of the service user; no upgrade of a database prints more.
const MOST_PRINTED: usize = 64 << 20;
/// Bytes of a line; what is longer comes in pieces.
const LONGEST_LINE: usize = 64 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// What a child gets on its standard input.
pub(crate) enum Input {
    /// Nothing.
    Empty,
    /// A separate descriptor.
    Handed(Stdio),
    /// A text, through a pipe.
    Text(Vec<u8>),
}

/// The limits of a child.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) time: Option<Duration>,
    /// Bytes on each of its streams.
    pub(crate) printed: usize,
    /// Whether signals to this process, held by the caller, end it.
    pub(crate) interruptible: bool,
}

/// Why a child had to be terminated.
#[derive(Debug, Error)]
pub(crate) enum Stopped {
    #[error("{0}")]
    Failed(#[from] io::Error),
    #[error("it did not finish within {} s", .0.as_secs())]
    Late(Duration),
    #[error("it printed more than {0} bytes")]
    TooMuch(usize),
    #[error("interrupted")]
    Interrupted,
    /// The receiver of its output decided so.
    #[error("it has said enough")]
    Enough,
}

/// The output of a program, and whether it succeeded.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) is_success: bool,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

/// Runs a program within `bounds`, and returns its output. It does not have to finish if `is_enough` accepts its
/// standard output so far.
///
/// # Errors
///
/// If it cannot be started, or had to be terminated.
pub(crate) fn collect(
    command: Command,
    input: Input,
    bounds: &Bounds,
    is_enough: impl Fn(&[u8]) -> bool,
) -> Result<Ended, Stopped> {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let heard = |stream, bytes: &[u8]| match stream {
        Stream::Stdout => {
            stdout.extend_from_slice(bytes);
            is_enough(&stdout)
        }
        Stream::Stderr => {
            stderr.extend_from_slice(bytes);
            false
        }
    };
    let is_success = match follow_until(command, input, bounds, end, heard) {
        Ok(status) => status.success(),
        Err(Stopped::Enough) => true,
        Err(stopped) => return Err(stopped),
    };
    Ok(Ended {
        is_success,
        stdout,
        stderr,
    })
}

/// Runs a program of the service user to its end, or to `limit`; `heard` receives every line, without control
/// characters.
///
/// # Errors
///
/// If it cannot be started, or had to be killed because of the limit or the amount of its output.
pub(crate) fn run(
    command: Command,
    limit: Option<Duration>,
    mut heard: impl FnMut(Stream, &str),
) -> Result<ExitStatus, Stopped> {
    let bounds = Bounds {
        time: limit,
        printed: MOST_PRINTED,
        interruptible: false,
    };
    let mut lines = Lines::default();
    let result = follow(command, Input::Empty, &bounds, end, |stream, bytes| {
        lines.take(stream, bytes, &mut heard);
    });
    lines.finish(&mut heard);
    result
}

/// Kills a child, if it still runs.
pub(crate) fn end(child: &mut Child) {
    // It may have exited at this very moment.
    let _ = child.kill();
    let _ = child.wait();
}

/// Runs a child within `bounds`; `heard` receives its output as it arrives. A child that must not continue is
/// terminated with `end`, which leaves none of its processes.
///
/// # Errors
///
/// If it cannot be started, or had to be terminated.
pub(crate) fn follow(
    command: Command,
    input: Input,
    bounds: &Bounds,
    end: impl FnOnce(&mut Child),
    mut heard: impl FnMut(Stream, &[u8]),
) -> Result<ExitStatus, Stopped> {
    follow_until(command, input, bounds, end, |stream, bytes| {
        heard(stream, bytes);
        false
    })
}

/// As [`follow`]; `heard` returns whether the output is sufficient.
fn follow_until(
    mut command: Command,
    input: Input,
    bounds: &Bounds,
    end: impl FnOnce(&mut Child),
    mut heard: impl FnMut(Stream, &[u8]) -> bool,
) -> Result<ExitStatus, Stopped> {
    let (stdin, text) = match input {
        Input::Empty => (Stdio::null(), Vec::new()),
        Input::Handed(stdin) => (stdin, Vec::new()),
        Input::Text(text) => (Stdio::piped(), text),
    };
    let mut child = command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let result = Pipes::of(&mut child, text)
        .map_err(Stopped::from)
        .and_then(|mut pipes| pipes.follow(&mut child, bounds, &mut heard));
    if result.is_err() {
        end(&mut child);
    }
    result
}

/// Our ends of a child's streams; each is none once it is closed.
struct Pipes {
    stdin: Option<ChildStdin>,
    /// What of standard input has not been written yet.
    text: Vec<u8>,
    outputs: [Output; 2],
}

struct Output {
    stream: Stream,
    pipe: Option<Box<dyn Pipe>>,
    /// Bytes so far.
    printed: usize,
}

trait Pipe: Read + AsFd {}
impl<T: Read + AsFd> Pipe for T {}

impl Pipes {
    fn of(child: &mut Child, text: Vec<u8>) -> io::Result<Self> {
        let stdin = child.stdin.take();
        let stdout = child
            .stdout
            .take()
            .map(|pipe| Box::new(pipe) as Box<dyn Pipe>);
        let stderr = child
            .stderr
            .take()
            .map(|pipe| Box::new(pipe) as Box<dyn Pipe>);
        let outputs =
            [(Stream::Stdout, stdout), (Stream::Stderr, stderr)].map(|(stream, pipe)| Output {
                stream,
                pipe,
                printed: 0,
            });
        if let Some(pipe) = &stdin {
            set_nonblocking(pipe.as_fd())?;
        }
        for pipe in outputs.iter().flat_map(|output| &output.pipe) {
            set_nonblocking(pipe.as_fd())?;
        }
        Ok(Self {
            stdin,
            text,
            outputs,
        })
    }

    fn follow(
        &mut self,
        child: &mut Child,
        bounds: &Bounds,
        heard: &mut dyn FnMut(Stream, &[u8]) -> bool,
    ) -> Result<ExitStatus, Stopped> {
        let began = Instant::now();
        let mut ended: Option<(ExitStatus, Instant)> = None;
        loop {
            if bounds.interruptible && interrupt::is_noted() {
                return Err(Stopped::Interrupted);
            }
            if ended.is_none() {
                ended = child.try_wait()?.map(|status| (status, Instant::now()));
            }
            let is_silent = self.outputs.iter().all(|output| output.pipe.is_none());
            match (ended, bounds.time) {
                (Some((status, since)), _) if is_silent || since.elapsed() > LAST_WORDS => {
                    return Ok(status);
                }
                (None, Some(time)) if began.elapsed() > time => return Err(Stopped::Late(time)),
                _ => {}
            }
            self.write();
            self.wait(if is_silent { POLL_AT_END } else { POLL })?;
            for output in &mut self.outputs {
                output.read(bounds.printed, heard)?;
            }
        }
    }

    /// Waits until a pipe is ready, or for `limit`.
    fn wait(&self, limit: Duration) -> io::Result<()> {
        let outputs = self.outputs.iter().flat_map(|output| &output.pipe);
        let mut polled: Vec<PollFd<'_>> = outputs
            .map(|pipe| PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN))
            .collect();
        if let Some(pipe) = &self.stdin {
            polled.push(PollFd::new(pipe, PollFlags::OUT));
        }
        let limit = Timespec::try_from(limit).ok();
        match rustix::event::poll(&mut polled, limit.as_ref()) {
            // A signal, which is looked for.
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn write(&mut self) {
        let Some(pipe) = &mut self.stdin else { return };
        match pipe.write(&self.text) {
            Ok(written) => drop(self.text.drain(..written)),
            Err(error) if is_not_ready(&error) => return,
            // It reads no more. It reports the reason itself.
            Err(_) => self.text.clear(),
        }
        if self.text.is_empty() {
            self.stdin = None;
        }
    }
}

impl Output {
    /// Reads the available bytes, once.
    fn read(
        &mut self,
        limit: usize,
        heard: &mut dyn FnMut(Stream, &[u8]) -> bool,
    ) -> Result<(), Stopped> {
        let Some(pipe) = &mut self.pipe else {
            return Ok(());
        };
        let mut bytes = [0; 16 << 10];
        match pipe.read(&mut bytes) {
            Ok(0) => self.pipe = None,
            Ok(length) => {
                self.printed += length;
                if self.printed > limit {
                    return Err(Stopped::TooMuch(limit));
                }
                if heard(self.stream, &bytes[..length]) {
                    return Err(Stopped::Enough);
                }
            }
            Err(error) if is_not_ready(&error) => {}
            Err(_) => self.pipe = None,
        }
        Ok(())
    }
}

fn is_not_ready(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

fn set_nonblocking(pipe: BorrowedFd<'_>) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(pipe)?;
    Ok(rustix::fs::fcntl_setfl(pipe, flags | OFlags::NONBLOCK)?)
}

/// Lines out of what streams print.
#[derive(Default)]
pub(crate) struct Lines {
    begun: [Vec<u8>; 2],
}

impl Lines {
    /// Passes each line to `heard` that is complete, or too long to wait for its end.
    pub(crate) fn take(
        &mut self,
        stream: Stream,
        bytes: &[u8],
        heard: &mut impl FnMut(Stream, &str),
    ) {
        let begun = &mut self.begun[stream as usize];
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            begun.extend_from_slice(piece);
            if piece.ends_with(b"\n") || begun.len() >= LONGEST_LINE {
                heard(stream, &line(begun));
                begun.clear();
            }
        }
    }

    /// Passes on the rest without a line break.
    pub(crate) fn finish(self, heard: &mut impl FnMut(Stream, &str)) {
        for (stream, begun) in [Stream::Stdout, Stream::Stderr].into_iter().zip(self.begun) {
            if !begun.is_empty() {
                heard(stream, &line(&begun));
            }
        }
    }
}

fn line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    harmless(text.trim_end_matches(['\n', '\r']))
}

/// Sleeps until `is_done` returns true, for at most `limit`.
pub(crate) fn wait_until(limit: Duration, mut is_done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_done() && began.elapsed() < limit {
        thread::sleep(POLL_AT_END);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn collected(
        script: &str,
        input: &[u8],
        time: Duration,
        printed: usize,
    ) -> (Result<ExitStatus, Stopped>, Vec<u8>) {
        let bounds = Bounds {
            time: Some(time),
            printed,
            interruptible: false,
        };
        let mut stdout = Vec::new();
        let input = Input::Text(input.to_owned());
        let result = follow(shell(script), input, &bounds, end, |stream, bytes| {
            if stream == Stream::Stdout {
                stdout.extend_from_slice(bytes);
            }
        });
        (result, stdout)
    }

    #[test]
    fn more_than_pipes_hold_goes_through_both_ways() {
        let text = b"0123456789abcdef".repeat(1 << 16);
        let (result, stdout) = collected("cat", &text, Duration::from_mins(1), 2 << 20);
        assert!(result.unwrap().success());
        assert!(stdout == text);
    }

    #[test]
    fn a_child_that_does_not_read_is_no_failure() {
        let text = vec![0; 1 << 20];
        let (result, stdout) = collected("echo x", &text, Duration::from_mins(1), 100);
        assert!(result.unwrap().success());
        assert_eq!(stdout, b"x\n");
    }

    #[test]
    fn a_stopped_child_is_ended_when_its_time_is_over() {
        let (result, _) = collected("kill -STOP $$", b"", Duration::from_millis(100), 100);
        assert!(matches!(result, Err(Stopped::Late(_))), "{result:?}");
    }

    #[test]
    fn a_child_that_has_said_enough_is_ended() {
        let bounds = Bounds {
            time: Some(Duration::from_mins(1)),
            printed: 100,
            interruptible: false,
        };
        let script = shell("echo enough; sleep 100");
        let ended = collect(script, Input::Empty, &bounds, |said| said == b"enough\n").unwrap();
        assert!(ended.is_success);
        assert_eq!(ended.stdout, b"enough\n");
        let script = shell("echo a; echo b >&2; exit 1");
        let failed = collect(script, Input::Empty, &bounds, |_| false).unwrap();
        assert!(!failed.is_success);
        assert_eq!(
            (failed.stdout, failed.stderr),
            (b"a\n".to_vec(), b"b\n".to_vec())
        );
    }

    #[test]
    fn a_child_that_prints_without_end_is_ended_at_the_limit() {
        for script in ["yes", "yes >&2", "tr '\\0' x </dev/zero"] {
            let (result, stdout) = collected(script, b"", Duration::from_mins(1), 1 << 20);
            assert!(matches!(result, Err(Stopped::TooMuch(_))), "{result:?}");
            assert!(stdout.len() <= 1 << 20);
        }
    }

    #[test]
    fn a_pipe_that_outlives_its_child_is_not_waited_for() {
        let began = Instant::now();
        let (result, stdout) = collected("sleep 20 & echo x", b"", Duration::from_mins(1), 100);
        assert!(result.unwrap().success());
        assert_eq!(stdout, b"x\n");
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn lines_are_whole_or_of_bounded_length() {
        let mut heard = Vec::new();
        let mut hear = |stream, line: &str| heard.push((stream, line.to_owned()));
        let mut lines = Lines::default();
        lines.take(Stream::Stdout, b"a\nb", &mut hear);
        lines.take(Stream::Stderr, b"e\r\n", &mut hear);
        lines.take(Stream::Stdout, b"c\x1b\n", &mut hear);
        lines.take(Stream::Stdout, &vec![b'x'; LONGEST_LINE], &mut hear);
        lines.take(Stream::Stdout, b"end", &mut hear);
        lines.finish(&mut hear);
        let long = "x".repeat(LONGEST_LINE);
        let expect = [
            (Stream::Stdout, "a"),
            (Stream::Stderr, "e"),
            (Stream::Stdout, "bc\\u{1b}"),
            (Stream::Stdout, &long),
            (Stream::Stdout, "end"),
        ];
        assert_eq!(
            heard,
            expect.map(|(stream, line)| (stream, line.to_owned()))
        );
    }
}
