//! The generator as systemd runs it: the real program, with a directory that is used as `/`.
//!
//! In every case, it exits at once with status 0; [`Root::run`] checks that each time.

#![expect(
    clippy::unwrap_used,
    reason = "a scratch directory that cannot be used ends the test, which is what it should do"
)]

mod bad_files;
mod drop_ins;
mod kernel_log;
mod unit_files;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Much longer than any case takes, much shorter than a tester waits.
const PATIENCE: Duration = Duration::from_secs(20);

/// A temporary root directory, with `normal`, `early` and `late` next to the paths of a system.
struct Root(TempDir);

impl Root {
    /// A root with this configuration, as an installation of the package would leave it.
    fn new(config: impl AsRef<[u8]>) -> Self {
        let root = Self::bare();
        root.write("etc/buildbot-conda/config.toml", config);
        root
    }

    /// Without a configuration.
    fn bare() -> Self {
        let root = Self(tempfile::tempdir().unwrap());
        for directory in ["normal", "early", "late", "etc/buildbot-conda"] {
            fs::create_dir_all(root.path(directory)).unwrap();
            root.chmod(directory, 0o755);
        }
        root
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let file = self.path(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, content).unwrap();
        self.chmod(path, 0o644);
    }

    fn link(&self, path: &str, target: impl AsRef<Path>) {
        let link = self.path(path);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(target, link).unwrap();
    }

    fn fifo(&self, path: &str) {
        let fifo = self.path(path);
        fs::create_dir_all(fifo.parent().unwrap()).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            fifo,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
    }

    fn chmod(&self, path: &str, mode: u32) {
        fs::set_permissions(self.path(path), Permissions::from_mode(mode)).unwrap();
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_buildbot-conda-generator"));
        command.arg("--root").arg(self.0.path());
        command.args(["normal", "early", "late"].map(|directory| self.path(directory)));
        command.current_dir("/").stdin(Stdio::null());
        command
    }

    /// The standard error of the generator, without the path of the root.
    #[track_caller]
    fn run(&self) -> String {
        let stderr = finish(self.command().stderr(Stdio::piped()).spawn().unwrap());
        stderr.replace(&self.0.path().display().to_string(), "")
    }

    /// The drop-ins there are now, by the reference of their instance, sorted.
    fn instances(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path("normal"))
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.path().join("10-buildbot-conda.conf").is_file())
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        names.sort();
        let reference = |name: &String| {
            let name = name.strip_prefix("buildbot-").unwrap();
            name.strip_suffix(".service.d").unwrap().to_owned()
        };
        names.iter().map(reference).collect()
    }

    fn drop_in(&self, reference: &str) -> String {
        let path = format!("normal/buildbot-{reference}.service.d/10-buildbot-conda.conf");
        fs::read_to_string(self.path(&path)).unwrap()
    }
}

/// Waits for a generator that must not block and must not fail, and returns its stderr.
#[track_caller]
fn finish(mut child: Child) -> String {
    // Read meanwhile, or a long message would block the generator for want of a reader.
    let stderr = child
        .stderr
        .take()
        .map(|stderr| std::thread::spawn(|| std::io::read_to_string(stderr).unwrap()));
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("the generator still ran after {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    assert_eq!(status.code(), Some(0), "{status}");
    stderr.map_or_else(String::new, |reader| reader.join().unwrap())
}

/// A unit that an administrator wrote before there was a package.
const HAND_MADE: &str = "[Service]\nType=simple\nExecStart=/home/bb/start-master.sh\n";
