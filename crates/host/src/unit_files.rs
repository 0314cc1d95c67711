//! Determines which unit file systemd uses for an instance, and whether it starts our launcher, for the generator, the
//! command line and the maintainer scripts.
//!
//! It is read from the disk as systemd reads it: the directories of units in their order, masks, links, templates, and
//! drop-ins, which may replace `ExecStart=`. An administrator's own unit, perhaps a `Type=simple` one, would be killed
//! by our `WatchdogSec=`, so it gets no drop-in of ours. A unit that calls our launcher, such as a copy of ours, gets
//! one.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::paths;
use buildbot_conda_core::unit_text::{self, Setting};

use crate::{below, open, read_at_most};

/// The directories in which systemd searches for units; the first file with a name is used (systemd.unit(5)). `None` is
/// the early directory of generators, which a generator receives as an argument.
const DIRECTORIES: [Option<&str>; 11] = [
    Some("/etc/systemd/system.control"),
    Some("/run/systemd/system.control"),
    Some("/run/systemd/transient"),
    None,
    Some("/etc/systemd/system"),
    Some("/etc/systemd/system.attached"),
    Some("/run/systemd/system"),
    Some("/run/systemd/system.attached"),
    Some("/usr/local/lib/systemd/system"),
    Some(paths::UNITS),
    // The same directory where `/lib` is a link, as on all supported systems.
    Some("/lib/systemd/system"),
];
/// The generators' early directory on an ordinary boot, systemd.generator(7).
const EARLY: &str = "/run/systemd/generator.early";
/// Bytes; more than any unit file has.
const LARGEST: u64 = 1 << 20;
/// As many links as Linux itself follows.
const LINKS: usize = 40;

/// The unit files and drop-ins of our names, listed once, however many instances there are.
#[derive(Debug)]
pub struct UnitFiles {
    root: Option<PathBuf>,
    /// The first file of each name, in the order in which systemd looks.
    files: HashMap<String, PathBuf>,
    /// The directories of drop-ins by their names, each with the rank of the directory that it is in.
    drop_ins: HashMap<String, Vec<(usize, PathBuf)>>,
}

/// What is on disk for one unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// What starts.
    pub runs: Runs,
    /// The unit file; for an instance perhaps its template. `None` where there is none.
    pub file: Option<PathBuf>,
    /// Drop-ins in the order in which they count, without the generator's.
    pub drop_ins: Vec<PathBuf>,
}

/// What a unit starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Runs {
    /// Our launcher, by the package's unit file.
    Ours,
    /// Our launcher, by a unit file at this path that comes before the package's.
    Copy(PathBuf),
    /// Something else, by this unit file: an administrator's own.
    HandMade(PathBuf),
    /// Something else, by this drop-in, which replaces the command of the package's unit.
    Replaced(PathBuf),
    /// Nothing: it is masked by this file.
    Masked(PathBuf),
    /// There is no such unit.
    Missing,
}

impl Unit {
    /// Whether our drop-in belongs there: not for a unit of the administrator's that runs something else, and not for a
    /// masked one.
    pub fn is_ours(&self) -> bool {
        matches!(self.runs, Runs::Ours | Runs::Copy(_) | Runs::Missing)
    }
}

/// A word, and the path of the file that decides, if it is not the package's own.
impl fmt::Display for Runs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, path) = match self {
            Self::Ours => ("ours", None),
            Self::Copy(path) => ("copy", Some(path)),
            Self::HandMade(path) => ("hand-made", Some(path)),
            Self::Replaced(path) => ("replaced", Some(path)),
            Self::Masked(path) => ("masked", Some(path)),
            Self::Missing => ("missing", None),
        };
        formatter.write_str(word)?;
        path.map_or(Ok(()), |path| write!(formatter, " {}", path.display()))
    }
}

impl UnitFiles {
    /// Lists the directories below `root`, if there is a root. `early` is the early directory of generators, if it is
    /// not in its usual place.
    pub fn list(root: Option<&Path>, early: Option<&Path>) -> Self {
        let mut found = Self {
            root: root.map(Path::to_owned),
            files: HashMap::new(),
            drop_ins: HashMap::new(),
        };
        for (rank, directory) in DIRECTORIES.into_iter().enumerate() {
            let directory = match (directory, early) {
                (Some(path), _) => below(root, path),
                (None, Some(early)) => early.to_owned(),
                (None, None) => below(root, EARLY),
            };
            found.add(rank, &directory);
        }
        found
    }

    fn add(&mut self, rank: usize, directory: &Path) {
        // Most of them do not exist.
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let (Ok(name), Ok(kind)) = (entry.file_name().into_string(), entry.file_type()) else {
                continue;
            };
            let is_of_ours = name.starts_with("buildbot-") || name == "service.d";
            if is_of_ours && has_extension(&name, "d") {
                let directories = self.drop_ins.entry(name).or_default();
                directories.push((rank, entry.path()));
            } else if is_of_ours && (kind.is_file() || kind.is_symlink()) {
                self.files.entry(name).or_insert_with(|| entry.path());
            }
        }
    }

    /// The unit file of an instance.
    pub fn of(&self, reference: &InstanceRef) -> Unit {
        self.of_unit(&reference.unit_name())
    }

    /// The unit file for a unit name; a template is used for those of its instances that have no file of their own.
    pub fn of_unit(&self, name: &str) -> Unit {
        let template = template_of(name);
        // A file for the very name comes before one for all names, wherever the two are.
        let file = self
            .files
            .get(name)
            .or_else(|| self.files.get(template.as_deref()?));
        let drop_ins = self.drop_ins_of(name, template.as_deref());
        Unit {
            runs: self.judge(file.map(PathBuf::as_path), &drop_ins),
            file: file.cloned(),
            drop_ins,
        }
    }

    /// The unit files of our names that come before the package's, by their names.
    pub fn files(&self) -> BTreeMap<&str, &Path> {
        let files = self.files.iter();
        files
            .filter(|(_, path)| !self.is_packages(path))
            .map(|(name, path)| (name.as_str(), path.as_path()))
            .collect()
    }

    /// Of drop-ins with one name, only the first counts, those for all services last; then all are sorted by their
    /// names.
    fn drop_ins_of(&self, name: &str, template: Option<&str>) -> Vec<PathBuf> {
        let directories = |unit: &str| {
            let found = self.drop_ins.get(&format!("{unit}.d"));
            found.into_iter().flatten()
        };
        let mut ranked: Vec<&(usize, PathBuf)> = [Some(name), template, Some("buildbot-.service")]
            .into_iter()
            .flatten()
            .flat_map(directories)
            .collect();
        // In one directory, the more specific name comes first.
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked.extend(directories("service"));
        let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
        for (_, directory) in ranked {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                if let Ok(name) = entry.file_name().into_string()
                    && has_extension(&name, "conf")
                    && !name.starts_with('.')
                {
                    found.entry(name).or_insert_with(|| entry.path());
                }
            }
        }
        found.into_values().collect()
    }

    fn judge(&self, file: Option<&Path>, drop_ins: &[PathBuf]) -> Runs {
        let Some(path) = file else {
            return Runs::Missing;
        };
        let mut settings = match self.content(path) {
            Content::Text(text) => parse(path, &text),
            Content::Nothing => return Runs::Masked(path.to_owned()),
            // A link to nowhere starts nothing, and there is nothing to spare.
            Content::Missing => return Runs::Missing,
            Content::Unreadable => return Runs::HandMade(path.to_owned()),
        };
        for drop_in in drop_ins {
            if let Content::Text(text) = self.content(drop_in) {
                settings.extend(parse(drop_in, &text));
            }
        }
        let commands = unit_text::in_force(&settings, "Service", "ExecStart");
        let is_ours = commands
            .iter()
            .any(|command| unit_text::starts_launcher(&command.value));
        let is_packages = self.is_packages(path);
        if is_ours {
            let copy = || Runs::Copy(path.to_owned());
            return if is_packages { Runs::Ours } else { copy() };
        }
        match commands.last() {
            Some(command) if is_packages && Path::new(&command.place.file) != path => {
                Runs::Replaced(PathBuf::from(&command.place.file))
            }
            _ => Runs::HandMade(path.to_owned()),
        }
    }

    fn is_packages(&self, path: &Path) -> bool {
        ["/lib/systemd/system", paths::UNITS]
            .iter()
            .any(|directory| path.parent() == Some(&below(self.root.as_deref(), directory)))
    }

    fn content(&self, path: &Path) -> Content {
        let Some(target) = self.follow(path) else {
            return Content::Nothing;
        };
        let content = match open(&target) {
            Ok(Some((file, metadata))) if metadata.is_file() => read_at_most(&file, LARGEST),
            Ok(None) => return Content::Missing,
            _ => return Content::Unreadable,
        };
        match content {
            Ok(Some(content)) if content.is_empty() => Content::Nothing,
            Ok(Some(content)) => Content::Text(String::from_utf8_lossy(&content).into_owned()),
            _ => Content::Unreadable,
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
                below(self.root.as_deref(), &target)
            } else {
                path.parent()?.join(target)
            };
        }
        Some(path)
    }
}

fn has_extension(name: &str, extension: &str) -> bool {
    Path::new(name).extension() == Some(OsStr::new(extension))
}

/// What a unit file or drop-in holds.
enum Content {
    Text(String),
    /// It is empty, or a link to `/dev/null`: a mask.
    Nothing,
    Missing,
    Unreadable,
}

fn parse(path: &Path, text: &str) -> Vec<Setting> {
    unit_text::parse(&path.display().to_string(), text)
}

/// `buildbot-worker@gpu.service` runs by `buildbot-worker@.service`.
fn template_of(name: &str) -> Option<String> {
    let (prefix, rest) = name.split_once('@')?;
    (rest != ".service").then(|| format!("{prefix}@.service"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    const ETC: &str = "etc/systemd/system";
    const LIB: &str = "usr/lib/systemd/system";
    const OURS: &str = "[Service]\nExecStart=/usr/libexec/buildbot-conda/launcher master\n";
    const THEIRS: &str = "[Service]\nExecStart=/home/bb/start.sh\n";

    /// A root directory with the package's units and these files; a text `-> X` makes a link.
    fn host(files: &[(&str, &str)]) -> TempDir {
        let root = tempfile::tempdir().unwrap();
        let packages = ["master", "master@", "worker", "worker@"]
            .map(|name| (format!("{LIB}/buildbot-{name}.service"), OURS));
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), *text));
        for (path, text) in packages.into_iter().chain(files) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match text.strip_prefix("-> ") {
                Some(target) => symlink(target, path).unwrap(),
                None => fs::write(path, text).unwrap(),
            }
        }
        root
    }

    #[track_caller]
    fn check(unit: &str, files: &[(&str, &str)], expected: &str) {
        let root = host(files);
        let unit = UnitFiles::list(Some(root.path()), None).of_unit(unit);
        let runs = unit.runs.to_string();
        let runs = runs.replace(&format!("{}/", root.path().display()), "");
        assert_eq!(runs, expected, "{files:?}");
    }

    /// A unit file of the master with this text in `/etc`.
    #[track_caller]
    fn check_text(text: &str, expected: &str) {
        let path = format!("{ETC}/buildbot-master.service");
        let expected = format!("{expected} {path}");
        check("buildbot-master.service", &[(&path, text)], &expected);
    }

    #[test]
    fn a_unit_file_is_judged_by_the_command_that_is_in_force() {
        let launcher = paths::LAUNCHER;
        for text in [
            OURS.to_owned(),
            format!("[Service]\n  ExecStart = -{launcher} master"),
            format!("[Service]\nExecStart=/usr/bin/nice -n 5 \\\n{launcher} master\n"),
            format!("[Service]\nExecStart=/usr/bin/nice \\\n# why\n  \"{launcher}\" master\n"),
            format!("[Service]\nExecStart=/bin/x\nExecStart=\nExecStart={launcher} master\n"),
            format!("[Service]\r\nExecStart=/bin/sh -c 'exec {launcher} master'\r\n"),
            format!("[Unit]\nDescription=x\n[Service]\nExecStart={launcher} x\n[Install]\n"),
            format!("[Service]\nType=oneshot\nExecStart=/bin/true\nExecStart={launcher} x\n"),
        ] {
            check_text(&text, "copy");
        }
        for text in [
            THEIRS.to_owned(),
            "\n".to_owned(),
            format!("# instead of {launcher}\n{THEIRS}"),
            format!("# ExecStart={launcher}\n{THEIRS}"),
            format!("; {launcher} \\\n{THEIRS}"),
            format!("[Service]\nExecStart=/bin/x \\\n# {launcher}\n y\n"),
            format!("[Service]\nExecStart={launcher} master\nExecStart=\nExecStart=/bin/x\n"),
            format!("[Service]\nExecStart={launcher} master\nExecStart=\n"),
            format!("[Service]\nExecStartPre={launcher} master\nExecStart=/bin/x\n"),
            format!("[Unit]\nExecStart={launcher} master\n"),
            format!("[X-Service]\nExecStart={launcher} master\n"),
            format!("ExecStart={launcher} master\n"),
            format!("[Service]\nExecStart={launcher}-old master\n"),
            format!("[Service]\nExecStart=/opt{launcher} master\n"),
            format!("[Service]\nexecstart={launcher} master\n"),
            format!("[Service\nExecStart={launcher} master\n"),
            format!("[Service]\n#x \\\nExecStart=/bin/x {launcher}x\n"),
            format!("[Service]\nEnvironment=X={launcher}\nExecStart=/bin/x\n"),
        ] {
            check_text(&text, "hand-made");
        }
    }

    #[test]
    fn the_first_directory_that_has_a_file_counts() {
        let unit = "buildbot-master.service";
        check(unit, &[], "ours");
        for directory in [
            "etc/systemd/system.control",
            "run/systemd/system.control",
            "run/systemd/transient",
            "run/systemd/generator.early",
            ETC,
            "etc/systemd/system.attached",
            "run/systemd/system",
            "run/systemd/system.attached",
            "usr/local/lib/systemd/system",
        ] {
            let path = format!("{directory}/{unit}");
            check(unit, &[(&path, THEIRS)], &format!("hand-made {path}"));
            // The closer one takes precedence, and a file with another suffix is not a unit.
            let nearest = format!("etc/systemd/system.control/{unit}");
            if path != nearest {
                let files = [(path.as_str(), THEIRS), (&nearest, OURS)];
                check(unit, &files, &format!("copy {nearest}"));
            }
            check(unit, &[(&format!("{path}.off"), THEIRS)], "ours");
        }
        // Behind the package's nothing counts, and the package's own file may have been written over.
        check(
            unit,
            &[(&format!("lib/systemd/system/{unit}"), THEIRS)],
            "ours",
        );
        let path = format!("{LIB}/{unit}");
        check(unit, &[(&path, THEIRS)], &format!("hand-made {path}"));
    }

    #[test]
    fn masks_links_and_templates_are_read_as_systemd_reads_them() {
        let master = format!("{ETC}/buildbot-master.service");
        let template = format!("{ETC}/buildbot-worker@.service");
        let gpu = format!("{ETC}/buildbot-worker@gpu.service");
        let unit = "buildbot-master.service";
        for (text, expected) in [
            ("-> /dev/null", format!("masked {master}")),
            ("", format!("masked {master}")),
            ("-> /srv/unit", format!("hand-made {master}")),
            ("-> ../../../srv/copy", format!("copy {master}")),
            ("-> /nowhere", "missing".to_owned()),
            ("-> buildbot-master.service", format!("hand-made {master}")),
        ] {
            let files = [
                (master.as_str(), text),
                ("srv/unit", THEIRS),
                ("srv/copy", OURS),
            ];
            check(unit, &files, &expected);
        }
        check("buildbot-master@a.service", &[(&master, THEIRS)], "ours");
        let both = [(template.as_str(), THEIRS), (&gpu, OURS)];
        check("buildbot-worker@gpu.service", &both, &format!("copy {gpu}"));
        check(
            "buildbot-worker@x.service",
            &both,
            &format!("hand-made {template}"),
        );
        check(
            "buildbot-worker@.service",
            &both,
            &format!("hand-made {template}"),
        );
        check("buildbot-worker.service", &both, "ours");
        // A file for the very name, even far behind one for all names.
        let far = format!("{LIB}/buildbot-worker@gpu.service");
        let both = [(template.as_str(), THEIRS), (&far, OURS)];
        check("buildbot-worker@gpu.service", &both, "ours");
        check("buildbot-sleeper.service", &[], "missing");
    }

    #[test]
    fn a_drop_in_may_replace_the_command_and_only_then_counts() {
        let launcher = paths::LAUNCHER;
        let etc = format!("{ETC}/buildbot-worker@gpu.service.d");
        let replace = |command: &str| format!("[Service]\nExecStart=\nExecStart={command}\n");
        let theirs = replace("/bin/x");
        let nice = replace(&format!("/usr/bin/nice {launcher} worker %i"));
        let x = format!("{etc}/x.conf");
        let unit = "buildbot-worker@gpu.service";
        let replaced = format!("replaced {x}");
        check(unit, &[(&x, &theirs)], &replaced);
        check(unit, &[(&x, &nice)], "ours");
        check(unit, &[(&x, "[Service]\nNice=5\n# ExecStart=\n")], "ours");
        // Not reset, the launcher is still among the commands; systemd refuses two of them anyway.
        check(unit, &[(&x, "[Service]\nExecStart=/bin/x\n")], "ours");
        check("buildbot-worker@other.service", &[(&x, &theirs)], "ours");
        // The last one by its name has the last word, wherever it is.
        let later = "run/systemd/system/buildbot-worker@.service.d/y.conf";
        check(unit, &[(&x, &theirs), (later, &nice)], "ours");
        let earlier = "run/systemd/system/buildbot-worker@.service.d/a.conf";
        check(unit, &[(&x, &theirs), (earlier, &nice)], &replaced);
        for directory in [
            format!("{LIB}/{unit}.d"),
            format!("{ETC}/buildbot-worker@.service.d"),
            format!("{ETC}/buildbot-.service.d"),
            "usr/local/lib/systemd/system/service.d".to_owned(),
        ] {
            let path = format!("{directory}/x.conf");
            check(unit, &[(&path, &theirs)], &format!("replaced {path}"));
            // A file of the same name in an earlier directory replaces it, and may be a mask.
            let mask = "etc/systemd/system.control/buildbot-.service.d/x.conf";
            check(unit, &[(&path, &theirs), (mask, "-> /dev/null")], "ours");
        }
        for name in ["x.conf.off", ".x.conf", "x"] {
            check(unit, &[(&format!("{etc}/{name}"), &theirs)], "ours");
        }
        // If they have their own unit file, that file is used, unless a drop-in calls the launcher.
        let own = format!("{ETC}/{unit}");
        let files = [(own.as_str(), THEIRS), (&x, theirs.as_str())];
        check(unit, &files, &format!("hand-made {own}"));
        let files = [(own.as_str(), THEIRS), (&x, nice.as_str())];
        check(unit, &files, &format!("copy {own}"));
        // A mask stays one.
        let files = [(own.as_str(), "-> /dev/null"), (&x, nice.as_str())];
        check(unit, &files, &format!("masked {own}"));
    }

    #[test]
    fn drop_ins_are_listed_in_the_order_in_which_they_count() {
        let root = host(&[
            ("etc/systemd/system/buildbot-worker@.service.d/b.conf", "1"),
            (
                "etc/systemd/system/buildbot-worker@gpu.service.d/c.conf",
                "2",
            ),
            (
                "run/systemd/system/buildbot-worker@gpu.service.d/c.conf",
                "3",
            ),
            ("run/systemd/system/service.d/a.conf", "4"),
        ]);
        let unit = UnitFiles::list(Some(root.path()), None).of_unit("buildbot-worker@gpu.service");
        let texts: Vec<String> = unit
            .drop_ins
            .iter()
            .map(|path| fs::read_to_string(path).unwrap())
            .collect();
        assert_eq!(texts, ["4", "1", "2"]);
    }
}
