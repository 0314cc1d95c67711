//! What a machine of arm64 has on a host of another kind, where an emulator runs its programs: an environment made of
//! Debian's own Python and of wheels, since nothing here could pack a `CPython` for it.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::conda::{PREFIX, Version, pip};
use crate::{cache, process};

/// Its content is pinned.
const FOR_EVER: Duration = Duration::MAX;

/// The release whose root is below it.
const PYTHON: &str = "3.11";

/// Wheels for the glibc of that release and for earlier ones; pip wants each by its name.
const PLATFORMS: [&str; 6] = ["2_36", "2_34", "2_28", "2_26", "2_17", "2014"];

/// Buildbot's commands, with the modules that they call.
const COMMANDS: [(&str, &str); 2] = [
    ("buildbot", "buildbot.scripts.runner"),
    ("buildbot-worker", "buildbot_worker.scripts.runner"),
];

/// Makes the kernel run arm64 programs with the emulator, in every root.
///
/// # Errors
///
/// If binfmt-support does not know the emulator.
pub(crate) fn enable() -> Result<()> {
    let mut command = Command::new("update-binfmts");
    command.args(["--enable", "qemu-aarch64"]);
    process::run(&mut command, b"", Duration::from_mins(1))?.succeeded()?;
    Ok(())
}

/// A tree to lay over the root, with Buildbot at [`PREFIX`] and all else that Conda would have left there.
///
/// # Errors
///
/// When a wheel cannot be had.
pub(crate) fn environment() -> Result<PathBuf> {
    let requirements = Version::V4_3_0.requirements();
    let pins = fs::read_to_string(&requirements).context("read pins")?;
    let key = cache::key(&[include_str!("emulated.rs"), &pins]);
    cache::entry("environment-arm64", &key, FOR_EVER, |tree| {
        let prefix = tree.join(PREFIX.trim_start_matches('/'));
        for directory in ["bin", "conda-meta"] {
            fs::create_dir_all(prefix.join(directory)).context("create a directory of a prefix")?;
        }
        write(&prefix.join("conda-meta/history"), "", 0o644)?;
        write(&prefix.join("pyvenv.cfg"), "home = /usr/bin\n", 0o644)?;
        symlink(
            format!("/usr/bin/python{PYTHON}"),
            prefix.join("bin/python"),
        )
        .context("link Python")?;
        for (name, module) in COMMANDS {
            let text = format!("#!{PREFIX}/bin/python\nfrom {module} import run\nrun()\n");
            write(&prefix.join("bin").join(name), &text, 0o755)?;
        }
        let mut words: Vec<String> = ["--no-deps", "--only-binary=:all:"]
            .map(str::to_owned)
            .into();
        let platforms = PLATFORMS.map(|version| {
            let manylinux = if version == "2014" {
                "manylinux"
            } else {
                "manylinux_"
            };
            format!("--platform={manylinux}{version}_aarch64")
        });
        words.extend(platforms);
        words.push(format!("--python-version={PYTHON}"));
        let site_packages = prefix.join(format!("lib/python{PYTHON}/site-packages"));
        words.push(format!("--target={}", site_packages.display()));
        words.push(format!("--requirement={}", requirements.display()));
        pip("install", &words)
    })
}

fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    fs::write(path, text)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
        .with_context(|| format!("write `{}`", path.display()))
}
