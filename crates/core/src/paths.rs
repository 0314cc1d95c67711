//! Every path of the package, declared once. The programs prepend `--root DIR`.

use crate::names::InstanceRef;

/// The administrator's configuration file.
pub const CONFIGURATION: &str = "/etc/buildbot-conda/config.toml";
/// Secrets, one file each; relative files of `credentials` tables lie here. Mode 0700, root.
pub const CREDENTIALS: &str = "/etc/buildbot-conda/credentials";
/// What the units start.
pub const LAUNCHER: &str = "/usr/libexec/buildbot-conda/launcher";
/// The Python file that runs Buildbot in the foreground.
pub const RUNNER: &str = "/usr/libexec/buildbot-conda/runner.py";
/// The command line, called by the units for reload and stop.
pub const CLI: &str = "/usr/bin/buildbot-conda";
/// Parent of the instances' run-time directories.
pub const RUN: &str = "/run/buildbot-conda";
/// Parent of the instances' state directories; belongs to root.
pub const STATE: &str = "/var/lib/buildbot-conda/instances";
/// Parent of the directories with backups of masters' databases; belongs to root. They are in no directory that systemd
/// has made for a unit, because `systemctl clean` removes those.
pub const BACKUPS: &str = "/var/lib/buildbot-conda/backups";
/// Parent of the managed environments; belongs to root. An environment NAME is entered through `NAME/current`.
pub const ENVIRONMENTS: &str = "/var/lib/buildbot-conda/envs";
/// Archives and unpacked packages for managed environments. Mode 0700, root.
pub const PACKAGE_CACHE: &str = "/var/cache/buildbot-conda";
/// What makes managed environments; of the package `buildbot-conda-env`.
pub const ENVIRONMENT_BUILDER: &str = "/usr/libexec/buildbot-conda/env";
/// The file with the default packages of an environment.
pub const ENVIRONMENT_FILE: &str = "/usr/share/buildbot-conda/environment.yml";
/// Where the package's unit files are.
pub const UNITS: &str = "/usr/lib/systemd/system";
/// Where systemd has the generator write on an ordinary boot, systemd.generator(7).
pub const GENERATED: &str = "/run/systemd/generator";
/// File name of the drop-in that the generator writes for each instance.
pub const DROP_IN: &str = "10-buildbot-conda.conf";
/// Starter configuration that a first installation copies to [`CONFIGURATION`].
pub const STARTER: &str = "/usr/share/buildbot-conda/config.toml";

/// The prefix under which a managed environment is configured: a link to the generation that serves.
pub fn managed_prefix(name: &str) -> String {
    format!("{ENVIRONMENTS}/{name}/current")
}

/// `/run/buildbot-conda/REFERENCE`, the instance's user.
pub fn run_directory(reference: &InstanceRef) -> String {
    format!("{RUN}/{reference}")
}

/// The one of our directories among those that systemd names in a variable such as `RUNTIME_DIRECTORY`, systemd.exec(5):
/// a drop-in may add others to the unit's own, and a colon is between them. `path` is where it is on a host; the tests'
/// are elsewhere.
pub fn own_directory<'v>(value: &'v str, path: &str) -> &'v str {
    let mut directories = value.split(':');
    directories
        .clone()
        .find(|directory| *directory == path)
        .or_else(|| directories.next())
        .unwrap_or_default()
}

/// `/run/buildbot-conda/REFERENCE/status.json`, written by the runner.
pub fn status_file(reference: &InstanceRef) -> String {
    format!("{RUN}/{reference}/status.json")
}

/// `/var/lib/buildbot-conda/instances/REFERENCE/status.json`: there while the runner cannot write the other one.
pub fn spare_status_file(reference: &InstanceRef) -> String {
    format!("{STATE}/{reference}/status.json")
}

/// `/run/buildbot-conda/REFERENCE/reload`: a reload waits for a new start in the process whose number it holds. The runner
/// has the name, too.
pub fn reload_mark(reference: &InstanceRef) -> String {
    format!("{RUN}/{reference}/reload")
}

/// `/run/buildbot-conda/REFERENCE/workers`: where a master listens for workers on this host. Only the account of the
/// master can create anything there.
pub fn worker_socket(reference: &InstanceRef) -> String {
    format!("{RUN}/{reference}/workers")
}

/// `/var/lib/buildbot-conda/instances/REFERENCE/served`: the instance has run before. The runner has the name, too.
pub fn served_mark(reference: &InstanceRef) -> String {
    format!("{STATE}/{reference}/served")
}

/// `/var/lib/buildbot-conda/backups/REFERENCE`, mode 0700, the master's user. The runner has the name, too.
pub fn backup_directory(reference: &InstanceRef) -> String {
    format!("{BACKUPS}/{reference}")
}

/// `/var/lib/buildbot-conda/instances/REFERENCE`, mode 0700, the instance's user.
pub fn state_directory(reference: &InstanceRef) -> String {
    format!("{STATE}/{reference}")
}
