//! Steps with the web server in front of a master.

use std::fmt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use buildbot_conda_core::web::WEB;
use serde::{Deserialize, Serialize};

use super::{Deed, FileStep, Undo};
use crate::output::harmless;
use crate::system::files;
use crate::system::front::Front;
use crate::system::interrupt;
use crate::system::requests::{Answer, Much, Way, ask};
use crate::system::values::{Mode, Ownership};

/// Seconds that a master may take to show what its reload has come to the end of.
const PATIENCE: u64 = 5;
/// Time between two looks.
const POLL: Duration = Duration::from_millis(300);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FrontStep {
    /// A site file becomes `after`, none where that is nothing; the front checks it and reads it.
    ServeSite {
        front: Front,
        path: PathBuf,
        /// By which the file counts.
        link: Option<PathBuf>,
        before: Option<String>,
        after: Option<String>,
    },
    /// A master that has read its configuration again knows as what others reach it, and so who may do what. Asked before
    /// anybody else can ask it.
    AskMaster { host: String, web_port: u16 },
    /// The front answers as it should, to whoever has not logged in.
    AskFront(Asked),
}

/// What is asked for, and what it should come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asked {
    pub(crate) host: String,
    /// The master's own.
    pub(crate) web_port: u16,
    pub(crate) private: bool,
    /// What `/auth/login` answers to somebody without a password.
    pub(crate) login_status: u16,
    /// Seconds that the front may take to serve what it has just read, and to get a certificate where it does that.
    pub(crate) patience: u64,
}

impl fmt::Display for FrontStep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServeSite {
                front, path, after, ..
            } => {
                let path = harmless(&path.display().to_string());
                match after {
                    Some(_) => write!(formatter, "write `{path}`, check it and reload `{front}`"),
                    None => write!(formatter, "remove `{path}`, and reload `{front}`"),
                }
            }
            Self::AskMaster { host, web_port } => write!(
                formatter,
                "see that the master at port {web_port} knows that it is https://{host}/"
            ),
            Self::AskFront(Asked { host, private, .. }) => {
                let access = if *private {
                    "with a login required"
                } else {
                    "readable without login"
                };
                write!(
                    formatter,
                    "check pages, websocket, events and hooks of https://{host}/, {access}"
                )
            }
        }
    }
}

impl Deed for FrontStep {
    fn undo(&self) -> anyhow::Result<Undo> {
        Ok(match self {
            Self::ServeSite {
                front,
                path,
                link,
                before,
                after,
            } => Undo::by(Self::ServeSite {
                front: *front,
                path: path.clone(),
                link: link.clone(),
                before: after.clone(),
                after: before.clone(),
            }),
            Self::AskMaster { .. } | Self::AskFront(_) => Undo::nothing(),
        })
    }

    fn perform(&self) -> anyhow::Result<()> {
        match self {
            Self::ServeSite {
                front,
                path,
                link,
                after,
                ..
            } => {
                if let Some(text) = after {
                    files::write(path, text, 0o600)?;
                    if let Some(group) = front.reader() {
                        let ownership = Ownership {
                            mode: Mode::new(0o640),
                            user: "root".parse()?,
                            group: group.parse()?,
                        };
                        let (path, ownership) = (path.clone(), ownership.into());
                        FileStep::SetMode { path, ownership }.perform()?;
                    }
                    link.iter().try_for_each(|link| files::link(link, path))?;
                } else {
                    link.iter().try_for_each(|link| files::remove(link))?;
                    files::remove(path)?;
                }
                front.check()?;
                front.reload()
            }
            Self::AskMaster { host, web_port } => {
                patiently(PATIENCE, || ensure_knows(host, *web_port))
            }
            Self::AskFront(asked) => patiently(asked.patience, || asked.request_all())
                .with_context(|| format!("request https://{}/", asked.host)),
        }
    }

    fn relies_on_others(&self) -> bool {
        true
    }
}

/// Asks again until the answer is good, for so many seconds.
fn patiently(seconds: u64, attempt: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        match attempt() {
            Err(_) if Instant::now() < deadline && !interrupt::is_noted() => thread::sleep(POLL),
            outcome => return outcome,
        }
    }
}

/// What pages say of where they are.
fn address(host: &str) -> String {
    format!("\"buildbotURL\": \"https://{host}/\"")
}

/// By its own page, which everybody on this machine may read.
fn ensure_knows(host: &str, web_port: u16) -> anyhow::Result<()> {
    let page = ask(Way::Plain(web_port), "GET", "/", "", "", Much::All)?;
    ensure!(
        page.body.contains(&address(host)),
        "the pages at port {web_port} of this host do not say that they are https://{host}/: the configuration of the \
         master does not use `{WEB}`\n\
         hint: `buildbot-conda web lines` prints the missing lines and where to insert them"
    );
    Ok(())
}

impl Asked {
    /// One request of each kind, as somebody makes them who has not logged in.
    fn request_all(&self) -> anyhow::Result<()> {
        let front = Way::Front(&self.host);
        let get = |path: &str| ask(front, "GET", path, "", "", Much::All);
        let page = get("/")?;
        let is_page = page.body.contains(&address(&self.host));
        ensure!(is_page != self.private, "the page is {}", page.line);
        self.judge("the list of masters", &get("/api/v2/masters?limit=1")?, 200)?;
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
        self.judge(
            "a websocket",
            &ask(front, "GET", "/ws", upgrade, "", Much::Head)?,
            101,
        )?;
        let events = "/sse/listen/builders/*/builds/*/*";
        self.judge(
            "the stream of events",
            &ask(front, "GET", events, "", "", Much::Head)?,
            200,
        )?;
        let hook = |way| ask(way, "POST", "/change_hook/", "", "", Much::All);
        let (here, there) = (hook(Way::Plain(self.web_port))?, hook(front)?);
        ensure!(
            here.status == there.status,
            "the answer to a hook is {} instead of {}",
            there.line,
            here.status
        );
        let login = get("/auth/login")?;
        ensure!(
            login.status == self.login_status,
            "the answer to the login is {} instead of {}",
            login.line,
            self.login_status
        );
        let robots = get("/robots.txt")?;
        ensure!(
            robots.body.contains("Disallow: /"),
            "`robots.txt` is {}",
            robots.line
        );
        Ok(())
    }

    /// What is closed to strangers in private is answered by 403.
    fn judge(&self, what: &str, answer: &Answer, open: u16) -> anyhow::Result<()> {
        let wanted = if self.private { 403 } else { open };
        if answer.status != wanted {
            bail!(
                "the answer to {what} is {} instead of {wanted}",
                answer.line
            );
        }
        Ok(())
    }
}
