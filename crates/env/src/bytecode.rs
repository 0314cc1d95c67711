//! Bytecode for the modules of a generation, which the accounts that use it cannot write. It is kept next to the
//! unpacked packages and linked from there like their files.
//!
//! The bytecode of a package depends on its archive and on that of the interpreter, whose checksums name its directory
//! in the cache, and on nothing else: an import corrects the file name in it, and the interpreter runs from its own
//! package, so no other package can add a library or a module that it loads. An interpreter that needs other packages
//! to run compiles only for its own environment. Modules that contain the prefix, belong to two packages or are links
//! are compiled for each generation. Bytecode that a package contains is left unchanged.
//!
//! A directory gets its name when everything in it is on disk, so none is incomplete. Before a directory is used, each
//! file must have its recorded size and time stamp: generations share these files, and one that root has written to is
//! compiled again.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use rattler::install::PythonInfo;
use rattler_conda_types::package::PathType;
use rattler_digest::Sha256;
use rustix::fs::{CWD, FlockOperation, RenameFlags};
use serde::{Deserialize, Serialize};

use crate::archives::hex;
use crate::compile::{self, Module, Outcome, TIME};
use crate::contents::Contents;
use crate::parallel;
use crate::place::{Kind, Place};

/// Changes when bytecode of the same modules is another one than before.
const RECIPE: &str = "1";
/// What is in a directory of the cache.
const INDEX: &str = "index";
/// The prefix of directories of the cache that have no name yet.
const NEW: &str = ".new-";

/// The modules of one package whose bytecode is kept.
struct Kept {
    /// The name of its directory in the cache.
    key: String,
    /// Sources below the prefix.
    sources: BTreeSet<String>,
}

/// The index of a directory of the cache.
#[derive(Debug, Serialize, Deserialize)]
struct Index {
    /// Checksum of the interpreter.
    tag: String,
    /// Sources below the prefix, each with the number of its file and its size; none for a file that is not valid
    /// Python.
    modules: BTreeMap<String, Option<(usize, u64)>>,
}

/// Directories that are complete, and get their names when they are on disk.
#[derive(Debug, Default)]
pub(crate) struct Fresh {
    /// The directories, locked so that no process removes them as leftovers.
    directory: Option<(PathBuf, File)>,
    keys: Vec<String>,
    cache: PathBuf,
    /// What could not be done as it should.
    pub(crate) warning: Option<String>,
}

/// Adds the bytecode to every module of a linked environment.
///
/// # Errors
///
/// If Python cannot be run or a file cannot be created.
pub(crate) fn provide(
    packages: &[Contents],
    python: (&Contents, &PythonInfo),
    place: &Place,
) -> anyhow::Result<Fresh> {
    let (building, cache, kind) = (&place.building, &place.bytecode, place.kind);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(cache)
        .with_context(|| format!("create `{}`", cache.display()))?;
    sweep(cache);
    let (kept, single) = sorted(packages, python, kind);
    let indices = parallel::map(&kept, |kept| Ok(believed(&cache.join(&kept.key), kept)))?;
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for (kept, index) in kept.iter().zip(indices) {
        match index {
            Some(index) => found.push((cache.join(&kept.key), index)),
            None => missing.push(kept),
        }
    }
    let mut fresh = Fresh::default();
    fresh.cache.clone_from(cache);
    if !missing.is_empty() || !single.is_empty() {
        let (made, alone) = fresh.make(&missing, &single, &python.0.directory, place)?;
        found.extend(made);
        found.push(alone);
    }
    let pairs: Vec<(PathBuf, PathBuf)> = found
        .iter()
        .flat_map(|(directory, index)| pairs(directory, index, building))
        .collect();
    put(&pairs, kind)?;
    Ok(fresh)
}

/// Modules by package, and those that are of no package alone.
fn sorted(
    packages: &[Contents],
    (python, info): (&Contents, &PythonInfo),
    kind: Kind,
) -> (Vec<Kept>, BTreeSet<String>) {
    let sum = |contents: &Contents| {
        let sum = contents.record.package_record.sha256;
        sum.map(|sum| hex(&sum)).unwrap_or_default()
    };
    let target = |contents: &Contents, path: &Path| {
        let is_python = contents.record.package_record.noarch.is_python();
        let path = if is_python {
            info.get_python_noarch_target_path(path)
        } else {
            path.into()
        };
        path.to_str().map(str::to_owned)
    };
    let mut claims: HashMap<String, usize> = HashMap::new();
    let mut brought = HashSet::new();
    for contents in packages {
        for entry in &contents.paths.paths {
            let Some(path) = target(contents, &entry.relative_path) else {
                continue;
            };
            if let Some(source) = source_of(&path) {
                brought.insert(source);
            }
            *claims.entry(path).or_default() += 1;
        }
    }
    let (mut kept, mut single) = (Vec::new(), BTreeSet::new());
    for contents in packages {
        let mut sources = BTreeSet::new();
        for entry in &contents.paths.paths {
            let path = target(contents, &entry.relative_path);
            let Some(path) = path.filter(|path| is_module(path) && !brought.contains(path)) else {
                continue;
            };
            let is_plain =
                entry.path_type == PathType::HardLink && entry.prefix_placeholder.is_none();
            if is_plain && claims.get(&path) == Some(&1) {
                sources.insert(path);
            } else if entry.path_type != PathType::Directory {
                single.insert(path);
            }
        }
        if !sources.is_empty() {
            let place = info.site_packages_path.display();
            let parts = format!(
                "{RECIPE} {kind:?}\n{}\n{}\n{place}\n",
                sum(python),
                sum(contents)
            );
            let key = hex(&rattler_digest::compute_bytes_digest::<Sha256>(parts));
            kept.push(Kept { key, sources });
        }
    }
    (kept, single)
}

/// Whether a path below the prefix is a module that Python finds.
fn is_module(path: &str) -> bool {
    let is_python = Path::new(path)
        .extension()
        .is_some_and(|extension| extension == "py");
    is_python && path.starts_with("lib/python3")
}

/// The source that a file of bytecode is for.
fn source_of(path: &str) -> Option<String> {
    let (directory, name) = path.rsplit_once("/__pycache__/")?;
    let (stem, _tag) = name.strip_suffix(".pyc")?.rsplit_once('.')?;
    Some(format!("{directory}/{stem}.py"))
}

/// Where Python looks for the bytecode of a source.
fn bytecode_of(source: &str, tag: &str) -> String {
    let (directory, name) = source.rsplit_once('/').unwrap_or(("", source));
    let stem = name.strip_suffix(".py").unwrap_or(name);
    format!("{directory}/__pycache__/{stem}.{tag}.pyc")
}

/// The content of a directory of the cache, if it is complete and unchanged.
fn believed(directory: &Path, kept: &Kept) -> Option<Index> {
    let text = fs::read(directory.join(INDEX)).ok()?;
    let mut index: Index = serde_json::from_slice(&text).ok()?;
    // There may be more, which another package brings here, too.
    index
        .modules
        .retain(|source, _| kept.sources.contains(source));
    let is_good = |(number, size): &(usize, u64)| {
        fs::symlink_metadata(directory.join(number.to_string())).is_ok_and(|metadata| {
            metadata.is_file()
                && metadata.size() == *size
                && (metadata.mtime(), metadata.mtime_nsec()) == (TIME.cast_signed(), 0)
        })
    };
    let is_whole = index.modules.len() == kept.sources.len() && !index.tag.is_empty();
    (is_whole && index.modules.values().flatten().all(is_good)).then_some(index)
}

/// Files of a directory of the cache, and what they are called in an environment.
fn pairs(directory: &Path, index: &Index, building: &Path) -> Vec<(PathBuf, PathBuf)> {
    let modules = index.modules.iter().filter_map(|(source, file)| {
        let (number, _) = file.as_ref()?;
        Some((
            directory.join(number.to_string()),
            building.join(bytecode_of(source, &index.tag)),
        ))
    });
    modules.collect()
}

/// Links each file, and copies it if it cannot or must not be linked.
fn put(pairs: &[(PathBuf, PathBuf)], kind: Kind) -> anyhow::Result<()> {
    let directories: BTreeSet<&Path> = pairs.iter().filter_map(|(_, to)| to.parent()).collect();
    for directory in directories {
        match fs::create_dir(directory) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("create `{}`", directory.display()));
            }
            _ => {}
        }
    }
    let chunks: Vec<&[(PathBuf, PathBuf)]> = pairs.chunks(128).collect();
    parallel::map(&chunks, |chunk| {
        for (from, to) in *chunk {
            let attempt = match kind {
                Kind::Generation => fs::hard_link(from, to),
                Kind::Open => copy(from, to),
            };
            let done = match attempt {
                // The cache is on another file system, or a file has as many names as it can have.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::CrossesDevices
                            | ErrorKind::TooManyLinks
                            | ErrorKind::PermissionDenied
                            | ErrorKind::Unsupported
                    ) =>
                {
                    copy(from, to)
                }
                other => other,
            };
            done.with_context(|| format!("write `{}`", to.display()))?;
        }
        Ok(())
    })?;
    Ok(())
}

/// With its time stamp, as a link would have it.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::copy(from, to)?;
    let time = fs::metadata(from)?.modified()?;
    File::options().write(true).open(to)?.set_modified(time)
}

/// Removes what interrupted commands have left; what cannot be removed now can be the next time.
fn sweep(cache: &Path) {
    for entry in fs::read_dir(cache).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with(NEW)
            && File::open(&path).is_ok_and(|directory| {
                rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok()
            })
        {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

/// A directory of the cache and what is in it.
type Found = (PathBuf, Index);

impl Fresh {
    /// Compiles what is missing in the cache, and what is never in it.
    fn make(
        &mut self,
        missing: &[&Kept],
        single: &BTreeSet<String>,
        interpreter: &Path,
        place: &Place,
    ) -> anyhow::Result<(Vec<Found>, Found)> {
        let directory = self.cache.join(format!("{NEW}{}", std::process::id()));
        let action = || format!("create `{}`", directory.display());
        fs::create_dir(&directory).with_context(action)?;
        let locked = File::open(&directory).with_context(action)?;
        rustix::fs::flock(&locked, FlockOperation::NonBlockingLockExclusive)
            .with_context(action)?;
        self.directory = Some((directory.clone(), locked));
        let alone = Kept {
            key: "alone".to_owned(),
            sources: single.clone(),
        };
        let all: Vec<&Kept> = missing.iter().copied().chain([&alone]).collect();
        let mut modules = Vec::new();
        for kept in &all {
            let target = directory.join(&kept.key);
            fs::create_dir(&target).with_context(action)?;
            for (number, name) in kept.sources.iter().enumerate() {
                let source = place.building.join(name);
                let metadata = fs::metadata(&source)
                    .with_context(|| format!("examine `{}`", source.display()))?;
                modules.push(Module {
                    source,
                    size: metadata.len(),
                    target: target.join(number.to_string()),
                    name: name.clone(),
                });
            }
        }
        let mut is_kept = true;
        let compiled = match compile::compile(interpreter, place.kind, &modules)? {
            Outcome::Compiled(compiled) => compiled,
            Outcome::NotStarted(_) => {
                is_kept = false;
                match compile::compile(&place.building, place.kind, &modules)? {
                    Outcome::Compiled(compiled) => compiled,
                    Outcome::NotStarted(said) => bail!("compile modules: run `bin/python`: {said}"),
                }
            }
        };
        if compiled.tag.is_empty() {
            bail!("this Python does not store bytecode");
        }
        self.warning = compiled.warning;
        let mut outcomes = modules.iter().zip(compiled.succeeded);
        let mut found = Vec::new();
        for kept in all {
            let target = directory.join(&kept.key);
            let mut index = Index {
                tag: compiled.tag.clone(),
                modules: BTreeMap::new(),
            };
            for (number, name) in kept.sources.iter().enumerate() {
                let (module, succeeded) = outcomes.next().context("look up a module")?;
                let size = || fs::metadata(&module.target).map(|metadata| metadata.len());
                let file = if succeeded {
                    Some((number, size().context("examine bytecode")?))
                } else {
                    None
                };
                index.modules.insert(name.clone(), file);
            }
            let text = serde_json::to_string(&index).context("write an index")?;
            fs::write(target.join(INDEX), text).with_context(action)?;
            found.push((target, index));
        }
        if is_kept {
            self.keys = missing.iter().map(|kept| kept.key.clone()).collect();
        }
        let alone = found.pop().ok_or_else(|| anyhow!("nothing was compiled"))?;
        Ok((found, alone))
    }

    /// The directory that must be on disk before [`Fresh::keep`].
    pub(crate) fn directory(&self) -> Option<&File> {
        self.directory.as_ref().map(|(_, directory)| directory)
    }

    /// Gives the directories their names, for later generations: nothing depends on it.
    pub(crate) fn keep(self) {
        let Some((directory, _)) = &self.directory else {
            return;
        };
        for key in &self.keys {
            let (from, to) = (directory.join(key), self.cache.join(key));
            if fs::rename(&from, &to).is_err() {
                // One that was not believed, or that another command has made at the same time.
                let _ = rustix::fs::renameat_with(CWD, &from, CWD, &to, RenameFlags::EXCHANGE);
            }
        }
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if let Some((directory, _)) = &self.directory {
            // Directories without a name are not needed any more.
            let _ = fs::remove_dir_all(directory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytecode_lies_where_python_looks_for_it() {
        let source = "lib/python3.11/a/b.py";
        let bytecode = bytecode_of(source, "cpython-311");
        assert_eq!(bytecode, "lib/python3.11/a/__pycache__/b.cpython-311.pyc");
        assert_eq!(source_of(&bytecode).as_deref(), Some(source));
        assert_eq!(source_of(source), None);
        assert!(is_module(source));
        assert!(!is_module("lib/python3.11/a/data.txt") && !is_module("share/a.py"));
    }

    #[test]
    fn a_directory_is_believed_when_it_is_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let kept = |sources: &[&str]| Kept {
            key: String::new(),
            sources: sources.iter().map(|&source| source.to_owned()).collect(),
        };
        let file = directory.path().join("0");
        let write = |text: &str, time: u64| {
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(time);
            fs::write(&file, text).unwrap();
            let opened = File::options().write(true).open(&file).unwrap();
            opened.set_modified(time).unwrap();
        };
        let index = r#"{"tag": "cpython-311", "modules": {"a.py": [0, 3], "bad.py": null, "more.py": [0, 3]}}"#;
        fs::write(directory.path().join(INDEX), index).unwrap();
        let wanted = kept(&["a.py", "bad.py"]);
        let is_believed = |kept: &Kept| believed(directory.path(), kept).is_some();
        assert!(!is_believed(&wanted), "there is no file");
        write("abc", TIME);
        assert!(is_believed(&wanted));
        assert!(!is_believed(&kept(&["a.py", "new.py"])));
        write("ab", TIME);
        assert!(!is_believed(&wanted), "its end is missing");
        write("abd", TIME + 1);
        assert!(!is_believed(&wanted), "somebody wrote to it");
        write("abc", TIME);
        fs::write(directory.path().join(INDEX), &index[..40]).unwrap();
        assert!(!is_believed(&wanted), "its index is torn");
    }
}
