//! Child processes whose words are passed on line by line while they run.

use std::io::{self, BufRead as _, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use crate::output::harmless;

/// How often a child is looked after.
const LOOK: Duration = Duration::from_millis(50);
/// How long words are waited for once a child has ended: something it left behind may hold its
/// pipes open for ever.
const LAST_WORDS: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// Runs to the end, or to `limit`; `heard` gets every line, without control characters.
///
/// # Errors
///
/// When it cannot be started, or had to be killed because of the limit (`TimedOut`).
pub(crate) fn run(
    command: Command,
    limit: Option<Duration>,
    heard: impl FnMut(Stream, &str),
) -> io::Result<ExitStatus> {
    run_with(command, Stdio::null(), limit, heard)
}

/// As [`run`], with something on its standard input.
///
/// # Errors
///
/// As [`run`].
pub(crate) fn run_with(
    mut command: Command,
    input: Stdio,
    limit: Option<Duration>,
    mut heard: impl FnMut(Stream, &str),
) -> io::Result<ExitStatus> {
    let mut child = command
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (sender, lines) = mpsc::channel();
    follow(child.stdout.take(), Stream::Stdout, sender.clone());
    follow(child.stderr.take(), Stream::Stderr, sender);
    let end = limit.map(|limit| Instant::now() + limit);
    let mut ended: Option<(ExitStatus, Instant)> = None;
    loop {
        let over = match lines.recv_timeout(LOOK) {
            Ok((stream, line)) => {
                heard(stream, &line);
                continue;
            }
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => true,
        };
        if ended.is_none() {
            ended = child.try_wait()?.map(|status| (status, Instant::now()));
        }
        match ended {
            Some((status, since)) if over || since.elapsed() > LAST_WORDS => return Ok(status),
            Some(_) => {}
            None if over => return child.wait(),
            None => stop_late(&mut child, end)?,
        }
    }
}

fn stop_late(child: &mut Child, end: Option<Instant>) -> io::Result<()> {
    if end.is_none_or(|end| Instant::now() < end) {
        return Ok(());
    }
    child.kill()?;
    child.wait()?;
    Err(io::Error::from(io::ErrorKind::TimedOut))
}

fn follow<R: Read + Send + 'static>(
    pipe: Option<R>,
    stream: Stream,
    lines: Sender<(Stream, String)>,
) {
    let Some(pipe) = pipe else { return };
    thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line);
            // Nobody listens any more: then nobody is told.
            if lines
                .send((stream, harmless(text.trim_end_matches(['\n', '\r']))))
                .is_err()
            {
                return;
            }
            line.clear();
        }
    });
}
