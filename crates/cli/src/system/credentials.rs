//! The credentials of a process: systemd passes them on at a start, and never again.

use std::fs::File;
use std::io;
use std::path::Path;

use buildbot_conda_core::settings::Instance;

use super::context::Context;

/// Bytes; systemd refuses larger ones, systemd.exec(5).
const LARGEST: u64 = 1 << 20;

/// Names of the configured credentials that the running process of an instance has otherwise, or not at all. Nothing where
/// that cannot be seen: by others than root, or while it does not run.
pub(crate) fn changed_since_start(instance: &Instance, context: &Context) -> Vec<String> {
    let handed = context.path(&format!(
        "/run/credentials/{}",
        instance.reference.unit_name()
    ));
    if !handed.is_dir() {
        return Vec::new();
    }
    let differs = |name: &str, file: &str| {
        let wanted = read(&context.path(file)).ok()?;
        match read(&handed.join(name)) {
            Ok(has) => Some(has != wanted),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some(true),
            Err(_) => None,
        }
    };
    instance
        .credentials
        .iter()
        .filter(|(name, file)| differs(name.as_str(), file.as_str()) == Some(true))
        .map(|(name, _)| name.as_str().to_owned())
        .collect()
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    buildbot_conda_host::read_at_most(&File::open(path)?, LARGEST)
}
