//! `headless`: whether this host boots without a graphical desktop, to `multi-user.target`, as usual for a machine for
//! builds. The previous target is recorded, and `off` restores it.
//!
//! The boot's target is the link `default.target`, bootup(7); `systemctl set-default` writes the same one. Nothing
//! changes before the next boot.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::output::{self, Manner, harmless};
use crate::plan::{self, Closing, FileStep, Plan, UnitStep};
use crate::system::context::Context;
use crate::system::files::{self, Found};
use crate::system::systemd;
use crate::system::values::Mode;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Boot without a desktop, starting with the next boot
    On(Manner),
    /// Restore the boot target from before `on`
    Off(Manner),
    /// Show the target of the next boot
    Status(Status),
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The administrator's link.
const LINK: &str = "/etc/systemd/system/default.target";
/// The link of the distribution, which applies if there is no other.
const DEFAULT: &str = "/usr/lib/systemd/system/default.target";
/// Where `/usr` is merged or not, it is here.
const HEADLESS: &str = "/lib/systemd/system/multi-user.target";
/// One line: where [`LINK`] led before, empty when there was none. Mode 0644.
const BEFORE: &str = "/var/lib/buildbot-conda/headless";

/// If there is no link at all, systemd searches further than this code.
const UNKNOWN: &str = "an unknown target";

/// What the host boots to, and what it booted to before.
#[derive(Debug, PartialEq, Eq)]
struct Boot {
    /// Where the administrator's link leads.
    link: Option<PathBuf>,
    /// Where the distribution's leads.
    default: Option<PathBuf>,
    /// What `on` has noted when it changed the link: where it led before, empty for no link.
    before: Option<String>,
}

/// What `status --json` prints. Keys may be added, none changes its meaning.
#[derive(Debug, Serialize)]
struct Report {
    /// Whether the next boot is without a desktop.
    headless: bool,
    /// The unit that is started by the next boot; none if no link sets it.
    target: Option<String>,
    /// The unit that `off` restores; none if it changes nothing.
    before: Option<String>,
}

pub(crate) fn run(verb: &Verb, context: &Context) -> anyhow::Result<ExitCode> {
    let manner = match verb {
        Verb::Status(arguments) => return status(arguments, context),
        Verb::On(manner) | Verb::Off(manner) => *manner,
    };
    let this = plan::Verb {
        name: "headless",
        manner,
        works_elsewhere: true,
        record: None,
    };
    let plan = || Ok((plan(verb, context)?, ()));
    let state = |(): &()| {
        let report = Boot::read(context)?.report();
        serde_json::to_value(report).context("describe the boot")
    };
    this.run(context, plan, state, |()| Closing::default())
}

fn status(arguments: &Status, context: &Context) -> anyhow::Result<ExitCode> {
    let report = Boot::read(context)?.report();
    if arguments.json {
        let json = serde_json::to_string_pretty(&report).context("write JSON")?;
        return output::print(format_args!("{json}\n"));
    }
    output::print(report.text())
}

fn plan(verb: &Verb, context: &Context) -> anyhow::Result<Plan> {
    let boot = Boot::read(context)?;
    let mut plan = match verb {
        Verb::On(_) => boot.on(context)?,
        Verb::Off(_) => boot.off(context),
        Verb::Status(_) => Plan::default(),
    };
    let is_booted = systemd::runs(context);
    if is_booted && !plan.steps.is_empty() {
        plan.steps.push(UnitStep::ReloadSystemd.into());
    }
    Ok(plan)
}

impl Boot {
    fn read(context: &Context) -> anyhow::Result<Self> {
        let link = |path: &str| match files::inspect(&context.path(path))? {
            Found::Nothing => Ok(None),
            Found::Link(target) => Ok(Some(target)),
            Found::File { .. } | Found::Directory => bail!("`{path}` is not a link"),
        };
        let before = match files::inspect(&context.path(BEFORE))? {
            Found::File { text, .. } => Some(text.trim_end_matches('\n').to_owned()),
            _ => None,
        };
        Ok(Self {
            link: link(LINK)?,
            default: link(DEFAULT)?,
            before,
        })
    }

    /// The unit that the next boot is for.
    fn target(&self) -> String {
        let name = name(self.link.as_ref().or(self.default.as_ref()));
        name.unwrap_or_else(|| UNKNOWN.to_owned())
    }

    /// The unit that it was for before.
    fn target_before(&self) -> Option<String> {
        let before = self.before.as_ref()?;
        let link = (!before.is_empty()).then(|| PathBuf::from(before));
        name(link.as_ref().or(self.default.as_ref()))
    }

    /// systemd has other names for the same target, systemd.special(7).
    fn is_headless(&self) -> bool {
        matches!(
            self.target().as_str(),
            "multi-user.target" | "runlevel2.target" | "runlevel3.target" | "runlevel4.target"
        )
    }

    fn report(&self) -> Report {
        Report {
            headless: self.is_headless(),
            target: name(self.link.as_ref().or(self.default.as_ref())),
            before: self.target_before().filter(|_| self.is_headless()),
        }
    }

    fn on(&self, context: &Context) -> anyhow::Result<Plan> {
        let title = "headless on".to_owned();
        if self.is_headless() {
            return Ok(Plan {
                title,
                notes: vec![format!("it already boots to {}", self.target())],
                steps: Vec::new(),
            });
        }
        let before = match &self.link {
            Some(target) => target
                .to_str()
                .with_context(|| format!("read the link `{LINK}`"))?,
            None => "",
        };
        Ok(Plan {
            title,
            notes: vec![
                "it takes effect at the next boot; `systemctl isolate multi-user.target` stops the desktop now"
                    .to_owned(),
            ],
            steps: vec![
                FileStep::Write {
                    path: context.path(BEFORE),
                    text: format!("{before}\n"),
                    mode: Mode::new(0o644),
                    secret: false,
                }.into(),
                FileStep::Link {
                    path: context.path(LINK),
                    target: HEADLESS.into(),
                }.into(),
            ],
        })
    }

    fn off(&self, context: &Context) -> Plan {
        let mut plan = Plan {
            title: "headless off".to_owned(),
            ..Plan::default()
        };
        let Some(before) = &self.before else {
            let target = self.target();
            plan.notes.push(format!(
                "`headless on` was not used; the host boots to {target}"
            ));
            return plan;
        };
        let path = context.path(LINK);
        if !self.is_headless() {
            // An administrator has changed it since.
            let target = self.target();
            plan.notes.push(format!(
                "the host now boots to {target}, which is not changed"
            ));
        } else if !before.is_empty() {
            plan.steps.push(
                FileStep::Link {
                    path,
                    target: before.into(),
                }
                .into(),
            );
        } else if self.link.is_some() {
            plan.steps.push(FileStep::Remove { path }.into());
        }
        plan.steps.push(
            FileStep::Remove {
                path: context.path(BEFORE),
            }
            .into(),
        );
        plan
    }
}

impl Report {
    fn text(&self) -> String {
        let target = self.target.as_deref().unwrap_or(UNKNOWN);
        match (self.headless, &self.before) {
            (true, Some(before)) => {
                format!("on: boots to {target}, `off` restores {before}\n")
            }
            (true, None) => format!("on: boots to {target}\n"),
            (false, _) => format!("off: boots to {target}\n"),
        }
    }
}

/// The unit that a link leads to.
fn name(target: Option<&PathBuf>) -> Option<String> {
    let name = target?.file_name()?;
    Some(harmless(&name.to_string_lossy()))
}
