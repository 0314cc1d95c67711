//! Verbs of managed environments below a root directory, with a program that makes generations of no packages but one:
//! what is listed, switched, refused and left.

use std::fs;

use crate::house::{Host, Said, unread, write_program};

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

/// A host whose program that makes environments is [`BUILDER`].
fn host() -> Host {
    let host = Host::configured("[master]\n");
    write_builder(&host, BUILDER);
    host
}

fn write_builder(host: &Host, text: &str) {
    let path = host.path("usr/libexec/buildbot-conda/env");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    write_program(&path, text);
}

/// `env` with the words of `line`, which are relative to the root directory.
fn run(host: &Host, line: &str) -> Said {
    let mut command = host.command();
    command.current_dir(host.root()).arg("env");
    host.said(command.args(line.split(' ')))
}

/// The same, which has to succeed; gives its standard output.
fn done(host: &Host, line: &str) -> String {
    let said = run(host, line);
    assert_eq!(said.status, Some(0), "{line}: {said}");
    said.stdout
}

/// An environment of two generations, of which the second serves.
fn host_with_two() -> Host {
    let host = host();
    host.write("first", &format!("{FIRST}\n1\n"));
    host.write("second", &format!("{SECOND}\n2\n"));
    done(&host, "create ci --file first");
    done(&host, "update ci --file second");
    host
}

fn current(host: &Host) -> String {
    let link = fs::read_link(host.path("var/lib/buildbot-conda/envs/ci/current"));
    link.unwrap().display().to_string()
}

#[test]
fn without_the_program_it_is_said_which_package_has_it() {
    let host = host();
    fs::remove_file(host.path("usr/libexec/buildbot-conda/env")).unwrap();
    let Said { status, stderr, .. } = run(&host, "create ci --file first");
    assert_eq!(status, Some(1));
    assert_eq!(
        stderr,
        "error: `/usr/libexec/buildbot-conda/env` is not installed, it is needed to create environments\n\
         hint: apt install buildbot-conda-env\n"
    );
    assert_eq!(done(&host, "list --json"), "[]\n");

    // A program of another version reports itself what it does not understand.
    write_builder(&host, "#!/bin/sh\nexit 2\n");
    let Said { status, stderr, .. } = run(&host, "create ci --file first");
    assert_eq!(status, Some(1));
    assert!(
        stderr.contains("has a different version than this program\nhint: apt install"),
        "{stderr}"
    );
}

#[test]
fn an_environment_without_a_file_of_its_own_is_that_of_the_package() {
    let host = host();
    host.write(
        "usr/share/buildbot-conda/environment.yml",
        &format!("{FIRST}\n7\n"),
    );
    assert_eq!(done(&host, "create ci"), format!("{FIRST}\n"));
    assert_eq!(current(&host), FIRST);
    // What it has afterwards is never a matter of course.
    let said = run(&host, "update ci");
    assert_eq!(said.status, Some(2), "{said}");
}

#[test]
fn a_bill_of_materials_names_the_environment_and_its_generation() {
    let host = host_with_two();
    for (environment, generation, version) in [("ci", SECOND, "2"), ("ci@1", FIRST, "1")] {
        let text = done(&host, &format!("sbom {environment}"));
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        let subject = &document["metadata"]["component"];
        assert_eq!(subject["name"], "ci");
        assert_eq!(subject["version"], generation);
        assert_eq!(document["components"][0]["version"], version);
    }
}

#[test]
fn a_configuration_that_cannot_be_read_does_not_say_that_nobody_uses_an_environment() {
    let host = host_with_two();
    for (text, reason) in [
        ("[master\n", "config.toml:1:"),
        ("[mastr]\nconda-env = \"ci\"\n", "mastr"),
    ] {
        host.write("etc/buildbot-conda/config.toml", text);
        let said = run(&host, "list");
        assert_eq!(said.status, Some(0), "{said}");
        let warning = "cannot determine all instances that use an environment: ";
        assert!(
            said.stderr.contains(warning) && said.stderr.contains(reason),
            "{said}"
        );
    }
}

#[test]
fn a_reader_that_went_away_keeps_no_verb_from_its_end() {
    let host = host_with_two();
    host.write("third", "333333333333\n3\n");
    // Both print something on each stream, before and after the change.
    for (line, serves) in [
        ("env rollback ci --json", FIRST),
        ("env update ci --file third --json", "333333333333"),
    ] {
        let mut command = host.command();
        command
            .args(line.split(' '))
            .current_dir(host.root())
            .stdout(unread())
            .stderr(unread());
        let status = command.status().unwrap();
        assert_eq!((status.code(), current(&host).as_str()), (Some(0), serves));
    }
}

#[test]
fn an_update_serves_and_a_rollback_goes_back() {
    let host = host_with_two();
    assert_eq!(current(&host), SECOND);
    for generation in [FIRST, SECOND] {
        let lock = format!("envs/ci/{generation}/conda-meta/buildbot-conda.lock");
        let lock = fs::File::open(host.path("var/lib/buildbot-conda").join(lock)).unwrap();
        lock.set_modified(std::time::UNIX_EPOCH).unwrap();
    }
    assert_eq!(
        done(&host, "list"),
        format!(
            "ENVIRONMENT  GENERATION            MADE              PACKAGES  BUILDBOT  INSTANCES  PROCESSES\n\
             ci           {FIRST}          1970-01-01 00:00  1         -                    0\n\
             ci           {SECOND}  in use  1970-01-01 00:00  1         -                    0\n"
        )
    );
    let difference = "PACKAGE  BEFORE  AFTER\none      1 0     2 0\n";
    assert_eq!(done(&host, "diff ci"), difference);
    assert_eq!(done(&host, "diff ci@1 ci@2"), difference);
    let Said {
        status,
        stdout,
        stderr,
    } = run(&host, "rollback ci --dry-run");
    assert_eq!((status, stdout.lines().count()), (Some(0), 2), "{stderr}");
    assert_eq!(current(&host), SECOND);
    let answer = done(&host, "rollback ci --json");
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(
        (&answer["before"], &answer["after"]),
        (&SECOND.into(), &FIRST.into())
    );
    assert_eq!(answer["changed"], true);
    assert_eq!(answer["differences"][0]["name"], "one");
    assert_eq!(current(&host), FIRST);
    let Said { stderr, .. } = run(&host, "update ci --file first");
    assert!(
        stderr.contains(&format!("`ci` is up to date, generation {FIRST}")),
        "{stderr}"
    );
    // The same words once more change nothing.
    for line in [
        "create ci --file first --json",
        "create ci --file first --dry-run --json",
        "update ci --file first --json",
        &format!("rollback ci {FIRST} --json"),
    ] {
        let before = host.snapshot();
        let answer: serde_json::Value = serde_json::from_str(&done(&host, line)).unwrap();
        assert_eq!(answer["changed"], false, "{line}: {answer}");
        assert_eq!(
            (&answer["before"], &answer["after"]),
            (&FIRST.into(), &FIRST.into())
        );
        assert_eq!(host.snapshot(), before, "{line}");
    }
    let said = run(&host, "create ci --file second --json");
    assert_eq!((said.status, said.stdout.as_str()), (Some(1), ""), "{said}");
}

#[test]
fn what_an_interrupted_change_has_left_goes_with_the_next_command() {
    let host = host_with_two();
    let note = "var/lib/buildbot-conda/envs/ci/.changing";
    host.write(note, &format!("{SECOND}\n{FIRST}\nboot\nmaster\n"));
    let Said { status, stderr, .. } = run(&host, "recover ci");
    assert_eq!(
        (status, stderr),
        (
            Some(0),
            format!(
                "warning: a command that changed `ci` to generation {FIRST} was interrupted, {SECOND} is still in use\n"
            )
        )
    );
    assert!(!host.path(note).exists());
    assert_eq!(current(&host), SECOND);
    assert_eq!(run(&host, "recover ci").stderr, "");
}

#[test]
fn what_is_not_done_is_said() {
    let host = host_with_two();
    let Said { status, stderr, .. } = run(&host, "update ci --file first --dry-run");
    assert_eq!(status, Some(0));
    assert!(
        stderr.starts_with("warning: something is not done\n"),
        "{stderr}"
    );
    assert!(
        stderr.contains(&format!(
            "generation {FIRST} would be in use instead of {SECOND}"
        )),
        "{stderr}"
    );
    assert_eq!(current(&host), SECOND);
}

#[test]
fn a_generation_that_cannot_be_made_changes_nothing() {
    let host = host_with_two();
    host.write("broken", "333333333333\nbroken\n");
    let Said { status, stderr, .. } = run(&host, "update ci --file broken");
    assert_eq!(status, Some(1));
    assert_eq!(
        stderr,
        "error: it is broken\nerror: the environment `ci` is unchanged: no new generation was created\n"
    );
    assert_eq!(current(&host), SECOND);
    let building = host.path("var/lib/buildbot-conda/envs/ci/.building");
    assert!(!building.exists());
}

#[test]
fn a_lock_has_the_checksum_of_every_package() {
    let host = host_with_two();
    assert_eq!(
        done(&host, "lock ci@1"),
        "# platform: linux-64\n@EXPLICIT\nfile:///c/noarch/one-1-0.conda#sha256:\
         ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\n"
    );
}

#[test]
fn a_changed_file_is_found() {
    let host = host_with_two();
    done(&host, "verify ci");
    host.write(
        &format!("var/lib/buildbot-conda/envs/ci/{SECOND}/file"),
        "abd",
    );
    let Said { status, stdout, .. } = run(&host, "verify ci");
    assert_eq!(status, Some(1));
    assert_eq!(stdout, "FINDING  PACKAGE  PATH\nchanged  one      file\n");
    done(&host, "verify ci@1");
}

#[test]
fn only_what_nobody_wants_is_collected() {
    let host = host_with_two();
    host.write("third", "333333333333\n3\n");
    done(&host, "update ci --file third");
    let first = format!("/var/lib/buildbot-conda/envs/ci/{FIRST}\n");
    assert_eq!(done(&host, "gc --dry-run"), first);
    let pinned = format!("[master]\nconda-env = \"{}\"\n", first.trim());
    host.write("etc/buildbot-conda/config.toml", &pinned);
    assert_eq!(done(&host, "gc"), "");
    let Said { status, stderr, .. } = run(&host, "remove ci");
    assert_eq!(status, Some(1));
    assert!(
        stderr.starts_with("error: `master` uses `ci`\n"),
        "{stderr}"
    );
    host.write("etc/buildbot-conda/config.toml", "[master]\n");
    let answer = format!("[\n  \"{}\"\n]\n", first.trim());
    assert_eq!(done(&host, "gc --json"), answer);
    let directory = "/var/lib/buildbot-conda/envs/ci";
    assert_eq!(
        done(&host, "remove ci --dry-run"),
        format!("remove {directory}\n")
    );
    for changed in [true, false] {
        let answer: serde_json::Value =
            serde_json::from_str(&done(&host, "remove ci --json")).unwrap();
        assert_eq!(answer["changed"], changed, "{answer}");
        assert_eq!(answer["before"] == directory, changed, "{answer}");
        assert!(!host.path("var/lib/buildbot-conda/envs/ci").exists());
    }
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let host = host();
    for name in ["../x", "base", ".x"] {
        let Said { status, stderr, .. } = run(&host, &format!("create {name} --file first"));
        assert_eq!(status, Some(2), "{name}: {stderr}");
    }
    let Said { status, stderr, .. } = run(&host, "show ci");
    assert_eq!(status, Some(1));
    assert_eq!(
        stderr,
        "error: environment `ci` not found\nhint: create it with `buildbot-conda env create ci --file FILE`\n"
    );
}

#[test]
fn records_that_somebody_else_has_written_steer_no_terminal_and_are_in_no_lock() {
    let host = host();
    let evil = r"\u001b]0;x\u0007\u202e\u009b2J\u2028";
    let shown = r"\u{1b}]0;x\u{7}\u{202e}\u{9b}2J";
    let package = |name: &str, url: &str| {
        format!(
            r#"{{"name":"{name}","version":"1{evil}","build":"0{evil}","subdir":"noarch{evil}",
                "url":"{url}","sha256":"{}","paths_data":{{"paths":[{{"_path":"lib/{evil}"}}]}}}}"#,
            "0".repeat(64)
        )
    };
    let good = "https://example.org/noarch/a-1-0.conda";
    host.write(
        "one/conda-meta/a-1-0.json",
        &package(&format!("a{evil}"), good),
    );
    host.write(
        "two/conda-meta/b-1-0.json",
        &package(&format!("b{evil}"), good),
    );
    for line in [
        "show ./one",
        "show ./one --json",
        "diff ./one ./two",
        "diff ./one ./two --json",
        "verify ./one",
        "verify ./one --json",
    ] {
        let Said { stdout, stderr, .. } = run(&host, line);
        let is_json = line.ends_with("--json");
        let shown = if is_json {
            &shown.replace('\\', r"\\")
        } else {
            shown
        };
        assert!(stdout.contains(shown), "{line}: {stdout:?}");
        for text in [stdout, stderr] {
            let is_kept = |character: char| character == '\n' || !character.is_control();
            assert!(
                text.chars().all(is_kept) && !text.contains('\u{202e}'),
                "{line}: {text:?}"
            );
        }
    }

    assert_eq!(run(&host, "lock ./one").status, Some(0));
    let line = format!("{good}#sha256:{}", "1".repeat(64));
    let forged = package("a", &format!("{good}#x\\n{line}"));
    host.write("one/conda-meta/a-1-0.json", &forged);
    let Said {
        status,
        stdout,
        stderr,
    } = run(&host, "lock ./one");
    assert_eq!((status, stdout.as_str()), (Some(1), ""));
    assert_eq!(
        stderr,
        format!(
            "error: `a` cannot be locked: its record in `conda-meta` has the address `{good}#x {line}`\n"
        )
    );
}
