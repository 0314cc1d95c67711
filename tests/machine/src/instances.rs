//! A master and a worker as an administrator sets them up, at the package's default places.
//!
//! Buildbot's own `create-master` and `create-worker` make them, as the service user; only `master.cfg` is ours.

use anyhow::Result;

use crate::{Machine, PREFIX};

/// The master's directory.
pub const MASTER: &str = "/home/bb/master";
/// The worker's directory.
pub const WORKER: &str = "/home/bb/worker";

/// TCP port of the web server and its REST API, on the loopback interface.
pub(crate) const WEB_PORT: u16 = 8010;

/// A complete `master.cfg`: one worker `example`, one builder `example` that prints its account and place, and a
/// builder `slow` whose only step takes the number of seconds in the property `seconds` (30 by default). Tests replace
/// parts.
pub fn master_configuration() -> String {
    format!(
        r#"from buildbot.plugins import schedulers, steps, util, worker

tell = util.BuildFactory([
    steps.ShellCommand(name="identity", command=["id", "-un"]),
    steps.ShellCommand(name="environment", command=["env"]),
    steps.ShellCommand(name="prefix", command=["python", "-c", "import sys; print(sys.prefix)"]),
])
wait = util.BuildFactory([
    steps.ShellCommand(name="wait", command=["sleep", util.Property("seconds", default="30")]),
])

c = BuildmasterConfig = {{
    "title": "example",
    "titleURL": "http://127.0.0.1:{WEB_PORT}/",
    "buildbotURL": "http://127.0.0.1:{WEB_PORT}/",
    "buildbotNetUsageData": None,
    "db": {{"db_url": "sqlite:///state.sqlite"}},
    "protocols": {{"pb": {{"port": "tcp:9989:interface=127.0.0.1"}}}},
    "www": {{"port": "tcp:{WEB_PORT}:interface=127.0.0.1", "plugins": {{}}}},
    "workers": [worker.Worker("example", "secret")],
    "builders": [
        util.BuilderConfig(name="example", workernames=["example"], factory=tell),
        util.BuilderConfig(name="slow", workernames=["example"], factory=wait),
    ],
    "schedulers": [
        schedulers.ForceScheduler(
            name="force",
            builderNames=["example", "slow"],
            properties=[util.StringParameter(name="seconds", default="30")],
        ),
    ],
}}
"#
    )
}

/// Makes both directories, owned by `user`.
///
/// # Errors
///
/// When one of Buildbot's commands fails.
pub fn create_instances(machine: &Machine, user: &str) -> Result<()> {
    let master = format!("{PREFIX}/bin/buildbot");
    machine
        .run_as(
            user,
            &[&master, "create-master", "--quiet", "--relocatable", MASTER],
        )?
        .succeeded()?;
    machine.write_file(
        &format!("{MASTER}/master.cfg"),
        &master_configuration(),
        "0600",
        user,
    )?;

    let worker = format!("{PREFIX}/bin/buildbot-worker");
    let options = [
        "create-worker",
        "--quiet",
        "--relocatable",
        "--allow-shutdown=signal",
        "--keepalive=60",
    ];
    let account = [
        "--maxdelay=30",
        WORKER,
        "127.0.0.1:9989",
        "example",
        "secret",
    ];
    machine
        .run_as(
            user,
            &[&[worker.as_str()], &options[..], &account[..]].concat(),
        )?
        .succeeded()?;
    machine.write_file(
        &format!("{WORKER}/info/admin"),
        "Example <example@example.org>\n",
        "0644",
        user,
    )?;
    machine.write_file(
        &format!("{WORKER}/info/host"),
        "a throwaway machine\n",
        "0644",
        user,
    )
}
