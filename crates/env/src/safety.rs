//! Checks what a package must not contain: files outside of the environment, in every way in which a list of paths and
//! links can lead there. Reports other parts of it that are not applied.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{bail, ensure};
use rattler_conda_types::Subdir;
use rattler_conda_types::package::{LinkJson, NoArchLinks, PathType, PathsEntry};

use crate::contents::Contents;
use crate::input;

/// Refuses a set of packages of which one reaches out of the environment, and warns of what is not run.
pub(crate) fn check(packages: &[Contents]) -> anyhow::Result<Vec<String>> {
    let mut links: BTreeMap<PathBuf, &str> = BTreeMap::new();
    let mut directories: BTreeSet<PathBuf> = BTreeSet::new();
    for package in packages {
        let name = name(package);
        let subdir = &package.record.package_record.subdir;
        ensure!(
            [input::platform(), Subdir::NoArch]
                .iter()
                .any(|here| here.as_str() == subdir),
            "`{name}` is for `{subdir}`, but this machine is `{}`",
            input::platform()
        );
        for entry in &package.paths.paths {
            let path = &entry.relative_path;
            ensure!(
                is_inside(path),
                "`{name}` is rejected: `{}` is outside of the environment",
                path.display()
            );
            check_kind(package, entry, &mut directories)?;
            if entry.path_type == PathType::SoftLink {
                check_link(package, path)?;
                links.insert(path.clone(), name);
            }
        }
        if let Some(LinkJson {
            noarch: NoArchLinks::Python(python),
            ..
        }) = &package.link
        {
            for entry in &python.entry_points {
                let command = Path::new(&entry.command);
                let is_name = command.components().count() == 1 && is_inside(command);
                ensure!(
                    is_name,
                    "`{name}` is rejected: `{}` is not the name of a command",
                    entry.command
                );
            }
        }
    }
    // A file "below" a link would be written to where the link leads.
    for package in packages {
        for entry in &package.paths.paths {
            for parent in entry.relative_path.ancestors().skip(1) {
                if let Some(owner) = links.get(parent) {
                    bail!(
                        "`{}` is rejected: `{}` is below the link `{}` of `{owner}`",
                        name(package),
                        entry.relative_path.display(),
                        parent.display()
                    );
                }
            }
        }
    }
    Ok(packages.iter().filter_map(script_warning).collect())
}

/// Whether everything that a package lists was unpacked, in its size. What was unpacked before a power cut may not be.
pub(crate) fn is_whole(package: &Contents) -> bool {
    package.paths.paths.iter().all(|entry| {
        let found = fs::symlink_metadata(package.directory.join(&entry.relative_path));
        match entry.path_type {
            PathType::Directory => true,
            PathType::SoftLink => found.is_ok(),
            PathType::HardLink => found.is_ok_and(|found| {
                let size = entry.size_in_bytes;
                !found.is_file() || size.is_none_or(|size| size == found.len())
            }),
        }
    })
}

/// What is unpacked must be what the list calls it, without a link on the way that the list does not name: it would lead
/// to a file of the host's. `directories` are those that were seen to be some.
fn check_kind(
    package: &Contents,
    entry: &PathsEntry,
    directories: &mut BTreeSet<PathBuf>,
) -> anyhow::Result<()> {
    let (name, path) = (name(package), &entry.relative_path);
    let mut way = package.directory.clone();
    for component in path.parent().into_iter().flat_map(Path::components) {
        way.push(component);
        if directories.contains(&way) {
            continue;
        }
        // One that is not there has nothing in it.
        if let Ok(found) = fs::symlink_metadata(&way) {
            ensure!(
                found.is_dir(),
                "`{name}` is rejected: `{}` is below a link",
                path.display()
            );
            directories.insert(way.clone());
        }
    }
    let found = fs::symlink_metadata(package.directory.join(path));
    let is_so = match (&entry.path_type, found) {
        (PathType::Directory, Err(_)) => true,
        (_, Err(_)) => bail!(
            "`{name}` is rejected: it does not contain `{}`",
            path.display()
        ),
        (PathType::Directory, Ok(found)) => found.is_dir(),
        (PathType::HardLink, Ok(found)) => found.is_file(),
        (PathType::SoftLink, Ok(found)) => found.is_symlink(),
    };
    ensure!(
        is_so,
        "`{name}` is rejected: `{}` differs from its file list",
        path.display()
    );
    Ok(())
}

fn name(package: &Contents) -> &str {
    package.record.package_record.name.as_normalized()
}

/// Whether a path stays below the directory to which it is appended.
fn is_inside(path: &Path) -> bool {
    path.components().next().is_some()
        && path
            .components()
            .all(|component| matches!(component, Component::Normal(_)))
        && !path.starts_with("conda-meta")
}

/// A link may lead to a file of the environment only.
fn check_link(package: &Contents, path: &Path) -> anyhow::Result<()> {
    let Ok(target) = fs::read_link(package.directory.join(path)) else {
        bail!(
            "`{}` is rejected: `{}` is not a link",
            name(package),
            path.display()
        );
    };
    let mut depth = path.components().count() - 1;
    for component in target.components() {
        let is_out = match component {
            Component::Normal(_) => {
                depth += 1;
                false
            }
            Component::CurDir => false,
            Component::ParentDir if depth > 0 => {
                depth -= 1;
                false
            }
            _ => true,
        };
        ensure!(
            !is_out,
            "`{}` is rejected: the link `{}` points outside of the environment, to `{}`",
            name(package),
            path.display(),
            target.display()
        );
    }
    Ok(())
}

/// Scripts that other installers run after the installation of a package, with the installer's account.
fn script_warning(package: &Contents) -> Option<String> {
    let name = name(package);
    let script = format!("bin/.{name}-post-link.sh");
    let has = |script: &str| {
        let paths = &package.paths.paths;
        paths
            .iter()
            .any(|entry| entry.relative_path == Path::new(script))
    };
    has(&script).then(|| format!("`{name}` contains a script `{script}`, which is not run"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_their_directory() {
        for good in ["bin/python", "lib/a b", "a"] {
            assert!(is_inside(Path::new(good)), "{good}");
        }
        for bad in [
            "",
            "/etc/passwd",
            "../a",
            "lib/../../a",
            "conda-meta/state",
            ".",
        ] {
            assert!(!is_inside(Path::new(bad)), "{bad}");
        }
    }
}
