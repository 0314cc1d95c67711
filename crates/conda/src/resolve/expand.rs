//! `os.path.expandvars` and `os.path.expanduser` on bytes.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::Surroundings;
use crate::Environment;

/// Replaces `$NAME` and `${NAME}` once; unset names and names without a closing brace are left unchanged.
pub(super) fn variables(text: &OsStr, environment: &Environment) -> OsString {
    let mut rest = text.as_bytes();
    let mut expanded = Vec::with_capacity(rest.len());
    while let Some(at) = rest.iter().position(|&byte| byte == b'$') {
        expanded.extend(&rest[..at]);
        let after = &rest[at + 1..];
        let (name, length) = if after.starts_with(b"{") {
            match after.iter().position(|&byte| byte == b'}') {
                Some(end) => (&after[1..end], end + 1),
                None => (&after[..0], 0),
            }
        } else {
            let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
            let end = after
                .iter()
                .position(|byte| !is_part(byte))
                .unwrap_or(after.len());
            (&after[..end], end)
        };
        match environment.get(OsStr::from_bytes(name)) {
            Some(value) => expanded.extend(value.as_bytes()),
            None => expanded.extend(&rest[at..=at + length]),
        }
        rest = &after[length..];
    }
    expanded.extend(rest);
    OsString::from_vec(expanded)
}

/// Replaces a leading `~` or `~NAME`; if the account is not known, the path is left unchanged.
pub(super) fn home(path: &OsStr, surroundings: &Surroundings) -> OsString {
    let bytes = path.as_bytes();
    let Some(after) = bytes.strip_prefix(b"~") else {
        return path.to_owned();
    };
    let end = after
        .iter()
        .position(|&byte| byte == b'/')
        .unwrap_or(after.len());
    let (account, rest) = after.split_at(end);
    let home = if account.is_empty() {
        surroundings
            .environment
            .get(OsStr::new("HOME"))
            .or(surroundings.home.as_ref())
            .map(|home| home.as_bytes())
    } else {
        passwd_home(&surroundings.passwd, account)
    };
    let Some(home) = home else {
        return path.to_owned();
    };
    let kept = home
        .iter()
        .rposition(|&byte| byte != b'/')
        .map_or(0, |last| last + 1);
    let mut expanded = home[..kept].to_vec();
    expanded.extend(rest);
    if expanded.is_empty() {
        expanded.push(b'/');
    }
    OsString::from_vec(expanded)
}

/// The sixth field of the account's line, `passwd(5)`.
fn passwd_home<'a>(passwd: &'a [u8], account: &[u8]) -> Option<&'a [u8]> {
    passwd.split(|&byte| byte == b'\n').find_map(|line| {
        let mut fields = line.split(|&byte| byte == b':');
        (fields.next()? == account).then(|| fields.nth(4)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surroundings(variables: &[(&str, &str)]) -> Surroundings {
        Surroundings {
            environment: variables
                .iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            directory: "/cwd".into(),
            home: Some("/from/passwd".into()),
            passwd: b"root:x:0:0:root:/root:/bin/bash\nbb:x:9:9::/home/bb/:/bin/bash\nshort:x\n"
                .to_vec(),
            system: "/nowhere".into(),
            shown: None,
        }
    }

    #[test]
    fn variables_are_replaced_once_where_they_are_set() {
        let surroundings = surroundings(&[("A", "x"), ("B_1", "$A"), ("E", ""), ("a b", "spaced")]);
        for (text, expected) in [
            ("$A/y", "x/y"),
            ("${A}y", "xy"),
            ("$Ay", "$Ay"),
            ("$B_1-", "$A-"),
            ("$E$A", "x"),
            ("$", "$"),
            ("$$A", "$x"),
            ("${A", "${A"),
            ("${A/$A", "${A/x"),
            ("${}", "${}"),
            ("${a b}", "spaced"),
            ("a$é", "a$é"),
            ("$MISSING/${MISSING}", "$MISSING/${MISSING}"),
        ] {
            assert_eq!(
                variables(text.as_ref(), &surroundings.environment),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn a_leading_tilde_is_a_home_directory() {
        let with_home = surroundings(&[("HOME", "/h/")]);
        for (path, expected) in [
            ("~", "/h"),
            ("~/x", "/h/x"),
            ("~bb/x", "/home/bb/x"),
            ("~bb", "/home/bb"),
            ("~root", "/root"),
            ("~nobody-here/x", "~nobody-here/x"),
            ("~short/x", "~short/x"),
            ("a/~", "a/~"),
            ("", ""),
        ] {
            assert_eq!(home(path.as_ref(), &with_home), expected, "{path}");
        }
        assert_eq!(home("~/x".as_ref(), &surroundings(&[])), "/from/passwd/x");
        assert_eq!(home("~/x".as_ref(), &surroundings(&[("HOME", "")])), "/x");
        assert_eq!(home("~".as_ref(), &surroundings(&[("HOME", "/")])), "/");
    }
}
