//! Which libraries are linked into the programs of a package, as Cargo.lock pins them.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::Target;
use super::command::output;

/// A crate as `cargo metadata` describes it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Library {
    id: String,
    pub(super) name: String,
    pub(super) version: String,
    pub(super) license: Option<String>,
    #[serde(default)]
    pub(super) authors: Vec<String>,
    pub(super) manifest_path: PathBuf,
    /// Absent for our own crates.
    source: Option<String>,
    /// Names and versions of the libraries that it links itself.
    #[serde(skip)]
    pub(super) needs: BTreeSet<(String, String)>,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Library>,
    resolve: Resolve,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

/// What a crate depends on.
#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Debug, Deserialize)]
struct DependencyKind {
    /// None for what is linked, `build` or `dev`.
    kind: Option<String>,
}

/// What the programs of a package consist of.
pub(super) struct Linked {
    /// By name and version.
    pub(super) libraries: Vec<Library>,
    /// Names and versions of those that our own crates link themselves.
    pub(super) direct: BTreeSet<(String, String)>,
}

/// The libraries that are linked into the programs of `crates`, as they are for `target`. What only builds, such as
/// procedural macros, leaves nothing in a program.
pub(super) fn linked(workspace: &Path, target: Target, crates: &[&str]) -> Result<Linked> {
    let mut linked = BTreeSet::new();
    for name in crates {
        let tree = output(
            Command::new(super::cargo())
                .current_dir(workspace)
                .args(["tree", "--locked", "--edges", "normal,no-proc-macro"])
                .args(["--prefix", "none", "--format", "{p}", "--package", name])
                .args(target.arguments()),
        )?;
        // `NAME vVERSION`, and for some a remark in parentheses.
        for line in tree.lines() {
            let mut words = line.split_whitespace();
            let (Some(name), Some(version)) = (words.next(), words.next()) else {
                bail!("`cargo tree` printed `{line}`");
            };
            linked.insert((name.to_owned(), version.trim_start_matches('v').to_owned()));
        }
    }
    let json = output(Command::new(super::cargo()).current_dir(workspace).args([
        "metadata",
        "--locked",
        "--format-version",
        "1",
        // What is for other systems only need not be fetched.
        "--filter-platform",
        &target.triple(),
    ]))?;
    let metadata: Metadata =
        serde_json::from_str(&json).context("read the output of `cargo metadata`")?;
    let external: HashMap<&str, (String, String)> = metadata
        .packages
        .iter()
        .filter(|library| library.source.is_some())
        .map(|library| (library.id.as_str(), library.key()))
        .filter(|(_, key)| linked.contains(key))
        .collect();
    let needs: HashMap<&str, BTreeSet<(String, String)>> = metadata
        .resolve
        .nodes
        .iter()
        .map(|node| {
            let linking = node.deps.iter().filter(|dependency| {
                let mut kinds = dependency.dep_kinds.iter();
                kinds.any(|kind| kind.kind.is_none())
            });
            let keys = linking.filter_map(|dependency| external.get(dependency.pkg.as_str()));
            (node.id.as_str(), keys.cloned().collect())
        })
        .collect();
    let of = |library: &Library| needs.get(library.id.as_str()).cloned().unwrap_or_default();
    let own = metadata
        .packages
        .iter()
        .filter(|library| library.source.is_none() && linked.contains(&library.key()));
    let direct = own.flat_map(of).collect();
    let mut libraries: Vec<Library> = Vec::new();
    for library in &metadata.packages {
        if external.contains_key(library.id.as_str()) {
            libraries.push(Library {
                needs: of(library),
                ..library.clone()
            });
        }
    }
    libraries.sort_by_key(Library::key);
    Ok(Linked { libraries, direct })
}

impl Library {
    fn key(&self) -> (String, String) {
        (self.name.clone(), self.version.clone())
    }
}
