//! Why an instance is not started: one message each, with the path, the reason and a hint.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use buildbot_conda_conda as conda;
use buildbot_conda_core::settings::{self, Instance};
use buildbot_conda_host::Unusable;
use buildbot_conda_host::access::Closed;
use buildbot_conda_host::systemd::STRICT_SYSTEMD;
use thiserror::Error;

impl Refusal {
    /// The directory of an instance that has run before.
    pub(crate) fn gone(path: PathBuf, what: &'static str, instance: &Instance) -> Self {
        let instance = instance.reference.to_string();
        Self::Gone {
            path,
            what,
            instance,
        }
    }
}

/// Every refusal ends the launcher with status 78.
#[derive(Debug, Error)]
pub(crate) enum Refusal {
    #[error(transparent)]
    Configuration(#[from] Unusable),
    #[error(transparent)]
    Settings(#[from] settings::Refusal),
    #[error(
        "systemd started `{unit}` without its settings: it was not reloaded since the instance \
         was added or corrected\nhint: `systemctl daemon-reload`, then `systemctl start {unit}`"
    )]
    NoDropIn { unit: String },
    #[error(
        "systemd started `{unit}` as `{}`, but `{configured}` is configured\n\
         hint: `systemctl daemon-reload`, then `systemctl restart {unit}`",
        account.display()
    )]
    OtherAccount {
        unit: String,
        account: OsString,
        configured: String,
    },
    #[error(
        "file `{}` of the credential `{name}` not found\n\
         hint: create it as root, mode 0600, or remove `{name}` from `credentials`",
        path.display()
    )]
    NoCredential { name: String, path: PathBuf },
    #[error("{source}\nhint: {}", source.hint())]
    Prefix { source: conda::ReadError },
    #[error("{source}\nhint: {}", source.hint())]
    Configured {
        source: conda::resolve::ResolveError,
    },
    #[error("{source}\nhint: {}", source.hint())]
    Activation { source: conda::Refusal },
    #[error(
        "`hardening = \"strict\"` needs systemd {STRICT_SYSTEMD}, and this host has {version}\n\
         hint: `buildbot-conda set {instance} hardening standard`, or upgrade the system"
    )]
    Strict { version: u32, instance: String },
    #[error("save the environment for a later start: {source}")]
    Handover { source: io::Error },
    #[error(
        "`{user}` cannot read `{}`: {closed}\nhint: grant access there, set `user` to an account that has access, \
         or use another directory", path.display()
    )]
    Closed {
        user: String,
        path: PathBuf,
        closed: Closed,
    },
    #[error("cannot access `{}`: {source}\nhint: the account that runs the instance needs access to it", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error(
        "executable `{}` not found\nhint: install Python into the environment{how}",
        prefix.join("bin/python").display()
    )]
    NoPython { prefix: PathBuf, how: String },
    #[error(
        "`{package}` not found in the environment `{}`\nhint: install it{how}",
        prefix.display()
    )]
    NoBuildbot {
        prefix: PathBuf,
        package: &'static str,
        how: String,
    },
    #[error(
        "directory `{}` not found\nhint: set `directory` in the configuration to the directory of `buildbot.tac`",
        path.display()
    )]
    NoDirectory { path: PathBuf },
    #[error(
        "`{}` {what}, and `{instance}` has run from it before\n\
         hint: mount or restore it, or set `directory` to its new location; `buildbot-conda remove {instance}` \
         if it is no longer needed",
        path.display()
    )]
    Gone {
        path: PathBuf,
        what: &'static str,
        instance: String,
    },
    #[error("`buildbot.tac` not found in `{}`\nhint: create it as the account that runs the instance: `{create}`", path.display())]
    NoTac { path: PathBuf, create: String },
    #[error(
        "the activation script `{script}` ended its shell with status {status}{last_words}\nhint: {}",
        conda::HINT
    )]
    Left {
        script: String,
        status: String,
        last_words: String,
    },
    #[error(
        "the activation script `{script}` did not finish within {seconds} s (`start-timeout`): it was \
         running `{command}`{last_words}\nhint: the script runs at every start and must not wait for anything"
    )]
    Late {
        script: String,
        seconds: String,
        command: String,
        last_words: String,
    },
    #[error(
        "the activation script `{script}` did not return in {starts} starts{last_words}\nhint: {}; \
         the next start runs it again",
        conda::HINT
    )]
    Lost {
        script: String,
        starts: u32,
        last_words: String,
    },
    #[error("run `{}`: {source}", program.display())]
    Exec { program: PathBuf, source: io::Error },
}
