//! Manual pages and completions of the package. The packed program generates the pages of the command and its verbs, so
//! that they always match it; `docs/man/` contains the pages of units, programs and files, and `docs/man/sections/` the
//! text after the generated part of a page.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::command::{output, run_on_stderr};
use super::{Target, create_directory, reproducible};

/// Where cargo-deb looks for the completions of a shell, and what the shell is called.
const SHELLS: [&str; 3] = ["bash", "fish", "zsh"];

/// Write compressed pages to `release/man/` and completions to `release/completions/`; the compiled command is in `release`.
pub(super) fn write(workspace: &Path, target: Target, release: &Path, epoch: &str) -> Result<()> {
    let program = || reproducible(target.call(&release.join("buildbot-conda")), epoch);
    let pages = emptied(&release.join("man"))?;
    let date = date_of(epoch)?;
    run_on_stderr(program().arg("manual").arg(&pages).args(["--date", &date]))?;
    let sources = workspace.join("docs/man");
    for page in files(&pages)? {
        let name = page.file_name().unwrap_or_default();
        let sections = sources.join("sections").join(name);
        let written = if sections.is_file() {
            read(&sections)?
        } else {
            "\n.SH SEE ALSO\n.BR buildbot\\-conda (1)\n".to_owned()
        };
        let generated = without_repetition(&read(&page)?);
        store(&page, &(generated + written.trim_start()))?;
    }
    for sections in files(&sources.join("sections"))? {
        let name = sections.file_name().unwrap_or_default();
        ensure!(
            pages.join(name).is_file(),
            "no command belongs to `{}`\nhint: rename or remove it",
            sections.display()
        );
    }
    for source in files(&sources)? {
        let text = read(&source)?
            .replace("@DATE@", &date)
            .replace("@VERSION@", env!("CARGO_PKG_VERSION"));
        store(&pages.join(source.file_name().unwrap_or_default()), &text)?;
    }
    // cargo-deb compresses no build products.
    run_on_stderr(
        Command::new("gzip")
            .args(["--best", "--no-name"])
            .args(files(&pages)?),
    )?;

    let completions = emptied(&release.join("completions"))?;
    for shell in SHELLS {
        let script = output(program().args(["completions", shell]))?;
        store(&completions.join(shell), &(script + "\n"))?;
    }
    Ok(())
}

/// The page without the definition of an apostrophe, which its generator writes before every section.
fn without_repetition(page: &str) -> String {
    let (definition, mut text) = (
        [".ie \\n(.g .ds Aq \\(aq", ".el .ds Aq '"],
        String::with_capacity(page.len()),
    );
    for (number, line) in page.lines().enumerate() {
        if number < definition.len() || !definition.contains(&line) {
            text += line;
            text.push('\n');
        }
    }
    text
}

/// `YYYY-MM-DD` in UTC of seconds since 1970.
fn date_of(epoch: &str) -> Result<String> {
    output(
        Command::new("date")
            .args(["--utc", "+%Y-%m-%d"])
            .arg(format!("--date=@{epoch}")),
    )
}

/// `directory`, without the files of an earlier build: one that is not made any more must not be packed.
fn emptied(directory: &Path) -> Result<PathBuf> {
    if directory.exists() {
        fs::remove_dir_all(directory)
            .with_context(|| format!("remove `{}`", directory.display()))?;
    }
    create_directory(directory)?;
    Ok(directory.to_owned())
}

/// The files in a directory, in no particular order, without those below its directories.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("read the directory `{}`", directory.display()))?;
    let paths = entries.into_iter().map(|entry| entry.path());
    Ok(paths.filter(|path| path.is_file()).collect())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read `{}`", path.display()))
}

fn store(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_apostrophe_is_defined_once() {
        let twice = ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n.SH A\n.ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n.SH B\n";
        let once = ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n.SH A\n.SH B\n";
        assert_eq!(without_repetition(twice), once);
    }

    #[test]
    fn dates_are_those_of_utc() {
        assert_eq!(date_of("86399").expect("date runs"), "1970-01-01");
        assert_eq!(date_of("86400").expect("date runs"), "1970-01-02");
    }
}
