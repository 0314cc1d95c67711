//! `cargo xtask deb`: from the source tree to one .deb, deterministically.
//!
//! It owns the order of the steps and the build's environment. What the package contains is said in
//! `crates/cli/Cargo.toml` and `debian/`, what the units contain in `buildbot_conda_core::unit`.

mod command;
mod compiled;
mod copyright;
mod documents;
mod environments;
mod libc;
mod libraries;
mod repack;
mod sbom;
mod target;
mod templates;
mod tools;

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};

use crate::prerequisites;
pub(crate) use command::{output, run_on_stderr};
use compiled::Compiled;
pub(crate) use environments::{
    build as build_environments, build_for as build_environments_for, check as check_environments,
    clippy,
};
pub(crate) use target::Target;
pub(crate) use tools::{CARGO_DEB_VERSION, directory as cargo_deb_directory};

/// Below the target directory: a separate build directory, because its flags differ from a developer's builds, and both
/// would otherwise rebuild everything each time.
const BUILD_DIRECTORY: &str = "package";

/// The crates whose binaries are packed, in the order of [`PROGRAMS`].
const PACKED_CRATES: [&str; 3] = [
    "buildbot-conda-cli",
    "buildbot-conda-launcher",
    "buildbot-conda-generator",
];

/// What these binaries are called.
pub(crate) const PROGRAMS: [&str; 3] = [
    "buildbot-conda",
    "buildbot-conda-launcher",
    "buildbot-conda-generator",
];

/// For `reproduce`, which builds a copy of the sources.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Build the sources in this directory instead of the workspace's
    #[arg(long, value_name = "DIR", hide = true)]
    source: Option<PathBuf>,
    /// Take over the programs that are in this directory, and compile only the others
    #[arg(long, value_name = "DIR", hide = true)]
    programs: Option<PathBuf>,
    /// Build the package `buildbot-conda-env`, which makes environments
    #[arg(long, conflicts_with = "programs")]
    env: bool,
    /// Build for another kind of machine, such as `aarch64-unknown-linux-gnu`, with Debian's cross compiler
    #[arg(long, value_name = "TRIPLE")]
    target: Option<Target>,
}

/// Build the package and print its path on stdout; everything else goes to stderr.
///
/// # Errors
///
/// As [`build`].
pub(crate) fn run(workspace: &Path, arguments: &Arguments) -> Result<()> {
    let source = arguments.source.as_deref().unwrap_or(workspace);
    let target = arguments.target.unwrap_or_default();
    let package = if arguments.env {
        environments::build_for(target, source)?
    } else {
        build_with(source, target, arguments.programs.as_deref())?
    };
    writeln!(std::io::stdout(), "{}", package.display()).context("print the package's path")
}

/// Build the package of the workspace at `workspace` (an absolute path) and return the absolute path of the .deb in
/// `target/debian/`. Nothing is written to stdout.
///
/// # Errors
///
/// When a tool is missing and cannot be installed, the versions in `Cargo.toml` and `debian/changelog` differ, or a
/// step fails.
pub(crate) fn build(workspace: &Path) -> Result<PathBuf> {
    build_for(Target::Here, workspace)
}

/// As [`build`], for machines of another kind.
pub(crate) fn build_for(target: Target, workspace: &Path) -> Result<PathBuf> {
    build_with(workspace, target, None)
}

/// As [`build_for`], with the programs that are in `programs` taken over instead of compiled.
fn build_with(workspace: &Path, target: Target, programs: Option<&Path>) -> Result<PathBuf> {
    prepare(workspace, target)?;
    let epoch = source_date_epoch(workspace)?;

    let release = release_directory(workspace, target);
    write_units(&release.join("units"))?;
    let cargo_deb = beside_cargo_deb(|| compile(workspace, target, &epoch, programs))?;
    documents::write(workspace, target, &release, &epoch)?;
    let linked = libraries::linked(workspace, target, &PACKED_CRATES)?;
    let copyright = release.join("copyright");
    copyright::write(workspace, &linked.libraries, &["copyright"], &copyright)?;
    sbom::write(PROGRAMS[0], &linked, &release.join("sbom.cdx.json"))?;
    pack(workspace, target, &cargo_deb, PACKED_CRATES[0], &epoch)
}

/// Compile what is packed, and return the directory of the programs.
///
/// # Errors
///
/// As [`build`].
pub(crate) fn programs(workspace: &Path) -> Result<PathBuf> {
    let target = Target::Here;
    prepare(workspace, target)?;
    compile(workspace, target, &source_date_epoch(workspace)?, None)?;
    Ok(release_directory(workspace, target))
}

/// Sees to what every build needs.
fn prepare(workspace: &Path, target: Target) -> Result<()> {
    prerequisites::for_package(target)?;
    target.install(workspace)?;
    ensure_versions_agree(workspace)
}

/// Compile, and meanwhile install cargo-deb where it is not there yet; a linker keeps one processor busy at most.
fn beside_cargo_deb(compile: impl FnOnce() -> Result<()>) -> Result<PathBuf> {
    thread::scope(|scope| {
        let installed = scope.spawn(tools::cargo_deb);
        let compiled = compile();
        let cargo_deb = installed.join().expect("installing does not panic")?;
        compiled.map(|()| cargo_deb)
    })
}

/// Pack the compiled program of `packed_crate` as its manifest says, and return the path of the .deb.
fn pack(
    workspace: &Path,
    target: Target,
    cargo_deb: &Path,
    packed_crate: &str,
    epoch: &str,
) -> Result<PathBuf> {
    let build_directory = build_directory(workspace);
    let packages = workspace.join("target/debian");
    create_directory(&packages)?;
    let scratch = tempfile::Builder::new()
        .prefix("deb-")
        .tempdir_in(&build_directory)
        .context("create a scratch directory")?;
    let raw = scratch.path().join("raw.deb");
    run_on_stderr(
        reproducible(Command::new(cargo_deb), epoch)
            .current_dir(workspace)
            .env("CARGO_TARGET_DIR", &build_directory)
            .args(target.arguments())
            .args([
                "--no-build",
                "--locked",
                "--package",
                packed_crate,
                "--output",
            ])
            .arg(&raw),
    )?;
    let finished = repack::finish(workspace, target, &raw, scratch.path(), epoch)?;

    let name = package_name(&finished)?;
    let package = packages.join(name);
    fs::rename(&finished, &package)
        .with_context(|| format!("move the package to `{}`", package.display()))?;
    Ok(package)
}

/// Where the packages of the workspace are compiled.
fn build_directory(workspace: &Path) -> PathBuf {
    workspace.join("target").join(BUILD_DIRECTORY)
}

/// The directory with the compiled programs of the package and all other files that cargo-deb must find.
pub(crate) fn release_directory(workspace: &Path, target: Target) -> PathBuf {
    target
        .directory(&build_directory(workspace))
        .join("release")
}

/// The variables on which the package's bytes may depend, with the values that they have for every build.
///
/// # Errors
///
/// When the changelog cannot be read.
pub(crate) fn environment(workspace: &Path) -> Result<[(&'static str, String); 3]> {
    Ok(variables(&source_date_epoch(workspace)?))
}

fn variables(epoch: &str) -> [(&'static str, String); 3] {
    [
        ("LC_ALL", "C.UTF-8".to_owned()),
        ("SOURCE_DATE_EPOCH", epoch.to_owned()),
        ("TZ", "UTC".to_owned()),
    ]
}

/// Give `command` the environment on which its output may depend.
fn reproducible(mut command: Command, epoch: &str) -> Command {
    command.envs(variables(epoch));
    // gettext prefers it to LC_ALL.
    command.env_remove("LANGUAGE");
    command
}

/// The build date in seconds since 1970: the caller's `SOURCE_DATE_EPOCH`, or else the date of the newest changelog
/// entry, which a source archive without history contains as well.
fn source_date_epoch(workspace: &Path) -> Result<String> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(epoch) if epoch.parse::<u64>().is_ok() => Ok(epoch),
        Ok(epoch) => bail!("`SOURCE_DATE_EPOCH` is `{epoch}`, not a number of seconds"),
        Err(_) => changelog_field(workspace, "Timestamp"),
    }
}

fn ensure_versions_agree(workspace: &Path) -> Result<()> {
    let changelog = changelog_field(workspace, "Version")?;
    let cargo = env!("CARGO_PKG_VERSION");
    ensure!(
        changelog == cargo,
        "the version is {cargo} in `Cargo.toml`, but {changelog} in `debian/changelog`\nhint: set both to the same version"
    );
    Ok(())
}

fn changelog_field(workspace: &Path, field: &str) -> Result<String> {
    output(
        Command::new("dpkg-parsechangelog")
            .arg("--file")
            .arg(workspace.join("debian/changelog"))
            .args(["--show-field", field]),
    )
}

/// Write the unit files under the names they ship with. They lie among the build products, since that is where
/// cargo-deb looks for the assets `target/release/...` wherever the build directory is.
fn write_units(directory: &Path) -> Result<()> {
    create_directory(directory)?;
    for unit in buildbot_conda_core::unit::files() {
        let path = directory.join(&unit.name);
        fs::write(&path, unit.text).with_context(|| format!("write `{}`", path.display()))?;
    }
    Ok(())
}

/// Compile what is packed. Paths of the build machine are mapped to fixed ones, or panic messages would carry them.
fn compile(workspace: &Path, target: Target, epoch: &str, programs: Option<&Path>) -> Result<()> {
    let compiled = Compiled::hold(workspace, target, "release")?;
    for (packed_crate, program) in PACKED_CRATES.into_iter().zip(PROGRAMS) {
        if let Some(finished) = programs.map(|directory| directory.join(program))
            && finished.is_file()
        {
            let place = release_directory(workspace, target).join(program);
            fs::copy(&finished, &place)
                .with_context(|| format!("copy `{}`", finished.display()))?;
            continue;
        }
        // One at a time, so that features that only the command line needs stay out of launcher and generator.
        run_on_stderr(&mut cargo_for(
            workspace,
            target,
            &compiled,
            epoch,
            &["build", "--release", "--package", packed_crate],
        )?)?;
    }
    Ok(())
}

/// cargo in the build directory of the packages, with nothing in its environment but what every build has.
fn cargo_for(
    workspace: &Path,
    target: Target,
    compiled: &Compiled,
    epoch: &str,
    words: &[impl AsRef<OsStr>],
) -> Result<Command> {
    let mut command = without_own_settings(reproducible(Command::new(cargo()), epoch));
    command
        .current_dir(workspace)
        .env("CARGO_ENCODED_RUSTFLAGS", remap_flags(workspace, compiled)?)
        .env("CARGO_BUILD_BUILD_DIR", compiled.path())
        .envs(target.variables().iter().copied())
        .args(words)
        .args(target.arguments())
        .args(["--locked", "--target-dir"])
        .arg(build_directory(workspace));
    Ok(command)
}

/// Removes from cargo's environment everything with which a developer may have changed builds, so that it cannot change
/// the package: profiles, flags, linkers, wrappers, C compilers. The location of cargo's files and the number of jobs
/// are kept.
fn without_own_settings(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let is_kept = matches!(
            text.as_ref(),
            "CARGO" | "CARGO_HOME" | "CARGO_BUILD_JOBS" | "CARGO_HTTP_CAINFO"
        ) || text.starts_with("CARGO_NET_")
            || text.starts_with("CARGO_TERM_")
            || text.starts_with("CARGO_REGISTR");
        let is_foreign = ["CARGO_", "CC_", "CFLAGS_", "AR_"]
            .iter()
            .any(|start| text.starts_with(start))
            || matches!(
                text.as_ref(),
                "RUSTFLAGS"
                    | "RUSTC_WRAPPER"
                    | "RUSTC_WORKSPACE_WRAPPER"
                    | "RUSTC_BOOTSTRAP"
                    | "CC"
                    | "CFLAGS"
                    | "AR"
            );
        if is_foreign && !is_kept {
            command.env_remove(&name);
        }
    }
    command
}

/// `--remap-path-prefix` for the locations of source code, joined as `CARGO_ENCODED_RUSTFLAGS` expects. Those of the
/// project itself are relative. Its directory must not be included, because everything would then be compiled again for
/// each clone.
fn remap_flags(workspace: &Path, compiled: &Compiled) -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let sysroot = output(
        Command::new(&rustc)
            .args(["--print", "sysroot"])
            .current_dir(workspace),
    )?;
    let version = compiler(workspace)?;
    let commit = version
        .lines()
        .find_map(|line| line.strip_prefix("commit-hash: "))
        .context("find `commit-hash` in the output of `rustc -vV`")?;
    let cargo_home = cargo_home()?;
    let remaps = [
        (compiled.path().display().to_string(), "/build".to_owned()),
        (cargo_home.display().to_string(), "/cargo".to_owned()),
        // Where the component rust-src is installed, rustc uses its files in place of the recorded paths.
        (
            format!("{sysroot}/lib/rustlib/src/rust"),
            format!("/rustc/{commit}"),
        ),
    ];
    let flags: Vec<String> = remaps
        .iter()
        .map(|(from, to)| format!("--remap-path-prefix={from}={to}"))
        .collect();
    Ok(flags.join("\u{1f}"))
}

/// The version information of the compiler.
fn compiler(workspace: &Path) -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    output(Command::new(rustc).arg("-vV").current_dir(workspace))
}

/// Where cargo keeps the sources of dependencies.
pub(crate) fn cargo_home() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("CARGO_HOME").filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    let home = std::env::var_os("HOME").context("find `HOME` in the environment")?;
    Ok(Path::new(&home).join(".cargo"))
}

/// The cargo that runs this program, else the one on `PATH`.
fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// The file name that Debian gives a package: `NAME_VERSION_ARCHITECTURE.deb`.
fn package_name(package: &Path) -> Result<String> {
    let fields = output(
        Command::new("dpkg-deb")
            .arg("--show")
            .arg("--showformat=${Package}_${Version}_${Architecture}.deb")
            .arg(package),
    )?;
    Ok(fields)
}

pub(crate) fn create_directory(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("create the directory `{}`", path.display()))
}
