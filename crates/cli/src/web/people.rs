//! People who log in at the front by a password: lines of htpasswd(1), with bcrypt.

use std::io::{self, BufRead as _};
use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use buildbot_conda_core::web::Person;
use buildbot_conda_host::trusted::open_given;

use crate::system::prompt;

/// 2 to the power of this is how often it is repeated: a tenth of a second, which one login costs the front.
const COST: u32 = 10;
/// Bytes of a password that bcrypt looks at.
const LONGEST: usize = 72;

/// Where passwords of people come from.
pub(super) enum Source<'a> {
    File(&'a PathBuf),
    Stdin,
    Prompt,
    /// Nothing is asked: the plan is only shown.
    Nobody,
}

/// The file with exactly these people. Existing passwords from `before` are kept, unless passwords are given and
/// everyone already has one. Given passwords, one per line, are assigned in order to those without one.
pub(super) fn file(
    people: &[&Person],
    before: &str,
    source: &Source<'_>,
) -> anyhow::Result<String> {
    let known = |person: &Person| {
        let mut lines = before.lines().filter_map(|line| line.split_once(':'));
        lines.find_map(|(name, hash)| (name == person.as_str()).then(|| hash.to_owned()))
    };
    let mut wanted: Vec<&Person> = people
        .iter()
        .copied()
        .filter(|one| known(one).is_none())
        .collect();
    let is_given = matches!(source, Source::File(_) | Source::Stdin);
    if is_given && wanted.is_empty() {
        ensure!(
            people.len() == 1,
            "all of them already have a password, so the given one is ambiguous\n\
             hint: change one with `htpasswd -B` from the package `apache2-utils`"
        );
        wanted = people.to_vec();
    }
    let passwords = passwords(&wanted, source)?;
    let mut lines = String::new();
    for person in people {
        let new = wanted.iter().position(|one| one == person);
        let hash = match new.map(|place| &passwords[place]) {
            None => known(person).context("read the existing password")?,
            // The same once more changes nothing.
            Some(password) => match known(person) {
                Some(old) if bcrypt::verify(password, &old).unwrap_or_default() => old,
                _ => hash(password)?,
            },
        };
        lines = format!("{lines}{person}:{hash}\n");
    }
    Ok(lines)
}

fn hash(password: &str) -> anyhow::Result<String> {
    let parts = bcrypt::hash_with_result(password, COST).context("hash a password")?;
    Ok(parts.format_for_version(bcrypt::Version::TwoY))
}

fn passwords(wanted: &[&Person], source: &Source<'_>) -> anyhow::Result<Vec<String>> {
    let ask = |person: &&Person| prompt::ask_unseen(&format!("password of `{person}`"));
    let passwords = match source {
        Source::Nobody => wanted.iter().map(ToString::to_string).collect(),
        Source::Prompt => wanted.iter().map(ask).collect::<anyhow::Result<Vec<_>>>()?,
        Source::File(path) => {
            let name = path.display();
            let file = open_given(path).with_context(|| format!("open `{name}`"))?;
            lines(io::BufReader::new(file), wanted)
                .with_context(|| format!("read passwords from `{name}`"))?
        }
        Source::Stdin => {
            lines(io::stdin().lock(), wanted).context("read passwords from standard input")?
        }
    };
    for password in &passwords {
        ensure!(
            password.len() <= LONGEST,
            "a password is longer than {LONGEST} bytes"
        );
    }
    Ok(passwords)
}

/// Another value that is given on one line.
pub(super) fn one(what: &str, source: &Source<'_>) -> anyhow::Result<String> {
    match source {
        Source::Nobody => Ok(String::new()),
        Source::Prompt => prompt::ask_unseen(what),
        Source::File(path) => {
            let name = path.display();
            let file = open_given(path).with_context(|| format!("open `{name}`"))?;
            prompt::first_line(file).with_context(|| format!("read the {what} from `{name}`"))
        }
        Source::Stdin => prompt::first_line(io::stdin())
            .with_context(|| format!("read the {what} from standard input")),
    }
}

/// A line for each.
fn lines(source: impl io::BufRead, wanted: &[&Person]) -> anyhow::Result<Vec<String>> {
    // Far beyond what anybody gives.
    let mut lines = source.take(64 << 10).lines();
    let mut passwords = Vec::new();
    for person in wanted {
        let Some(line) = lines.next() else {
            bail!("the line with the password of `{person}` is missing");
        };
        let line = line.context("read a line")?;
        let password = prompt::first_line(line.as_bytes());
        passwords.push(password.with_context(|| format!("the password of `{person}`"))?);
    }
    Ok(passwords)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_keep_their_passwords_and_new_ones_get_theirs() {
        let [alice, bob]: [Person; 2] = ["alice", "bob"].map(|name| name.parse().unwrap());
        let old = format!("alice:{}\ncarol:x\n", bcrypt::hash("first", 4).unwrap());
        let kept = file(&[&alice], &old, &Source::Prompt).unwrap();
        assert_eq!(kept, old.lines().next().unwrap().to_owned() + "\n");
        let directory = tempfile::tempdir().unwrap();
        let given = directory.path().join("given");
        std::fs::write(&given, "second\n").unwrap();
        let both = file(&[&alice, &bob], &old, &Source::File(&given)).unwrap();
        assert!(both.starts_with(&kept), "{both}");
        let (_, hash) = both.lines().nth(1).unwrap().split_once("bob:").unwrap();
        assert!(
            hash.starts_with("$2y$10$") && bcrypt::verify("second", hash).unwrap(),
            "{hash}"
        );
        // The same again changes nothing, another one does.
        let bobs = format!("bob:{hash}\n");
        assert_eq!(file(&[&bob], &bobs, &Source::File(&given)).unwrap(), bobs);
        std::fs::write(&given, "third\n").unwrap();
        assert_ne!(file(&[&bob], &bobs, &Source::File(&given)).unwrap(), bobs);
        let whose = file(&[&alice, &bob], &both, &Source::File(&given)).unwrap_err();
        assert!(
            whose.to_string().contains("the given one is ambiguous"),
            "{whose}"
        );
    }

    #[test]
    fn a_password_is_a_line_that_bcrypt_sees_to_its_end() {
        let bob: Person = "bob".parse().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let given = directory.path().join("given");
        for bad in ["", "\n", " x\n", &"x".repeat(73)] {
            std::fs::write(&given, bad).unwrap();
            assert!(file(&[&bob], "", &Source::File(&given)).is_err(), "{bad:?}");
        }
    }
}
