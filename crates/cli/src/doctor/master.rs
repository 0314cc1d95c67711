//! What Buildbot's own words about a master amount to: configuration, database, ports.

use buildbot_conda_core::foreign_text::ForeignText;
use buildbot_conda_core::names::Role;
use buildbot_conda_core::settings::{Hardening, Instance, Upgrade};

use super::finding::{Check, Finding};
use super::inside::{Database, Inside, MasterFacts};
use super::listeners::{self, Listener};
use super::scene::Scene;
use super::server;

/// What the failure of a database has for a status.
const AWAY: u8 = 69;

pub(super) fn judge(instance: &Instance, inside: &Inside, scene: &Scene<'_>) -> Vec<Finding> {
    if instance.reference.role != Role::Master {
        return Vec::new();
    }
    let reference = Some(&instance.reference);
    let Some(facts) = &inside.master else {
        let seen = "Buildbot was not run";
        let unseen = |check| Finding::unseen(check, reference, seen);
        return [
            Check::Checkconfig,
            Check::Sandbox,
            Check::Database,
            Check::Ports,
        ]
        .map(unseen)
        .into();
    };
    if scene.is_set_up(instance) == Some(false) || inside.says_why_nothing_runs() {
        return Vec::new();
    }
    if let Some(missing) = server::missing_driver(instance, facts, scene) {
        return vec![missing];
    }
    let mut findings = vec![configuration(instance, facts)];
    if let Some(elsewhere) = &facts.elsewhere {
        let seen = format!(
            "`{}/buildbot.tac` sets the base directory of the master to `{elsewhere}`: it is backed up, upgraded \
             and served, and files of the same name next to `buildbot.tac` are not used",
            instance.directory
        );
        findings.push(Finding::warning(Check::Directory, reference, seen).words(format!(
            "move `buildbot.tac` there and set `{}.directory`, or allow the service to write there",
            instance.reference
        )));
    }
    findings.extend(sandbox(instance, facts));
    findings.extend(database(instance, facts));
    let load = super::worker::status(instance, scene).and_then(|status| status.load);
    findings.extend(server::judge(instance, facts, load.as_ref()));
    findings.extend(super::front::judge(instance, &facts.ports, scene));
    findings.extend(
        facts
            .ports
            .iter()
            .map(|(purpose, port)| port_of(instance, purpose, *port, scene)),
    );
    findings
}

fn configuration(instance: &Instance, facts: &MasterFacts) -> Finding {
    let reference = Some(&instance.reference);
    match &facts.failure {
        Some((status, reason)) if *status != AWAY => {
            let seen = format!("Buildbot rejects the configuration: {reason}");
            Finding::problem(Check::Checkconfig, reference, seen).words(format!(
                "correct it in `{}`; a running master keeps its current configuration",
                instance.directory
            ))
        }
        _ => Finding::ok(
            Check::Checkconfig,
            reference,
            "Buildbot accepts the configuration",
        ),
    }
}

/// How much of what builds do inside the master is shown.
const MOST_SHOWN: usize = 3;

/// What a build does inside the master, it may do as far as the master may.
fn sandbox(instance: &Instance, facts: &MasterFacts) -> Option<Finding> {
    let reference = Some(&instance.reference);
    facts.database.as_ref()?;
    if facts.own_work.is_empty() {
        let seen = "no build does anything inside the master";
        return Some(Finding::ok(Check::Sandbox, reference, seen));
    }
    let shown: Vec<&str> = facts.own_work.iter().map(ForeignText::as_str).collect();
    let more = match shown.len().saturating_sub(MOST_SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let shown = shown[..shown.len().min(MOST_SHOWN)].join(", ");
    if instance.hardening == Hardening::None {
        let seen = format!("builds work inside the master, which has no sandbox: {shown}{more}");
        return Some(Finding::ok(Check::Sandbox, reference, seen));
    }
    let (word, directory) = (instance.reference.to_string(), &instance.directory);
    let seen = format!(
        "builds work inside the master, where everything outside of `{directory}` is read-only, `/tmp` is private, and \
         `sudo` is refused: {shown}{more}"
    );
    let finding = Finding::warning(Check::Sandbox, reference, seen)
        .command(["buildbot-conda", "set", &word, "hardening", "none"])
        .command(["systemctl", "daemon-reload"])
        .command(["systemctl", "restart", &instance.reference.unit_name()]);
    Some(finding.words(
        "that removes the master's sandbox; or let a worker do the work, as `buildbot-conda create worker` creates one, or \
         allow a single path with `ReadWritePaths=` in a drop-in",
    ))
}

fn database(instance: &Instance, facts: &MasterFacts) -> Option<Finding> {
    let reference = Some(&instance.reference);
    let word = instance.reference.to_string();
    let verb = |verb: &str| ["buildbot-conda", verb, &word].map(str::to_owned);
    let unit = instance.reference.unit_name();
    let problem = |seen: String| Finding::problem(Check::Database, reference, seen);
    if facts.is_marked {
        let seen = "an upgrade or a restoration of the database was interrupted";
        return Some(
            problem(seen.to_owned())
                .command(["systemctl", "start", &unit])
                .words("the start restores its backup and tries again"),
        );
    }
    if let Some((AWAY, reason)) = &facts.failure {
        return Some(
            problem(format!(
                "a service that the master needs does not answer: {reason}"
            ))
            .words("start that service, or correct `master.cfg`"),
        );
    }
    let Database {
        relation,
        place,
        revision,
        head,
        buildbot,
        ..
    } = facts.database.as_ref()?;
    Some(match relation.as_str() {
        "current" => Finding::ok(Check::Database, reference, format!("`{place}` is at schema {revision}")),
        "empty" => Finding::ok(Check::Database, reference, format!("the first start creates `{place}`")),
        "older" if instance.upgrade == Upgrade::Manual => problem(format!(
            "`{place}` is at schema {revision}, but Buildbot {buildbot} needs {head}; `upgrade` is `manual`"
        ))
        .command(["systemctl", "stop", &unit])
        .command(verb("upgrade"))
        .command(["systemctl", "start", &unit]),
        "older" => {
            let seen = format!(
                "`{place}` is at schema {revision}, but Buildbot {buildbot} needs {head}: the next start upgrades it"
            );
            Finding::warning(Check::Database, reference, seen).command(["systemctl", "restart", &unit])
        }
        "newer" => problem(format!(
            "`{place}` is at schema {revision}, which is newer than Buildbot {buildbot} (schema {head})"
        ))
        .command(["systemctl", "stop", &unit])
        .command(verb("restore"))
        .command(["systemctl", "start", &unit])
        .words("this restores the last backup; or install the Buildbot that wrote the database"),
        _ => problem(format!("`{place}` is damaged"))
            .command(["systemctl", "stop", &unit])
            .command(verb("restore"))
            .command(["systemctl", "start", &unit]),
    })
}

fn port_of(instance: &Instance, purpose: &str, port: u16, scene: &Scene<'_>) -> Finding {
    let reference = Some(&instance.reference);
    let Some(listener) = listeners::of(port) else {
        let seen = format!("port {port} ({purpose}) is free");
        return Finding::ok(Check::Ports, reference, seen);
    };
    let unit = instance.reference.unit_name();
    let main = scene
        .unit(instance)
        .and_then(crate::system::systemd::Unit::main_pid);
    let is_own = listener.pid.is_some() && listener.pid == main
        || listener.unit.as_deref() == Some(unit.as_str());
    if is_own {
        return Finding::ok(
            Check::Ports,
            reference,
            format!("port {port} ({purpose}) is used by the master itself"),
        );
    }
    if listener.pid.is_none() {
        let seen = format!("port {port} ({purpose}) is in use, only root can see by which process");
        return Finding::unseen(Check::Ports, reference, seen);
    }
    taken(instance, purpose, port, &listener)
}

fn taken(instance: &Instance, purpose: &str, port: u16, listener: &Listener) -> Finding {
    let Listener { pid, name, unit } = listener;
    let pid = pid.unwrap_or_default().to_string();
    let mut holder = format!("process {pid}");
    if let Some(name) = name {
        holder = format!("{holder} (`{name}`)");
    }
    if let Some(unit) = unit {
        holder = format!("{holder} of `{unit}`");
    }
    let seen = format!("port {port} ({purpose}) is used by {holder}");
    let finding = Finding::problem(Check::Ports, Some(&instance.reference), seen);
    let finding = match unit {
        Some(unit) => finding.command(["systemctl", "stop", unit]),
        None => finding.command(["kill", &pid]),
    };
    finding.words("or configure another port for the master")
}
