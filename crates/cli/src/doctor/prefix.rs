//! An environment and all instances that run from it. Every command that creates or changes an environment comes from
//! here, so that findings about several instances contain the same one: one account, one set of packages, and never
//! `conda create` where files exist.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use buildbot_conda_core::names::Role;
use buildbot_conda_core::paths;
use buildbot_conda_core::settings::{Instance, Settings};

use super::finding::Finding;
use super::scene::Scene;
use crate::system::accounts;
use crate::system::installations;

/// Where Buildbot's packages are.
const CHANNEL: &str = "conda-forge";

pub(super) struct Prefix<'a> {
    path: String,
    /// At least one; all instances of the configuration, regardless of the one that was asked for.
    users: Vec<&'a Instance>,
    scene: &'a Scene<'a>,
}

impl<'a> Prefix<'a> {
    /// The environment of an instance.
    pub(super) fn of(instance: &'a Instance, scene: &'a Scene<'a>) -> Self {
        let path = instance.prefix();
        let all = scene.settings.into_iter().flat_map(Settings::instances);
        Self {
            users: all.filter(|other| other.prefix() == path).collect(),
            path: path.to_string(),
            scene,
        }
    }

    /// What the roles of its users need, as conda-forge calls it. Its `buildbot-worker` does not bring what it imports.
    fn packages(&self) -> Vec<&'static str> {
        let needed = |role| match role {
            Role::Master => &["buildbot", "buildbot-www"][..],
            Role::Worker => &["buildbot-worker", "msgpack-python", "autobahn"],
        };
        let roles: BTreeSet<Role> = self.users.iter().map(|user| user.reference.role).collect();
        roles.into_iter().flat_map(needed).copied().collect()
    }

    /// The conda of the installation; environments of micromamba, pixi and rattler have none.
    fn conda(&self) -> Option<String> {
        let root = self.users.iter().map(|user| user.conda_root.as_str());
        let mut programs = root.map(|root| format!("{root}/bin/conda"));
        programs.find(|path| self.scene.context.path(path).exists())
    }

    /// Adds what makes the environment, of which there is nothing yet.
    pub(super) fn make(&self, finding: Finding) -> Finding {
        let Some(conda) = self.conda() else {
            return self.use_another(finding);
        };
        let words = [
            &[
                &conda,
                "create",
                "--yes",
                "--prefix",
                &self.path,
                "--channel",
                CHANNEL,
                "python",
            ][..],
            &self.packages(),
        ]
        .concat();
        finding
            .command(self.scene.there(self.by_keeper(&words)))
            .words("or set `conda-root` and `conda-env` to its location")
    }

    /// Adds what installs everything that its users need, and before that what is named.
    pub(super) fn complete(&self, finding: Finding, packages: &[&str]) -> Finding {
        self.extend(finding, &[packages, &self.packages()].concat())
    }

    /// Adds the commands that install missing packages.
    pub(super) fn extend(&self, finding: Finding, packages: &[&str]) -> Finding {
        self.install(finding, &["--channel", CHANNEL], packages)
    }

    /// Adds what installs packages once more.
    pub(super) fn reinstall(&self, finding: Finding, packages: &[&str]) -> Finding {
        self.install(finding, &["--force-reinstall"], packages)
    }

    fn install(&self, finding: Finding, options: &[&str], packages: &[&str]) -> Finding {
        let Some(conda) = self.conda().filter(|_| !self.is_managed()) else {
            let names: Vec<String> = packages.iter().map(|name| format!("`{name}`")).collect();
            let names = names.join(", ");
            return finding.words(if self.is_managed() {
                format!("add {names} to the file of the environment, then run `buildbot-conda env update`")
            } else {
                format!("add {names} with the program that manages this environment, such as micromamba or pixi")
            });
        };
        let words = [
            &[&conda, "install", "--yes", "--prefix", &self.path][..],
            options,
            packages,
        ]
        .concat();
        finding.command(self.scene.there(self.by_keeper(&words)))
    }

    fn is_managed(&self) -> bool {
        Path::new(&self.path).starts_with(paths::ENVIRONMENTS)
    }

    /// Adds the commands that move its users to another environment: an existing one that is readable by everyone, or a
    /// new one that does not need conda.
    pub(super) fn use_another(&self, finding: Finding) -> Finding {
        let name = installations::managed_name(&self.users[0].conda_env);
        let roles: BTreeSet<Role> = self.users.iter().map(|user| user.reference.role).collect();
        let programs: Vec<&str> = roles.iter().map(|role| buildbot(*role).0).collect();
        let found = installations::candidates(&name, &programs, self.scene.context);
        let mut others = found
            .iter()
            .filter(|found| found.prefix.as_str() != self.path);
        let open = others.clone().find(|found| found.only.is_none());
        let mut finding = finding;
        let prefix = if let Some(open) = open {
            open.prefix.to_string()
        } else {
            if !installations::has_builder(self.scene.context) {
                let install = ["apt-get", "install", "buildbot-conda-env"];
                finding = finding.command(self.scene.there(install));
            }
            finding = finding.command(self.scene.ours(["env", "create", &name]));
            paths::managed_prefix(&name)
        };
        for user in &self.users {
            let reference = user.reference.to_string();
            let words = ["set", &reference, "conda-env", &prefix];
            finding = finding.command(self.scene.ours(words));
        }
        if self.scene.has_systemd() {
            finding = finding.command(["systemctl", "daemon-reload"]);
        }
        match others.find_map(|found| Some((&found.prefix, found.only.as_ref()?))) {
            Some((prefix, owner)) if open.is_none() => finding.words(format!(
                "or use `{prefix}`, which only `{owner}` can use, with `user = \"{owner}\"`"
            )),
            _ => finding.words("or set `conda-root` and `conda-env` to an existing one"),
        }
    }

    /// A command line by the account whose files these are. Root runs nothing that others can write: the owner of the
    /// environment does, or of the directory that is to have it; where root owns that and others what is above or the
    /// program, an account that runs from it.
    pub(super) fn by_keeper(&self, words: &[&str]) -> Vec<String> {
        let context = self.scene.context;
        let own = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let program = words.first().copied().unwrap_or_default();
        let owner = |path: &str| {
            let mut there = Path::new(path).ancestors();
            let metadata = there.find_map(|path| context.path(path.to_str()?).metadata().ok());
            metadata.map_or(0, |metadata| metadata.uid())
        };
        let owners = [&self.path, program].map(owner);
        if owners.iter().all(|owner| self.scene.is_roots(*owner))
            && self.is_roots(&self.path)
            && self.is_roots(program)
        {
            return own(words);
        }
        let stranger = owners.iter().find(|owner| !self.scene.is_roots(**owner));
        let name =
            stranger.and_then(|owner| accounts::name_of_user(*owner, context).ok().flatten());
        let user = name.as_deref().unwrap_or(self.users[0].user.as_str());
        own(&[&["runuser", "-u", user, "--"], words].concat())
    }

    /// Whether root owns the environment, in a directory that another account can write.
    pub(super) fn keeper_owns(&self) -> Option<String> {
        let owner = Path::new(&self.path)
            .metadata()
            .map_or(0, |metadata| metadata.uid());
        (owner == 0 && !self.is_roots(&self.path)).then(|| self.users[0].user.as_str().to_owned())
    }

    /// Whether only root decides about the content.
    fn is_roots(&self, path: &str) -> bool {
        let parts = Path::new(path).ancestors().map(PathBuf::from);
        let mut there =
            parts.filter_map(|path| self.scene.context.path(path.to_str()?).metadata().ok());
        there.all(|metadata| self.scene.is_roots(metadata.uid()) && metadata.mode() & 0o022 == 0)
    }
}

/// Package and module of a role.
pub(super) fn buildbot(role: Role) -> (&'static str, &'static str) {
    match role {
        Role::Master => ("buildbot", "buildbot"),
        Role::Worker => ("buildbot-worker", "buildbot_worker"),
    }
}
