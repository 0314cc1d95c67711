//! `build REF [NUMBER]`: shows the result of a build, read from the master. The environment's Python queries Buildbot's
//! REST API as the service user, with the program `build.py`; nothing is changed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, anyhow, bail};
use buildbot_conda_core::foreign_text::ForeignText;
use buildbot_conda_core::names::{InstanceRef, Role};
use clap::Args;
use serde::Deserialize;

use crate::database::Master;
use crate::database::facts::Facts;
use crate::output;
use crate::system::as_user;
use crate::system::children::{self, Stream};
use crate::system::context::{Context, InvalidConfiguration};

const PROGRAM: &str = include_str!("build.py");
/// Imports, and a dozen answers.
const LIMIT: Duration = Duration::from_mins(2);

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The master, such as `master` or `master@nightly`
    #[arg(value_name = "REF")]
    reference: InstanceRef,
    /// Number of the build; by default the last failed build, or else the last build
    number: Option<u64>,
    /// Consider only builds of this builder
    #[arg(long, value_name = "NAME")]
    builder: Option<String>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    context.ensure_here("build")?;
    let settings = context.settings()?;
    let instance = settings
        .instance(&arguments.reference)
        .map_err(InvalidConfiguration::from)?;
    if instance.reference.role != Role::Master {
        bail!(
            "`{}` is a worker, its builds are stored by its master",
            arguments.reference
        );
    }
    let master = Master::new(instance, context)?;
    if let Some(status) = as_user::hand_over(instance, context)? {
        return Ok(status);
    }
    let places = Facts::ask(&master, None, false)?.www;
    let number = arguments.number.map(|number| number.to_string());
    let mut words = vec![
        number.unwrap_or_default(),
        arguments.builder.clone().unwrap_or_default(),
    ];
    words.extend(places);
    let words: Vec<_> = words.into_iter().map(Into::into).collect();
    let mut answer = String::new();
    let mut said = Vec::new();
    let command = master.python(PROGRAM, &words)?;
    children::run(command, Some(LIMIT), |stream, line| match stream {
        Stream::Stdout => answer.push_str(line),
        Stream::Stderr => said.push(line.to_owned()),
    })
    .map_err(|error| anyhow!("query `{}`: {error}", arguments.reference))?;
    let reference = &arguments.reference;
    let answer = serde_json::from_str(&answer)
        .map_err(|_| anyhow!("{}", said.last().cloned().unwrap_or_default()))
        .with_context(|| format!("query the builds of `{reference}`"))?;
    match answer {
        Answer::Build(build) => output::print(describe(&build)),
        Answer::Refused { refusal } => bail!(
            "query the builds of `{reference}`: {refusal}\n\
             hint: `buildbot-conda status {reference}` shows whether it runs"
        ),
    }
}

/// What `build.py` answers.
#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    Refused { refusal: ForeignText },
    Build(Box<Build>),
}

#[derive(Deserialize)]
struct Build {
    builder: ForeignText,
    number: u64,
    /// Buildbot's result codes; none while the build runs.
    results: Option<u8>,
    state: ForeignText,
    /// Seconds since 1970.
    completed: Option<u64>,
    properties: BTreeMap<String, ForeignText>,
    steps: Vec<Step>,
    log: Option<Log>,
}

#[derive(Deserialize)]
struct Step {
    number: u64,
    name: ForeignText,
    results: Option<u8>,
    state: ForeignText,
}

/// The end of the log of the first step that failed.
#[derive(Deserialize)]
struct Log {
    step: ForeignText,
    name: ForeignText,
    lines: Vec<ForeignText>,
}

/// `buildbot.process.results`
fn word(results: Option<u8>) -> &'static str {
    match results {
        None => "running",
        Some(0) => "success",
        Some(1) => "warnings",
        Some(2) => "failure",
        Some(3) => "skipped",
        Some(4) => "exception",
        Some(5) => "retry",
        Some(6) => "cancelled",
        Some(_) => "unknown",
    }
}

fn describe(build: &Build) -> String {
    let mut text = String::new();
    let mut line = |words: std::fmt::Arguments<'_>| {
        writeln!(text, "{}", words.to_string().trim_end()).expect("writing to a string succeeds");
    };
    let when = build.completed.map(|seconds| {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        format!(", {}", humantime::format_rfc3339_seconds(time))
    });
    line(format_args!(
        "build {} of {}: {} ({}){}",
        build.number,
        build.builder,
        word(build.results),
        build.state,
        when.unwrap_or_default()
    ));
    for (name, value) in &build.properties {
        line(format_args!("{name}: {value}"));
    }
    for step in &build.steps {
        let (number, results) = (step.number, word(step.results));
        line(format_args!(
            "{number:>4}  {results:<9}  {}: {}",
            step.name, step.state
        ));
    }
    if let Some(log) = &build.log {
        line(format_args!(""));
        line(format_args!(
            "last lines of `{}` of step `{}`:",
            log.name, log.step
        ));
        for spoken in &log.lines {
            line(format_args!("    {spoken}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_build_is_shown_with_the_end_of_its_log() {
        let answer = r#"{"builder": "hello", "builder_number": 1, "number": 12, "results": 2,
            "state": "failed compile (failure)", "completed": 1700000000,
            "properties": {"workername": "gpu", "revision": "abc\u001b[31m"},
            "steps": [
                {"number": 0, "name": "git", "results": 0, "state": "update"},
                {"number": 1, "name": "compile", "results": 2, "state": "'make' (failure)"},
                {"number": 2, "name": "test", "results": null, "state": "pending"}],
            "log": {"step": "compile", "name": "stdio", "lines": ["cc x.c", "x.c:1: error\u0007"]}}"#;
        let Answer::Build(build) = serde_json::from_str(answer).unwrap() else {
            panic!("it is a build");
        };
        let expect = "\
build 12 of hello: failure (failed compile (failure)), 2023-11-14T22:13:20Z
revision: abc\\u{1b}[31m
workername: gpu
   0  success    git: update
   1  failure    compile: 'make' (failure)
   2  running    test: pending

last lines of `stdio` of step `compile`:
    cc x.c
    x.c:1: error\\u{7}
";
        assert_eq!(describe(&build), expect);
        let refused = r#"{"refusal": "no"}"#;
        assert!(matches!(
            serde_json::from_str(refused).unwrap(),
            Answer::Refused { .. }
        ));
    }
}
