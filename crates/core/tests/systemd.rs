//! How the installed systemd reads our units and drop-ins: every value exactly as it was written, without warnings, and
//! with the promised rating of the sandbox.
//!
//! Nothing is started. `systemd --test` loads units and prints them, as the user `nobody`, because it refuses to do so
//! as root. Without systemd on the machine, these tests report this and do nothing; the tests on booted machines cover
//! this.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the test hands the pure crate's output to the programs of systemd"
)]

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use buildbot_conda_core::dropin::DropIn;
use buildbot_conda_core::settings::Settings;
use buildbot_conda_core::{paths, unit};
use tempfile::TempDir;

/// Directories that must reach systemd byte for byte.
const HOSTILE: [&str; 14] = [
    "/srv/plain",
    "/srv/a b  c",
    "/srv/blank ",
    "/srv/%n %i %% 100%",
    "/srv/a \"b\" 'c'",
    "/srv/it's",
    "/srv/a\\b\\\\c",
    "/srv/backslash\\",
    "/srv/a:b",
    "/-x/-y",
    "/!srv/|a",
    "/srv/#a;b",
    "/srv/$HOME${x}`y`",
    "/srv/é\u{a0}船",
];

/// A directory laid out as a root directory, with our units in it.
struct Root(TempDir);

impl Root {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a scratch directory");
        // The user `nobody` of `systemd --test` reads it too.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("it is ours");
        let root = Self(directory);
        for program in [paths::LAUNCHER, paths::CLI] {
            root.write(program, "#!/bin/sh\n");
            fs::set_permissions(root.path(program), Permissions::from_mode(0o755))
                .expect("it is ours");
        }
        for target in ["sysinit", "basic", "shutdown", "multi-user"] {
            root.write(&format!("{}/{target}.target", paths::UNITS), "[Unit]\n");
        }
        for file in unit::files() {
            root.write(&format!("{}/{}", paths::UNITS, file.name), &file.text);
        }
        root
    }

    /// The root with the drop-ins of a configuration, and the names of their units.
    fn configured(config: &str) -> (Self, Vec<String>) {
        let root = Self::new();
        let settings = Settings::parse("config.toml", config.as_bytes());
        settings.check().expect("the configuration is good");
        let mut units = Vec::new();
        for instance in settings.instances() {
            let drop_in = DropIn::of(instance).expect("every value can be written");
            let text = drop_in.text();
            let directory = drop_in.directory_name();
            root.write(
                &format!("{}/{directory}/{}", paths::UNITS, paths::DROP_IN),
                &text,
            );
            units.push(instance.reference.unit_name());
        }
        (root, units)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path.trim_start_matches('/'))
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a file is in a directory")).expect("it is ours");
        fs::write(path, text).expect("it is ours");
    }
}

/// What a program printed on both streams, and whether it was content.
fn run(command: &mut Command) -> (bool, String) {
    let output = command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("LC_ALL", "C")
        .output()
        .expect("it was there a moment ago");
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

/// systemd's version where it is installed.
fn systemd() -> Option<u32> {
    let missing = [
        "/usr/bin/systemd-analyze",
        "/usr/lib/systemd/systemd",
        "/usr/bin/setpriv",
    ]
    .into_iter()
    .find(|program| !Path::new(program).exists());
    if let Some(program) = missing {
        eprintln!("skipped: {program} is not installed");
        return None;
    }
    let (_, text) = run(Command::new("systemd-analyze").arg("--version"));
    let version = text
        .split_whitespace()
        .nth(1)?
        .split(['.', '~', '-'])
        .next()?;
    version.parse().ok()
}

/// The units as systemd has loaded them, in the format of its dump.
fn loaded(root: &Root, unit: &str) -> String {
    let am_root = fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0);
    let mut command = if am_root {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.args(["env", "XDG_RUNTIME_DIR=/tmp", "HOME=/tmp"]);
        command
    } else {
        let mut command = Command::new("env");
        command.args(["XDG_RUNTIME_DIR=/tmp", "HOME=/tmp"]);
        command
    };
    let units = root.path(paths::UNITS);
    command.arg(format!("SYSTEMD_UNIT_PATH={}", units.display()));
    command.args(["/usr/lib/systemd/systemd", "--test", "--system"]);
    command.arg(format!("--unit={unit}"));
    let (_, text) = run(&mut command);
    let start = format!("-> Unit {unit}:");
    let text = text.split_once(&start).map_or("", |(_, after)| after);
    let end = text.find("\t-> Unit ").unwrap_or(text.len());
    text[..end].to_owned()
}

#[track_caller]
fn has_line(dump: &str, line: &str) {
    assert!(
        dump.lines()
            .any(|candidate| candidate.trim_start_matches('\t') == line),
        "systemd did not read `{line}` from\n{dump}"
    );
}

fn toml_text(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[test]
fn systemd_reads_every_directory_back_as_it_was_written() {
    if systemd().is_none() {
        return;
    }
    for directory in HOSTILE {
        let text = toml_text(directory);
        let (root, units) = Root::configured(&format!("[\"worker@a\"]\ndirectory = {text}\n"));
        let dump = loaded(&root, &units[0]);
        has_line(
            &dump,
            &format!("ConditionDirectoryNotEmpty: |{directory} untested"),
        );
        has_line(
            &dump,
            &format!("RequiresMountsFor: {directory} (origin-file)"),
        );
        has_line(&dump, &format!("ReadWritePaths: -{directory}"));
    }
}

#[test]
fn systemd_reads_every_bind_mount_back_as_it_was_written() {
    if systemd().is_none() {
        return;
    }
    for directory in HOSTILE
        .into_iter()
        .filter(|path| !path.contains(['"', '\'']))
    {
        let text = toml_text(directory);
        let (root, units) = Root::configured(&format!(
            "[\"worker@a\"]\nhardening = \"strict\"\ndirectory = {text}\n"
        ));
        let dump = loaded(&root, &units[0]);
        has_line(&dump, &format!("BindPaths: -{directory}:{directory}:rbind"));
    }
}

#[test]
fn systemd_reads_limits_and_accounts_as_configured() {
    if systemd().is_none() {
        return;
    }
    let (root, units) = Root::configured(
        "[worker]\nuser = \"builder\"\ngroup = \"builders\"\ndrain = \"1h\"\n\
         start-timeout = \"3min\"\nwatchdog = \"off\"\n",
    );
    let dump = loaded(&root, &units[0]);
    for line in [
        "User: builder",
        "Group: builders",
        "TimeoutStartSec: 3min 30s",
        "TimeoutStopSec: 1h 1min 30s",
        "WatchdogSec: 0",
        "Command Line: /usr/libexec/buildbot-conda/launcher worker",
        "RuntimeDirectory: buildbot-conda/worker",
        "StateDirectory: buildbot-conda/instances/worker",
    ] {
        has_line(&dump, line);
    }
}

#[test]
fn a_named_instance_finds_its_own_directories_and_credentials() {
    if systemd().is_none() {
        return;
    }
    let (root, units) = Root::configured("[\"master@nightly\"]\ndirectory = \"/srv/nightly\"\n");
    // The dump is made for a shell, and its quoting differs between versions.
    let dump = loaded(&root, &units[0]).replace(['"', '\\'], "");
    for line in [
        "Command Line: /usr/libexec/buildbot-conda/launcher master nightly",
        "Command Line: /usr/bin/buildbot-conda service reload master@nightly --credentials \
         /run/credentials/buildbot-master@nightly.service",
        "RuntimeDirectory: buildbot-conda/master@nightly",
        "StateDirectory: buildbot-conda/instances/master@nightly",
    ] {
        has_line(&dump, line);
    }
}

#[test]
fn systemd_has_no_complaint_about_any_profile() {
    if systemd().is_none() {
        return;
    }
    let mut tables = vec!["[defaults.credentials]\npassword = \"worker:100%\"\n".to_owned()];
    for role in ["master", "worker"] {
        tables.push(format!("[{role}]\n"));
        for profile in ["standard", "strict", "none"] {
            tables.push(format!(
                "[\"{role}@{profile}\"]\ndirectory = '/srv/{role} %n\\{profile}'\n\
                 hardening = \"{profile}\"\n"
            ));
        }
    }
    let (root, mut units) = Root::configured(&tables.concat());
    // A unit that has no entry in the configuration, thus no drop-in.
    units.push("buildbot-worker@other.service".to_owned());
    for unit in units {
        let mut verify = Command::new("systemd-analyze");
        verify.args(["verify", "--man=no"]).arg(&unit);
        verify.arg(format!("--root={}", root.0.path().display()));
        assert_eq!(run(&mut verify), (true, String::new()), "{unit}");
    }
}

#[test]
fn exposure_is_as_low_as_promised() {
    // `--offline` came with version 250.
    if systemd().is_none_or(|version| version < 250) {
        return;
    }
    for (role, profile, threshold) in [
        ("master", "standard", 15),
        ("master", "strict", 15),
        ("worker", "strict", 31),
        ("worker", "standard", 86),
    ] {
        let (root, units) = Root::configured(&format!("[{role}]\nhardening = \"{profile}\"\n"));
        let mut security = Command::new("systemd-analyze");
        security.args(["security", "--offline=true", "--no-pager"]);
        security.arg(format!("--threshold={threshold}"));
        security.arg(format!("--root={}", root.0.path().display()));
        let (low, text) = run(security.arg(&units[0]));
        assert!(low, "{role} {profile} is above {threshold} tenths:\n{text}");
    }
}
