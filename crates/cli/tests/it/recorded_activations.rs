//! Every recorded activation, through the real `buildbot-conda run`: the same tree, the same environment before, and
//! the environment after compared variable by variable. `activations/recorded.txt` explains the form of the records.
//!
//! If this program intentionally differs from conda, [`DEVIATIONS`] contains the case, the exact difference, and the
//! reason; any other difference fails, and so does a listed deviation that does not occur.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::activation_records::{Outcome, Record, parse};

/// How an outcome differs from the record.
enum Difference {
    /// In these variables: `NAME=VALUE`, or `-NAME` for an unset variable.
    Variables(&'static [&'static str]),
    /// The record is of a failure; this is what is set instead, besides what the root gives.
    Succeeds(&'static [&'static str]),
    /// The record is of a success.
    Fails,
}

use Difference::{Fails, Succeeds, Variables};

const LEVEL: &str = "an inherited active environment is left at once rather than nested or stacked, and code is not run \
                     because an inherited variable names its directory: no `deactivate.d`";

/// Case, difference, reason.
const DEVIATIONS: &[(&str, Difference, &str)] = &[
    (
        "auto_stack",
        Variables(&[
            "CONDA_SHLVL=1",
            "-CONDA_PREFIX_1",
            "-CONDA_STACKED_2",
            "PATH={ROOT}/envs/plain/bin:{ROOT}/condabin:/usr/bin:/bin",
        ]),
        LEVEL,
    ),
    (
        "nested_stack",
        Variables(&[
            "CONDA_SHLVL=1",
            "-CONDA_PREFIX_1",
            "-CONDA_STACKED_2",
            "PATH={ROOT}/envs/plain/bin:{ROOT}/condabin:/usr/bin:/bin",
        ]),
        LEVEL,
    ),
    (
        "nested_replace",
        Variables(&["CONDA_SHLVL=1", "-CONDA_PREFIX_1", "-DEACT", "OLD_ACTIVE=1"]),
        LEVEL,
    ),
    (
        "nested_path_lost_old",
        Variables(&[
            "CONDA_SHLVL=1",
            "-CONDA_PREFIX_1",
            "-DEACT",
            "OLD_ACTIVE=1",
            "PATH={ROOT}/envs/plain/bin:{ROOT}/condabin:/usr/bin:/bin",
        ]),
        LEVEL,
    ),
    (
        "nested_same_prefix",
        // At level 0, the environment's variable meets its own inherited value, which is kept like any other.
        Variables(&["-DEACT", "__CONDA_SHLVL_0_OLDVAR=o"]),
        LEVEL,
    ),
    (
        "shlvl_garbage",
        Succeeds(&[
            "CONDA_DEFAULT_ENV=plain",
            "CONDA_PREFIX={ROOT}/envs/plain",
            "CONDA_PROMPT_MODIFIER=(plain) ",
            "CONDA_SHLVL=1",
            "PATH={ROOT}/envs/plain/bin:{ROOT}/condabin:/usr/bin:/bin",
        ]),
        "an inherited level counts for nothing, so it cannot be in the way",
    ),
    (
        "level_empty",
        Succeeds(&[
            "CONDA_DEFAULT_ENV=plain",
            "CONDA_PREFIX={ROOT}/envs/plain",
            "CONDA_PROMPT_MODIFIER=(plain) ",
            "CONDA_SHLVL=1",
            "PATH={ROOT}/envs/plain/bin:{ROOT}/condabin:/usr/bin:/bin",
        ]),
        "an inherited level counts for nothing, so it cannot be in the way",
    ),
    (
        "dollar_in_path_name",
        Variables(&["SEEN=1"]),
        "conda lets the shell expand the script's path and does not find it",
    ),
    (
        "single_quote_path",
        Variables(&[
            "CONDA_DEFAULT_ENV={ELSE}/it's",
            "CONDA_PREFIX={ELSE}/it's",
            "CONDA_PROMPT_MODIFIER=({ELSE}/it's) ",
            "CONDA_SHLVL=1",
            "PATH={ELSE}/it's/bin:{ROOT}/condabin:/usr/bin:/bin",
        ]),
        "conda writes the quote into shell text, which then is a syntax error: not activated, status 0",
    ),
    (
        "state_single_quote",
        Variables(&["A=it's", "B=b"]),
        "conda writes the quote into shell text, which then is a syntax error: variables lost, status 0",
    ),
    (
        "path_empty",
        Variables(&["PATH={ROOT}/envs/plain/bin:{ROOT}/condabin"]),
        "without a PATH conda.sh does not find `dirname`, and puts `/condabin` there",
    ),
    (
        "state_lower_case_path",
        Variables(&["PATH={ROOT}/envs/s/bin:{ROOT}/condabin:/usr/bin:/bin"]),
        "conda reserves PATH but not `path`, and then writes it in upper case",
    ),
    (
        "state_lower_case_prefix",
        Fails,
        "conda fails on CONDA_PREFIX in the state but not on `conda_prefix`, and then writes it in upper case",
    ),
    (
        "condarc_tab",
        Fails,
        "conda warns and overlooks a condarc that is no YAML; which environment is meant is then a guess",
    ),
];

/// What every activation sets from the root.
const ROOT_EXPORTS: [(&str, &str); 6] = [
    ("CONDA_EXE", "{ROOT}/bin/conda"),
    ("_CONDA_EXE", "{ROOT}/bin/conda"),
    ("CONDA_PYTHON_EXE", "{ROOT}/bin/python"),
    ("_CONDA_ROOT", "{ROOT}"),
    ("_CE_M", ""),
    ("_CE_CONDA", ""),
];

type Environment = BTreeMap<OsString, OsString>;

/// The places of one case, which end with it.
struct World {
    directory: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let world = Self {
            directory: tempfile::tempdir().expect("a temporary directory"),
        };
        for directory in [
            "root/bin",
            "root/condabin",
            "root/conda-meta",
            "root/envs",
            "home",
            "else",
            "system",
        ] {
            fs::create_dir_all(world.path(directory)).expect("a directory");
        }
        for file in ["root/bin/conda", "root/conda-meta/history"] {
            fs::write(world.path(file), "").expect("a file");
        }
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The text with real paths in it. A dollar keeps a brace from being ours.
    fn real(&self, text: &[u8]) -> OsString {
        let mut real = text.to_vec();
        for (placeholder, name) in [("{ROOT}", "root"), ("{HOME}", "home"), ("{ELSE}", "else")] {
            let path = self.path(name);
            let parts: Vec<&[u8]> = split(&real, placeholder.as_bytes());
            real = parts.join(path.as_os_str().as_bytes());
        }
        OsString::from_vec(real)
    }

    fn build(&self, record: &Record) {
        for (path, content) in &record.files {
            let path = PathBuf::from(self.real(path.as_bytes()));
            fs::create_dir_all(path.parent().expect("a file is in a directory"))
                .expect("a directory");
            fs::write(path, self.real(content.as_bytes()).as_bytes()).expect("a file");
        }
        for (link, target) in &record.links {
            let link = PathBuf::from(self.real(link.as_bytes()));
            fs::create_dir_all(link.parent().expect("a link is in a directory"))
                .expect("a directory");
            symlink(self.real(target.as_bytes()), link).expect("a link");
        }
        if let Some(condarc) = &record.condarc {
            fs::write(
                self.path("home/.condarc"),
                self.real(condarc.as_bytes()).as_bytes(),
            )
            .expect("a file");
        }
    }

    fn before(&self, record: &Record) -> Environment {
        let mut before = Environment::from([
            ("HOME".into(), self.real(b"{HOME}")),
            ("PATH".into(), "/usr/bin:/bin".into()),
        ]);
        for name in &record.without {
            assert!(
                before.remove(OsStr::new(name)).is_some(),
                "`without {name}` takes nothing away"
            );
        }
        before.extend(
            record
                .environment
                .iter()
                .map(|(name, value)| (name.into(), self.real(value))),
        );
        before
    }

    fn run(&self, target: &str, before: &Environment, command: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_buildbot-conda"))
            .arg("--root")
            .arg(self.path("system"))
            .args(["run", "--conda-root"])
            .arg(self.path("root"))
            .arg({
                let mut option = OsString::from("--env=");
                option.push(self.real(target.as_bytes()));
                option
            })
            .arg("--")
            .args(command)
            .env_clear()
            .envs(before)
            .current_dir("/")
            .stdin(Stdio::null())
            .output()
            .expect("the program is built")
    }

    fn check(&self, record: &Record) -> Result<(), String> {
        let before = self.before(record);
        // conda has `--stack` for this; here, only the record speaks of it.
        let target = record
            .target
            .strip_prefix("--stack ")
            .unwrap_or(&record.target);
        let output = self.run(target, &before, &["/usr/bin/env", "-0"]);
        let status = output.status.code();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let difference = DEVIATIONS
            .iter()
            .find(|(name, ..)| *name == record.name)
            .map(|(_, difference, _)| difference);
        let mut expected = match (&record.outcome, difference) {
            (Outcome::Fails, None) | (_, Some(Fails)) => {
                let is_refusal = status == Some(1) && output.stdout.is_empty();
                let is_told = stderr.starts_with("error: ") && stderr.contains("\nhint: ");
                return (is_refusal && is_told).then_some(()).ok_or_else(|| {
                    format!("expected a refusal with a hint, got {status:?}: {stderr}")
                });
            }
            (Outcome::Exits(expected), None) => {
                return (status == Some(*expected) && output.stdout.is_empty())
                    .then_some(())
                    .ok_or_else(|| {
                        format!("expected status {expected}, got {status:?}: {stderr}")
                    });
            }
            (Outcome::Fails, Some(Succeeds(_))) => before.clone(),
            (Outcome::Changes(changes), _) => {
                let mut expected = before.clone();
                for (name, value) in changes {
                    match value {
                        Some(value) => expected.insert(name.into(), self.real(value)),
                        None => expected.remove(OsStr::new(name)),
                    };
                }
                expected
            }
            _ => return Err("the deviation does not fit the record".to_owned()),
        };
        if record.has_root_exports {
            expected.extend(
                ROOT_EXPORTS.map(|(name, value)| (name.into(), self.real(value.as_bytes()))),
            );
        }
        let recorded = expected.clone();
        if let Some(Variables(variables) | Succeeds(variables)) = difference {
            for variable in *variables {
                match variable.split_once('=') {
                    Some((name, value)) => {
                        expected.insert(name.into(), self.real(value.as_bytes()))
                    }
                    None => {
                        expected.remove(OsStr::new(variable.strip_prefix('-').expect("`-NAME`")))
                    }
                };
            }
            if recorded == expected {
                return Err("the deviation is none".to_owned());
            }
        }
        if status != Some(0) {
            return Err(format!("expected success, got {status:?}: {stderr}"));
        }
        let printed = output.stdout.strip_prefix(record.stdout.as_bytes());
        let actual = environment(printed.ok_or("the output of the scripts is missing")?);
        compare(&without_shell(expected), &without_shell(actual))
    }
}

fn split<'a>(text: &'a [u8], separator: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(at) = rest
        .windows(separator.len())
        .position(|window| window == separator)
    {
        parts.push(&rest[..at]);
        rest = &rest[at + separator.len()..];
    }
    parts.push(rest);
    parts
}

/// What `env -0` printed.
fn environment(printed: &[u8]) -> Environment {
    let entries = printed
        .split(|&byte| byte == 0)
        .filter(|entry| !entry.is_empty());
    entries
        .map(|entry| {
            let at = entry
                .iter()
                .position(|&byte| byte == b'=')
                .expect("`env` prints `NAME=VALUE`");
            (
                OsStr::from_bytes(&entry[..at]).to_owned(),
                OsStr::from_bytes(&entry[at + 1..]).to_owned(),
            )
        })
        .collect()
}

fn without_shell(mut environment: Environment) -> Environment {
    for name in ["_", "SHLVL", "PWD", "OLDPWD"] {
        environment.remove(OsStr::new(name));
    }
    environment
}

fn compare(expected: &Environment, actual: &Environment) -> Result<(), String> {
    let mut differences = Vec::new();
    for name in expected
        .keys()
        .chain(actual.keys().filter(|name| !expected.contains_key(*name)))
    {
        let (expected, actual) = (expected.get(name), actual.get(name));
        if expected != actual {
            differences.push(format!(
                "{}: expected {expected:?}, got {actual:?}",
                name.display()
            ));
        }
    }
    if differences.is_empty() {
        Ok(())
    } else {
        Err(differences.join("\n    "))
    }
}

#[track_caller]
fn check_all(text: &str, count: usize) {
    let records = parse(text);
    assert_eq!(
        records.len(),
        count,
        "a record was lost or added: say so here"
    );
    let failures: Vec<String> = records
        .iter()
        .filter_map(|record| {
            let world = World::new();
            world.build(record);
            let problem = world.check(record).err()?;
            Some(format!("{}\n    {problem}", record.name))
        })
        .collect();
    assert!(
        failures.is_empty(),
        "{} of {count} cases differ:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

const RECORDED: &str = include_str!("activations/recorded.txt");
const CORNERS: &str = include_str!("activations/corners.txt");

#[test]
fn recorded_activations_come_out_as_recorded() {
    check_all(RECORDED, 48);
}

#[test]
fn further_corners_come_out_as_conda_has_them() {
    check_all(CORNERS, 134);
}

#[test]
fn every_deviation_is_of_a_record_and_has_a_reason() {
    let records: Vec<Record> = [RECORDED, CORNERS].into_iter().flat_map(parse).collect();
    for (name, _, reason) in DEVIATIONS {
        assert_eq!(
            records.iter().filter(|record| record.name == *name).count(),
            1,
            "{name}"
        );
        assert!(reason.contains(' '), "{name}");
    }
}

fn plain(world: &World) -> Environment {
    let prefix = world.path("root/envs/plain/conda-meta");
    fs::create_dir_all(prefix).expect("a directory");
    let bin = world.path("root/envs/plain/bin");
    fs::create_dir_all(&bin).expect("a directory");
    Environment::from([
        ("PATH".into(), "/usr/bin:/bin".into()),
        ("HOME".into(), world.path("home").into()),
    ])
}

/// Writes a program with another process. A program that a parallel test starts would briefly inherit a descriptor of
/// this file that is open for writing, and then it cannot be executed (`ETXTBSY`, execve(2)).
fn write_program(path: &Path, text: &str, mode: u32) {
    fs::create_dir_all(path.parent().expect("a file is in a directory")).expect("a directory");
    let mut shell = Command::new("sh")
        .args(["-euc", "cat >\"$0\"; chmod \"$1\" \"$0\""])
        .arg(path)
        .arg(format!("{mode:o}"))
        .stdin(Stdio::piped())
        .spawn()
        .expect("sh runs");
    let mut stdin = shell.stdin.take().expect("it is a pipe");
    stdin.write_all(text.as_bytes()).expect("sh reads it");
    drop(stdin);
    assert!(shell.wait().expect("sh is our child").success());
}

#[test]
fn the_command_is_looked_up_along_the_new_path_with_and_without_scripts() {
    for has_script in [false, true] {
        let world = World::new();
        let before = plain(&world);
        write_program(
            &world.path("root/envs/plain/bin/only-here"),
            "#!/bin/sh\necho \"$CONDA_PREFIX|$1\"\nexit 5\n",
            0o755,
        );
        if has_script {
            write_program(
                &world.path("root/envs/plain/etc/conda/activate.d/a.sh"),
                "true\n",
                0o644,
            );
        }
        let output = world.run("plain", &before, &["only-here", "an argument"]);
        assert_eq!(output.status.code(), Some(5), "{has_script}");
        let expected = format!("{}|an argument\n", world.path("root/envs/plain").display());
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            expected,
            "{has_script}"
        );
    }
}

#[test]
fn a_command_that_is_not_there_is_127_and_one_that_cannot_run_126() {
    for has_script in [false, true] {
        let world = World::new();
        let before = plain(&world);
        write_program(
            &world.path("root/envs/plain/bin/not-executable"),
            "#!/bin/sh\n",
            0o644,
        );
        if has_script {
            write_program(
                &world.path("root/envs/plain/etc/conda/activate.d/a.sh"),
                "true\n",
                0o644,
            );
        }
        let missing = world.run("plain", &before, &["no-such-command"]);
        assert_eq!(missing.status.code(), Some(127), "{has_script}");
        assert!(
            String::from_utf8_lossy(&missing.stderr).contains("no-such-command"),
            "{has_script}"
        );
        let path = world.path("root/envs/plain/bin/not-executable");
        let refused = world.run("plain", &before, &[path.to_str().expect("UTF-8")]);
        assert_eq!(refused.status.code(), Some(126), "{has_script}");
        let option = world.run("plain", &before, &["-x"]);
        assert_eq!(option.status.code(), Some(127), "{has_script}");
    }
}

#[test]
fn a_script_that_removes_the_trap_and_exits_is_named_and_no_success() {
    let world = World::new();
    let before = plain(&world);
    let script = world.path("root/envs/plain/etc/conda/activate.d/a.sh");
    write_program(&script, "trap - EXIT; exit 0\n", 0o644);
    let output = world.run("plain", &before, &["echo", "reached"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let expected = format!(
        "error: the activation script `{}` ended its shell",
        script.display()
    );
    assert!(said.contains(&expected), "{said}");
    assert_eq!(
        (output.status.code(), output.stdout),
        (Some(78), vec![]),
        "{said}"
    );
}

#[test]
fn the_command_is_the_same_process_and_keeps_what_scripts_did_to_it() {
    let world = World::new();
    let before = plain(&world);
    let script = "umask 027; cd /usr; echo $$\n";
    write_program(
        &world.path("root/envs/plain/etc/conda/activate.d/a.sh"),
        script,
        0o644,
    );
    let output = world.run("plain", &before, &["/bin/sh", "-c", "echo $$; umask; pwd"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    let [of_script, of_command, umask, directory] = lines[..] else {
        panic!("{text}")
    };
    assert_eq!(of_script, of_command);
    assert_eq!((umask, directory), ("0027", "/usr"));
}

#[test]
fn without_an_option_for_the_environment_the_root_itself_is_activated() {
    let world = World::new();
    let output = Command::new(env!("CARGO_BIN_EXE_buildbot-conda"))
        .args(["run", "--conda-root"])
        .arg(world.path("root"))
        .args(["--", "/usr/bin/printenv", "CONDA_DEFAULT_ENV"])
        .env_clear()
        .env("HOME", world.path("home"))
        .env("PATH", "/usr/bin:/bin")
        .output()
        .expect("the program is built");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "base\n");
}

#[test]
fn a_call_without_a_command_is_a_usage_error() {
    let output = Command::new(env!("CARGO_BIN_EXE_buildbot-conda"))
        .arg("run")
        .output()
        .expect("the program is built");
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
}

/// `run` with the configuration of this world, and what it prints.
fn run_configured(world: &World, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_buildbot-conda"))
        .arg("--root")
        .arg(world.path("system"))
        .arg("run")
        .args(arguments)
        .args(["--", "/bin/sh", "-c", "echo \"$CONDA_DEFAULT_ENV|$A|$B\""])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("CONDA_ENVS_DIRS", world.path("else"))
        .output()
        .expect("the program is built")
}

/// The output of `env` for the variables with this prefix, in any case.
fn variables(output: &Output, start: &str) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    let of_them = |line: &&str| line.to_lowercase().starts_with(start);
    let mut found: Vec<String> = text.lines().filter(of_them).map(str::to_owned).collect();
    found.sort();
    found
}

#[test]
fn condarc_counts_for_an_instance_as_far_as_its_service_sees_it() {
    let world = World::new();
    fs::create_dir_all(world.path("root/envs/plain/conda-meta")).expect("a directory");
    fs::create_dir_all(world.path("system/etc/buildbot-conda")).expect("a directory");
    fs::create_dir_all(world.path("system/etc/conda")).expect("a directory");
    let state = r#"{"env_vars": {"http_proxy": "p"}}"#;
    fs::write(world.path("root/envs/plain/conda-meta/state"), state).expect("a file");
    write_program(
        &world.path("root/envs/plain/etc/conda/activate.d/a.sh"),
        "export http_seen_as=$2\n",
        0o644,
    );
    let configuration = format!(
        "[defaults]\nconda-root = \"{}\"\nconda-env = \"plain\"\n[master]\n\
         [worker]\nhardening = \"strict\"\n",
        world.path("root").display()
    );
    let file = world.path("system/etc/buildbot-conda/config.toml");
    fs::write(file, configuration).expect("a file");
    let run = |words: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_buildbot-conda"))
            .arg("--root")
            .arg(world.path("system"))
            .arg("run")
            .args(words)
            .args(["--", "/usr/bin/env"])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", "/home/nobody-has-this")
            .env("CONDARC", world.path("home/.condarc"))
            .output()
            .expect("the program is built")
    };
    let seen = |output: &Output| variables(output, "http_");
    assert_eq!(
        seen(&run(&["master"])),
        ["HTTP_PROXY=p", "http_seen_as=plain"]
    );
    let lower = "envvars_force_uppercase: false\n";
    fs::write(world.path("system/etc/conda/condarc"), lower).expect("a file");
    for words in [&["master"][..], &["worker"], &[]] {
        let found = seen(&run(words));
        assert_eq!(found, ["http_proxy=p", "http_seen_as=plain"], "{words:?}");
    }
    // Not relevant for a service, and variables that cannot be read by name.
    fs::write(world.path("home/.condarc"), "envs_dirs: [\n").expect("a file");
    assert_eq!(run(&["master"]).status.code(), Some(0));
    assert_eq!(run(&["--env", "plain", "master"]).status.code(), Some(1));
}

#[test]
fn the_configuration_says_which_environment_is_meant_and_what_is_set_afterwards() {
    let world = World::new();
    for directory in [
        "root/envs/plain/conda-meta",
        "root/envs/cuda/conda-meta",
        "root/envs/bare",
        // As conda resolves names, this one would come first; the configuration is not conda's.
        "else/plain/conda-meta",
        "system/etc/buildbot-conda",
    ] {
        fs::create_dir_all(world.path(directory)).expect("a directory");
    }
    write_program(
        &world.path("root/envs/cuda/etc/conda/activate.d/a.sh"),
        "export A=script B=script\n",
        0o644,
    );
    let configuration = format!(
        "[defaults]\nconda-root = \"{}\"\nconda-env = \"plain\"\n\
         [master]\nenvironment = {{ A = \"master\" }}\n\
         [worker]\nconda-env = \"cuda\"\nenvironment = {{ A = \"worker\" }}\n\
         [\"worker@bare\"]\nconda-env = \"bare\"\ndirectory = \"/srv/bare\"\n",
        world.path("root").display()
    );
    let file = world.path("system/etc/buildbot-conda/config.toml");
    fs::write(&file, configuration).expect("a file");
    let elsewhere = world
        .path("root")
        .into_os_string()
        .into_string()
        .expect("UTF-8");
    for (arguments, expected) in [
        (&[][..], "plain||"),
        (&["master"], "plain|master|"),
        (&["worker"], "cuda|worker|script"),
        (&["--env", "base", "master"], "base|master|"),
        (&["--conda-root", &elsewhere, "master"], "base|master|"),
        (&["--conda-root", &elsewhere], "base||"),
    ] {
        let output = run_configured(&world, arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            String::from_utf8_lossy(&output.stdout).trim_end(),
            expected,
            "{arguments:?}: {stderr}"
        );
    }
    let bare = run_configured(&world, &["worker@bare"]);
    assert_eq!(bare.status.code(), Some(1));
    fs::write(&file, "[defaults\n").expect("a file");
    let broken = run_configured(&world, &["master"]);
    assert_eq!((broken.status.code(), broken.stdout.len()), (Some(78), 0));
    let unused = run_configured(&world, &["--conda-root", &elsewhere]);
    assert_eq!(unused.status.code(), Some(0));
}
