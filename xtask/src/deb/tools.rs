//! cargo-deb in one fixed version, installed into the user's cache directory.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;

use anyhow::Result;
use buildbot_conda_machine::cache_directory;

use super::command::run_on_stderr;

/// Other versions write other bytes.
pub(crate) const CARGO_DEB_VERSION: &str = "3.8.0";

/// It packs for seconds, and its output does not depend on how it was compiled, so compiling should be fast. Only the
/// compressor, which is in C, needs computing time.
const QUICKLY: [(&str, &str); 5] = [
    ("CFLAGS", "-O2"),
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0"),
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
    ("CARGO_PROFILE_RELEASE_DEBUG", "false"),
];

/// Where it is installed.
pub(crate) fn directory() -> PathBuf {
    cache_directory().join(format!("cargo-deb-{CARGO_DEB_VERSION}"))
}

/// The path of cargo-deb, installed when it is not there yet.
pub(super) fn cargo_deb() -> Result<PathBuf> {
    // Two packages may be built at once.
    static INSTALLATION: Mutex<()> = Mutex::new(());
    let _alone = INSTALLATION.lock().expect("installing does not panic");
    let root = directory();
    let program = root.join("bin/cargo-deb");
    if program.is_file() {
        return Ok(program);
    }
    eprintln!(
        "installing cargo-deb {CARGO_DEB_VERSION} into `{}`",
        root.display()
    );
    // The system's liblzma would make the compressed bytes depend on the machine.
    run_on_stderr(
        Command::new(super::cargo())
            .args(["install", "cargo-deb", "--locked"])
            .args([
                "--version",
                CARGO_DEB_VERSION,
                "--features",
                "static-lzma",
                "--root",
            ])
            .arg(&root)
            .envs(QUICKLY),
    )?;
    Ok(program)
}
