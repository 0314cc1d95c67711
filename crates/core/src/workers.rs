//! The list of workers in a starter `master.cfg`, as long as it is still `WORKERS = [...]` with plain string literals,
//! assigned once and changed nowhere else. Names are added and removed, and every other byte is kept. Anything more
//! complex is the administrator's own code and is not understood.
//!
//! The form is Python's (The Python Language Reference, "List displays", "String and Bytes literals"), with
//! restrictions: no escapes, prefixes, triple quotes or adjacent literals, and every comma on the line of the name
//! before it.

use std::ops::Range;

use crate::starter::WorkerName;

/// The name of the list in the starter.
pub const VARIABLE: &str = "WORKERS";
/// A list that would make its line longer, in characters, gets a line for each name.
const LONGEST_LINE: usize = 100;

/// Such a list in its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerList<'a> {
    text: &'a str,
    /// The literals in their order, quotes included.
    literals: Vec<Range<usize>>,
    /// From `[` to after `]`.
    brackets: Range<usize>,
    has_comments: bool,
}

/// Finds the list in a `master.cfg`.
pub fn find(text: &str) -> Option<WorkerList<'_>> {
    let mut lines = text.split_inclusive('\n').scan(0, |start, line| {
        let this = *start;
        *start += line.len();
        Some((this, line))
    });
    let list = lines.find_map(|(start, line)| {
        let value = line.strip_prefix(VARIABLE)?.trim_start_matches([' ', '\t']);
        let value = value.strip_prefix('=')?.trim_start_matches([' ', '\t']);
        value.starts_with('[').then_some(())?;
        read(text, start + line.len() - value.len())
    })?;
    let (above, below) = (&text[..list.brackets.start], &text[list.brackets.end..]);
    let (above, _) = above.rsplit_once(VARIABLE)?;
    let is_used = mentions(below, VARIABLE).count() > 0;
    let mut all = mentions(above, VARIABLE).chain(mentions(below, VARIABLE));
    let is_plain = !all.any(changes);
    let mut names: Vec<&str> = list.names().collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    (is_used && is_plain && names.len() == count).then_some(list)
}

/// The list whose `[` is at `start`, if it ends its line.
fn read(text: &str, start: usize) -> Option<WorkerList<'_>> {
    let mut list = WorkerList {
        text,
        literals: Vec::new(),
        brackets: start..start,
        has_comments: false,
    };
    let mut at = start + 1;
    let mut needs_comma = false;
    loop {
        let rest = &text[at..];
        let first = rest.chars().next()?;
        match first {
            ' ' | '\t' | '\r' | '\n' => at += 1,
            '#' => {
                list.has_comments = true;
                at += rest.find('\n')?;
            }
            ',' if needs_comma => {
                let name = list.literals.last()?;
                if text[name.end..at].contains('\n') {
                    return None;
                }
                needs_comma = false;
                at += 1;
            }
            '"' | '\'' if !needs_comma => {
                let length = rest[1..].find(first)?;
                let name = &rest[1..=length];
                if name.is_empty() || name.contains(['\\', '\n', '\r']) {
                    return None;
                }
                list.literals.push(at..at + length + 2);
                at += length + 2;
                needs_comma = true;
            }
            ']' => {
                list.brackets.end = at + 1;
                let after = rest[1..].lines().next().unwrap_or_default().trim_start();
                return (after.is_empty() || after.starts_with('#')).then_some(list);
            }
            _ => return None,
        }
    }
}

/// The text before and after each mention of a name on its line, except in comments.
pub(crate) fn mentions<'a>(
    text: &'a str,
    name: &'a str,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    let is_part = |character: char| character.is_alphanumeric() || character == '_';
    let code = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    code.flat_map(move |line| {
        line.match_indices(name).filter_map(move |(at, _)| {
            let (before, after) = (&line[..at], &line[at + name.len()..]);
            let is_whole = !before.ends_with(is_part) && !after.starts_with(is_part);
            is_whole.then_some((before, after))
        })
    })
}

/// Whether a mention may assign the variable or change a part of its value.
fn changes((before, after): (&str, &str)) -> bool {
    let after = after.trim_start();
    let is_comparison = after.starts_with("==");
    before.trim().is_empty()
        || (after.starts_with(['=', '+', '.', '[', '*']) && !is_comparison)
        || after.starts_with(":=")
}

impl<'a> WorkerList<'a> {
    /// The names in their order.
    pub fn names(&self) -> impl Iterator<Item = &'a str> {
        let text = self.text;
        let bare = move |literal: &Range<usize>| &text[literal.start + 1..literal.end - 1];
        self.literals.iter().map(bare)
    }

    /// The range from the variable's name to the end of the line with `]`.
    pub(crate) fn statement(&self) -> Range<usize> {
        let above = &self.text[..self.brackets.start];
        let start = above.rfind('\n').map_or(0, |found| found + 1);
        let below = &self.text[self.brackets.end..];
        let length = below.find('\n').map_or(below.len(), |found| found + 1);
        start..self.brackets.end + length
    }

    /// Whether the list contains a name.
    pub fn contains(&self, name: &str) -> bool {
        self.names().any(|other| other == name)
    }

    /// The text with one more name, at the end of the list.
    pub fn with(&self, name: &WorkerName) -> String {
        let literal = format!("\"{}\"", name.as_str());
        let Some(last) = self.literals.last() else {
            let start = self.brackets.start + 1;
            return self.replaced(start..start, &literal);
        };
        let after = &self.text[last.end..self.brackets.end];
        let Some(newline) = after.find('\n') else {
            let text = self.replaced(last.end..last.end, &format!(", {literal}"));
            return self.broken(&literal, &text).unwrap_or(text);
        };
        // A line for each.
        let line = self.text[..last.start]
            .rfind('\n')
            .map_or(0, |found| found + 1);
        let before = &self.text[line..last.start];
        let indent = if before.trim().is_empty() {
            before
        } else {
            "    "
        };
        let end = if after[..newline].ends_with('\r') {
            "\r\n"
        } else {
            "\n"
        };
        let rest = &after[..=newline];
        let comma = if rest.trim_start().starts_with(',') {
            ""
        } else {
            ","
        };
        let range = last.end..last.end + rest.len();
        self.replaced(range, &format!("{comma}{rest}{indent}{literal},{end}"))
    }

    /// The list of a single line with a line for each name, where `text` has a line that is too
    /// long.
    fn broken(&self, literal: &str, text: &str) -> Option<String> {
        let brackets = &self.text[self.brackets.clone()];
        let line = text[..self.brackets.start]
            .rfind('\n')
            .map_or(0, |found| found + 1);
        let length = text[line..].lines().next()?.chars().count();
        if length <= LONGEST_LINE || brackets.contains('\n') || self.has_comments {
            return None;
        }
        let mut lines = String::from("[\n");
        let old = self.literals.iter();
        for literal in old
            .map(|literal| &self.text[literal.clone()])
            .chain([literal])
        {
            lines.extend(["    ", literal, ",\n"]);
        }
        lines.push(']');
        Some(self.replaced(self.brackets.clone(), &lines))
    }

    /// The text without a name; none if it is not listed or is the only one, because Buildbot accepts no builder
    /// without workers.
    pub fn without(&self, name: &str) -> Option<String> {
        let place = self.names().position(|other| other == name)?;
        if self.literals.len() == 1 {
            return None;
        }
        let literal = &self.literals[place];
        let line_start = self.text[..literal.start]
            .rfind('\n')
            .map_or(0, |found| found + 1);
        let after = &self.text[literal.end..];
        let line_end = after
            .find('\n')
            .map_or(self.text.len(), |found| literal.end + found + 1);
        let before = &self.text[line_start..literal.start];
        let rest = self.text[literal.end..line_end].trim_start();
        let rest = rest.strip_prefix(',').unwrap_or(rest).trim();
        let is_alone = before.trim().is_empty() && (rest.is_empty() || rest.starts_with('#'));
        let next = self.literals.get(place + 1);
        let previous = place.checked_sub(1).map(|place| &self.literals[place]);
        let range = match (next, previous) {
            _ if is_alone => line_start..line_end,
            (Some(next), _) if next.start < line_end => literal.start..next.start,
            (None, Some(previous)) if previous.start >= line_start => previous.end..literal.end,
            _ => {
                let behind = after.trim_start_matches([' ', '\t']);
                let end = match behind.strip_prefix(',') {
                    Some(behind) => self.text.len() - behind.len(),
                    None => literal.end,
                };
                literal.start..end
            }
        };
        Some(self.replaced(range, ""))
    }

    fn replaced(&self, range: Range<usize>, by: &str) -> String {
        let (before, after) = (&self.text[..range.start], &self.text[range.end..]);
        format!("{before}{by}{after}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USE: &str = "c[\"workers\"] = [worker.Worker(name, secret(\"x\")) for name in WORKERS]\n";

    /// What a list becomes with `new` and without it again, and without `old`.
    #[track_caller]
    fn check(list: &str, old: &str, with: &str, without: &str) {
        let text = format!("a = 1\nWORKERS = {list}\n{USE}");
        let found = find(&text).unwrap();
        let name = "new".parse().unwrap();
        let more = found.with(&name);
        assert_eq!(more, format!("a = 1\nWORKERS = {with}\n{USE}"));
        let again = find(&more).unwrap();
        let names: Vec<&str> = found.names().chain(["new"]).collect();
        assert_eq!(again.names().collect::<Vec<_>>(), names);
        let less = found.without(old).unwrap();
        assert_eq!(less, format!("a = 1\nWORKERS = {without}\n{USE}"));
        let left: Vec<&str> = found.names().filter(|name| *name != old).collect();
        assert_eq!(find(&less).unwrap().names().collect::<Vec<_>>(), left);
        let back = again.without("new").unwrap();
        assert_eq!(
            find(&back).unwrap().names().collect::<Vec<_>>(),
            found.names().collect::<Vec<_>>()
        );
    }

    #[test]
    fn names_go_into_a_list_on_one_line_and_out_of_it() {
        check(r#"["a", "b"]"#, "a", r#"["a", "b", "new"]"#, r#"["b"]"#);
        check(
            r#"['a', "b"]  # mine"#,
            "b",
            r#"['a', "b", "new"]  # mine"#,
            "['a']  # mine",
        );
        check(
            r#"[ "a", "b", "c", ]"#,
            "b",
            r#"[ "a", "b", "c", "new", ]"#,
            r#"[ "a", "c", ]"#,
        );
        check(r#"["a","b"]"#, "b", r#"["a","b", "new"]"#, r#"["a"]"#);
    }

    #[test]
    fn names_go_into_a_list_of_lines_and_out_of_it() {
        check(
            "[\n    \"a\",  # the first\n    \"b\",\n    # the end\n]",
            "a",
            "[\n    \"a\",  # the first\n    \"b\",\n    \"new\",\n    # the end\n]",
            "[\n    \"b\",\n    # the end\n]",
        );
        check(
            "[\n  \"a\",\n  \"b\"  # the last\n]",
            "b",
            "[\n  \"a\",\n  \"b\",  # the last\n  \"new\",\n]",
            "[\n  \"a\",\n]",
        );
        check(
            "[\r\n\t\"a\",\r\n\t\"b\",\r\n]",
            "b",
            "[\r\n\t\"a\",\r\n\t\"b\",\r\n\t\"new\",\r\n]",
            "[\r\n\t\"a\",\r\n]",
        );
        check(
            "[\"a\",\n           \"b\"]",
            "a",
            "[\"a\",\n           \"b\", \"new\"]",
            "[\n           \"b\"]",
        );
        check(
            "[\"a\",\n           \"b\"]",
            "b",
            "[\"a\",\n           \"b\", \"new\"]",
            "[\"a\",\n           ]",
        );
        check(
            "[\"a\",\n    \"b\" ,]",
            "b",
            "[\"a\",\n    \"b\", \"new\" ,]",
            "[\"a\",\n    ]",
        );
    }

    #[test]
    fn a_line_that_gets_too_long_becomes_lines() {
        let names: Vec<String> = (0..9).map(|number| format!("worker-{number:02}")).collect();
        let text = format!("WORKERS = {names:?}\n{USE}");
        assert!(text.lines().next().unwrap().len() > LONGEST_LINE);
        let found = find(&text).unwrap();
        let more = found.with(&"new".parse().unwrap());
        let lines = format!("    \"{}\",\n", names.join("\",\n    \""));
        let lines = format!("{lines}    \"new\",\n");
        assert_eq!(more, format!("WORKERS = [\n{lines}]\n{USE}"));
        // Once broken, it stays so.
        let less = find(&more).unwrap().without("new").unwrap();
        assert_eq!(less, more.replace("    \"new\",\n", ""));
    }

    #[test]
    fn the_last_name_stays() {
        let text = format!("WORKERS = [\"a\"]\n{USE}");
        let list = find(&text).unwrap();
        assert_eq!(list.without("a"), None);
        assert_eq!(list.without("b"), None);
        assert!(list.contains("a") && !list.contains("b"));
    }

    #[test]
    fn an_empty_list_can_be_filled() {
        let text = format!("WORKERS = []\n{USE}");
        let more = find(&text).unwrap().with(&"a".parse().unwrap());
        assert_eq!(more, format!("WORKERS = [\"a\"]\n{USE}"));
    }

    #[test]
    fn whatever_else_it_became_is_not_understood() {
        for list in [
            "[name for name in open(\"list\")]",
            "[\"a\" \"b\"]",
            "[\"a\", OTHER]",
            "[\"a\"] + OTHER",
            "[\"a\"][:]",
            "[\"a\", \"a\"]",
            "[r\"a\"]",
            "[\"\"\"a\"\"\"]",
            "[\"a\\x41\"]",
            "[\"a\nb\"]",
            "[\"a\",, \"b\"]",
            "[\"a\"\n, \"b\"]",
            "[\"a\"  # x\n,]",
            "[\"a\"",
            "[\"a\"]; x()",
            "(\"a\",)",
            "\\\n[\"a\"]",
        ] {
            assert_eq!(find(&format!("WORKERS = {list}\n{USE}")), None, "{list}");
        }
        let list = "WORKERS = [\"a\"]\n";
        for more in [
            "WORKERS = [\"b\"]\n",
            "WORKERS += [\"b\"]\n",
            "    WORKERS.append(\"b\")\n",
            "if x: WORKERS = [\"b\"]\n",
            "print(WORKERS[0])\n",
            "WORKERS: list = []\n",
            "x = (WORKERS := [])\n",
        ] {
            assert_eq!(find(&format!("{list}{USE}{more}")), None, "{more}");
            assert_eq!(find(&format!("{more}{list}{USE}")), None, "{more}");
        }
        // The variable is not used.
        assert_eq!(find(list), None);
        assert_eq!(find(&format!("  {list}{USE}")), None);
        assert_eq!(find(USE), None);
    }

    #[test]
    fn comments_and_longer_names_do_not_matter() {
        let text = format!(
            "# WORKERS = [] is a list\nOTHER_WORKERS = [\"x\"]\nWORKERS=[\"a\"]\n# WORKERS.append\n{USE}assert WORKERS == WORKERS\n"
        );
        assert!(find(&text).unwrap().contains("a"));
    }
}
