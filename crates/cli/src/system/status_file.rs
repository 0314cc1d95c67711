//! `status.json`: the runner's report about its Buildbot. The service user writes it, so it is read without following
//! links, with a size limit, and its content is foreign text.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

use buildbot_conda_core::foreign_text::ForeignText;
use buildbot_conda_core::starter::NETWORK;
use serde::{Deserialize, Serialize};

use super::foreign_file;

/// The format that this program reads. A newer runner may write more keys, never other meanings.
const VERSION: u32 = 1;
/// The state of a master that waits for another one of its name to end.
pub(crate) const STANDBY: &str = "standby";
/// Seconds.
pub(crate) const DAY: f64 = 86_400.0;
/// Bytes; a real one has a few hundred.
const LARGEST: u64 = 1 << 20;

/// One instance in its runner's words. Times are seconds since 1970.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StatusFile {
    version: u32,
    /// `starting`, [`STANDBY`], `running`, `reloading`, `stopping`, `stopped` or `failed`.
    pub(crate) state: ForeignText,
    /// The process that wrote it.
    pub(crate) pid: u32,
    /// How many times its process had written it, as far as its runner counts that.
    #[serde(default)]
    pub(crate) serial: u64,
    /// When this start began: the same process may start again. Runners of the first versions do not write it.
    #[serde(default)]
    pub(crate) begun: Option<f64>,
    /// Fingerprint of the drop-in that systemd started the process with.
    #[serde(default)]
    pub(crate) drop_in: Option<ForeignText>,
    /// Version of Buildbot, once known.
    #[serde(default)]
    pub(crate) buildbot: Option<ForeignText>,
    /// The last status line.
    #[serde(default)]
    pub(crate) message: Option<ForeignText>,
    /// The last reconfiguration of a master.
    #[serde(default)]
    pub(crate) reconfiguration: Option<Reconfiguration>,
    /// A worker's connection.
    #[serde(default)]
    pub(crate) worker: Option<WorkerStatus>,
    /// The database of a master, if it is on a server.
    #[serde(default)]
    pub(crate) database: Option<DatabaseStatus>,
    /// The certificates of a master's ports; of a worker, those that its master has shown.
    #[serde(default)]
    pub(crate) certificates: Vec<Certificate>,
    /// A master's port for workers of other hosts.
    #[serde(default)]
    pub(crate) door: Option<Door>,
    /// What a master that serves has to do.
    #[serde(default)]
    pub(crate) load: Option<Load>,
}

impl StatusFile {
    /// All certificates, that of a master's port for workers of other hosts included.
    pub(crate) fn shown_certificates(&self) -> impl Iterator<Item = Certificate> {
        let door = self.door.iter().map(|door| Certificate {
            port: NETWORK.into(),
            expires: door.certificate_until,
            authority: false,
        });
        self.certificates.iter().cloned().chain(door)
    }
}

impl Certificate {
    /// Whose it is, in words.
    pub(crate) fn owner(&self) -> String {
        let whose = if self.authority {
            "the authority of "
        } else {
            ""
        };
        format!("{whose}{}", self.port)
    }

    /// Whole days until it expires at `now`, in seconds since 1970, and the same in words.
    pub(crate) fn days_left(&self, now: f64) -> (f64, String) {
        let days = ((self.expires - now) / DAY).floor();
        let port = self.owner();
        let text = if days < 0.0 {
            format!("the certificate of {port} expired {} days ago", -days)
        } else {
            format!("the certificate of {port} is valid for {days} days")
        };
        (days, text)
    }
}

/// Now, in seconds since 1970.
pub(crate) fn now() -> f64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0.0, |since| since.as_secs_f64())
}

/// Where workers of other hosts connect.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Door {
    pub(crate) port: u16,
    /// When the certificate expires.
    pub(crate) certificate_until: f64,
}

/// The load of a master, at one moment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Load {
    pub(crate) at: f64,
    /// Seconds for which it could not react, at most, since the moment before.
    pub(crate) lag: f64,
    /// How many builds run.
    pub(crate) builds: u64,
    /// When the oldest of them was first seen.
    pub(crate) oldest_build: Option<f64>,
    /// The state of each worker: `connected`, `draining`, `latent`, `missing` or `paused`.
    pub(crate) workers: BTreeMap<ForeignText, ForeignText>,
    /// When the newest backup was written.
    pub(crate) backup: Option<f64>,
    /// None where it does not answer.
    pub(crate) database: Option<DatabaseLoad>,
}

/// What only the database knows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DatabaseLoad {
    /// Build requests that no master has started.
    pub(crate) requests: u64,
    /// When the oldest of them was submitted.
    pub(crate) oldest_request: Option<f64>,
    /// Seconds.
    pub(crate) answered_in: f64,
    /// Bytes, where they are known.
    pub(crate) size: Option<u64>,
}

/// A database of a server, and what the master is called there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DatabaseStatus {
    pub(crate) name: ForeignText,
    /// In words, such as `` `buildbot` (postgresql) on db.example.org ``.
    pub(crate) place: ForeignText,
}

/// A certificate that a master shows, or that of the authority behind it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Certificate {
    /// The key of `master.cfg` that has the port, or the file; of a worker, the address of its master.
    pub(crate) port: ForeignText,
    /// Seconds since 1970.
    pub(crate) expires: f64,
    /// Whether it is the one of the authority that a worker trusts.
    #[serde(default)]
    pub(crate) authority: bool,
}

/// A reconfiguration of a master.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Reconfiguration {
    /// How many reconfigurations this process has started.
    pub(crate) number: u64,
    /// `running`, `complete`, `aborted` or `partial`.
    pub(crate) outcome: ForeignText,
    /// Buildbot's words.
    #[serde(default)]
    pub(crate) message: Option<ForeignText>,
}

/// The state of a worker's connection to its master.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WorkerStatus {
    /// `connecting`, `connected`, `refused` or `lost`.
    pub(crate) connection: ForeignText,
    /// Whether an attempt is under way that has neither failed nor been without an answer for long.
    #[serde(default)]
    pub(crate) pending: bool,
    /// Whether anything has answered at the address of its master.
    #[serde(default)]
    pub(crate) reached: bool,
    /// Why it is `refused`: `login`, or `tls` where the worker does not accept its master.
    #[serde(default)]
    pub(crate) refusal: Option<ForeignText>,
    /// How its tac lets it be shut down: `signal`, `file`, or not at all.
    #[serde(default)]
    pub(crate) allow_shutdown: Option<ForeignText>,
}

impl WorkerStatus {
    /// Whether it is the worker that does not accept its master, by TLS.
    pub(crate) fn distrusts_master(&self) -> bool {
        self.connection == "refused"
            && self
                .refusal
                .as_ref()
                .is_some_and(|refusal| *refusal == "tls")
    }
}

/// Reads a status file; one that is missing, foreign or of another format is none.
pub(crate) fn read(path: &Path) -> Option<StatusFile> {
    let text = foreign_file::read(path, LARGEST).ok()?;
    let status: StatusFile = serde_json::from_slice(&text).ok()?;
    (status.version == VERSION).then_some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: impl AsRef<[u8]>) -> Option<StatusFile> {
        let file = tempfile::NamedTempFile::new().expect("a temporary file can be made");
        std::fs::write(file.path(), text).expect("it can be written");
        read(file.path())
    }

    #[test]
    fn unknown_keys_are_passed_over_and_other_versions_refused() {
        let status = read_text(r#"{"version":1,"state":"running","pid":3,"new":[]}"#);
        assert_eq!(status.map(|status| status.pid), Some(3));
        assert!(read_text(r#"{"version":2,"state":"running","pid":3}"#).is_none());
        assert!(read_text("{").is_none());
    }

    #[test]
    fn nothing_in_it_steers_a_terminal() {
        let evil = "\\u001b[2J\\u202e\\u009bx";
        let text = format!(
            r#"{{"version":1,"state":"{evil}","pid":3,"drop_in":"{evil}","buildbot":"{evil}","message":"{evil}",
                "reconfiguration":{{"number":1,"outcome":"{evil}","message":"{evil}"}},
                "worker":{{"connection":"{evil}","allow_shutdown":"{evil}"}},
                "certificates":[{{"port":"{evil}","expires":1,"authority":true}}]}}"#
        );
        let status = read_text(&text).expect("it is a status file");
        let shown = format!("{status:?}") + &serde_json::to_string(&status).expect("JSON");
        assert_eq!(shown.matches("[2J").count(), 18, "{shown}");
        let shown = shown + &status.certificates[0].days_left(0.0).1;
        assert!(!shown.contains(['\u{1b}', '\u{202e}', '\u{9b}']), "{shown}");
    }

    mod properties {
        use buildbot_conda_core::foreign_text::is_plain;
        use proptest::prelude::*;
        use serde_json::json;

        use super::*;

        proptest! {
            #[test]
            fn a_status_file_says_what_was_written_and_shows_nothing_hidden(
                texts in prop::collection::vec(any::<String>(), 9),
                pid in any::<u32>(),
                number in any::<u64>(),
            ) {
                let text = json!({
                    "version": 1, "state": texts[0], "pid": pid, "drop_in": texts[1], "buildbot": texts[2],
                    "message": texts[3], "reconfiguration": {"number": number, "outcome": texts[4], "message": texts[5]},
                    "worker": {"connection": texts[6], "allow_shutdown": texts[7]}, "new": texts[8],
                });
                let status = read_text(text.to_string()).expect("it is a status file");
                prop_assert_eq!(&status.state, &ForeignText::new(&texts[0]));
                prop_assert_eq!(status.pid, pid);
                let shown = serde_json::to_string(&status).expect("JSON");
                prop_assert!(is_plain(&shown) && is_plain(&format!("{status:?}")), "{}", shown);
                // Also after another process has handed it on.
                let again = read_text(&shown).expect("it is a status file");
                prop_assert_eq!(serde_json::to_string(&again).expect("JSON"), shown);
            }

            #[test]
            fn whatever_became_of_a_status_file_shows_nothing_hidden(
                bytes in any::<Vec<u8>>(),
                at in any::<prop::sample::Index>(),
                state in "[ -~]{0,9}",
            ) {
                prop_assert!(read_text(&bytes).is_none());
                let whole = json!({"version": 1, "pid": 3, "state": state, "drop_in": "x"}).to_string();
                let at = at.index(whole.len());
                let damaged = [&whole.as_bytes()[..at], &bytes, &whole.as_bytes()[at..]].concat();
                if let Some(status) = read_text(damaged) {
                    prop_assert!(is_plain(&serde_json::to_string(&status).expect("JSON")));
                }
            }
        }
    }
}
