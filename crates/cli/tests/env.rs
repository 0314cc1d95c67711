//! Verbs of managed environments below a root directory, with a program that makes generations of no packages but one:
//! what is listed, switched, refused and left.

#![expect(
    clippy::unwrap_used,
    reason = "a test whose host cannot be set up has failed"
)]

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// Makes a generation whose name is the first line of the file, with the package `one` in the version of the second.
const BUILDER: &str = r#"#!/bin/sh -eu
while test $# -gt 0; do
    case $1 in
        --file) file=$2; shift ;;
        --directory) directory=$2; shift ;;
        --dry-run) dry=yes ;;
    esac
    shift
done
{ read -r generation; read -r version; } <"$file"
sum=ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad
package="\"name\":\"one\",\"version\":\"$version\",\"build\":\"0\",\"subdir\":\"noarch\",\"url\":\"file:///c/noarch/one-$version-0.conda\",\"sha256\":\"$sum\""
if test "$version" = broken; then
    mkdir "$directory/.building"
    echo "error: it is broken" >&2
    exit 1
fi
if test -z "${dry:-}" && ! test -e "$directory/$generation"; then
    mkdir -p "$directory/$generation/conda-meta"
    printf abc >"$directory/$generation/file"
    echo "{$package,\"paths_data\":{\"paths\":[{\"_path\":\"file\",\"path_type\":\"hardlink\",\"sha256\":\"$sum\",\"size_in_bytes\":3}]}}" \
        >"$directory/$generation/conda-meta/one.json"
    echo @EXPLICIT >"$directory/$generation/conda-meta/buildbot-conda.lock"
fi
echo "{\"generation\":\"$generation\",\"made\":true,\"packages\":[{$package}],\"warnings\":[\"something is not done\"]}"
"#;

const FIRST: &str = "111111111111";
const SECOND: &str = "222222222222";

struct Host(TempDir);

impl Host {
    fn new() -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        host.write("etc/buildbot-conda/config.toml", "[master]\n");
        host.write("usr/libexec/buildbot-conda/.keep", "");
        host.write_builder(BUILDER);
        host
    }

    /// Written by another process. What a parallel test starts would have a file of this one open for writing, too, for a
    /// moment, and then nobody can execute it (`ETXTBSY`, execve(2)).
    fn write_builder(&self, text: &str) {
        let mut shell = Command::new("sh")
            .args(["-euc", "cat >\"$0\"; chmod 755 \"$0\""])
            .arg(self.path("usr/libexec/buildbot-conda/env"))
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = shell.stdin.take().unwrap();
        stdin.write_all(text.as_bytes()).unwrap();
        drop(stdin);
        assert!(shell.wait().unwrap().success());
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Status, stdout and stderr, without the root directory.
    fn run(&self, line: &str) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_buildbot-conda"))
            .arg("--root")
            .arg(self.0.path())
            .arg("env")
            .args(line.split(' '))
            .current_dir(self.0.path())
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).unwrap();
            text.replace(self.0.path().to_str().unwrap(), "")
        };
        (
            output.status.code().unwrap(),
            text(output.stdout),
            text(output.stderr),
        )
    }

    fn done(&self, line: &str) -> String {
        let (status, stdout, stderr) = self.run(line);
        assert_eq!(status, 0, "{line}: {stderr}");
        stdout
    }

    /// An environment of two generations, of which the second serves.
    fn with_two() -> Self {
        let host = Self::new();
        host.write("first", &format!("{FIRST}\n1\n"));
        host.write("second", &format!("{SECOND}\n2\n"));
        host.done("create ci --file first");
        host.done("update ci --file second");
        host
    }

    fn current(&self) -> String {
        let link = fs::read_link(self.path("var/lib/buildbot-conda/envs/ci/current"));
        link.unwrap().display().to_string()
    }
}

#[test]
fn without_the_program_it_is_said_which_package_has_it() {
    let host = Host::new();
    fs::remove_file(host.path("usr/libexec/buildbot-conda/env")).unwrap();
    let (status, _, stderr) = host.run("create ci --file first");
    assert_eq!(status, 1);
    assert_eq!(
        stderr,
        "error: `/usr/libexec/buildbot-conda/env` is not installed, which makes environments\n\
         hint: apt install buildbot-conda-env\n"
    );
    assert_eq!(host.done("list --json"), "[]\n");

    // One of another version says itself what it does not understand.
    host.write_builder("#!/bin/sh\nexit 2\n");
    let (status, _, stderr) = host.run("create ci --file first");
    assert_eq!(status, 1);
    assert!(
        stderr.contains("is of another version than this program\nhint: apt install"),
        "{stderr}"
    );
}

#[test]
fn an_update_serves_and_a_rollback_goes_back() {
    let host = Host::with_two();
    assert_eq!(host.current(), SECOND);
    for generation in [FIRST, SECOND] {
        let lock = format!("envs/ci/{generation}/conda-meta/buildbot-conda.lock");
        let lock = fs::File::open(host.path("var/lib/buildbot-conda").join(lock)).unwrap();
        lock.set_modified(std::time::UNIX_EPOCH).unwrap();
    }
    assert_eq!(
        host.done("list"),
        format!(
            "ENVIRONMENT  GENERATION            MADE              PACKAGES  BUILDBOT  INSTANCES  PROCESSES\n\
             ci           {FIRST}          1970-01-01 00:00  1         -                    0\n\
             ci           {SECOND}  serves  1970-01-01 00:00  1         -                    0\n"
        )
    );
    let difference = "PACKAGE  BEFORE  AFTER\none      1 0     2 0\n";
    assert_eq!(host.done("diff ci"), difference);
    assert_eq!(host.done("diff ci@1 ci@2"), difference);
    let (status, stdout, stderr) = host.run("rollback ci --dry-run");
    assert_eq!((status, stdout.lines().count()), (0, 2), "{stderr}");
    assert_eq!(host.current(), SECOND);
    let told = host.done("rollback ci --json");
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(
        (&told["from"], &told["to"]),
        (&SECOND.into(), &FIRST.into())
    );
    assert_eq!(told["differences"][0]["name"], "one");
    assert_eq!(host.current(), FIRST);
    let (_, _, stderr) = host.run("update ci --file first");
    assert!(
        stderr.contains(&format!("`ci` is that already, generation {FIRST}")),
        "{stderr}"
    );
}

#[test]
fn what_an_interrupted_change_has_left_goes_with_the_next_command() {
    let host = Host::with_two();
    let note = "var/lib/buildbot-conda/envs/ci/.changing";
    host.write(note, &format!("{SECOND}\n{FIRST}\nboot\nmaster\n"));
    let (status, _, stderr) = host.run("recover ci");
    assert_eq!(
        (status, stderr),
        (
            0,
            format!(
                "warning: a command that changed `ci` to generation {FIRST} was interrupted, {SECOND} serves as before\n"
            )
        )
    );
    assert!(!host.path(note).exists());
    assert_eq!(host.current(), SECOND);
    assert_eq!(host.run("recover ci").2, "");
}

#[test]
fn what_is_not_done_is_said() {
    let host = Host::with_two();
    let (status, _, stderr) = host.run("update ci --file first --dry-run");
    assert_eq!(status, 0);
    assert!(
        stderr.starts_with("warning: something is not done\n"),
        "{stderr}"
    );
    assert!(
        stderr.contains(&format!("generation {FIRST} would serve, after {SECOND}")),
        "{stderr}"
    );
    assert_eq!(host.current(), SECOND);
}

#[test]
fn a_generation_that_cannot_be_made_changes_nothing() {
    let host = Host::with_two();
    host.write("broken", "333333333333\nbroken\n");
    let (status, _, stderr) = host.run("update ci --file broken");
    assert_eq!(status, 1);
    assert_eq!(
        stderr,
        "error: it is broken\nerror: the environment `ci` is as it was: no new generation was made\n"
    );
    assert_eq!(host.current(), SECOND);
    let building = host.path("var/lib/buildbot-conda/envs/ci/.building");
    assert!(!building.exists());
}

#[test]
fn a_lock_has_the_checksum_of_every_package() {
    let host = Host::with_two();
    assert_eq!(
        host.done("lock ci@1"),
        "# platform: linux-64\n@EXPLICIT\nfile:///c/noarch/one-1-0.conda#sha256:\
         ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\n"
    );
}

#[test]
fn a_changed_file_is_found() {
    let host = Host::with_two();
    host.done("verify ci");
    host.write(
        &format!("var/lib/buildbot-conda/envs/ci/{SECOND}/file"),
        "abd",
    );
    let (status, stdout, _) = host.run("verify ci");
    assert_eq!(status, 1);
    assert_eq!(stdout, "FINDING  PACKAGE  PATH\nchanged  one      file\n");
    host.done("verify ci@1");
}

#[test]
fn only_what_nobody_wants_is_collected() {
    let host = Host::with_two();
    host.write("third", "333333333333\n3\n");
    host.done("update ci --file third");
    let first = format!("/var/lib/buildbot-conda/envs/ci/{FIRST}\n");
    assert_eq!(host.done("gc --dry-run"), first);
    let pinned = format!("[master]\nconda-env = \"{}\"\n", first.trim());
    host.write("etc/buildbot-conda/config.toml", &pinned);
    assert_eq!(host.done("gc"), "");
    let (status, _, stderr) = host.run("remove ci");
    assert_eq!(status, 1);
    assert!(
        stderr.starts_with("error: `master` uses `ci`\n"),
        "{stderr}"
    );
    host.write("etc/buildbot-conda/config.toml", "[master]\n");
    let told = format!("[\n  \"{}\"\n]\n", first.trim());
    assert_eq!(host.done("gc --json"), told);
    let directory = "/var/lib/buildbot-conda/envs/ci";
    assert_eq!(
        host.done("remove ci --dry-run"),
        format!("remove {directory}\n")
    );
    assert_eq!(
        host.done("remove ci --json"),
        format!("[\n  \"{directory}\"\n]\n")
    );
    assert!(!host.path("var/lib/buildbot-conda/envs/ci").exists());
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let host = Host::new();
    for name in ["../x", "base", ".x"] {
        let (status, _, stderr) = host.run(&format!("create {name} --file first"));
        assert_eq!(status, 2, "{name}: {stderr}");
    }
    let (status, _, stderr) = host.run("show ci");
    assert_eq!(status, 1);
    assert_eq!(
        stderr,
        "error: no environment `ci`\nhint: `buildbot-conda env create ci --file FILE` makes it\n"
    );
}
