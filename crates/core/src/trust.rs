//! Whose files may decide what root does.
//!
//! The configuration ends up in unit files, `User=` among them. Whoever can write it decides as
//! whom Buildbot runs, so it and its directory belong to root alone. Generator and launcher ask
//! here, so that they use a configuration both or neither: a start without the drop-in would be
//! one with the wrong account.

use thiserror::Error;

/// Size in bytes up to which a configuration is read; one of 1,000 instances has about 0.1 MB.
pub const LARGEST_CONFIGURATION: u64 = 8 << 20;

/// The bits of a mode with which others than the owner can write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Why a file or directory is not believed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Distrust {
    /// Its owner can write it, or allow himself to.
    #[error(
        "{path}: belongs to user {owner}, not to root\nhint: `chown root: {path}` once you have checked it"
    )]
    Owner {
        /// The file or directory.
        path: String,
        /// Numeric id.
        owner: u32,
    },
    /// Its group or everybody can write it.
    #[error(
        "{path}: can be written by others than root (mode {mode:04o})\nhint: `chmod go-w {path}` once you have checked it"
    )]
    Mode {
        /// The file or directory.
        path: String,
        /// Permission bits.
        mode: u32,
    },
}

/// Judges a file or directory by the numbers of its `stat`: `owner`, and `mode` with or without
/// the bits of the file type. `trusted` are the owners that are believed; outside of tests root
/// alone.
///
/// # Errors
///
/// [`Distrust`], the owner first.
pub fn check(path: &str, owner: u32, mode: u32, trusted: &[u32]) -> Result<(), Distrust> {
    if !trusted.contains(&owner) {
        let path = path.to_owned();
        return Err(Distrust::Owner { path, owner });
    }
    if mode & WRITABLE_BY_OTHERS != 0 {
        return Err(Distrust::Mode {
            path: path.to_owned(),
            mode: mode & 0o7777,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_root_alone_can_write_is_believed() {
        for mode in [0o644, 0o600, 0o755, 0o100_644, 0o40_755] {
            assert_eq!(check("/x", 0, mode, &[0]), Ok(()));
        }
    }

    #[test]
    fn what_others_can_write_is_not() {
        for (owner, mode, reason) in [
            (1000, 0o644, "/x: belongs to user 1000, not to root"),
            (1000, 0o666, "/x: belongs to user 1000, not to root"),
            (
                0,
                0o664,
                "/x: can be written by others than root (mode 0664)",
            ),
            (
                0,
                0o100_646,
                "/x: can be written by others than root (mode 0646)",
            ),
            (
                0,
                0o41_777,
                "/x: can be written by others than root (mode 1777)",
            ),
        ] {
            let distrust = check("/x", owner, mode, &[0]).expect_err("it is no root's");
            assert_eq!(distrust.to_string().lines().next(), Some(reason));
        }
    }

    #[test]
    fn tests_may_believe_whoever_runs_them() {
        assert_eq!(check("/x", 1000, 0o644, &[0, 1000]), Ok(()));
    }
}
