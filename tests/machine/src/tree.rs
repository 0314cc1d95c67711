//! The file systems of machines: read-only layers, and one writable directory on top that is discarded.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};

use crate::cache;
use crate::places::machines_directory;
use crate::root::HOST_NAME;

/// Read-only directories that make up a root, topmost first.
#[derive(Clone, Debug)]
pub struct Layers(Vec<PathBuf>);

impl Layers {
    /// A root of one layer.
    pub fn new(bottom: PathBuf) -> Self {
        Self(vec![bottom])
    }

    /// The same root with one more layer on top.
    #[must_use]
    pub fn with(mut self, top: PathBuf) -> Self {
        self.0.insert(0, top);
        self
    }

    /// The layers as overlayfs wants them in its `lowerdir` option.
    fn lower(&self) -> String {
        let escape = |path: &PathBuf| {
            path.to_string_lossy()
                .replace('\\', r"\\")
                .replace(':', r"\:")
                .replace(',', r"\,")
        };
        self.0.iter().map(escape).collect::<Vec<_>>().join(":")
    }
}

/// The writable top of one machine, with the layers below it. Removed when dropped, or swept by a later process.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) name: String,
    pub(crate) directory: PathBuf,
    pub(crate) layers: Layers,
    /// Of the machine, from its next boot on.
    pub(crate) host_name: String,
    /// Locked, shared with the machine's guardian, as long as the directory may be mounted.
    _lock: File,
}

impl Tree {
    /// A fresh top over `layers`.
    pub(crate) fn create(layers: Layers) -> Result<Self> {
        static SWEPT: Once = Once::new();
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let running = machines_directory().join("running");
        // Each test is a process: no process may clean up while another one has created a directory and not yet locked
        // it.
        let _no_sweep = lock_all(&running)?;
        SWEPT.call_once(|| sweep(&running));

        let name = format!(
            "buildbot-conda-{}-{}",
            std::process::id(),
            COUNTER.fetch_add(1, Ordering::Relaxed)
        );
        let directory = running.join(&name);
        for part in ["upper", "work", "root"] {
            let part = directory.join(part);
            fs::create_dir_all(&part).with_context(|| format!("create `{}`", part.display()))?;
        }
        let lock_path = directory.join("lock");
        let lock = File::create(&lock_path)
            .with_context(|| format!("create `{}`", lock_path.display()))?;
        lock.lock_shared()
            .with_context(|| format!("lock `{}`", lock_path.display()))?;
        Ok(Self {
            name,
            directory,
            layers,
            host_name: HOST_NAME.to_owned(),
            _lock: lock,
        })
    }

    /// The options of the overlay mount. An environment has thousands of files, and tests rename it and give it to other
    /// accounts: without the last two options each of them would be copied.
    pub(crate) fn mount_options(&self) -> String {
        let directory = self.directory.display();
        format!(
            "lowerdir={},upperdir={directory}/upper,workdir={directory}/work,redirect_dir=on,metacopy=on",
            self.layers.lower()
        )
    }

    /// Moves the writable part to `destination`, to be a layer from now on. The machine must be off.
    pub(crate) fn into_layer(self, destination: &Path) -> Result<()> {
        let upper = self.directory.join("upper");
        fs::rename(&upper, destination).with_context(|| format!("rename `{}`", upper.display()))
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if let Err(error) = cache::remove(&self.directory) {
            eprintln!("warning: {error:#}");
        }
    }
}

/// Waits until no other process creates or cleans up; as long as the value exists, none does.
fn lock_all(running: &Path) -> Result<File> {
    fs::create_dir_all(running).with_context(|| format!("create `{}`", running.display()))?;
    let path = running.join(".lock");
    let lock = File::create(&path).with_context(|| format!("create `{}`", path.display()))?;
    lock.lock()
        .with_context(|| format!("lock `{}`", path.display()))?;
    Ok(lock)
}

/// Removes remains of earlier processes: directories whose lock is not held.
fn sweep(running: &Path) {
    for entry in fs::read_dir(running).into_iter().flatten().flatten() {
        let free = File::open(entry.path().join("lock")).is_ok_and(|lock| lock.try_lock().is_ok());
        if free && let Err(error) = cache::remove(&entry.path()) {
            eprintln!("warning: {error:#}");
        }
    }
}
