//! Rules of Python's standard library that show in an activated environment, on bytes: `posixpath.normpath`,
//! `str.upper`, `repr` of numbers, and the order of strings. Deciding what they are applied to is left to the callers.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// The path without empty and `.` components, with `..` resolved textually, as `posixpath.normpath` does.
///
/// An empty path is `.`; exactly two leading slashes are kept, because POSIX allows them a special meaning.
pub fn normalise(path: &OsStr) -> OsString {
    let bytes = path.as_bytes();
    let slashes = match bytes.iter().take_while(|&&byte| byte == b'/').count() {
        2 => 2,
        0 => 0,
        _ => 1,
    };
    let mut components: Vec<&[u8]> = Vec::new();
    for component in bytes.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." if slashes == 0 && components.last().is_none_or(|last| *last == b"..") => {
                components.push(component);
            }
            b".." => {
                components.pop();
            }
            _ => components.push(component),
        }
    }
    let mut normal = vec![b'/'; slashes];
    normal.extend(components.join(&b'/'));
    if normal.is_empty() {
        normal.push(b'.');
    }
    OsString::from_vec(normal)
}

/// `posixpath.join` for two parts: an absolute second part wins.
pub fn join(directory: &OsStr, name: &OsStr) -> OsString {
    if name.as_bytes().starts_with(b"/") || directory.is_empty() {
        return name.to_owned();
    }
    let mut joined = directory.to_owned();
    if !directory.as_bytes().ends_with(b"/") {
        joined.push("/");
    }
    joined.push(name);
    joined
}

/// Upper case, including characters that map to several letters (`ß` becomes `SS`), like `str.upper`.
pub fn upper(name: &str) -> String {
    name.to_uppercase()
}

/// A sort key that orders bytes as Python orders the string it decodes from them: by code point, where a byte that is
/// not UTF-8 counts as the lone surrogate U+DC80 to U+DCFF (`os.fsdecode`, PEP 383).
pub fn order_key(text: &OsStr) -> Vec<u32> {
    let mut key = Vec::with_capacity(text.len());
    for chunk in text.as_bytes().utf8_chunks() {
        key.extend(chunk.valid().chars().map(u32::from));
        key.extend(chunk.invalid().iter().map(|&byte| 0xDC00 + u32::from(byte)));
    }
    key
}

/// The result of `str` for the number that Python's `json` reads from a JSON literal.
///
/// It works on the digits instead of a float, whose tables would make the launcher 15 kB larger. That is exact for up
/// to 15 significant digits, as no two such numbers share a float, and for every literal that Python wrote itself.
/// Longer ones written by hand keep digits that Python would drop, and so do exponents beyond a float's.
pub fn number(literal: &str) -> String {
    if literal
        .bytes()
        .any(|byte| matches!(byte, b'.' | b'e' | b'E'))
    {
        float(literal).unwrap_or_else(|| literal.to_owned())
    } else if literal == "-0" {
        "0".to_owned()
    } else {
        literal.to_owned()
    }
}

/// `repr` of a float: scientific if the exponent is below -4 or at least 16. `None` if the text is not a JSON number.
fn float(literal: &str) -> Option<String> {
    let (mantissa, exponent) = literal.split_once(['e', 'E']).unwrap_or((literal, "0"));
    let (sign, mantissa) = mantissa
        .strip_prefix('-')
        .map_or(("", mantissa), |mantissa| ("-", mantissa));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let leading = all.bytes().take_while(|&byte| byte == b'0').count();
    let digits = all[leading..].trim_end_matches('0');
    if digits.is_empty() {
        return Some(format!("{sign}0.0"));
    }
    // The position of the first digit, as places before the point.
    let places = i64::try_from(whole.len()).ok()? - i64::try_from(leading).ok()? - 1;
    let exponent = exponent.parse::<i64>().ok()?.checked_add(places)?;
    let (first, rest) = digits.split_at(1);
    if !(-4..16).contains(&exponent) {
        let point = if rest.is_empty() { "" } else { "." };
        let direction = if exponent < 0 { '-' } else { '+' };
        return Some(format!(
            "{sign}{first}{point}{rest}e{direction}{:02}",
            exponent.unsigned_abs()
        ));
    }
    let Ok(before) = usize::try_from(exponent + 1) else {
        let zeros = "0".repeat(usize::try_from(-exponent - 1).ok()?);
        return Some(format!("{sign}0.{zeros}{digits}"));
    };
    if before == 0 {
        return Some(format!("{sign}0.{digits}"));
    }
    let padded = format!("{digits:0<before$}");
    let (whole, fraction) = padded.split_at(before);
    Some(format!(
        "{sign}{whole}.{}",
        if fraction.is_empty() { "0" } else { fraction }
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_normalised_as_posixpath_does() {
        for (path, expected) in [
            ("", "."),
            (".", "."),
            ("/", "/"),
            ("//", "//"),
            ("///", "/"),
            ("//a//b/", "//a/b"),
            ("///a", "/a"),
            ("a/./b/", "a/b"),
            ("/a/../b", "/b"),
            ("/../a", "/a"),
            ("//..", "//"),
            ("..", ".."),
            ("../..", "../.."),
            ("a/../..", ".."),
            ("../a/..", ".."),
            ("a/..", "."),
            ("./", "."),
            ("/a/b/..//../c/.", "/c"),
            ("~/x", "~/x"),
            ("a b/ c", "a b/ c"),
        ] {
            assert_eq!(normalise(path.as_ref()), expected, "{path:?}");
        }
    }

    #[test]
    fn normalising_keeps_bytes_that_are_no_text_and_is_idempotent() {
        // Every path of up to six characters over the letters that matter, among them one byte that is not UTF-8.
        let alphabet = [b'/', b'.', b'a', 0xff];
        for length in 0..=6_u32 {
            for code in 0..4_usize.pow(length) {
                let path: Vec<u8> = (0..length)
                    .map(|place| alphabet[code / 4_usize.pow(place) % 4])
                    .collect();
                let once = normalise(OsStr::from_bytes(&path));
                assert_eq!(normalise(&once), once, "{path:?}");
                assert_eq!(
                    path.starts_with(b"/"),
                    once.as_bytes().starts_with(b"/"),
                    "{path:?}"
                );
                assert!(
                    !once.is_empty() && !once.as_bytes()[1..].ends_with(b"//"),
                    "{path:?}"
                );
                let components = once.as_bytes().split(|&byte| byte == b'/');
                assert!(
                    once == "." || components.clone().all(|component| component != b"."),
                    "{path:?}"
                );
                if once.as_bytes().starts_with(b"/") {
                    assert!(
                        components.clone().all(|component| component != b".."),
                        "{path:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn joining_keeps_an_absolute_second_part() {
        for (directory, name, expected) in [
            ("/a", "b", "/a/b"),
            ("/a/", "b", "/a/b"),
            ("/a", "/b", "/b"),
            ("", "b", "b"),
            ("/a", "", "/a/"),
        ] {
            assert_eq!(join(directory.as_ref(), name.as_ref()), expected);
        }
    }

    #[test]
    fn upper_case_maps_one_letter_to_several_where_unicode_does() {
        for (name, expected) in [
            ("lower_case1", "LOWER_CASE1"),
            ("straße", "STRASSE"),
            ("ŉ", "ʼN"),
            ("ﬁ", "FI"),
            ("ı", "I"),
            ("ſ", "S"),
            ("\u{390}", "\u{399}\u{308}\u{301}"),
            ("ǆ", "Ǆ"),
            ("ключ", "КЛЮЧ"),
            ("ÿ", "Ÿ"),
            ("变量", "变量"),
        ] {
            assert_eq!(upper(name), expected);
        }
    }

    #[test]
    fn numbers_read_as_python_prints_them() {
        for (literal, expected) in [
            ("5", "5"),
            ("-5", "-5"),
            ("0", "0"),
            ("-0", "0"),
            (
                "123456789012345678901234567890",
                "123456789012345678901234567890",
            ),
            ("1.5", "1.5"),
            ("1.50", "1.5"),
            ("1.0", "1.0"),
            ("-0.0", "-0.0"),
            ("1e2", "100.0"),
            ("1E+2", "100.0"),
            ("1e15", "1000000000000000.0"),
            ("1e16", "1e+16"),
            ("1e100", "1e+100"),
            ("1e-4", "0.0001"),
            ("1e-5", "1e-05"),
            ("0.00012345", "0.00012345"),
            ("1.5e-7", "1.5e-07"),
            ("5e-324", "5e-324"),
            ("0.1", "0.1"),
            ("10.0", "10.0"),
            ("-12.50", "-12.5"),
            ("0.05e2", "5.0"),
            ("120e-1", "12.0"),
            ("0.0e5", "0.0"),
            ("3.141592653589793", "3.141592653589793"),
            ("0.30000000000000004", "0.30000000000000004"),
        ] {
            assert_eq!(number(literal), expected, "{literal}");
        }
    }

    #[test]
    fn names_sort_by_code_point_and_stray_bytes_as_surrogates() {
        let mut names: Vec<OsString> = [".h", "1", "B", "a", "~", "é", "\u{ff8a}", "\u{1f600}"]
            .map(OsString::from)
            .into();
        names.push(OsString::from_vec(vec![0xff]));
        names.reverse();
        names.sort_by_key(|name| order_key(name));
        let shown: Vec<_> = names.iter().map(|name| name.to_string_lossy()).collect();
        assert_eq!(
            shown,
            [
                ".h",
                "1",
                "B",
                "a",
                "~",
                "é",
                "\u{fffd}",
                "\u{ff8a}",
                "\u{1f600}"
            ]
        );
    }
}
