//! What the seconds of a run are spent on: a line in `target/timings/machine.tsv` for each boot, layer, scenario and
//! machine. The columns are the test program, the test, what it was, wall-clock seconds and, for a machine, the
//! processor's seconds in it.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::time::Duration;

use crate::places::workspace;

/// Adds a line. A run does not fail because its seconds cannot be kept.
pub(crate) fn record(kind: &str, took: Duration, busy: Option<Duration>) {
    let program = std::env::current_exe().unwrap_or_default();
    let program = program.file_stem().unwrap_or_default().to_string_lossy();
    // cargo adds a hyphen and a hash.
    let program = program.rsplit_once('-').map_or(&*program, |(name, _)| name);
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("-");
    let busy = busy.map_or_else(String::new, |busy| format!("{:.2}", busy.as_secs_f64()));
    let line = format!(
        "{program}\t{test}\t{kind}\t{:.2}\t{busy}\n",
        took.as_secs_f64()
    );
    let directory = workspace().join("target/timings");
    let _ = fs::create_dir_all(&directory).and_then(|()| {
        let path = directory.join("machine.tsv");
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        // In a single write: other programs add their lines at the same time.
        file.write_all(line.as_bytes())
    });
}
