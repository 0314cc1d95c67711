//! The files of a profile of a host. Its directory may belong to a person, in a checkout. Then it is written as that
//! person, so that root follows none of their links.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::system::{as_user, files};

/// The file that makes a directory a profile; it is written last.
pub(crate) const MANIFEST: &str = "host.toml";

/// What is written: texts by paths, and the paths that go.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Writing {
    pub(crate) texts: BTreeMap<PathBuf, String>,
    pub(crate) gone: Vec<PathBuf>,
}

/// Lets the owner of `directory` write it.
pub(crate) fn ask(owner: &str, directory: &Path, writing: &Writing) -> anyhow::Result<()> {
    let input = serde_json::to_string(writing).context("write a profile")?;
    let directory = std::path::absolute(directory).context("find the directory")?;
    as_user::call(owner, None, &["profile"], &directory, &input)
        .map(drop)
        .with_context(|| format!("write `{}` as `{owner}`", directory.display()))
}

/// As the owner of the directory: writes what standard input describes.
pub(crate) fn write_as_owner(directory: &Path) -> anyhow::Result<()> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .context("read a profile")?;
    write(
        directory,
        &serde_json::from_str(&text).context("read a profile")?,
    )
}

/// Writes the files, each of them atomically.
pub(crate) fn write(directory: &Path, writing: &Writing) -> anyhow::Result<()> {
    let manifest = Path::new(MANIFEST);
    let last = writing.texts.iter().filter(|(path, _)| *path == manifest);
    let texts = writing.texts.iter().filter(|(path, _)| *path != manifest);
    let make = |path: &Path| {
        fs::create_dir_all(path).with_context(|| format!("create `{}`", path.display()))
    };
    make(directory)?;
    for (path, text) in texts {
        let path = directory.join(path);
        make(path.parent().context("find the directory of a file")?)?;
        files::write(&path, text, 0o644)?;
    }
    for path in &writing.gone {
        files::remove(&directory.join(path))?;
        // Directories that it was the last in; one with something else in it stays.
        let mut parent = path.parent();
        while let Some(part) = parent.filter(|part| !part.as_os_str().is_empty()) {
            if fs::remove_dir(directory.join(part)).is_err() {
                break;
            }
            parent = part.parent();
        }
    }
    for (path, text) in last {
        files::write(&directory.join(path), text, 0o644)?;
    }
    Ok(())
}
