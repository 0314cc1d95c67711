//! apt with the package lists of a suite and nothing installed: whether a package can be had there, without a root.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// Where apt keeps everything; `{}` is the scratch directory. What this machine has configured stays out of it.
const CONFIGURATION: &str = r#"
Dir::Etc "{}/etc";
Dir::Etc::SourceList "{}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State "{}/state";
Dir::State::Status "{}/status";
Dir::Cache "{}/cache";
Dir::Log "{}/log";
Acquire::Languages "none";
Acquire::Check-Valid-Until "false";
"#;

/// A suite of Debian's archive.
#[derive(Debug)]
pub struct Suite(TempDir);

impl Suite {
    /// Fetches the lists of the suite `name`.
    ///
    /// # Panics
    ///
    /// When they cannot be had.
    #[track_caller]
    pub fn fetch(name: &str) -> Self {
        let suite = Self(tempfile::tempdir().expect("a scratch directory can be made"));
        let at = |path: &str| suite.0.path().join(path);
        for directory in [
            "etc/preferences.d",
            "state/lists/partial",
            "cache/archives/partial",
            "log",
        ] {
            fs::create_dir_all(at(directory)).expect("the scratch directory is ours");
        }
        let mirror = std::env::var("BUILDBOT_CONDA_MIRROR");
        let archive = mirror.or_else(|_| buildbot_conda_machine::archive());
        let archive = archive.expect("apt knows Debian's archive");
        let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
        let sources = format!("deb [signed-by={keys}] {archive} {name} main\n");
        let configuration = CONFIGURATION.replace("{}", &suite.0.path().to_string_lossy());
        for (file, text) in [
            ("status", ""),
            ("sources.list", sources.as_str()),
            ("apt.conf", &configuration),
        ] {
            fs::write(at(file), text).expect("the scratch directory is ours");
        }
        let update = suite.apt_get(&["update", "--quiet"]);
        assert!(update.0, "{}", update.1);
        suite
    }

    /// Whether apt would install `package` there, and its output.
    pub fn takes(&self, package: &Path) -> (bool, String) {
        let path = package.to_string_lossy();
        self.apt_get(&["install", "--simulate", "--no-install-recommends", &path])
    }

    fn apt_get(&self, words: &[&str]) -> (bool, String) {
        let output = Command::new("apt-get")
            .args(words)
            .env("APT_CONFIG", self.0.path().join("apt.conf"))
            .env("LC_ALL", "C.UTF-8")
            .output()
            .expect("apt-get runs");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        (output.status.success(), said)
    }
}
