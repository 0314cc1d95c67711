//! A new repository: decided, shown by a dry run, and made.

use std::fmt;
use std::path::Path;

use crate::error::Error;
use crate::gpg::{Gpg, check_keys};
use crate::layout::{self, Layout};
use crate::repository::Repository;
use crate::settings::Settings;

/// A new repository, without packages yet.
#[derive(Debug)]
pub struct Creation {
    layout: Layout,
    settings: Settings,
}

impl Creation {
    /// In the directory `root`, which does not have to exist.
    ///
    /// # Errors
    ///
    /// If a repository already exists, or a key cannot sign.
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
