//! `doctor [REF]`: checks the actual state of everything that can be wrong, and reports what was found and the command
//! that fixes it.
//!
//! * `finding`: the result of a check, as a value
//! * `scene`: what is examined, gathered once: settings, units, accounts, the caller
//! * `inside`: facts that only the service user may read
//! * `configuration`, `package`, `secrets`, `unit_files`, `unit_state`, `host`, `unfinished`: what root or everyone can
//!   see
//! * `prefix`: an environment and all instances that run from it, with the commands that create or change it
//! * `certificates`, `directory`, `environment`, `master`, `server`, `front`, `worker`: conclusions from the facts from inside
//! * `report`: text and JSON; `mend`: `--fix`
//!
//! Nothing is changed without `--fix`. Root runs nothing that a service user can write, and facts from inside never
//! become a command.

mod certificates;
mod configuration;
mod directory;
mod environment;
mod finding;
mod front;
mod host;
mod inside;
mod listeners;
mod master;
mod mend;
mod package;
mod prefix;
mod report;
mod scene;
mod secrets;
mod server;
mod unfinished;
mod unit_files;
mod unit_state;
mod worker;

use std::io::IsTerminal as _;
use std::iter;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::settings::Instance;
use clap::{Args, ValueEnum as _};

use crate::output;
use crate::system::context::{Context, InvalidConfiguration, no_instance};
use finding::{Check, Finding, Severity};
use inside::{Depth, Inside};
use scene::{Scene, Viewer};

#[derive(Debug, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an option of its own"
)]
pub(crate) struct Arguments {
    /// Instance to examine, such as `master` or `worker@gpu`; by default all
    #[arg(value_name = "REF")]
    reference: Option<InstanceRef>,
    /// Run only these checks, separated by commas
    #[arg(long, value_name = "CHECK", value_delimiter = ',')]
    only: Vec<Check>,
    /// Also show checks that passed, and what could not be examined
    #[arg(long)]
    all: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Apply the safe fixes, which disturb no running service and touch no data
    #[arg(long, conflicts_with = "json")]
    fix: bool,
    /// With `--fix`: show what would be done, and change nothing
    #[arg(long, requires = "fix")]
    dry_run: bool,
    /// Print facts as the service user; for internal use
    #[arg(long, hide = true, requires = "reference")]
    inside: bool,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    let checks = if arguments.only.is_empty() {
        Check::value_variants().to_vec()
    } else {
        arguments.only.clone()
    };
    if arguments.inside
        && let Some(reference) = &arguments.reference
    {
        let settings = context.settings()?;
        let instance = settings
            .instance(reference)
            .map_err(InvalidConfiguration::from)?;
        return inside::print(instance, context, &checks);
    }
    let findings = examine(arguments, &checks, context)?;
    if arguments.dry_run {
        output::print(mend::plan(&findings))?;
        return Ok(status(&findings));
    }
    let findings = if arguments.fix && mend::run(&findings, context)? {
        examine(arguments, &checks, context)?
    } else {
        findings
    };
    if arguments.json {
        output::print(report::json(&findings)?)?;
    } else {
        output::print_labelled(&report::text(&findings, arguments.all, output::width()))?;
    }
    Ok(status(&findings))
}

/// 1 when something does not work; a warning is none.
fn status(findings: &[Finding]) -> ExitCode {
    let is_problem = |finding: &Finding| finding.severity == Severity::Problem;
    ExitCode::from(u8::from(findings.iter().any(is_problem)))
}

/// Every finding, the worst first; among equals the host's, then the instances' in their order.
fn examine(
    arguments: &Arguments,
    checks: &[Check],
    context: &Context,
) -> anyhow::Result<Vec<Finding>> {
    let settings = context.settings();
    if let (Some(reference), Ok(settings)) = (&arguments.reference, &settings)
        && settings.has_table(reference) == Some(false)
    {
        return Err(no_instance(reference, settings));
    }
    let scene = Scene::new(
        settings.as_ref().ok(),
        arguments.reference.as_ref(),
        checks,
        context,
    )?;
    let mut findings = configuration::examine(settings.as_ref(), &scene);
    findings.extend(package::examine(&scene));
    findings.extend(host::examine(&scene));
    findings.extend(unfinished::examine(&scene));
    findings.extend(unit_files::examine_all(&scene));
    let inner = insides(&scene);
    for (instance, inside) in scene.instances.iter().zip(inner) {
        findings.extend(secrets::examine(instance, &scene));
        findings.extend(unit_files::examine(instance, &scene));
        findings.extend(certificates::judge(instance, &scene));
        match inside {
            None => {}
            Some(Err(reason)) => findings.extend(not_seen(instance, &scene, &reason)),
            Some(Ok(inside)) => {
                findings.extend(directory::judge(instance, &inside, &scene));
                findings.extend(environment::judge(instance, &inside, &scene));
                findings.extend(master::judge(instance, &inside, &scene));
                findings.extend(worker::judge(instance, &inside, &scene));
            }
        }
    }
    // The commands are in an order in which they work: what does not run is started when nothing keeps it from running.
    let states = scene
        .instances
        .iter()
        .flat_map(|instance| unit_state::examine(instance, &scene));
    findings.extend(states);
    findings.retain(|finding| checks.contains(&finding.check));
    let mut findings = merged(findings);
    // Stable: the host first, then the instances in their order.
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Ok(findings)
}

/// Findings with one cause as one.
fn merged(findings: Vec<Finding>) -> Vec<Finding> {
    let mut merged: Vec<Finding> = Vec::new();
    for finding in findings {
        if !merged.iter_mut().any(|earlier| earlier.absorb(&finding)) {
            merged.push(finding);
        }
    }
    merged
}

/// Looks at the same time, at most: each waits for systemd and for a Python most of the time.
const LANES: usize = 4;

/// The facts from inside of each instance of the scene; none if there is nothing to examine. A machine may have
/// hundreds of instances: a shared environment is examined only once, by the first instance that uses it.
fn insides(scene: &Scene<'_>) -> Vec<Option<Result<Inside, String>>> {
    let instances = &scene.instances;
    let first_of = |place: usize| {
        let mut others = instances.iter();
        others.position(|other| share_an_environment(other, instances[place]))
    };
    let (first, others): (Vec<usize>, Vec<usize>) =
        (0..instances.len()).partition(|place| first_of(*place) == Some(*place));
    let mut results: Vec<_> = instances.iter().map(|_| None).collect();
    let shows_progress = std::io::stderr().is_terminal();
    let done = AtomicUsize::new(0);
    for (group, is_first) in [(first, true), (others, false)] {
        let shared = |place: usize| {
            let first: &Option<Result<Inside, String>> = results.get(first_of(place)?)?;
            (!is_first).then_some(first.as_ref()?.as_ref().ok()?)
        };
        let next = AtomicUsize::new(0);
        let examine_next = || {
            let place = *group.get(next.fetch_add(1, Ordering::Relaxed))?;
            if shows_progress {
                output::control(&format!(
                    "\rexamining, {} of {} instances done",
                    done.fetch_add(1, Ordering::Relaxed),
                    instances.len()
                ));
            }
            Some((place, inside_of(instances[place], shared(place), scene)))
        };
        let found: Vec<_> = thread::scope(|scope| {
            let lanes: Vec<_> = (0..LANES.min(group.len()))
                .map(|_| scope.spawn(|| iter::from_fn(examine_next).collect::<Vec<_>>()))
                .collect();
            lanes
                .into_iter()
                .map(thread::ScopedJoinHandle::join)
                .collect()
        });
        for place in &group {
            results[*place] = Some(Err("the check failed".to_owned()));
        }
        for (place, inside) in found.into_iter().flatten().flatten() {
            results[place] = inside;
        }
    }
    if shows_progress && !results.is_empty() {
        // Back, and nothing to the end of the line.
        output::control("\r\u{1b}[K");
    }
    results
}

/// Whether two instances see the same in their environment, apart from whether it is closed to their accounts.
fn share_an_environment(left: &Instance, right: &Instance) -> bool {
    left.prefix() == right.prefix()
        && left.reference.role == right.reference.role
        && left.environment == right.environment
        && left.hardening == right.hardening
}

/// One instance. What it shares with another one is not checked again.
fn inside_of(
    instance: &Instance,
    shared: Option<&Inside>,
    scene: &Scene<'_>,
) -> Option<Result<Inside, String>> {
    let mut checks = inside::concerned(&scene.checks);
    if checks.is_empty() {
        return None;
    }
    // Then there is nothing to try, and its master need not hear of it.
    if worker::is_connected(instance, scene) {
        checks.retain(|check| *check != Check::Connection);
    }
    if worker::runs_from_its_tac(instance, scene) {
        checks.retain(|check| ![Check::Tac, Check::AllowShutdown].contains(check));
    }
    let shared = shared.filter(|shared| shared.can_be_shared());
    if shared.is_some() && checks.iter().any(|check| inside::SHARED.contains(check)) {
        checks.retain(|check| !inside::SHARED.contains(check));
        // Whether it is closed to this one.
        if !checks.contains(&Check::Environment) {
            checks.push(Check::Environment);
        }
    }
    if checks.is_empty() {
        return Some(Ok(Inside::default()));
    }
    let viewer = scene.viewer(instance);
    let asked = match viewer {
        Viewer::Elsewhere | Viewer::Other => {
            let files = Depth::Files;
            Ok(inside::examine(instance, scene.context, &checks, files))
        }
        Viewer::Root if scene.account(&instance.user).is_none() => {
            return Some(Err(format!(
                "account `{}` not found",
                instance.user.as_str()
            )));
        }
        Viewer::Root => inside::ask(instance, &checks, true),
        Viewer::Owner => inside::ask(instance, &checks, false),
    };
    Some(match (asked, shared) {
        (Ok(inside), Some(shared)) => Ok(inside.with(shared)),
        (asked, _) => asked.map_err(|error| format!("{error:#}")),
    })
}

/// What is said when no facts come.
fn not_seen(instance: &Instance, scene: &Scene<'_>, reason: &str) -> Option<Finding> {
    let reference = Some(&instance.reference);
    // One that is missing is said by the check of accounts.
    scene.account(&instance.user)?;
    let check = *inside::concerned(&scene.checks).first()?;
    let user = instance.user.as_str();
    let seen = format!("cannot check as `{user}`: {reason}");
    Some(Finding::problem(check, reference, seen).command([
        "journalctl",
        "--unit",
        &instance.reference.unit_name(),
        "--lines",
        "50",
    ]))
}
