//! The account that the services run as: an existing one, perhaps that of a person, is used unchanged.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use buildbot_conda_core::questions::Question;
use buildbot_conda_core::values::AccountName;

use super::{Answers, say};
use crate::system::context::Context;
use crate::system::{accounts, files, programs};

/// Names the account that is being made, with the number of its group if that was there before.
const HALF_MADE: &str = "/var/lib/buildbot-conda/account";
/// From this number on, accounts are people's, adduser.conf(5).
const FIRST_PERSON: u32 = 1000;
/// Exit status of `userdel` and `groupdel` for a name that is not there.
const NOT_FOUND: i32 = 6;

/// Makes the account that the answer asks for, where that is to be made.
pub(super) fn provide(answers: &Answers, context: &Context) -> anyhow::Result<()> {
    let exists = |name: &AccountName| Ok(accounts::find(name.as_str(), context)?.is_some());
    let Some(name) = missing(answers, exists)? else {
        return Ok(());
    };
    if context.is_elsewhere() {
        say(&format!("notice: create the account `{name}` there"));
        return Ok(());
    }
    let home = format!("/home/{name}");
    let group = accounts::has_group(name.as_str(), context)?
        .then(|| accounts::number_of("group", name.as_str()))
        .transpose()?;
    let group = group.map(|number| number.to_string()).unwrap_or_default();
    fs::write(HALF_MADE, format!("{name}:{group}\n"))
        .with_context(|| format!("write `{HALF_MADE}`"))?;
    accounts::create(&name, home.as_ref(), "Buildbot")?;
    files::remove(Path::new(HALF_MADE))
}

/// The account to make. One of another name than the package's own is made only when it was asked for just now: later it
/// may be missing for a reason, such as a directory service that does not answer.
fn missing(
    answers: &Answers,
    exists: impl Fn(&AccountName) -> anyhow::Result<bool>,
) -> anyhow::Result<Option<AccountName>> {
    let own: AccountName = Question::User.default_text().parse()?;
    let asked_for = answers.to_act_on(Question::User, answers.is_first);
    let answer = answers.to_act_on(Question::User, true).unwrap_or_default();
    let name = answer.parse::<AccountName>().ok();
    if let Some(name) = &name
        && exists(name)?
    {
        return Ok(None);
    }
    Ok(match name.filter(AccountName::can_be_created) {
        Some(name) => (name == own || asked_for.is_some()).then_some(name),
        // The answer is not used, and the first configuration keeps the package's own account.
        None => (answers.is_first && !exists(&own)?).then_some(own),
    })
}

/// An account is in four files, which are replaced one after the other. The remains of an interrupted creation are
/// removed, so that the account is created completely.
pub(super) fn remove_half_made(context: &Context) -> anyhow::Result<()> {
    let path = context.path(HALF_MADE);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other.with_context(|| format!("read `{HALF_MADE}`"))?,
    };
    if let Some((name, group)) = text.trim_end().split_once(':')
        && !context.is_elsewhere()
    {
        let found = accounts::find(name, context)?;
        // Unless a person has got the name meanwhile.
        if found.is_none_or(|user| user.uid < FIRST_PERSON) {
            remove_account(name, group, context)?;
        }
    }
    files::remove(&path)
}

fn remove_account(name: &str, group: &str, context: &Context) -> anyhow::Result<()> {
    let delete = |program: &str| {
        let mut command = Command::new(program);
        command.arg(name);
        programs::run_unless(command, &[NOT_FOUND])
    };
    // The group goes along with the account.
    delete("userdel")?;
    if group.is_empty() {
        delete("groupdel")?;
    } else if !accounts::has_group(name, context)? {
        let mut command = Command::new("groupadd");
        command.args(["--gid", group, name]);
        programs::run(command)?;
    }
    let home = format!("/home/{name}");
    match fs::remove_dir(&home) {
        Err(error)
            if !matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty
            ) =>
        {
            Err(error).with_context(|| format!("remove `{home}`"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_made_for_the_asking_and_never_later() {
        for (version, waits, answer, there, made) in [
            // A first installation.
            ("", "false", "bb", &[][..], Some("bb")),
            ("", "false", "ci", &[], Some("ci")),
            ("", "false", "ci", &["ci"], None),
            ("", "false", "Bertha", &["Bertha"], None),
            ("", "false", "Bertha", &[], Some("bb")),
            ("", "false", "-x", &[], Some("bb")),
            ("", "false", "0", &["bb"], None),
            ("", "false", "", &[], Some("bb")),
            // Asked for later.
            ("1", "true", "ci", &["bb"], Some("ci")),
            ("1", "true", "Bertha", &["bb"], None),
            // Configured, but missing.
            ("1", "false", "ci", &["bb"], None),
            ("1", "false", "bb", &[], Some("bb")),
            ("1", "false", "", &[], None),
        ] {
            let words = ["user", waits, answer].map(str::to_owned);
            let answers = Answers::read(version, &words).unwrap();
            let exists = |name: &AccountName| Ok(there.contains(&name.as_str()));
            let name = missing(&answers, exists).unwrap();
            let name = name.as_ref().map(AccountName::as_str);
            assert_eq!(name, made, "{version} {waits} {answer} {there:?}");
        }
    }
}
