//! What becomes of each directive of a hand-made unit: it is in our configuration, holds on in a drop-in as it is written,
//! is answered by our unit with something that is equal or stronger, is left behind by name, or refused by name.

use std::time::Duration;

use buildbot_conda_core::names::{InstanceRef, Role};
use buildbot_conda_core::unit_text::{Place, Setting, words};

use super::derived::{Derived, Remark, Unit};
use super::reading::Process;

/// What becomes of a directive.
enum Fate {
    /// It is read elsewhere.
    Read,
    Carried(String),
    Answered,
    Left,
    Refused(&'static str),
}

const TMPFILES_HINT: &str =
    "create the directory with tmpfiles.d(5), and remove the line from the unit";
const TAKE_OUT_HINT: &str = "remove the line from the unit, or keep the unit as it is";
const NAME_HINT: &str = "write the name of the unit instead of the specifier";

/// Targets that our unit is ordered after, or that do not exist any more.
const OURS: [&str; 6] = [
    "network.target",
    "network-online.target",
    "nss-user-lookup.target",
    "syslog.target",
    "basic.target",
    "sysinit.target",
];
/// Descriptors that our unit has.
const DESCRIPTORS: u64 = 65536;
/// What our unit grants a start and a stop at least.
const START: Duration = Duration::from_secs(90);
const STOP: Duration = Duration::from_secs(90);

/// What of the old unit still means the same beside ours.
pub(super) fn sort_out(unit: &Unit<'_>, reference: &InstanceRef, derived: &mut Derived) {
    let has_own_name = unit.name == reference.unit_name();
    for setting in unit.settings {
        let line = format!("{}={}", setting.key, setting.value);
        let place = setting.place.clone();
        let mut fate = fate(setting, reference.role);
        if let Fate::Carried(line) = &fate
            && !has_own_name
            && ["%n", "%N", "%p", "%P", "%i", "%I", "%j", "%J"]
                .iter()
                .any(|specifier| line.contains(specifier))
        {
            fate = Fate::Refused(NAME_HINT);
        }
        match fate {
            Fate::Read => {}
            // An empty one takes back those before it.
            Fate::Carried(_) if setting.value.is_empty() => {
                let begin = format!("{}=", setting.key);
                let lines = derived.carried.entry(setting.section.clone()).or_default();
                lines.retain(|(line, _)| !line.starts_with(&begin));
                if lines.is_empty() {
                    derived.carried.remove(&setting.section);
                }
            }
            Fate::Carried(line) => derived.carry(&setting.section, line, place),
            Fate::Answered => {
                if !derived.answered.contains(&setting.key) {
                    derived.answered.push(setting.key.clone());
                }
            }
            Fate::Left => derived.left.push(Remark { place, text: line }),
            Fate::Refused(hint) => {
                let text = format!("`{line}` is incompatible with the package's unit");
                derived.refuse(&place, text, hint);
            }
        }
    }
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn fate(setting: &Setting, role: Role) -> Fate {
    let (key, value) = (setting.key.as_str(), setting.value.as_str());
    let carried = || Fate::Carried(format!("{key}={value}"));
    let answered_if = |is_equal_or_stronger: bool| {
        if is_equal_or_stronger {
            Fate::Answered
        } else {
            carried()
        }
    };
    match (setting.section.as_str(), key) {
        ("Unit", "Description" | "Documentation" | "SourcePath")
        // How the old process was watched, where ours says itself how it is.
        | ("Service", "GuessMainPID" | "NotifyAccess" | "RemainAfterExit") => Fate::Answered,
        ("Unit", "After" | "Wants") => {
            let is_ours = |word: &&str| {
                key == "After" && OURS.contains(word) || *word == "network-online.target"
            };
            let rest: Vec<&str> = value
                .split_whitespace()
                .filter(|word| !is_ours(word))
                .collect();
            if rest.is_empty() && !value.is_empty() {
                Fate::Answered
            } else {
                Fate::Carried(format!("{key}={}", rest.join(" ")))
            }
        }
        ("Unit", "StartLimitIntervalSec" | "StartLimitInterval") => answered_if(is_zero(value)),
        // Links enable a unit, and those are taken over, wherever they are.
        ("Install", "WantedBy") if value == "multi-user.target" => Fate::Answered,
        ("Service", "User" | "Group" | "WorkingDirectory" | "Environment" | "ExecStart") => {
            Fate::Read
        }
        ("Service", "ExecReload" | "ExecStop") => {
            if is_plain_control(value) {
                Fate::Answered
            } else {
                Fate::Left
            }
        }
        ("Service", key)
            if key.starts_with("Exec") && !["ExecPaths", "ExecSearchPath"].contains(&key) =>
        {
            Fate::Left
        }
        ("Service", "Type") => match value {
            "dbus" => Fate::Refused(TAKE_OUT_HINT),
            _ => Fate::Answered,
        },
        ("Service", "PIDFile") => Fate::Left,
        ("Service", "KillMode") => {
            if ["mixed", "control-group", ""].contains(&value) {
                Fate::Answered
            } else {
                Fate::Left
            }
        }
        ("Service", "KillSignal") => {
            if ["SIGTERM", "TERM", "15", ""].contains(&value) {
                Fate::Answered
            } else {
                Fate::Left
            }
        }
        (
            "Service",
            "WatchdogSec" | "WatchdogSignal" | "RestartKillSignal" | "StandardOutput"
            | "StandardError" | "StandardInput",
        ) => match (key, value) {
            ("WatchdogSec", value) if is_zero(value) => Fate::Answered,
            ("StandardOutput" | "StandardError", "journal" | "inherit" | "syslog" | "") => {
                Fate::Answered
            }
            ("StandardInput", "null" | "") => Fate::Answered,
            _ => Fate::Left,
        },
        ("Service", "Restart") => answered_if(match role {
            Role::Master => [
                "on-failure",
                "on-abnormal",
                "on-abort",
                "on-watchdog",
                "no",
                "",
            ]
            .contains(&value),
            // Ours is `always`.
            Role::Worker => true,
        }),
        ("Service", "RestartSec") => answered_if(span(value) == Some(Duration::from_secs(5))),
        ("Service", "TimeoutStartSec" | "TimeoutStopSec" | "TimeoutSec") => {
            let ours = if key == "TimeoutStopSec" { STOP } else { START };
            answered_if(span(value).is_some_and(|span| span <= ours))
        }
        ("Service", "LimitNOFILE") => {
            let soft = value
                .split(':')
                .next()
                .and_then(|text| text.parse::<u64>().ok());
            answered_if(soft.is_some_and(|soft| soft <= DESCRIPTORS))
        }
        ("Service", "TasksMax") => answered_if(role == Role::Worker),
        ("Service", "OOMPolicy") => answered_if(role == Role::Worker && value == "continue"),
        (
            "Service",
            "RuntimeDirectory"
            | "RuntimeDirectoryMode"
            | "RuntimeDirectoryPreserve"
            | "StateDirectory"
            | "StateDirectoryMode",
        ) => Fate::Refused(TMPFILES_HINT),
        (
            "Service",
            "BusName"
            | "DynamicUser"
            | "PAMName"
            | "RootDirectory"
            | "RootImage"
            | "RootHash"
            | "RootVerity"
            | "Sockets"
            | "NonBlocking"
            | "PermissionsStartOnly"
            | "RootDirectoryStartOnly"
            | "TTYPath"
            | "USBFunctionDescriptors",
        ) => match value {
            "no" | "false" | "0" | "off" | "" => Fate::Answered,
            _ => Fate::Refused(TAKE_OUT_HINT),
        },
        // All others are rules of systemd.exec(5) and its neighbours that say the same of any process.
        ("Unit" | "Service", _) => carried(),
        _ => Fate::Left,
    }
}

/// `kill -HUP $MAINPID`, `buildbot stop DIR`: our unit has the same for its own process.
fn is_plain_control(value: &str) -> bool {
    let Some(words) = words(value) else {
        return false;
    };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let first = words
        .first()
        .copied()
        .unwrap_or_default()
        .trim_start_matches(['-', '@', ':']);
    match (first.rsplit('/').next(), &words[..]) {
        (Some("kill"), [_, rest @ ..]) => rest
            .last()
            .is_some_and(|last| *last == "$MAINPID" || *last == "${MAINPID}"),
        (Some("buildbot" | "buildbot-worker"), [_, verb, rest @ ..]) => {
            ["stop", "reconfig", "sighup"].contains(verb)
                && !rest.iter().any(|word| word.starts_with('-'))
        }
        _ => value.is_empty(),
    }
}

/// As systemd.time(7) has it; none for `infinity` and what is not understood.
fn span(value: &str) -> Option<Duration> {
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    humantime::parse_duration(value).ok()
}

fn is_zero(value: &str) -> bool {
    span(value) == Some(Duration::ZERO)
}

/// What the scripts changed about their process goes on as a directive, behind those of the unit.
pub(super) fn hand_on(process: &Process, derived: &mut Derived) {
    for (key, found) in process {
        let soft = found.value.parse::<u64>().ok();
        if *key == "LimitNOFILE" && soft.is_some_and(|soft| soft <= DESCRIPTORS) {
            derived.answered.push((*key).to_owned());
            continue;
        }
        let mut value = found.value.clone();
        if *key == "Nice" {
            let lines = derived.carried.get("Service").into_iter().flatten();
            let before = lines
                .filter_map(|(line, _)| line.strip_prefix("Nice="))
                .next_back();
            value = super::reading::nicer(before.unwrap_or("0"), &value);
        }
        let line = format!("{key}={value}");
        derived.carry("Service", line, found.place.clone());
    }
}

/// A master's files stay as readable as they were: other programs may read what its steps write.
pub(super) fn keep_mask(reference: &InstanceRef, whole: &Place, derived: &mut Derived) {
    let mut lines = derived.carried.get("Service").into_iter().flatten();
    if reference.role == Role::Master && !lines.any(|(line, _)| line.starts_with("UMask=")) {
        derived.carry("Service", "UMask=0022".to_owned(), whole.clone());
    }
}
