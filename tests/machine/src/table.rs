//! What a table of events has: the table of faults and that of attacks are such.

/// One event and its guarantee.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Short and stable: words of small letters joined by hyphens.
    pub id: &'static str,
    /// What happens to a service, or what an attacker does.
    pub event: &'static str,
    /// What an administrator is promised.
    pub promise: &'static str,
    /// Who shows it.
    pub shown: Shown,
}

/// Where a row is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// On booted machines of each release, by a test that reports it.
    OnMachines,
    /// By a cheaper test, which every run includes and which fails if the guarantee is broken.
    ByTest {
        /// Path in the workspace of the file that has the test.
        file: &'static str,
        /// Name of its function.
        test: &'static str,
    },
}

/// Rows that are printed together.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// Lower case, such as `fault`.
    pub name: &'static str,
    /// Name of the page in `docs`, and what it opens with.
    pub page: (&'static str, &'static str),
    /// Headings of events and promises.
    pub headings: [&'static str; 2],
    /// In the order in which they are printed.
    pub rows: &'static [Row],
}
