//! The debconf templates as they are packed: `debian/templates`, where `_` marks what is translated, with every language
//! of `debian/po` merged into it. A translation that has fallen behind stops the build: debconf would show a mixture of
//! languages.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::command::{output, run_on_stderr};
use super::reproducible;

/// How to repair what is refused here.
const HINT: &str = "run `debconf-updatepo` and translate what is missing";

/// Write the merged templates of the workspace to `target`, a file that exists; `scratch` is an empty directory.
///
/// # Errors
///
/// When a translation is incomplete, fuzzy or malformed, or `templates.pot` is not what the templates give.
pub(super) fn merge(workspace: &Path, scratch: &Path, target: &Path, epoch: &str) -> Result<()> {
    let debian = workspace.join("debian");
    ensure_extracted(&debian, scratch, epoch)?;
    let pot = debian.join("po/templates.pot");
    for translation in translations(&debian.join("po"))? {
        ensure_complete(&translation, &pot)?;
    }
    let merged = output(
        // It finds nothing below a directory with a blank in its name, so it gets only relative names.
        reproducible(Command::new("po2debconf"), epoch)
            .current_dir(&debian)
            .args(["--encoding=utf8", "templates"]),
    )?;
    fs::write(target, merged + "\n").with_context(|| format!("write `{}`", target.display()))
}

/// The translations, in the order of their names.
fn translations(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory)
        .and_then(Iterator::collect::<std::io::Result<Vec<_>>>)
        .with_context(|| format!("read the directory `{}`", directory.display()))?;
    let mut paths: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).collect();
    paths.retain(|path| path.extension() == Some(OsStr::new("po")));
    paths.sort();
    Ok(paths)
}

/// Fails unless `templates.pot` has the texts of the templates: extracts them once more, in a copy.
fn ensure_extracted(debian: &Path, scratch: &Path, epoch: &str) -> Result<()> {
    let po = scratch.join("po");
    fs::create_dir(&po).with_context(|| format!("create the directory `{}`", po.display()))?;
    for name in ["templates", "po/POTFILES.in"] {
        fs::copy(debian.join(name), scratch.join(name))
            .with_context(|| format!("copy `{}`", debian.join(name).display()))?;
    }
    run_on_stderr(
        reproducible(Command::new("debconf-updatepo"), epoch)
            .current_dir(scratch)
            .args(["--skip-merge", "--podir=po"]),
    )?;
    let kept = debian.join("po/templates.pot");
    ensure!(
        texts(&kept)? == texts(&po.join("templates.pot"))?,
        "`{}` does not fit `debian/templates`\nhint: {HINT}",
        kept.display()
    );
    Ok(())
}

/// A catalogue without its header, which has the date of its making.
fn texts(catalogue: &Path) -> Result<String> {
    let text =
        fs::read_to_string(catalogue).with_context(|| format!("read `{}`", catalogue.display()))?;
    let lines = text.lines().skip_while(|line| !line.is_empty());
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

/// Fails unless the translation is well-formed and has every text, none of them fuzzy.
fn ensure_complete(translation: &Path, pot: &Path) -> Result<()> {
    run_on_stderr(
        Command::new("msgfmt")
            .args(["--check", "--output-file=/dev/null"])
            .arg(translation),
    )?;
    run_on_stderr(Command::new("msgcmp").arg(translation).arg(pot))
        .with_context(|| format!("read `{}`\nhint: {HINT}", translation.display()))
}
