//! What the sandbox of an instance consists of, for each role and `hardening`: directives of `[Service]` as data, which
//! becomes text of a drop-in and properties of a command. What differs from instance to instance is in `dropin`.
//!
//! `RemoveIPC=` is in none: a stop would delete shared memory of whatever else the account runs, such as another instance
//! or a cron job.

use crate::names::Role;
use crate::settings::Hardening;

/// The comment above a directive, which may be empty, its key and its value.
type Row = (&'static str, &'static str, &'static str);

/// The profile, in the order in which it is written.
pub(crate) fn rows(role: Role, hardening: Hardening) -> Vec<Row> {
    match (role, hardening) {
        (_, Hardening::None) => Vec::new(),
        (Role::Master, Hardening::Standard) => [STRICT, &[READ_HOMES], PRIVATE, MASTER].concat(),
        (Role::Master, Hardening::Strict) => [STRICT, &[NO_HOMES], PRIVATE, MASTER].concat(),
        (Role::Worker, Hardening::Standard) => WORKER.to_vec(),
        (Role::Worker, Hardening::Strict) => [STRICT, &[NO_HOMES], PRIVATE, STRICT_WORKER].concat(),
    }
}

const STRICT: &[Row] = &[
    ("", "NoNewPrivileges", "yes"),
    ("", "ProtectSystem", "strict"),
];

const READ_HOMES: Row = ("", "ProtectHome", "read-only");
const NO_HOMES: Row = (
    "Home directories are empty, except for the paths mounted below.",
    "ProtectHome",
    "tmpfs",
);

const PRIVATE: &[Row] = &[
    ("", "PrivateTmp", "yes"),
    ("", "PrivateDevices", "yes"),
    ("", "PrivateMounts", "yes"),
    ("", "ProtectClock", "yes"),
    ("", "ProtectControlGroups", "yes"),
    ("", "ProtectHostname", "yes"),
    ("", "ProtectKernelLogs", "yes"),
    ("", "ProtectKernelModules", "yes"),
    ("", "ProtectKernelTunables", "yes"),
    ("", "ProtectProc", "invisible"),
];

const REFUSED_CALLS: &str = "A refused call fails with EPERM instead of killing the process.";

const MASTER: &[Row] = &[
    ("", "ProcSubset", "pid"),
    ("", "RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6"),
    ("", "RestrictNamespaces", "yes"),
    ("", "RestrictRealtime", "yes"),
    ("", "RestrictSUIDSGID", "yes"),
    ("", "LockPersonality", "yes"),
    ("", "KeyringMode", "private"),
    ("", "CapabilityBoundingSet", ""),
    ("", "AmbientCapabilities", ""),
    ("", "SystemCallArchitectures", "native"),
    ("", "SystemCallFilter", "@system-service"),
    ("", "SystemCallFilter", "~@resources @privileged"),
    (REFUSED_CALLS, "SystemCallErrorNumber", "EPERM"),
];

const STRICT_WORKER: &[Row] = &[
    (
        "Programs list network interfaces with AF_NETLINK.",
        "RestrictAddressFamilies",
        "AF_UNIX AF_INET AF_INET6 AF_NETLINK",
    ),
    ("", "RestrictRealtime", "yes"),
    ("", "RestrictSUIDSGID", "yes"),
    ("", "LockPersonality", "yes"),
    ("", "KeyringMode", "private"),
    ("", "CapabilityBoundingSet", ""),
    ("", "AmbientCapabilities", ""),
    (
        "For builds of 32-bit programs.",
        "SystemCallArchitectures",
        "native x86",
    ),
    (
        "",
        "SystemCallFilter",
        "~@clock @cpu-emulation @module @mount @obsolete @raw-io @reboot @swap",
    ),
    (REFUSED_CALLS, "SystemCallErrorNumber", "EPERM"),
    ("", "UMask", "0027"),
];

const WORKER: &[Row] = &[
    (
        "Only settings with which `sudo` works in builds: up to systemd 252, most others imply\n\
         NoNewPrivileges= for a service with a user of its own.",
        "NoNewPrivileges",
        "no",
    ),
    ("", "ProtectSystem", "full"),
    ("", "PrivateTmp", "yes"),
    ("", "ProtectControlGroups", "yes"),
    ("", "ProtectProc", "invisible"),
    ("", "KeyringMode", "private"),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of profiles in `docs/tasks.md` matches the profiles.
    #[test]
    fn the_table_in_the_documentation_is_that_of_the_profiles() {
        let text = include_str!("../../../docs/tasks.md");
        let section = text
            .split("\n## Use a GPU")
            .nth(1)
            .expect("there is such a section");
        let section = section.split("\n## ").next().expect("it has an end");
        let columns = [
            (Role::Worker, Hardening::Standard),
            (Role::Worker, Hardening::Strict),
            (Role::Master, Hardening::Standard),
            (Role::Master, Hardening::Strict),
        ];
        let lines = section
            .lines()
            .filter(|line| line.starts_with("| "))
            .skip(1);
        let mut count = 0;
        for line in lines {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let directive = cells[1].trim_matches('`');
            for ((role, hardening), cell) in columns.iter().zip(&cells[2..]) {
                let rows = rows(*role, *hardening);
                let found = rows.iter().find(|(_, key, _)| *key == directive);
                let value = found.map_or("-", |(_, _, value)| *value);
                assert_eq!(*cell, value, "{directive} of {role:?} {hardening:?}");
            }
            assert_eq!(cells.len(), 6, "{line}");
            count += 1;
        }
        assert!(count > 10, "{count}");
        assert!(rows(Role::Worker, Hardening::None).is_empty());
    }
}
