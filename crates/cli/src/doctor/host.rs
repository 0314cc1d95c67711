//! The machine: clock, free space, kernel and systemd, and the boot target.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use buildbot_conda_core::paths;
use buildbot_conda_core::settings::Hardening;
use buildbot_conda_host::systemd::STRICT_SYSTEMD;
use rustix::process::PidfdFlags;

use super::finding::{Check, Finding};
use super::scene::Scene;
use crate::system::systemd::{self, systemctl};

/// Below this many free bytes a database cannot be backed up, and soon not be written.
const ROOM: u64 = 128 << 20;
/// Below this many free inodes builds fail.
const INODES: u64 = 1000;
/// A file system with less than one part in this is filling up ...
const PART: u64 = 20;
/// ... unless so many bytes are left.
const PLENTY: u64 = 10 << 30;
/// What the units need: `LoadCredential=` with `SetCredential=`, `ExtendTimeout`, `%n` in `ExecStop=`.
const OLDEST_SYSTEMD: u32 = 247;

pub(super) fn examine(scene: &Scene<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if scene.wants(Check::Space) {
        findings.extend(space(scene));
    }
    if scene.context.is_elsewhere() {
        if scene.wants(Check::BootTarget) {
            findings.push(boot_target_on_disk(scene));
        }
        let unseen = |check| Finding::unseen(check, None, "not checked for another machine");
        findings.extend([unseen(Check::Clock), unseen(Check::System)]);
        return findings;
    }
    if scene.wants(Check::Clock) {
        findings.push(clock());
    }
    if scene.wants(Check::System) {
        findings.extend(system(scene));
        findings.extend(journal(scene));
    }
    if scene.wants(Check::BootTarget) {
        findings.push(boot_target(scene));
    }
    findings
}

fn clock() -> Finding {
    // systemd's own rule, systemd-detect-virt(1): its container manager left this file.
    let is_container = Path::new("/run/systemd/container").exists();
    let output = Command::new("timedatectl")
        .arg("show")
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .output();
    let text = match output {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).into_owned()
        }
        _ => return Finding::unseen(Check::Clock, None, "`timedatectl` does not answer"),
    };
    let of = |name: &str| {
        let lines = text.lines().filter_map(|line| line.split_once('='));
        lines
            .into_iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    };
    match (of("NTPSynchronized"), of("CanNTP")) {
        (Some("yes"), _) => Finding::ok(Check::Clock, None, "synchronised"),
        _ if is_container => {
            Finding::unseen(Check::Clock, None, "a container uses the clock of its host")
        }
        (_, Some("no")) => Finding::warning(
            Check::Clock,
            None,
            "no service synchronises the clock: a wrong time affects builds and TLS certificates",
        )
        .command(["apt-get", "install", "systemd-timesyncd"]),
        _ if of("NTP") == Some("yes") => Finding::warning(
            Check::Clock,
            None,
            "the clock is not synchronised, although a service is active",
        )
        .words("`timedatectl timesync-status` shows the server"),
        _ => Finding::warning(
            Check::Clock,
            None,
            "the clock is not synchronised: a wrong time affects builds and TLS certificates",
        )
        .command(["timedatectl", "set-ntp", "true"]),
    }
}

/// A journal that keeps nothing has no log of Buildbot's, and no reason of a failure.
fn journal(scene: &Scene<'_>) -> Option<Finding> {
    let file = file_without_journal(&scene.context.path("/"))?;
    let seen = format!(
        "the journal stores nothing: `Storage=none` in `{}`",
        file.display()
    );
    Some(
        Finding::warning(Check::System, None, seen)
            .words("remove it and restart `systemd-journald`, or run `buildbot-conda set log both` to write `twistd.log`"),
    )
}

/// The file whose `Storage=none` counts, by the rules of journald.conf(5).
fn file_without_journal(root: &Path) -> Option<PathBuf> {
    let mut drop_ins = BTreeMap::new();
    let mut files = Vec::new();
    for place in ["usr/lib/systemd", "run/systemd", "etc/systemd"] {
        files.push(root.join(place).join("journald.conf"));
        let listed = fs::read_dir(root.join(place).join("journald.conf.d"));
        for entry in listed.into_iter().flatten().flatten() {
            drop_ins.insert(entry.file_name(), entry.path());
        }
    }
    files.extend(
        drop_ins
            .into_values()
            .filter(|path| path.extension() == Some("conf".as_ref())),
    );
    let mut settings = files.into_iter().filter_map(|path| {
        let text = fs::read_to_string(&path).ok()?;
        let mut lines = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Storage="));
        lines
            .next_back()
            .map(|value| (value.trim().to_owned(), path))
    });
    settings
        .next_back()
        .filter(|(value, _)| value == "none")
        .map(|(_, path)| path)
}

/// One finding for each file system that is written.
fn space(scene: &Scene<'_>) -> Vec<Finding> {
    let mut places: Vec<PathBuf> = scene
        .instances
        .iter()
        .map(|instance| scene.context.path(instance.directory.as_str()))
        .collect();
    places.push(scene.context.path(paths::STATE));
    places.push(scene.context.path("/var/log"));
    let mut seen = BTreeSet::new();
    let mut findings = Vec::new();
    for place in places {
        use std::os::unix::fs::MetadataExt as _;
        let Ok(metadata) = place.metadata() else {
            continue;
        };
        if seen.insert(metadata.dev())
            && let Ok(found) = rustix::fs::statvfs(&place)
        {
            findings.push(room(&place, &found));
        }
    }
    findings
}

fn room(place: &Path, found: &rustix::fs::StatVfs) -> Finding {
    let name = place.display();
    let (free, size) = (
        found.f_bavail.saturating_mul(found.f_frsize),
        found.f_blocks.saturating_mul(found.f_frsize),
    );
    let (inodes, all_inodes) = (found.f_favail, found.f_files);
    let mebibytes = free >> 20;
    let what_takes_it = [
        "du",
        "--human-readable",
        "--one-file-system",
        "--max-depth=2",
        &place.to_string_lossy(),
    ]
    .map(str::to_owned);
    let seen_bytes = format!("{mebibytes} MiB are free on the file system of `{name}`");
    // File systems without a fixed number of inodes report 0.
    let seen_inodes =
        format!("{inodes} of {all_inodes} inodes are free on the file system of `{name}`");
    let make_room = "free some space there; a `JanitorConfigurator` removes old builds of a master";
    if free < ROOM {
        Finding::problem(Check::Space, None, seen_bytes)
            .command(what_takes_it)
            .words(make_room)
    } else if all_inodes > 0 && inodes < INODES {
        let what_takes_them = [
            "du",
            "--inodes",
            "--one-file-system",
            "--max-depth=2",
            &place.to_string_lossy(),
        ];
        Finding::problem(Check::Space, None, seen_inodes)
            .command(what_takes_them)
            .words(make_room)
    } else if free < size / PART && free < PLENTY {
        Finding::warning(Check::Space, None, seen_bytes)
            .command(what_takes_it)
            .words(make_room)
    } else {
        Finding::ok(Check::Space, None, seen_bytes)
    }
}

/// Instances that ask for a sandbox that this systemd does not have.
fn hardening(scene: &Scene<'_>, version: Option<u32>) -> Vec<Finding> {
    let Some(version) = version.filter(|version| *version < STRICT_SYSTEMD) else {
        return Vec::new();
    };
    let strict = scene
        .instances
        .iter()
        .filter(|instance| instance.hardening == Hardening::Strict);
    strict
        .map(|instance| {
            let reference = &instance.reference;
            let seen = format!("`hardening = \"strict\"` needs systemd {STRICT_SYSTEMD}, and this host has {version}");
            Finding::problem(Check::System, Some(reference), seen)
                .command(["buildbot-conda", "set", &reference.to_string(), "hardening", "standard"])
        })
        .collect()
}

/// A systemd that could filter system calls and does not find the library for it in the usual places.
fn filters(version: &str, libraries: &[&Path]) -> Option<Finding> {
    let name = "libseccomp.so.2";
    let mut entries = libraries
        .iter()
        .flat_map(std::fs::read_dir)
        .flatten()
        .flatten();
    let is_there =
        entries.any(|entry| entry.file_name() == name || entry.path().join(name).exists());
    if is_there || !version.contains("+SECCOMP") {
        return None;
    }
    let seen = format!("`{name}` is missing, so systemd ignores the filters of system calls");
    let install = ["apt-get", "install", "libseccomp2"];
    Some(Finding::warning(Check::System, None, seen).command(install))
}

fn system(scene: &Scene<'_>) -> Vec<Finding> {
    let problem = |seen: String| Finding::problem(Check::System, None, seen);
    let mut findings = Vec::new();
    let text = systemctl(&["--version"]).unwrap_or_default();
    let version = text
        .split_whitespace()
        .nth(1)
        .and_then(|word| word.parse::<u32>().ok());
    match version {
        None => findings.push(
            problem("systemd not found".to_owned())
                .words("use a system that is booted with systemd"),
        ),
        Some(version) if version < OLDEST_SYSTEMD => findings.push(
            problem(format!(
                "systemd {version} is too old, the units need {OLDEST_SYSTEMD}"
            ))
            .words("upgrade to Debian 12 or later"),
        ),
        Some(_) => {}
    }
    if rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty()).is_err() {
        findings.push(
            problem(
                "the kernel has no `pidfd_open`, which is needed to stop and reload services"
                    .to_owned(),
            )
            .words("use Linux 5.3 or later"),
        );
    }
    findings.extend(hardening(scene, version));
    findings.extend(filters(&text, &["/usr/lib", "/lib"].map(Path::new)));
    if !Path::new("/proc/sys/kernel/seccomp").exists() {
        let seen =
            "the kernel has no seccomp filters: the sandbox of the units is weaker than configured";
        findings.push(
            Finding::warning(Check::System, None, seen)
                .words("use a kernel with `CONFIG_SECCOMP_FILTER`"),
        );
    }
    if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        let seen = "control groups are version 1: memory usage is not shown, and a build that exceeds the \
                    memory may stop its worker";
        findings.push(
            Finding::warning(Check::System, None, seen)
                .words("boot without `systemd.unified_cgroup_hierarchy=0`"),
        );
    }
    if findings.is_empty() {
        let seen = format!(
            "systemd {}, and the kernel supports everything that is needed",
            version.unwrap_or_default()
        );
        findings.push(Finding::ok(Check::System, None, seen));
    }
    findings
}

fn boot_target(scene: &Scene<'_>) -> Finding {
    let target = systemctl(&["get-default"]).unwrap_or_default();
    let manager = systemd::one("display-manager.service", "Id,LoadState");
    let has_desktop = manager.is_ok_and(|unit| unit.property("LoadState") == "loaded");
    judge_target(target.trim(), has_desktop, scene)
}

fn boot_target_on_disk(scene: &Scene<'_>) -> Finding {
    let units = scene.context.path("/etc/systemd/system");
    let target = std::fs::read_link(units.join("default.target")).ok();
    let name = target.as_deref().and_then(Path::file_name);
    // Without a link of the administrator's it is what systemd ships.
    let name = name.map_or("graphical.target".into(), |name| name.to_string_lossy());
    let has_desktop = units
        .join("display-manager.service")
        .symlink_metadata()
        .is_ok();
    judge_target(&name, has_desktop, scene)
}

fn judge_target(target: &str, has_desktop: bool, scene: &Scene<'_>) -> Finding {
    if target != "graphical.target" || !has_desktop {
        let seen = format!("`{target}` without a desktop");
        return Finding::ok(Check::BootTarget, None, seen);
    }
    let seen = "the machine boots to a desktop, which uses memory and may suspend an idle machine";
    let finding = Finding::warning(Check::BootTarget, None, seen);
    // It remembers what was before, which `systemctl set-default` does not.
    finding.command(scene.there(["buildbot-conda", "headless", "on"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_systemd_without_the_library_of_its_filters_is_named() {
        let root = tempfile::tempdir().expect("a scratch directory can be made");
        let libraries = root.path().join("lib");
        let directory = libraries.join("aarch64-linux-gnu");
        std::fs::create_dir_all(&directory).expect("it is ours");
        let is_named = |version| {
            let finding = filters(version, &[&libraries, Path::new("/nowhere")]);
            finding.is_some()
        };
        assert!(is_named("systemd 252\n+PAM +SECCOMP"));
        assert!(!is_named("systemd 252\n+PAM -SECCOMP"));
        std::fs::write(directory.join("libseccomp.so.2"), "").expect("it is ours");
        assert!(!is_named("systemd 252\n+PAM +SECCOMP"));
    }

    #[test]
    fn the_last_file_says_whether_the_journal_keeps_anything() {
        let root = tempfile::tempdir().expect("a directory can be made");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("it is in one")).expect("it can be made");
            fs::write(path, text).expect("it can be written");
        };
        let found = || {
            let file = file_without_journal(root.path())?;
            Some(
                file.strip_prefix(root.path())
                    .expect("it is in there")
                    .to_owned(),
            )
        };
        assert_eq!(found(), None);
        write(
            "etc/systemd/journald.conf",
            "[Journal]\n#Storage=none\nStorage=none\n",
        );
        assert_eq!(found(), Some("etc/systemd/journald.conf".into()));
        write(
            "usr/lib/systemd/journald.conf.d/20-a.conf",
            "[Journal]\nStorage=auto\n",
        );
        assert_eq!(found(), None);
        write(
            "etc/systemd/journald.conf.d/30-b.conf",
            "[Journal]\nStorage=none\n",
        );
        write(
            "etc/systemd/journald.conf.d/40-c.txt",
            "[Journal]\nStorage=auto\n",
        );
        assert_eq!(
            found(),
            Some("etc/systemd/journald.conf.d/30-b.conf".into())
        );
        // One of the same name hides it.
        write(
            "etc/systemd/journald.conf.d/20-a.conf",
            "[Journal]\nStorage=none\n",
        );
        write("etc/systemd/journald.conf.d/30-b.conf", "");
        assert_eq!(
            found(),
            Some("etc/systemd/journald.conf.d/20-a.conf".into())
        );
    }
}
