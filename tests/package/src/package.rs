//! The .deb under test, unpacked once for each test that asks for it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Environment variable with the absolute path of the .deb; `cargo xtask test` sets it.
const VARIABLE: &str = "BUILDBOT_CONDA_DEB";
/// The same for the package of what makes environments.
const VARIABLE_OF_ENVIRONMENTS: &str = "BUILDBOT_CONDA_ENV_DEB";

/// A file or directory of the archive, as `dpkg-deb --contents` lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Type and permissions in the notation of ls, such as `-rwxr-xr-x`.
    pub mode: String,
    /// `USER/GROUP`.
    pub owner: String,
    /// Size in bytes; 0 for directories.
    pub size: u64,
}

/// The package under test.
#[derive(Debug)]
pub struct Package {
    path: PathBuf,
    tree: TempDir,
}

impl Package {
    /// The path of the package under test.
    ///
    /// # Panics
    ///
    /// If the environment does not name the package to test.
    #[track_caller]
    pub fn path() -> PathBuf {
        path_in(VARIABLE, "cargo xtask deb")
    }

    /// Unpack the package under test, control files into `DEBIAN/`.
    #[track_caller]
    pub fn open() -> Self {
        Self::unpack(Self::path())
    }

    /// The same for the package that creates environments.
    ///
    /// # Panics
    ///
    /// If the environment does not name it.
    #[track_caller]
    pub fn open_environments() -> Self {
        Self::unpack(path_in(VARIABLE_OF_ENVIRONMENTS, "cargo xtask deb --env"))
    }

    /// Where the archive is.
    pub fn archive(&self) -> &Path {
        &self.path
    }

    #[track_caller]
    fn unpack(path: PathBuf) -> Self {
        let tree = tempfile::tempdir().expect("a scratch directory can be made");
        let status = Command::new("dpkg-deb")
            .arg("--raw-extract")
            .arg(&path)
            .arg(tree.path())
            .status()
            .expect("dpkg-deb runs");
        assert!(status.success(), "dpkg-deb --raw-extract: {status}");
        Self { path, tree }
    }

    /// Where the package is unpacked.
    pub fn tree(&self) -> &Path {
        self.tree.path()
    }

    /// Every member of the archive by its path, which starts with `/`; directories end with `/`.
    #[track_caller]
    pub fn contents(&self) -> BTreeMap<String, Entry> {
        let listing = dpkg_deb(&["--contents"], &self.path);
        listing.lines().map(entry).collect()
    }

    /// The value of a control field; empty when it is absent.
    #[track_caller]
    pub fn field(&self, name: &str) -> String {
        let output = Command::new("dpkg-deb")
            .arg("--field")
            .arg(&self.path)
            .arg(name)
            .output()
            .expect("dpkg-deb runs");
        assert!(output.status.success(), "dpkg-deb --field {name}");
        String::from_utf8(output.stdout)
            .expect("control fields are UTF-8")
            .trim_end()
            .to_owned()
    }

    /// The text of a file of the package, `path` being relative to the root or to `DEBIAN/..`.
    #[track_caller]
    pub fn text(&self, path: &str) -> String {
        let path = self.tree().join(path.trim_start_matches('/'));
        fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("read `{}`: {error}", path.display()))
    }
}

/// One line of `dpkg-deb --contents`: mode, owner, size, date, time, path.
#[track_caller]
fn path_in(variable: &str, command: &str) -> PathBuf {
    let Some(path) = std::env::var_os(variable) else {
        panic!(
            "`{variable}` is not set\nhint: {variable}=$({command}) cargo test -p buildbot-conda-package-tests"
        );
    };
    let path = PathBuf::from(path);
    assert!(
        path.is_absolute() && path.is_file(),
        "`{variable}` is `{}`, not the absolute path of a package",
        path.display()
    );
    path
}

fn entry(line: &str) -> (String, Entry) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [mode, owner, size, _date, _time, path] = words[..] else {
        panic!("`{line}` is not one regular member of the archive");
    };
    let entry = Entry {
        mode: mode.to_owned(),
        owner: owner.to_owned(),
        size: size.parse().expect("the third column is the size"),
    };
    (path.trim_start_matches('.').to_owned(), entry)
}

#[track_caller]
fn dpkg_deb(arguments: &[&str], package: &Path) -> String {
    let output = Command::new("dpkg-deb")
        .env("LC_ALL", "C.UTF-8")
        .args(arguments)
        .arg(package)
        .output()
        .expect("dpkg-deb runs");
    assert!(output.status.success(), "dpkg-deb {arguments:?}");
    String::from_utf8(output.stdout).expect("dpkg-deb prints UTF-8")
}
