//! The credentials of the configuration: they exist, are owned by root and closed to others, and running processes have
//! the current ones.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::paths;
use buildbot_conda_core::settings::Instance;

use super::finding::{Check, Finding};
use super::scene::Scene;
use crate::system::credentials;

pub(super) fn examine(instance: &Instance, scene: &Scene<'_>) -> Vec<Finding> {
    if !scene.wants(Check::Credentials) {
        return Vec::new();
    }
    let reference = Some(&instance.reference);
    let mut findings = Vec::new();
    let directory = scene.context.path(paths::CREDENTIALS);
    findings.extend(open_to_others(&directory, "0700", None, scene));
    for (name, file) in &instance.credentials {
        let path = scene.context.path(file.as_str());
        let shown = path.display();
        match path.metadata() {
            Ok(metadata) if metadata.is_file() => {
                findings.extend(open_to_others(&path, "0600", reference, scene));
            }
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                let seen = format!("only root can read `{shown}`");
                findings.push(Finding::unseen(Check::Credentials, reference, seen));
            }
            _ => {
                let seen = format!(
                    "file `{shown}` of the credential `{}` not found",
                    name.as_str()
                );
                let words = format!(
                    "create it as root: `install -m 0600 /dev/stdin {shown}`, or remove `{}` from `credentials`",
                    name.as_str()
                );
                findings.push(Finding::problem(Check::Credentials, reference, seen).words(words));
            }
        }
    }
    for name in credentials::changed_since_start(instance, scene.context) {
        let seen = format!(
            "the credential `{name}` has changed since the start: the running service uses the old one"
        );
        let finding = Finding::warning(Check::Credentials, reference, seen);
        let unit = instance.reference.unit_name();
        findings.push(
            finding
                .command(["systemctl", "restart", &unit])
                .words("credentials are read at a start; a reload does not change them"),
        );
    }
    if findings.is_empty() {
        let seen = match instance.credentials.len() {
            0 => "none configured".to_owned(),
            count => format!("{count} configured, only root can read them"),
        };
        findings.push(Finding::ok(Check::Credentials, reference, seen));
    }
    findings
}

/// What others can do to a file or directory that should be root's alone.
fn open_to_others(
    path: &Path,
    mode: &str,
    reference: Option<&InstanceRef>,
    scene: &Scene<'_>,
) -> Option<Finding> {
    let metadata = path.metadata().ok()?;
    let name = path.to_string_lossy().into_owned();
    let problem = |seen| Finding::problem(Check::Credentials, reference, seen);
    // In other places, another account could redirect root with a link.
    let mend = |finding: Finding, words: [&str; 3]| {
        if path.starts_with(scene.context.path(paths::CREDENTIALS)) {
            finding.safe(words)
        } else {
            finding.command(words)
        }
    };
    if !scene.is_roots(metadata.uid()) {
        let seen = format!("`{name}` is owned by user {}, not by root", metadata.uid());
        return Some(mend(problem(seen), ["chown", "root:root", &name]));
    }
    let found = metadata.mode() & 0o7777;
    (found & 0o077 != 0).then(|| {
        let seen = format!("`{name}` is accessible to accounts other than root (mode {found:04o})");
        mend(problem(seen), ["chmod", mode, &name])
    })
}
