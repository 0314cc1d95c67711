//! The `.buildinfo` next to the package, in the format of deb-buildinfo(5): checksums of the package, the Debian
//! packages that were installed during the build, and the other conditions. Fields that Debian's tools do not know
//! start with `X-`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::digest;
use crate::deb::{self, Target};
use crate::prerequisites;

/// What rustc links with, besides what the packaging needs and every Debian has.
const LINKING: [&str; 2] = ["gcc", "libc6-dev"];

/// One installed Debian package.
struct Installed {
    version: String,
    is_essential: bool,
    /// Names in its `Pre-Depends` and `Depends`, alternatives included.
    dependencies: Vec<String>,
}

/// Write the file for `package` and return its path: the package's, with another ending.
///
/// # Errors
///
/// When dpkg, git or rustc do not answer, or the file cannot be written.
pub(super) fn write(workspace: &Path, target: Target, package: &Path) -> Result<PathBuf> {
    let path = package.with_extension("buildinfo");
    fs::write(&path, text(workspace, target, package)?)
        .with_context(|| format!("write `{}`", path.display()))?;
    Ok(path)
}

fn text(workspace: &Path, target: Target, package: &Path) -> Result<String> {
    let field = |name: &str| {
        deb::output(
            Command::new("dpkg-deb")
                .arg("--field")
                .arg(package)
                .arg(name),
        )
    };
    let ask = |words: &[&str]| {
        deb::output(
            Command::new(words[0])
                .args(&words[1..])
                .current_dir(workspace),
        )
    };
    let name = package
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let size = fs::metadata(package)
        .with_context(|| format!("examine `{}`", package.display()))?
        .len();

    let mut text = String::from("Format: 1.0\n");
    let mut add = |field: &str, value: &str| {
        writeln!(text, "{field}: {value}").expect("writing to a string succeeds");
    };
    add("Source", &field("Package")?);
    add("Binary", &field("Package")?);
    add("Architecture", &field("Architecture")?);
    add("Version", &field("Version")?);
    for (field, program) in [
        ("Checksums-Md5", "md5sum"),
        ("Checksums-Sha1", "sha1sum"),
        ("Checksums-Sha256", "sha256sum"),
    ] {
        add(
            field,
            &format!("\n {} {size} {name}", digest(program, package)?),
        );
    }
    add("Build-Origin", &ask(&["dpkg-vendor", "--query", "Vendor"])?);
    add(
        "Build-Architecture",
        &ask(&["dpkg", "--print-architecture"])?,
    );
    let installed = installed(&ask(&[
        "dpkg-query",
        "--show",
        "--showformat=${Package}\\t${Version}\\t${Essential}\\t${db:Status-Status}\\t${Pre-Depends}, ${Depends}\\t${Provides}\\n",
    ])?);
    let asked = prerequisites::packaging(target).chain(LINKING);
    let needed: Vec<String> = needed(&installed, asked)
        .into_iter()
        .map(|(name, version)| format!("\n {name} (= {version})"))
        .collect();
    add("Installed-Build-Depends", &needed.join(","));
    let environment: Vec<String> = deb::environment(workspace)?
        .into_iter()
        .map(|(name, value)| format!("\n {name}=\"{value}\""))
        .collect();
    add("Environment", &environment.concat());
    add("X-Rustc", &ask(&["rustc", "--version"])?);
    add("X-Cargo", &ask(&["cargo", "--version"])?);
    add("X-Cargo-Deb", deb::CARGO_DEB_VERSION);
    add(
        "X-Cargo-Lock-Sha256",
        &digest("sha256sum", &workspace.join("Cargo.lock"))?,
    );
    add(
        "X-Source-Revision",
        &ask(&[
            "git",
            "describe",
            "--always",
            "--dirty",
            "--abbrev=40",
            "--exclude=*",
        ])?,
    );
    Ok(text)
}

/// The installed packages by name; a package is listed under the names that it provides, too.
fn installed(listing: &str) -> BTreeMap<String, (String, Installed)> {
    let mut packages = BTreeMap::new();
    for line in listing.lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        let [
            name,
            version,
            essential,
            "installed",
            dependencies,
            provided,
        ] = columns[..]
        else {
            continue;
        };
        let of = || Installed {
            version: version.to_owned(),
            is_essential: essential == "yes",
            dependencies: names(dependencies),
        };
        for virtual_name in names(provided) {
            packages
                .entry(virtual_name)
                .or_insert_with(|| (name.to_owned(), of()));
        }
        // A real package comes before one that only provides its name.
        packages.insert(name.to_owned(), (name.to_owned(), of()));
    }
    packages
}

/// The names in a field such as `a (>= 1) | b, c:any`.
fn names(field: &str) -> Vec<String> {
    field
        .split([',', '|'])
        .filter_map(|clause| clause.split_whitespace().next())
        .filter_map(|name| name.split(':').next())
        .map(str::to_owned)
        .collect()
}

/// Name and version of every installed package that the build may use, by name: essential ones, what we ask for, and
/// whatever these depend on.
fn needed<'a>(
    installed: &BTreeMap<String, (String, Installed)>,
    asked: impl Iterator<Item = &'a str>,
) -> BTreeMap<String, String> {
    let essential = installed
        .values()
        .filter(|(_, package)| package.is_essential)
        .map(|(name, _)| name.clone());
    let mut waiting: Vec<String> = essential.chain(asked.map(str::to_owned)).collect();
    let mut seen = BTreeSet::new();
    let mut found = BTreeMap::new();
    while let Some(name) = waiting.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        // An alternative that is not installed was not used.
        if let Some((name, package)) = installed.get(&name) {
            found.insert(name.clone(), package.version.clone());
            waiting.extend(package.dependencies.iter().cloned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_is_followed_through_alternatives_and_virtual_packages() {
        let listing = "base\t1\tyes\tinstalled\tlib (>= 2), \t\n\
                       lib\t2\tno\tinstalled\t\t\n\
                       gcc\t4:12\tno\tinstalled\tgcc-12 | gcc-13, c-runtime:any\t\n\
                       gcc-12\t12.2\tno\tinstalled\t\t\n\
                       musl\t1.2\tno\tinstalled\t\tc-runtime (= 1)\n\
                       games\t9\tno\tinstalled\t\t\n\
                       gcc-13\t13\tno\tconfig-files\t\t\n";
        let needed: Vec<(String, String)> = needed(&installed(listing), ["gcc"].into_iter())
            .into_iter()
            .collect();
        let expected = [
            ("base", "1"),
            ("gcc", "4:12"),
            ("gcc-12", "12.2"),
            ("lib", "2"),
            ("musl", "1.2"),
        ];
        assert_eq!(
            needed,
            expected.map(|(name, version)| (name.to_owned(), version.to_owned()))
        );
    }
}
