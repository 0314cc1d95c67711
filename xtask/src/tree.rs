//! The files of the repository, for rules about all of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// The files that git tracks.
pub(crate) struct Tree {
    pub(crate) root: PathBuf,
    pub(crate) files: Vec<PathBuf>,
}

impl Tree {
    /// The tree of the workspace at `root`.
    ///
    /// # Errors
    ///
    /// When git does not answer.
    pub(crate) fn of(root: &Path) -> Result<Self> {
        let output = Command::new("git")
            .current_dir(root)
            .args(["ls-files", "-z"])
            .output()
            .context("run `git ls-files`")?;
        ensure!(
            output.status.success(),
            "`git ls-files` failed in `{}`",
            root.display()
        );
        let names = String::from_utf8(output.stdout).context("read the names of files")?;
        let files = names
            .split('\0')
            .filter(|name| !name.is_empty())
            .map(PathBuf::from);
        Ok(Self {
            root: root.to_owned(),
            // A file that was just removed is tracked still.
            files: files.filter(|file| root.join(file).is_file()).collect(),
        })
    }

    /// These files of the directory `root`.
    #[cfg(test)]
    pub(crate) fn with(root: &Path, files: Vec<PathBuf>) -> Self {
        let root = root.to_owned();
        Self { root, files }
    }

    /// Whether a file is tracked.
    pub(crate) fn has(&self, file: &Path) -> bool {
        self.files.iter().any(|known| known == file)
    }

    pub(crate) fn read(&self, file: impl AsRef<Path>) -> Result<String> {
        let file = file.as_ref();
        fs::read_to_string(self.root.join(file))
            .with_context(|| format!("read `{}`", file.display()))
    }

    pub(crate) fn with_ending(&self, ending: &str) -> impl Iterator<Item = &PathBuf> {
        self.files
            .iter()
            .filter(move |file| file.extension().is_some_and(|found| found == ending))
    }
}
