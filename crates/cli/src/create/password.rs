//! Where a worker's password comes from: a file, standard input, or a prompt without echo.
//! Never the command line, which every account of a host can read.

use std::io;

use anyhow::Context as _;
use buildbot_conda_host::trusted::open_given;

use super::Common;
use crate::system::prompt::first_line;

/// The password that was given, if one was.
pub(super) fn given(common: &Common) -> anyhow::Result<Option<String>> {
    if let Some(path) = &common.password_file {
        let name = path.display();
        let file = open_given(path).with_context(|| format!("open `{name}`"))?;
        return first_line(file)
            .with_context(|| format!("read a password from `{name}`"))
            .map(Some);
    }
    if common.password_stdin {
        return first_line(io::stdin())
            .context("read a password from standard input")
            .map(Some);
    }
    Ok(None)
}
