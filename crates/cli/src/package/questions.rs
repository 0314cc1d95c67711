//! The values in effect for debconf's questions, and texts in debconf's protocol.

use std::process::{Command, Stdio};

use anyhow::Context as _;
use buildbot_conda_core::names::{InstanceRef, Role};
use buildbot_conda_core::questions::Question;
use buildbot_conda_host::unit_files::Runs;

use crate::system::context::Context;
use crate::system::unit_files;

/// What dpkg prints of a package that was unpacked and never configured.
const NEVER_CONFIGURED: [&str; 3] = ["half-installed ", "unpacked ", "half-configured "];

/// The value in effect; none if there is no value, and an empty text if the value cannot be an answer. If the first
/// configuration was interrupted, the file with the answers may exist without all links.
pub(super) fn present(
    question: Question,
    version: &str,
    context: &Context,
) -> anyhow::Result<Option<String>> {
    if question == Question::Services {
        return is_configured(version)?
            .then(|| enabled_services(context))
            .transpose();
    }
    let file = context.configuration().metadata();
    let is_there = file.is_ok_and(|file| file.is_file() && file.len() > 0);
    let text = || context.text().unwrap_or_default();
    Ok(is_there.then(|| question.text_in(&text())))
}

/// apt, which asks before it unpacks, passes the installed version. After an interruption, that version may never have
/// been configured; dpkg then knows no version.
fn is_configured(version: &str) -> anyhow::Result<bool> {
    if version.is_empty() {
        return Ok(false);
    }
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat"])
        .args(["${db:Status-Status} ${Config-Version}", "buildbot-conda"])
        .stdin(Stdio::null())
        .output()
        .context("run `dpkg-query`")?;
    let status = String::from_utf8_lossy(&output.stdout);
    Ok(!NEVER_CONFIGURED.contains(&&*status))
}

/// The services that start at boot, in the form of debconf's answer. systemd stores this as links, which still exist
/// after a removal. A masked unit is not started.
fn enabled_services(context: &Context) -> anyhow::Result<String> {
    let files = context.unit_files();
    let mut enabled = Vec::new();
    for role in Role::ALL {
        let reference = InstanceRef::plain(role);
        let links = unit_files::links(&reference.unit_name(), context)?;
        let is_masked = matches!(files.of(&reference).runs, Runs::Masked(_));
        if !links.is_empty() && !is_masked {
            enabled.push(role.as_str());
        }
    }
    Ok(enabled.join(", "))
}

/// Debconf joins words with one blank, unless the blank is escaped.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => escaped.push_str("\\n"),
            '\\' | ' ' | '\t' => escaped.extend(['\\', character]),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_debconf_would_change_is_escaped() {
        assert_eq!(escaped("/a  b\\c\n\td"), "/a\\ \\ b\\\\c\\n\\\td");
    }
}
