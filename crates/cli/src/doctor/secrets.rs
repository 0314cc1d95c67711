//! The credentials of the configuration: there, root's, for nobody else's eyes, and those that a running process has.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::paths;
use buildbot_conda_core::settings::Instance;

use super::finding::{Check, Finding};
use super::scene::Scene;
use crate::system::credentials;

pub(super) fn look(instance: &Instance, scene: &Scene<'_>) -> Vec<Finding> {
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
                let seen = format!("only root sees `{shown}`");
                findings.push(Finding::unseen(Check::Credentials, reference, seen));
            }
            _ => {
                let seen = format!("no file `{shown}` for the credential `{}`", name.as_str());
                let words = format!(
                    "write it as root: `install -m 0600 /dev/stdin {shown}`, or take `{}` out of `credentials`",
                    name.as_str()
                );
                findings.push(Finding::problem(Check::Credentials, reference, seen).words(words));
            }
        }
    }
    for name in credentials::changed_since_start(instance, scene.context) {
        let seen = format!(
            "the credential `{name}` has changed since the start: what runs has the old one"
        );
        let finding = Finding::warning(Check::Credentials, reference, seen);
        let unit = instance.reference.unit_name();
        findings.push(
            finding
                .command(["systemctl", "restart", &unit])
                .words("credentials are handed over at a start; a reload does not change them"),
        );
    }
    if findings.is_empty() {
        let seen = match instance.credentials.len() {
            0 => "none are configured".to_owned(),
            count => format!("{count} configured, all for root's eyes only"),
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
    // Elsewhere somebody else may put a link in the way of root.
    let mend = |finding: Finding, words: [&str; 3]| {
        if path.starts_with(scene.context.path(paths::CREDENTIALS)) {
            finding.safe(words)
        } else {
            finding.command(words)
        }
    };
    if !scene.is_roots(metadata.uid()) {
        let seen = format!("`{name}` belongs to user {}, not to root", metadata.uid());
        return Some(mend(problem(seen), ["chown", "root:root", &name]));
    }
    let found = metadata.mode() & 0o7777;
    (found & 0o077 != 0).then(|| {
        let seen = format!("`{name}` is open to others than root (mode {found:04o})");
        mend(problem(seen), ["chmod", mode, &name])
    })
}
