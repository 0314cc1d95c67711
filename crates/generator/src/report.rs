//! Reports problems where they can be seen at this early stage: in the kernel log and on standard error.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{Mode, OFlags};

use buildbot_conda_host::below;

/// A record of the kernel log must be shorter than 1,024 bytes; a longer one is refused completely.
const RECORD_BYTES: usize = 900;
/// The kernel log is for a few lines; stderr gets them all.
const RECORDS: usize = 20;
/// Facility daemon, level warning, as syslog(2) expects at the beginning of a message.
const WARNING: &str = "<28>";

/// Where problems go.
pub(crate) struct Report {
    /// The kernel log, if there is one: containers do not have one.
    kernel: Option<File>,
    reported: AtomicUsize,
}

impl Report {
    /// Opens the kernel log below `root` if it exists; never creates anything.
    pub(crate) fn new(root: Option<&Path>) -> Self {
        Self {
            kernel: open_kernel_log(&below(root, "/dev/kmsg")),
            reported: AtomicUsize::new(0),
        }
    }

    /// A problem: `FILE:LINE:COLUMN: KEY: REASON`, then `hint:` on a separate line.
    pub(crate) fn problem(&self, text: &str) {
        talk(text);
        let Some(mut kernel) = self.kernel.as_ref() else {
            return;
        };
        let record = match self.reported.fetch_add(1, Ordering::Relaxed) {
            reported if reported < RECORDS => record(text),
            RECORDS => record("more problems: run `buildbot-conda check`"),
            _ => return,
        };
        // One write is one record. If the log accepts no records, there is nowhere else to report this.
        let _ = kernel.write_all(record.as_bytes());
    }
}

/// A message on stderr alone.
pub(crate) fn talk(text: &str) {
    // Standard error may be closed, which must not stop the work.
    let _ = writeln!(io::stderr(), "{text}");
}

fn open_kernel_log(path: &Path) -> Option<File> {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).ok()?);
    let is_device = file.metadata().ok()?.file_type().is_char_device();
    is_device.then_some(file)
}

/// One line, short enough, and without characters that control a terminal.
fn record(text: &str) -> String {
    let text: String = text
        .replace('\n', "; ")
        .chars()
        .map(|character| {
            if character.is_control() {
                '?'
            } else {
                character
            }
        })
        .collect();
    let end = text.floor_char_boundary(RECORD_BYTES);
    format!("{WARNING}buildbot-conda-generator: {}\n", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_short_line_of_text() {
        assert_eq!(
            record("a: b\nhint: c\u{1b}[31m"),
            "<28>buildbot-conda-generator: a: b; hint: c?[31m\n"
        );
        let long = record(&"é".repeat(2000));
        assert!(long.len() < 1000, "{} bytes", long.len());
        assert!(long.ends_with("é\n"));
    }
}
