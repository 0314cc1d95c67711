//! Findings for people and for programs.

use std::fmt::Write as _;

use anyhow::Context as _;
use serde::Serialize;

use super::finding::{Finding, Severity};
use crate::output;

/// The format of the JSON. Keys may be added, none changes its meaning.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Report<'a> {
    version: u32,
    problems: usize,
    warnings: usize,
    findings: &'a [Finding],
}

fn count(findings: &[Finding], severity: Severity) -> usize {
    let of = |finding: &&Finding| finding.severity == severity;
    findings.iter().filter(of).count()
}

/// One object with every finding, those that are in order too.
pub(super) fn json(findings: &[Finding]) -> anyhow::Result<String> {
    let report = Report {
        version: VERSION,
        problems: count(findings, Severity::Problem),
        warnings: count(findings, Severity::Warning),
        findings,
    };
    Ok(serde_json::to_string_pretty(&report).context("write JSON")? + "\n")
}

/// A paragraph for each problem and warning, or with `all` for each finding, and a last line with their numbers. Text
/// is wrapped at `width` characters; commands are not, so that they can be copied.
pub(super) fn text(findings: &[Finding], all: bool, width: Option<usize>) -> String {
    let mut text = String::new();
    let shown = findings
        .iter()
        .filter(|finding| all || finding.severity >= Severity::Warning);
    for finding in shown {
        text.push_str(&paragraph(finding, width));
    }
    let (problems, warnings) = (
        count(findings, Severity::Problem),
        count(findings, Severity::Warning),
    );
    let unseen = count(findings, Severity::Unseen);
    let good = count(findings, Severity::Ok);
    let mut summary = format!(
        "{}, {}, {good} in order",
        counted(problems, "problem"),
        counted(warnings, "warning"),
    );
    if unseen > 0 {
        let more = if all { "" } else { " (`--all` shows them)" };
        write!(summary, ", {unseen} not checked{more}").expect("writing to a string succeeds");
    }
    text + &output::fold(&summary, 0, 2, width)
}

fn counted(count: usize, noun: &str) -> String {
    match count {
        0 => format!("no {noun}s"),
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

fn paragraph(finding: &Finding, width: Option<usize>) -> String {
    let mut head = format!("{}: ", finding.severity);
    if !finding.instances.is_empty() {
        let instances = finding.instances.join(", ");
        write!(head, "{instances}: ").expect("writing to a string succeeds");
    }
    write!(head, "{}: {}", finding.check, finding.seen).expect("writing to a string succeeds");
    let mut text = output::fold(&head, 0, 2, width);
    if let Some(mending) = &finding.mending {
        for command in &mending.commands {
            writeln!(text, "    {command}").expect("writing to a string succeeds");
        }
        if let Some(words) = &mending.words {
            text.push_str(&output::fold(&format!("hint: {words}"), 4, 6, width));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Check;

    #[test]
    fn problems_have_their_commands_below_them_and_a_last_line_counts() {
        let findings = [
            Finding::problem(Check::UnitMasked, None, "it is masked").safe(["systemctl", "x"]),
            Finding::ok(Check::Clock, None, "synchronised"),
            Finding::unseen(Check::Tac, None, "not set up"),
        ];
        assert_eq!(
            text(&findings, false, None),
            "problem: unit-masked: it is masked\n    systemctl x\n\
             1 problem, no warnings, 1 in order, 1 not checked (`--all` shows them)\n"
        );
        assert_eq!(
            text(&findings[1..], true, None),
            "ok: clock: synchronised\nunseen: tac: not set up\n\
             no problems, no warnings, 1 in order, 1 not checked\n"
        );
    }
    #[test]
    fn a_narrow_terminal_breaks_words_apart_and_no_command() {
        let seen = "`/etc/x` is accessible to accounts other than root";
        let findings = [Finding::problem(Check::Credentials, None, seen)
            .safe(["chmod", "0600", "/etc/buildbot-conda/credentials/x"])
            .words("change the password, which others may know")];
        assert_eq!(
            text(&findings, false, Some(32)),
            "problem: credentials: `/etc/x`\n  is accessible to accounts\n  other than root\n    \
             chmod 0600 /etc/buildbot-conda/credentials/x\n    \
             hint: change the password,\n      which others may know\n\
             1 problem, no warnings, 0 in\n  order\n"
        );
    }
}
