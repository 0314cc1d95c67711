//! Shell scripts as commands and words, as far as that can be said without running them: quotes,
//! variables whose value is known, `$(dirname "$0")`, nesting of conditions. Whatever needs a shell
//! stays unknown, with its text; what changes how a script is read and is not known here is named.

use std::collections::BTreeMap;

use buildbot_conda_core::unit_text::is_name;

/// One word of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    /// As it is written.
    pub(super) raw: String,
    /// What it comes to, where that is known.
    pub(super) value: Option<String>,
}

impl Word {
    /// A word of a command line that is no shell's.
    pub(super) fn plain(text: &str) -> Self {
        Self {
            raw: text.to_owned(),
            value: Some(text.to_owned()),
        }
    }

    /// The value, or nothing that is a name of anything.
    pub(super) fn known(&self) -> &str {
        self.value.as_deref().unwrap_or("")
    }
}

/// A simple command with its line, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) line: usize,
    pub(super) words: Vec<Word>,
    /// Whether it runs depends on something.
    pub(super) conditional: bool,
    /// The script goes on without waiting for it.
    pub(super) background: bool,
    /// It has something that is not understood here.
    pub(super) unknown: Option<&'static str>,
}

/// What words may refer to.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope {
    /// Known variables; `None` for one whose value is not known.
    pub(super) variables: BTreeMap<String, Option<String>>,
    /// `$0`, `$1`, ...
    pub(super) arguments: Vec<String>,
}

/// How many bytes of variables a script may refer to: each assignment may double what the one before it had.
const MOST_EXPANDED: usize = 1 << 16;

/// Reads a script command by command: each is given out before the next one is read, so that what
/// it assigns counts for what follows.
pub(super) struct Script<'t> {
    rest: std::iter::Peekable<std::str::Chars<'t>>,
    line: usize,
    /// Open `if`, `case`, loops, functions and groups.
    depth: usize,
    /// The next command stands behind `||`.
    is_alternative: bool,
    /// Ends of here-documents that begin with the next line, and whether tabs in front of them are taken off.
    documents: Vec<(String, bool)>,
    /// What has been seen of the present command that is not understood.
    unknown: Option<&'static str>,
    /// Bytes that came from variables.
    expanded: usize,
}

impl<'t> Script<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self {
            rest: text.chars().peekable(),
            line: 1,
            depth: 0,
            is_alternative: false,
            documents: Vec::new(),
            unknown: None,
            expanded: 0,
        }
    }

    /// The next command; words of the shell's own grammar are taken off it.
    pub(super) fn next(&mut self, scope: &Scope) -> Option<Command> {
        loop {
            let (mut command, end) = self.simple(scope)?;
            command.unknown = self.unknown.take();
            if command.unknown.is_some() {
                return Some(command);
            }
            let conditional = self.depth > 0 || self.is_alternative;
            self.is_alternative = end == "||";
            let mut command = Command {
                conditional,
                background: end == "&",
                ..command
            };
            let mut taken = 0;
            while let Some(word) = command.words.get(taken) {
                match word.raw.as_str() {
                    "if" | "while" | "until" | "{" | "(" => self.depth += 1,
                    "for" | "case" | "select" | "function" => {
                        // What stands on this line is no command.
                        self.depth += 1;
                        taken = command.words.len();
                        break;
                    }
                    "fi" | "done" | "esac" | "}" | ")" => self.depth = self.depth.saturating_sub(1),
                    "then" | "else" | "elif" | "do" | "!" => {}
                    _ => break,
                }
                taken += 1;
                command.conditional |= self.depth > 0;
            }
            command.words.drain(..taken);
            if !command.words.is_empty() {
                return Some(command);
            }
        }
    }

    /// Words up to an operator, and the operator.
    fn simple(&mut self, scope: &Scope) -> Option<(Command, &'static str)> {
        let mut words: Vec<Word> = Vec::new();
        let mut line = self.line;
        loop {
            self.blanks();
            let Some(&next) = self.rest.peek() else {
                let is_something = !words.is_empty() || self.unknown.is_some();
                return is_something.then(|| (command(line, words), ""));
            };
            if words.is_empty() {
                line = self.line;
            }
            match next {
                '\n' | ';' | '&' | '|' => {
                    let end = self.operator();
                    // `&>` is a redirection.
                    if end == "&" && self.rest.peek() == Some(&'>') {
                        continue;
                    }
                    if !words.is_empty() || end == "||" || self.unknown.is_some() {
                        return Some((command(line, words), end));
                    }
                }
                '#' => while self.rest.next_if(|&next| next != '\n').is_some() {},
                '<' | '>' => self.redirection(scope),
                '(' | ')' => {
                    self.rest.next();
                    if next == '(' && words.last().is_some_and(|word| word.raw.ends_with('=')) {
                        self.unknown = Some("an array");
                        self.up_to(')', &mut String::new());
                        continue;
                    }
                    if next == '(' && words.is_empty() && self.rest.peek() == Some(&'(') {
                        self.unknown = Some("arithmetic in `((`");
                        self.up_to(')', &mut String::new());
                        continue;
                    }
                    if next == '(' && !words.is_empty() {
                        // `name()`: a function.
                        self.rest.next_if_eq(&')');
                        words.clear();
                        continue;
                    }
                    if words.is_empty() {
                        words.push(Word::plain(&next.to_string()));
                    }
                    return Some((command(line, words), ";"));
                }
                _ => {
                    let word = self.word(scope);
                    let is_number = word.raw.bytes().all(|byte| byte.is_ascii_digit());
                    let redirects = matches!(self.rest.peek(), Some('<' | '>'));
                    if !(is_number && redirects) {
                        words.push(word);
                    }
                }
            }
        }
    }

    fn blanks(&mut self) {
        loop {
            match self.rest.peek() {
                Some(' ' | '\t' | '\r') => {
                    self.rest.next();
                }
                Some('\\') => {
                    let mut ahead = self.rest.clone();
                    ahead.next();
                    if ahead.next() != Some('\n') {
                        return;
                    }
                    self.rest = ahead;
                    self.line += 1;
                }
                _ => return,
            }
        }
    }

    fn operator(&mut self) -> &'static str {
        let first = self.rest.next();
        if first == Some('\n') {
            self.line += 1;
            self.skip_documents();
            return ";";
        }
        let doubled = first.filter(|&first| self.rest.next_if_eq(&first).is_some());
        match (first, doubled) {
            (Some('|'), Some(_)) => "||",
            (Some('&'), None) => "&",
            _ => ";",
        }
    }

    /// What is read from or written to does not matter.
    fn redirection(&mut self, scope: &Scope) {
        let mut signs = String::new();
        while let Some(sign) = self
            .rest
            .next_if(|&next| matches!(next, '<' | '>' | '&' | '|'))
        {
            signs.push(sign);
        }
        if self.rest.peek() == Some(&'(') {
            self.unknown = Some("process substitution");
            self.rest.next();
            self.up_to(')', &mut String::new());
            return;
        }
        let strips = signs == "<<" && self.rest.next_if_eq(&'-').is_some();
        self.blanks();
        if signs == "<<" {
            let end = self.word(scope);
            let end = end.raw.replace(['"', '\'', '\\'], "");
            self.documents.push((end, strips));
            return;
        }
        if !matches!(self.rest.peek(), None | Some('\n' | ';')) {
            self.word(scope);
        }
    }

    /// Here-documents are data of the commands before them.
    fn skip_documents(&mut self) {
        for (end, strips) in std::mem::take(&mut self.documents) {
            while self.rest.peek().is_some() {
                let mut text = String::new();
                while let Some(next) = self.rest.next_if(|&next| next != '\n') {
                    text.push(next);
                }
                self.rest.next();
                self.line += 1;
                let text = if strips {
                    text.trim_start_matches('\t')
                } else {
                    &text
                };
                if text == end {
                    break;
                }
            }
        }
    }

    fn word(&mut self, scope: &Scope) -> Word {
        let mut raw = String::new();
        let mut value = Some(String::new());
        let mut quote: Option<char> = None;
        while let Some(&next) = self.rest.peek() {
            if quote.is_none() && " \t\r\n;&|<>()".contains(next) {
                break;
            }
            self.rest.next();
            raw.push(next);
            if next == '\n' {
                self.line += 1;
            }
            match (next, quote) {
                ('\'' | '"', None) => quote = Some(next),
                (end, Some(begin)) if end == begin => quote = None,
                (other, Some('\'')) => push(&mut value, &other.to_string()),
                ('\\', _) => self.escaped(quote, &mut raw, &mut value),
                ('$', None) if matches!(self.rest.peek(), Some('\'' | '"')) => value = None,
                ('{', None) => {
                    value = None;
                }
                ('$', _) => {
                    let part = self.dollar(&mut raw, scope);
                    self.expand(&mut value, part.as_deref());
                }
                ('`', _) => {
                    self.up_to('`', &mut raw);
                    value = None;
                }
                ('~', None)
                    if raw == "~"
                        && matches!(self.rest.peek(), None | Some('/' | ' ' | '\n' | ';')) =>
                {
                    let home = scope.variables.get("HOME");
                    self.expand(&mut value, home.and_then(Option::as_deref));
                }
                ('*' | '?' | '[', None) if raw.len() > 1 => value = None,
                (other, _) => push(&mut value, &other.to_string()),
            }
        }
        Word { raw, value }
    }

    /// Adds what a variable stands for, where that is known.
    fn expand(&mut self, value: &mut Option<String>, part: Option<&str>) {
        self.expanded = self.expanded.saturating_add(part.map_or(0, str::len));
        match part.filter(|_| self.expanded <= MOST_EXPANDED) {
            Some(part) => push(value, part),
            None => *value = None,
        }
    }

    fn escaped(&mut self, quote: Option<char>, raw: &mut String, value: &mut Option<String>) {
        let Some(next) = self.rest.next() else { return };
        raw.push(next);
        if next == '\n' {
            self.line += 1;
            return;
        }
        // Within quotes only a few characters lose their backslash.
        if quote.is_some() && !"$`\"\\".contains(next) {
            push(value, "\\");
        }
        push(value, &next.to_string());
    }

    /// What `$` begins; `None` when it takes a shell to know.
    fn dollar(&mut self, raw: &mut String, scope: &Scope) -> Option<String> {
        match self.rest.peek().copied() {
            Some('(') => {
                self.rest.next();
                raw.push('(');
                let begin = raw.len();
                self.up_to(')', raw);
                let inner = raw[begin..].strip_suffix(')')?;
                let is_own_directory = [
                    "dirname $0",
                    "dirname ${BASH_SOURCE[0]}",
                    "dirname $BASH_SOURCE",
                ]
                .contains(
                    &inner
                        .replace(['"', '\''], "")
                        .trim()
                        .replace("-- ", "")
                        .as_str(),
                );
                let own = scope.arguments.first()?;
                let (directory, _) = own.rsplit_once('/')?;
                is_own_directory.then(|| directory.to_owned())
            }
            Some('{') => {
                self.rest.next();
                raw.push('{');
                let begin = raw.len();
                self.up_to('}', raw);
                let inner = raw[begin..].strip_suffix('}')?.to_owned();
                let (name, default) = match inner.split_once(":-") {
                    Some((name, default)) => (name, Some(default.to_owned())),
                    None => (inner.as_str(), None),
                };
                match scope.look_up(name) {
                    Some(value) if !value.is_empty() => Some(value),
                    // Set elsewhere, perhaps, or not at all: only then is the default meant.
                    None if default.is_none() && is_name(name) => None,
                    _ => default.filter(|text| !text.contains(['$', '`'])),
                }
            }
            Some(next) if next.is_ascii_digit() => {
                self.rest.next();
                raw.push(next);
                scope.look_up(&next.to_string())
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
                scope.look_up(&name)
            }
            Some(next @ ('@' | '*' | '#' | '?' | '$' | '!' | '-')) => {
                self.rest.next();
                raw.push(next);
                None
            }
            _ => Some("$".to_owned()),
        }
    }

    /// Everything up to `end`, brackets and quotes within counted.
    fn up_to(&mut self, end: char, raw: &mut String) {
        let begin = match end {
            ')' => Some('('),
            '}' => Some('{'),
            _ => None,
        };
        let mut depth = 0_usize;
        let mut quote: Option<char> = None;
        for next in self.rest.by_ref() {
            raw.push(next);
            if next == '\n' {
                self.line += 1;
            }
            match quote {
                Some(open) if open == next => quote = None,
                None if matches!(next, '\'' | '"') => quote = Some(next),
                None if Some(next) == begin => depth += 1,
                None if next == end && depth == 0 => return,
                None if next == end => depth -= 1,
                _ => {}
            }
        }
    }
}

impl Scope {
    fn look_up(&self, name: &str) -> Option<String> {
        if let Ok(number) = name.parse::<usize>() {
            return self.arguments.get(number).cloned();
        }
        self.variables.get(name).cloned().flatten()
    }
}

fn command(line: usize, words: Vec<Word>) -> Command {
    Command {
        line,
        words,
        conditional: false,
        background: false,
        unknown: None,
    }
}

fn push(value: &mut Option<String>, text: &str) {
    if let Some(value) = value {
        value.push_str(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(text: &str) -> Vec<String> {
        let scope = Scope {
            variables: BTreeMap::from([
                ("HOME".to_owned(), Some("/home/bb".to_owned())),
                ("ENV".to_owned(), Some("two words".to_owned())),
            ]),
            arguments: vec!["/srv/start.sh".to_owned(), "gpu".to_owned()],
        };
        let mut script = Script::new(text);
        let mut told = Vec::new();
        while let Some(command) = script.next(&scope) {
            let words: Vec<&str> = command
                .words
                .iter()
                .map(|word| word.value.as_deref().unwrap_or("?"))
                .collect();
            let mark = if command.conditional { " if" } else { "" };
            let mark = if command.background { " &" } else { mark };
            let words = command
                .unknown
                .map_or_else(|| words.join("|"), str::to_owned);
            told.push(format!("{}{mark}: {words}", command.line));
        }
        told
    }

    #[test]
    fn quotes_variables_and_comments_are_read_as_the_shell_does() {
        let text = "#!/bin/bash\nset -e # why\ncd ~/master && . \"$HOME/a b\"/x 'l $HOME' \"$ENV\" \\\n  more\n\
                    X=\"${NONE:-d}\" Y=${HOME} echo $1 \"$@\" >log 2>&1 </dev/null; exec run $(date) \"$(dirname \"$0\")/y\"\n";
        assert_eq!(
            commands(text),
            [
                "2: set|-e",
                "3: cd|/home/bb/master",
                "3: .|/home/bb/a b/x|l $HOME|two words|more",
                "5: X=d|Y=/home/bb|echo|gpu|?",
                "5: exec|run|?|/srv/y",
            ]
        );
    }

    #[test]
    fn what_depends_on_something_is_marked() {
        let text =
            "if [ -f /x ]; then\n  . /x\nelse y; fi\nf() {\n  z\n}\ncd /d || exit 1\nend &\nlast";
        assert_eq!(
            commands(text),
            [
                "1 if: [|-f|/x|]",
                "2 if: .|/x",
                "3 if: y",
                "5 if: z",
                "7: cd|/d",
                "7 if: exit|1",
                "8 &: end",
                "9: last",
            ]
        );
    }

    #[test]
    fn here_documents_are_data_and_what_is_not_known_is_named() {
        let text = "cat <<EOF >x\nbuildbot start m\n\tEOF\nEOF\nmail <<-'E' <<F; a\nb\n\tE\nc\nF\nd <<<word\n\
                    A=(x\n y)\n. <(hook)\n((n++))\ne $'f' {g,h}\nlast";
        assert_eq!(
            commands(text),
            [
                "1: cat",
                "5: mail",
                "5: a",
                "10: d",
                "11: an array",
                "13: process substitution",
                "14: arithmetic in `((`",
                "15: e|?|?",
                "16: last",
            ]
        );
    }

    #[test]
    fn an_unfinished_script_ends_all_the_same() {
        for text in [
            "'",
            "\"$(",
            "${",
            "`",
            "\\",
            "a <",
            "$((",
            "case x in",
            "((",
            "f(",
            "a &>",
        ] {
            assert!(commands(text).len() < 3, "{text}");
        }
    }
}
