//! SHA-256, the only checksum in our repositories.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

/// A SHA-256 as 64 small hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest(String);

impl Digest {
    /// The checksum of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::finish(Sha256::new_with_prefix(bytes))
    }

    /// The checksum of everything that can be read, and its length in bytes.
    ///
    /// # Errors
    ///
    /// The error of the reader.
    pub fn of_reader(mut reader: impl Read) -> io::Result<(Self, u64)> {
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 16];
        let mut size = 0;
        loop {
            match reader.read(&mut buffer)? {
                0 => return Ok((Self::finish(hash), size)),
                length => {
                    hash.update(&buffer[..length]);
                    size += length as u64;
                }
            }
        }
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn finish(hash: Sha256) -> Self {
        use fmt::Write as _;
        let mut digits = String::with_capacity(64);
        for byte in hash.finalize() {
            write!(digits, "{byte:02x}").expect("a string takes everything");
        }
        Self(digits)
    }
}

impl FromStr for Digest {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == 64 && text.bytes().all(digit) {
            Ok(Self(text.to_owned()))
        } else {
            Err(())
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_readers_have_the_known_sum() {
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Digest::of(b"abc").as_str(), known);
        assert_eq!(
            Digest::of_reader(&b"abc"[..]).unwrap(),
            (known.parse().unwrap(), 3)
        );
        assert!("ABC".parse::<Digest>().is_err());
    }
}
