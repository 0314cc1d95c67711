//! `buildbot-conda-generator [--root DIR] NORMAL EARLY LATE`: writes one drop-in for each instance of the
//! configuration, at boot and at every `daemon-reload`.
//!
//! systemd waits for its generators before it starts anything, so nothing here may block, take long or fail: drop-ins
//! of valid instances are written, problems are reported, and the exit status is always 0. The launcher refuses an
//! instance without a drop-in, with the reason.

#![warn(
    clippy::print_stderr,
    reason = "the macros of the standard library panic when nobody reads"
)]

mod arguments;
mod generate;
mod report;

use std::process;

use crate::arguments::Arguments;
use crate::report::Report;

fn main() {
    // With `panic = "abort"`, a bug would otherwise appear as a signal in the boot messages.
    std::panic::set_hook(Box::new(|panic| {
        Report::new(None).problem(&format!("internal error: {panic}"));
        process::exit(0);
    }));
    match Arguments::parse(std::env::args_os().skip(1)) {
        Ok(arguments) => generate::generate(&arguments, &Report::new(arguments.root())),
        Err(usage) => report::talk(&usage.to_string()),
    }
}
