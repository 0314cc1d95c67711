//! A problem of a configuration: what is wrong, where, and which instances it affects.

use std::fmt;

use thiserror::Error;

use crate::names::InstanceRef;

/// A place in the file, both counted from 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Character in the line.
    pub column: usize,
}

impl Position {
    /// The place of a byte offset in `text`; an offset past the end is the end.
    pub(super) fn of(text: &str, offset: usize) -> Self {
        let before = &text[..text.floor_char_boundary(offset)];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

/// Which instances a problem keeps from starting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Affects {
    /// All instances: the file, the defaults, or something that belongs to no instance.
    Everything,
    /// One instance, in whose table it is.
    Instance(InstanceRef),
    /// None: a table that is meant for an instance but names none.
    NoInstance,
}

/// One problem of a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub position: Position,
    /// The key with its table, such as `worker@gpu.conda-env`; empty for syntax errors.
    pub key: String,
    /// Why, in one clause.
    pub reason: String,
    /// What to do, when there is something likely.
    pub hint: Option<String>,
    /// Whom it concerns.
    pub affects: Affects,
}

impl Problem {
    /// `FILE:LINE:COLUMN: KEY: REASON`, and `hint: ...` on a separate line if there is one.
    pub fn display<'a>(&'a self, file: &'a str) -> impl fmt::Display + 'a {
        fmt::from_fn(move |f| {
            let Position { line, column } = self.position;
            write!(f, "{file}:{line}:{column}: ")?;
            if !self.key.is_empty() {
                write!(f, "{}: ", self.key)?;
            }
            f.write_str(&self.reason)?;
            match &self.hint {
                None => Ok(()),
                Some(hint) => write!(f, "\nhint: {hint}"),
            }
        })
    }
}

/// Why there are no settings for an instance.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The file has no table for it.
    #[error(
        "{file}: no table `{table}`\nhint: {}add {table} with `directory = \"...\"` to the file, or \
         `systemctl disable {unit}`",
        .near.as_ref().map_or_else(String::new, |near| format!("did you mean `{near}`? Otherwise ")),
        table = table_header(.reference),
        unit = .reference.unit_name(),
    )]
    NotConfigured {
        /// The configuration file.
        file: String,
        /// The instance that was asked for.
        reference: InstanceRef,
        /// The configured one that was probably meant.
        near: Option<InstanceRef>,
    },
    /// The file has problems that concern it, in the order of the file.
    #[error("{}", list(.file, .problems))]
    Problems {
        /// The configuration file.
        file: String,
        /// At least one.
        problems: Vec<Problem>,
    },
}

/// `[master]`, `["worker@gpu"]`: how an instance's table is opened in TOML.
fn table_header(reference: &InstanceRef) -> String {
    match reference.name {
        None => format!("[{reference}]"),
        Some(_) => format!("[\"{reference}\"]"),
    }
}

fn list(file: &str, problems: &[Problem]) -> String {
    let lines: Vec<String> = problems
        .iter()
        .map(|problem| problem.display(file).to_string())
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters() {
        let text = "é = 1\nab\n";
        for (offset, line, column) in [
            (0, 1, 1),
            (1, 1, 1),
            (2, 1, 2),
            (7, 2, 1),
            (9, 2, 3),
            (99, 3, 1),
        ] {
            assert_eq!(
                Position::of(text, offset),
                Position { line, column },
                "offset {offset}"
            );
        }
    }
}
