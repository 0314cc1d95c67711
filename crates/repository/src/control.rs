//! Paragraphs of deb822(5): fields in their order. Parsing is strict, because the result is signed: a paragraph is
//! never read as two, and no field occurs twice.

use std::fmt;

use thiserror::Error;

/// One paragraph. Names of fields are compared without regard to case, as dpkg does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Paragraph {
    /// Names and values in their order. A value of several lines contains its line breaks and the beginning of each
    /// line.
    fields: Vec<(String, String)>,
}

/// Why a text is not a paragraph.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ControlError {
    /// The bytes are not text.
    #[error("line {0} is not UTF-8, or contains control characters")]
    Unprintable(usize),
    /// A line that ends a paragraph.
    #[error("line {0} is empty, which would start another package")]
    Blank(usize),
    /// Neither `Name: value` nor the continuation of one.
    #[error("line {0} is not a field")]
    NoField(usize),
    /// Two values for one name.
    #[error("the field `{0}` occurs twice")]
    Twice(String),
    /// A field that has to be there.
    #[error("the field `{0}` is missing or empty")]
    Missing(&'static str),
}

impl Paragraph {
    /// Reads one paragraph; line breaks at its end are not part of it.
    ///
    /// # Errors
    ///
    /// [`ControlError`] with the first bad line, counted from 1.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ControlError> {
        let mut fields: Vec<(String, String)> = Vec::new();
        let bytes = bytes.trim_ascii_end();
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let number = index + 1;
            let line = str::from_utf8(line)
                .ok()
                .filter(|line| !line.contains(|c: char| c.is_control() && c != '\t'))
                .ok_or(ControlError::Unprintable(number))?;
            if line.trim().is_empty() {
                return Err(ControlError::Blank(number));
            }
            if line.starts_with([' ', '\t']) {
                let (_, value) = fields.last_mut().ok_or(ControlError::NoField(number))?;
                value.push('\n');
                value.push_str(line.trim_end());
                continue;
            }
            let (name, value) = line
                .split_once(':')
                .filter(|(name, _)| is_name(name))
                .ok_or(ControlError::NoField(number))?;
            if fields
                .iter()
                .any(|(other, _)| other.eq_ignore_ascii_case(name))
            {
                return Err(ControlError::Twice(name.to_owned()));
            }
            fields.push((name.to_owned(), value.trim().to_owned()));
        }
        Ok(Self { fields })
    }

    /// The value of a field; nothing for one that is absent or empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter();
        let (_, value) = values.find(|(other, _)| other.eq_ignore_ascii_case(name))?;
        Some(value.as_str()).filter(|value| !value.is_empty())
    }

    /// The value of a field that has to be there.
    ///
    /// # Errors
    ///
    /// [`ControlError::Missing`].
    pub(crate) fn need(&self, name: &'static str) -> Result<&str, ControlError> {
        self.get(name).ok_or(ControlError::Missing(name))
    }

    /// The first of `names` that is a field here, with or without a value.
    pub(crate) fn first_of<'n>(&self, names: &[&'n str]) -> Option<&'n str> {
        let has = |name: &str| {
            let mut fields = self.fields.iter();
            fields.any(|(other, _)| other.eq_ignore_ascii_case(name))
        };
        names.iter().copied().find(|name| has(name))
    }

    /// The paragraph without the fields of these names.
    #[must_use]
    pub(crate) fn without(mut self, names: &[&str]) -> Self {
        self.fields
            .retain(|(name, _)| !names.iter().any(|other| other.eq_ignore_ascii_case(name)));
        self
    }
}

fn is_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|character| character.is_ascii_alphanumeric() || character == '-')
}

impl fmt::Display for Paragraph {
    /// Every field on a separate line, without an empty line at the end.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.fields {
            let blank = if value.is_empty() || value.starts_with('\n') {
                ""
            } else {
                " "
            };
            writeln!(formatter, "{name}:{blank}{value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paragraph_is_written_as_it_was_read() {
        let text = "Package: x1\nVersion: 1\nEmpty:\nDescription: short\n long\n .\n  more\nSHA256:\n a b\n";
        let paragraph = Paragraph::parse(text.as_bytes()).unwrap();
        assert_eq!(paragraph.to_string(), text);
        assert_eq!(paragraph.get("package"), Some("x1"));
        assert_eq!(paragraph.get("Empty"), None);
        assert_eq!(paragraph.need("Size"), Err(ControlError::Missing("Size")));
        assert_eq!(paragraph.first_of(&["Size", "EMPTY"]), Some("EMPTY"));
    }

    #[test]
    fn what_could_be_taken_for_something_else_is_refused() {
        let check = |text: &[u8], expect| assert_eq!(Paragraph::parse(text), Err(expect));
        check(b"Package: a\n\nPackage: b\n", ControlError::Blank(2));
        check(b"Package: a\n \nPackage: b\n", ControlError::Blank(2));
        check(b"Package: a\r\nVersion: 1\n", ControlError::Unprintable(1));
        check(b"Package: a\nX: \xff\n", ControlError::Unprintable(2));
        check(
            b"Package: a\npackage: b\n",
            ControlError::Twice("package".to_owned()),
        );
        check(b" Package: a\n", ControlError::NoField(1));
        check(b"Package: a\nno field\n", ControlError::NoField(2));
        check(b"Package: a\n# remark: b\n", ControlError::NoField(2));
        check(b"", ControlError::Blank(1));
    }
}
