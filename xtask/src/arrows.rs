//! Which file uses which, determined from the code of every crate, and the rules for that: files do not use each other
//! in a circle, and inside the command line, a part uses only what the map in `docs/architecture.md` allows.
//!
//! A part is a file or folder of `crates/cli/src`. Names that a module re-exports (`pub use`) lead to the file that
//! defines them. Code that the files of a folder share may be in the module of the folder: they may use it, although it
//! uses them. Tests may use anything.

mod modules;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use crate::tree::Tree;
use modules::Crate;

/// The page with the map.
const PAGE: &str = "docs/architecture.md";
/// The header of the map.
const HEADER: &str = "| part | uses |";
/// Where the parts are.
const PARTS: &str = "crates/cli/src";
/// Files that are the module of their folder.
const FACES: [&str; 3] = ["main.rs", "lib.rs", "mod.rs"];
/// Knows every verb, since it has the grammar.
const MAIN: &str = "main";

/// One file uses a name of another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Arrow {
    from: PathBuf,
    to: PathBuf,
    /// As it is written in `from`.
    name: String,
}

impl Arrow {
    /// Whether it leads to the module whose folder the file is in: `a/mod.rs` or `a.rs` from below `a/`.
    fn is_to_own_folder(&self) -> bool {
        let is_face = FACES.iter().any(|name| self.to.ends_with(name));
        let folder = match self.to.parent() {
            Some(parent) if is_face => parent.to_owned(),
            _ => self.to.with_extension(""),
        };
        self.from.starts_with(folder)
    }
}

impl std::fmt::Display for Arrow {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (from, to) = (self.from.display(), self.to.display());
        write!(formatter, "`{from}` uses `{}` of `{to}`", self.name)
    }
}

/// No files of the workspace use each other in a circle.
pub(crate) fn no_files_use_each_other_in_a_circle(tree: &Tree) -> Result<()> {
    let arrows = arrows(tree)?.into_iter();
    let circles = circles(&arrows.filter(|arrow| !arrow.is_to_own_folder()).collect());
    ensure!(
        circles.is_empty(),
        "move what both need to a separate file:\n{}",
        circles.join("\n")
    );
    Ok(())
}

/// The parts of the command line use each other as the map allows, and the map contains nothing more.
pub(crate) fn parts_use_what_the_map_says(tree: &Tree) -> Result<()> {
    let map = map(&tree.read(PAGE)?)?;
    let mut used: BTreeSet<(String, String)> = BTreeSet::new();
    let mut refused = Vec::new();
    for arrow in arrows(tree)? {
        let (Some(from), Some(to)) = (part(&arrow.from), part(&arrow.to)) else {
            continue;
        };
        if from == to || from == MAIN {
            continue;
        }
        match map.get(&from) {
            Some(allowed) if allowed.contains(&to) => {
                used.insert((from, to));
            }
            _ => refused.push(format!(
                "{arrow}: `{PAGE}` does not allow `{from}` to use `{to}`"
            )),
        }
    }
    refused.dedup();
    for (from, allowed) in &map {
        for to in allowed {
            if !used.contains(&(from.clone(), to.clone())) {
                refused.push(format!(
                    "`{PAGE}` allows `{from}` to use `{to}`, which it does not use"
                ));
            }
        }
    }
    ensure!(refused.is_empty(), "{}", refused.join("\n"));
    Ok(())
}

/// The rows of the map: for each part, what it uses. A row may be about several parts, which need not all use all of it.
fn map(page: &str) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let (_, table) = page
        .split_once(HEADER)
        .with_context(|| format!("find the table `{HEADER}` in `{PAGE}`"))?;
    let mut map = BTreeMap::new();
    for row in table.lines().skip(2).take_while(|row| row.starts_with('|')) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        let [parts, uses] = cells[..] else {
            bail!("`{row}` in `{PAGE}` must have two cells");
        };
        for part in quoted(parts) {
            ensure!(
                map.insert(part.to_owned(), quoted(uses).map(str::to_owned).collect())
                    .is_none(),
                "`{PAGE}` contains two rows for `{part}`"
            );
        }
    }
    Ok(map)
}

/// The text between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The file or folder of the command line that a file belongs to.
fn part(file: &Path) -> Option<String> {
    let first = file.strip_prefix(PARTS).ok()?.components().next()?;
    let name = first.as_os_str().to_str()?;
    Some(name.strip_suffix(".rs").unwrap_or(name).to_owned())
}

/// All arrows of the workspace, sorted.
fn arrows(tree: &Tree) -> Result<BTreeSet<Arrow>> {
    let mut found = BTreeSet::new();
    for root in tree.with_ending("rs").filter(|file| is_root(file)) {
        let code = Crate::read(root, &|file| tree.read(file), &|file| tree.has(file))?;
        found.extend(code.arrows());
    }
    Ok(found)
}

/// The root of a library or a program.
fn is_root(file: &Path) -> bool {
    let is_named = file.ends_with("src/main.rs") || file.ends_with("src/lib.rs");
    is_named && file.components().count() <= 4
}

/// A line for each circle: its arrows.
fn circles(arrows: &BTreeSet<Arrow>) -> Vec<String> {
    let mut reach: BTreeMap<&Path, BTreeSet<&Path>> = BTreeMap::new();
    for arrow in arrows {
        reach
            .entry(&arrow.from)
            .or_default()
            .insert(arrow.to.as_path());
    }
    let direct = reach.clone();
    let reachable = |from: &Path| {
        let mut seen: BTreeSet<&Path> = BTreeSet::new();
        let mut waiting: Vec<&Path> = direct.get(from).into_iter().flatten().copied().collect();
        while let Some(next) = waiting.pop() {
            if seen.insert(next) {
                waiting.extend(direct.get(next).into_iter().flatten());
            }
        }
        seen
    };
    let reach: BTreeMap<&Path, BTreeSet<&Path>> =
        direct.keys().map(|file| (*file, reachable(file))).collect();
    let is_mutual = |a: &Path, b: &Path| {
        let reaches =
            |from: &Path, to: &Path| reach.get(from).is_some_and(|seen| seen.contains(to));
        reaches(a, b) && reaches(b, a)
    };
    let mut circles: BTreeMap<&Path, Vec<String>> = BTreeMap::new();
    for arrow in arrows {
        if is_mutual(&arrow.from, &arrow.to) {
            let first = reach
                .keys()
                .find(|file| is_mutual(file, &arrow.from))
                .copied();
            let lines = circles.entry(first.unwrap_or(&arrow.from)).or_default();
            lines.push(format!("  {arrow}"));
        }
    }
    circles
        .into_values()
        .map(|lines| format!("circle:\n{}", lines.join("\n")))
        .collect()
}

#[cfg(test)]
mod tests;
