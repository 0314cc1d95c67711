//! Reports to systemd and the journal: `STATUS=` with the protocol of `sd_notify(3)`, and messages on standard error
//! with their level as in `sd-daemon(3)`.

use std::env;
use std::io::{self, Write as _};

use buildbot_conda_host::notify;

/// Reports why nothing was started, on standard error and on the unit's status line.
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
    // There is no receiver when the launcher is run manually; then standard error has shown it.
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

/// Prints a line on standard error. Even if nobody reads it, the exit status must be the right one.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// The journal expects a level at the beginning of each line; a terminal does not.
fn level(level: char) -> String {
    match env::var_os("JOURNAL_STREAM") {
        None => String::new(),
        Some(_) => format!("<{level}>"),
    }
}
