//! What is known of a hand-made unit, what somebody has said of it, and what follows: the values that the steps of the
//! derivation hand to each other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use buildbot_conda_core::unit_text::{Place, Setting, in_force};

use crate::system::buildbots::Facts;

/// The process and its account's name for messages.
pub(super) type Observed = Facts;

/// What has to be looked up on the host.
pub(super) struct Host<'a> {
    /// A script as an account can read it, or the reason why there is none.
    pub(super) read: &'a dyn Fn(&str, &str) -> Result<Script, String>,
    /// Whether a unit file is not for everybody to read.
    pub(super) is_private: &'a dyn Fn(&str) -> bool,
    /// A file that only root may have to read, such as one of variables.
    pub(super) read_as_root: &'a dyn Fn(&str) -> Result<Script, String>,
    /// Whether an absolute path is there.
    pub(super) exists: &'a dyn Fn(&str) -> bool,
    /// The path without links, where it is there.
    pub(super) resolved: &'a dyn Fn(&Path) -> PathBuf,
    /// The number of an account.
    pub(super) uid: &'a dyn Fn(&str) -> Option<u32>,
    /// The texts that an environment's activation runs and reads, as an account can read them.
    pub(super) activation: &'a dyn Fn(&str, &str) -> String,
    /// The home directory of an account.
    pub(super) home: &'a dyn Fn(&str) -> Option<String>,
    /// The installation that the configuration names.
    pub(super) conda_root: String,
}

/// The text of a script, and whether it is not for everybody to read.
#[derive(Debug, Clone)]
pub(super) struct Script {
    pub(super) text: String,
    pub(super) is_private: bool,
}

/// Something with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remark {
    pub(super) place: Place,
    pub(super) text: String,
}

/// What the administrator says about it.
#[derive(Debug, Clone, Default)]
pub(super) struct Given {
    pub(super) conda_root: Option<String>,
    pub(super) conda_env: Option<String>,
    pub(super) directory: Option<String>,
    pub(super) user: Option<String>,
}

/// A key of ours, its value, and where that comes from.
pub(super) type Value = (String, String, String);

/// What becomes of one instance.
#[derive(Debug, Default)]
pub(super) struct Derived {
    /// Keys in the order in which they are set.
    pub(super) values: Vec<Value>,
    /// Variables that not everybody may read: name, value, and where it comes from.
    pub(super) secrets: Vec<Value>,
    /// Lines of the old unit that hold on, by section, with their places.
    pub(super) carried: BTreeMap<String, Vec<(String, Place)>>,
    /// Seen and not taken over.
    pub(super) left: Vec<Remark>,
    /// Keys of the old unit that ours answers in its own way.
    pub(super) answered: Vec<String>,
    /// A file of the unit is not for everybody to read.
    pub(super) is_private: bool,
    /// The directory of its Buildbot, where that runs outside of the unit's control group.
    pub(super) outside: Option<PathBuf>,
    /// The environment's directory.
    pub(super) prefix: String,
    /// What keeps it from being adopted, each with what to do about it.
    pub(super) problems: Vec<(Remark, Option<&'static str>)>,
}

/// A hand-made unit as it is on disk and as it runs.
pub(super) struct Source<'a> {
    /// Its name to systemd, such as `buildbot.service`.
    pub(super) unit: &'a str,
    /// The file, as it is shown.
    pub(super) file: &'a str,
    /// Those of the unit, then of its drop-ins.
    pub(super) settings: &'a [Setting],
    /// The Buildbot that runs by it.
    pub(super) observed: Option<&'a Observed>,
}

/// The settings of one unit under its name.
pub(super) struct Unit<'a> {
    pub(super) name: String,
    pub(super) settings: &'a [Setting],
}

impl Unit<'_> {
    /// Values of a list in `[Service]`; an empty one takes back what came before.
    pub(super) fn all(&self, key: &str) -> Vec<&Setting> {
        in_force(self.settings, "Service", key)
    }

    pub(super) fn last(&self, key: &str) -> Option<&Setting> {
        self.all(key).pop()
    }
}

impl Derived {
    pub(super) fn carry(&mut self, section: &str, line: String, place: Place) {
        let lines = self.carried.entry(section.to_owned()).or_default();
        lines.push((line, place));
    }

    pub(super) fn refuse(&mut self, place: &Place, text: String, hint: &'static str) {
        let place = place.clone();
        self.problems.push((Remark { place, text }, Some(hint)));
    }
}
