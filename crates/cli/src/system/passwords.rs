//! Passwords that chance makes.

use std::fs::File;
use std::io::Read as _;

use anyhow::Context as _;

/// Characters of a password; 62 of them make 190 bits.
const LENGTH: usize = 32;

/// A random password.
pub(crate) fn generate() -> anyhow::Result<String> {
    const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let source = "/dev/urandom";
    let mut file = File::open(source).with_context(|| format!("open `{source}`"))?;
    let mut password = String::new();
    while password.len() < LENGTH {
        let mut byte = [0];
        file.read_exact(&mut byte)
            .with_context(|| format!("read `{source}`"))?;
        // Only as many as divide evenly: no letter is likelier than another.
        if byte[0] < 248 {
            password.push(char::from(LETTERS[usize::from(byte[0]) % LETTERS.len()]));
        }
    }
    Ok(password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_passwords_differ_and_are_plain() {
        let (one, other) = (generate().unwrap(), generate().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.len(), LENGTH);
        assert!(one.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    }
}
