//! `cargo xtask fuzz`: the properties that `cargo test` tries with the same few inputs, in round after round with many
//! others.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};

/// Inputs for each property in a round.
const CASES: u32 = 1 << 12;

/// All properties are in modules of this name.
const PROPERTIES: [&str; 5] = ["test", "--quiet", "--lib", "--bins", "properties::"];

/// How long to try.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Begin no round after so many seconds
    #[arg(long, default_value_t = 300, value_name = "N")]
    seconds: u64,
}

/// Tries until the time is over, or a property does not hold.
pub(crate) fn run(workspace: &Path, arguments: &Arguments) -> Result<()> {
    let begun = Instant::now();
    let limit = Duration::from_secs(arguments.seconds);
    // Of this round; the following ones continue counting.
    let mut seed = UNIX_EPOCH.elapsed().context("read the clock")?.as_secs();
    let mut rounds = 0;
    while rounds == 0 || begun.elapsed() < limit {
        let status = Command::new("cargo")
            .current_dir(workspace)
            .args(PROPERTIES)
            .env("PROPTEST_CASES", CASES.to_string())
            .env("PROPTEST_RNG_SEED", seed.to_string())
            .status()
            .context("start cargo")?;
        ensure!(
            status.success(),
            "a property does not hold\nhint: reproduce it with `PROPTEST_CASES={CASES} PROPTEST_RNG_SEED={seed} cargo {}`",
            PROPERTIES.join(" ")
        );
        seed += 1;
        rounds += 1;
    }
    eprintln!("all properties hold: {rounds} rounds of {CASES} inputs");
    Ok(())
}
