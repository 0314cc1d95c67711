//! The drop-in of one instance: what its settings change in the unit that ships.
//!
//! [`DropIn::of`] decides every value, escaped for systemd, and refuses what cannot be written; the
//! launcher asks it as well and refuses the same instances: without its drop-in an instance would
//! run as the wrong user. [`DropIn::directives`] has all of it as data.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use thiserror::Error;

use crate::directives::Directive;
use crate::escape::{self, Unwritable};
use crate::limits::Limits;
use crate::names::{InstanceRef, Role};
use crate::notify::Notify;
use crate::settings::{Hardening, Instance, Word as _};
use crate::values::AbsolutePath;
use crate::{paths, profile};

/// How much later than the runner systemd ends a start.
const START_MARGIN: Duration = Duration::from_secs(30);
/// How long a stop may take once running builds are finished or given up.
const STOP_MARGIN: Duration = Duration::from_secs(90);

/// install(1) of coreutils, which makes a directory for an account.
const MAKE_DIRECTORY: [&str; 5] = ["/usr/bin/install", "-d", "-m", "0700", "-o"];

/// Trees of which a service with `PrivateTmp=yes` has its own versions.
const PRIVATE_TREES: [&str; 2] = ["/tmp", "/var/tmp"];

/// `TimeoutStartSec=` for a `start-timeout`: the runner ends a failed start itself, with a reason
/// and a status that is not restarted, so systemd's limit lies behind it.
pub(crate) fn timeout_start(start_timeout: Duration) -> Duration {
    start_timeout.saturating_add(START_MARGIN)
}

/// `TimeoutStopSec=` for a `drain`: systemd grants it to `ExecStop=` and to the TERM after it.
pub(crate) fn timeout_stop(drain: Duration) -> Duration {
    drain.saturating_add(STOP_MARGIN)
}

/// A setting that is good in itself but cannot be handed to systemd.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{key}: `{value}` {reason}{}", hint_line(.reason))]
pub struct Refused {
    /// The key with its table, such as `worker@gpu.directory`.
    pub key: String,
    /// The value.
    pub value: String,
    /// What systemd would do to it.
    pub reason: Unwritable,
}

fn hint_line(reason: &Unwritable) -> String {
    reason
        .hint()
        .map_or_else(String::new, |hint| format!("\nhint: {hint}"))
}

/// The variable with which a drop-in tells the launcher that it is in effect, and which version of it.
pub const FINGERPRINT_VARIABLE: &str = "BUILDBOT_CONDA_DROP_IN";

/// What a credential holds whose file is missing. systemd.exec(5): `SetCredential=` gives the value
/// that is used when `LoadCredential=` finds none.
pub const MISSING_CREDENTIAL: &str = "buildbot-conda: no such file";

/// The values of one instance's drop-in, escaped, in the order in which they are written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DropIn {
    reference: InstanceRef,
    hardening: Hardening,
    condition: String,
    mounts: Vec<String>,
    notifies: bool,
    user: String,
    /// The backup directory, as a word of a command line; none for a worker.
    owner: Option<String>,
    group: Option<String>,
    timeout_start: String,
    timeout_stop: String,
    watchdog: String,
    limits: Limits,
    credentials: Vec<String>,
    writable: Vec<String>,
    bound_read_only: Vec<String>,
    bound: Vec<String>,
}

impl DropIn {
    /// What systemd needs to know of an instance.
    ///
    /// # Errors
    ///
    /// Every setting that cannot be written; at least one.
    pub fn of(instance: &Instance) -> Result<Self, Vec<Refused>> {
        let prefix = instance.prefix();
        let directory = instance.directory.as_str();
        let mut values = Values {
            reference: &instance.reference,
            refused: Vec::new(),
        };
        let mounts = distinct([("directory", directory), ("conda-env", prefix.as_str())]);
        let sandbox = Sandbox::of(instance, &prefix);
        let user = instance.user.as_str();
        let drop_in = Self {
            reference: instance.reference.clone(),
            hardening: instance.hardening,
            condition: values.take("directory", directory, escape::line_path),
            mounts: values.take_all(&mounts, |path| escape::word_path("", path)),
            notifies: instance.notify != Notify::Off,
            user: values.take("user", user, escape::account),
            owner: (instance.reference.role == Role::Master)
                .then(|| values.take("user", user, escape::word_account)),
            group: instance
                .group
                .as_ref()
                .map(|group| values.take("group", group.as_str(), escape::account)),
            timeout_start: escape::time_span(timeout_start(instance.start_timeout)),
            timeout_stop: escape::time_span(timeout_stop(instance.drain)),
            watchdog: escape::time_span(instance.watchdog.unwrap_or(Duration::ZERO)),
            limits: instance.limits.clone(),
            credentials: instance
                .credentials
                .iter()
                .map(|(name, file)| {
                    let key = format!("credentials.{}", name.as_str());
                    values.take(&key, file.as_str(), |file| {
                        escape::credential(name.as_str(), file)
                    })
                })
                .collect(),
            writable: values.take_all(&sandbox.writable, |path| escape::word_path("-", path)),
            bound_read_only: values.take_all(&sandbox.bound_read_only, escape::bind_path),
            bound: values.take_all(&sandbox.bound, escape::bind_path),
        };
        if values.refused.is_empty() {
            Ok(drop_in)
        } else {
            Err(values.refused)
        }
    }

    /// 16 hexadecimal digits that differ when a value does. Generator and launcher of one package
    /// agree on them; others need not, as an upgrade has systemd read everything again.
    pub fn fingerprint(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }

    /// All directives, in the order in which they are written.
    pub fn directives(&self) -> Vec<Directive> {
        let mut list = List {
            section: "Unit",
            directives: Vec::new(),
        };
        // systemd.unit(5): of several conditions with `|`, one is enough.
        list.add(
            "An instance that is enabled but not set up is skipped. If it has run before, the start \
             fails with the reason.",
            "ConditionDirectoryNotEmpty",
            &format!("|{}", self.condition),
        );
        list.add(
            "",
            "ConditionPathExists",
            &format!("|{}", paths::served_mark(&self.reference)),
        );
        list.add_all("", "RequiresMountsFor", &self.mounts);
        if self.notifies {
            let unit = format!("buildbot-conda-notify@{}.service", self.reference);
            list.add(
                "As `notify` configures, but not while systemd restarts it.",
                "OnFailure",
                &unit,
            );
        }
        list.section = "Service";
        list.add("", "User", &self.user);
        list.add_all("", "Group", self.group.as_slice());
        if let Some(owner) = &self.owner {
            let backups = paths::backup_directory(&self.reference);
            list.add(
                "For backups of the database: nobody but root can make it, and `systemctl clean` removes what systemd makes.",
                "ExecStartPre",
                &format!("-+{} {owner} {backups}", MAKE_DIRECTORY.join(" ")),
            );
        }
        list.add(
            "The launcher compares this to report a configuration that was changed since.",
            "Environment",
            &format!("{FINGERPRINT_VARIABLE}={}", self.fingerprint()),
        );
        list.add(
            "`start-timeout` and `drain`, each with a margin, so that Buildbot gives up first and reports why.",
            "TimeoutStartSec",
            &self.timeout_start,
        );
        list.add("", "TimeoutStopSec", &self.timeout_stop);
        list.add("", "WatchdogSec", &self.watchdog);
        for (index, (limit, value)) in self.limits.iter().enumerate() {
            let comment = match index {
                0 => "Limits of the instance and its child processes.",
                _ => "",
            };
            // systemd expands no specifiers here, so a percent sign is literal.
            list.add(comment, limit.directive, value);
        }
        list.add_all("", "LoadCredential", &self.credentials);
        // A credential's name has no colon.
        let names = self
            .credentials
            .iter()
            .map_while(|text| text.split(':').next());
        let fallbacks: Vec<String> = names
            .map(|name| format!("{name}:{MISSING_CREDENTIAL}"))
            .collect();
        list.add_all(
            "For missing files: the launcher reports which one it is, systemd would not.",
            "SetCredential",
            &fallbacks,
        );
        self.add_sandbox(&mut list);
        list.directives
    }

    fn add_sandbox(&self, list: &mut List) {
        let mut heading = self.heading();
        for (comment, key, value) in profile::rows(self.reference.role, self.hardening) {
            let comment = [std::mem::take(&mut heading), comment.to_owned()];
            let comment: Vec<String> = comment
                .into_iter()
                .filter(|part| !part.is_empty())
                .collect();
            list.add(&comment.join("\n"), key, value);
        }
        let mut writable = self.writable.clone();
        if self.hardening != Hardening::None {
            let backups = paths::backup_directory(&self.reference);
            writable.extend(self.owner.as_ref().map(|_| format!("-{backups}")));
        }
        let opened = [
            ("ReadWritePaths", &writable),
            ("BindReadOnlyPaths", &self.bound_read_only),
            ("BindPaths", &self.bound),
        ];
        let mut comment = "`-` tolerates a missing path: the launcher reports it with the reason.";
        for (key, paths) in opened {
            list.add_all(comment, key, paths);
            if !paths.is_empty() {
                comment = "";
            }
        }
    }

    /// The part above the sandbox.
    fn heading(&self) -> String {
        match self.hardening {
            Hardening::None => "\nHardening: none, as configured.".to_owned(),
            hardening => format!(
                "\nHardening: {}, {}.",
                self.reference.role,
                hardening.as_str()
            ),
        }
    }

    /// The text of the file.
    pub fn text(&self) -> String {
        let mut lines = vec![
            format!(
                "# Written by buildbot-conda-generator from {}, table of `{}`.",
                paths::CONFIGURATION,
                self.reference
            ),
            "# Changes here are lost: edit that file, then run `systemctl daemon-reload`."
                .to_owned(),
        ];
        let mut section = "";
        for directive in self.directives() {
            if directive.section != section {
                section = directive.section;
                lines.extend([String::new(), format!("[{section}]")]);
            }
            lines.extend(commented(&directive.comment));
            lines.push(format!("{}={}", directive.key, directive.value));
        }
        if self.hardening == Hardening::None {
            lines.extend(commented(&self.heading()));
        }
        lines.join("\n") + "\n"
    }

    /// Whose it is.
    pub fn reference(&self) -> &InstanceRef {
        &self.reference
    }

    /// Directory of the file among the units: `buildbot-worker@gpu.service.d`.
    pub fn directory_name(&self) -> String {
        format!("{}.d", self.reference.unit_name())
    }
}

/// The lines of a comment in a unit file.
fn commented(comment: &str) -> impl Iterator<Item = String> {
    comment.lines().map(|line| match line {
        "" => String::new(),
        line => format!("# {line}"),
    })
}

/// Directives as they are added.
struct List {
    section: &'static str,
    directives: Vec<Directive>,
}

impl List {
    fn add(&mut self, comment: &str, key: &'static str, value: &str) {
        self.directives.push(Directive {
            section: self.section,
            key,
            value: value.to_owned(),
            comment: comment.to_owned(),
        });
    }

    /// A directive for each value; the comment is above the first.
    fn add_all(&mut self, comment: &str, key: &'static str, values: &[String]) {
        for (index, value) in values.iter().enumerate() {
            self.add(if index == 0 { comment } else { "" }, key, value);
        }
    }
}

/// Escapes values and remembers which ones could not be escaped. The place of a refused value stays empty, and the
/// whole drop-in is then discarded.
struct Values<'a> {
    reference: &'a InstanceRef,
    refused: Vec<Refused>,
}

impl Values<'_> {
    fn take(
        &mut self,
        key: &str,
        value: &str,
        escape: impl Fn(&str) -> Result<String, Unwritable>,
    ) -> String {
        escape(value).unwrap_or_else(|reason| {
            let refused = Refused {
                key: format!("{}.{key}", self.reference),
                value: value.to_owned(),
                reason,
            };
            if !self.refused.contains(&refused) {
                self.refused.push(refused);
            }
            String::new()
        })
    }

    fn take_all(
        &mut self,
        paths: &[(&str, &str)],
        escape: impl Fn(&str) -> Result<String, Unwritable>,
    ) -> Vec<String> {
        paths
            .iter()
            .map(|(key, path)| self.take(key, path, &escape))
            .collect()
    }
}

/// Paths that the profile must open again, each with the key it comes from.
#[derive(Default)]
struct Sandbox<'a> {
    /// Made writable where the profile makes everything read-only.
    writable: Vec<(&'a str, &'a str)>,
    /// Mounted over what the profile hides, for reading.
    bound_read_only: Vec<(&'a str, &'a str)>,
    /// The same, for writing.
    bound: Vec<(&'a str, &'a str)>,
}

impl<'a> Sandbox<'a> {
    fn of(instance: &'a Instance, prefix: &'a AbsolutePath) -> Self {
        let directory = ("directory", instance.directory.as_str());
        let software = distinct([
            ("conda-root", instance.conda_root.as_str()),
            ("conda-env", prefix.as_str()),
        ]);
        let software = software
            .into_iter()
            .filter(|(_, path)| *path != directory.1);
        match instance.hardening {
            Hardening::None => Self::default(),
            // All of them, wherever they are: a path elsewhere may be a link into a home directory.
            Hardening::Strict => Self {
                writable: Vec::new(),
                bound_read_only: software.collect(),
                bound: vec![directory],
            },
            Hardening::Standard => {
                let software = software.filter(|(_, path)| is_private(path)).collect();
                let directory_again = is_private(directory.1).then_some(directory);
                // Builds may install into their environment; the master only reads its own.
                let (bound_read_only, mut bound) = match instance.reference.role {
                    Role::Master => (software, Vec::new()),
                    Role::Worker => (Vec::new(), software),
                };
                bound.extend(directory_again);
                Self {
                    writable: vec![directory],
                    bound_read_only,
                    bound,
                }
            }
        }
    }
}

fn is_private(path: &str) -> bool {
    PRIVATE_TREES.iter().any(|tree| {
        path.strip_prefix(tree)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// The paths without repetition, the first key standing for all.
fn distinct<'a>(paths: [(&'a str, &'a str); 2]) -> Vec<(&'a str, &'a str)> {
    let [first, second] = paths;
    if first.1 == second.1 {
        vec![first]
    } else {
        vec![first, second]
    }
}
