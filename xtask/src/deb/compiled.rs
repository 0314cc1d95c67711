//! The build directory of the packages' programs: one for all clones, because most of it consists of libraries that are
//! the same in all of them. cargo distinguishes two states of a file by its time, so only one clone uses it at a time,
//! and what an earlier one compiled of the project itself is compiled again.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use buildbot_conda_machine::kept_directory;

use super::{Target, compiler};

/// cargo's directory of intermediate files, locked as long as the value exists.
pub(super) struct Compiled {
    path: PathBuf,
    _lock: File,
}

impl Compiled {
    /// Waits for other clones, and removes files of theirs that could be mistaken for ours.
    ///
    /// # Errors
    ///
    /// If the directory cannot be used.
    pub(super) fn hold(workspace: &Path, target: Target, profile: &str) -> Result<Self> {
        let lock_file = workspace.join("Cargo.lock");
        let versions = fs::read_to_string(&lock_file)
            .with_context(|| format!("read `{}`", lock_file.display()))?;
        let inputs = [&*versions, &compiler(workspace)?, profile, &target.triple()];
        let path = kept_directory("compiled", &inputs)?;
        let lock = File::create(path.join("lock")).context("open the lock of compiled files")?;
        lock.lock().context("lock the compiled files")?;
        let owner = path.join("clone");
        let name = workspace.as_os_str().as_encoded_bytes();
        if fs::read(&owner).is_ok_and(|last| last != name) {
            // Build scripts are of this machine's kind.
            for directory in [path.clone(), target.directory(&path)] {
                forget_members(&directory.join(profile).join(".fingerprint"))?;
            }
        }
        fs::write(&owner, name).with_context(|| format!("write `{}`", owner.display()))?;
        Ok(Self { path, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Removes what cargo knows of the project's own crates.
fn forget_members(fingerprints: &Path) -> Result<()> {
    for entry in fs::read_dir(fingerprints).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.to_string_lossy().starts_with("buildbot-conda") {
            fs::remove_dir_all(entry.path())
                .with_context(|| format!("remove `{}`", entry.path().display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_of_the_project_are_forgotten_and_libraries_are_kept() {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let at = |name: &str| directory.path().join(name);
        for name in ["buildbot-conda-cli-1", "toml-1"] {
            fs::create_dir(at(name)).expect("a directory can be made");
        }
        forget_members(directory.path()).expect("they can be removed");
        assert!(!at("buildbot-conda-cli-1").exists());
        assert!(at("toml-1").exists());
        forget_members(&at("not/there/yet")).expect("nothing is to be removed");
    }
}
