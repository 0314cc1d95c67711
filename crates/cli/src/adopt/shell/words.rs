//! Words: quotes, what `$` begins, and what they come to where that is known without a shell.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use buildbot_conda_core::unit_text::is_name;

use super::{Node, Parser, Read};

/// How many bytes of variables a script may refer to: each assignment may double what the one before it had.
const MOST_EXPANDED: usize = 1 << 16;
/// How deep defaults of variables may lie in each other.
const DEEPEST_DEFAULT: usize = 10;

/// One word, as it is written and as what it is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::adopt) struct Word {
    pub(in crate::adopt) raw: String,
    pub(in crate::adopt) parts: Vec<Part>,
    /// Quotes make a word of nothing, too.
    is_quoted: bool,
}

/// A part of a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::adopt) enum Part {
    Text(String),
    /// `$NAME`, `${NAME:-default}`; an unquoted one falls apart at blanks.
    Variable(Variable),
    /// `$(dirname "$0")`, or with `BASH_SOURCE` that of the file that is read.
    OwnDirectory {
        of_file: bool,
        is_absolute: bool,
    },
    /// `$(pwd)`
    Directory,
    /// It takes a shell, or a look at the host, to know.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::adopt) struct Variable {
    pub(in crate::adopt) name: String,
    /// `:-`, `-`, `:=`, `=`, `:+`, `+`, or nothing, and what stands behind it.
    pub(in crate::adopt) operator: &'static str,
    pub(in crate::adopt) operand: Word,
    is_quoted: bool,
}

/// What a variable is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::adopt) enum Value {
    Known(String),
    Unset,
    Unknown,
}

/// A variable of a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::adopt) struct Known {
    /// Not known where it is none.
    pub(in crate::adopt) value: Option<String>,
    pub(in crate::adopt) is_exported: bool,
}

/// What words may refer to.
#[derive(Debug, Clone, Default)]
pub(in crate::adopt) struct Scope {
    pub(in crate::adopt) variables: BTreeMap<String, Known>,
    pub(in crate::adopt) functions: BTreeMap<String, Rc<Vec<Node>>>,
    /// `$0`, `$1`, ...; none for what is not known.
    pub(in crate::adopt) arguments: Vec<Option<String>>,
    /// The file that is read, `$BASH_SOURCE`.
    pub(in crate::adopt) file: String,
    /// The current directory, absolute, where it is known.
    pub(in crate::adopt) directory: Option<String>,
    /// Something may have set variables that are not known here.
    pub(in crate::adopt) has_unknown: bool,
    /// `set -a`
    pub(in crate::adopt) exports_all: bool,
    /// Bytes that came from variables, in all processes together.
    expanded: Rc<Cell<usize>>,
}

/// What a shell sets itself, or systemd from what is not in the unit.
const NOT_KNOWN: &[&str] = &[
    "BASH",
    "BASHPID",
    "COLUMNS",
    "DIRSTACK",
    "EPOCHSECONDS",
    "EUID",
    "GROUPS",
    "HOSTNAME",
    "HOSTTYPE",
    "IFS",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LANG",
    "LANGUAGE",
    "LINENO",
    "MACHTYPE",
    "MAINPID",
    "OLDPWD",
    "OSTYPE",
    "PPID",
    "RANDOM",
    "SECONDS",
    "SHELL",
    "SHELLOPTS",
    "SHLVL",
    "TERM",
    "UID",
    "_",
];

impl Scope {
    pub(in crate::adopt) fn value(&self, name: &str) -> Value {
        if let Ok(number) = name.parse::<usize>() {
            return match self.arguments.get(number) {
                Some(Some(text)) => Value::Known(text.clone()),
                Some(None) => Value::Unknown,
                None => Value::Unset,
            };
        }
        if let Some(known) = self.variables.get(name) {
            return known.value.clone().map_or(Value::Unknown, Value::Known);
        }
        match name {
            "PWD" => self.directory.clone().map_or(Value::Unknown, Value::Known),
            "BASH_SOURCE" => Value::Known(self.file.clone()),
            _ if self.has_unknown || NOT_KNOWN.contains(&name) || name.starts_with("LC_") => {
                Value::Unknown
            }
            _ => Value::Unset,
        }
    }

    /// The words that a word becomes; none when that is not known.
    pub(in crate::adopt) fn fields(&self, word: &Word) -> Option<Vec<String>> {
        if matches!(word.raw.as_str(), "\"$@\"" | "$@" | "\"${@}\"") {
            let arguments = self.arguments.iter().skip(1).cloned();
            return arguments.collect();
        }
        let mut fields = Vec::new();
        let mut field = word.is_quoted.then(String::new);
        for part in &word.parts {
            let text = self.part(part)?;
            let splits = matches!(part, Part::Variable(variable) if !variable.is_quoted);
            if !splits {
                field.get_or_insert_default().push_str(&text);
                continue;
            }
            let blanks = [' ', '\t', '\n'];
            if text.contains(['*', '?', '[']) || (word.is_quoted && text.contains(blanks)) {
                return None;
            }
            if text.starts_with(blanks) {
                fields.extend(field.take());
            }
            for (index, piece) in text
                .split(blanks)
                .filter(|piece| !piece.is_empty())
                .enumerate()
            {
                if index > 0 {
                    fields.extend(field.take());
                }
                field.get_or_insert_default().push_str(piece);
            }
            if text.ends_with(blanks) {
                fields.extend(field.take());
            }
        }
        fields.extend(field);
        Some(fields)
    }

    /// The text of a word that does not fall apart, such as the value of an assignment.
    pub(in crate::adopt) fn text(&self, word: &Word) -> Option<String> {
        word.parts.iter().map(|part| self.part(part)).collect()
    }

    fn part(&self, part: &Part) -> Option<String> {
        let text = match part {
            Part::Text(text) => return Some(text.clone()),
            Part::Unknown => return None,
            Part::Directory => self.directory.clone()?,
            Part::OwnDirectory {
                of_file,
                is_absolute,
            } => {
                let script = self.arguments.first()?.as_deref()?;
                let own = if *of_file { &self.file } else { script };
                let directory = own.rsplit_once('/').map_or(".", |(directory, _)| directory);
                match directory {
                    "" => "/".to_owned(),
                    path if *is_absolute && !path.starts_with('/') => {
                        format!("{}/{path}", self.directory.as_deref()?)
                    }
                    path => path.to_owned(),
                }
            }
            Part::Variable(variable) => self.variable(variable)?,
        };
        let expanded = self.expanded.get().saturating_add(text.len());
        self.expanded.set(expanded);
        (expanded <= MOST_EXPANDED).then_some(text)
    }

    fn variable(&self, variable: &Variable) -> Option<String> {
        let value = self.value(&variable.name);
        let is_empty = value == Value::Known(String::new());
        let takes_operand = match (variable.operator, &value) {
            (":-" | ":=", Value::Known(_)) => is_empty,
            ("-" | "=", Value::Known(_)) | (":+" | "+" | "", Value::Unset) => false,
            (":-" | ":=" | "-" | "=", Value::Unset) | ("+", Value::Known(_)) => true,
            (":+", Value::Known(_)) => !is_empty,
            ("", Value::Known(text)) => return Some(text.clone()),
            _ => return None,
        };
        match value {
            _ if takes_operand => self.text(&variable.operand),
            Value::Known(text) if !variable.operator.ends_with('+') => Some(text),
            _ => Some(String::new()),
        }
    }
}

impl Word {
    /// A sign that is no word of a command.
    pub(super) fn sign(raw: char) -> Self {
        Self {
            raw: raw.to_string(),
            parts: vec![Part::Unknown],
            ..Self::default()
        }
    }

    /// Name and value of `NAME=value`; one that is `NAME+=value` is its own variable and the value.
    pub(in crate::adopt) fn assignment(&self) -> Option<(String, Self)> {
        let (name, raw) = self.raw.split_once('=')?;
        let (name, adds) = name
            .strip_suffix('+')
            .map_or((name, false), |name| (name, true));
        if !is_name(name) {
            return None;
        }
        let mut value = Self {
            raw: raw.to_owned(),
            is_quoted: true,
            parts: self.parts.clone(),
        };
        let Some(Part::Text(first)) = value.parts.first_mut() else {
            return None;
        };
        *first = first.split_once('=')?.1.to_owned();
        if adds {
            let variable = Variable {
                name: name.to_owned(),
                operator: "",
                operand: Self::default(),
                is_quoted: true,
            };
            value.parts.insert(0, Part::Variable(variable));
        }
        Some((name.to_owned(), value))
    }
}

impl Parser<'_> {
    pub(super) fn word(&mut self) -> Read<Word> {
        let word = self.word_up_to(ends_word, false)?;
        if word.raw.is_empty() {
            // Nothing was taken, and nobody may try it again.
            return self.error("a missing word");
        }
        Ok(word)
    }

    fn word_up_to(&mut self, is_end: impl Fn(char) -> bool, in_quotes: bool) -> Read<Word> {
        let mut word = Word {
            is_quoted: in_quotes,
            ..Word::default()
        };
        let mut quote = in_quotes.then_some('"');
        while let Some(&next) = self.rest.peek() {
            let is_plain = in_quotes || quote.is_none();
            if is_plain && is_end(next) {
                break;
            }
            self.rest.next();
            word.raw.push(next);
            if next == '\n' {
                self.line += 1;
            }
            match (next, quote) {
                ('\'' | '"', None) => {
                    quote = Some(next);
                    word.is_quoted = true;
                }
                (end, Some(begin)) if end == begin && !in_quotes => quote = None,
                (other, Some('\'')) => word.push(other),
                ('\\', _) => self.escaped(quote, &mut word),
                ('$', None) if matches!(self.rest.peek(), Some('\'' | '"')) => {
                    return self.error("`$` in front of a quote");
                }
                ('$', _) => {
                    let part = self.dollar(&mut word.raw, quote.is_some())?;
                    word.parts.push(part);
                }
                ('`', _) => {
                    self.up_to('`', &mut word.raw)?;
                    word.parts.push(Part::Unknown);
                }
                ('~', None) => self.tilde(&mut word),
                // What braces and patterns come to depends on the shell and on the host.
                ('{' | '*' | '?', None) => word.parts.push(Part::Unknown),
                ('[', None) if !matches!(self.rest.peek(), None | Some(' ' | '[')) => {
                    word.parts.push(Part::Unknown);
                }
                (other, _) => word.push(other),
            }
        }
        if quote.is_some() && !in_quotes {
            return self.error("an unterminated quote");
        }
        Ok(word)
    }

    fn escaped(&mut self, quote: Option<char>, word: &mut Word) {
        let Some(next) = self.rest.next() else { return };
        word.raw.push(next);
        if next == '\n' {
            self.line += 1;
            return;
        }
        // Within quotes only a few characters lose their backslash.
        if quote.is_some() && !"$`\"\\".contains(next) {
            word.push('\\');
        }
        word.push(next);
        word.is_quoted = true;
    }

    /// The home directory: at the beginning of a word or of a value, or of a part of such a path.
    fn tilde(&mut self, word: &mut Word) {
        let before = &word.raw[..word.raw.len() - 1];
        let is_value = before.split_once('=').is_some_and(|(name, value)| {
            is_name(name) && (value.is_empty() || value.ends_with(':'))
        });
        if !before.is_empty() && !is_value {
            word.push('~');
        } else if matches!(
            self.rest.peek(),
            None | Some('/' | ' ' | '\t' | '\n' | ';' | ':' | '&' | ')')
        ) {
            word.parts.push(Part::Variable(Variable {
                name: "HOME".to_owned(),
                operator: "",
                operand: Word::default(),
                is_quoted: true,
            }));
        } else {
            word.parts.push(Part::Unknown);
        }
    }

    /// What `$` begins.
    fn dollar(&mut self, raw: &mut String, is_quoted: bool) -> Read<Part> {
        let plain = |name: &str| {
            Part::Variable(Variable {
                name: name.to_owned(),
                operator: "",
                operand: Word::default(),
                is_quoted,
            })
        };
        let begin = raw.len() + 1;
        Ok(match self.rest.peek().copied() {
            Some('(') => {
                self.rest.next();
                raw.push('(');
                self.up_to(')', raw)?;
                substitution(&raw[begin..raw.len() - 1])
            }
            Some('{') => {
                self.rest.next();
                raw.push('{');
                self.up_to('}', raw)?;
                let inner = raw[begin..raw.len() - 1].to_owned();
                self.braced(&inner, is_quoted)?
            }
            Some(next) if next.is_ascii_digit() => {
                self.rest.next();
                raw.push(next);
                plain(&next.to_string())
            }
            Some(next) if next.is_ascii_alphabetic() || next == '_' => {
                let mut name = String::new();
                while let Some(next) = self
                    .rest
                    .next_if(|next| next.is_ascii_alphanumeric() || *next == '_')
                {
                    name.push(next);
                }
                raw.push_str(&name);
                plain(&name)
            }
            Some(next @ ('@' | '*' | '#' | '?' | '$' | '!' | '-')) => {
                self.rest.next();
                raw.push(next);
                Part::Unknown
            }
            _ => Part::Text("$".to_owned()),
        })
    }

    /// What stands between `${` and `}`.
    fn braced(&mut self, inner: &str, is_quoted: bool) -> Read<Part> {
        let end = inner
            .find(|next: char| !next.is_ascii_alphanumeric() && next != '_')
            .unwrap_or(inner.len());
        let (name, rest) = inner.split_at(end);
        let is_number = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
        if !is_name(name) && !is_number {
            return Ok(Part::Unknown);
        }
        let operators = [":-", ":=", ":+", "-", "=", "+"];
        let operator = operators
            .into_iter()
            .find(|operator| rest.starts_with(operator));
        let (operator, operand) = match (operator, rest) {
            (Some(operator), _) => (operator, &rest[operator.len()..]),
            (None, "") => ("", ""),
            (None, "[0]") if name == "BASH_SOURCE" => ("", ""),
            (None, _) => return Ok(Part::Unknown),
        };
        let mut parser = Parser::new(operand);
        parser.line = self.line;
        parser.depth = self.depth + 1;
        if parser.depth > DEEPEST_DEFAULT + super::DEEPEST {
            return self.error("such deep nesting of defaults");
        }
        // Outside of quotes it has quotes of its own.
        let operand = parser.word_up_to(|_| false, is_quoted)?;
        Ok(Part::Variable(Variable {
            name: name.to_owned(),
            operator,
            operand,
            is_quoted,
        }))
    }

    /// Everything up to `end`, which is taken too; brackets and quotes within are counted.
    fn up_to(&mut self, end: char, raw: &mut String) -> Read<()> {
        let begin = match end {
            ')' => Some('('),
            '}' => Some('{'),
            _ => None,
        };
        let mut depth = 0_usize;
        let mut quote: Option<char> = None;
        while let Some(next) = self.rest.next() {
            raw.push(next);
            if next == '\n' {
                self.line += 1;
            }
            match quote {
                Some(open) if open == next => quote = None,
                Some('\'') => {}
                _ if next == '\\' => raw.extend(self.rest.next()),
                None if matches!(next, '\'' | '"') && end != '`' => quote = Some(next),
                None if Some(next) == begin => depth += 1,
                None if next == end && depth == 0 => return Ok(()),
                None if next == end => depth -= 1,
                _ => {}
            }
        }
        self.error(&format!("a missing `{end}`"))
    }
}

/// Whether a character cannot be part of a word without quotes.
pub(super) fn ends_word(next: char) -> bool {
    " \t\n;&|<>()".contains(next)
}

/// What is known of the text between `$(` and `)`: where the script is, and where it runs.
fn substitution(inner: &str) -> Part {
    let text = inner.replace(['"', '\'', ';', ')'], " ").replace("&&", " ");
    let words: Vec<&str> = text
        .split_whitespace()
        .filter(|word| *word != "--")
        .collect();
    let (script, is_absolute) = match words[..] {
        ["pwd"] => return Part::Directory,
        ["dirname", script] => (script, false),
        ["cd", "$(dirname", script, "pwd"] => (script, true),
        _ => return Part::Unknown,
    };
    match script {
        "$0" | "${0}" => Part::OwnDirectory {
            of_file: false,
            is_absolute,
        },
        "$BASH_SOURCE" | "${BASH_SOURCE[0]}" | "${BASH_SOURCE}" => Part::OwnDirectory {
            of_file: true,
            is_absolute,
        },
        _ => Part::Unknown,
    }
}

impl Word {
    fn push(&mut self, character: char) {
        if let Some(Part::Text(text)) = self.parts.last_mut() {
            text.push(character);
        } else {
            self.parts.push(Part::Text(character.to_string()));
        }
    }
}
