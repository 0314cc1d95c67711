//! What is going to be done, decided before anything is: the plan that a dry run prints is the value that is carried out.

use std::fmt;

use crate::change::Change;
use crate::release::date_text;

/// The next state of a repository.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) change: Change,
    /// The number of the generation.
    pub(crate) number: u64,
    /// Seconds since 1970.
    pub(crate) date: u64,
    /// Seconds since 1970.
    pub(crate) valid_until: u64,
}

/// One line for each package that is added, kept or removed, and one for the signature.
impl fmt::Display for Plan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (verb, list) in [
            ("add", &self.change.added),
            ("already contains", &self.change.known),
            ("drop", &self.change.dropped),
        ] {
            for identity in list {
                writeln!(formatter, "{verb}: {identity}")?;
            }
        }
        let (count, until) = (self.change.packages.len(), date_text(self.valid_until));
        let packages = if count == 1 { "package" } else { "packages" };
        writeln!(formatter, "sign: {count} {packages}, valid until {until}")
    }
}
