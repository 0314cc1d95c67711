//! What is going to be done, decided before anything is: the plan that a dry run prints is the value that is carried out.

use std::fmt;
use std::path::Path;

use crate::change::Change;
use crate::error::Error;
use crate::gpg::{self, Gpg};
use crate::layout::{self, Layout};
use crate::release::date_text;
use crate::repository::Repository;
use crate::settings::Settings;

/// A new repository, without packages yet.
#[derive(Debug)]
pub struct Creation {
    layout: Layout,
    settings: Settings,
}

impl Creation {
    /// In the directory `root`, which need not exist.
    ///
    /// # Errors
    ///
    /// When there is a repository already, or a key cannot sign.
    pub fn new(root: &Path, settings: Settings) -> Result<Self, Error> {
        let layout = Layout::new(root)?;
        let path = layout.settings();
        if path.exists() {
            return Err(Error::Exists(path));
        }
        check_keys(&settings)?;
        Ok(Self { layout, settings })
    }

    /// Makes it.
    ///
    /// # Errors
    ///
    /// When the directory cannot be written.
    pub fn carry_out(self) -> Result<Repository, Error> {
        layout::make_directory(self.layout.root())?;
        layout::write(
            &self.layout.settings(),
            self.settings.to_string().as_bytes(),
        )?;
        Ok(Repository {
            layout: self.layout,
            settings: self.settings,
            gpg: Gpg::default(),
        })
    }
}

/// One line for each step, and below the file its text, set in.
impl fmt::Display for Creation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let root = self.layout.root();
        if !root.is_dir() {
            writeln!(formatter, "create `{}`", root.display())?;
        }
        writeln!(formatter, "write `{}`:", self.layout.settings().display())?;
        for line in self.settings.to_string().lines() {
            writeln!(formatter, "{}", format!("    {line}").trim_end())?;
        }
        Ok(())
    }
}

/// The next state of a repository.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) change: Change,
    /// Of the generation.
    pub(crate) number: u64,
    /// Seconds since 1970.
    pub(crate) date: u64,
    /// Seconds since 1970.
    pub(crate) valid_until: u64,
}

/// One line for each package that comes, is there already or goes, and one for the signature.
impl fmt::Display for Plan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (verb, list) in [
            ("add", &self.change.added),
            ("has already", &self.change.known),
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

/// Every key of the settings can sign.
pub(crate) fn check_keys(settings: &Settings) -> Result<(), Error> {
    settings.keys.iter().try_for_each(gpg::check_key)
}
