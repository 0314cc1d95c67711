//! How `list` and `status` show their rows: as a table or JSON, once or repeatedly, with the exit status for
//! monitoring. `survey` provides the rows.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;

use crate::output;
use crate::survey::{NOT_SET_UP, Row, STANDBY};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Exit with status 1 if an enabled instance, or the given one, is not active
    #[arg(long)]
    fail_if_down: bool,
    /// Refresh the output every 2 seconds until interrupted
    #[arg(long, conflicts_with_all = ["json", "fail_if_down"])]
    watch: bool,
}

/// Time between two pictures of `--watch`.
const INTERVAL: Duration = Duration::from_secs(2);
/// ECMA-48: the cursor goes to the upper left corner, and everything after it is erased.
const CLEAR: &str = "\x1b[H\x1b[J";

/// Shows the rows in the form of `text`. `named` states that a single instance was asked for.
pub(crate) fn show(
    options: &Options,
    named: bool,
    read_rows: impl Fn() -> anyhow::Result<Vec<Row>>,
    text: impl Fn(&[Row]) -> String,
) -> anyhow::Result<ExitCode> {
    if options.watch {
        if !io::stdout().is_terminal() {
            bail!("`--watch` needs a terminal\nhint: programs use `--json`");
        }
        loop {
            let picture = text(&read_rows()?);
            output::print(format_args!("{CLEAR}{picture}"))?;
            thread::sleep(INTERVAL);
        }
    }
    let rows = read_rows()?;
    if options.json {
        let json = serde_json::to_string_pretty(&rows).context("write JSON")?;
        output::print(format_args!("{json}\n"))?;
    } else {
        output::print(text(&rows))?;
    }
    let mut states = rows.iter().map(|row| (row.state.as_str(), row.enabled));
    let down = states.any(|(state, enabled)| is_down(state, enabled, named));
    Ok(ExitCode::from(u8::from(options.fail_if_down && down)))
}

/// An instance that is not started at boot, or is not set up yet, is not missing unless it is asked for by name.
fn is_down(state: &str, enabled: Option<bool>, named: bool) -> bool {
    let serves = matches!(state, "active" | "reloading" | STANDBY);
    !serves && (named || (enabled != Some(false) && state != NOT_SET_UP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_enabled_is_missed_only_by_its_name() {
        for (state, enabled, of_all, named) in [
            ("active", Some(true), false, false),
            ("reloading", Some(true), false, false),
            (STANDBY, Some(true), false, false),
            ("active", Some(false), false, false),
            ("failed", Some(true), true, true),
            ("activating", Some(true), true, true),
            (NOT_SET_UP, Some(true), false, true),
            ("inactive", Some(false), false, true),
            ("unknown", None, true, true),
        ] {
            assert_eq!(is_down(state, enabled, false), of_all, "{state}");
            assert_eq!(is_down(state, enabled, true), named, "{state}");
        }
    }
}
