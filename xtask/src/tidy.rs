//! Rules for the repository as a whole, which no compiler checks: `cargo xtask check` applies them at once, and they
//! are also ordinary tests.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::arrows::{no_files_use_each_other_in_a_circle, parts_use_what_the_map_says};
use crate::tree::Tree;

/// What must hold of the tree.
type Rule = fn(&Tree) -> Result<()>;

/// Every rule by name.
pub(crate) const RULES: [(&str, Rule); 9] = [
    ("versions agree", versions_agree),
    (
        "modules begin with a description",
        modules_open_with_what_they_own,
    ),
    (
        "dependencies are declared once, with a reason",
        dependencies_have_reasons,
    ),
    (
        "only one crate uses the network",
        one_crate_alone_knows_the_network,
    ),
    (
        "the main package links nothing of environments",
        the_main_package_links_nothing_of_environments,
    ),
    (
        "the project contains no paths outside of it",
        the_project_stands_alone,
    ),
    (
        "the README shows every picture",
        the_readme_shows_every_picture,
    ),
    (
        "no files use each other in a circle",
        no_files_use_each_other_in_a_circle,
    ),
    (
        "parts of the command line use each other as documented",
        parts_use_what_the_map_says,
    ),
];

/// The workspace, the package's changelog and the users' changelog speak of the same version.
fn versions_agree(tree: &Tree) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let debian = tree.read("debian/changelog")?;
    let first = debian.lines().next().unwrap_or_default();
    let packaged = first
        .split_once('(')
        .and_then(|(_, rest)| rest.split_once(')'))
        .map(|(version, _)| version)
        .with_context(|| format!("find the version in `{first}` of debian/changelog"))?;
    ensure!(
        packaged == version,
        "the version is {packaged} in debian/changelog, but {version} in Cargo.toml"
    );
    let changelog = tree.read("CHANGELOG.md")?;
    ensure!(
        changelog.contains(&format!("## [{version}]")) || changelog.contains("## [Unreleased]"),
        "CHANGELOG.md contains neither {version} nor Unreleased"
    );
    Ok(())
}

fn modules_open_with_what_they_own(tree: &Tree) -> Result<()> {
    let mut silent = Vec::new();
    for file in tree.with_ending("rs") {
        let is_test = file.file_name().is_some_and(|name| name == "tests.rs");
        if !is_test && !tree.read(file)?.starts_with("//!") {
            silent.push(file.display().to_string());
        }
    }
    for file in tree.with_ending("py") {
        let text = tree.read(file)?;
        let code = text
            .lines()
            .find(|line| !line.starts_with('#'))
            .unwrap_or_default();
        if !code.starts_with("\"\"\"") {
            silent.push(file.display().to_string());
        }
    }
    ensure!(
        silent.is_empty(),
        "begin the module with a description: {}",
        silent.join(", ")
    );
    Ok(())
}

/// In the root manifest, every third-party dependency has a comment above it; in the crates, none has its own version.
fn dependencies_have_reasons(tree: &Tree) -> Result<()> {
    let root = tree.read("Cargo.toml")?;
    let mut above = "";
    for line in section(&root, "[workspace.dependencies]") {
        let ours = line.starts_with("buildbot-conda-");
        if !ours && !line.starts_with('#') && line.contains('=') && !above.starts_with('#') {
            bail!("add the reason to Cargo.toml: `{line}`");
        }
        above = line;
    }
    for file in tree
        .files
        .iter()
        .filter(|file| file.ends_with("Cargo.toml"))
    {
        let manifest = tree.read(file)?;
        for header in [
            "[dependencies]",
            "[dev-dependencies]",
            "[build-dependencies]",
        ] {
            for line in section(&manifest, header) {
                ensure!(
                    !line.contains('=') || line.contains("workspace") || line.starts_with('#'),
                    "{}: declare it in the workspace: `{line}`",
                    file.display()
                );
            }
        }
    }
    Ok(())
}

/// What costs minutes to compile and megabytes to install is the business of buildbot-conda-env.
fn one_crate_alone_knows_the_network(tree: &Tree) -> Result<()> {
    for file in tree.with_ending("toml") {
        let is_manifest = file.ends_with("Cargo.toml") && file.components().count() > 1;
        if !is_manifest || file == Path::new("crates/env/Cargo.toml") {
            continue;
        }
        let manifest = tree.read(file)?;
        for line in manifest.lines() {
            let is_large = ["rattler", "reqwest", "rustls", "tokio"]
                .iter()
                .any(|start| line.starts_with(start));
            ensure!(!is_large, "{}: `{line}`", file.display());
        }
    }
    Ok(())
}

/// Neither directly nor by way of another library.
fn the_main_package_links_nothing_of_environments(tree: &Tree) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    for program in ["cli", "launcher", "generator"] {
        let package = format!("buildbot-conda-{program}");
        let output = Command::new(&cargo)
            .current_dir(&tree.root)
            .args(["tree", "--locked", "--edges", "normal,build"])
            .args(["--prefix", "none", "--format", "{p}", "--package", &package])
            .output()
            .context("run `cargo tree`")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`cargo tree` failed: {said}");
        let linked = String::from_utf8(output.stdout).context("read names of libraries")?;
        let names: Vec<&str> = linked
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        ensure!(
            names.contains(&package.as_str()),
            "`cargo tree` does not show `{package}`"
        );
        let large = names.iter().find(|name| {
            **name == "buildbot-conda-env"
                || ["rattler", "reqwest", "rustls", "tokio", "hyper"]
                    .iter()
                    .any(|start| name.starts_with(start))
        });
        if let Some(large) = large {
            bail!("`{package}` links `{large}`, which only `buildbot-conda-env` may do");
        }
    }
    Ok(())
}

/// The lines of a section up to the next header.
fn section<'t>(manifest: &'t str, header: &str) -> impl Iterator<Item = &'t str> {
    manifest
        .lines()
        .skip_while(move |line| *line != header)
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.trim().is_empty())
}

/// No path of one machine, and no file outside of the repository.
fn the_project_stands_alone(tree: &Tree) -> Result<()> {
    // Put together here, so that this file does not find itself.
    let foreign = [
        ["..", "shared"].join("/"),
        ["", "root", ".cargo"].join("/"),
        tree.root.display().to_string(),
    ];
    let mut found = Vec::new();
    for file in &tree.files {
        // A file that is not text contains no paths.
        let Ok(text) = tree.read(file) else { continue };
        for (number, line) in text.lines().enumerate() {
            if foreign.iter().any(|word| line.contains(word.as_str())) {
                found.push(format!("{}:{}", file.display(), number + 1));
            }
        }
    }
    ensure!(
        found.is_empty(),
        "refers to something outside of the repository: {}",
        found.join(", ")
    );
    Ok(())
}

/// The pictures in the README exist and have an alternative text, and no picture is unused.
fn the_readme_shows_every_picture(tree: &Tree) -> Result<()> {
    let readme = tree.read("README.md")?;
    let shown = pictures(&readme);
    for (words, path) in &shown {
        ensure!(
            !words.is_empty(),
            "describe in README.md what `{path}` shows"
        );
        ensure!(
            tree.files.iter().any(|file| file == Path::new(path)),
            "README.md shows `{path}`, which does not exist"
        );
    }
    for file in &tree.files {
        ensure!(
            !file.starts_with("docs/pictures")
                || shown.iter().any(|(_, path)| file == Path::new(path)),
            "`{}` is not used",
            file.display()
        );
    }
    Ok(())
}

/// What pictures of a Markdown text show, in words, and their paths: `![WORDS](PATH)`.
fn pictures(text: &str) -> Vec<(&str, &str)> {
    let candidates = text.split("![").skip(1);
    candidates
        .filter_map(|rest| {
            let (words, rest) = rest.split_once("](")?;
            let (path, _) = rest.split_once(')')?;
            Some((words, path))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_is_tidy() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let tree = Tree::of(root).unwrap();
        for (name, rule) in RULES {
            if let Err(error) = rule(&tree) {
                panic!("{name}: {error:#}");
            }
        }
    }

    #[test]
    fn sections_end_where_the_next_begins() {
        let manifest = "[a]\nx = 1\n\n[b]\ny = 2\n[c]\n";
        assert_eq!(section(manifest, "[a]").collect::<Vec<_>>(), ["x = 1"]);
        assert_eq!(section(manifest, "[b]").collect::<Vec<_>>(), ["y = 2"]);
        assert_eq!(section(manifest, "[d]").count(), 0);
    }
    #[test]
    fn pictures_are_found_with_their_words() {
        let text = "a ![x\ny](a/b.svg) c [link](d) ![](e.png)\n";
        assert_eq!(pictures(text), [("x\ny", "a/b.svg"), ("", "e.png")]);
    }
}
