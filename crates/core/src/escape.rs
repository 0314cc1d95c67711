//! Writes values of the configuration into a unit file so that systemd reads exactly the same value, or refuses them.
//!
//! systemd has no one syntax for values: each directive cuts its line in its own way, and since version 255 some values
//! go through a second, lossy encoding on their way to the process that sets up a service. This module contains one
//! function for each syntax that our directives use. The rules are those of `src/core/load-fragment.c`,
//! `src/basic/extract-word.c`, `src/shared/conf-parser.c` and `src/core/execute-serialize.c` of systemd 249 to 257.
//! [`crate::values`] decides whether a value makes sense; this module refuses values that cannot be written.

use std::time::Duration;

use thiserror::Error;

use crate::values::{NAME_MAX, PATH_MAX};

/// A value that no unit file can carry to systemd unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unwritable {
    /// A unit file has lines; NUL ends a string in systemd.
    #[error("contains the control character `{}`, which a unit file cannot contain", .0.escape_default())]
    ControlCharacter(char),
    /// `utf8_is_valid` of systemd accepts fewer characters than UTF-8 contains.
    #[error("contains the character U+{:04X}, which systemd rejects", u32::from(*.0))]
    Noncharacter(char),
    /// Longer than `PATH_MAX`, or a component longer than `NAME_MAX`: `path_is_valid` of systemd.
    #[error("is a path that is too long for Linux")]
    TooLong,
    /// systemd ignores a relative path, and one with `..`, with no more than a warning.
    #[error("is not an absolute path without `.` and `..`")]
    NotNormalized,
    /// Versions 255 to 257 lose the quoting of `BindPaths=` on the way to the service.
    #[error("contains the character `{0}`, systemd 255 and later cannot mount such a path")]
    Bind(char),
    /// Versions 255 to 257 write the file of a credential without quoting and read it with.
    #[error("contains the character `{0}`, systemd 255 and later cannot read such a credential")]
    Credential(char),
    /// `User=` and `Group=` refuse it, and with it the whole unit.
    #[error("is not an account name that systemd accepts")]
    Account,
}

impl Unwritable {
    /// What to do about it, when there is something likely.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Bind(_) => Some("use a path without quotes, or another `hardening`"),
            Self::Credential(_) => Some("rename the file"),
            _ => None,
        }
    }
}

/// A path that takes up the rest of a line, as in `ConditionDirectoryNotEmpty=`. systemd does not unquote it, so quotes
/// and backslashes are literal. However, blanks at the end of a line are stripped, and a backslash there joins the next
/// line. Such a path therefore gets a trailing `/`, which systemd removes.
///
/// # Errors
///
/// [`Unwritable`] for a path that is too long or not normalised, or a character as named there.
pub fn line_path(path: &str) -> Result<String, Unwritable> {
    check_path(path)?;
    if !path.ends_with([' ', '\\']) {
        return Ok(specifiers_doubled(path));
    }
    if path.len() == PATH_MAX {
        return Err(Unwritable::TooLong);
    }
    Ok(specifiers_doubled(path) + "/")
}

/// A path as one word of a list, as in `RequiresMountsFor=` and, with `prefix` `-` for a path that may be missing,
/// `ReadWritePaths=`. Such lists are split at blanks; quotes group, and a backslash removes the special meaning of the
/// next character.
///
/// # Errors
///
/// As [`line_path`].
pub fn word_path(prefix: &str, path: &str) -> Result<String, Unwritable> {
    check_path(path)?;
    Ok(quoted_where_needed(&format!("{prefix}{path}")))
}

/// A path as source and destination of `BindPaths=` and `BindReadOnlyPaths=`, with `-` in front:
/// as [`word_path`], and cut at `:` too.
///
/// # Errors
///
/// As [`line_path`]; quotes are refused for the sake of systemd 255 and later.
pub fn bind_path(path: &str) -> Result<String, Unwritable> {
    check_path(path)?;
    // Here the `-` counts as part of the path.
    if path.len() == PATH_MAX {
        return Err(Unwritable::TooLong);
    }
    match path
        .chars()
        .find(|character| matches!(character, '"' | '\''))
    {
        Some(quote) => Err(Unwritable::Bind(quote)),
        None => Ok(quoted_where_needed(&format!("-{path}"))),
    }
}

/// `NAME:FILE` of `LoadCredential=`. All after the first `:` is the file, without any unquoting.
/// The name is a [`crate::values::CredentialName`], which needs no escaping.
///
/// # Errors
///
/// As [`line_path`]; blanks and backslashes are refused for the sake of systemd 255 and later.
pub fn credential(name: &str, file: &str) -> Result<String, Unwritable> {
    check_path(file)?;
    match file
        .chars()
        .find(|character| matches!(character, ' ' | '\\'))
    {
        Some(character) => Err(Unwritable::Credential(character)),
        None => Ok(format!("{name}:{}", specifiers_doubled(file))),
    }
}

/// An account for `User=` or `Group=`, which takes up the rest of the line: `valid_user_group_name` of systemd in its
/// relaxed form. A name that systemd refuses would make the whole unit fail to load.
///
/// # Errors
///
/// [`Unwritable::Account`], or a character as named in [`Unwritable`].
pub fn account(name: &str) -> Result<String, Unwritable> {
    check_characters(name)?;
    let digits = name.strip_prefix('-').unwrap_or(name);
    if name.trim_matches(' ') != name
        || name.contains([':', '/'])
        || name.ends_with('\\')
        || digits.bytes().all(|byte| byte.is_ascii_digit())
        || name == "."
        || name == ".."
    {
        return Err(Unwritable::Account);
    }
    Ok(specifiers_doubled(name))
}

/// An account as one word of a command line, as in `ExecStartPre=`.
///
/// # Errors
///
/// As [`account`].
pub fn word_account(name: &str) -> Result<String, Unwritable> {
    account(name)?;
    // One alone would be a variable.
    Ok(quoted_where_needed(name).replace('$', "$$"))
}

/// A time span: whole seconds as `90s`, anything finer as milliseconds, rounded up. `0s` disables a time limit or the
/// watchdog.
pub fn time_span(duration: Duration) -> String {
    if duration.subsec_nanos() == 0 {
        return format!("{}s", duration.as_secs());
    }
    format!("{}ms", duration.as_nanos().div_ceil(1_000_000))
}

fn check_path(path: &str) -> Result<(), Unwritable> {
    check_characters(path)?;
    let Some(relative) = path.strip_prefix('/') else {
        return Err(Unwritable::NotNormalized);
    };
    let mut components = relative.split('/');
    if components.any(|component| matches!(component, "" | "." | "..")) {
        return Err(Unwritable::NotNormalized);
    }
    if path.len() > PATH_MAX
        || relative
            .split('/')
            .any(|component| component.len() > NAME_MAX)
    {
        return Err(Unwritable::TooLong);
    }
    Ok(())
}

fn check_characters(text: &str) -> Result<(), Unwritable> {
    for character in text.chars() {
        if character.is_control() {
            return Err(Unwritable::ControlCharacter(character));
        }
        let number = u32::from(character);
        if (0xFDD0..=0xFDEF).contains(&number) || number & 0xFFFE == 0xFFFE {
            return Err(Unwritable::Noncharacter(character));
        }
    }
    Ok(())
}

/// `%` starts a specifier in every value that we write.
fn specifiers_doubled(text: &str) -> String {
    text.replace('%', "%%")
}

fn quoted_where_needed(text: &str) -> String {
    let text = specifiers_doubled(text);
    let plain = |character: char| character.is_alphanumeric() || "/._-+@,=%".contains(character);
    if text.chars().all(plain) {
        return text;
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_the_rest_of_a_line_stands_for_itself() {
        for (path, text) in [
            ("/home/bb/master", "/home/bb/master"),
            ("/srv/a b", "/srv/a b"),
            ("/srv/%n", "/srv/%%n"),
            ("/srv/100%", "/srv/100%%"),
            ("/srv/\"q\" 'q'", "/srv/\"q\" 'q'"),
            ("/srv/back\\slash", "/srv/back\\slash"),
            ("/srv/end\\", "/srv/end\\/"),
            ("/srv/end\\\\", "/srv/end\\\\/"),
            ("/srv/blank ", "/srv/blank /"),
            ("/srv/#no;comment", "/srv/#no;comment"),
            ("/-x", "/-x"),
            ("/srv/é:ü", "/srv/é:ü"),
        ] {
            assert_eq!(line_path(path).as_deref(), Ok(text));
        }
    }

    #[test]
    fn a_path_that_is_a_word_is_quoted_where_needed() {
        for (path, text) in [
            ("/home/bb/master", "-/home/bb/master"),
            ("/srv/a b", "\"-/srv/a b\""),
            ("/srv/%n", "-/srv/%%n"),
            ("/srv/\"q\" 'q'", "\"-/srv/\\\"q\\\" 'q'\""),
            ("/srv/back\\slash", "\"-/srv/back\\\\slash\""),
            ("/srv/end\\", "\"-/srv/end\\\\\""),
            ("/srv/blank ", "\"-/srv/blank \""),
            ("/srv/a:b", "\"-/srv/a:b\""),
            ("/srv/a;b#c", "\"-/srv/a;b#c\""),
            ("/-x", "-/-x"),
            ("/srv/é", "-/srv/é"),
            ("/srv/a\u{a0}b", "\"-/srv/a\u{a0}b\""),
        ] {
            assert_eq!(word_path("-", path).as_deref(), Ok(text));
        }
        assert_eq!(word_path("", "/srv/a b").as_deref(), Ok("\"/srv/a b\""));
    }

    #[test]
    fn a_bind_mount_keeps_colons_and_refuses_quotes() {
        assert_eq!(bind_path("/srv/a:b").as_deref(), Ok("\"-/srv/a:b\""));
        assert_eq!(bind_path("/srv/a b\\").as_deref(), Ok("\"-/srv/a b\\\\\""));
        assert_eq!(bind_path("/srv/a'b"), Err(Unwritable::Bind('\'')));
        assert_eq!(bind_path("/srv/a\"b"), Err(Unwritable::Bind('"')));
    }

    #[test]
    fn the_file_of_a_credential_is_raw_and_without_blanks() {
        let file = |file| credential("worker", file);
        for (path, text) in [
            ("/etc/c/worker", "worker:/etc/c/worker"),
            ("/etc/c/a:b", "worker:/etc/c/a:b"),
            ("/etc/c/%i", "worker:/etc/c/%%i"),
            ("/etc/c/\"q'", "worker:/etc/c/\"q'"),
        ] {
            assert_eq!(file(path).as_deref(), Ok(text));
        }
        assert_eq!(file("/etc/c/a b"), Err(Unwritable::Credential(' ')));
        assert_eq!(file("/etc/c/a\\"), Err(Unwritable::Credential('\\')));
        assert_eq!(file("/etc/c/../shadow"), Err(Unwritable::NotNormalized));
    }

    #[test]
    fn accounts_are_what_systemd_loads() {
        assert_eq!(account("build-bot_2").as_deref(), Ok("build-bot_2"));
        assert_eq!(account("a%u").as_deref(), Ok("a%%u"));
        for name in [
            "", " bb", "bb ", "a:b", "a/b", "1000", "-1", "-", ".", "..", "a\\",
        ] {
            assert_eq!(account(name), Err(Unwritable::Account), "{name:?}");
        }
        assert_eq!(account("a\nb"), Err(Unwritable::ControlCharacter('\n')));
        assert_eq!(word_account("bb").as_deref(), Ok("bb"));
        assert_eq!(
            word_account("svc@corp.example").as_deref(),
            Ok("svc@corp.example")
        );
        assert_eq!(word_account("corp\\svc").as_deref(), Ok("\"corp\\\\svc\""));
        assert_eq!(
            word_account("corp\\ci $").as_deref(),
            Ok("\"corp\\\\ci $$\"")
        );
    }

    #[test]
    fn time_spans_are_seconds_or_milliseconds() {
        for (duration, text) in [
            (Duration::ZERO, "0s"),
            (Duration::from_secs(90), "90s"),
            (Duration::from_hours(8760), "31536000s"),
            (Duration::from_millis(1500), "1500ms"),
            (Duration::from_nanos(1), "1ms"),
        ] {
            assert_eq!(time_span(duration), text);
        }
    }

    #[test]
    fn what_no_unit_file_can_carry_is_refused() {
        let long = "/a".repeat(2048);
        let component = format!("/{}", "a".repeat(256));
        for (path, reason) in [
            ("/a\nUser=root", Unwritable::ControlCharacter('\n')),
            ("/a\rb", Unwritable::ControlCharacter('\r')),
            ("/a\tb", Unwritable::ControlCharacter('\t')),
            ("/a\0b", Unwritable::ControlCharacter('\0')),
            ("/a\u{7f}b", Unwritable::ControlCharacter('\u{7f}')),
            ("/a\u{85}b", Unwritable::ControlCharacter('\u{85}')),
            ("/a\u{fdd0}", Unwritable::Noncharacter('\u{fdd0}')),
            ("/a\u{1ffff}", Unwritable::Noncharacter('\u{1ffff}')),
            ("", Unwritable::NotNormalized),
            ("/", Unwritable::NotNormalized),
            ("a", Unwritable::NotNormalized),
            ("!/a", Unwritable::NotNormalized),
            ("/a/../b", Unwritable::NotNormalized),
            ("/a/./b", Unwritable::NotNormalized),
            ("/a/", Unwritable::NotNormalized),
            (&long, Unwritable::TooLong),
            (&component, Unwritable::TooLong),
        ] {
            assert_eq!(line_path(path), Err(reason.clone()), "{path:?}");
            assert_eq!(word_path("-", path), Err(reason.clone()), "{path:?}");
            assert_eq!(bind_path(path), Err(reason.clone()), "{path:?}");
            assert_eq!(credential("a", path), Err(reason), "{path:?}");
        }
    }

    #[test]
    fn the_longest_path_fits_where_nothing_is_added_to_it() {
        let longest = format!("/{}{}", "a/".repeat(2046), "bc");
        assert_eq!(longest.len(), PATH_MAX);
        assert!(line_path(&longest).is_ok());
        assert!(word_path("-", &longest).is_ok());
        assert!(credential("a", &longest).is_ok());
        assert_eq!(bind_path(&longest), Err(Unwritable::TooLong));
        let blank = longest.replace("bc", "b ");
        assert_eq!(line_path(&blank), Err(Unwritable::TooLong));
    }
}
