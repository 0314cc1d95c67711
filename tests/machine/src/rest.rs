//! Buildbot's REST API, called from inside a machine's network: force builds, wait for them, read what they said.
//!
//! The API is described in Buildbot's manual under "REST API"; results are its numbers (0 is success).

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::Machine;
use crate::instances::WEB_PORT;

const CALL_LIMIT: Duration = Duration::from_mins(2);

/// The API of one master.
#[derive(Clone, Copy, Debug)]
pub struct Rest<'machine> {
    machine: &'machine Machine,
    port: u16,
}

/// A finished build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// Number in the master's database.
    pub id: u64,
    /// 0 success, 1 warnings, 2 failure, 3 skipped, 4 exception, 5 retry, 6 cancelled.
    pub results: u64,
    /// Buildbot's summary, such as `build successful`.
    pub state: String,
}

impl<'machine> Rest<'machine> {
    /// The API of the master that [`crate::create_instances`] makes, or `create` without a name.
    pub fn new(machine: &'machine Machine) -> Self {
        Self::at(machine, WEB_PORT)
    }

    /// The API of the master whose web pages are at `port` of the loopback interface.
    pub fn at(machine: &'machine Machine, port: u16) -> Self {
        Self { machine, port }
    }

    /// Whether the master answers and reports that it is active.
    pub fn answers(self) -> bool {
        self.get("masters")
            .is_ok_and(|masters| masters["masters"][0]["active"] == json!(true))
    }

    /// Whether the worker `name` is attached.
    ///
    /// # Errors
    ///
    /// When the master does not answer.
    pub fn worker_connected(self, name: &str) -> Result<bool> {
        let workers = self.get("workers")?;
        let workers = workers["workers"]
            .as_array()
            .context("read the list of workers")?;
        let connections = |worker: &Value| {
            worker["connected_to"]
                .as_array()
                .is_some_and(|list| !list.is_empty())
        };
        Ok(workers
            .iter()
            .any(|worker| worker["name"] == json!(name) && connections(worker)))
    }

    /// Waits until the worker `name` is attached.
    ///
    /// # Errors
    ///
    /// When it is not within `limit`.
    pub fn wait_for_worker(self, name: &str, limit: Duration) -> Result<()> {
        // Not answering and not attached come to the same here.
        let attached = || Ok(self.worker_connected(name).unwrap_or(false).then_some(()));
        self.machine
            .wait_until(&format!("worker `{name}` is attached"), limit, attached)
    }

    /// Asks for a build of `builder` with string `properties` and gives the number of the request.
    ///
    /// # Errors
    ///
    /// When the master refuses.
    pub fn force(self, builder: &str, properties: &[(&str, &str)]) -> Result<u64> {
        self.force_by("force", builder, properties)
    }

    /// As [`Rest::force`], by another scheduler than the one named `force`.
    ///
    /// # Errors
    ///
    /// As [`Rest::force`].
    pub fn force_by(
        self,
        scheduler: &str,
        builder: &str,
        properties: &[(&str, &str)],
    ) -> Result<u64> {
        let found = self.get(&format!("builders/{builder}"))?;
        let builder_id = found["builders"][0]["builderid"]
            .as_u64()
            .context("read a builder's number")?;
        let mut parameters = json!({
            "builderid": builder_id.to_string(),
            "username": "Example <example@example.org>",
            "reason": "a test",
        });
        for (name, value) in properties {
            parameters[*name] = json!(value);
        }
        let answer = self.post(
            &format!("forceschedulers/{scheduler}"),
            "force",
            &parameters,
        )?;
        let request = &answer["result"][1][builder_id.to_string()];
        request
            .as_u64()
            .with_context(|| format!("read the number of a request in {answer}"))
    }

    /// Waits for the end of the build for `request`, or of its last one if it was retried.
    ///
    /// # Errors
    ///
    /// If none has finished within `limit`.
    pub fn wait_for_build(self, request: u64, limit: Duration) -> Result<Build> {
        self.machine
            .wait_until(&format!("request {request} is built"), limit, || {
                // A master that is just restarting does not answer; the request survives that.
                let Ok(request_state) = self.get(&format!("buildrequests/{request}")) else {
                    return Ok(None);
                };
                if request_state["buildrequests"][0]["complete"] != json!(true) {
                    return Ok(None);
                }
                Ok(self.builds_of(request)?.pop())
            })
    }

    /// The finished builds that a request has led to, in the order of their starts.
    ///
    /// # Errors
    ///
    /// When the master does not answer.
    pub fn builds_of(self, request: u64) -> Result<Vec<Build>> {
        finished_builds(&self.get(&format!("buildrequests/{request}/builds?order=buildid"))?)
    }

    /// Every finished build of the master, in the order of their starts.
    ///
    /// # Errors
    ///
    /// When the master does not answer.
    pub fn builds(self) -> Result<Vec<Build>> {
        finished_builds(&self.get("builds?order=buildid")?)
    }

    /// Everything in the log of a step, the header included, in which the worker shows the step's environment.
    ///
    /// # Errors
    ///
    /// If there is no such step, or it has no log yet.
    pub fn log(self, build: &Build, step: &str) -> Result<String> {
        let log = self.get(&format!("builds/{}/steps/{step}/logs/stdio", build.id))?;
        let id = log["logs"][0]["logid"]
            .as_u64()
            .with_context(|| format!("find the log of step `{step}`"))?;
        self.call(&[], &format!("logs/{id}/raw_inline"))
    }

    /// The properties of a build: an object from name to `[value, source]`.
    ///
    /// # Errors
    ///
    /// When the master does not answer.
    pub fn properties(self, build: &Build) -> Result<Value> {
        Ok(self.get(&format!("builds/{}/properties", build.id))?["properties"][0].clone())
    }

    /// A `GET` of a path below `/api/v2/`.
    ///
    /// # Errors
    ///
    /// When the master does not answer, or not with JSON.
    pub fn get(self, path: &str) -> Result<Value> {
        let text = self.call(&[], path)?;
        serde_json::from_str(&text).with_context(|| format!("read the answer to `{path}`: {text}"))
    }

    /// A control method called on a path below `/api/v2/`.
    ///
    /// # Errors
    ///
    /// When the master does not answer, or refuses.
    pub fn post(self, path: &str, method: &str, parameters: &Value) -> Result<Value> {
        let text = self.control(path, method, parameters)?;
        serde_json::from_str(&text)
            .with_context(|| format!("read the answer to `{method}`: {text}"))
    }

    /// Without a login, and then, if that is not sufficient, with each password for the pages of a master of this
    /// machine.
    fn control(self, path: &str, method: &str, parameters: &Value) -> Result<String> {
        let body =
            json!({"id": 1, "jsonrpc": "2.0", "method": method, "params": parameters}).to_string();
        let json = [
            "--header",
            "Content-Type: application/json",
            "--data",
            &body,
        ];
        let refused = match self.call(&json, path) {
            Err(error) if format!("{error:#}").contains("you need to have role") => error,
            outcome => return outcome,
        };
        let script = "cat /etc/buildbot-conda/credentials/web-password*";
        let passwords = self.machine.shell(script)?.succeeded()?;
        let login = format!("http://127.0.0.1:{}/auth/login", self.port);
        for password in passwords.stdout.lines() {
            let user = format!("admin:{password}");
            let session = [
                "--silent",
                "--noproxy",
                "*",
                "--cookie",
                "",
                "--user",
                &user,
            ];
            let first = [
                &["curl"],
                &session[..],
                &["--output", "/dev/null", &login, "--next"],
            ];
            let options = [&["--cookie", ""], &json[..]].concat();
            let answer = self.call_after(&first.concat(), &options, path);
            if answer.is_ok() {
                return answer;
            }
        }
        Err(refused)
    }

    /// Whether a control method is refused without a login.
    ///
    /// # Errors
    ///
    /// If the master does not answer.
    pub fn is_closed(self, path: &str, method: &str) -> Result<bool> {
        let body = json!({"id": 1, "jsonrpc": "2.0", "method": method, "params": {}}).to_string();
        let json = [
            "--header",
            "Content-Type: application/json",
            "--data",
            &body,
        ];
        match self.call(&json, path) {
            Err(error) if format!("{error:#}").contains("you need to have role") => Ok(true),
            Err(error) => Err(error),
            Ok(_) => Ok(false),
        }
    }

    fn call(self, options: &[&str], path: &str) -> Result<String> {
        self.call_after(&["curl"], options, path)
    }

    /// With the same curl process that has done something else before.
    fn call_after(self, curl: &[&str], options: &[&str], path: &str) -> Result<String> {
        let url = format!("http://127.0.0.1:{}/api/v2/{path}", self.port);
        // `--noproxy`: a proxy of the host's is not reachable from the machine's network.
        let words = [
            "--silent",
            "--show-error",
            "--fail-with-body",
            "--noproxy",
            "*",
            // A busy machine may be that slow; this is not what the tests check.
            "--max-time",
            "90",
            &url,
        ];
        let output = self
            .machine
            .run_on_network(&[curl, &words[..], options].concat(), CALL_LIMIT)?;
        if output.status != 0 {
            bail!("{output}");
        }
        Ok(output.stdout)
    }
}

fn finished_builds(answer: &Value) -> Result<Vec<Build>> {
    let builds = answer["builds"]
        .as_array()
        .with_context(|| format!("find builds in {answer}"))?;
    let finished = builds
        .iter()
        .filter(|build| build["complete"] == json!(true));
    finished
        .map(|build| {
            let number = |field: &str| {
                build[field]
                    .as_u64()
                    .with_context(|| format!("find `{field}` in {build}"))
            };
            Ok(Build {
                id: number("buildid")?,
                results: number("results")?,
                state: build["state_string"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned(),
            })
        })
        .collect()
}
