//! The version of systemd on a host, determined from its files: in a generator and in a sandbox, systemd cannot be
//! asked.

use std::fs;
use std::path::Path;

use crate::below;

/// Earlier versions implement `hardening = "strict"` by hiding home directories behind directories that nobody can
/// enter.
pub const STRICT_SYSTEMD: u32 = 250;

/// The version of systemd below a root directory, from the name of its own library, `libsystemd-shared-252.so`.
pub fn version(root: Option<&Path>) -> Option<u32> {
    let libraries = below(root, "/usr/lib");
    let architectures = fs::read_dir(&libraries).into_iter().flatten().flatten();
    let mut directories = vec![below(root, "/lib/systemd"), libraries.join("systemd")];
    directories.extend(
        architectures
            .filter(|entry| entry.file_name().to_string_lossy().contains("-linux-"))
            .map(|entry| entry.path().join("systemd")),
    );
    let files = directories
        .iter()
        .flat_map(fs::read_dir)
        .flatten()
        .flatten();
    files
        .filter_map(|entry| number(&entry.file_name().to_string_lossy()))
        .max()
}

/// The version of a systemd that is too old for `hardening = "strict"`; none if it is new enough or unknown.
pub fn too_old_for_strict(root: Option<&Path>) -> Option<u32> {
    version(root).filter(|version| *version < STRICT_SYSTEMD)
}

fn number(file: &str) -> Option<u32> {
    let rest = file.strip_prefix("libsystemd-shared-")?;
    let digits = rest.split(|character: char| !character.is_ascii_digit());
    digits.into_iter().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_in_the_name_of_the_library() {
        for (directory, file, expected) in [
            ("lib/systemd", "libsystemd-shared-247.so", Some(247)),
            (
                "usr/lib/systemd",
                "libsystemd-shared-255.4-1ubuntu8.so",
                Some(255),
            ),
            (
                "usr/lib/x86_64-linux-gnu/systemd",
                "libsystemd-shared-262.so",
                Some(262),
            ),
            ("usr/lib/systemd", "systemd", None),
        ] {
            let root = tempfile::tempdir().expect("a scratch directory can be made");
            let directory = root.path().join(directory);
            fs::create_dir_all(&directory).expect("it is ours");
            fs::write(directory.join(file), "").expect("it is ours");
            assert_eq!(version(Some(root.path())), expected, "{file}");
            let too_old = expected.filter(|version| *version < 250);
            assert_eq!(too_old_for_strict(Some(root.path())), too_old);
        }
    }
}
