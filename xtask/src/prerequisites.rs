//! What tests and the demonstration need from Debian beyond a Rust toolchain, Python and apt.
//!
//! Every missing package is named with its reason before apt-get installs it, as root or by sudo.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::deb::Target;

/// A Debian package, why it is needed, and how to check that it is installed.
struct Prerequisite {
    package: &'static str,
    reason: &'static str,
    /// A command that succeeds when the package is not needed any more.
    probe: &'static [&'static str],
}

const PYTHON: [Prerequisite; 2] = [
    Prerequisite {
        package: "python3",
        reason: "runs the tests of the runner and builds the Conda channel",
        probe: &["python3", "--version"],
    },
    Prerequisite {
        package: "python3-venv",
        reason: "separates the Python packages of the tests from those of the system",
        probe: &["python3", "-c", "import ensurepip, venv"],
    },
];

/// Programs that the tests of the runner start, or disturb, in addition to Buildbot.
const RUNNER_TESTS: [Prerequisite; 3] = [
    Prerequisite {
        package: "openssl",
        reason: "creates the certificates of masters",
        probe: &["openssl", "version"],
    },
    Prerequisite {
        package: "iproute2",
        reason: "creates the network between a worker and its master",
        probe: &["ip", "-Version"],
    },
    Prerequisite {
        package: "postgresql",
        reason: "is the database that becomes unavailable in tests",
        probe: &["sh", "-c", "ls /usr/lib/postgresql/*/bin/postgres"],
    },
];

const MACHINES: [Prerequisite; 3] = [
    Prerequisite {
        package: "mmdebstrap",
        reason: "creates the Debian roots of temporary machines",
        probe: &["mmdebstrap", "--version"],
    },
    Prerequisite {
        package: "systemd-container",
        reason: "boots temporary machines (systemd-nspawn)",
        probe: &["systemd-nspawn", "--version"],
    },
    Prerequisite {
        package: "curl",
        reason: "talks to Buildbot in temporary machines",
        probe: &["curl", "--version"],
    },
];

const PACKAGING: [Prerequisite; 3] = [
    Prerequisite {
        package: "dpkg-dev",
        reason: "reads debian/changelog and finds the package's library dependencies",
        probe: &["dpkg-shlibdeps", "--version"],
    },
    Prerequisite {
        package: "binutils",
        reason: "strips the programs that are packed",
        probe: &["strip", "--version"],
    },
    Prerequisite {
        package: "po-debconf",
        reason: "merges the translations of the package's questions, with gettext",
        probe: &["debconf-updatepo", "--help"],
    },
];

const ARM64: [Prerequisite; 3] = [
    Prerequisite {
        package: "gcc-aarch64-linux-gnu",
        reason: "compiles and links for arm64",
        probe: &["aarch64-linux-gnu-gcc", "--version"],
    },
    Prerequisite {
        package: "libc6-dev-arm64-cross",
        reason: "contains the C library of arm64",
        probe: &["test", "-e", "/usr/aarch64-linux-gnu/include/stdio.h"],
    },
    Prerequisite {
        package: "qemu-user-static",
        reason: "runs programs of arm64",
        probe: &["qemu-aarch64-static", "--version"],
    },
];

const EMULATION: [Prerequisite; 2] = [
    Prerequisite {
        package: "binfmt-support",
        reason: "registers programs of arm64 with the kernel",
        probe: &["update-binfmts", "--version"],
    },
    Prerequisite {
        package: "arch-test",
        reason: "shows mmdebstrap that programs of arm64 run",
        probe: &["arch-test", "--version"],
    },
];

const REPRODUCTION: [Prerequisite; 2] = [
    Prerequisite {
        package: "faketime",
        reason: "builds the package with another date",
        probe: &["faketime", "--version"],
    },
    Prerequisite {
        package: "diffoscope-minimal",
        reason: "shows the differences of two packages",
        probe: &["diffoscope", "--version"],
    },
];

const PACKAGE_TESTS: [Prerequisite; 2] = [
    Prerequisite {
        package: "groff",
        reason: "sets the manual pages",
        probe: &["groff", "--version"],
    },
    Prerequisite {
        package: "shellcheck",
        reason: "checks the maintainer scripts",
        probe: &["shellcheck", "--version"],
    },
];

/// Sees to what building the package needs.
///
/// # Errors
///
/// When something is missing and cannot be installed.
pub(crate) fn for_package(target: Target) -> Result<()> {
    install(PACKAGING.iter().chain(of_target(target)))
}

fn of_target(target: Target) -> &'static [Prerequisite] {
    match target {
        Target::Here => &[],
        Target::Arm64 => &ARM64,
    }
}

/// The names of the Debian packages that building the package needs.
pub(crate) fn packaging(target: Target) -> impl Iterator<Item = &'static str> {
    let prerequisites = PACKAGING.iter().chain(of_target(target));
    prerequisites.map(|prerequisite| prerequisite.package)
}

/// Sees to what building the package under other conditions needs.
///
/// # Errors
///
/// When something is missing and cannot be installed.
pub(crate) fn for_reproduction() -> Result<()> {
    install(PACKAGING.iter().chain(&REPRODUCTION))
}

/// Sees to what the tests in Python need.
///
/// # Errors
///
/// When something is missing and cannot be installed.
pub(crate) fn for_python() -> Result<()> {
    install(PYTHON.iter().chain(&RUNNER_TESTS))
}

/// Sees to what booted machines need.
///
/// # Errors
///
/// When something is missing and cannot be installed.
pub(crate) fn for_machines() -> Result<()> {
    install(PYTHON.iter().chain(&MACHINES))
}

/// Sees to what the demonstration needs.
///
/// # Errors
///
/// When something is missing and cannot be installed.
pub(crate) fn for_demo() -> Result<()> {
    install(PACKAGING.iter().chain(&PYTHON).chain(&MACHINES))
}

/// Installs everything that the whole suite needs, in one call, so that parallel parts do not wait for apt-get.
///
/// # Errors
///
/// If something is missing and cannot be installed.
pub(crate) fn for_tests() -> Result<()> {
    let packaging = PACKAGING.iter().chain(&REPRODUCTION);
    let tests = PYTHON.iter().chain(&RUNNER_TESTS).chain(&MACHINES);
    let tests = tests.chain(&PACKAGE_TESTS);
    install(packaging.chain(tests))
}

/// Sees to what the stage of arm64 needs.
///
/// # Errors
///
/// When something is missing and cannot be installed.
pub(crate) fn for_arm64() -> Result<()> {
    let packaging = PACKAGING.iter().chain(&ARM64);
    install(packaging.chain(&PYTHON).chain(&MACHINES).chain(&EMULATION))
}

/// Whether this process runs as root, which booting machines requires.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// This program, for others to run or copy as long as it runs: cargo may have replaced it meanwhile.
pub(crate) fn this_program() -> PathBuf {
    PathBuf::from(format!("/proc/{}/exe", std::process::id()))
}

/// A call of `program` by root, with sudo if need be.
pub(crate) fn as_root(program: &Path) -> Command {
    if is_root() {
        return Command::new(program);
    }
    // sudo sets its own PATH, which may contain another Python.
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("sudo");
    command
        .args(["--preserve-env", "env"])
        .arg(format!("PATH={path}"))
        .arg(program);
    command
}

fn install<'a>(prerequisites: impl Iterator<Item = &'a Prerequisite>) -> Result<()> {
    let missing: Vec<_> = prerequisites
        .filter(|prerequisite| !is_there(prerequisite))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<_> = missing
        .iter()
        .map(|prerequisite| prerequisite.package)
        .collect();
    eprintln!("installing from Debian's archive with apt-get:");
    for prerequisite in &missing {
        eprintln!("  {}: {}", prerequisite.package, prerequisite.reason);
    }
    apt_get(&["update", "--quiet"])?;
    apt_get(
        &[
            &["install", "--yes", "--quiet", "--no-install-recommends"],
            &packages[..],
        ]
        .concat(),
    )?;
    for prerequisite in missing {
        ensure!(
            is_there(prerequisite),
            "`{}` still fails after `{}` was installed\nhint: another `{}` may come first on PATH",
            prerequisite.probe.join(" "),
            prerequisite.package,
            prerequisite.probe[0],
        );
    }
    Ok(())
}

fn is_there(prerequisite: &Prerequisite) -> bool {
    let mut probe = Command::new(prerequisite.probe[0]);
    probe
        .args(&prerequisite.probe[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(if is_root() { "env" } else { "sudo" });
    if !is_root() {
        command.arg("env");
    }
    // Another apt-get is waited for; its questions would have no one to answer them.
    command
        .args([
            "DEBIAN_FRONTEND=noninteractive",
            "apt-get",
            "-o",
            "DPkg::Lock::Timeout=300",
        ])
        .args(arguments);
    // stdout is for results.
    command.stdin(Stdio::null()).stdout(std::io::stderr());
    let status = command
        .status()
        .context("start apt-get\nhint: run this as root, or install sudo")?;
    if !status.success() {
        bail!("run `apt-get {}`: {status}", arguments.join(" "));
    }
    Ok(())
}
