//! `preseed.cfg`: the answers with which an installation comes to this configuration, for `debconf-set-selections`. As
//! in the package's own `config` the truth is in the configuration and in systemd, not in what debconf remembers.

use std::fmt::Write as _;

use buildbot_conda_core::names::{InstanceRef, Role};
use buildbot_conda_core::settings::Settings;

use super::profile::Profile;

const PACKAGE: &str = "buildbot-conda";

/// The text; questions that the configuration does not answer are left out, and get their defaults.
pub(super) fn text(profile: &Profile, settings: &Settings) -> String {
    let mut text = String::new();
    let mut answer = |question: &str, kind: &str, value: &str| {
        let line = format!("{PACKAGE} {PACKAGE}/{question} {kind} {value}");
        writeln!(text, "{line}").expect("a string takes everything");
    };
    if let Ok(defaults) = settings.defaults() {
        answer("conda-path", "string", defaults.conda_root.as_str());
        answer("conda-env", "string", &defaults.conda_env.to_string());
        answer("user", "string", defaults.user.as_str());
    }
    let is_enabled = |role: &Role| {
        let unit = InstanceRef::plain(*role).unit_name();
        profile.manifest.units.get(&unit).map(String::as_str) == Some("enabled")
    };
    let services: Vec<&str> = Role::ALL
        .iter()
        .filter(|role| is_enabled(role))
        .map(|role| role.as_str())
        .collect();
    answer("services", "multiselect", &services.join(", "));
    for role in Role::ALL {
        if let Ok(instance) = settings.instance(&InstanceRef::plain(role)) {
            let question = format!("{role}-directory");
            answer(&question, "string", instance.directory.as_str());
        }
    }
    text
}
