//! The line of a `master.cfg` that says where its database is, and the same for another database. Only what is certain is
//! changed: one line of code that has the URL as a plain text, or as the credential of a starter.

use thiserror::Error;

use crate::starter::{DATABASE_CREDENTIAL, MasterDatabase, database};

/// How the line of a starter begins.
const STARTER: &str = "c[\"db\"] = {\"db_url\": ";
const KEY: &str = "db_url";

/// A changed configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// All of it.
    pub text: String,
    /// The line as it is now, with its blanks.
    pub line: String,
}

/// Why a configuration is not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LineError {
    /// No line of code has the key.
    #[error("no line of it contains `db_url`")]
    Missing,
    /// Several have it.
    #[error("several lines of it contain `db_url`")]
    Several,
    /// It is not in a form that is known.
    #[error("its value of `db_url` is not a plain text on the same line")]
    Unknown,
    /// It has no function that reads a credential, which a URL with a password is.
    #[error("it contains no function `secret` that reads a credential")]
    NoSecret,
}

/// The configuration with its database elsewhere.
///
/// # Errors
///
/// When it cannot be changed with certainty.
pub fn change(text: &str, to: &MasterDatabase) -> Result<Changed, LineError> {
    let is_code = |line: &&str| line.contains(KEY) && !line.trim_start().starts_with('#');
    let mut lines = text.lines().filter(is_code);
    let line = lines.next().ok_or(LineError::Missing)?;
    if lines.next().is_some() {
        return Err(LineError::Several);
    }
    let is_secret = matches!(to, MasterDatabase::Server { url: None, .. });
    if is_secret && !text.lines().any(|line| line == "def secret(name):") {
        return Err(LineError::NoSecret);
    }
    let (before, value, after) = parts(line).ok_or(LineError::Unknown)?;
    let changed = if before == STARTER && is_end_of_starter(after) {
        format!("c[\"db\"] = {}", database(to))
    } else {
        format!("{before}{}{after}", url_of(to))
    };
    debug_assert!(line.contains(value), "it is a part of its line");
    Ok(Changed {
        // The only line that is code and has the key.
        text: text
            .split_inclusive('\n')
            .map(|whole| {
                let bare = whole.trim_end_matches(['\r', '\n']);
                let end = &whole[bare.len()..];
                if is_code(&bare) {
                    format!("{changed}{end}")
                } else {
                    whole.to_owned()
                }
            })
            .collect(),
        line: changed,
    })
}

/// Whether a starter has this behind the URL. Other arguments of the engine are somebody's own, and may go on in the next
/// line.
fn is_end_of_starter(after: &str) -> bool {
    [true, false].into_iter().any(|pings| {
        let url = Some(String::new());
        let line = database(&MasterDatabase::Server { url, pings });
        line.strip_prefix("{\"db_url\": \"\"") == Some(after)
    })
}

/// What is before the value of the key, the value, and what is behind it.
fn parts(line: &str) -> Option<(&str, &str, &str)> {
    let at = line.find(KEY)?;
    let quote = line[..at]
        .chars()
        .next_back()
        .filter(|quote| "\"'".contains(*quote))?;
    let rest = line[at + KEY.len()..].strip_prefix(quote)?;
    let value = rest.trim_start().strip_prefix(':')?.trim_start();
    let begin = line.len() - value.len();
    let length = length_of_text(value).or_else(|| {
        let secret = format!("secret(\"{DATABASE_CREDENTIAL}\")");
        value.starts_with(&secret).then_some(secret.len())
    })?;
    let after = &value[length..];
    // Another text behind it would be joined to it, and an operator or a method would change it.
    let goes_on = after.trim_start();
    (goes_on.is_empty() || goes_on.starts_with([',', '}', '#'])).then_some((
        &line[..begin],
        &value[..length],
        after,
    ))
}

/// Bytes of a text in simple quotes without any escapes.
fn length_of_text(value: &str) -> Option<usize> {
    let quote = value
        .chars()
        .next()
        .filter(|quote| "\"'".contains(*quote))?;
    let rest = &value[1..];
    let length = rest.find(quote)?;
    // `""` may be the beginning of three.
    (length > 0 && !rest[..length].contains('\\')).then_some(length + 2)
}

/// The URL of a database, as Python has it: what stands in the whole before the first comma or brace.
fn url_of(to: &MasterDatabase) -> String {
    let to = match to {
        MasterDatabase::Server { url, .. } => MasterDatabase::Server {
            url: url.clone(),
            pings: false,
        },
        MasterDatabase::Sqlite => MasterDatabase::Sqlite,
    };
    let whole = database(&to);
    whole
        .trim_start_matches("{\"db_url\": ")
        .trim_end_matches('}')
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(url: Option<&str>) -> MasterDatabase {
        MasterDatabase::Server {
            url: url.map(str::to_owned),
            pings: true,
        }
    }

    #[test]
    fn the_line_of_a_starter_becomes_that_of_another_starter_and_back() {
        let file = format!(
            "# db_url\ndef secret(name):\n    pass\n\nc[\"db\"] = {}\nc[\"www\"] = {{}}\n",
            database(&MasterDatabase::Sqlite)
        );
        for to in [server(Some("postgresql+psycopg2://db/b")), server(None)] {
            let there = change(&file, &to).unwrap();
            assert_eq!(there.line, format!("c[\"db\"] = {}", database(&to)));
            assert!(there.text.contains(&format!("\n{}\n", there.line)));
            let back = change(&there.text, &MasterDatabase::Sqlite).unwrap();
            assert_eq!(back.text, file);
        }
    }

    #[test]
    fn elsewhere_the_url_alone_is_changed() {
        for (line, changed) in [
            (
                "    'db_url' : \"sqlite:///state.sqlite\",",
                "    'db_url' : \"postgresql+psycopg2://db/b\",",
            ),
            (
                "c['db'] = {'db_url': 'sqlite:///state.sqlite', 'engine_kwargs': {}}  # ours",
                "c['db'] = {'db_url': \"postgresql+psycopg2://db/b\", 'engine_kwargs': {}}  # ours",
            ),
            (
                "c[\"db\"] = {\"db_url\": \"sqlite:///state.sqlite\", \"engine_kwargs\": {\"pool_size\": 9}}",
                "c[\"db\"] = {\"db_url\": \"postgresql+psycopg2://db/b\", \"engine_kwargs\": {\"pool_size\": 9}}",
            ),
            (
                "c[\"db\"] = {\"db_url\": \"sqlite:///state.sqlite\", \"engine_kwargs\": {",
                "c[\"db\"] = {\"db_url\": \"postgresql+psycopg2://db/b\", \"engine_kwargs\": {",
            ),
        ] {
            let file = format!("a\r\n{line}\r\nb");
            let found = change(&file, &server(Some("postgresql+psycopg2://db/b"))).unwrap();
            assert_eq!(found.line, changed);
            assert_eq!(found.text, format!("a\r\n{changed}\r\nb"));
        }
    }

    #[test]
    fn what_is_not_certain_is_left_to_whoever_wrote_it() {
        let to = server(Some("postgresql+psycopg2://db/b"));
        for (line, error) in [
            ("c['title'] = 'x'", LineError::Missing),
            ("# c['db'] = {'db_url': 'x'}", LineError::Missing),
            ("c['db'] = {'db_url': URL}", LineError::Unknown),
            ("c['db'] = {'db_url': 'a' + B}", LineError::Unknown),
            ("c['db'] = {'db_url': 'a' % B}", LineError::Unknown),
            ("c['db'] = {'db_url': 'a' 'b'}", LineError::Unknown),
            ("c['db'] = {'db_url': 'a\\'b'}", LineError::Unknown),
            ("c['db'] = {'db_url': '''a'''}", LineError::Unknown),
            ("c['db'] = {'db_url': f'a'}", LineError::Unknown),
            ("c['db'] = dict(db_url='a')", LineError::Unknown),
            ("c['db_url'] = 'a'", LineError::Unknown),
            ("c['db'] = {'db_url':", LineError::Unknown),
            (
                "c['db'] = {'db_url': 'a'}; db_url = 1\ndb_url",
                LineError::Several,
            ),
        ] {
            assert_eq!(change(line, &to), Err(error), "{line}");
        }
        let file = "c['db'] = {'db_url': 'a'}";
        assert_eq!(change(file, &server(None)), Err(LineError::NoSecret));
    }
}
