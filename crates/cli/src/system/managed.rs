//! Managed environments as a configuration names them.

use buildbot_conda_core::paths;
use buildbot_conda_core::values::{AbsolutePath, CondaEnv};

use super::context::Context;

/// The prefix of a managed environment, where the installation has none of that name, at `prefix`: a host needs no Conda.
pub(crate) fn prefix_of(
    environment: &CondaEnv,
    prefix: &AbsolutePath,
    context: &Context,
) -> Option<String> {
    let is_there = |prefix: &str| context.path(&format!("{prefix}/conda-meta")).is_dir();
    let name = environment.to_string();
    if name.contains('/') || is_there(prefix.as_str()) {
        return None;
    }
    let prefix = paths::managed_prefix(&name);
    is_there(&prefix).then_some(prefix)
}
