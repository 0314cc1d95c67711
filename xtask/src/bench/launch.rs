//! `bench launch`: compares the launcher with the cheapest program that does the same, and with the wrapper script that
//! it replaces; also the generator at boot, and sizes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use tempfile::TempDir;

use super::LaunchArguments;
use super::measure::{self, Contender, Figures};
use crate::deb;

/// What every contender becomes: a small C program that does nothing.
const PROGRAM: &str = "/bin/true";
/// The inherited `PATH` of a service.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Instances of the generator's large configuration.
const MANY: usize = 1000;

#[derive(Serialize)]
struct Report {
    times: Vec<Figures>,
    sizes: Vec<Size>,
}

/// A stripped binary.
#[derive(Serialize)]
struct Size {
    name: &'static str,
    bytes: u64,
    /// Most bytes that are wanted.
    wanted: Option<u64>,
}

pub(super) fn run(workspace: &Path, arguments: &LaunchArguments) -> Result<()> {
    let scratch = tempfile::tempdir().context("create a scratch directory")?;
    let binaries = Binaries::build(workspace, scratch.path())?;
    // Generators write to a file system in memory, which a disk cannot replace here.
    let memory =
        tempfile::tempdir_in("/dev/shm").context("create a scratch directory in memory")?;
    let contenders = contenders(&binaries, &scratch, &memory, arguments.conda.as_deref())?;
    let times = measure::compete(contenders, arguments.runs)?;
    let report = Report {
        times,
        sizes: binaries.sizes()?,
    };
    let text = if arguments.json {
        serde_json::to_string_pretty(&report).context("write JSON")? + "\n"
    } else {
        let mut text = measure::table(&report.times);
        for Size {
            name,
            bytes,
            wanted,
        } in &report.sizes
        {
            let wanted =
                wanted.map_or_else(String::new, |most| format!(" (wanted: at most {most})"));
            write!(text, "\n{name}, stripped: {bytes} bytes{wanted}")?;
        }
        text + "\n"
    };
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("write to standard output")
}

/// Release binaries, stripped as in the package.
pub(super) struct Binaries {
    pub(super) launcher: PathBuf,
    generator: PathBuf,
    pub(super) cli: PathBuf,
}

impl Binaries {
    /// The very programs that are packed: an earlier `xtask deb` has compiled them already, and with other features the
    /// launcher would be another one.
    pub(super) fn build(workspace: &Path, scratch: &Path) -> Result<Self> {
        let programs = deb::programs(workspace)?;
        let stripped = |name: &str| -> Result<PathBuf> {
            let from = programs.join(name);
            let to = scratch.join(name);
            let status = Command::new("strip")
                .args(["--strip-unneeded", "-o"])
                .args([&to, &from])
                .status()
                .context("run strip")?;
            ensure!(status.success(), "strip failed on `{}`", from.display());
            Ok(to)
        };
        Ok(Self {
            launcher: stripped("buildbot-conda-launcher")?,
            generator: stripped("buildbot-conda-generator")?,
            cli: stripped("buildbot-conda")?,
        })
    }

    fn sizes(&self) -> Result<Vec<Size>> {
        let size = |name, path: &Path, wanted| -> Result<Size> {
            let bytes = fs::metadata(path)
                .with_context(|| format!("examine `{}`", path.display()))?
                .len();
            Ok(Size {
                name,
                bytes,
                wanted,
            })
        };
        Ok(vec![
            size("launcher", &self.launcher, Some(768 << 10))?,
            size("generator", &self.generator, None)?,
            size("buildbot-conda", &self.cli, None)?,
        ])
    }
}

fn contenders(
    binaries: &Binaries,
    scratch: &TempDir,
    memory: &TempDir,
    conda: Option<&Path>,
) -> Result<Vec<Contender>> {
    let plain = host(&scratch.path().join("plain"), false)?;
    let scripts = host(&scratch.path().join("scripts"), true)?;
    let empty = generator_host(&memory.path().join("empty"), 0)?;
    let many = generator_host(&memory.path().join("many"), MANY)?;
    let mut list = vec![
        contender(
            "env -i VAR=... true",
            bare_exec(&binaries.launcher, &plain)?,
            None,
            None,
        ),
        contender(
            "launcher",
            launcher(&binaries.launcher, &plain),
            Some(0),
            Some(1.4),
        ),
        contender(
            "bash that sources one script, exec true",
            bare_bash(&scripts),
            Some(0),
            None,
        ),
        contender(
            "launcher with one activate.d script",
            launcher(&binaries.launcher, &scripts),
            Some(2),
            None,
        ),
        contender(
            "buildbot-conda run -- true",
            cli_run(&binaries.cli, &plain),
            Some(0),
            Some(2.5),
        ),
        contender(
            "generator, nothing configured",
            generator(&binaries.generator, &empty),
            Some(0),
            None,
        ),
        contender(
            &format!("generator, {MANY} instances"),
            generator(&binaries.generator, &many),
            None,
            None,
        ),
    ];
    if let Some(conda) = conda {
        let index = list.len();
        list.push(contender(
            "wrapper: bash, source activate, exec true",
            wrapper(conda),
            None,
            None,
        ));
        list.push(contender(
            "launcher again",
            launcher(&binaries.launcher, &plain),
            Some(index),
            Some(0.01),
        ));
    }
    Ok(list)
}

fn contender(
    name: &str,
    command: Command,
    against: Option<usize>,
    wanted: Option<f64>,
) -> Contender {
    Contender {
        name: name.to_owned(),
        command,
        against,
        wanted,
    }
}

/// A root directory with one master whose interpreter is [`PROGRAM`].
pub(super) fn host(root: &Path, scripts: bool) -> Result<PathBuf> {
    let prefix = root.join("conda/envs/buildbot");
    let make = || -> std::io::Result<()> {
        fs::create_dir_all(prefix.join("bin"))?;
        fs::create_dir_all(prefix.join("conda-meta"))?;
        symlink(PROGRAM, prefix.join("bin/python"))?;
        fs::write(prefix.join("bin/buildbot"), "")?;
        fs::write(prefix.join("conda-meta/history"), "")?;
        fs::write(
            prefix.join("conda-meta/state"),
            r#"{"env_vars": {"ONE": "1", "TWO": "2"}}"#,
        )?;
        fs::create_dir_all(root.join("conda/bin"))?;
        fs::write(root.join("conda/bin/conda"), "")?;
        fs::create_dir_all(root.join("master"))?;
        fs::write(root.join("master/buildbot.tac"), "")?;
        if scripts {
            fs::create_dir_all(prefix.join("etc/conda/activate.d"))?;
            fs::write(script(root), "export SOURCED=1\n")?;
        }
        fs::create_dir_all(root.join("etc/buildbot-conda"))?;
        fs::write(
            root.join("etc/buildbot-conda/config.toml"),
            format!(
                "[defaults]\nconda-root = '{root}/conda'\n[master]\ndirectory = '{root}/master'\n",
                root = root.display()
            ),
        )
    };
    make().with_context(|| format!("set up `{}`", root.display()))?;
    Ok(root.to_owned())
}

fn script(root: &Path) -> PathBuf {
    root.join("conda/envs/buildbot/etc/conda/activate.d/a.sh")
}

/// As a unit starts it.
fn in_a_service(program: impl Into<OsString>) -> Command {
    let mut command = Command::new(program.into());
    command
        .env_clear()
        .env("PATH", PATH)
        .env("LANG", "C.UTF-8")
        .env("HOME", "/home/bb");
    command
}

fn launcher(launcher: &Path, root: &Path) -> Command {
    let mut command = in_a_service(launcher);
    command.arg("--root").arg(root).arg("master");
    command
}

pub(super) fn cli_run(cli: &Path, root: &Path) -> Command {
    let mut command = in_a_service(cli);
    command
        .arg("--root")
        .arg(root)
        .args(["run", "master", "--", PROGRAM]);
    command
}

/// The same program with the same environment, from a C program that does nothing else.
pub(super) fn bare_exec(launcher_binary: &Path, root: &Path) -> Result<Command> {
    let interpreter = root.join("conda/envs/buildbot/bin/python");
    // What the launcher sets is asked of the launcher, with `env` for an interpreter.
    fs::remove_file(&interpreter)?;
    fs::write(&interpreter, "#!/bin/sh\nexec /usr/bin/env -0\n")?;
    fs::set_permissions(
        &interpreter,
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )?;
    let output = launcher(launcher_binary, root)
        .output()
        .context("run the launcher")?;
    fs::remove_file(&interpreter)?;
    symlink(PROGRAM, &interpreter)?;
    ensure!(
        output.status.success(),
        "the launcher failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).context("read the launcher's environment")?;
    let variables: BTreeMap<&str, &str> = text
        .split('\0')
        .filter_map(|variable| variable.split_once('='))
        // The shell of the question sets these.
        .filter(|(name, _)| !["PWD", "OLDPWD", "_", "SHLVL"].contains(name))
        .collect();
    ensure!(
        variables.contains_key("CONDA_PREFIX"),
        "the launcher did not activate the environment: {text:?}"
    );
    let mut command = in_a_service("/usr/bin/env");
    command.arg("-i");
    command.args(
        variables
            .iter()
            .map(|(name, value)| format!("{name}={value}")),
    );
    command.arg(&interpreter);
    command.args(["runner.py", "master", "/home/bb/master"]);
    Ok(command)
}

/// What sourcing one script costs at least.
fn bare_bash(root: &Path) -> Command {
    let mut command = in_a_service("/bin/bash");
    command.args([
        "--norc",
        "--noprofile",
        "-c",
        ". \"$1\"; exec /bin/true",
        "bash",
    ]);
    command.arg(script(root));
    command
}

/// The script that people write manually.
fn wrapper(conda: &Path) -> Command {
    let mut command = in_a_service("/bin/bash");
    command.args([
        "-c",
        "source \"$1/bin/activate\" base; exec /bin/true",
        "bash",
    ]);
    command.arg(conda);
    command
}

pub(super) fn generator_host(root: &Path, instances: usize) -> Result<PathBuf> {
    let mut text = String::new();
    for number in 0..instances {
        write!(text, "['worker@w{number}']\ndirectory = '/srv/w{number}'\n")?;
    }
    let make = || -> std::io::Result<()> {
        fs::create_dir_all(root.join("normal"))?;
        fs::create_dir_all(root.join("etc/buildbot-conda"))?;
        fs::write(root.join("etc/buildbot-conda/config.toml"), text)
    };
    make().with_context(|| format!("set up `{}`", root.display()))?;
    Ok(root.to_owned())
}

fn generator(generator: &Path, root: &Path) -> Command {
    let mut command = in_a_service(generator);
    let normal = root.join("normal");
    command
        .arg("--root")
        .arg(root)
        .args([&normal, &normal, &normal]);
    command
}
