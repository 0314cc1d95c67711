//! The environment as files: whether it can be activated, whether conda would select the same one, and whether its
//! files match its packages. None of its programs is run.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use buildbot_conda_conda::resolve::{ResolveError, Surroundings, configured, resolve};
use buildbot_conda_conda::{self as conda, PrefixFacts};
use buildbot_conda_core::settings::Instance;
use buildbot_conda_core::values::CondaEnv;
use serde::{Deserialize, Serialize};

use super::{Depth, place};
use crate::doctor::finding::Check;
use crate::doctor::prefix::buildbot;
use crate::inside::access::Obstacle;
use crate::system::context::Context;
use crate::system::installations;

/// Maximum number of changed packages to report.
const MOST_TOLD: usize = 20;

/// Facts about an environment.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::doctor) struct EnvironmentFacts {
    pub(in crate::doctor) state: State,
    pub(in crate::doctor) resolution: Option<Resolution>,
    /// Packages whose files have changed; none if this was not checked.
    pub(in crate::doctor) damage: Vec<Damage>,
    /// How many packages it has whose records can be read.
    pub(in crate::doctor) packages: usize,
    /// How many have records that cannot.
    pub(in crate::doctor) unread: usize,
    /// When a package came or went last, in seconds since 1970.
    pub(in crate::doctor) changed: Option<u64>,
}

/// Whether an instance can be started from it, by the launcher's rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::doctor) enum State {
    Usable,
    Missing,
    NoCondaMeta,
    NoPython,
    NoBuildbot,
    /// The reason, and what to do about it.
    Refused(String, String),
    /// This process may not enter it.
    Closed(Obstacle),
}

/// Where conda finds the environment of this name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::doctor) enum Resolution {
    /// The path in the configuration.
    Same,
    Elsewhere(PathBuf),
    Nowhere,
    /// condarc is at fault.
    Failed(String),
}

/// A package that is not what it was.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::doctor) struct Damage {
    pub(in crate::doctor) package: String,
    pub(in crate::doctor) version: String,
    /// Files that are gone.
    pub(in crate::doctor) missing: usize,
    /// Files of another size.
    pub(in crate::doctor) changed: usize,
    /// One of them, relative to the prefix.
    pub(in crate::doctor) example: String,
}

pub(super) fn examine(
    instance: &Instance,
    context: &Context,
    checks: &[Check],
    depth: Depth,
) -> EnvironmentFacts {
    let prefix = place(&instance.prefix(), context);
    let state = state(instance, &prefix, depth);
    let is_asked = checks.contains(&Check::Packages);
    let (records, unread) = match state {
        State::Missing | State::NoCondaMeta | State::Closed(_) => (Vec::new(), 0),
        _ if !is_asked => (Vec::new(), 0),
        _ => records(&prefix),
    };
    // A name is a matter of the account's own condarc and home, which others do not have.
    let resolution = (depth == Depth::Everything && checks.contains(&Check::Resolution))
        .then(|| resolution(instance))
        .flatten();
    EnvironmentFacts {
        state,
        resolution,
        damage: if is_asked {
            damage(&prefix, &records)
        } else {
            Vec::new()
        },
        packages: records.len(),
        unread,
        changed: changed(&prefix),
    }
}

fn state(instance: &Instance, prefix: &Path, depth: Depth) -> State {
    if let Some(obstacle) = Obstacle::in_environment(prefix) {
        return State::Closed(obstacle);
    }
    let facts = match PrefixFacts::read(prefix) {
        Ok(facts) => facts,
        Err(conda::ReadError::Missing { .. }) => return State::Missing,
        Err(error) => return State::Refused(error.to_string(), error.hint()),
    };
    if !facts.has_conda_meta() {
        return State::NoCondaMeta;
    }
    // condarc is a matter of the account, which others are not.
    let options = match depth {
        Depth::Files => conda::Options::default(),
        Depth::Everything => {
            let root = Path::new(instance.conda_root.as_str());
            match configured(instance.conda_env.to_string().into(), root, &surroundings()) {
                Ok(configured) => configured.options,
                Err(error) => return State::Refused(error.to_string(), error.hint()),
            }
        }
    };
    if let Err(refusal) = conda::activate(&facts, None, &conda::Environment::new(), &options) {
        return State::Refused(refusal.to_string(), refusal.hint());
    }
    let is_executable = |path: PathBuf| {
        path.metadata()
            .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    if !is_executable(prefix.join("bin/python")) {
        return State::NoPython;
    }
    let (program, module) = buildbot(instance.reference.role);
    if prefix.join("bin").join(program).exists() || installations::has_module(prefix, module) {
        State::Usable
    } else {
        State::NoBuildbot
    }
}

fn surroundings() -> Surroundings {
    Surroundings::of_process(std::env::vars_os().collect(), Path::new("/"))
}

fn resolution(instance: &Instance) -> Option<Resolution> {
    let CondaEnv::Name(name) = &instance.conda_env else {
        return None;
    };
    let root = Path::new(instance.conda_root.as_str());
    if !root.join("bin/conda").exists() {
        // Then no name is resolved with it.
        return None;
    }
    let configured = Path::new(instance.prefix().as_str()).to_owned();
    Some(match resolve(name.as_ref(), root, &surroundings()) {
        Ok(resolved) if resolved.prefix == configured => Resolution::Same,
        Ok(resolved) => Resolution::Elsewhere(resolved.prefix),
        Err(ResolveError::UnknownName { .. }) => Resolution::Nowhere,
        Err(error) => Resolution::Failed(error.to_string()),
    })
}

/// One file of `conda-meta`.
#[derive(Deserialize)]
struct Record {
    name: String,
    version: String,
    #[serde(default)]
    files: Vec<String>,
    #[serde(default)]
    paths_data: Paths,
}

#[derive(Default, Deserialize)]
struct Paths {
    #[serde(default)]
    paths: Vec<RecordedPath>,
}

#[derive(Deserialize)]
struct RecordedPath {
    #[serde(rename = "_path")]
    path: String,
    #[serde(default)]
    path_type: Option<String>,
    #[serde(default)]
    size_in_bytes: Option<u64>,
    #[serde(default)]
    prefix_placeholder: Option<String>,
}

/// What can be read of them, and how many cannot: some tools make them readable for their owner alone.
fn records(prefix: &Path) -> (Vec<Record>, usize) {
    let entries = fs::read_dir(prefix.join("conda-meta"))
        .into_iter()
        .flatten()
        .flatten();
    let files = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "json"));
    let read = |path: PathBuf| serde_json::from_slice(&fs::read(path).ok()?).ok();
    let read: Vec<Option<Record>> = files.map(read).collect();
    let unread = read.iter().filter(|record| record.is_none()).count();
    let mut records: Vec<Record> = read.into_iter().flatten().collect();
    records.sort_by(|left, right| left.name.cmp(&right.name));
    (records, unread)
}

fn damage(prefix: &Path, records: &[Record]) -> Vec<Damage> {
    let damaged = records
        .iter()
        .filter_map(|record| damage_of(prefix, record));
    damaged.take(MOST_TOLD).collect()
}

fn damage_of(prefix: &Path, record: &Record) -> Option<Damage> {
    // Sizes of files that were linked unchanged; a text that contains the prefix has another size afterwards.
    let sizes: BTreeMap<&str, u64> = record
        .paths_data
        .paths
        .iter()
        .filter(|path| path.prefix_placeholder.is_none())
        .filter(|path| path.path_type.as_deref() == Some("hardlink"))
        .filter_map(|path| Some((path.path.as_str(), path.size_in_bytes?)))
        .collect();
    let mut damage = Damage {
        package: record.name.clone(),
        version: record.version.clone(),
        missing: 0,
        changed: 0,
        example: String::new(),
    };
    // Bytecode comes and goes.
    for file in record.files.iter().filter(|file| !is_bytecode(file)) {
        let count = match prefix.join(file).symlink_metadata() {
            Err(error) if error.kind() == ErrorKind::NotFound => &mut damage.missing,
            Ok(metadata) if metadata.is_file() => match sizes.get(file.as_str()) {
                Some(size) if *size != metadata.len() => &mut damage.changed,
                _ => continue,
            },
            _ => continue,
        };
        *count += 1;
        if damage.example.is_empty() {
            damage.example.clone_from(file);
        }
    }
    (damage.missing + damage.changed > 0).then_some(damage)
}

fn is_bytecode(file: &str) -> bool {
    Path::new(file).extension().is_some_and(|end| end == "pyc")
}

/// Every transaction of conda writes its history, and those of other tools a record at least.
fn changed(prefix: &Path) -> Option<u64> {
    let entries = fs::read_dir(prefix.join("conda-meta")).ok()?.flatten();
    let times = entries.filter_map(|entry| u64::try_from(entry.metadata().ok()?.mtime()).ok());
    times.max()
}
