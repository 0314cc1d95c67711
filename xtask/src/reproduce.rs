//! `cargo xtask reproduce`: the same sources give the same bytes, regardless of account, place, time and method. Two
//! builds under different conditions are compared, and the information for a third one is written next to the package.

mod buildinfo;
mod conditions;
mod fresh_root;

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use buildbot_conda_machine::Release;

use crate::deb::{self, PROGRAMS, Target};
use crate::prerequisites;
use conditions::Elsewhere;

/// What to build besides the package itself.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Build a third time, in a Debian of this release that is made for it, from the newest commit
    #[arg(long, value_name = "RELEASE", conflicts_with_all = ["env", "target"])]
    fresh_root: Option<Release>,
    /// Build the package `buildbot-conda-env`
    #[arg(long)]
    env: bool,
    /// Build for another kind of machine, such as `aarch64-unknown-linux-gnu`
    #[arg(long, value_name = "TRIPLE")]
    target: Option<Target>,
}

/// Builds twice or three times, prints the checksums and writes the `.buildinfo`.
///
/// # Errors
///
/// When a build fails, or two of them differ; then with diffoscope's report.
pub(crate) fn run(workspace: &Path, arguments: &Arguments) -> Result<()> {
    let target = arguments.target.unwrap_or_default();
    prerequisites::for_reproduction()?;
    let package = if arguments.env {
        deb::build_environments_for(target, workspace)?
    } else {
        deb::build_for(target, workspace)?
    };
    let information = buildinfo::write(workspace, target, &package)?;
    let mut builds = vec![("here".to_owned(), checksum(&package)?)];

    let elsewhere = Elsewhere::new(workspace)?;
    let mut options: Vec<&OsStr> = target.arguments().map(OsStr::new).collect();
    options.extend(arguments.env.then_some(OsStr::new("--env")));
    let other = elsewhere.build(workspace, &options)?;
    builds.push((elsewhere.description(), checksum(&other)?));
    compare(&package, &other)?;
    drop(elsewhere);

    if let Some(release) = arguments.fresh_root {
        let root = fresh_root::FreshRoot::new(workspace, release)?;
        let third = root.build(&information)?;
        builds.push((format!("a fresh {release}"), checksum(&third)?));
        compare(&package, &third)?;
    }
    let mut out = std::io::stdout().lock();
    for (conditions, checksum) in &builds {
        writeln!(out, "{checksum}  {conditions}").context("print a checksum")?;
    }
    writeln!(out, "{}\n{}", package.display(), information.display()).context("print the paths")
}

/// The part of this that every test run can afford: `package` is packed again from the same sources under all the other
/// conditions. Of the three programs, only the smallest one is compiled again; compiler and linker treat it like the
/// others.
///
/// # Errors
///
/// If the build fails or the result differs from `package`.
pub(crate) fn check(workspace: &Path, package: &Path) -> Result<()> {
    prerequisites::for_reproduction()?;
    let elsewhere = Elsewhere::new(workspace)?;
    let compiled = PROGRAMS
        .into_iter()
        .filter(|program| *program != "buildbot-conda-launcher");
    let programs = elsewhere.take_over(workspace, compiled)?;
    let other = elsewhere.build(workspace, &["--programs".as_ref(), programs.as_os_str()])?;
    eprintln!("{}  {}", checksum(&other)?, elsewhere.description());
    compare(package, &other)
}

/// Fail with diffoscope's report unless both files have the same bytes.
fn compare(expected: &Path, found: &Path) -> Result<()> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("read `{}`", path.display()));
    if read(expected)? == read(found)? {
        return Ok(());
    }
    let status = Command::new("diffoscope")
        .args(["--text", "-", "--exclude-directory-metadata", "yes"])
        .args([expected, found])
        .stdout(std::io::stderr())
        .status()
        .context("start `diffoscope`")?;
    // It exits with 1 if there is a difference.
    ensure!(
        status.code() == Some(1),
        "compare the packages: diffoscope ended with {status}"
    );
    bail!(
        "`{}` and `{}` differ, see the report above",
        expected.display(),
        found.display()
    )
}

/// SHA-256 in hexadecimal digits.
fn checksum(path: &Path) -> Result<String> {
    digest("sha256sum", path)
}

/// The checksum of a file from `program`, one of coreutils' checksum programs.
fn digest(program: &str, path: &Path) -> Result<String> {
    let line = deb::output(Command::new(program).arg("--").arg(path))?;
    let digits = line.split_whitespace().next().unwrap_or_default();
    // For a name with special characters, the line starts with a backslash.
    Ok(digits.trim_start_matches('\\').to_owned())
}

/// The files of the sources, as git knows them and as they lie there: changes that are not committed count.
fn pack_sources(workspace: &Path, archive: &Path) -> Result<()> {
    let script = "git ls-files -z --cached --others --exclude-standard --deduplicate |
        while IFS= read -r -d '' file; do [ ! -e \"$file\" ] || printf '%s\\0' \"$file\"; done |
        tar --create --no-recursion --null --files-from=- --file=\"$0\"";
    deb::run_on_stderr(
        Command::new("bash")
            .args(["-euo", "pipefail", "-c", script])
            .arg(archive)
            .current_dir(workspace),
    )
}

/// The directory of the toolchain that builds, with `bin/cargo` in it.
fn toolchain(workspace: &Path) -> Result<PathBuf> {
    let sysroot = deb::output(
        Command::new("rustc")
            .args(["--print", "sysroot"])
            .current_dir(workspace),
    )?;
    let path = PathBuf::from(sysroot);
    ensure!(
        path.join("bin/cargo").is_file(),
        "the toolchain `{}` contains no cargo\nhint: install the toolchain with rustup",
        path.display()
    );
    Ok(path)
}
