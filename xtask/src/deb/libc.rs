//! The glibc on which a package for other machines depends: the version that introduced the newest symbol of its
//! programs. Debian's cross packages do not record the version of each symbol, so dpkg-shlibdeps would require the one
//! with which the programs were linked.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::command::output;

/// `control`, the text of a package's control file, with the glibc that `programs` need in `Depends`.
///
/// # Errors
///
/// When readelf fails, or none of both is found.
pub(super) fn corrected(control: &str, programs: &[PathBuf]) -> Result<String> {
    let needed = output(
        Command::new("readelf")
            .args(["--wide", "--version-info", "--"])
            .args(programs),
    )?;
    let [major, minor] = youngest(&needed).context("find a version of glibc in the programs")?;
    replaced(control, &format!("libc6 (>= {major}.{minor})"))
}

/// The highest version of glibc that `readelf --version-info` lists, without what a program can do without.
fn youngest(text: &str) -> Option<[u32; 2]> {
    let needed = text.lines().filter(|line| line.contains("Flags: none"));
    let versions = needed.filter_map(|line| line.split("Name: GLIBC_").nth(1)?.split(' ').next());
    let numbers = versions.filter_map(|version| {
        let mut parts = version.split('.').map(|part| part.parse().ok());
        Some([parts.next()??, parts.next()??])
    });
    numbers.max()
}

fn replaced(control: &str, clause: &str) -> Result<String> {
    let mut found = false;
    let mut text = String::with_capacity(control.len());
    for line in control.lines() {
        if let Some(depends) = line.strip_prefix("Depends: ") {
            let clauses = depends.split(", ").map(|old| {
                let is_libc = old.starts_with("libc6");
                found |= is_libc;
                if is_libc { clause } else { old }
            });
            text += "Depends: ";
            text += &clauses.collect::<Vec<_>>().join(", ");
        } else {
            text += line;
        }
        text.push('\n');
    }
    ensure!(found, "find glibc in `Depends`");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_youngest_symbol_decides_and_numbers_are_compared_as_such() {
        let text = "  0x0010:   Name: GLIBC_2.9  Flags: none  Version: 3
  0x0020:   Name: GLIBC_2.34  Flags: none  Version: 2
  0x0030:   Name: GLIBC_2.38  Flags: WEAK  Version: 4
  0x0040:   Name: GLIBC_ABI_DT_RELR  Flags: none  Version: 5
  0x0050:   Name: GCC_4.2.0  Flags: none  Version: 6
";
        assert_eq!(youngest(text), Some([2, 34]));
        assert_eq!(youngest("No version information found\n"), None);
    }

    #[test]
    fn one_clause_is_replaced_and_the_rest_stays() {
        let control =
            "Package: x\nDepends: libc6:arm64 (>= 2.36), libgcc-s1\nDescription: libc6\n y\n";
        let expected = "Package: x\nDepends: libc6 (>= 2.34), libgcc-s1\nDescription: libc6\n y\n";
        let found = replaced(control, "libc6 (>= 2.34)").expect("it is there");
        assert_eq!(found, expected);
        assert!(replaced("Depends: adduser\n", "libc6").is_err());
    }
}
