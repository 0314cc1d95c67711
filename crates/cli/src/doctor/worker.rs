//! What a worker's tac and connection amount to.

use buildbot_conda_core::names::Role;
use buildbot_conda_core::paths;
use buildbot_conda_core::settings::Instance;

use super::directory::as_user;
use super::finding::{Check, Finding};
use super::inside::{Inside, PythonFacts, Reach, Tac, WorkerInTac};
use super::scene::Scene;
use crate::system::status_file::{self, StatusFile, WorkerStatus};
use crate::system::systemd::Unit;

const CERTIFICATE: &str = "configure a certificate for the master that the worker trusts, for the name in the worker's `buildbot.tac`";

pub(super) fn judge(instance: &Instance, inside: &Inside, scene: &Scene<'_>) -> Vec<Finding> {
    if instance.reference.role != Role::Worker
        || scene.is_set_up(instance) == Some(false)
        || inside.says_why_nothing_runs()
    {
        return Vec::new();
    }
    let reference = Some(&instance.reference);
    let mut findings = Vec::new();
    let python = inside
        .python
        .as_ref()
        .and_then(|python| python.as_ref().ok());
    let tac = python.and_then(|python| python.tac.as_ref());
    if let (Some(python), Some(tac)) = (python, tac) {
        findings.extend(of_tac(instance, python, tac));
    } else if runs_from_its_tac(instance, scene) {
        let seen = "the running worker uses it, and can drain";
        let ok = |check| Finding::ok(check, reference, seen);
        findings.extend([Check::Tac, Check::AllowShutdown].map(ok));
    } else {
        let unseen = |check| Finding::unseen(check, reference, "`buildbot.tac` was not run");
        findings.extend([Check::Tac, Check::AllowShutdown].map(unseen));
    }
    findings.push(connection(instance, tac, scene));
    findings
}

fn of_tac(instance: &Instance, python: &PythonFacts, tac: &Tac) -> Vec<Finding> {
    let reference = Some(&instance.reference);
    let path = format!("{}/buildbot.tac", instance.directory);
    if let Some(reason) = &tac.failure {
        let seen = format!("`{path}` cannot be run: {reason}");
        return vec![
            Finding::problem(Check::Tac, reference, seen)
                .words("correct it, or create it again with `buildbot-worker create-worker`"),
        ];
    }
    if tac.workers.is_empty() {
        let seen = format!("`{path}` defines no worker");
        return vec![
            Finding::problem(Check::Tac, reference, seen)
                .words("create it again with `buildbot-worker create-worker`"),
        ];
    }
    let mut findings = vec![Finding::ok(
        Check::Tac,
        reference,
        format!("`{path}` defines a worker"),
    )];
    findings.push(allow_shutdown(instance, python, tac));
    findings
}

/// Changes one line of the tac, as its owner, where there is such a line.
fn edit(
    finding: Finding,
    instance: &Instance,
    python: &PythonFacts,
    key: &str,
    value: &str,
) -> Finding {
    let path = format!("{}/buildbot.tac", instance.directory);
    if !python.editable.iter().any(|name| name == key) {
        return finding.words(format!(
            "set `{key} = {value}` in `{path}`, pass it to `Worker(...)`, and restart"
        ));
    }
    let script = format!("s/^{key} *=.*/{key} = {value}/");
    finding
        .command(as_user(
            instance,
            &["sed", "--in-place", "--expression", &script, &path],
        ))
        .command(["systemctl", "restart", &instance.reference.unit_name()])
        .words("the restart interrupts running builds, which are retried")
}

fn allow_shutdown(instance: &Instance, python: &PythonFacts, tac: &Tac) -> Finding {
    let reference = Some(&instance.reference);
    let allows = |worker: &WorkerInTac| worker.allow_shutdown.as_deref() == Some("signal");
    if tac.workers.iter().all(allows) {
        return Finding::ok(Check::AllowShutdown, reference, "the worker can drain");
    }
    let seen =
        "`buildbot.tac` does not allow the worker to drain: `systemctl reload` and `drain` fail";
    let finding = Finding::warning(Check::AllowShutdown, reference, seen);
    edit(finding, instance, python, "allow_shutdown", "'signal'")
}

/// The report of the runner of a running instance.
pub(super) fn status(instance: &Instance, scene: &Scene<'_>) -> Option<StatusFile> {
    let pid = scene.unit(instance).and_then(Unit::main_pid)?;
    let path = scene.context.path(&paths::status_file(&instance.reference));
    status_file::read(&path).filter(|status| status.pid == pid)
}

/// Whether a worker runs and is at its master.
pub(super) fn is_connected(instance: &Instance, scene: &Scene<'_>) -> bool {
    let worker = status(instance, scene).and_then(|status| status.worker);
    worker.is_some_and(|worker| worker.connection == "connected")
}

/// Whether a worker is at its master and can finish its builds, by a tac that has not changed since: then there is nothing
/// to be found out by running it.
pub(super) fn runs_from_its_tac(instance: &Instance, scene: &Scene<'_>) -> bool {
    let status = status(instance, scene).and_then(|status| status.worker);
    let is_served = status.is_some_and(|worker| {
        worker.connection == "connected" && worker.allow_shutdown.as_deref() == Some("signal")
    });
    let tac = scene
        .context
        .path(&format!("{}/buildbot.tac", instance.directory));
    let changed = || tac.symlink_metadata().ok()?.modified().ok();
    let started = || scene.unit(instance)?.main_process_started();
    is_served
        && changed()
            .zip(started())
            .is_some_and(|(changed, started)| changed < started)
}

/// The running worker knows best; without one, the way to the master is tried as far as the login.
fn connection(instance: &Instance, tac: Option<&Tac>, scene: &Scene<'_>) -> Finding {
    let reference = Some(&instance.reference);
    let status = status(instance, scene);
    let state = status
        .as_ref()
        .and_then(|status| status.worker.as_ref())
        .map(|worker| worker.connection.as_str());
    let message = || {
        status
            .as_ref()
            .and_then(|status: &StatusFile| status.message.clone())
            .unwrap_or_default()
    };
    let worker = status.as_ref().and_then(|status| status.worker.as_ref());
    if worker.is_some_and(WorkerStatus::distrusts_master) {
        let finding = Finding::problem(Check::Connection, reference, message());
        let now = status_file::now();
        let mut shown = status.iter().flat_map(StatusFile::shown_certificates);
        return if shown.any(|certificate| certificate.expires < now) {
            finding.words("another certificate is needed, see the check `certificates`")
        } else {
            finding.words(CERTIFICATE)
        };
    }
    match state {
        Some("connected") => return Finding::ok(Check::Connection, reference, message()),
        Some("refused") => {
            return Finding::problem(Check::Connection, reference, message()).words(format!(
                "name and password in `{}/buildbot.tac` must match the master's `workers`; then run `systemctl restart {}`",
                instance.directory,
                instance.reference.unit_name()
            ));
        }
        _ => {}
    }
    let workers = tac.map(|tac| tac.workers.as_slice()).unwrap_or_default();
    let tried = workers
        .iter()
        .find_map(|worker| Some((worker.target.as_deref()?, worker.reach.as_ref()?)));
    match (tried, state) {
        (Some((target, reach)), _) if reach.reason.is_some() => {
            unreachable(instance, target, reach, scene)
        }
        (Some((target, _)), Some(_)) => {
            let seen = format!("{target} answers, but the worker reports: {}", message());
            Finding::problem(Check::Connection, reference, seen).command([
                "systemctl",
                "restart",
                &instance.reference.unit_name(),
            ])
        }
        (Some((target, _)), None) => {
            let seen =
                format!("{target} answers; name and password are checked only by a running worker");
            Finding::ok(Check::Connection, reference, seen)
        }
        (None, _) => Finding::unseen(
            Check::Connection,
            reference,
            "the address of its master could not be determined",
        ),
    }
}

fn unreachable(instance: &Instance, target: &str, reach: &Reach, scene: &Scene<'_>) -> Finding {
    let reason = reach.reason.as_deref().unwrap_or_default();
    let problem =
        |seen: String| Finding::problem(Check::Connection, Some(&instance.reference), seen);
    let tac = format!("`{}/buildbot.tac`", instance.directory);
    match reach.step.as_str() {
        "dns" => problem(format!(
            "the host name of its master, {target}, cannot be resolved: {reason}"
        ))
        .words(format!(
            "correct it in {tac}, or fix the name resolution (`getent hosts`)"
        )),
        "tls" => problem(format!("{target} is not trusted: {reason}")).words(CERTIFICATE),
        "tcp" => {
            let finding = problem(format!("{target} does not answer: {reason}"));
            match stopped_master(target, scene) {
                Some(unit) => finding.command(["systemctl", "start", &unit]),
                None => finding.words("start the master, open its port, or correct `buildbot.tac`"),
            }
        }
        _ => problem(format!("{target} answers, but {reason}")).words(format!(
            "correct the port in {tac}: it is in `protocols` of the master"
        )),
    }
}

/// A master of this host that does not run, where the worker looks for one on this host.
fn stopped_master(target: &str, scene: &Scene<'_>) -> Option<String> {
    let is_socket = target.starts_with('/');
    let host = target.rsplit_once(':').map_or("", |(host, _)| host);
    let host = host.trim_matches(['[', ']']);
    if !(is_socket || host == "localhost" || host == "::1" || host.starts_with("127.")) {
        return None;
    }
    let masters = scene.settings?.instances().filter(|other| {
        other.reference.role == Role::Master
            && (!is_socket || paths::worker_socket(&other.reference) == target)
    });
    let set_up = masters.filter(|master| scene.is_set_up(master) == Some(true));
    let mut stopped = set_up.filter(|master| {
        scene
            .unit(master)
            .is_none_or(|unit| unit.main_pid().is_none())
    });
    stopped.next().map(|master| master.reference.unit_name())
}
