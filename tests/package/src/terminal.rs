//! A person at a terminal of a [`DebianRoot`]: a script runs with a real terminal of 24 lines, its screen is read as it
//! would be seen, and keys are pressed.
//!
//! Nothing waits for a time: a key is pressed once the screen shows what it answers.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::num::NonZero;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::DebianRoot;

const ROWS: NonZero<u16> = NonZero::new(24).unwrap();
const COLUMNS: NonZero<u16> = NonZero::new(80).unwrap();

/// Longest wait for a screen, on a machine that has other things to do. Only a failing test waits so long.
const PATIENCE: Duration = Duration::from_mins(3);

/// Moves the focus to the next field or button.
pub const TAB: &str = "\t";
/// Presses the button that has the focus.
pub const ENTER: &str = "\r";
/// Leaves a dialogue as its button for going back does.
pub const ESCAPE: &str = "\x1b";
/// Ticks or clears an entry of a list.
pub const SPACE: &str = " ";
/// Moves to the next entry of a list.
pub const DOWN: &str = "\x1b[B";
/// Deletes the character before the cursor.
const BACKSPACE: &str = "\x7f";

/// A terminal in which a script runs.
pub struct Terminal {
    child: Child,
    master: File,
    screen: vt100::Parser,
}

impl Terminal {
    /// Run a shell script (`sh -eu`) as root in the system, with a terminal as its input, output and controlling
    /// terminal, and debconf's Dialog front end.
    #[track_caller]
    pub fn run(root: &DebianRoot, script: &str) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .expect("the machine has pseudo terminals");
        grantpt(&master).expect("the terminal is ours");
        unlockpt(&master).expect("the terminal is ours");
        let size = Winsize {
            ws_row: ROWS.get(),
            ws_col: COLUMNS.get(),
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&master, size).expect("a terminal has a size");
        let name = ptsname(&master, Vec::new()).expect("a terminal has a name");
        let slave = OpenOptions::new()
            .read(true)
            .write(true)
            .open(name.to_str().expect("terminals have ASCII names"))
            .expect("the terminal can be opened");
        let copy = || {
            slave
                .try_clone()
                .expect("a descriptor can be doubled")
                .into()
        };

        let inner = root.command(&format!(
            "export TERM=linux DEBIAN_FRONTEND=dialog\n{script}"
        ));
        // The library that makes the terminal the process's own uses `unsafe` code.
        let child = Command::new("setsid")
            .args(["--ctty", "--wait"])
            .arg(inner.get_program())
            .args(inner.get_args())
            .stdin::<Stdio>(copy())
            .stdout::<Stdio>(copy())
            .stderr::<Stdio>(copy())
            .spawn()
            .expect("setsid runs");
        Self {
            child,
            master: File::from(master),
            screen: vt100::Parser::new(ROWS, COLUMNS, 0),
        }
    }

    /// Wait until the screen shows `text`, blanks and line breaks not counted.
    ///
    /// # Panics
    ///
    /// When the script ends or three minutes pass before that.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !squeezed(&self.text()).contains(&squeezed(text)) {
            assert!(
                self.read_some(deadline),
                "ended before `{text}`:\n{}",
                self.text()
            );
        }
    }

    /// Show what comes from the terminal next; false when its last user has closed it.
    #[track_caller]
    fn read_some(&mut self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).expect("minutes fit");
        let ready = poll(&mut [PollFd::new(&self.master, PollFlags::IN)], Some(&left))
            .expect("a terminal can be waited for");
        assert!(ready > 0, "waited in vain:\n{}", self.text());
        let mut buffer = [0; 4096];
        // The end is an input/output error here, and never 0 bytes.
        match self.master.read(&mut buffer) {
            Ok(count) if count > 0 => {
                self.screen.process(&buffer[..count]);
                true
            }
            _ => false,
        }
    }

    /// What the screen shows.
    pub fn text(&self) -> String {
        self.screen.screen().contents()
    }

    /// Press keys.
    #[track_caller]
    pub fn press(&mut self, keys: &str) {
        self.master
            .write_all(keys.as_bytes())
            .expect("the terminal is open");
    }

    /// Replace a field's content `old` by `new`, and see it there.
    #[track_caller]
    pub fn replace(&mut self, old: &str, new: &str) {
        self.press(&BACKSPACE.repeat(old.chars().count()));
        self.press(new);
        self.wait_for(new);
    }

    /// Wait for the script's end and return its exit status.
    #[track_caller]
    pub fn finish(mut self) -> i32 {
        let deadline = Instant::now() + PATIENCE;
        while self.read_some(deadline) {}
        self.status()
    }

    /// Close the terminal, as a lost connection does, and wait for the script's end.
    #[track_caller]
    pub fn hang_up(mut self) {
        let null = OpenOptions::new().read(true).open("/dev/null");
        drop(std::mem::replace(
            &mut self.master,
            null.expect("there is a null device"),
        ));
        self.status();
    }

    #[track_caller]
    fn status(&mut self) -> i32 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.child.try_wait().expect("it is our child") {
                Some(status) => return status.code().unwrap_or(-1),
                None if Instant::now() > deadline => panic!("does not end:\n{}", self.text()),
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A test that failed in the middle leaves no process behind: `unshare --kill-child` terminates the rest.
        if matches!(self.child.try_wait(), Ok(None)) && self.child.kill().is_ok() {
            drop(self.child.wait());
        }
    }
}

/// Without blanks, line breaks and the frames of windows, among which dialogues fold their texts.
fn squeezed(text: &str) -> String {
    text.chars()
        .filter(|character| {
            !character.is_whitespace() && !('\u{2500}'..='\u{257f}').contains(character)
        })
        .collect()
}
