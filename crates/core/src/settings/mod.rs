//! `config.toml` as settings: strict, with all problems of a file at once, and with valid instances usable although
//! others are not.
//!
//! `keys` contains the keys of a table, `instance` the result, `problem` errors with their positions, `read` turns
//! tables into typed layers, and `resolve` adds the defaults to each instance.

mod instance;
mod keys;
mod problem;
mod read;
mod resolve;

pub use instance::{Defaults, Instance};
pub use keys::{Effect, KEYS, Key};
pub use problem::{Affects, Position, Problem, Refusal};
pub use resolve::Settings;

/// Where Buildbot's log goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Log {
    /// Only to the journal.
    Journal,
    /// To the journal, and to `twistd.log` as upstream does.
    Both,
}

/// Who upgrades the master's database when Buildbot is newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upgrade {
    /// The start does, after a backup.
    Auto,
    /// The administrator does; the start refuses.
    Manual,
}

/// How often a master's database is backed up automatically.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupEvery {
    /// Only before an upgrade, and manually.
    Off,
    /// Each hour.
    Hourly,
    /// Each night.
    Daily,
    /// In the night from Sunday to Monday.
    Weekly,
    /// In the first night of each month.
    Monthly,
}

/// How far systemd shuts an instance in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hardening {
    /// What Buildbot as people run it can bear.
    Standard,
    /// As much as a well-behaved instance can bear.
    Strict,
    /// No sandboxing.
    None,
}

/// A key whose value is one of a few words.
pub trait Word: Copy + 'static {
    /// Each word with its value; the first one is the default.
    const WORDS: &'static [(&'static str, Self)];

    /// The word as written in the configuration.
    fn as_str(self) -> &'static str;
}

macro_rules! words {
    ($type:ty { $($word:literal => $value:path),+ $(,)? }) => {
        impl Word for $type {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, $value)),+];

            fn as_str(self) -> &'static str {
                match self { $($value => $word),+ }
            }
        }
    };
}

words!(Log { "journal" => Log::Journal, "both" => Log::Both });
words!(Upgrade { "auto" => Upgrade::Auto, "manual" => Upgrade::Manual });
words!(BackupEvery {
    "off" => BackupEvery::Off,
    "hourly" => BackupEvery::Hourly,
    "daily" => BackupEvery::Daily,
    "weekly" => BackupEvery::Weekly,
    "monthly" => BackupEvery::Monthly,
});
words!(Hardening {
    "standard" => Hardening::Standard,
    "strict" => Hardening::Strict,
    "none" => Hardening::None,
});
