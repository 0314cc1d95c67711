//! Telling systemd and the journal: `STATUS=` by the protocol of `sd_notify(3)`, messages on stderr
//! with their level as `sd-daemon(3)` has it.

use std::env;
use std::io::{self, Write as _};

use buildbot_conda_host::notify;

/// Says why nothing was started, on stderr and on the unit's status line.
pub(crate) fn report(message: &str) {
    for line in message.lines() {
        match line.strip_prefix("hint: ") {
            None => say(&format!("{}error: {line}", level('3'))),
            Some(_) => say(&format!("{}{line}", level('3'))),
        }
    }
    status(&message.lines().collect::<Vec<_>>().join("; "));
}

/// Shows a line as the unit's status.
pub(crate) fn status(line: &str) {
    // Nobody listens when the launcher is run by hand, and then stderr has said it.
    if let Some(socket) = env::var_os("NOTIFY_SOCKET")
        && let Err(error) = notify::status(&socket, "", line)
    {
        warn(&format!(
            "notify systemd at `{}`: {error}",
            socket.display()
        ));
    }
}

/// A warning on stderr.
pub(crate) fn warn(message: &str) {
    say(&format!("{}warning: {message}", level('4')));
}

/// A line on stderr. When nobody reads it, the exit status still has to be the right one.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// The journal takes a level in front of each line; a terminal does not.
fn level(level: char) -> String {
    match env::var_os("JOURNAL_STREAM") {
        None => String::new(),
        Some(_) => format!("<{level}>"),
    }
}
