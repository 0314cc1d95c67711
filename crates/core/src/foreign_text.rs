//! Text that was not written by root: a status file, the record of a package, the output of a program that runs as a
//! service user. It is made harmless when it is read, and what was read is not kept, so nothing that prints it can
//! forget to do so.
//!
//! A terminal obeys control characters, and characters that change the direction of writing or have no width let a line
//! look like another one. Which characters these are is known to the standard library, whose `escape_debug` keeps up
//! with Unicode.

use std::borrow::{Borrow, Cow};
use std::cmp::Ordering;
use std::ffi::OsStr;
use std::fmt;
use std::ops::Deref;
use std::path::Path;

/// One line of text that is safe for any terminal and any log.
///
/// Line breaks and tabs are replaced by blanks, and every other invisible character by an escape such as `\u{1b}`. Two
/// values are equal if they are shown in the same way.
#[derive(Debug, Clone, Default)]
pub struct ForeignText {
    shown: String,
    is_altered: bool,
}

impl ForeignText {
    /// `text` on one line.
    pub fn new(text: &str) -> Self {
        let mut shown = String::with_capacity(text.len());
        for character in text.chars() {
            match kind(character) {
                Kind::Visible => shown.push(character),
                Kind::Blank => shown.push(' '),
                Kind::Hidden => shown.extend(character.escape_unicode()),
            }
        }
        let is_altered = shown != text;
        Self { shown, is_altered }
    }

    /// The output of a program on one line, without blanks around it. What is not UTF-8 becomes U+FFFD.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let mut line = Self::new(text.trim());
        line.is_altered |= matches!(text, Cow::Owned(_));
        line
    }

    /// Each line of a program's output.
    pub fn lines_of(bytes: &[u8]) -> Vec<Self> {
        let text = String::from_utf8_lossy(bytes);
        text.lines().map(Self::new).collect()
    }

    /// A path chosen by another account.
    pub fn of_path(path: &Path) -> Self {
        Self::of_os(path.as_os_str())
    }

    /// A name or a value chosen by another account.
    pub fn of_os(text: &OsStr) -> Self {
        let lossy = text.to_string_lossy();
        let is_lossy = matches!(lossy, Cow::Owned(_));
        let mut text = Self::new(&lossy);
        text.is_altered |= is_lossy;
        text
    }

    /// What is shown of it.
    pub fn as_str(&self) -> &str {
        &self.shown
    }

    /// The text as it was read, if nothing in it had to be replaced. Text that is used, and not only shown, must be
    /// this.
    pub fn exact(&self) -> Option<&str> {
        (!self.is_altered).then_some(self.as_str())
    }
}

/// Whether a text is a single line without invisible characters. Text that is copied into a configuration file of
/// another program must be.
pub fn is_plain(text: &str) -> bool {
    text.chars()
        .all(|character| kind(character) == Kind::Visible)
}

/// The same for text of several lines, such as an answer of ours that contains foreign text: line breaks and tabs are
/// kept.
pub fn harmless_lines(text: &str) -> Cow<'_, str> {
    let is_kept = |character| matches!(character, '\n' | '\t') || kind(character) == Kind::Visible;
    if text.chars().all(is_kept) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_kept(character) {
            shown.push(character);
        } else {
            shown += ForeignText::new(character.encode_utf8(&mut [0; 4])).as_str();
        }
    }
    Cow::Owned(shown)
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Visible,
    /// Breaks a line, or moves what follows.
    Blank,
    /// Is obeyed, or cannot be seen.
    Hidden,
}

fn kind(character: char) -> Kind {
    if (' '..='~').contains(&character) {
        return Kind::Visible;
    }
    if character.is_whitespace() {
        let is_line = character.is_control() || matches!(character, '\u{2028}' | '\u{2029}');
        return if is_line { Kind::Blank } else { Kind::Visible };
    }
    // Behind a letter, since an accent that stands alone is escaped too.
    let mut buffer = [b'a'; 5];
    let length = 1 + character.encode_utf8(&mut buffer[1..]).len();
    let text = str::from_utf8(&buffer[..length]).unwrap_or_default();
    if text.escape_debug().count() == 2 {
        Kind::Visible
    } else {
        Kind::Hidden
    }
}

impl Deref for ForeignText {
    type Target = str;

    fn deref(&self) -> &str {
        &self.shown
    }
}

impl AsRef<str> for ForeignText {
    fn as_ref(&self) -> &str {
        &self.shown
    }
}

/// Both are compared alike, so a map of these can be asked with text.
impl Borrow<str> for ForeignText {
    fn borrow(&self) -> &str {
        &self.shown
    }
}

impl fmt::Display for ForeignText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.shown)
    }
}

impl From<&str> for ForeignText {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for ForeignText {
    fn from(text: String) -> Self {
        Self::new(&text)
    }
}

impl From<ForeignText> for String {
    fn from(text: ForeignText) -> Self {
        text.shown
    }
}

impl PartialEq for ForeignText {
    fn eq(&self, other: &Self) -> bool {
        self.shown == other.shown
    }
}

impl Eq for ForeignText {}

impl PartialOrd for ForeignText {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ForeignText {
    fn cmp(&self, other: &Self) -> Ordering {
        self.shown.cmp(&other.shown)
    }
}

impl PartialEq<str> for ForeignText {
    fn eq(&self, other: &str) -> bool {
        self.shown == other
    }
}

impl PartialEq<&str> for ForeignText {
    fn eq(&self, other: &&str) -> bool {
        self.shown == *other
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for ForeignText {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.shown)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for ForeignText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        Ok(Self::new(&text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_and_nobody_sees_is_written_out() {
        for (text, shown) in [
            (
                "running: Buildbot 4.3.0, größer ≥ 日本",
                "running: Buildbot 4.3.0, größer ≥ 日本",
            ),
            ("cafe\u{301} 🐍", "cafe\u{301} 🐍"),
            (
                "two\nlines\r\n\tand\u{2028}more\u{85}",
                "two lines   and more ",
            ),
            ("\x1b[2J\x1b]0;title\x07", "\\u{1b}[2J\\u{1b}]0;title\\u{7}"),
            ("\u{9b}31m\u{7f}", "\\u{9b}31m\\u{7f}"),
            (
                "a\u{202e}b\u{2066}c\u{200f}",
                "a\\u{202e}b\\u{2066}c\\u{200f}",
            ),
            (
                "\u{200b}\u{feff}\u{ad}\u{e0041}",
                "\\u{200b}\\u{feff}\\u{ad}\\u{e0041}",
            ),
        ] {
            let cleaned = ForeignText::new(text);
            assert_eq!(cleaned, shown);
            assert_eq!(cleaned.exact().is_some(), text == shown, "{shown}");
            assert_eq!(is_plain(text), text == shown, "{shown}");
            assert_eq!(format!("{cleaned}"), shown);
        }
    }

    /// The categories `Cc`, `Cf`, `Zl` and `Zp` of Unicode 16.
    #[test]
    fn no_control_or_format_character_is_passed() {
        let ranges = [
            (0x00, 0x1f),
            (0x7f, 0x9f),
            (0xad, 0xad),
            (0x600, 0x605),
            (0x61c, 0x61c),
            (0x6dd, 0x6dd),
            (0x70f, 0x70f),
            (0x890, 0x891),
            (0x8e2, 0x8e2),
            (0x180e, 0x180e),
            (0x200b, 0x200f),
            (0x2028, 0x202e),
            (0x2060, 0x2064),
            (0x2066, 0x206f),
            (0xfeff, 0xfeff),
            (0xfff9, 0xfffb),
            (0x110bd, 0x110bd),
            (0x110cd, 0x110cd),
            (0x13430, 0x1343f),
            (0x1bca0, 0x1bca3),
            (0x1d173, 0x1d17a),
            (0xe0001, 0xe0001),
            (0xe0020, 0xe007f),
        ];
        for number in ranges.into_iter().flat_map(|(first, last)| first..=last) {
            let text = char::from_u32(number).unwrap().to_string();
            let cleaned = ForeignText::new(&text);
            assert!(
                !cleaned.contains(&text) && cleaned.exact().is_none(),
                "{number:x}"
            );
            let kept = harmless_lines(&text);
            assert_eq!(kept == text, matches!(&*text, "\n" | "\t"), "{number:x}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_not_exact() {
        let name = ForeignText::of_bytes(b" a\xffb\n");
        assert_eq!(name, "a\u{fffd}b");
        assert_eq!(name.exact(), None);
        let lines = ForeignText::lines_of(b"one\x1b\r\ntwo\n");
        assert_eq!(lines, ["one\\u{1b}", "two"]);
        assert_eq!(harmless_lines("a\n\tb"), "a\n\tb");
        assert_eq!(harmless_lines("a\n\x1bb"), "a\n\\u{1b}b");
    }
}
