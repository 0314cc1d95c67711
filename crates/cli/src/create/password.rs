//! Where a worker's password comes from: a file, standard input, a prompt without echo, or chance.
//! Never the command line, which every account of a host can read.

use std::fs::File;
use std::io::{self, Read as _};

use anyhow::Context as _;
use buildbot_conda_host::trusted::open_given;

use super::Common;
use crate::system::prompt::first_line;

/// Characters of a generated password; 62 of them make 190 bits.
const LENGTH: usize = 32;

/// The password that was given, if one was.
pub(super) fn given(common: &Common) -> anyhow::Result<Option<String>> {
    if let Some(path) = &common.password_file {
        let name = path.display();
        let file = open_given(path).with_context(|| format!("open `{name}`"))?;
        return first_line(file)
            .with_context(|| format!("read a password from `{name}`"))
            .map(Some);
    }
    if common.password_stdin {
        return first_line(io::stdin())
            .context("read a password from standard input")
            .map(Some);
    }
    Ok(None)
}

/// One that nobody knows.
pub(super) fn generate() -> anyhow::Result<String> {
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
