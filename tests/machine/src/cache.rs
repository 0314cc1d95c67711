//! Directories that are costly to make and good for several runs, each named by what it is made from.
//!
//! One process makes an entry while others wait for its lock; an interrupted one leaves nothing that looks finished.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result};

use crate::places::machines_directory;
use crate::timings;

/// A short name for `inputs`: sixteen hexadecimal digits, the same for the same inputs and compiler.
pub(crate) fn key(inputs: &[&str]) -> String {
    let mut hasher = DefaultHasher::new();
    inputs.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// A short name for the contents of a file.
pub(crate) fn digest(bytes: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// The text of every file in `directory` with one of `extensions`, in the order of their names.
pub(crate) fn sources(directory: &Path, extensions: &[&str]) -> Result<String> {
    let mut files: Vec<PathBuf> = fs::read_dir(directory)
        .with_context(|| format!("list `{}`", directory.display()))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extensions.iter().any(|wanted| extension == *wanted))
        })
        .collect();
    files.sort();
    let mut text = String::new();
    for file in files {
        text += &fs::read_to_string(&file).with_context(|| format!("read `{}`", file.display()))?;
    }
    Ok(text)
}

/// The directory `KIND-KEY`, created by `make` unless it exists and is younger than `max_age`.
///
/// `make` gets a path that does not exist yet and creates a directory there. Entries of the same kind with other keys
/// are kept until they have not been used for two days, because a developer may switch between two states of a tree.
pub(crate) fn entry(
    kind: &str,
    key: &str,
    max_age: Duration,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let cache = machines_directory().join("cache");
    fs::create_dir_all(&cache).with_context(|| format!("create `{}`", cache.display()))?;
    let path = cache.join(format!("{kind}-{key}"));
    let lock_path = cache.join(format!("{kind}-{key}.lock"));
    let lock =
        File::create(&lock_path).with_context(|| format!("create `{}`", lock_path.display()))?;
    lock.lock()
        .with_context(|| format!("lock `{}`", lock_path.display()))?;

    // When it was last asked for. An entry whose time cannot be set is only removed earlier.
    let _ = lock.set_modified(SystemTime::now());

    // The time stamp file, not the directory: what is in the directory may carry any time.
    let finished = cache.join(format!("{kind}-{key}.finished"));
    if age(&finished).is_some_and(|age| age < max_age) && path.is_dir() {
        return Ok(path);
    }
    let partial = cache.join(format!("{kind}-{key}.partial"));
    for leftover in [&path, &partial] {
        remove(leftover)?;
    }
    let started = Instant::now();
    make(&partial)?;
    fs::rename(&partial, &path).with_context(|| format!("rename `{}`", partial.display()))?;
    fs::write(&finished, "").with_context(|| format!("write `{}`", finished.display()))?;
    eprintln!("made {kind} in {:.1} s", started.elapsed().as_secs_f64());
    timings::record(&format!("layer {kind}"), started.elapsed(), None);
    sweep(&cache, kind);
    Ok(path)
}

/// A directory for whatever is worth keeping and follows from `inputs`, empty when it is new. Who uses it locks it.
///
/// # Errors
///
/// When it cannot be created.
pub fn kept_directory(kind: &str, inputs: &[&str]) -> Result<PathBuf> {
    entry(kind, &key(inputs), Duration::MAX, |path| {
        fs::create_dir(path).with_context(|| format!("create `{}`", path.display()))
    })
}

/// Removes a directory tree if it exists.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove `{}`", path.display()))
        }
        _ => Ok(()),
    }
}

fn age(path: &Path) -> Option<Duration> {
    let modified = fs::metadata(path).ok()?.modified().ok()?;
    SystemTime::now().duration_since(modified).ok()
}

/// Removes unused entries of a kind. Best effort: one that another process makes stays until a later run.
fn sweep(cache: &Path, kind: &str) {
    let unused = Duration::from_hours(2 * 24);
    for entry in fs::read_dir(cache).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(stem) = name.strip_suffix(".finished") else {
            continue;
        };
        let lock = cache.join(format!("{stem}.lock"));
        if !stem.starts_with(kind) || age(&lock).is_none_or(|age| age < unused) {
            continue;
        }
        let Ok(lock) = File::open(&lock) else {
            continue;
        };
        let parts = [cache.join(stem), cache.join(format!("{stem}.venv"))];
        if lock.try_lock().is_ok() && parts.iter().all(|part| remove(part).is_ok()) {
            // Nothing is lost when this fails: the entry then counts as unfinished.
            let _ = fs::remove_file(entry.path());
        }
    }
}
