//! A host in a directory: configuration, an environment, a master that was created.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use expect_test::Expect;
use tempfile::TempDir;

const STARTER: &str = "\
[defaults]
user = \"bb\"

[master]
directory = \"/home/bb/master\"

[worker]
directory = \"/home/bb/worker\"
";

/// A root directory in which plans are made.
pub(crate) struct Host(TempDir);

impl Host {
    /// As the package leaves it, with an environment.
    pub(crate) fn new() -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        host.write("etc/buildbot-conda/config.toml", STARTER);
        host.write("etc/hostname", "example\n");
        host.write("home/bb/anaconda3/envs/buildbot/conda-meta/history", "");
        host.write("home/bb/anaconda3/envs/buildbot/bin/python", "");
        host
    }

    /// The same after `create master`.
    pub(crate) fn with_master() -> Self {
        let host = Self::new();
        let text = STARTER.replace(
            "\"/home/bb/master\"\n",
            "\"/home/bb/master\"\ncredentials = { worker-password = \"worker-password\" }\n",
        );
        host.write("etc/buildbot-conda/config.toml", &text);
        host.write("etc/buildbot-conda/credentials/worker-password", "x\n");
        host.write("home/bb/master/buildbot.tac", "");
        host.write(
            "var/lib/buildbot-conda/created/master.json",
            "{\"web_port\":8011,\"worker_port\":9990,\"worker\":\"worker\"}\n",
        );
        host
    }

    /// The same, with its `master.cfg`, in which the list of workers is `list`.
    pub(crate) fn with_workers(list: &str) -> Self {
        let host = Self::with_master();
        host.write_workers(list);
        host
    }

    /// Makes `list` the workers of the master.
    pub(crate) fn write_workers(&self, list: &str) {
        let text = format!("c = {{}}\nWORKERS = {list}\nc[\"workers\"] = list(WORKERS)\n");
        self.write("home/bb/master/master.cfg", &text);
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn run(&self, words: &[&str]) -> String {
        let root = self.0.path().to_str().unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_buildbot-conda"))
            .args(["--root", root])
            .args(words)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap().replace(root, "");
        format!(
            "status {}\nstdout:\n{}stderr:\n{}",
            output.status.code().unwrap(),
            text(&output.stdout),
            text(&output.stderr)
        )
    }

    pub(crate) fn root(&self) -> &Path {
        self.0.path()
    }

    fn paths(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        walk(self.0.path(), &mut found);
        found
    }

    /// Runs, compares, and sees that nothing has changed.
    #[track_caller]
    pub(crate) fn check(&self, words: &[&str], expect: &Expect) {
        let before = self.paths();
        expect.assert_eq(&self.run(words));
        assert_eq!(self.paths(), before);
    }
}

fn walk(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let is_directory = path.symlink_metadata().unwrap().is_dir();
        let text = if is_directory {
            String::new()
        } else {
            fs::read_to_string(&path).unwrap_or_default()
        };
        found.insert(format!("{} {text}", path.display()));
        if is_directory {
            walk(&path, found);
        }
    }
}
