//! Finds Conda environments on a host in the usual places, to suggest them if the configuration leads to none.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use buildbot_conda_core::names::Role;
use buildbot_conda_core::paths;
use buildbot_conda_core::values::{AbsolutePath, CondaEnv};
use buildbot_conda_environments::EnvironmentName;

use super::accounts;
use super::context::Context;

/// Directories that contain installations, in addition to home directories.
const PLACES: [&str; 3] = ["/opt", "/usr/local", "/srv"];
/// What the installers call theirs.
const NAMES: [&str; 9] = [
    "conda",
    "miniforge3",
    "mambaforge",
    "miniconda3",
    "anaconda3",
    "micromamba",
    "miniforge",
    "miniconda",
    "anaconda",
];

/// An environment that has what is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) prefix: AbsolutePath,
    /// The only account that can use it; none if everyone can.
    pub(crate) only: Option<String>,
}

/// Environments with all of `programs`, those first that every account can use. One called `name` comes before the
/// installation itself.
pub(crate) fn candidates(name: &str, programs: &[&str], context: &Context) -> Vec<Candidate> {
    let homes = fs::read_dir(context.path("/home")).into_iter().flatten();
    let homes = homes.flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        Some(format!("/home/{name}"))
    });
    let places = PLACES.iter().map(|place| (*place).to_owned());
    let mut roots: Vec<String> = places
        .chain(homes)
        .flat_map(|place| NAMES.map(|name| format!("{place}/{name}")))
        .filter(|root| context.path(root).is_dir())
        .collect();
    roots.sort();
    let prefixes = roots
        .into_iter()
        .flat_map(|root| [format!("{root}/envs/{name}"), root]);
    let prefixes = std::iter::once(paths::managed_prefix(name)).chain(prefixes);
    let mut found: Vec<Candidate> = prefixes
        .filter(|prefix| has(prefix, programs, context))
        .filter_map(|prefix| candidate(&prefix, context))
        .collect();
    found.sort_by_key(|candidate| candidate.only.is_some());
    found
}

fn has(prefix: &str, programs: &[&str], context: &Context) -> bool {
    let is_there = |path: &str| context.path(&format!("{prefix}/{path}")).exists();
    let mut programs = programs.iter();
    is_there("conda-meta")
        && is_there("bin/python")
        && programs.all(|program| is_there(&format!("bin/{program}")))
}

fn candidate(prefix: &str, context: &Context) -> Option<Candidate> {
    let only = if is_for_everybody(&context.path(prefix)) {
        None
    } else {
        let owner = context.path(prefix).metadata().ok()?.uid();
        // An environment that only root can use belongs to nobody.
        let name = accounts::name_of_user(owner, context).ok().flatten()?;
        Some(name).filter(|name| name != "root")?.into()
    };
    let prefix = prefix.parse().ok()?;
    Some(Candidate { prefix, only })
}

/// Whether an account that owns none of it can use an environment: everyone may enter each of its directories, and read
/// the interpreter.
pub(crate) fn is_for_everybody(prefix: &Path) -> bool {
    let python = prefix.join("bin/python");
    let Ok(real) = python.canonicalize() else {
        return false;
    };
    let passable = |path: &Path| {
        path.ancestors().skip(1).all(|ancestor| {
            ancestor
                .metadata()
                .is_ok_and(|found| found.mode() & 0o001 != 0)
        })
    };
    let readable = real
        .metadata()
        .is_ok_and(|found| found.mode() & 0o005 == 0o005);
    passable(&python) && passable(&real) && readable
}

/// What an environment of the configuration is called where no conda manages it.
pub(crate) fn managed_name(environment: &CondaEnv) -> String {
    let name: Result<EnvironmentName, _> = environment.to_string().parse();
    name.map_or_else(|_| "buildbot".to_owned(), |name| name.to_string())
}

/// Whether the program that makes environments is installed.
pub(crate) fn has_builder(context: &Context) -> bool {
    context.path(paths::ENVIRONMENT_BUILDER).exists()
}

/// Packages of conda-forge that an environment with Buildbot lacks: the web pages of a master, and what a worker imports
/// though its package does not depend on it.
pub(crate) fn missing(prefix: &Path, role: Role) -> Vec<&'static str> {
    let (needs, modules) = match role {
        Role::Master => ("buildbot", &[("buildbot_www", "buildbot-www")][..]),
        Role::Worker => (
            "buildbot_worker/msgpack",
            &[("msgpack", "msgpack-python"), ("autobahn", "autobahn")][..],
        ),
    };
    if !has_module(prefix, needs) {
        return Vec::new();
    }
    let missing = modules
        .iter()
        .filter(|(module, _)| !has_module(prefix, module));
    missing.map(|(_, package)| *package).collect()
}

/// Whether an environment has a Python module.
pub(crate) fn has_module(prefix: &Path, module: &str) -> bool {
    site_packages(prefix).any(|packages| {
        packages.join(module).is_dir() || packages.join(format!("{module}.py")).is_file()
    })
}

/// Major and minor version of a distribution in an environment, by the directory of its metadata.
pub(crate) fn version(prefix: &Path, distribution: &str) -> Option<(u32, u32)> {
    let entries = site_packages(prefix).filter_map(|packages| fs::read_dir(packages).ok());
    let mut names = entries
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    names.find_map(|name| {
        let version = name.strip_prefix(distribution)?.strip_prefix('-')?;
        let mut numbers = version.split('.').map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    })
}

/// `lib/python3.*/site-packages`.
fn site_packages(prefix: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(prefix.join("lib"));
    let entries = entries.into_iter().flatten().flatten();
    entries.map(|entry| entry.path().join("site-packages"))
}
