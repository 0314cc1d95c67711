//! Steps with the database of a master on a `PostgreSQL` server: on this host as the server's own account, and by a URL as
//! the service user.

use std::fmt;

use anyhow::ensure;
use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::settings::Instance;
use buildbot_conda_core::values::AccountName;
use serde::{Deserialize, Serialize};

use super::{Deed, Undo};
use crate::inside::reach::{self, Reach};
use crate::inside::{server, transfer};
use crate::output::harmless;
use crate::system::as_user;
use crate::system::context::{Context, InvalidConfiguration};
use crate::system::values::Identity;

/// An instance of this host as it is configured now.
fn configured(reference: &InstanceRef) -> anyhow::Result<Instance> {
    let settings = Context::default().settings()?;
    let instance = settings
        .instance(reference)
        .map_err(InvalidConfiguration::from)?;
    Ok(instance.clone())
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum DatabaseStep {
    /// A role that logs in by the socket, as the account of its name.
    CreateRole { role: AccountName },
    /// The role goes, if it was made by the step above and nothing else belongs to it.
    DropRole { role: AccountName },
    /// An empty database of the role.
    CreateDatabase { database: String, role: AccountName },
    /// The database goes with all that is in it, if it is the role's.
    DropDatabase { database: String, role: AccountName },
    /// The service user looks whether he can put Buildbot's tables into a database. Where this is rolled back, he drops
    /// them, unless the whole database goes.
    UseDatabase {
        #[serde(flatten)]
        identity: Identity,
        reach: Reach,
        is_new: bool,
    },
    /// The service user makes a backup of the database that the configuration names.
    BackUp { reference: InstanceRef },
    /// He copies that database of a stopped master to an empty one, and compares both. Where this is rolled back, one that
    /// still runs is waited for, and a copy in his directory is removed; one on a server is another step's.
    Copy {
        reference: InstanceRef,
        /// Where to, for people.
        to: String,
        /// A secret.
        url: String,
        is_file: bool,
    },
    /// He waits until nothing is copied any more, and removes a copy in his directory.
    RemoveCopy {
        reference: InstanceRef,
        is_file: bool,
    },
    /// The configuration names the database of this kind at this place, as Buildbot reads it.
    CheckDatabase {
        reference: InstanceRef,
        kind: String,
        place: String,
    },
    /// The service user drops Buildbot's tables.
    ClearDatabase {
        #[serde(flatten)]
        identity: Identity,
        reach: Reach,
    },
}

impl fmt::Display for DatabaseStep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateRole { role } => {
                write!(formatter, "create the role `{role}` in PostgreSQL")
            }
            Self::DropRole { role } => write!(
                formatter,
                "drop the role `{role}` from PostgreSQL if it was created for this and nothing else belongs to it"
            ),
            Self::CreateDatabase { database, role } => write!(
                formatter,
                "create the database `{}` of `{role}` in PostgreSQL",
                harmless(database)
            ),
            Self::DropDatabase { database, .. } => write!(
                formatter,
                "drop the database `{}` from PostgreSQL",
                harmless(database)
            ),
            Self::UseDatabase {
                identity, reach, ..
            } => write!(
                formatter,
                "as `{}`, check that `{}` is empty and can be used",
                identity.user,
                harmless(&reach.place)
            ),
            Self::BackUp { reference } => {
                write!(formatter, "back up the database of `{reference}`")
            }
            Self::Copy { reference, to, .. } => write!(
                formatter,
                "copy the database of `{reference}` to `{}`, and compare the rows of all tables",
                harmless(to)
            ),
            Self::RemoveCopy {
                reference,
                is_file: true,
            } => write!(
                formatter,
                "remove the copy in the directory of `{reference}`"
            ),
            Self::RemoveCopy { reference, .. } => write!(
                formatter,
                "wait until the database of `{reference}` is not copied any more"
            ),
            Self::CheckDatabase {
                reference, place, ..
            } => write!(
                formatter,
                "check that the configuration of `{reference}` names `{}`",
                harmless(place)
            ),
            Self::ClearDatabase { identity, reach } => write!(
                formatter,
                "as `{}`, drop Buildbot's tables from `{}`",
                identity.user,
                harmless(&reach.place)
            ),
        }
    }
}

impl Deed for DatabaseStep {
    fn undo(&self) -> anyhow::Result<Undo> {
        Ok(match self {
            Self::CreateRole { role } => Undo::by(Self::DropRole { role: role.clone() }),
            Self::CreateDatabase { database, role } => Undo::by(Self::DropDatabase {
                database: database.clone(),
                role: role.clone(),
            }),
            Self::UseDatabase { is_new: true, .. }
            | Self::BackUp { .. }
            | Self::CheckDatabase { .. } => Undo::nothing(),
            Self::UseDatabase {
                identity, reach, ..
            } => Undo::by(Self::ClearDatabase {
                identity: identity.clone(),
                reach: reach.clone(),
            }),
            Self::Copy {
                reference, is_file, ..
            } => Undo::by(Self::RemoveCopy {
                reference: reference.clone(),
                is_file: *is_file,
            }),
            Self::RemoveCopy { .. } => Undo::Impossible,
            Self::DropRole { .. } | Self::DropDatabase { .. } | Self::ClearDatabase { .. } => {
                Undo::Impossible
            }
        })
    }

    fn perform(&self) -> anyhow::Result<()> {
        match self {
            Self::CreateRole { role } => {
                server::change(server::Deed::CreateRole, role.as_str(), "")
            }
            Self::DropRole { role } => server::change(server::Deed::DropRole, role.as_str(), ""),
            Self::CreateDatabase { database, role } => {
                server::change(server::Deed::CreateDatabase, role.as_str(), database)
            }
            Self::DropDatabase { database, role } => {
                server::change(server::Deed::DropDatabase, role.as_str(), database)
            }
            Self::UseDatabase {
                identity, reach, ..
            } => reach::ensure_usable(identity, reach),
            Self::ClearDatabase { identity, reach } => reach::clear(identity, reach),
            Self::BackUp { reference } => {
                let words = ["backup", "--", &reference.to_string()].map(Into::into);
                as_user::obtain(&configured(reference)?, &words).map(drop)
            }
            Self::Copy { reference, url, .. } => {
                let copied = transfer::copy(&configured(reference)?, url)?;
                eprintln!(
                    "{} rows of {} tables are the same",
                    copied.rows, copied.tables
                );
                Ok(())
            }
            Self::RemoveCopy { reference, is_file } => {
                transfer::remove(&configured(reference)?, *is_file)
            }
            Self::CheckDatabase {
                reference,
                kind,
                place,
            } => {
                let found = transfer::inspect(&configured(reference)?, false)?;
                ensure!(
                    found.kind == kind.as_str() && found.place == place.as_str(),
                    "the changed configuration names `{}` instead of `{place}`",
                    found.place
                );
                Ok(())
            }
        }
    }

    /// A server may be stopped.
    fn relies_on_others(&self) -> bool {
        true
    }
}
