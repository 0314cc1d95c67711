//! Where root finds programs: in the system's directories. A caller's `PATH` may start with those of a Conda
//! environment, whose `systemctl`, `getent` or `setpriv` root would run.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use buildbot_conda_core::paths;
use buildbot_conda_host::trusted::Trust;

/// What root gets instead.
const SYSTEM: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// Programs that an administrator has installed; used if root alone can write them.
const LOCAL: [&str; 2] = ["/usr/local/sbin", "/usr/local/bin"];
/// Where the caller's own is kept for [`callers_environment`].
const CALLERS: &str = "BUILDBOT_CONDA_CALLERS_PATH";

/// Restarts this program with the system's `PATH` if root has called it with another one. A process cannot change its
/// own environment safely, and every program that it starts inherits it.
///
/// # Errors
///
/// If this program cannot be executed again.
pub(crate) fn settle() -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    // Without any, the C library has one of the system.
    let Some(callers) = env::var_os("PATH").filter(|path| !is_systems(path)) else {
        return Ok(());
    };
    let program = env::current_exe().unwrap_or_else(|_| PathBuf::from(paths::CLI));
    let mut arguments = env::args_os();
    let mut command = Command::new(program);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.args(arguments);
    Err(command.env("PATH", SYSTEM).env(CALLERS, callers).exec())
}

fn is_systems(path: &OsStr) -> bool {
    let trust = Trust::of_root(None);
    let is_trusted = |directory: &Path| {
        let found = trust.find(directory);
        found.map_or_else(|untrusted| untrusted.is_missing(), |_| true)
    };
    !path.is_empty()
        && env::split_paths(path).all(|directory| {
            SYSTEM.split(':').any(|name| directory == Path::new(name))
                || LOCAL.iter().any(|name| directory == Path::new(name)) && is_trusted(&directory)
        })
}

/// The caller's environment, for the caller's own command.
pub(crate) fn callers_environment() -> impl Iterator<Item = (OsString, OsString)> {
    let callers = env::var_os(CALLERS);
    env::vars_os().filter_map(move |(name, value)| match &callers {
        Some(_) if name == CALLERS => None,
        Some(callers) if name == "PATH" => Some((name, callers.clone())),
        _ => Some((name, value)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directories_of_the_system_count_as_such() {
        for path in [SYSTEM, "/usr/bin:/bin", "/bin"] {
            assert!(is_systems(OsStr::new(path)), "{path}");
        }
        for path in [
            "",
            ":/usr/bin",
            "/usr/bin:",
            ".:/usr/bin",
            "/opt/conda/bin:/usr/bin:/bin",
            "/usr/bin:/root/bin",
            "/usr/bin/../../tmp",
            "usr/bin",
        ] {
            assert!(!is_systems(OsStr::new(path)), "{path}");
        }
    }
}
