//! openssl(1), which makes certificates and speaks TLS: within a time, and with limits on what it prints, since the other
//! side of a connection decides both.

use std::io::ErrorKind;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use buildbot_conda_core::foreign_text::ForeignText;

use super::children::{self, Bounds, Ended, Input, Stopped};

/// It is as quick as the network and the other side.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes.
const LARGEST: usize = 2 << 20;

/// The first words of a command line.
pub(crate) fn command(words: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    command.args(words);
    command
}

/// Runs one of its commands. It does not have to finish if `is_enough` accepts its standard output.
///
/// # Errors
///
/// If it is not installed, or had to be terminated. The caller interprets the exit status: for a connection it is
/// meaningless, because many servers close one without the message that openssl expects.
pub(crate) fn run(
    mut command: Command,
    input: &str,
    is_enough: impl Fn(&[u8]) -> bool,
) -> anyhow::Result<Ended> {
    let bounds = Bounds {
        time: Some(PATIENCE),
        printed: LARGEST,
        interruptible: true,
    };
    command.env("LC_ALL", "C.UTF-8");
    let input = Input::Text(input.as_bytes().to_owned());
    match children::collect(command, input, &bounds, is_enough) {
        Err(Stopped::Failed(error)) if error.kind() == ErrorKind::NotFound => bail!(
            "openssl, which makes certificates and speaks TLS, is not installed\nhint: `apt-get install openssl`"
        ),
        outcome => outcome.context("run openssl"),
    }
}

/// Its last error message; its own lines start with a number and have the reason between colons.
pub(crate) fn complaint(ended: &Ended) -> ForeignText {
    let text = String::from_utf8_lossy(&ended.stderr);
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let errors = text.lines().find(|line| line.contains("error:"));
    let line = errors
        .or_else(|| lines.next_back())
        .unwrap_or("no reason given");
    let parts: Vec<&str> = line.split(':').filter(|part| !part.is_empty()).collect();
    match (errors, parts.get(5)) {
        (Some(_), Some(reason)) => ForeignText::new(reason),
        _ => ForeignText::new(line),
    }
}
