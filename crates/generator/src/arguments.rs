//! The command line, as systemd gives it (systemd.generator(7)) and as tests do.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// What to read from and write to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    root: Option<PathBuf>,
    /// Where drop-ins go: after `/etc/systemd/system`, before `/usr/lib/systemd/system`.
    pub(crate) normal: PathBuf,
    /// Directory of units that come before those in `/etc`; we write nothing there.
    pub(crate) early: PathBuf,
}

/// The arguments are not what systemd gives.
#[derive(Debug, PartialEq, Eq, Error)]
#[error("usage: buildbot-conda-generator [--root DIR] NORMAL EARLY LATE")]
pub(crate) struct Usage;

impl Arguments {
    /// Reads the arguments, without the program's name.
    pub(crate) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Self, Usage> {
        let mut arguments: Vec<OsString> = arguments.collect();
        let mut root = None;
        if arguments.first().is_some_and(|first| first == "--root") {
            let rest = arguments.split_off(2.min(arguments.len()));
            root = Some(PathBuf::from(
                arguments.pop().filter(|dir| dir != "--root").ok_or(Usage)?,
            ));
            arguments = rest;
        }
        match <[OsString; 3]>::try_from(arguments) {
            Ok([normal, early, late]) if !normal.is_empty() && !late.is_empty() => Ok(Self {
                root,
                normal: normal.into(),
                early: early.into(),
            }),
            _ => Err(Usage),
        }
    }

    /// The directory that is used as `/`, in tests.
    pub(crate) fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Arguments, Usage> {
        Arguments::parse(arguments.iter().map(OsString::from))
    }

    #[test]
    fn three_directories_are_taken_with_and_without_a_root() {
        let arguments = parse(&["/run/n", "/run/e", "/run/l"]).unwrap();
        assert_eq!(arguments.root(), None);
        let arguments = parse(&["--root", "/r", "n", "e", "l"]).unwrap();
        assert_eq!(arguments.root(), Some(Path::new("/r")));
        assert_eq!(arguments.normal, Path::new("n"));
    }

    #[test]
    fn anything_else_is_answered_with_the_usage() {
        for arguments in [
            &[][..],
            &["n"],
            &["n", "e"],
            &["n", "e", "l", "x"],
            &["", "e", "l"],
            &["--root"],
            &["--root", "/r"],
            &["--root", "/r", "n", "e"],
        ] {
            assert_eq!(parse(arguments), Err(Usage), "{arguments:?}");
        }
    }
}
