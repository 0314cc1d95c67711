//! The certificates that a running master shows, and those that a running worker has seen of its master: by the word of
//! their runners.

use buildbot_conda_core::names::{InstanceRef, Role};
use buildbot_conda_core::settings::Instance;
use buildbot_conda_core::starter::NETWORK;

use super::finding::{Check, Finding};
use super::scene::Scene;
use super::worker;
use crate::system::status_file::{self, Certificate};

/// Days before its end from which on a certificate should have been renewed.
const RENEWAL: f64 = 14.0;
/// The same of an authority's, which every worker of another host has to get from a person.
const NEW_AUTHORITY: f64 = 60.0;

pub(super) fn judge(instance: &Instance, scene: &Scene<'_>) -> Vec<Finding> {
    let now = status_file::now();
    let Some(status) = worker::status(instance, scene) else {
        return Vec::new();
    };
    let judge = |certificate: Certificate| of(&instance.reference, &certificate, now);
    status.shown_certificates().map(judge).collect()
}

/// `now` is in seconds since 1970.
fn of(reference: &InstanceRef, certificate: &Certificate, now: f64) -> Finding {
    let (days, seen) = certificate.days_left(now);
    let soon = if certificate.authority {
        NEW_AUTHORITY
    } else {
        RENEWAL
    };
    if days >= soon {
        return Finding::ok(Check::Certificates, Some(reference), seen);
    }
    let finding = if days < 0.0 {
        Finding::problem(Check::Certificates, Some(reference), seen)
    } else {
        Finding::warning(Check::Certificates, Some(reference), seen)
    };
    if reference.role == Role::Worker {
        return finding.words(elsewhere(certificate));
    }
    if certificate.port == NETWORK {
        return finding
            .words("the timer `buildbot-conda-upkeep` renews it a month before it expires; its journal shows why it has not")
            .command(["systemctl", "start", "buildbot-conda-upkeep.service"])
            .command(["journalctl", "--unit", "buildbot-conda-upkeep.service"]);
    }
    finding
        .words("renew it; after the reload, the master uses the new one")
        .command(["systemctl", "reload", &reference.unit_name()])
}

/// What is to be done on the host of the master.
fn elsewhere(certificate: &Certificate) -> &'static str {
    if certificate.authority {
        "if `buildbot-conda invite` created the authority, move `/etc/buildbot-conda/authority` away on the master's host, \
         and run `buildbot-conda rotate NAME` there and `buildbot-conda join` here; otherwise put the new authority into \
         the `trustRoots` of the worker"
    } else {
        "renew it on the master's host; if `buildbot-conda invite` created it, `systemctl start buildbot-conda-upkeep` \
         renews it there, and the journal of that unit shows why it was not renewed"
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;
    use crate::system::status_file::{DAY, StatusFile};

    #[test]
    fn certificates_are_judged_by_the_days_that_are_left() {
        for (reference, authority, days, severity, hint) in [
            ("master", false, -1.5, Severity::Problem, "after the reload"),
            ("master", false, 0.5, Severity::Warning, "after the reload"),
            ("master", false, 13.5, Severity::Warning, "after the reload"),
            ("master", false, 14.5, Severity::Ok, ""),
            (
                "worker",
                false,
                -1.5,
                Severity::Problem,
                "on the master's host",
            ),
            (
                "worker",
                false,
                13.5,
                Severity::Warning,
                "on the master's host",
            ),
            ("worker", false, 14.5, Severity::Ok, ""),
            ("worker", true, -1.5, Severity::Problem, "rotate NAME"),
            ("worker", true, 59.5, Severity::Warning, "rotate NAME"),
            ("worker", true, 60.5, Severity::Ok, ""),
        ] {
            let certificate = Certificate {
                port: "ci.example.org:9989".into(),
                expires: 1e9 + days * DAY,
                authority,
            };
            let finding = of(&reference.parse().expect("a reference"), &certificate, 1e9);
            assert_eq!(finding.severity, severity, "{reference}, {days}");
            let words = serde_json::to_string(&finding).expect("JSON");
            assert!(words.contains(hint), "{words}");
            let whose = "the certificate of the authority of ci.example.org:9989";
            assert_eq!(words.contains(whose), authority, "{words}");
        }
    }

    #[test]
    fn the_port_for_workers_of_other_hosts_is_judged_as_well() {
        for (days, severity) in [(-1.5, Severity::Problem), (14.5, Severity::Ok)] {
            let status: StatusFile = serde_json::from_value(serde_json::json!({
                "version": 1, "state": "running", "pid": 1,
                "door": {"port": 9989, "certificate_until": 1e9 + days * DAY},
            }))
            .expect("a status file");
            let shown: Vec<Certificate> = status.shown_certificates().collect();
            let finding = of(&"master".parse().expect("a reference"), &shown[0], 1e9);
            assert_eq!((shown.len(), finding.severity), (1, severity), "{days}");
        }
    }
}
