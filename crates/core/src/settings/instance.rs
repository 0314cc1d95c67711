//! The settings of one instance, and the defaults.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{BackupEvery, Hardening, Log, Upgrade};
use crate::limits::Limits;
use crate::names::InstanceRef;
use crate::notify::Notify;
use crate::values::{
    AbsolutePath, AccountName, CondaEnv, CondaRoot, CredentialName, MasterName, VariableName,
};

/// Everything that one instance uses, nothing left open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Which.
    pub reference: InstanceRef,
    /// The account that runs it.
    pub user: AccountName,
    /// Its group; `None` means the account's primary group.
    pub group: Option<AccountName>,
    /// The Conda installation.
    pub conda_root: CondaRoot,
    /// The environment as written.
    pub conda_env: CondaEnv,
    /// Where `buildbot.tac` is.
    pub directory: AbsolutePath,
    /// What a master is called in its database; none for Buildbot's own name of it.
    pub name: Option<MasterName>,
    /// Variables set after activation; those of the instance win over the defaults'.
    pub environment: BTreeMap<VariableName, String>,
    /// Credentials by name, with the absolute file each is loaded from.
    pub credentials: BTreeMap<CredentialName, AbsolutePath>,
    /// How long a stop waits for running builds.
    pub drain: Duration,
    /// How long a start may take before it is aborted.
    pub start_timeout: Duration,
    /// Where the log goes.
    pub log: Log,
    /// Who upgrades the database.
    pub upgrade: Upgrade,
    /// How often a master's database is backed up automatically.
    pub backup_every: BackupEvery,
    /// Where copies of those backups are kept, below the name of the instance; none for no copies.
    pub backup_to: Option<AbsolutePath>,
    /// The watchdog's interval; `None` when it is off.
    pub watchdog: Option<Duration>,
    /// The sandbox.
    pub hardening: Hardening,
    /// The configured limits of the host's resources.
    pub limits: Limits,
    /// Where its failures are reported to.
    pub notify: Notify,
}

impl Instance {
    /// The environment's directory.
    pub fn prefix(&self) -> AbsolutePath {
        self.conda_env.prefix(&self.conda_root)
    }
}

/// What holds where no instance is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defaults {
    /// The account.
    pub user: AccountName,
    /// The Conda installation.
    pub conda_root: CondaRoot,
    /// The environment as written.
    pub conda_env: CondaEnv,
    /// Variables set after activation.
    pub environment: BTreeMap<VariableName, String>,
}
