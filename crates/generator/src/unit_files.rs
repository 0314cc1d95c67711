//! Unit files that hide ours: which there are, and whether they start our launcher.
//!
//! A drop-in applies to whatever unit file bears the name. An administrator's own unit, perhaps a
//! `Type=simple` one, would be killed by our `WatchdogSec=`; it is left alone unless it calls our
//! launcher, as a copy made by `systemctl edit --full` does.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::paths;
use buildbot_conda_core::unit_text::logical_lines;

use crate::arguments::Arguments;
use buildbot_conda_host::{below, open, read_at_most};

/// Where systemd looks before it looks where the generator's early directory is (systemd.unit(5)).
const BEFORE_EARLY: [&str; 3] = [
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
];
/// Where it looks after that and before [`paths::UNITS`].
const BEFORE_OURS: [&str; 5] = [
    "/etc/systemd/system",
    "/etc/systemd/system.attached",
    "/run/systemd/system",
    "/run/systemd/system.attached",
    "/usr/local/lib/systemd/system",
];
/// More than any unit file has.
const LARGEST: u64 = 1 << 20;
/// More links than Linux itself follows.
const LINKS: usize = 40;

/// The unit files of our names that come before ours.
pub(crate) struct UnitFiles<'a> {
    root: Option<&'a Path>,
    /// The first file of each name, in the order in which systemd looks.
    first: HashMap<String, PathBuf>,
}

/// What will run under the name of an instance's unit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum UnitFile {
    /// Ours, or one that starts our launcher.
    Ours,
    /// Nothing: it is masked.
    Masked,
    /// An administrator's own, at this path.
    HandMade(PathBuf),
}

impl<'a> UnitFiles<'a> {
    /// Lists the directories once, however many instances there are.
    pub(crate) fn find(arguments: &'a Arguments) -> Self {
        let directories = (BEFORE_EARLY.iter().map(|path| arguments.path(path)))
            .chain([arguments.early.clone()])
            .chain(BEFORE_OURS.iter().map(|path| arguments.path(path)));
        let mut first = HashMap::new();
        for directory in directories {
            // Most of them do not exist.
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                let is_unit = entry
                    .file_type()
                    .is_ok_and(|kind| kind.is_file() || kind.is_symlink());
                if let Ok(name) = entry.file_name().into_string()
                    && is_unit
                    && name.starts_with("buildbot-")
                {
                    first.entry(name).or_insert_with(|| entry.path());
                }
            }
        }
        Self {
            root: arguments.root(),
            first,
        }
    }

    /// What stands for an instance. A file for the very name comes before one for all names,
    /// wherever the two are.
    pub(crate) fn of(&self, reference: &InstanceRef) -> UnitFile {
        let template = format!("buildbot-{}@.service", reference.role);
        let own = self.first.get(&reference.unit_name());
        let shared = reference.name.as_ref().and(self.first.get(&template));
        own.or(shared)
            .map_or(UnitFile::Ours, |path| self.judge(path))
    }

    fn judge(&self, path: &Path) -> UnitFile {
        let Some(target) = self.follow(path) else {
            return UnitFile::Masked;
        };
        let content = match open(&target) {
            Ok(Some((file, metadata))) if metadata.is_file() => read_at_most(&file, LARGEST),
            // A link to nowhere: there is nothing to spare.
            Ok(None) => return UnitFile::Ours,
            _ => return UnitFile::HandMade(path.to_owned()),
        };
        match content {
            Ok(Some(content)) if content.is_empty() => UnitFile::Masked,
            Ok(Some(content)) if starts_launcher(&String::from_utf8_lossy(&content)) => {
                UnitFile::Ours
            }
            _ => UnitFile::HandMade(path.to_owned()),
        }
    }

    /// The file behind links, each seen from the root directory; `None` for a masked unit.
    fn follow(&self, path: &Path) -> Option<PathBuf> {
        let mut path = path.to_owned();
        for _ in 0..LINKS {
            let Ok(target) = fs::read_link(&path) else {
                return Some(path);
            };
            if target == Path::new("/dev/null") {
                return None;
            }
            path = if target.is_absolute() {
                below(self.root, &target)
            } else {
                path.parent()?.join(target)
            };
        }
        Some(path)
    }
}

/// Whether a command of `ExecStart=` names the launcher, also behind a wrapper such as `nice`.
fn starts_launcher(unit: &str) -> bool {
    let mut in_service = false;
    let mut starts = false;
    for (_, line) in logical_lines(unit) {
        if line.starts_with('[') {
            in_service = line == "[Service]";
        }
        let Some((key, command)) = line.split_once('=') else {
            continue;
        };
        if in_service && key.trim_end() == "ExecStart" {
            // An empty assignment takes back what came before.
            starts = !command.trim().is_empty() && (starts || names_launcher(command));
        }
    }
    starts
}

fn names_launcher(command: &str) -> bool {
    command
        .split_whitespace()
        .map(|word| word.trim_matches(['"', '\'']))
        // `-`, `@`, `:`, `+`, `!` and `|` in front say how to run it (systemd.service(5)).
        .any(|word| word.trim_start_matches(['-', '@', ':', '+', '!', '|']) == paths::LAUNCHER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_that_starts_the_launcher_is_recognised() {
        let launcher = paths::LAUNCHER;
        for unit in [
            format!("[Service]\nExecStart={launcher} master\n"),
            format!("[Service]\n  ExecStart = -{launcher} master"),
            format!("[Service]\nExecStart=/usr/bin/nice -n 5 {launcher} worker %i\n"),
            format!("[Service]\nExecStart=/usr/bin/nice \\\n# why\n  \"{launcher}\" worker\n"),
            format!("[Service]\nExecStart=/bin/x\nExecStart=\nExecStart={launcher} master\n"),
            format!(
                "[Unit]\nDescription=x\n[Service]\nExecStart=@{launcher} x master\n[Install]\n"
            ),
        ] {
            assert!(starts_launcher(&unit), "{unit}");
        }
    }

    #[test]
    fn any_other_unit_is_not() {
        let launcher = paths::LAUNCHER;
        for unit in [
            String::new(),
            "[Service]\nExecStart=/home/bb/start-master.sh\n".to_owned(),
            format!("# ExecStart={launcher}\n[Service]\nExecStart=/bin/x\n"),
            format!("[Service]\nExecStart={launcher} master\nExecStart=\nExecStart=/bin/x\n"),
            format!("[Service]\nExecStartPre={launcher} master\nExecStart=/bin/x\n"),
            format!("[Unit]\nExecStart={launcher} master\n"),
            format!("[Service]\nExecStart={launcher}-old master\n"),
            format!("[Service]\n#x \\\nExecStart=/bin/x {launcher}x\n"),
        ] {
            assert!(!starts_launcher(&unit), "{unit}");
        }
    }
}
