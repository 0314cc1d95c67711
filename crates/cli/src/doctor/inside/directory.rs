//! The instance's directory: its content, its owners, and who can read it. Only metadata is read, and the number in
//! `twistd.pid`; nothing else is opened.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use buildbot_conda_core::names::Role;
use buildbot_conda_core::settings::Instance;
use rustix::fs::{Access, AtFlags, CWD};
use serde::{Deserialize, Serialize};

use super::place;
use crate::inside::access::Obstacle;
use crate::system::context::Context;

/// Entries of a directory tree that are looked at; builds may leave millions.
const MOST: usize = 20_000;
/// Levels below the directory: builders and their working directories.
const DEEPEST: usize = 3;
/// Maximum number of paths to report.
const MOST_TOLD: usize = 5;

/// Facts about a directory.
#[derive(Debug, Default, Serialize, Deserialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that hold or not, each by itself"
)]
pub(in crate::doctor) struct DirectoryFacts {
    /// What keeps this process from looking at it.
    pub(in crate::doctor) closed: Option<Obstacle>,
    pub(in crate::doctor) exists: bool,
    pub(in crate::doctor) is_empty: bool,
    pub(in crate::doctor) has_tac: bool,
    /// Numeric user id of its owner.
    pub(in crate::doctor) owner: u32,
    /// What this process cannot write, and how many there are.
    pub(in crate::doctor) unwritable: Vec<PathBuf>,
    pub(in crate::doctor) unwritable_count: usize,
    /// Whether all of those are owned by root, have a single name, and are readable by everyone.
    pub(in crate::doctor) unwritable_can_be_given: bool,
    /// Files with secrets that everyone can read: their names in the directory.
    pub(in crate::doctor) exposed: Vec<String>,
    pub(in crate::doctor) pid_file: Option<PidFile>,
}

/// `twistd.pid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::doctor) enum PidFile {
    /// Names a process.
    Of(u32),
    /// Names none.
    Broken,
}

pub(super) fn examine(instance: &Instance, context: &Context) -> DirectoryFacts {
    let directory = place(&instance.directory, context);
    let mut facts = DirectoryFacts {
        closed: Obstacle::in_directory(&directory),
        ..DirectoryFacts::default()
    };
    if facts.closed.is_some() {
        return facts;
    }
    let metadata = match directory.metadata() {
        Ok(metadata) if metadata.is_dir() => metadata,
        _ => return facts,
    };
    facts.exists = true;
    facts.owner = metadata.uid();
    facts.is_empty = fs::read_dir(&directory).is_ok_and(|mut entries| entries.next().is_none());
    facts.has_tac = directory.join("buildbot.tac").exists();
    facts.unwritable_can_be_given = true;
    find_unwritable(&directory, &mut facts);
    facts.exposed = exposed(&directory, instance.reference.role);
    facts.pid_file = pid_file(&directory.join("twistd.pid"));
    facts
}

/// Files and directories that belong to others and cannot be written. Links are not followed.
fn find_unwritable(directory: &Path, facts: &mut DirectoryFacts) {
    let own = rustix::process::geteuid().as_raw();
    let mut left = MOST;
    let mut level = vec![directory.to_owned()];
    note_unwritable(directory, own, facts);
    for _ in 0..DEEPEST {
        let mut next = Vec::new();
        for entry in level
            .iter()
            .flat_map(|directory| fs::read_dir(directory).into_iter().flatten().flatten())
        {
            if left == 0 {
                return;
            }
            left -= 1;
            let path = entry.path();
            note_unwritable(&path, own, facts);
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                next.push(path);
            }
        }
        level = next;
    }
}

fn note_unwritable(path: &Path, own: u32, facts: &mut DirectoryFacts) {
    let Ok(metadata) = path.symlink_metadata() else {
        return;
    };
    // One's own files are made read-only on purpose, as git does.
    if metadata.uid() == own || !(metadata.is_file() || metadata.is_dir()) {
        return;
    }
    if rustix::fs::accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok() {
        return;
    }
    facts.unwritable_can_be_given &= metadata.uid() == 0
        && metadata.mode() & 0o004 != 0
        && (metadata.is_dir() || metadata.nlink() == 1);
    facts.unwritable_count += 1;
    if facts.unwritable.len() < MOST_TOLD {
        facts.unwritable.push(path.to_owned());
    }
}

/// Passwords are in the tac of a worker, and in the configuration and the database of a master.
fn exposed(directory: &Path, role: Role) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let is_secret = |name: &str| match role {
        Role::Worker => name == "buildbot.tac",
        Role::Master => {
            name == "buildbot.tac"
                || name == "master.cfg"
                || name.starts_with("state.sqlite")
                || name.starts_with("master.cfg.")
        }
    };
    let mut found: Vec<String> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let metadata = entry.metadata().ok()?;
            let is_exposed = metadata.is_file() && metadata.mode() & 0o004 != 0;
            // What Buildbot itself ships as an example holds no secret.
            (is_exposed && is_secret(&name) && !name.ends_with(".sample")).then_some(name)
        })
        .collect();
    found.sort();
    found
}

fn pid_file(path: &Path) -> Option<PidFile> {
    let (file, metadata) = buildbot_conda_host::open(path).ok()??;
    let mut text = String::new();
    if !metadata.is_file() || file.take(64).read_to_string(&mut text).is_err() {
        return Some(PidFile::Broken);
    }
    Some(text.trim().parse().map_or(PidFile::Broken, PidFile::Of))
}
