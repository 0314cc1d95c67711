//! One thing that is done to a host, by families: each family has its steps, how they are shown, how
//! they are rolled back and how they are carried out in a module of its own.

mod accounts;
mod as_user;
mod databases;
mod environments;
mod files;
mod fronts;
mod units;

use std::fmt;

use serde::{Deserialize, Serialize};

pub(crate) use accounts::AccountStep;
pub(crate) use as_user::UserStep;
pub(crate) use databases::DatabaseStep;
pub(crate) use environments::{EnvironmentStep, How, Making};
pub(crate) use files::FileStep;
pub(crate) use fronts::{Asked, FrontStep};
pub(crate) use units::UnitStep;

/// One step. Paths are those of this host, a root directory included. In JSON it is its own name with
/// its values, the family left out: `{"stop": {...}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Step {
    File(FileStep),
    Unit(UnitStep),
    Account(AccountStep),
    User(UserStep),
    Environment(EnvironmentStep),
    Front(FrontStep),
    Database(DatabaseStep),
}

/// How a step is rolled back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Undo {
    /// By these steps in their order, each of which works although the step was not carried out, or half.
    Steps(Vec<Step>),
    /// Not at all: what it removes is gone.
    Impossible,
}

/// What every family of steps can do. How it is shown is its `Display`.
pub(super) trait Deed: fmt::Display {
    /// How it is rolled back, seen from before it.
    fn undo(&self) -> anyhow::Result<Undo>;

    /// Carries it out. Doing it again is success.
    fn perform(&self) -> anyhow::Result<()>;

    /// Whether its success depends on what others than root have written, such as a configuration or a
    /// directory. Their mistake must not keep root from going on.
    fn relies_on_others(&self) -> bool;
}

impl Step {
    fn deed(&self) -> &dyn Deed {
        match self {
            Self::File(step) => step,
            Self::Unit(step) => step,
            Self::Account(step) => step,
            Self::User(step) => step,
            Self::Environment(step) => step,
            Self::Front(step) => step,
            Self::Database(step) => step,
        }
    }

    pub(super) fn undo(&self) -> anyhow::Result<Undo> {
        self.deed().undo()
    }

    pub(super) fn perform(&self) -> anyhow::Result<()> {
        self.deed().perform()
    }

    pub(super) fn relies_on_others(&self) -> bool {
        self.deed().relies_on_others()
    }

    /// Why a plan that was killed some time ago must not be rolled back by this step: what has come since would be lost.
    ///
    /// # Errors
    ///
    /// When that is not known.
    pub(super) fn obstacle(&self) -> anyhow::Result<Option<String>> {
        match self {
            Self::Database(step) => step.obstacle(),
            _ => Ok(None),
        }
    }

    /// Whether it removes a database, or tables of one.
    pub(super) fn removes_database(&self) -> bool {
        matches!(self, Self::Database(step) if step.removes_database())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.deed().fmt(formatter)
    }
}

impl Undo {
    /// Nothing has to be done for it.
    pub(super) fn nothing() -> Self {
        Self::Steps(Vec::new())
    }

    /// One step.
    pub(super) fn by(step: impl Into<Step>) -> Self {
        Self::Steps(vec![step.into()])
    }
}

macro_rules! families {
    ($($family:ident($kind:ty)),*) => {$(
        impl From<$kind> for Step {
            fn from(step: $kind) -> Self {
                Self::$family(step)
            }
        }
    )*};
}

families!(
    File(FileStep),
    Unit(UnitStep),
    Account(AccountStep),
    User(UserStep),
    Environment(EnvironmentStep),
    Front(FrontStep),
    Database(DatabaseStep)
);
