//! A repository on disk and what can be done with it. One process changes it at a time.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use buildbot_conda_host::lock::{self, FlockOperation};

use crate::change::{Change, readable};
use crate::deb;
use crate::error::{Error, at};
use crate::gpg::{Gpg, check_keys};
use crate::layout::Layout;
use crate::plan::Plan;
use crate::present::{self, Generation, Present};
use crate::publish::{self, Publication};
use crate::release::{Packages, Release, date_text};
use crate::settings::{Fingerprint, Settings};

/// A repository with its settings.
#[derive(Debug)]
pub struct Repository {
    pub(crate) layout: Layout,
    pub(crate) settings: Settings,
    pub(crate) gpg: Gpg,
}

/// The requested change.
#[derive(Debug, Default)]
pub struct Wish<'w> {
    /// Packages to add; none renews the date and the signatures.
    pub debs: &'w [PathBuf],
    /// How many versions of each package to keep, instead of the configured number.
    pub keep: Option<NonZeroUsize>,
    /// Seconds since 1970: the date of the new state.
    pub date: u64,
    /// Only report what would change.
    pub dry_run: bool,
}

/// What a repository has, after all of it was verified.
#[derive(Debug)]
pub struct Contents {
    /// What is signed; nothing before the first package is added.
    pub release: Option<Release>,
    /// Every package.
    pub packages: Packages,
    /// The keys of the settings whose signatures are there.
    pub signers: Vec<Fingerprint>,
}

impl Repository {
    /// The repository in `root`. The passphrase is read from the file, if one is given.
    ///
    /// # Errors
    ///
    /// If there is none, or its settings are not valid.
    pub fn open(root: &Path, passphrase_file: Option<&Path>) -> Result<Self, Error> {
        let layout = Layout::new(root)?;
        let path = layout.settings();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(Error::NoRepository(root.to_owned()));
            }
            Err(error) => return Err(at("read", &path)(error)),
        };
        let settings = Settings::parse(&text).map_err(|cause| Error::Settings { path, cause })?;
        let passphrase_file = passphrase_file.map(Path::to_owned);
        Ok(Self {
            layout,
            settings,
            gpg: Gpg { passphrase_file },
        })
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Where the file for clients lies.
    pub fn sources(&self) -> PathBuf {
        self.layout.sources(&self.settings)
    }

    /// Publishes a new state, and reports the changes; with [`Wish::dry_run`], it reports the same plan, and changes
    /// nothing. If it is killed at any moment, either the present state or the complete new one is published.
    ///
    /// # Errors
    ///
    /// Nothing is published after an error; see [`Error`].
    pub fn change(&self, wish: &Wish<'_>) -> Result<String, Error> {
        let lock = if wish.dry_run {
            self.lock_for_reading()?
        } else {
            Some(self.lock()?)
        };
        check_keys(&self.settings)?;
        // A dry run copies packages to a temporary place.
        let scratch = tempfile::tempdir().map_err(at("write to", &std::env::temp_dir()))?;
        let incoming = if wish.dry_run {
            scratch.path().to_owned()
        } else {
            publish::clean(&self.layout, &self.settings)?;
            self.layout.incoming()
        };
        let present = present::load(&self.layout, &self.settings)?;
        refuse_going_back(present.as_ref(), wish.date)?;
        let readable = readable(self.generations(present.as_ref())?, wish.date);
        let debs = wish
            .debs
            .iter()
            .map(|path| deb::take_in(path, &incoming))
            .collect::<Result<Vec<_>, _>>()?;
        let change = Change::new(
            present
                .as_ref()
                .map(|present| present.packages.clone())
                .unwrap_or_default(),
            debs.iter().map(|deb| (deb.given.as_path(), &deb.package)),
            wish.keep.or(self.settings.keep),
            &readable,
        )?;
        if change.packages.is_empty() {
            return Err(Error::Empty(self.layout.root().to_owned()));
        }
        let plan = Plan {
            change,
            number: present.as_ref().map_or(1, |present| present.number + 1),
            date: wish.date,
            valid_until: wish.date + self.settings.valid_for.as_secs(),
        };
        if !wish.dry_run {
            let publication = Publication {
                layout: &self.layout,
                settings: &self.settings,
                gpg: &self.gpg,
                present: present.as_ref(),
                readable: &readable,
            };
            publication.publish(&plan, debs)?;
        }
        drop(lock);
        Ok(plan.to_string())
    }

    /// Its content, after verifying signatures, indexes and packages.
    ///
    /// # Errors
    ///
    /// If something differs from what was signed.
    pub fn contents(&self) -> Result<Contents, Error> {
        let _lock = self.lock_for_reading()?;
        let present = present::load(&self.layout, &self.settings)?;
        Ok(match present {
            None => Contents {
                release: None,
                packages: Packages::new(),
                signers: Vec::new(),
            },
            Some(present) => Contents {
                release: Some(present.release),
                packages: present.packages,
                signers: present.signers,
            },
        })
    }

    /// Waits for a writing process, and removes what is not read any more. Only the owner can use the lock: other
    /// accounts read without it, like clients.
    fn lock_for_reading(&self) -> Result<Option<File>, Error> {
        let path = self.layout.lock();
        lock::take_to_read(&path).map_err(at("lock", &path))
    }

    /// Keeps others from changing it until the file is closed, as the kernel does for a killed process too.
    fn lock(&self) -> Result<File, Error> {
        let path = self.layout.lock();
        match lock::take(&path, FlockOperation::NonBlockingLockExclusive) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                Err(Error::Busy(self.layout.root().to_owned()))
            }
            other => other.map_err(at("lock", &path)),
        }
    }

    /// Everything on disk up to the present state, which is the last.
    fn generations(&self, present: Option<&Present>) -> Result<Vec<Generation>, Error> {
        let last = present.map_or(0, |present| present.number);
        let suite = &self.settings.suite;
        let numbers = self.layout.numbers(suite)?;
        numbers
            .into_iter()
            .filter(|number| *number <= last)
            .map(|number| present::generation(&self.layout, suite, number))
            .collect()
    }
}

fn refuse_going_back(present: Option<&Present>, date: u64) -> Result<(), Error> {
    match present {
        Some(present) if date < present.release.date => Err(Error::Backwards {
            date: date_text(date),
            present: date_text(present.release.date),
        }),
        _ => Ok(()),
    }
}
