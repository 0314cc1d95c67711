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
        "systemd started `{unit}` without its settings: it has not read the configuration since the instance was \
         added or became good\nhint: `systemctl daemon-reload`, then `systemctl start {unit}`"
    )]
    NoDropIn { unit: String },
    #[error(
        "systemd started `{unit}` as `{}`, but the configuration says `{configured}`\n\
         hint: `systemctl daemon-reload`, then `systemctl restart {unit}`",
        account.display()
    )]
    OtherAccount {
        unit: String,
        account: OsString,
        configured: String,
    },
    #[error(
        "no file `{}` for the credential `{name}`\n\
         hint: write it as root, mode 0600, or take `{name}` out of `credentials`",
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
    #[error("keep the environment for a later start: {source}")]
    Handover { source: io::Error },
    #[error(
        "`{user}` cannot read `{}`: {closed}\nhint: give it access there, set `user` to an account that has it, or use \
         another place", path.display()
    )]
    Closed {
        user: String,
        path: PathBuf,
        closed: Closed,
    },
    #[error("look at `{}`: {source}\nhint: the account that runs the instance needs access to it", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error(
        "no executable `{}`\nhint: install Python into the environment{how}",
        prefix.join("bin/python").display()
    )]
    NoPython { prefix: PathBuf, how: String },
    #[error(
        "no `{package}` in the environment `{}`\nhint: install it{how}",
        prefix.display()
    )]
    NoBuildbot {
        prefix: PathBuf,
        package: &'static str,
        how: String,
    },
    #[error(
        "no directory `{}`\nhint: set `directory` in the configuration to where `buildbot.tac` is",
        path.display()
    )]
    NoDirectory { path: PathBuf },
    #[error(
        "`{}` {what}, and `{instance}` has run from it before\n\
         hint: mount or restore it, or set `directory` to where it is now; `buildbot-conda remove {instance}` where it is \
         not wanted any more",
        path.display()
    )]
    Gone {
        path: PathBuf,
        what: &'static str,
        instance: String,
    },
    #[error("no `buildbot.tac` in `{}`\nhint: make one as the account that runs it: `{create}`", path.display())]
    NoTac { path: PathBuf, create: String },
    #[error(
        "the activation script `{script}` left its shell with status {status}{last_words}\nhint: {}",
        conda::HINT
    )]
    Left {
        script: String,
        status: String,
        last_words: String,
    },
    #[error(
        "the activation script `{script}` did not end within {seconds} s, which is `start-timeout`: it was in \
         `{command}`{last_words}\nhint: it runs at every start, and must not wait for anything"
    )]
    Late {
        script: String,
        seconds: String,
        command: String,
        last_words: String,
    },
    #[error(
        "the activation script `{script}` has not come back to its shell in {starts} starts{last_words}\nhint: {}; \
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
