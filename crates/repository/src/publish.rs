//! Publishes a state, in an order that leaves only complete states on disk at every moment: first the packages, then a
//! new generation next to the present one, then the single rename that clients see, and last the removal of files that
//! nobody reads any more.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs as unix;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::clients;
use crate::deb::Incoming;
use crate::digest::Digest;
use crate::error::{Error, at};
use crate::gpg::{self, Form, Gpg};
use crate::layout::{self, Layout};
use crate::package::Identity;
use crate::plan::Plan;
use crate::present::{self, Generation, Present};
use crate::release::{Packages, Release, architectures, indexes};
use crate::settings::Settings;

/// Everything a new state is made from.
#[derive(Debug)]
pub(crate) struct Publication<'p> {
    pub(crate) layout: &'p Layout,
    pub(crate) settings: &'p Settings,
    pub(crate) gpg: &'p Gpg,
    pub(crate) present: Option<&'p Present>,
    /// States that some may still be reading, the present one included.
    pub(crate) readable: &'p [Generation],
}

/// Removes the remains of a killed process, which no client has seen. The lock must be held.
pub(crate) fn clean(layout: &Layout, settings: &Settings) -> Result<(), Error> {
    let present = layout.present(&settings.suite)?.unwrap_or(0);
    let generations = layout.generations(&settings.suite);
    let whole = layout.numbers(&settings.suite)?;
    for name in layout::names(&generations)? {
        let number = name.parse::<u64>().ok();
        let seen = number.filter(|number| *number <= present && whole.contains(number));
        if seen.is_none() && number != Some(present) {
            layout::remove(&generations.join(name))?;
        }
    }
    layout::remove(&layout.incoming())?;
    layout::make_directory(&layout.incoming())
}

impl Publication<'_> {
    /// Makes what is planned what clients see.
    pub(crate) fn publish(&self, plan: &Plan, incoming: Vec<Incoming>) -> Result<(), Error> {
        for deb in incoming {
            self.place(deb)?;
        }
        let release = self.write_generation(plan)?;
        self.write_client_files(&release)?;
        self.switch(plan.number)?;
        self.forget(&plan.change.packages)
    }

    /// Adds a package to the pool. Nothing refers to its place before the new state is published, and an existing file
    /// is the same or was never published.
    fn place(&self, deb: Incoming) -> Result<(), Error> {
        let path = self.layout.pool(&deb.package.identity.file_name());
        let directory = path.parent().expect("the pool has directories");
        layout::make_directory(directory)?;
        deb.copy
            .persist(&path)
            .map_err(|error| at("write", &path)(error.error))?;
        layout::sync(directory)
    }

    fn write_generation(&self, plan: &Plan) -> Result<Release, Error> {
        let (number, packages) = (plan.number, &plan.change.packages);
        let generations = self.layout.generations(&self.settings.suite);
        let directory = generations.join(format!("{number}.unfinished"));
        layout::make_directory(&directory)?;

        let own = indexes(packages);
        let release = self.release(plan, &own);
        let older = self
            .readable
            .iter()
            .flat_map(|generation| &generation.files);
        for (name, content) in older.chain(&own) {
            let path = directory.join(present::by_hash(name, &Digest::of(content)));
            write_below(&path, content)?;
        }
        for (name, content) in &own {
            write_below(&directory.join(name), content)?;
        }
        let path = directory.join("Release");
        layout::write(&path, release.text().as_bytes())?;
        for (name, form) in [("InRelease", Form::Clear), ("Release.gpg", Form::Detached)] {
            let signature = self.gpg.sign(&path, &self.settings.keys, form)?;
            layout::write(&directory.join(name), &signature)?;
        }
        // Nothing is published that the next run, or apt, would not believe.
        let signers = present::verify_signatures(&directory, self.settings)?;
        if signers != self.settings.keys {
            return Err(Error::OtherKeys(directory.join("InRelease")));
        }
        self.set_time(&directory, plan.date)?;
        layout::sync(&directory)?;
        let finished = generations.join(number.to_string());
        fs::rename(&directory, &finished).map_err(at("rename", &directory))?;
        layout::sync(&generations)?;
        Ok(release)
    }

    fn release(&self, plan: &Plan, indexes: &BTreeMap<String, Vec<u8>>) -> Release {
        let files = indexes.iter().map(|(name, content)| {
            let size = content.len() as u64;
            (name.clone(), (Digest::of(content), size))
        });
        Release {
            name: self.settings.name.to_string(),
            suite: self.settings.suite.to_string(),
            date: plan.date,
            valid_until: plan.valid_until,
            architectures: architectures(&plan.change.packages),
            files: files.collect(),
        }
    }

    /// Servers answer "not modified" by whole seconds: the time stamp of each `InRelease` is later by at least a
    /// second, even if two are created within one second.
    fn set_time(&self, directory: &Path, date: u64) -> Result<(), Error> {
        let mut time = UNIX_EPOCH + Duration::from_secs(date);
        if let Some(present) = self.present {
            let suite = &self.settings.suite;
            let path = self
                .layout
                .generation(suite, present.number)
                .join("InRelease");
            let before = fs::metadata(&path)
                .and_then(|metadata| metadata.modified())
                .map_err(at("read", &path))?;
            time = time.max(before + Duration::from_secs(1));
        }
        for name in ["InRelease", "Release", "Release.gpg"] {
            let path = directory.join(name);
            set_modified(&path, time).map_err(at("set the time of", &path))?;
        }
        Ok(())
    }

    /// During a change of keys, clients get the new key before anything is signed with it alone.
    fn write_client_files(&self, release: &Release) -> Result<(), Error> {
        let keys = gpg::public(&self.settings.keys)?;
        let sources = clients::sources(self.settings, &release.architectures, &keys);
        for (path, text) in [
            (self.layout.public_key(self.settings), keys),
            (self.layout.sources(self.settings), sources),
        ] {
            if fs::read(&path).ok().as_deref() != Some(text.as_bytes()) {
                layout::write(&path, text.as_bytes())?;
            }
        }
        Ok(())
    }

    /// The moment in which clients see the new state.
    fn switch(&self, number: u64) -> Result<(), Error> {
        let suite = self.layout.suite(&self.settings.suite);
        let directory = suite.parent().expect("a suite lies in `dists`");
        layout::make_directory(directory)?;
        let link = self.layout.incoming().join("suite");
        unix::symlink(Layout::link(&self.settings.suite, number), &link)
            .map_err(at("write", &link))?;
        fs::rename(&link, &suite).map_err(at("replace", &suite))?;
        layout::sync(directory)
    }

    /// Removes generations that nobody reads any more, and packages that no other generation contains.
    fn forget(&self, packages: &Packages) -> Result<(), Error> {
        let states = self.readable.iter().map(|generation| &generation.packages);
        let used: BTreeSet<String> = states
            .chain([packages])
            .flat_map(Packages::keys)
            .map(Identity::file_name)
            .collect();
        // Packages first: interrupted, the next run finds out again which they are.
        self.forget_packages("pool/main", 2, &used)?;
        let kept: Vec<u64> = self
            .readable
            .iter()
            .map(|generation| generation.number)
            .collect();
        let present = self.present.map_or(0, |present| present.number);
        for number in self.layout.numbers(&self.settings.suite)? {
            if number <= present && !kept.contains(&number) {
                let directory = self.layout.generation(&self.settings.suite, number);
                // Half of a generation must not look like one. (To rename it first would be nicer, but overlayfs, as
                // below containers, does not rename directories of its lower layers.)
                layout::remove(&directory.join("Release"))?;
                layout::sync(&directory)?;
                layout::remove(&directory)?;
            }
        }
        layout::remove(&self.layout.incoming())
    }

    fn forget_packages(
        &self,
        directory: &str,
        depth: usize,
        used: &BTreeSet<String>,
    ) -> Result<(), Error> {
        for name in layout::names(&self.layout.pool(directory))? {
            let file_name = format!("{directory}/{name}");
            if depth > 0 {
                self.forget_packages(&file_name, depth - 1, used)?;
            } else if Path::new(&name).extension() == Some("deb".as_ref())
                && !used.contains(&file_name)
            {
                layout::remove(&self.layout.pool(&file_name))?;
            }
        }
        Ok(())
    }
}

fn write_below(path: &Path, content: &[u8]) -> Result<(), Error> {
    layout::make_directory(path.parent().expect("an index lies in a directory"))?;
    layout::write(path, content)
}

fn set_modified(path: &Path, time: SystemTime) -> std::io::Result<()> {
    let file = File::options().write(true).open(path)?;
    file.set_modified(time)?;
    file.sync_all()
}
