//! Steps with the database of a master on a `PostgreSQL` server: on this host as the server's own account, and by a URL as
//! the service user.

use std::fmt;

use anyhow::{bail, ensure};
use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::settings::Instance;
use buildbot_conda_core::values::AccountName;
use serde::{Deserialize, Serialize};

use super::{Deed, Undo};
use crate::inside::put::{self, Put};
use crate::inside::reach::{self, Reach};
use crate::inside::server;
use crate::inside::transfer::{self, Whereabouts};
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
    /// The service user changes the configuration, which names the copy from then on.
    UseCopy { reference: InstanceRef, put: Put },
    /// He changes it back.
    LeaveCopy {
        reference: InstanceRef,
        put: Put,
        was: Whereabouts,
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

/// Whether a master has gone on with a copy of its database, by what the configuration named before and names now.
fn has_gone_on(was: &Whereabouts, now: &Whereabouts) -> anyhow::Result<bool> {
    let is_copy = now.kind != was.kind || now.place != was.place;
    match (was.progress, now.progress) {
        _ if !is_copy => Ok(false),
        (Some(before), Some(after)) => Ok(after > before),
        _ => bail!("the builds in `{}` cannot be counted", now.place),
    }
}

impl DatabaseStep {
    /// See [`super::Step::obstacle`].
    pub(super) fn obstacle(&self) -> anyhow::Result<Option<String>> {
        let Self::LeaveCopy { reference, was, .. } = self else {
            return Ok(None);
        };
        let now = transfer::inspect(&configured(reference)?, false)?;
        let text = || {
            let (now, was) = (&now.place, &was.place);
            format!(
                "`{reference}` has gone on with `{now}`, which has builds or requests that `{was}` lacks"
            )
        };
        Ok(has_gone_on(was, &now)?.then(text))
    }

    /// Whether it removes a database, or tables of one.
    pub(super) fn removes_database(&self) -> bool {
        matches!(
            self,
            Self::DropDatabase { .. } | Self::ClearDatabase { .. } | Self::RemoveCopy { .. }
        )
    }
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
            Self::UseCopy { put, .. } => put.fmt(formatter),
            Self::LeaveCopy { put, .. } => {
                write!(
                    formatter,
                    "{put}, unless the master has gone on with the copy"
                )
            }
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
            Self::CreateDatabase { database, role } => {
                // Where it has come meanwhile, it is not to be dropped.
                let found = server::inspect(role.as_str(), database)?;
                ensure!(
                    found.owner.is_none(),
                    "the database `{database}` already exists"
                );
                Undo::by(Self::DropDatabase {
                    database: database.clone(),
                    role: role.clone(),
                })
            }
            Self::UseDatabase { is_new: true, .. }
            | Self::BackUp { .. }
            | Self::CheckDatabase { .. } => Undo::nothing(),
            Self::UseDatabase {
                identity, reach, ..
            } => {
                // Tables that have come meanwhile are not to be dropped.
                reach::ensure_usable(identity, reach)?;
                Undo::by(Self::ClearDatabase {
                    identity: identity.clone(),
                    reach: reach.clone(),
                })
            }
            Self::Copy {
                reference, is_file, ..
            } => Undo::by(Self::RemoveCopy {
                reference: reference.clone(),
                is_file: *is_file,
            }),
            Self::UseCopy { reference, put } => Undo::by(Self::LeaveCopy {
                reference: reference.clone(),
                put: put.inverse(),
                was: transfer::inspect(&configured(reference)?, false)?,
            }),
            Self::RemoveCopy { .. } | Self::LeaveCopy { .. } => Undo::Impossible,
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
            Self::UseCopy { put, .. } | Self::LeaveCopy { put, .. } => put::put(put),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn at(place: &str, progress: Option<u64>) -> Whereabouts {
        Whereabouts {
            kind: "sqlite".into(),
            place: place.into(),
            file: "state.sqlite".into(),
            has_file: true,
            progress,
        }
    }

    #[test]
    fn a_master_has_gone_on_when_its_configuration_names_a_copy_that_has_grown() {
        let was = at("old", Some(7));
        for (now, expected) in [
            (at("old", Some(9)), Some(false)),
            (at("old", None), Some(false)),
            (at("new", Some(7)), Some(false)),
            (at("new", Some(8)), Some(true)),
            (at("new", None), None),
        ] {
            assert_eq!(has_gone_on(&was, &now).ok(), expected, "{now:?}");
        }
    }
}
