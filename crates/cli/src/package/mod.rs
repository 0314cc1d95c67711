//! `package ...`: what the package's maintainer scripts call. They ask debconf; what follows from the answers is decided
//! and done here.
//!
//! `questions` has the words between debconf and the configuration. `configure` is postinst's part: `account`, then the
//! file, then `units`.

mod account;
mod configure;
mod questions;
mod units;

use std::process::ExitCode;

use anyhow::bail;
use buildbot_conda_core::questions::Question;
use clap::Subcommand;

use crate::output;
use crate::system::context::Context;

/// Raised when what is below changes: `config` of a new version may meet the program of an old one.
const PROTOCOL: u32 = 1;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Print the version of these verbs
    Protocol,
    /// Print the answer that debconf starts from, in its protocol
    Offer {
        question: Question,
        /// `true` for an answer that is not applied yet
        waits: String,
        /// The answer that debconf has stored
        remembered: String,
        /// The last configured version, or empty
        version: String,
    },
    /// Fail unless the configuration accepts an answer
    Check {
        question: Question,
        answer: String,
        /// The answer for the master's directory
        master: String,
    },
    /// Print whether to apply an answer, and the answer that debconf stores
    Settle {
        question: Question,
        answer: String,
        version: String,
    },
    /// Create the account and the configuration, and enable the units
    Configure {
        version: String,
        /// For each question its name, `true` if its answer is not applied yet, and the answer
        answers: Vec<String>,
    },
    /// Reload systemd units, and start them after an installation
    Start,
    /// Stop the units before a removal
    Stop,
}

/// What debconf has for a question.
struct Answer {
    /// Not yet in force.
    waits: bool,
    text: String,
}

/// What debconf has.
struct Answers {
    /// Nothing has ever been configured.
    is_first: bool,
    list: Vec<(Question, Answer)>,
}

impl Answers {
    fn read(version: &str, words: &[String]) -> anyhow::Result<Self> {
        let mut list = Vec::new();
        for words in words.chunks(3) {
            let [question, waits, text] = words else {
                bail!("expected a question, the state of its answer, and the answer");
            };
            let answer = Answer {
                waits: waits == "true",
                text: text.clone(),
            };
            list.push((question.parse()?, answer));
        }
        Ok(Self {
            is_first: version.is_empty(),
            list,
        })
    }

    /// The answer to a question, if there is one to apply.
    fn to_act_on(&self, question: Question, is_first: bool) -> Option<&str> {
        let (_, answer) = self.list.iter().find(|(found, _)| *found == question)?;
        (is_first || answer.waits).then_some(answer.text.as_str())
    }
}

/// A line for the administrator among those of dpkg.
fn say(text: &str) {
    eprintln!("buildbot-conda: {text}");
}

pub(crate) fn run(verb: &Verb, context: &Context) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Protocol => return output::print(format_args!("{PROTOCOL}\n")),
        Verb::Offer {
            question,
            waits,
            remembered,
            version,
        } => {
            let present = questions::present(*question, version, context)?;
            let offered = question.offered(present.as_deref(), waits == "true", remembered);
            return output::print(questions::escaped(&offered));
        }
        Verb::Check {
            question,
            answer,
            master,
        } => {
            let is_refused = question.check(answer, master).is_err();
            return Ok(ExitCode::from(u8::from(is_refused)));
        }
        Verb::Settle {
            question,
            answer,
            version,
        } => {
            let present = questions::present(*question, version, context)?;
            let (waits, kept) = question.settled(present.as_deref(), answer);
            return output::print(format_args!("{waits} {}", questions::escaped(&kept)));
        }
        Verb::Configure { version, answers } => {
            configure::run(&Answers::read(version, answers)?, context)?;
        }
        Verb::Start => units::start(context)?,
        Verb::Stop => units::stop(context)?,
    }
    Ok(ExitCode::SUCCESS)
}
