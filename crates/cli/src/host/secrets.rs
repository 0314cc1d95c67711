//! Finds what must not be in a profile: literal passwords and other secrets in a tac, a `master.cfg`, an `environment`
//! table or a drop-in. They are found by their names and forms, each with its location; values that are not secret can
//! be named as such.

use std::collections::BTreeMap;

use buildbot_conda_core::settings::Settings;
use buildbot_conda_core::unit_text::logical_lines;

use super::layout::file_of;
use super::profile::Profile;
use crate::system::secrets::{has_password, is_secret};

/// Calls that have a secret at this position, counted from 0; the end of the name is enough.
const PLACES: [(&str, usize); 7] = [
    ("Worker", 1),
    ("GitHubAuth", 1),
    ("GoogleAuth", 1),
    ("BitbucketAuth", 1),
    // Its first argument is the address of the server.
    ("GitLabAuth", 2),
    ("PasswordManhole", 2),
    ("TelnetManhole", 2),
];

/// Characters of a secret that is looked for by what it is; a shorter one is in any text.
const SHORTEST: usize = 4;

/// One that was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Found {
    /// In the profile, such as `instances/master/master.cfg`.
    pub(super) file: String,
    /// From 1.
    pub(super) line: usize,
    /// The name of the value.
    pub(super) name: String,
}

impl Found {
    /// How it is named where it is none.
    pub(super) fn key(&self) -> String {
        format!("{}:{}", self.file, self.name)
    }
}

/// Everything in a profile that looks like a secret.
pub(super) fn find(profile: &Profile, settings: &Settings) -> Vec<Found> {
    let mut found = Vec::new();
    for instance in settings.instances() {
        for (name, value) in &instance.environment {
            let name = name.as_str();
            if (is_secret(name) && is_literal(value)) || has_password(value) {
                let line = line_of(&profile.configuration, name);
                found.push(Found {
                    file: "config.toml".to_owned(),
                    line,
                    name: name.to_owned(),
                });
            }
        }
    }
    for (path, text) in &profile.unit_files {
        let file = format!("systemd/{path}");
        for (line, name) in in_unit(text) {
            let file = file.clone();
            found.push(Found { file, line, name });
        }
    }
    for ((reference, path), text) in &profile.instance_files {
        let file = file_of(reference, path).display().to_string();
        let (_, end) = path.rsplit_once('.').unwrap_or_default();
        let is_python = matches!(end, "tac" | "cfg" | "py");
        for (line, name) in in_python(text).into_iter().filter(|_| is_python) {
            let file = file.clone();
            found.push(Found { file, line, name });
        }
    }
    found
}

/// Where a profile has what is in a credential: whatever it is called there, and however it is spelled. `values` has the
/// texts of credentials by their names.
pub(super) fn find_values(profile: &Profile, values: &BTreeMap<String, String>) -> Vec<Found> {
    let instances = profile
        .instance_files
        .iter()
        .map(|((reference, path), text)| (file_of(reference, path).display().to_string(), text));
    let units = profile
        .unit_files
        .iter()
        .map(|(path, text)| (format!("systemd/{path}"), text));
    let locks = profile
        .locks
        .iter()
        .map(|(path, text)| (path.clone(), text));
    let configuration = ("config.toml".to_owned(), &profile.configuration);
    let mut found = Vec::new();
    for (file, text) in instances.chain(units).chain(locks).chain([configuration]) {
        for (name, value) in values {
            // If a key occurs on several lines, the one that reveals most.
            let value = value.lines().map(str::trim).max_by_key(|line| line.len());
            let Some(value) = value.filter(|value| value.len() >= SHORTEST) else {
                continue;
            };
            let lines = text.lines().enumerate();
            found.extend(
                lines
                    .filter(|(_, line)| line.contains(value))
                    .map(|(index, _)| Found {
                        file: file.clone(),
                        line: index + 1,
                        name: name.clone(),
                    }),
            );
        }
    }
    found
}

/// A path only states where something is.
fn is_literal(value: &str) -> bool {
    !value.is_empty() && !value.starts_with('/') && !value.starts_with('%')
}

fn line_of(text: &str, name: &str) -> usize {
    let is_it = |line: &str| {
        let (before, _) = line.split_once('=').unwrap_or_default();
        !line.trim_start().starts_with('#') && before.contains(name)
            || line.contains(&format!("{name} ="))
    };
    text.lines().position(is_it).map_or(1, |index| index + 1)
}

/// Variables and literal credentials of a unit, systemd.exec(5).
fn in_unit(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in logical_lines(text) {
        let Some((key, value)) = line.split_once('=') else {
            continue;
        };
        match key.trim() {
            "SetCredential" if !value.trim().is_empty() => {
                let name = value.trim().split(':').next().unwrap_or_default();
                found.push((number, name.to_owned()));
            }
            "Environment" => {
                for word in value.split_whitespace() {
                    let word = word.trim_matches(['"', '\'']);
                    let (name, value) = word.split_once('=').unwrap_or((word, ""));
                    if (is_secret(name) && is_literal(value)) || has_password(value) {
                        found.push((number, name.to_owned()));
                    }
                }
            }
            _ => {}
        }
    }
    found
}

/// A token of Python, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    Name(String),
    Text(String),
    Other(char),
}

/// Literals that are given to something with a secret's name, or as a worker's password.
fn in_python(text: &str) -> Vec<(usize, String)> {
    let words = words(text);
    let mut found = Vec::new();
    for (index, (line, word)) in words.iter().enumerate() {
        let next = |distance: usize| words.get(index + distance).map(|(_, word)| word);
        let is = |distance: usize, character| next(distance) == Some(&Word::Other(character));
        let literal = |distance: usize| match next(distance) {
            Some(Word::Text(text)) => is_literal(text),
            _ => false,
        };
        match word {
            Word::Name(name)
                if is_secret(name)
                    && ((is(1, '=') && (literal(2) || is(2, '(') && literal(3)))
                        || (is(1, ':') && is(3, '=') && literal(4))) =>
            {
                found.push((*line, name.clone()));
            }
            Word::Name(name)
                if is(1, '(')
                    && PLACES.iter().any(|(end, place)| {
                        name.ends_with(end) && has_literal_at(*place, &words[index + 2..])
                    }) =>
            {
                found.push((*line, name.clone()));
            }
            Word::Name(name)
                if name == "Try_Userpass"
                    && is(1, '(')
                    && arguments(&words[index + 2..])
                        .get(3)
                        .is_some_and(|pairs| has_literal_pair(pairs)) =>
            {
                found.push((*line, name.clone()));
            }
            Word::Name(name)
                if name == "userpass" && is(1, '=') && has_literal_pair(&words[index + 2..]) =>
            {
                found.push((*line, name.clone()));
            }
            Word::Name(name)
                if matches!(name.as_str(), "UserPasswordAuth" | "HTPasswdAuth")
                    && is(1, '(')
                    && (has_literal_value(&words[index + 2..])
                        || has_literal_pair(&words[index + 2..])) =>
            {
                found.push((*line, name.clone()));
            }
            Word::Text(name)
                if is_secret(name) && !name.contains(' ') && is(1, ':') && literal(2) =>
            {
                found.push((*line, name.clone()));
            }
            // c["password"] = "..."
            Word::Text(name) if is_secret(name) && is(1, ']') && is(2, '=') && literal(3) => {
                found.push((*line, name.clone()));
            }
            Word::Text(text) if has_password(text) => found.push((*line, "address".to_owned())),
            _ => {}
        }
    }
    found
}

/// The arguments between an opening bracket and the one that closes it, separated by commas.
fn arguments(words: &[(usize, Word)]) -> Vec<&[(usize, Word)]> {
    let (mut arguments, mut depth, mut begin) = (Vec::new(), 0_usize, 0);
    for (index, (_, word)) in words.iter().enumerate() {
        match word {
            Word::Other('(' | '[' | '{') => depth += 1,
            Word::Other(')' | ']' | '}') if depth > 0 => depth -= 1,
            Word::Other(')' | ']' | '}') => {
                arguments.push(&words[begin..index]);
                break;
            }
            Word::Other(',') if depth == 0 => {
                arguments.push(&words[begin..index]);
                begin = index + 1;
            }
            _ => {}
        }
    }
    arguments
}

/// Whether the argument at this position is a literal. A named argument starts with `name = ...`.
fn has_literal_at(place: usize, words: &[(usize, Word)]) -> bool {
    let arguments = arguments(words);
    let argument = arguments.get(place).copied().unwrap_or_default();
    let mut words = argument.iter().map(|(_, word)| word);
    match words.find(|word| **word != Word::Other('(')) {
        Some(Word::Text(text)) => is_literal(text),
        _ => false,
    }
}

/// Whether a list, from its bracket on, has a pair such as `("name", "password")`.
fn has_literal_pair(words: &[(usize, Word)]) -> bool {
    let Some(((_, Word::Other('[' | '(')), list)) = words.split_first() else {
        return false;
    };
    arguments(list).iter().any(|pair| match pair.split_first() {
        // The bracket that closes it is the last word.
        Some(((_, Word::Other('[' | '(')), pair)) => has_literal_at(1, pair),
        _ => false,
    })
}

/// Whether a dictionary, from its bracket on, has a value that is a literal.
fn has_literal_value(words: &[(usize, Word)]) -> bool {
    let Some(((_, Word::Other('{')), pairs)) = words.split_first() else {
        return false;
    };
    arguments(pairs).iter().any(|pair| {
        let words = pair.iter().map(|(_, word)| word);
        let value = words.skip_while(|word| **word != Word::Other(':')).skip(1);
        let mut value = value.filter(|word| **word != Word::Other('('));
        matches!(value.next(), Some(Word::Text(text)) if is_literal(text))
    })
}

/// Names, texts and other characters, each with its line; comments and blanks are passed over.
fn words(text: &str) -> Vec<(usize, Word)> {
    let characters: Vec<char> = text.chars().collect();
    let (mut words, mut index, mut line) = (Vec::new(), 0, 1);
    while index < characters.len() {
        let character = characters[index];
        match character {
            '\n' => line += 1,
            '#' => {
                while characters.get(index + 1).is_some_and(|next| *next != '\n') {
                    index += 1;
                }
            }
            '"' | '\'' => {
                let begin = line;
                let text = string(&characters, &mut index, &mut line);
                words.push((begin, Word::Text(text)));
            }
            _ if character.is_alphanumeric() || character == '_' => {
                let mut name = String::from(character);
                while let Some(next) = characters
                    .get(index + 1)
                    .filter(|next| next.is_alphanumeric() || **next == '_')
                {
                    name.push(*next);
                    index += 1;
                }
                // The letters before a quote are of the text, as in `f"..."`.
                let is_prefix =
                    name.len() <= 2 && matches!(characters.get(index + 1), Some('"' | '\''));
                if !is_prefix {
                    words.push((line, Word::Name(name)));
                }
            }
            _ if character.is_whitespace() => {}
            other => words.push((line, Word::Other(other))),
        }
        index += 1;
    }
    words
}

/// The text that starts with the quote at `index`, which is left at its last character.
fn string(characters: &[char], index: &mut usize, line: &mut usize) -> String {
    let quote = characters[*index];
    let is_long =
        characters.get(*index + 1) == Some(&quote) && characters.get(*index + 2) == Some(&quote);
    let length = if is_long { 3 } else { 1 };
    *index += length;
    let mut text = String::new();
    while *index < characters.len() {
        let character = characters[*index];
        let ends = (0..length).all(|more| characters.get(*index + more) == Some(&quote));
        if ends || (character == '\n' && !is_long) {
            *index += length - 1;
            break;
        }
        if character == '\\' {
            *index += 1;
        }
        if characters.get(*index) == Some(&'\n') {
            *line += 1;
        }
        text.extend(characters.get(*index));
        *index += 1;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[(usize, &str)]) {
        let found = in_python(text);
        let found: Vec<_> = found
            .iter()
            .map(|(line, name)| (*line, name.as_str()))
            .collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn literal_passwords_are_found_where_they_stand() {
        check("passwd = 'x'\n", &[(1, "passwd")]);
        check("\n\nWorker(\"a\", r'b')", &[(3, "Worker")]);
        check("Worker(name, 'b')", &[(1, "Worker")]);
        check("passwd: str = 'x'", &[(1, "passwd")]);
        check("passwd = ('x')", &[(1, "passwd")]);
        check("worker.Worker('a',\n 'b', max_builds=1)", &[(1, "Worker")]);
        check("f(password=\"x\")", &[(1, "password")]);
        check("{'github_token': 'x'}", &[(1, "github_token")]);
        check("c['password'] = 'x'", &[(1, "password")]);
        check("\"\"\"a\nb\"\"\"\nsecret='x'", &[(3, "secret")]);
        check("db = 'postgresql://u:p@h/d'", &[(1, "address")]);
        check("UserPasswordAuth({'a': 'b'})", &[(1, "UserPasswordAuth")]);
        check("UserPasswordAuth({'a': secret('web-password')})", &[]);
        check(
            "UserPasswordAuth({'a': f('x'), 'b': ('c')})",
            &[(1, "UserPasswordAuth")],
        );
        check("UserPasswordAuth([('a', 'b')])", &[(1, "UserPasswordAuth")]);
        check("UserPasswordAuth([('a', f('b'))])", &[]);
        check("db = 'postgresql://bb:p%40ss@db/bb'", &[(1, "address")]);
        check("db = 'postgresql://bb:p$ss@db/bb'", &[(1, "address")]);
        check("k = '-----BEGIN RSA PRIVATE KEY-----'", &[(1, "address")]);
    }

    #[test]
    fn secrets_that_are_given_by_their_place_are_found() {
        for (text, name) in [
            ("Worker('w%d' % i, 'b')", "Worker"),
            ("Worker(cfg['n'], 'b')", "Worker"),
            ("Worker(f(a, b), 'b')", "Worker"),
            ("LocalWorker(\n{'a': 1}[x],\n('b'))", "LocalWorker"),
            ("GitHubAuth('id', 'x')", "GitHubAuth"),
            ("util.GitHubAuth(os.environ['ID'], 'x')", "GitHubAuth"),
            ("GoogleAuth('id', 'x', autologin=True)", "GoogleAuth"),
            ("BitbucketAuth('id', 'x')", "BitbucketAuth"),
            ("GitLabAuth('https://h', 'id', 'x')", "GitLabAuth"),
            ("PasswordManhole('tcp:1', 'admin', 'x')", "PasswordManhole"),
            ("TelnetManhole(1234, 'admin', 'x')", "TelnetManhole"),
            (
                "Try_Userpass('try', [], port=1, userpass=[('u', 'x')])",
                "userpass",
            ),
            ("userpass = [(u, p), (name(1), 'x')]", "userpass"),
            (
                "Try_Userpass('try', ['a', 'b'], 1, [('u', 'x')])",
                "Try_Userpass",
            ),
        ] {
            check(text, &[(1, name)]);
        }
    }

    #[test]
    fn what_only_says_where_a_secret_is_is_none() {
        for good in [
            "# passwd = 'x'",
            "passwd = open(path).read()",
            "passwd = ''",
            "password_file = 'x'",
            "Worker('a', password)",
            "token = util.Secret('token')",
            "token = os.environ['TOKEN']",
            "password = '/etc/secret'",
            "url = 'postgresql://u@h/d'",
            "url = f'postgresql://u:{password}@h/d'",
            "url = 'postgresql://u:%(pw)s@h/d' % values",
            "url = 'postgresql://u:%s@h/d' % password",
            "url = 'postgresql://u:$PASSWORD@h/d'",
            "print('passwd = 1')",
            "Worker(name, password)",
            "Worker('w%d' % i, passwords['w'])",
            "Worker(cfg['n'], cfg['p'], 'b')",
            "Worker(name('a', 'b'), password)",
            "Worker('a', password, properties={'a': 'b'})",
            "Worker('a', max_builds='b')",
            "GitHubAuth(util.Secret('a'), util.Secret('b'))",
            "GitHubAuth(os.environ['ID'], secret('x'))",
            "GitLabAuth('https://h', 'id', util.Secret('x'))",
            "PasswordManhole('tcp:1', 'admin', password, 'keys')",
            "Try_Userpass('try', ['a', 'b'], 1, userpass=[('u', util.Secret('x'))])",
            "Try_Userpass('try', ['a', 'b'], 1, userpass=pairs('u', 'x'))",
            "Worker('a'",
            "userpass = [('u'",
        ] {
            check(good, &[]);
        }
    }

    #[test]
    fn what_is_in_a_credential_is_found_whatever_it_is_called() {
        let mut profile = Profile::new();
        profile.instance_files.insert(
            ("master".parse().unwrap(), "master.cfg".to_owned()),
            "a = 1\nWORKERS = {\"w\": \"s3cret\"}\n".to_owned(),
        );
        let values = [
            ("worker-password", "s3cret\n"),
            ("short", "a\n"),
            ("none", ""),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let expected = Found {
            file: "instances/master/master.cfg".to_owned(),
            line: 2,
            name: "worker-password".to_owned(),
        };
        assert_eq!(find_values(&profile, &values.into()), [expected]);
    }

    #[test]
    fn units_have_secrets_in_variables() {
        let text =
            "[Service]\nEnvironment=\"API_TOKEN=x\" LANG=C TOKEN_FILE=/x\nSetCredential=a:b\n";
        assert_eq!(
            in_unit(text),
            [(2, "API_TOKEN".to_owned()), (3, "a".to_owned())]
        );
        let text = "[Service]\n# \\\nEnvironment=LANG=C \\\n# no\\\n API_TOKEN=x \\\n TERM=y\nSetCredential=a:b\n";
        assert_eq!(
            in_unit(text),
            [(3, "API_TOKEN".to_owned()), (7, "a".to_owned())]
        );
    }
}
