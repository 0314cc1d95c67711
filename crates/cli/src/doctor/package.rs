//! The package's own files, and needrestart's.

use std::os::unix::fs::MetadataExt as _;

use buildbot_conda_core::paths;

use super::finding::{Check, Finding};
use super::scene::Scene;

const GENERATOR: &str = "/usr/lib/systemd/system-generators/buildbot-conda-generator";
/// The files without which nothing works, and whether they are programs.
const FILES: [(&str, bool); 8] = [
    (paths::CLI, true),
    (paths::LAUNCHER, true),
    (paths::RUNNER, false),
    (GENERATOR, true),
    ("/usr/lib/systemd/system/buildbot-master.service", false),
    ("/usr/lib/systemd/system/buildbot-master@.service", false),
    ("/usr/lib/systemd/system/buildbot-worker.service", false),
    ("/usr/lib/systemd/system/buildbot-worker@.service", false),
];
/// Directories whose entries root makes.
const STATE: [&str; 2] = ["/var/lib/buildbot-conda", paths::STATE];
const NEEDRESTART: &str = "/usr/sbin/needrestart";
const NEEDRESTART_FILE: &str = "/etc/needrestart/conf.d/buildbot-conda.conf";
/// What the package brings for needrestart.
const NEEDRESTART_TEXT: &str = include_str!("../../../../debian/needrestart.conf");
/// What of it counts.
const NEEDRESTART_WORDS: &str = "buildbot-worker";

pub(super) fn examine(scene: &Scene<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if scene.wants(Check::Package) {
        findings.extend(files(scene));
    }
    if scene.wants(Check::Needrestart) {
        findings.push(needrestart(scene));
    }
    findings
}

fn files(scene: &Scene<'_>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = FILES
        .iter()
        .filter_map(|(path, is_program)| file(path, *is_program, scene))
        .collect();
    findings.extend(STATE.iter().filter_map(|path| directory(path, scene)));
    if findings.is_empty() {
        findings.push(Finding::ok(Check::Package, None, "all files exist"));
    }
    findings
}

fn file(path: &str, is_program: bool, scene: &Scene<'_>) -> Option<Finding> {
    let path = scene.context.path(path);
    let name = path.to_string_lossy().into_owned();
    let problem = |seen: String| Finding::problem(Check::Package, None, seen);
    let Ok(metadata) = path.metadata() else {
        let finding = problem(format!("`{name}` is missing"));
        let reinstall = scene.there(["apt-get", "install", "--reinstall", "buildbot-conda"]);
        return Some(finding.command(reinstall));
    };
    if !scene.is_roots(metadata.uid()) {
        let seen = format!("`{name}` is owned by user {}, not by root", metadata.uid());
        return Some(problem(seen).safe(["chown", "root:root", &name]));
    }
    let wanted = if is_program { 0o755 } else { 0o644 };
    let mode = metadata.mode() & 0o7777;
    // Who else can write it decides what root runs; and services must be able to read it.
    (mode & 0o022 != 0 || mode & wanted != wanted).then(|| {
        let seen = format!("`{name}` has mode {mode:04o}, not {wanted:04o}");
        problem(seen).safe(["chmod", &format!("{wanted:04o}"), &name])
    })
}

/// Whoever can write it decides where root writes. systemd creates it if it is missing.
fn directory(path: &str, scene: &Scene<'_>) -> Option<Finding> {
    let path = scene.context.path(path);
    let metadata = path.symlink_metadata().ok()?;
    let name = path.to_string_lossy().into_owned();
    let problem = |seen: String| Finding::problem(Check::Package, None, seen);
    if !scene.is_roots(metadata.uid()) {
        let seen = format!("`{name}` is owned by user {}, not by root", metadata.uid());
        return Some(problem(seen).safe(["chown", "--no-dereference", "root:root", &name]));
    }
    let mode = metadata.mode() & 0o7777;
    (mode & 0o022 != 0).then(|| {
        let seen = format!("accounts other than root can write `{name}` (mode {mode:04o})");
        problem(seen).safe(["chmod", "go-w", &name])
    })
}

fn needrestart(scene: &Scene<'_>) -> Finding {
    if !scene.context.path(NEEDRESTART).exists() {
        return Finding::ok(Check::Needrestart, None, "needrestart is not installed");
    }
    let path = scene.context.path(NEEDRESTART_FILE);
    let is_told = std::fs::read_to_string(&path).is_ok_and(|text| {
        let lines = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.starts_with('#'));
        lines
            .into_iter()
            .any(|line| line.contains(NEEDRESTART_WORDS))
    });
    if is_told {
        return Finding::ok(
            Check::Needrestart,
            None,
            "needrestart does not restart workers",
        );
    }
    let name = path.to_string_lossy();
    let seen = format!(
        "needrestart is installed and `{name}` does not exclude workers: an upgrade of a library restarts \
         them and interrupts their builds"
    );
    let mut words = vec!["sh", "-c", r#"printf '%s\n' "$@" >"$0""#, &name];
    words.extend(
        NEEDRESTART_TEXT
            .lines()
            .filter(|line| !line.starts_with('#')),
    );
    let finding = Finding::warning(Check::Needrestart, None, seen);
    // A file with other content was changed by someone.
    if path.exists() {
        finding.command(words)
    } else {
        finding.safe(words)
    }
}
