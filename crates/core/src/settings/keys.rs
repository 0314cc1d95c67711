//! Every key of the configuration: its name, its meaning, and when a change takes effect.

/// When a change of a key takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// In a new process: a running service keeps the old value until it is restarted.
    Restart,
    /// At the next start: running services do not have to be restarted.
    Start,
    /// The next stop reads it, also that of a process that runs already.
    Stop,
    /// In the timer of backups, or at the next backup.
    Backup,
    /// The next failure, once systemd has read the units again.
    Failure,
}

/// A key of `[defaults]` and of an instance's table.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// As written in a table.
    pub name: &'static str,
    /// The placeholder after the key and a dot, for a key whose value is a table.
    pub entry: Option<&'static str>,
    /// Its meaning, on one line.
    pub meaning: &'static str,
    /// When a change takes effect.
    pub effect: Effect,
}

impl Key {
    /// As `set` expects it: `drain`, `environment.NAME`.
    pub fn written(&self) -> String {
        match self.entry {
            None => self.name.to_owned(),
            Some(entry) => format!("{}.{entry}", self.name),
        }
    }

    /// The key with this name, written as `set` expects it.
    pub fn find(written: &str) -> Option<&'static Self> {
        let outer = written.split('.').next().unwrap_or_default();
        KEYS.iter().find(|key| key.name == outer)
    }
}

const fn key(name: &'static str, effect: Effect, meaning: &'static str) -> Key {
    Key {
        name,
        entry: None,
        meaning,
        effect,
    }
}

const fn table(name: &'static str, meaning: &'static str) -> Key {
    Key {
        name,
        entry: Some("NAME"),
        meaning,
        effect: Effect::Restart,
    }
}

/// All of them, by name.
pub const KEYS: [Key; 23] = [
    key(
        "backup-every",
        Effect::Backup,
        "how often the database is backed up: `off`, `daily`, ...",
    ),
    key(
        "backup-to",
        Effect::Backup,
        "directory for copies of these backups, writable only by root",
    ),
    key(
        "conda-env",
        Effect::Restart,
        "environment: a name, `base`, or an absolute prefix",
    ),
    key(
        "conda-root",
        Effect::Restart,
        "directory of the Conda installation",
    ),
    key(
        "cpu-weight",
        Effect::Restart,
        "share of the processors, 1 to 10000; the default is 100",
    ),
    table(
        "credentials",
        "secret file, relative to /etc/buildbot-conda/credentials",
    ),
    key(
        "directory",
        Effect::Restart,
        "directory of the instance, which contains `buildbot.tac`",
    ),
    key(
        "drain",
        Effect::Stop,
        "how long a stop waits for running builds, such as `30min`",
    ),
    table(
        "environment",
        "environment variable, set after the activation",
    ),
    key(
        "group",
        Effect::Restart,
        "group; the account's primary group by default",
    ),
    key(
        "hardening",
        Effect::Restart,
        "sandbox: `standard`, `strict` or `none`",
    ),
    key(
        "io-weight",
        Effect::Restart,
        "share of the disks, 1 to 10000; the default is 100",
    ),
    key(
        "log",
        Effect::Restart,
        "`journal`, or `both` to write `twistd.log` as well",
    ),
    key(
        "memory-high",
        Effect::Restart,
        "memory above which the instance is slowed down, such as `3G`",
    ),
    key(
        "memory-max",
        Effect::Restart,
        "memory that the instance cannot exceed, such as `4G`, `50%`",
    ),
    key(
        "name",
        Effect::Restart,
        "name of a master in its database, independent of its host",
    ),
    key(
        "nice",
        Effect::Restart,
        "priority of the processes, from -20, the highest, to 19",
    ),
    key(
        "notify",
        Effect::Failure,
        "failures go to `mail:ADDRESS`, `https://...`, `hook:FILE`",
    ),
    key(
        "start-timeout",
        Effect::Start,
        "how long a start may take before it is aborted",
    ),
    key(
        "tasks-max",
        Effect::Restart,
        "maximum number of processes and threads, such as `4096`",
    ),
    key(
        "upgrade",
        Effect::Start,
        "whether a start upgrades the database: `auto` or `manual`",
    ),
    key("user", Effect::Restart, "account that runs the instance"),
    key(
        "watchdog",
        Effect::Restart,
        "how long an instance may hang before a restart, or `off`",
    ),
];

/// Their names.
pub(super) fn names() -> [&'static str; KEYS.len()] {
    KEYS.map(|key| key.name)
}
