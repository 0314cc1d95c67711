//! Reports an interrupted command, which `recover` completes or rolls back.

use super::finding::{Check, Finding};
use super::scene::Scene;
use crate::plan;

pub(super) fn examine(scene: &Scene<'_>) -> Option<Finding> {
    if !scene.wants(Check::Unfinished) {
        return None;
    }
    let elsewhere = scene.context.is_elsewhere();
    if !elsewhere && !rustix::process::geteuid().is_root() {
        let seen = "only root can see whether a command was interrupted";
        return Some(Finding::unseen(Check::Unfinished, None, seen));
    }
    let recover = ["buildbot-conda", "recover"];
    Some(match plan::unfinished(scene.context) {
        Ok(None) => Finding::ok(Check::Unfinished, None, "no command was interrupted"),
        Ok(Some(begun)) => {
            let seen = format!("`buildbot-conda {}` was interrupted", begun.title());
            Finding::problem(Check::Unfinished, None, seen)
                .command(recover)
                .words("`buildbot-conda recover --dry-run` shows the steps")
        }
        Err(error) => {
            let text = format!("{error:#}");
            let seen = text.lines().next().unwrap_or_default();
            Finding::problem(Check::Unfinished, None, seen)
                .command([&recover[..], &["--give-up"]].concat())
        }
    })
}
