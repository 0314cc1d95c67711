//! Throwaway Debian systems that are not booted: a base tree made once for each release, and for each test an overlay
//! over it. Every command runs in mount and process namespaces of its own, so nothing stays mounted or running when a
//! test dies.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

use crate::Package;

/// Mounts the overlay and runs a script in it. Arguments: base, upper, work and mount point, then the script.
const ENTER: &str = r#"
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2,workdir=$3" "$4"
mount -t proc proc "$4/proc"
mkdir -p "$4/dev/pts"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$4/dev/pts"
mount --bind "$4/dev/pts/ptmx" "$4/dev/ptmx"
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive TERM=dumb \
    chroot "$4" /bin/sh -euc "$5"
"#;

/// A Debian release that the package supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// Debian 12.
    Bookworm,
    /// Debian 13.
    Trixie,
}

impl Release {
    fn as_str(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
        }
    }
}

/// How a command in a root ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Exit status; 128 and the signal's number when a signal ended it.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    /// Both outputs: apt mixes what maintainer scripts say on stderr into its stdout.
    pub fn talk(&self) -> String {
        format!("{}\n{}", self.stdout, self.stderr)
    }
}

/// A minimal Debian with systemd unpacked but not running, for one test.
#[derive(Debug)]
pub struct DebianRoot {
    base: PathBuf,
    scratch: TempDir,
}

impl DebianRoot {
    /// A fresh system with the package under test lying at `/buildbot-conda.deb`, not installed.
    #[track_caller]
    pub fn new(release: Release) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "only root can mount and chroot\nhint: run the test under sudo"
        );
        let base = base(release);
        let scratch = tempfile::tempdir().expect("a scratch directory can be made");
        for directory in ["upper", "work", "root"] {
            fs::create_dir(scratch.path().join(directory)).expect("the scratch directory is ours");
        }
        fs::copy(
            Package::path(),
            scratch.path().join("upper/buildbot-conda.deb"),
        )
        .expect("the package can be copied");
        Self { base, scratch }
    }

    /// Run a shell script (`sh -eu`) as root in the system.
    #[track_caller]
    pub fn run(&self, script: &str) -> Outcome {
        let place = |name: &str| self.scratch.path().join(name);
        let output = Command::new("unshare")
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
            .arg(&self.base)
            .args([place("upper"), place("work"), place("root")])
            .arg(script)
            .output()
            .expect("unshare runs");
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

/// The base tree of a release, made at its first use and kept in the target directory.
fn base(release: Release) -> PathBuf {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/debian-roots");
    fs::create_dir_all(&directory).expect("the target directory is ours");
    let tree = directory.join(release.as_str());
    let lock = File::create(directory.join(format!("{}.lock", release.as_str())))
        .expect("the target directory is ours");
    flock(&lock, FlockOperation::LockExclusive).expect("a local file can be locked");
    if !tree.is_dir() {
        make_base(release, &tree);
    }
    tree
}

fn make_base(release: Release, tree: &Path) {
    let unfinished = tree.with_extension("unfinished");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).expect("the target directory is ours");
    }
    let arguments: [&OsStr; 4] = [
        "--variant=minbase".as_ref(),
        "--include=adduser,debconf,systemd,bsdutils".as_ref(),
        release.as_str().as_ref(),
        unfinished.as_os_str(),
    ];
    let status = Command::new("mmdebstrap")
        .args(arguments)
        .status()
        .expect("mmdebstrap runs; `apt install mmdebstrap`");
    assert!(
        status.success(),
        "mmdebstrap {}: {status}",
        release.as_str()
    );
    fs::rename(&unfinished, tree).expect("the target directory is ours");
}
