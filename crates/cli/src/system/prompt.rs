//! Secrets that a person types, or gives in the first line of a file.

use std::io::{self, IsTerminal as _, Read as _, Write as _};

use anyhow::{Context as _, bail};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, tcgetattr, tcsetattr};

/// What the terminal sends for ^C.
const INTERRUPT: u8 = 3;
/// Maximum length of a given password, in bytes.
const LONGEST: usize = 1024;

/// Asks the user, without showing what is typed.
///
/// # Errors
///
/// If there is no terminal.
pub(crate) fn ask_unseen(what: &str) -> anyhow::Result<String> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        bail!(
            "{what} is needed, but there is no terminal to ask for it\n\
             hint: use `--password-file FILE` or `--password-stdin`"
        );
    }
    let shown = tcgetattr(&stdin).context("read the mode of the terminal")?;
    let mut hidden = shown.clone();
    // ^C ends the line instead of this process, which would leave the terminal without echo.
    hidden
        .local_modes
        .remove(LocalModes::ECHO | LocalModes::ISIG);
    hidden.special_codes[SpecialCodeIndex::VEOL] = INTERRUPT;
    tcsetattr(&stdin, OptionalActions::Flush, &hidden)
        .context("turn off the echo of the terminal")?;
    eprint!("{what}: ");
    // The question has been asked, even if it was not shown.
    let _ = io::stderr().flush();
    // A terminal gives one line at a time.
    let mut line = [0; LONGEST];
    let read = stdin.lock().read(&mut line);
    let restored = tcsetattr(&stdin, OptionalActions::Flush, &shown);
    eprintln!();
    restored.context("turn on the echo of the terminal")?;
    let length = read.context("read from the terminal")?;
    if line[..length].contains(&INTERRUPT) {
        bail!("interrupted");
    }
    first_line(&line[..length])
}

/// The secret in the first line of `source`, which must be one that Buildbot reads unchanged.
pub(crate) fn first_line(source: impl io::Read) -> anyhow::Result<String> {
    let mut text = String::new();
    source.take(LONGEST as u64).read_to_string(&mut text)?;
    checked(text.lines().next().unwrap_or_default())
}

fn checked(password: &str) -> anyhow::Result<String> {
    if password.is_empty() {
        bail!("the password is empty");
    }
    // Buildbot reads it without the blanks around it.
    if password.trim() != password || password.chars().any(char::is_control) {
        bail!("the password contains control characters, or begins or ends with a space");
    }
    Ok(password.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_the_password() {
        assert_eq!(first_line(&b"se cret\nmore\n"[..]).unwrap(), "se cret");
        for bad in ["", "\n", " x\n", "x \n", "a\tb\n"] {
            assert!(first_line(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
