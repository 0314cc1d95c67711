//! Child processes with a time limit, whose output is collected completely.

use std::fmt;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// What a finished command left.
#[derive(Clone, Debug)]
pub struct Output {
    /// The command, for messages.
    pub command: String,
    /// Exit status; 128 plus the signal's number if a signal terminated it.
    pub status: i32,
    /// Standard output, lossily decoded.
    pub stdout: String,
    /// Standard error, lossily decoded.
    pub stderr: String,
}

impl Output {
    /// This output, if the command exited 0.
    ///
    /// # Errors
    ///
    /// The command, its status and all it said.
    pub fn succeeded(self) -> Result<Self> {
        if self.status == 0 {
            Ok(self)
        } else {
            bail!("{self}")
        }
    }

    /// Standard output without surrounding white space.
    pub fn text(&self) -> &str {
        self.stdout.trim()
    }
}

impl fmt::Display for Output {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "`{}` ended with {}\n{}{}",
            self.command, self.status, self.stdout, self.stderr
        )
    }
}

/// Runs `command` with `input` on its standard input, for at most `limit`.
///
/// # Errors
///
/// When it cannot be started, or still runs after `limit`: then it is killed, and the message holds what it said.
pub(crate) fn run(command: &mut Command, input: &[u8], limit: Duration) -> Result<Output> {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .collect();
    let name = words
        .iter()
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ");
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start `{name}`"))?;

    let mut stdin = child.stdin.take().expect("stdin was piped");
    let input = input.to_vec();
    // A command that does not read its input closes the pipe early, which is its right.
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));
    let stdout = collect(child.stdout.take().expect("stdout was piped"));
    let stderr = collect(child.stderr.take().expect("stderr was piped"));

    let Some(status) = wait(&mut child, limit)? else {
        child.kill().with_context(|| format!("kill `{name}`"))?;
        child.wait().with_context(|| format!("wait for `{name}`"))?;
        // Not joined: a grandchild may hold the pipes open for ever.
        bail!(
            "`{name}` still ran after {} s and was killed",
            limit.as_secs()
        );
    };
    writer.join().expect("the writer does not panic");
    Ok(Output {
        command: name,
        status,
        stdout: stdout.join().expect("the reader does not panic"),
        stderr: stderr.join().expect("the reader does not panic"),
    })
}

/// Waits for `child` until `limit`; none if it is still running then.
pub(crate) fn wait(child: &mut Child, limit: Duration) -> Result<Option<i32>> {
    use std::os::unix::process::ExitStatusExt as _;
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().context("wait for a child process")? {
            return Ok(Some(
                status
                    .code()
                    .unwrap_or_else(|| 128 + status.signal().unwrap_or_default()),
            ));
        }
        if Instant::now() > deadline {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn collect(mut stream: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What arrived before a read error is still worth showing.
        let _ = stream.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
