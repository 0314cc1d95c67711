//! A host below a directory and the real command run on it: what every test of the command line shares.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, Permissions};
use std::io::{PipeWriter, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// The administrator's configuration, for [`Host::path`].
pub(crate) const CONFIGURATION: &str = "etc/buildbot-conda/config.toml";

/// The compiled command.
const BINARY: &str = env!("CARGO_BIN_EXE_buildbot-conda");

/// A root directory, and next to it the working directory of every command and the programs that it finds first.
pub(crate) struct Host(TempDir);

impl Host {
    /// A root directory with nothing in it, which every account may enter.
    pub(crate) fn empty() -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        for directory in ["", "root", "programs"] {
            let directory = host.beside(directory);
            fs::create_dir_all(&directory).unwrap();
            fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
        }
        host
    }

    /// A host with the configuration `text` and nothing else.
    pub(crate) fn configured(text: &str) -> Self {
        let host = Self::empty();
        host.write(CONFIGURATION, text);
        host
    }

    /// A path below the root directory; `path` is relative.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.beside("root").join(path)
    }

    /// A path that is not part of the host: below the working directory of every command.
    pub(crate) fn beside(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    /// The root directory as text.
    pub(crate) fn root(&self) -> String {
        self.beside("root").to_str().unwrap().to_owned()
    }

    /// Writes a file with mode 0644. Missing directories get 0755, whatever the umask is.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        let mut missing: Vec<&Path> = path.ancestors().skip(1).collect();
        missing.retain(|directory| !directory.exists());
        for directory in missing.into_iter().rev() {
            fs::create_dir(directory).unwrap();
            fs::set_permissions(directory, Permissions::from_mode(0o755)).unwrap();
        }
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    }

    /// Creates a directory and its parents.
    pub(crate) fn create_directory(&self, path: &str) {
        fs::create_dir_all(self.path(path)).unwrap();
    }

    /// Changes the mode of a file or directory.
    pub(crate) fn set_mode(&self, path: &str, mode: u32) {
        fs::set_permissions(self.path(path), Permissions::from_mode(mode)).unwrap();
    }

    /// The permission bits of a file or directory.
    pub(crate) fn mode(&self, path: &str) -> u32 {
        self.path(path).metadata().unwrap().permissions().mode() & 0o7777
    }

    /// Makes `path` a link to `target`, which is not resolved.
    pub(crate) fn link(&self, path: &str, target: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    /// The text of a file.
    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    /// Puts a program where commands find it first.
    pub(crate) fn add_program(&self, name: &str, text: &str) {
        write_program(&self.beside("programs").join(name), text);
    }

    /// Puts the compiled command where every account may call it, and gives its path.
    pub(crate) fn add_binary(&self) -> PathBuf {
        // With another process, for the reason that `write_program` gives.
        let path = self.beside("programs/buildbot-conda");
        let status = Command::new("cp").arg(BINARY).arg(&path).status();
        assert!(status.unwrap().success());
        path
    }

    /// The command for this root directory.
    pub(crate) fn command(&self) -> Command {
        let mut command = self.command_without_root();
        command.args(["--root", &self.root()]);
        command
    }

    /// The command for the running system, with this host's programs first on `PATH`.
    pub(crate) fn command_without_root(&self) -> Command {
        let mut command = self.binary();
        self.prepare(&mut command);
        command
    }

    /// The compiled command. Root finds programs only in directories of the system; the programs of this host are
    /// mounted there, in a separate mount namespace.
    fn binary(&self) -> Command {
        let programs = self.beside("programs");
        let has_some = fs::read_dir(&programs).is_ok_and(|mut entries| entries.next().is_some());
        if !has_some || !rustix::process::geteuid().is_root() {
            return Command::new(BINARY);
        }
        let script = "mount -t overlay -o lowerdir=\"$0\":/usr/bin overlay /usr/bin; exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-euc", script]);
        command.arg(programs).arg(BINARY);
        command
    }

    /// A shell script on a terminal, in which `"$BINARY"` is the command and `"$ROOT"` this root directory.
    pub(crate) fn on_a_terminal(&self, script: &str) -> Command {
        // script(1) gives it a terminal, which hangs up when script(1) stops.
        let mut command = Command::new("script");
        command
            .args(["--quiet", "--return", "--flush", "--command", script])
            .arg("/dev/null");
        self.prepared(&mut command)
            .env("SHELL", "/bin/sh")
            .env("TERM", "xterm-256color");
        command
    }

    /// A command of the test's own, in which `"$BINARY"` is the command and `"$ROOT"` this root directory.
    pub(crate) fn prepared<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        self.prepare(command);
        command.env("BINARY", BINARY).env("ROOT", self.root())
    }

    fn prepare(&self, command: &mut Command) {
        let path = format!("{}:/usr/bin:/bin", self.beside("programs").display());
        command
            .current_dir(self.0.path())
            .stdin(Stdio::null())
            .env("PATH", path)
            // What systemd sets for the verbs that units call.
            .env_remove("MAINPID")
            .env_remove("STATE_DIRECTORY")
            .env_remove("SOURCE_DATE_EPOCH");
    }

    /// Runs the command for this root directory.
    pub(crate) fn run(&self, words: &[&str]) -> Said {
        self.said(self.command().args(words))
    }

    /// Runs the command for this root directory with the words of `line`, which have no blanks in them.
    pub(crate) fn run_line(&self, line: &str) -> Said {
        self.said(self.command().args(line.split(' ')))
    }

    /// What a command said, with this root directory taken out of it.
    pub(crate) fn said(&self, command: &mut Command) -> Said {
        self.said_with(command, "")
    }

    /// What a command said, with `name` in place of this root directory.
    pub(crate) fn said_with(&self, command: &mut Command, name: &str) -> Said {
        let output = command.output().unwrap();
        let root = self.root();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().replace(&root, name);
        Said {
            status: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// Everything below the root directory but the lock: for a file its mode and text, for a link its target, for a
    /// directory, whose name ends with a slash, nothing.
    pub(crate) fn snapshot(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let root = self.beside("root");
        walk(&root, &root, &mut found);
        found.remove("var/lib/buildbot-conda/lock");
        found
    }
}

fn walk(root: &Path, directory: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let metadata = path.symlink_metadata().unwrap();
        let name = path.strip_prefix(root).unwrap().display().to_string();
        if metadata.is_symlink() {
            let target = fs::read_link(&path).unwrap();
            found.insert(name, format!("-> {}", target.display()));
        } else if metadata.is_dir() {
            walk(root, &path, found);
            found.insert(format!("{name}/"), String::new());
        } else {
            let mode = metadata.permissions().mode() & 0o7777;
            let text = fs::read(&path).unwrap();
            let text = String::from_utf8_lossy(&text);
            found.insert(name, format!("{mode:04o} {text}"));
        }
    }
}

/// Writes a program with another process. A program that a parallel test starts at the same moment would inherit this
/// process's open file, and a file that is open for writing cannot be executed (`ETXTBSY`, execve(2)).
pub(crate) fn write_program(path: &Path, text: &str) {
    let mut shell = Command::new("sh")
        .args(["-euc", "cat >\"$0\"; chmod 755 \"$0\""])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = shell.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    assert!(shell.wait().unwrap().success());
}

/// The writing end of a pipe whose reader has gone.
pub(crate) fn unread() -> PipeWriter {
    let (_reader, writer) = std::io::pipe().unwrap();
    writer
}

/// What a run said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Said {
    /// Exit status; none if a signal terminated it.
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// All three, to be compared with an expected text.
impl fmt::Display for Said {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            status,
            stdout,
            stderr,
        } = self;
        let status = status.map_or("none".to_owned(), |status| status.to_string());
        write!(
            formatter,
            "status {status}\nstdout:\n{stdout}stderr:\n{stderr}"
        )
    }
}

/// An expected run.
pub(crate) fn said(status: i32, stdout: &str, stderr: &str) -> Said {
    Said {
        status: Some(status),
        stdout: stdout.to_owned(),
        stderr: stderr.to_owned(),
    }
}
