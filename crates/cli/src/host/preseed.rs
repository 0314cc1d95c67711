//! `preseed.cfg`: the answers that lead an installation to this configuration, for `debconf-set-selections`. As in the
//! package's own `config`, they are derived from the configuration and systemd, not from debconf's memory.

use buildbot_conda_core::names::{InstanceRef, Role};
use buildbot_conda_core::settings::Settings;

use super::manifest::Account;
use super::profile::Profile;

const PACKAGE: &str = "buildbot-conda";
/// Made by the package where nothing else is answered.
const DEFAULT_USER: &str = "bb";
/// Length of the longest name of the package's questions, in characters.
const LONGEST_NAME: usize = 31;

/// The text; questions that the configuration does not answer are left out, and get their defaults. So is an
/// account that is another than the package would make: once made so, it would stay so.
pub(super) fn text(profile: &Profile, settings: &Settings) -> String {
    let mut lines = Vec::new();
    let answer = |question: &str, kind: &str, value: &str| {
        format!("{PACKAGE} {PACKAGE}/{question} {kind} {value}")
    };
    if let Ok(defaults) = settings.defaults() {
        lines.push(answer("conda-path", "string", defaults.conda_root.as_str()));
        lines.push(answer(
            "conda-env",
            "string",
            &defaults.conda_env.to_string(),
        ));
        let user = defaults.user.as_str();
        let mut accounts = profile.manifest.accounts.iter();
        if accounts.any(|account| account.name.as_str() == user && is_as_created(account)) {
            lines.push(answer("user", "string", user));
        } else {
            lines.push(unanswered(user));
        }
    }
    let is_enabled = |role: &Role| {
        let unit = InstanceRef::plain(*role).unit();
        profile.manifest.units.get(&unit).map(String::as_str) == Some("enabled")
    };
    let services: Vec<&str> = Role::ALL
        .iter()
        .filter(|role| is_enabled(role))
        .map(|role| role.as_str())
        .collect();
    lines.push(answer("services", "multiselect", &services.join(", ")));
    for role in Role::ALL {
        if let Ok(instance) = settings.instance(&InstanceRef::plain(role)) {
            let question = format!("{role}-directory");
            lines.push(answer(&question, "string", instance.directory.as_str()));
        }
    }
    lines.into_iter().map(|line| line + "\n").collect()
}

/// Comments, in place of an answer with which the package would make another account than there was.
fn unanswered(user: &str) -> String {
    let what_to_do = if user == DEFAULT_USER {
        "This also happens without an answer: create the account before the installation."
    } else {
        "`buildbot-conda host apply` creates the account as it was."
    };
    format!(
        "# {PACKAGE}/user has no answer: the package would create `{user}` as a system account with home `/home/{user}`.\n\
         # {what_to_do}"
    )
}

/// Whether the account is just what `create_account` of the package's `postinst` makes.
fn is_as_created(account: &Account) -> bool {
    let name = account.name.as_str();
    let is_taken = name.len() <= LONGEST_NAME
        && name.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
        && name.chars().all(|character| {
            character.is_ascii_lowercase() || character.is_ascii_digit() || "_-".contains(character)
        });
    is_taken
        && account.system
        && account.group == name
        && account.home == format!("/home/{name}")
        && account.shell == "/bin/bash"
}
