//! What cargo-deb does not do: translated debconf templates, and `DEBIAN/md5sums`, for debsums and for an archive in
//! dpkg's own layout.

use std::collections::BTreeSet;
use std::fs::{self, DirEntry, File, FileTimes};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};

use super::command::{output, run_on_stderr};
use super::{Target, libc, reproducible, templates};

/// Unpacks the package `raw` below `scratch`, merges the workspace's translations into its templates, adds checksums of
/// every file that is not a conffile, corrects the dependency on glibc of a package for other machines, and packs it
/// again. Returns the path of the new package, which is in `scratch`.
pub(super) fn finish(
    workspace: &Path,
    target: Target,
    raw: &Path,
    scratch: &Path,
    epoch: &str,
) -> Result<PathBuf> {
    let tree = scratch.join("tree");
    run_on_stderr(
        reproducible(Command::new("dpkg-deb"), epoch)
            .arg("--raw-extract")
            .arg(raw)
            .arg(&tree),
    )?;
    let questions = tree.join("DEBIAN/templates");
    if questions.exists() {
        let po_scratch = scratch.join("translations");
        fs::create_dir(&po_scratch)
            .with_context(|| format!("create the directory `{}`", po_scratch.display()))?;
        templates::merge(workspace, &po_scratch, &questions, epoch)?;
    }
    write_md5sums(&tree)?;
    if target != Target::Here {
        correct_libc(&tree)?;
    }
    set_times(&tree, epoch)?;
    let finished = scratch.join("finished.deb");
    run_on_stderr(
        reproducible(Command::new("dpkg-deb"), epoch)
            .args(["--root-owner-group", "-Zxz", "--build"])
            .arg(&tree)
            .arg(&finished),
    )?;
    Ok(finished)
}

fn write_md5sums(tree: &Path) -> Result<()> {
    let conffiles = conffiles(tree)?;
    let mut files = Vec::new();
    collect_files(tree, Path::new(""), &mut files)?;
    files.retain(|file| !file.starts_with("DEBIAN") && !conffiles.contains(file));
    // By bytes, as dpkg lists files; paths are compared by components.
    files.sort_by(|a, b| a.as_os_str().cmp(b.as_os_str()));
    // coreutils print `HASH  FILE`, which is the format of the control file.
    let text = output(
        Command::new("md5sum")
            .current_dir(tree)
            .arg("--")
            .args(&files),
    )?;
    let path = tree.join("DEBIAN/md5sums");
    fs::write(&path, text + "\n").with_context(|| format!("write `{}`", path.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644))
        .with_context(|| format!("set the mode of `{}`", path.display()))
}

/// Sets the time of everything in the tree to the build date. dpkg-deb alone only changes later times.
fn set_times(path: &Path, epoch: &str) -> Result<()> {
    let seconds = epoch.parse().context("read the build's date")?;
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    if path.is_dir() {
        for entry in read_directory(path)? {
            set_times(&entry.path(), epoch)?;
        }
    }
    // A directory last: its entries' changes would touch it again.
    let times = FileTimes::new().set_accessed(time).set_modified(time);
    File::open(path)
        .and_then(|file| file.set_times(times))
        .with_context(|| format!("set the time of `{}`", path.display()))
}

/// Makes the package depend on the glibc that its programs need.
fn correct_libc(tree: &Path) -> Result<()> {
    let mut files = Vec::new();
    collect_files(tree, Path::new(""), &mut files)?;
    let mut programs = Vec::new();
    for file in files {
        let path = tree.join(file);
        let mut start = [0; 4];
        let mut file = File::open(&path).with_context(|| format!("open `{}`", path.display()))?;
        if file.read_exact(&mut start).is_ok() && start == *b"\x7fELF" {
            programs.push(path);
        }
    }
    let path = tree.join("DEBIAN/control");
    let text = fs::read_to_string(&path).with_context(|| format!("read `{}`", path.display()))?;
    fs::write(&path, libc::corrected(&text, &programs)?)
        .with_context(|| format!("write `{}`", path.display()))
}

/// The package's conffiles, relative to the root. dpkg keeps their checksums itself, since administrators change them.
fn conffiles(tree: &Path) -> Result<BTreeSet<PathBuf>> {
    let path = tree.join("DEBIAN/conffiles");
    if !path.exists() {
        return Ok(BTreeSet::new());
    }
    let text = fs::read_to_string(&path).with_context(|| format!("read `{}`", path.display()))?;
    let relative = text.lines().map(|line| line.trim_start_matches('/').into());
    Ok(relative.collect())
}

/// Add every regular file below `tree/directory` to `files`, relative to `tree`.
fn collect_files(tree: &Path, directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in read_directory(&tree.join(directory))? {
        let relative = directory.join(entry.file_name());
        let kind = entry
            .file_type()
            .with_context(|| format!("examine `{}`", entry.path().display()))?;
        if kind.is_dir() {
            collect_files(tree, &relative, files)?;
        } else if kind.is_file() {
            files.push(relative);
        }
    }
    Ok(())
}

fn read_directory(path: &Path) -> Result<Vec<DirEntry>> {
    fs::read_dir(path)
        .and_then(Iterator::collect)
        .with_context(|| format!("read the directory `{}`", path.display()))
}
