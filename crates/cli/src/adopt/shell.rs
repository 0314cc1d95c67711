//! Shell scripts as what they are made of: commands, and what rules whether they run. The grammar is whole or the script is
//! refused: whatever is not known here is an error with its line and its name, and no command is read out of text that
//! is none, such as a here-document or what stands behind an `exit`.
//!
//! `words` has quotes and what `$` begins, and what words come to.

use std::rc::Rc;

use buildbot_conda_core::unit_text::is_name;

pub(super) mod words;

pub(super) use words::{Scope, Value, Word};

/// How deep commands may lie in each other.
const DEEPEST: usize = 40;
/// How many commands `&&` and `||` may join.
const LONGEST: usize = 200;

/// One command of a script, with what rules whether it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    Simple(Simple),
    /// `[[ ... ]]`: its words are not a command's.
    Test(Simple),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Not(Box<Node>),
    /// `a | b`: each in a process of its own.
    Pipeline(Vec<Node>),
    Background(Box<Node>),
    /// `( ... )`
    Subshell(Vec<Node>),
    /// `{ ...; }`
    Group(Vec<Node>),
    /// Conditions with what they guard, and what stands behind `else`.
    If(Vec<(Vec<Node>, Vec<Node>)>, Vec<Node>),
    /// `while` and `until` with their condition, `for` with its variable: run any number of times.
    Loop(Option<String>, Vec<Node>),
    /// A word, and for each arm its patterns and its commands.
    Case(Word, Vec<(Vec<Word>, Vec<Node>)>),
    Function(String, Rc<Vec<Node>>),
}

/// A simple command with its line, counted from 1.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Simple {
    pub(super) line: usize,
    /// `NAME=value` in front of it.
    pub(super) assignments: Vec<(String, Word)>,
    pub(super) words: Vec<Word>,
    /// `>log`, `2>&1`, as they are written.
    pub(super) redirections: Vec<String>,
}

impl Simple {
    /// As it is written, apart from blanks.
    pub(super) fn raw(&self) -> String {
        let assigned = self.assignments.iter();
        let assigned = assigned.map(|(name, word)| format!("{name}={}", word.raw));
        let words = self.words.iter().map(|word| word.raw.clone());
        let redirections = self.redirections.iter().cloned();
        let all: Vec<String> = assigned.chain(words).chain(redirections).collect();
        all.join(" ")
    }
}

/// The first simple command of a node: what it is called by.
pub(super) fn first(nodes: &[Node]) -> Option<&Simple> {
    match nodes.first()? {
        Node::Simple(simple) | Node::Test(simple) => Some(simple),
        Node::And(node, _) | Node::Or(node, _) | Node::Not(node) | Node::Background(node) => {
            first(std::slice::from_ref(node))
        }
        Node::Pipeline(nodes)
        | Node::Subshell(nodes)
        | Node::Group(nodes)
        | Node::Loop(_, nodes) => first(nodes),
        Node::If(branches, _) => first(&branches.first()?.0),
        Node::Case(_, arms) => first(&arms.first()?.1),
        Node::Function(_, body) => first(body),
    }
}

/// What the grammar here does not have, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unreadable {
    pub(super) line: usize,
    pub(super) what: String,
}

type Read<T> = Result<T, Unreadable>;

/// Reads a script line by line as a shell does: what stands behind an `exec` may be no shell script.
pub(super) struct Parser<'t> {
    rest: std::iter::Peekable<std::str::Chars<'t>>,
    line: usize,
    depth: usize,
    /// Ends of here-documents that begin with the next line, and whether tabs in front of them are taken off.
    documents: Vec<(String, bool)>,
}

impl<'t> Parser<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self {
            rest: text.chars().peekable(),
            line: 1,
            depth: 0,
            documents: Vec::new(),
        }
    }

    /// The next command of the script with all that belongs to it; none at its end.
    pub(super) fn next(&mut self) -> Read<Option<Node>> {
        self.separators()?;
        if self.rest.peek().is_none() {
            return Ok(None);
        }
        self.item().map(Some)
    }

    fn error<T>(&self, what: &str) -> Read<T> {
        Err(Unreadable {
            line: self.line,
            what: what.to_owned(),
        })
    }

    fn begins_with(&self, text: &str) -> bool {
        let mut rest = self.rest.clone();
        text.chars().all(|expected| rest.next() == Some(expected))
    }

    fn skip(&mut self, text: &str) -> bool {
        let found = self.begins_with(text);
        if found {
            self.rest.nth(text.chars().count() - 1);
        }
        found
    }

    /// Blanks, continued lines and comments.
    fn blanks(&mut self) {
        loop {
            match self.rest.peek().copied() {
                Some(' ' | '\t') => drop(self.rest.next()),
                Some('\\') if self.skip("\\\n") => self.line += 1,
                Some('#') => while self.rest.next_if(|&next| next != '\n').is_some() {},
                _ => return,
            }
        }
    }

    fn separators(&mut self) -> Read<()> {
        loop {
            self.blanks();
            if self.rest.peek() != Some(&'\n') {
                return Ok(());
            }
            self.newline()?;
        }
    }

    fn newline(&mut self) -> Read<()> {
        self.rest.next();
        self.line += 1;
        // Here-documents are data of the commands before them.
        for (end, strips) in std::mem::take(&mut self.documents) {
            loop {
                if self.rest.peek().is_none() {
                    return self.error("an unterminated here-document");
                }
                let mut text = String::new();
                while let Some(next) = self.rest.next_if(|&next| next != '\n') {
                    text.push(next);
                }
                if self.rest.next().is_some() {
                    self.line += 1;
                }
                let text = text.trim_start_matches(|first| strips && first == '\t');
                if text == end {
                    break;
                }
            }
        }
        Ok(())
    }

    /// The word that stands here, where it has no quotes and signs: it may be the shell's own.
    fn bare(&self) -> String {
        let mut rest = self.rest.clone();
        std::iter::from_fn(|| rest.next_if(|next| !words::ends_word(*next))).collect()
    }

    /// A list of commands up to one of these words, which is taken, and given.
    fn list(&mut self, ends: &[&'static str]) -> Read<(Vec<Node>, &'static str)> {
        let mut nodes = Vec::new();
        loop {
            self.separators()?;
            let bare = self.bare();
            let found = ends.iter().find(|end| match **end {
                ")" | ";;" => self.begins_with(end),
                end => bare == end,
            });
            if let Some(end) = found {
                self.skip(end);
                return Ok((nodes, end));
            }
            if self.rest.peek().is_none() {
                return self.error(&format!("a command without its `{}`", ends.join("` or `")));
            }
            nodes.push(self.item()?);
        }
    }

    /// Pipelines joined by `&&` and `||`, and the sign behind them.
    fn item(&mut self) -> Read<Node> {
        let mut node = self.pipeline()?;
        for count in 0.. {
            self.blanks();
            let is_and = self.begins_with("&&");
            if !is_and && !self.begins_with("||") {
                break;
            }
            if count == LONGEST {
                return self.error("a chain of commands of this length");
            }
            self.rest.nth(1);
            self.separators()?;
            let (left, right) = (Box::new(node), Box::new(self.pipeline()?));
            node = if is_and {
                Node::And(left, right)
            } else {
                Node::Or(left, right)
            };
        }
        match self.rest.peek().copied() {
            Some('&') => {
                self.rest.next();
                node = Node::Background(Box::new(node));
            }
            Some(';') if !self.begins_with(";;") => drop(self.rest.next()),
            None | Some('\n' | ')' | ';') => {}
            Some(other) => return self.error(&format!("`{other}` at this position")),
        }
        Ok(node)
    }

    fn pipeline(&mut self) -> Read<Node> {
        if self.bare() == "!" {
            self.rest.next();
            self.blanks();
            self.deeper()?;
            let node = self.pipeline()?;
            self.depth -= 1;
            return Ok(Node::Not(Box::new(node)));
        }
        let mut nodes = vec![self.command()?];
        loop {
            self.blanks();
            if self.rest.peek() != Some(&'|') || self.begins_with("||") {
                break;
            }
            self.rest.next();
            self.rest.next_if_eq(&'&');
            self.separators()?;
            nodes.push(self.command()?);
        }
        Ok(if nodes.len() == 1 {
            nodes.remove(0)
        } else {
            Node::Pipeline(nodes)
        })
    }

    fn deeper(&mut self) -> Read<()> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return self.error("such deep nesting of commands");
        }
        Ok(())
    }

    fn command(&mut self) -> Read<Node> {
        self.deeper()?;
        let node = match self.bare().as_str() {
            "if" => self.compound(Self::conditions)?,
            "while" | "until" => self.compound(|parser| {
                let (mut nodes, _) = parser.list(&["do"])?;
                nodes.extend(parser.list(&["done"])?.0);
                Ok(Node::Loop(None, nodes))
            })?,
            "for" => self.compound(Self::for_loop)?,
            "case" => self.compound(Self::case)?,
            "{" => self.compound(|parser| Ok(Node::Group(parser.list(&["}"])?.0)))?,
            "function" => self.compound(|parser| {
                parser.blanks();
                let name = parser.bare();
                parser.skip(&name);
                parser.function(name)
            })?,
            "[[" => self.test()?,
            word @ ("then" | "else" | "elif" | "fi" | "do" | "done" | "esac" | "}" | "select"
            | "coproc") => {
                return self.error(&format!("`{word}` at this position"));
            }
            _ if self.begins_with("((") => return self.error("arithmetic in `((`"),
            _ if self.skip("(") => Node::Subshell(self.list(&[")"])?.0),
            _ => self.simple()?,
        };
        if !matches!(node, Node::Simple(_) | Node::Test(_)) {
            // What a compound command reads and writes does not rule what runs.
            self.redirections(&mut Vec::new())?;
        }
        self.depth -= 1;
        Ok(node)
    }

    /// What stands behind a word of the shell's own.
    fn compound(&mut self, read: impl Fn(&mut Self) -> Read<Node>) -> Read<Node> {
        let word = self.bare();
        self.skip(&word);
        read(self)
    }

    fn conditions(&mut self) -> Read<Node> {
        let mut branches = Vec::new();
        loop {
            let (condition, _) = self.list(&["then"])?;
            let (body, end) = self.list(&["elif", "else", "fi"])?;
            branches.push((condition, body));
            match end {
                "elif" => {}
                "else" => return Ok(Node::If(branches, self.list(&["fi"])?.0)),
                _ => return Ok(Node::If(branches, Vec::new())),
            }
        }
    }

    fn for_loop(&mut self) -> Read<Node> {
        self.blanks();
        let name = self.bare();
        if !is_name(&name) {
            return self.error("a `for` without a name");
        }
        self.skip(&name);
        // Its words, up to the end of the line.
        while !matches!(self.rest.peek(), None | Some('\n' | ';')) {
            self.blanks();
            if matches!(self.rest.peek(), None | Some('\n' | ';')) {
                break;
            }
            self.word()?;
        }
        self.rest.next_if_eq(&';');
        self.separators()?;
        if self.bare() != "do" {
            return self.error("a `for` without `do`");
        }
        self.skip("do");
        Ok(Node::Loop(Some(name), self.list(&["done"])?.0))
    }

    fn case(&mut self) -> Read<Node> {
        self.blanks();
        let subject = self.word()?;
        self.separators()?;
        if self.bare() != "in" {
            return self.error("a `case` without `in`");
        }
        self.skip("in");
        let mut arms = Vec::new();
        loop {
            self.separators()?;
            if self.bare() == "esac" {
                self.skip("esac");
                return Ok(Node::Case(subject, arms));
            }
            self.skip("(");
            let mut patterns = Vec::new();
            loop {
                self.blanks();
                patterns.push(self.word()?);
                self.blanks();
                if self.skip(")") {
                    break;
                }
                if !self.skip("|") {
                    return self.error("this form of `case`");
                }
            }
            let (body, end) = self.list(&[";;", "esac"])?;
            arms.push((patterns, body));
            if end == "esac" {
                return Ok(Node::Case(subject, arms));
            }
            if matches!(self.rest.peek(), Some('&')) {
                return self.error("`;;&`");
            }
        }
    }

    /// The body of a function, behind its name.
    fn function(&mut self, name: String) -> Read<Node> {
        self.blanks();
        if self.skip("(") {
            self.blanks();
            if !self.skip(")") {
                return self.error("`(` at this position");
            }
        }
        self.separators()?;
        let body = match self.command()? {
            Node::Group(nodes) => nodes,
            other => vec![other],
        };
        Ok(Node::Function(name, Rc::new(body)))
    }

    fn test(&mut self) -> Read<Node> {
        let mut test = Simple {
            line: self.line,
            ..Simple::default()
        };
        loop {
            self.blanks();
            match self.rest.peek().copied() {
                None => return self.error("`[[` without its `]]`"),
                Some('\n') => self.newline()?,
                Some(sign) if ";&|<>()".contains(sign) => {
                    self.rest.next();
                    test.words.push(Word::sign(sign));
                }
                _ => {
                    let word = self.word()?;
                    let is_end = word.raw == "]]";
                    test.words.push(word);
                    if is_end {
                        return Ok(Node::Test(test));
                    }
                }
            }
        }
    }

    fn simple(&mut self) -> Read<Node> {
        let mut simple = Simple {
            line: self.line,
            ..Simple::default()
        };
        loop {
            self.blanks();
            self.redirections(&mut simple.redirections)?;
            match self.rest.peek().copied() {
                None | Some('\n' | ';' | '&' | '|' | ')') => break,
                Some('(') => {
                    let name = simple.words.first().map(|word| word.raw.clone());
                    let is_function = simple.words.len() == 1
                        && simple.assignments.is_empty()
                        && simple.redirections.is_empty();
                    return match name.filter(|_| is_function) {
                        Some(name) => self.function(name),
                        None => self.error("`(` at this position"),
                    };
                }
                _ => {}
            }
            let word = self.word()?;
            match word.assignment().filter(|_| simple.words.is_empty()) {
                Some(_) if self.rest.peek() == Some(&'(') => return self.error("an array"),
                Some(assignment) => simple.assignments.push(assignment),
                None => simple.words.push(word),
            }
        }
        let is_something = !simple.words.is_empty()
            || !simple.assignments.is_empty()
            || !simple.redirections.is_empty();
        match self.rest.peek().copied() {
            Some(next) if !is_something => {
                self.error(&format!("`{}` at this position", next.escape_debug()))
            }
            _ => Ok(Node::Simple(simple)),
        }
    }

    /// Redirections that stand here; where they lead does not rule what runs.
    fn redirections(&mut self, raw: &mut Vec<String>) -> Read<()> {
        loop {
            self.blanks();
            let mut ahead = self.rest.clone();
            let mut signs = String::new();
            while let Some(digit) = ahead.next_if(char::is_ascii_digit) {
                signs.push(digit);
            }
            if signs.is_empty() && self.begins_with("&>") {
                ahead.next();
                signs.push('&');
            }
            if !matches!(ahead.peek(), Some('<' | '>')) {
                return Ok(());
            }
            self.rest = ahead;
            while let Some(sign) = self.rest.next_if(|&next| "<>&|".contains(next)) {
                signs.push(sign);
            }
            if self.rest.peek() == Some(&'(') {
                return self.error("process substitution");
            }
            let is_document = signs.trim_start_matches(|next: char| next.is_ascii_digit()) == "<<";
            let strips = is_document && self.rest.next_if_eq(&'-').is_some();
            self.blanks();
            let target = self.word()?;
            if is_document {
                let end = target.raw.replace(['"', '\'', '\\'], "");
                self.documents.push((end, strips));
            }
            raw.push(format!("{signs}{}", target.raw));
        }
    }
}

#[cfg(test)]
mod tests;
