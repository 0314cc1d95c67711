//! Where credentials may be stored: only in places that root alone can write. systemd reads them as root for the
//! service, so a file that a user could replace by a link would give the user access to any file of the host.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use buildbot_conda_core::paths;
use buildbot_conda_core::values::ValueError;

use crate::trusted::{Trust, Trusted, Untrusted};

/// Judges the files of all credentials; most are in one directory, which is looked up once.
pub(crate) struct Credentials<'a> {
    trust: &'a Trust,
    directories: HashMap<PathBuf, Result<Trusted, Untrusted>>,
}

impl<'a> Credentials<'a> {
    pub(crate) fn new(trust: &'a Trust) -> Self {
        Self {
            trust,
            directories: HashMap::new(),
        }
    }

    /// Whether root alone could have put the file there. A missing file is reported by the start; what this process
    /// cannot see has been checked by the generator, which runs as root.
    pub(crate) fn judge(&mut self, file: &Path) -> Result<(), ValueError> {
        let (Some(directory), Some(name)) = (file.parent(), file.file_name()) else {
            return Ok(());
        };
        let trust = self.trust;
        let directory = self
            .directories
            .entry(directory.to_owned())
            .or_insert_with(|| trust.find(directory));
        match directory {
            Err(untrusted) if untrusted.is_distrust() => {
                let (at, reason) = (untrusted.at.display(), &untrusted.reason);
                Err(misplaced(
                    file,
                    &format!("goes through `{at}`, which {reason}"),
                ))
            }
            Err(_) => Ok(()),
            Ok(directory) => match trust.find_in(directory, name) {
                Err(untrusted) if untrusted.is_distrust() => {
                    Err(misplaced(file, &untrusted.explanation()))
                }
                _ => Ok(()),
            },
        }
    }
}

fn misplaced(file: &Path, explanation: &str) -> ValueError {
    ValueError {
        reason: format!("`{}` {explanation}", file.display()),
        hint: Some(format!(
            "store it in `{}`, owned by root and writable only by root",
            paths::CREDENTIALS
        )),
    }
}
