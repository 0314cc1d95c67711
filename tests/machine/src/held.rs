//! Builds that run until a test releases them, so that no test depends on durations.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::rest::{Build, Rest};
use crate::{Machine, Outcome, WORKER, master_configuration};

/// From a request to the start of a build, or from its release to its end, including a retry and the reconnection of a
/// worker.
const LIMIT: Duration = Duration::from_mins(2);

/// [`master_configuration`] with `count` builders `held0`, `held1`, ... more, whose builds are held.
pub fn held_configuration(count: usize) -> String {
    let more = format!(
        r#"
hold = 'until test -e {WORKER}/released || test -e "{WORKER}/released-$0"; do sleep 0.1; done'
held = ["held%d" % number for number in range({count})]
c["builders"] += [
    util.BuilderConfig(
        name=name,
        workernames=["example"],
        factory=util.BuildFactory([steps.ShellCommand(name="hold", command=["sh", "-c", hold, name])]),
    )
    for name in held
]
c["schedulers"].append(schedulers.ForceScheduler(name="hold", builderNames=held))
"#
    );
    master_configuration() + &more
}

/// The held builds of one machine, from their request to their end.
#[derive(Debug)]
pub struct HeldBuilds<'machine> {
    machine: &'machine Machine,
    requests: Vec<u64>,
}

impl<'machine> HeldBuilds<'machine> {
    /// Forces a build on each of the first `count` held builders and waits until all of them run.
    ///
    /// # Errors
    ///
    /// When the master refuses, or they do not start.
    pub fn start(machine: &'machine Machine, count: usize) -> Result<Self> {
        let rest = Rest::new(machine);
        machine
            .shell(&format!("rm -f {WORKER}/released*"))?
            .succeeded()?;
        let requests = (0..count)
            .map(|number| rest.force_by("hold", &format!("held{number}"), &[]))
            .collect::<Result<Vec<_>>>()?;
        machine.wait_until(&format!("{count} builds run"), LIMIT, || {
            let found = rest.get("builds?complete=false")?;
            let running = found["builds"].as_array().map_or(0, |builds| {
                let begun = builds
                    .iter()
                    .filter(|build| build["state_string"] != json!("starting"));
                begun.count()
            });
            Ok((running >= count).then_some(()))
        })?;
        Ok(Self { machine, requests })
    }

    /// What outlives the machine's being off; see [`HeldBuilds::after_reboot`].
    pub fn requests(self) -> Vec<u64> {
        self.requests
    }

    /// The same builds after a time in which the machine was off.
    pub fn after_reboot(machine: &'machine Machine, requests: Vec<u64>) -> Self {
        Self { machine, requests }
    }

    /// Releases one of them, or its retry.
    ///
    /// # Errors
    ///
    /// If the machine's tools fail.
    pub fn release(&self, number: usize) -> Outcome {
        let mark = format!("{WORKER}/released-held{number}");
        self.machine.run(&["touch", &mark])?.succeeded()?;
        Ok(())
    }

    /// Waits for the end of one of them, retries included; gives its builds in their order.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub fn wait_for(&self, number: usize) -> Result<Vec<Build>> {
        let rest = Rest::new(self.machine);
        let request = self.requests[number];
        rest.wait_for_build(request, LIMIT)?;
        rest.builds_of(request)
    }

    /// Releases all of them and checks that each was retried (result 5) and then succeeded.
    ///
    /// # Errors
    ///
    /// If one has another history.
    pub fn ensure_retried(&self) -> Outcome {
        self.ensure_results(&[5, 0])
    }

    /// Releases all of them and checks that the results of the builds of each, in order, are `expected`.
    ///
    /// # Errors
    ///
    /// If one has other results.
    pub fn ensure_results(&self, expected: &[u64]) -> Outcome {
        let mark = format!("{WORKER}/released");
        self.machine.run(&["touch", &mark])?.succeeded()?;
        for number in 0..self.requests.len() {
            let builds = self.wait_for(number)?;
            let results: Vec<u64> = builds.iter().map(|build| build.results).collect();
            ensure!(
                results == expected,
                "build {number} has gone through {builds:?}"
            );
        }
        Ok(())
    }
}
