//! A small channel of packages made for a test, good and evil ones, and the program under test run on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

/// Writes packages and the index of a channel. A tar library that refuses evil paths is of no use here.
const MAKER: &str = include_str!("maker.py");

/// A channel, a cache and an environment's directory.
pub(crate) struct Host {
    directory: TempDir,
    packages: Vec<Value>,
}

/// What the program said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) success: bool,
    pub(crate) answer: Value,
    pub(crate) stderr: String,
}

/// A member of an archive.
pub(crate) fn file(path: &str, text: &str, mode: u32) -> Value {
    json!({ "path": path, "text": text, "mode": mode })
}

/// The same for a link.
pub(crate) fn link(path: &str, target: &str) -> Value {
    json!({ "path": path, "link": target })
}

impl Host {
    /// A channel of these packages: name, version, and members.
    pub(crate) fn with(packages: &[(&str, &str, Vec<Value>)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("environment")).unwrap();
        let specs: Vec<Value> = packages
            .iter()
            .map(|(name, version, members)| json!({ "name": name, "version": version, "members": members }))
            .collect();
        let output = Command::new("python3")
            .args(["-c", MAKER])
            .arg(directory.path().join("channel"))
            .arg(json!(specs).to_string())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let packages = serde_json::from_slice(&output.stdout).unwrap();
        Self {
            directory,
            packages,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The `@EXPLICIT` lines of all packages, below this address of the channel.
    pub(crate) fn lines(&self, channel: &str) -> String {
        let line = |package: &Value| {
            let [file, sha256] = ["file", "sha256"].map(|key| package[key].as_str().unwrap());
            format!("{channel}/noarch/{file}#sha256:{sha256}\n")
        };
        self.packages.iter().map(line).collect()
    }

    pub(crate) fn channel(&self) -> String {
        format!("file://{}", self.path("channel").display())
    }

    /// The whole list.
    pub(crate) fn lock(&self) -> String {
        format!("@EXPLICIT\n{}", self.lines(&self.channel()))
    }

    /// The packages as reported by the maker: `name`, `version`, `file`, `sha256`, `md5`.
    pub(crate) fn packages(&self) -> &[Value] {
        &self.packages
    }

    /// Runs the program on a file with this text.
    pub(crate) fn run(&self, text: &str, options: &[&str]) -> Said {
        self.run_with(text, options, &[])
    }

    /// The same with variables in its environment.
    pub(crate) fn run_with(
        &self,
        text: &str,
        options: &[&str],
        variables: &[(&str, &str)],
    ) -> Said {
        let mut command = self.command(text);
        let output = command
            .args(options)
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        Said {
            success: output.status.success(),
            answer: serde_json::from_slice(&output.stdout).unwrap_or_default(),
            stderr: String::from_utf8(output.stderr)
                .unwrap()
                .replace(self.directory.path().to_str().unwrap(), ""),
        }
    }

    /// The program, to be run on a file with this text.
    pub(crate) fn command(&self, text: &str) -> Command {
        let input = self.path("input");
        fs::write(&input, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_buildbot-conda-env"));
        command
            .arg("--file")
            .arg(&input)
            .arg("--directory")
            .arg(self.path("environment"))
            .args(["--used-as", "/envs/x", "--cache"])
            .arg(self.path("cache"))
            // Without credentials and proxies of the caller.
            .env("HOME", self.path("home"))
            .env("NO_PROXY", "127.0.0.1");
        command
    }

    /// Runs it to a success.
    pub(crate) fn make(&self, text: &str) -> Said {
        let said = self.run(text, &[]);
        assert!(said.success, "{}", said.stderr);
        said
    }

    /// Names in the environment's directory, hidden ones too.
    pub(crate) fn made(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("environment")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    /// The prefix of what was made.
    pub(crate) fn prefix(&self, said: &Said) -> PathBuf {
        let generation = said.answer["generation"].as_str().unwrap();
        self.path("environment").join(generation)
    }
}

/// Permission bits of a file.
pub(crate) fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().unwrap().permissions().mode() & 0o7777
}
