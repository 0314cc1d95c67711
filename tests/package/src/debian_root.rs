//! Temporary Debian systems that are not booted: a base tree for each release, and an overlay over it for each test.
//! Every command runs in separate mount and process namespaces, so nothing stays mounted or running when a test is
//! killed.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

use crate::{Package, Release};

/// Mounts the overlay and runs a script in it. Arguments: lower directories, upper, work and mount point, then the
/// script. With `volatile` nothing waits for the host's disk, which is not lost in between; so its mark is removed.
const ENTER: &str = r#"
rm -rf "$3/work/incompat"
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2,workdir=$3,volatile" "$4"
mount -t proc proc "$4/proc"
mkdir -p "$4/dev/pts"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$4/dev/pts"
mount --bind "$4/dev/pts/ptmx" "$4/dev/ptmx"
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive TERM=dumb \
    chroot "$4" /bin/sh -euc "$5"
"#;

/// Programs of Debian's that check the package, all in one root for each release, so that it is made once.
pub const CHECKERS: [&str; 4] = ["fish", "lintian", "piuparts", "prometheus"];

/// The result of a command in a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Exit status; 128 plus the signal's number if a signal terminated it.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    /// Both outputs: apt mixes the standard error of maintainer scripts into its stdout.
    pub fn talk(&self) -> String {
        format!("{}\n{}", self.stdout, self.stderr)
    }
}

/// A minimal Debian with systemd unpacked but not running, for one test.
#[derive(Debug)]
pub struct DebianRoot {
    /// Read-only trees, topmost first: the base, and what other roots wrote before this one was forked from them.
    lower: Vec<Arc<Tree>>,
    scratch: Arc<Tree>,
}

/// A directory tree of an overlay.
#[derive(Debug)]
enum Tree {
    Base(PathBuf),
    Scratch(TempDir),
}

impl Tree {
    /// What is seen of it when it is below others.
    fn contents(&self) -> PathBuf {
        match self {
            Self::Base(path) => path.clone(),
            Self::Scratch(directory) => directory.path().join("upper"),
        }
    }

    /// An empty one, in memory if possible: dpkg flushes every file that it writes.
    #[track_caller]
    fn scratch() -> Self {
        let memory = Path::new("/dev/shm");
        let directory = if has_room(memory) {
            tempfile::tempdir_in(memory)
        } else {
            tempfile::tempdir()
        };
        let directory = directory.expect("a scratch directory can be made");
        for part in ["upper", "work", "root"] {
            fs::create_dir(directory.path().join(part)).expect("the scratch directory is ours");
        }
        Self::Scratch(directory)
    }

    #[track_caller]
    fn part(&self, name: &str) -> PathBuf {
        match self {
            Self::Base(_) => panic!("a base tree is not written to"),
            Self::Scratch(directory) => directory.path().join(name),
        }
    }
}

impl DebianRoot {
    /// A fresh system with the package under test lying at `/buildbot-conda.deb`, not installed.
    #[track_caller]
    pub fn new(release: Release) -> Self {
        Self::with_programs(release, &[])
    }

    /// As [`Self::new`], with these packages of Debian's installed as well.
    #[track_caller]
    pub fn with_programs(release: Release, packages: &[&str]) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "only root can mount and chroot\nhint: run the test under sudo"
        );
        let root = Self {
            lower: vec![Arc::new(Tree::Base(base(release, packages)))],
            scratch: Arc::new(Tree::scratch()),
        };
        fs::copy(Package::path(), root.upper().join("buildbot-conda.deb"))
            .expect("the package can be copied");
        root
    }

    /// A system in which apt has installed the package under test. That is done once for each package and kept: who wants
    /// to see it calls [`Self::install`].
    #[track_caller]
    pub fn installed(release: Release) -> Self {
        Self::installed_with_programs(release, &[])
    }

    /// As [`Self::installed`], with these packages of Debian's as well.
    #[track_caller]
    pub fn installed_with_programs(release: Release, packages: &[&str]) -> Self {
        let fresh = Self::with_programs(release, packages);
        let mut hasher = DefaultHasher::new();
        fs::read(Package::path())
            .expect("the package can be read")
            .hash(&mut hasher);
        let name = format!("{INSTALLED}{:016x}", hasher.finish());
        let name = [&[name.as_str(), release.code_name()], packages].concat();
        let tree = kept(&name.join("+"), |tree| {
            fresh.install();
            copy(&fresh.upper(), tree);
        });
        let mut lower = vec![Arc::new(Tree::Base(tree))];
        lower.extend(fresh.lower);
        Self {
            lower,
            scratch: Arc::new(Tree::scratch()),
        }
    }

    /// A system like this one, which must not change any more; there may be many.
    #[track_caller]
    #[must_use]
    pub fn fork(&self) -> Self {
        let mut lower = vec![Arc::clone(&self.scratch)];
        lower.extend(self.lower.iter().cloned());
        Self {
            lower,
            scratch: Arc::new(Tree::scratch()),
        }
    }

    /// A copy of this system at this moment, including what a running process has written so far.
    #[track_caller]
    #[must_use]
    pub fn snapshot(&self) -> Self {
        let snapshot = Self {
            lower: self.lower.clone(),
            scratch: Arc::new(Tree::scratch()),
        };
        copy(&self.upper(), &snapshot.upper());
        snapshot
    }

    /// The directory with what was written since the system was made or forked, as overlayfs keeps it.
    #[track_caller]
    pub fn upper(&self) -> PathBuf {
        self.scratch.part("upper")
    }

    /// Where the system's root is mounted while a command runs in it, in a mount namespace of that command.
    #[track_caller]
    pub fn mount_point(&self) -> PathBuf {
        self.scratch.part("root")
    }

    /// The read-only trees below [`Self::upper`], topmost first.
    pub fn lower(&self) -> Vec<PathBuf> {
        self.lower.iter().map(|tree| tree.contents()).collect()
    }

    /// The command that runs a shell script (`sh -eu`) as root in the system. Only one may run at a time.
    #[track_caller]
    pub fn command(&self, script: &str) -> Command {
        let lower: Vec<String> = self
            .lower()
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        let mut command = Command::new("unshare");
        command
            .args([
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--",
                "sh",
                "-euc",
                ENTER,
                "sh",
            ])
            .arg(lower.join(":"))
            .args(["upper", "work", "root"].map(|part| self.scratch.part(part)))
            .arg(script);
        command
    }

    /// Run a shell script (`sh -eu`) as root in the system.
    #[track_caller]
    pub fn run(&self, script: &str) -> Outcome {
        let output = self.command(script).output().expect("unshare runs");
        Outcome {
            status: output
                .status
                .code()
                .unwrap_or_else(|| 128 + output.status.signal().unwrap_or_default()),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// As [`Self::run`], for a script that must succeed. Returns its standard output.
    #[track_caller]
    pub fn must(&self, script: &str) -> String {
        let outcome = self.run(script);
        assert_eq!(
            outcome.status, 0,
            "`{script}`\n{}\n{}",
            outcome.stdout, outcome.stderr
        );
        outcome.stdout
    }

    /// Install the package under test with apt.
    #[track_caller]
    pub fn install(&self) -> Outcome {
        let outcome = self.run("apt-get install --yes --no-install-recommends --reinstall /buildbot-conda.deb </dev/null");
        assert_eq!(
            outcome.status, 0,
            "apt-get install\n{}\n{}",
            outcome.stdout, outcome.stderr
        );
        outcome
    }

    /// Preseed an answer of the package.
    #[track_caller]
    pub fn preseed(&self, question: &str, value: &str) {
        self.must(&format!(
            "debconf-set-selections <<'END'\nbuildbot-conda buildbot-conda/{question} string {value}\nEND"
        ));
    }

    /// debconf's present answer.
    #[track_caller]
    pub fn answer(&self, question: &str) -> String {
        let get =
            format!("echo 'GET buildbot-conda/{question}' | debconf-communicate buildbot-conda");
        let reply = self.must(&get);
        reply
            .trim_end_matches('\n')
            .strip_prefix("0 ")
            .unwrap_or_else(|| panic!("debconf does not know `{question}`: {reply}"))
            .to_owned()
    }

    /// The text of a file.
    #[track_caller]
    pub fn text(&self, path: &str) -> String {
        self.must(&format!("cat '{path}'"))
    }

    /// Does the path exist (links not followed)?
    #[track_caller]
    pub fn has(&self, path: &str) -> bool {
        let outcome = self.run(&format!("[ -e '{path}' ] || [ -L '{path}' ]"));
        outcome.status == 0
    }

    /// Write a file, mode 0644, its directory included.
    #[track_caller]
    pub fn write(&self, path: &str, text: &str) {
        self.must(&format!(
            "mkdir -p \"$(dirname '{path}')\"\ncat >'{path}' <<'END_OF_TEXT'\n{text}END_OF_TEXT"
        ));
    }
}

/// The prefix of the names of trees with the package installed.
const INSTALLED: &str = "installed-";
/// After this time without use, such a tree is removed: its package is no longer the one under test.
const KEPT_FOR: Duration = Duration::from_hours(7 * 24);

/// The base tree of a release, made at its first use.
fn base(release: Release, packages: &[&str]) -> PathBuf {
    let name = [&[release.code_name()], packages].concat().join("+");
    kept(&name, |tree| make_base(release, packages, tree))
}

/// A tree in the target directory, made by one process while others wait, and kept.
fn kept(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/debian-roots");
    fs::create_dir_all(&directory).expect("the target directory is ours");
    let tree = directory.join(name);
    let lock =
        File::create(directory.join(format!("{name}.lock"))).expect("the target directory is ours");
    flock(&lock, FlockOperation::LockExclusive).expect("a local file can be locked");
    lock.set_modified(SystemTime::now())
        .expect("the target directory is ours");
    if !tree.is_dir() {
        let unfinished = directory.join(format!("{name}.unfinished"));
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).expect("the target directory is ours");
        }
        make(&unfinished);
        fs::rename(&unfinished, &tree).expect("the target directory is ours");
        sweep(&directory);
    }
    tree
}

/// Removes trees of packages that have not been tested for long. Remaining ones are removed by a later run.
fn sweep(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_lock = path
            .extension()
            .is_some_and(|extension| extension == "lock");
        let is_ours = entry.file_name().to_string_lossy().starts_with(INSTALLED);
        let used = entry.metadata().and_then(|metadata| metadata.modified());
        let is_old = used.is_ok_and(|used| used.elapsed().is_ok_and(|unused| unused > KEPT_FOR));
        if is_lock && is_ours && is_old {
            let _ = fs::remove_dir_all(path.with_extension(""));
            let _ = fs::remove_file(path);
        }
    }
}

/// Copies what an overlay has written, whiteouts and the overlay's own attributes included.
#[track_caller]
fn copy(upper: &Path, destination: &Path) {
    fs::create_dir_all(destination).expect("the destination is ours");
    let status = Command::new("cp")
        .arg("--archive")
        .arg(upper.join("."))
        .arg(destination)
        .status();
    assert!(status.expect("cp runs").success(), "copy a root");
}

fn make_base(release: Release, packages: &[&str], tree: &Path) {
    let packages = [&["adduser", "debconf", "systemd", "bsdutils"], packages].concat();
    let include = format!("--include={}", packages.join(","));
    let arguments: [&OsStr; 4] = [
        "--variant=minbase".as_ref(),
        include.as_ref(),
        release.code_name().as_ref(),
        tree.as_os_str(),
    ];
    let status = Command::new("mmdebstrap")
        .args(arguments)
        .status()
        .expect("mmdebstrap runs; `apt install mmdebstrap`");
    assert!(status.success(), "mmdebstrap {release}: {status}");
}

/// For several roots at once, each of which may need some hundred megabytes; containers often have 64 there.
fn has_room(directory: &Path) -> bool {
    const WANTED: u64 = 4 << 30;
    rustix::fs::statvfs(directory).is_ok_and(|found| found.f_bavail * found.f_frsize >= WANTED)
}
