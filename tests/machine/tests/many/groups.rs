//! Which instances are made, and what is expected of their names and places.

use std::fmt::Write as _;

use buildbot_conda_machine::{PREFIX, Release};

/// Another environment, of another Buildbot.
pub(crate) const OLD: &str = "/opt/envs/old";

/// A master and its workers.
pub(crate) struct Group {
    /// The part of its reference after `@`.
    pub(crate) master: Option<&'static str>,
    /// Who runs the master, and who its workers.
    pub(crate) accounts: [&'static str; 2],
    pub(crate) environment: &'static str,
    /// Below it are the directories of the master and of the workers, unless they are the default ones.
    pub(crate) directory: Option<&'static str>,
    /// Whether there is a worker without a name.
    pub(crate) has_plain: bool,
    pub(crate) workers: Vec<&'static str>,
    pub(crate) web_port: u16,
    pub(crate) worker_port: u16,
}

impl Group {
    pub(crate) fn master(&self) -> String {
        self.master
            .map_or_else(|| "master".to_owned(), |name| format!("master@{name}"))
    }

    /// References of its workers, the plain one first.
    pub(crate) fn workers(&self) -> Vec<String> {
        let plain = self.has_plain.then(|| "worker".to_owned());
        let named = self.workers.iter().map(|name| format!("worker@{name}"));
        plain.into_iter().chain(named).collect()
    }

    pub(crate) fn references(&self) -> Vec<String> {
        [vec![self.master()], self.workers()].concat()
    }

    /// The one that builds.
    pub(crate) fn chosen(&self) -> &'static str {
        self.workers.last().copied().unwrap_or_default()
    }

    pub(crate) fn master_directory(&self) -> String {
        let [account, _] = self.accounts;
        match (self.directory, self.master) {
            (Some(directory), _) => format!("{directory}/master"),
            (None, None) => format!("/home/{account}/master"),
            (None, Some(name)) => format!("/home/{account}/master-{name}"),
        }
    }

    pub(crate) fn worker_directory(&self, name: &str) -> String {
        match self.directory {
            Some(directory) => format!("{directory}/{name}"),
            None => format!("/home/{}/worker-{name}", self.accounts[1]),
        }
    }

    /// The loop that creates it. The plain master needs no options.
    pub(crate) fn create(&self) -> String {
        // Workers without options have their own accounts, which takes time for each.
        let (mut master, mut worker) = (String::new(), format!("--user {}", self.accounts[1]));
        if let Some(name) = self.master {
            let [one, other] = self.accounts;
            master = format!("{name} --user {one} --conda-env {}", self.environment);
            worker = format!(
                "--master master@{name} --user {other} --conda-env {}",
                self.environment
            );
        }
        if let Some(directory) = self.directory {
            let _ = write!(master, " --directory {directory}/master");
            let _ = write!(worker, " --directory {directory}/$name");
        }
        let plain = if self.has_plain {
            "buildbot-conda create worker\n"
        } else {
            ""
        };
        format!(
            "buildbot-conda create master {master} --worker-port {port}\n{plain}for name in {}; do buildbot-conda create worker $name {worker}; done\n",
            self.workers.join(" "),
            port = self.worker_port,
        )
    }
}

/// Names that are legal and not usual: numbers, words of TOML, doubled and final marks, the longest.
pub(crate) fn groups(release: Release) -> Vec<Group> {
    let mut groups = vec![
        Group {
            master: None,
            accounts: ["bb", "bb-worker"],
            environment: PREFIX,
            directory: None,
            has_plain: true,
            workers: vec!["1", "true", "nan", "e5", "w-", "gpu"],
            web_port: 8010,
            worker_port: 9989,
        },
        Group {
            master: Some("0"),
            accounts: ["ci", "ci-builds"],
            environment: OLD,
            directory: None,
            has_plain: false,
            workers: vec!["master", "0", "9-9", "under_score", "x_-", "worker", "a--b"],
            web_port: 8011,
            worker_port: 9990,
        },
        Group {
            master: Some("nightly_-_builds"),
            accounts: ["nightly", "nightly-builds"],
            environment: PREFIX,
            directory: Some("/srv/nightly"),
            has_plain: false,
            workers: vec![
                "z__",
                "00",
                "cuda-12_4",
                "inf",
                "m",
                "abcdefghijklmnopqrstuvwxyz-0123",
            ],
            web_port: 8012,
            worker_port: 9991,
        },
    ];
    if release == Release::Trixie {
        groups.truncate(2);
        for group in &mut groups {
            group.workers.drain(1..group.workers.len() - 1);
        }
    }
    groups
}

/// The worker's name at its master; Buildbot does not accept one that starts with a digit.
pub(crate) fn name_of(instance: &str) -> String {
    if instance.starts_with(|first: char| first.is_ascii_digit()) {
        return format!("worker-{instance}");
    }
    instance.to_owned()
}
