//! What looks like a secret, by its name or its form. In most cases the name shows it, and a false positive costs less
//! than a missed secret.

/// Parts of names of what is secret.
const WORDS: [&str; 9] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "api_key",
    "private_key",
    "credential",
];
/// Suffixes of names that only state where a secret is.
const ENDS: [&str; 10] = [
    "_file",
    "_path",
    "_dir",
    "_name",
    "_names",
    "_env",
    "_var",
    "_url",
    "_directory",
    "_provider",
];

/// Parts of names, between `_`, that show a secret when a value is about to be copied: too short to be searched for in
/// any text.
const PARTS: [&str; 8] = ["pass", "pwd", "pw", "key", "auth", "cred", "creds", "pat"];

/// Whether a name is that of something secret.
pub(crate) fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('-', "_");
    WORDS.iter().any(|word| name.contains(word)) && !ENDS.iter().any(|end| name.ends_with(end))
}

/// Whether a variable must not be copied to a place that everyone can read.
pub(crate) fn may_be_secret(name: &str, value: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let is_place = ENDS.iter().any(|end| lower.ends_with(end));
    let has_part = lower.split('_').any(|part| PARTS.contains(&part));
    is_secret(name) || (has_part && !is_place) || has_password(value)
}

/// `https://somebody:something@host`, or a key as it appears in its file.
pub(crate) fn has_password(text: &str) -> bool {
    if text.contains("PRIVATE KEY-----") {
        return true;
    }
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("://") {
        let authority = after
            .split(['/', ' ', '"', '\''])
            .next()
            .unwrap_or_default();
        let user = authority.rsplit_once('@').map(|(user, _)| user);
        let password = user.and_then(|user| user.split_once(':'));
        if password.is_some_and(|(_, password)| !password.is_empty() && !is_template(password)) {
            return true;
        }
        rest = after;
    }
    false
}

/// A placeholder for a program or a shell. Any other `%` belongs to a percent-encoded character, and any other `$` is
/// literal.
fn is_template(password: &str) -> bool {
    password.starts_with('$')
        || ["{", "%(", "%s"]
            .iter()
            .any(|begin| password.contains(begin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_secret_by_their_names_or_shapes() {
        for (name, value, expect) in [
            ("GITHUB_TOKEN", "x", true),
            ("DB_PASS", "x", true),
            ("API_KEY", "x", true),
            ("BUILDBOT_SECRET", "x", true),
            ("PGPASSWORD", "x", true),
            ("DATABASE", "postgresql://bb:word@host/db", true),
            ("SSH_KEY_FILE", "/etc/key", false),
            ("TOKEN_PATH", "/etc/token", false),
            ("MONKEY", "x", false),
            ("COMPASS", "x", false),
            ("TZ", "UTC", false),
            ("DATABASE", "postgresql://host/db", false),
        ] {
            assert_eq!(may_be_secret(name, value), expect, "{name}={value}");
        }
    }
}
