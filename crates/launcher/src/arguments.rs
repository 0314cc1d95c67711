//! The launcher's few arguments, parsed without a library, which would be most of the program.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use buildbot_conda_core::names::{InstanceRef, NameError, Role};
use thiserror::Error;

/// What is to be launched.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// Prepended to our own paths; for tests.
    pub(crate) root: Option<PathBuf>,
    pub(crate) reference: InstanceRef,
}

#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum UsageError {
    #[error("usage: launcher [--root DIR] master|worker [NAME]")]
    Shape,
    #[error(transparent)]
    Name(#[from] NameError),
}

impl Arguments {
    /// Reads the words after the program's name.
    pub(crate) fn parse(words: impl Iterator<Item = OsString>) -> Result<Self, UsageError> {
        let mut words: Vec<OsString> = words.collect();
        let mut root = None;
        if words.first().is_some_and(|word| word == "--root") {
            if words.len() < 2 {
                return Err(UsageError::Shape);
            }
            root = Some(PathBuf::from(words.remove(1)));
            words.remove(0);
        }
        let text = |word: &OsStr| word.to_string_lossy().into_owned();
        let reference = match words.as_slice() {
            [role] => InstanceRef::plain(text(role).parse::<Role>()?),
            [role, name] => InstanceRef {
                role: text(role).parse()?,
                name: Some(text(name).parse()?),
            },
            _ => return Err(UsageError::Shape),
        };
        Ok(Self { root, reference })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<(Option<String>, String), String> {
        Arguments::parse(words.iter().map(OsString::from))
            .map(|arguments| {
                let root = arguments
                    .root
                    .map(|root| root.to_string_lossy().into_owned());
                (root, arguments.reference.to_string())
            })
            .map_err(|error| error.to_string())
    }

    #[test]
    fn role_and_name_make_a_reference() {
        assert_eq!(parse(&["master"]), Ok((None, "master".to_owned())));
        assert_eq!(
            parse(&["worker", "gpu"]),
            Ok((None, "worker@gpu".to_owned()))
        );
        let with_root = parse(&["--root", "/t", "worker"]);
        assert_eq!(with_root, Ok((Some("/t".to_owned()), "worker".to_owned())));
    }

    #[test]
    fn other_words_are_refused() {
        for words in [
            &[][..],
            &["--root"],
            &["--root", "/t"],
            &["slave"],
            &["worker", "-x"],
            &["worker", "a", "b"],
        ] {
            assert!(parse(words).is_err(), "{words:?} were taken");
        }
    }
}
