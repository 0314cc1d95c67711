//! Pages of a machine's web server in a real browser: Debian's Chromium, in a root made for it and kept, so that nothing
//! is installed on this host.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use buildbot_conda_machine::{Layers, Machine, Release, with_packages};

/// The browser without a window, and letters for it.
const PACKAGES: &str = "chromium-headless-shell fonts-dejavu-core fonts-liberation";
/// Starting a browser on a machine that has other things to do.
const LIMIT: Duration = Duration::from_mins(3);
/// A picture of a page that is not there yet is far smaller, in bytes.
const SMALLEST: u64 = 10_000;
/// Most that a picture in the repository may have, in bytes.
const LARGEST: u64 = 250_000;

/// The root with the browser; made at the first call.
///
/// # Errors
///
/// What apt-get said.
pub(super) fn root() -> Result<Layers> {
    with_packages(Release::Trixie, "browser", PACKAGES)
}

/// Loads `url` from the machine's network, and writes a PNG of 1000 by 360 of the loaded page to `picture`.
///
/// # Errors
///
/// If the browser fails, or the text of the page does not contain `expected`.
pub(super) fn photograph(
    machine: &Machine,
    root: &Layers,
    url: &str,
    expected: &[&str],
    picture: &Path,
) -> Result<()> {
    let shared = tempfile::tempdir().context("create a scratch directory")?;
    let browse = |wish: &str| {
        // Chromium has no sandbox for root; the page is our own, and there is only the network of the machine.
        let words = [
            "chromium-headless-shell",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--force-color-profile=srgb",
            "--window-size=1000,360",
            "--virtual-time-budget=20000",
            wish,
            url,
        ];
        machine
            .run_beside(root.clone(), shared.path(), &words, LIMIT)?
            .succeeded()
    };
    let page = browse("--dump-dom")?.stdout;
    if let Some(missing) = expected.iter().find(|text| !page.contains(**text)) {
        bail!("find `{missing}` on `{url}`");
    }
    browse("--screenshot=/mnt/page.png")?;
    let made = shared.path().join("page.png");
    let size = fs::metadata(&made)
        .context("find the picture of a page")?
        .len();
    ensure!(
        (SMALLEST..=LARGEST).contains(&size),
        "the picture of `{url}` has {size} bytes"
    );
    fs::copy(&made, picture).with_context(|| format!("write `{}`", picture.display()))?;
    Ok(())
}
