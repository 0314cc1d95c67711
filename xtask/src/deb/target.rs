//! The machines for which a package is built: the type of this machine, or arm64 with Debian's cross compiler.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use anyhow::Result;

use super::command::{output, run_on_stderr};

/// What rustc calls it.
const ARM64: &str = "aarch64-unknown-linux-gnu";

/// Where Debian's cross packages have the libraries of arm64.
const ARM64_ROOT: &str = "/usr/aarch64-linux-gnu";

/// For cargo and for the C compiler.
const ARM64_VARIABLES: [(&str, &str); 3] = [
    (
        "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER",
        "aarch64-linux-gnu-gcc",
    ),
    ("CC_aarch64_unknown_linux_gnu", "aarch64-linux-gnu-gcc"),
    ("AR_aarch64_unknown_linux_gnu", "aarch64-linux-gnu-ar"),
];

/// The kind of machine that a package is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Target {
    /// That of this machine.
    #[default]
    Here,
    /// arm64, where this machine is another one.
    Arm64,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(triple: &str) -> Result<Self, String> {
        match triple {
            _ if triple == here() => Ok(Self::Here),
            ARM64 => Ok(Self::Arm64),
            _ => Err(format!("expected `{}` or `{ARM64}`", here())),
        }
    }
}

/// What rustc calls this machine.
fn here() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

impl Target {
    /// What rustc calls it.
    pub(super) fn triple(self) -> String {
        self.other().map_or_else(here, str::to_owned)
    }

    /// The same where it is not this machine's.
    fn other(self) -> Option<&'static str> {
        (self == Self::Arm64).then_some(ARM64)
    }

    /// `--target` and its value, for cargo, cargo-deb and `cargo xtask deb`; nothing for this machine.
    pub(crate) fn arguments(self) -> impl Iterator<Item = &'static str> {
        let triple = self.other().into_iter();
        triple.flat_map(|triple| ["--target", triple])
    }

    /// What cargo needs in its environment.
    pub(super) fn variables(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Here => &[],
            Self::Arm64 => &ARM64_VARIABLES,
        }
    }

    /// Where cargo puts what it builds in the build directory.
    pub(super) fn directory(self, build_directory: &Path) -> PathBuf {
        build_directory.join(self.other().unwrap_or_default())
    }

    /// A call of a program that was built, by an emulator where this machine cannot run it.
    pub(super) fn call(self, program: &Path) -> Command {
        match self {
            Self::Here => Command::new(program),
            Self::Arm64 => {
                let mut command = Command::new("qemu-aarch64-static");
                // Its own loader would try to load a library of this machine's.
                command.args(["-U", "LD_PRELOAD", "-L", ARM64_ROOT]);
                command.arg(program);
                command
            }
        }
    }

    /// Adds the standard library of the toolchain that builds, where it is not there yet.
    ///
    /// # Errors
    ///
    /// When rustup cannot.
    pub(super) fn install(self, workspace: &Path) -> Result<()> {
        let Some(triple) = self.other() else {
            return Ok(());
        };
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let libraries = output(Command::new(rustc).current_dir(workspace).args([
            "--print",
            "target-libdir",
            "--target",
            triple,
        ]))?;
        if Path::new(&libraries).is_dir() {
            return Ok(());
        }
        run_on_stderr(
            Command::new("rustup")
                .current_dir(workspace)
                .args(["target", "add", triple]),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_targets_are_this_machines_and_arm64() {
        assert_eq!(here().parse(), Ok(Target::Here));
        let arm64 = ARM64.parse::<Target>().expect("it is known");
        assert_eq!(arm64.triple(), ARM64);
        assert!("arm64".parse::<Target>().is_err());
    }
}
