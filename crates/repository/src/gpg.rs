//! The administrator's gpg: it has the keys, asks for passphrases, signs, and verifies signatures. gpg itself selects
//! the keyring (`GNUPGHOME`), and no passphrase passes through this program.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::error::{Error, at};
use crate::settings::{Fingerprint, Settings};

/// RFC 4880 and its successors: `EdDSA`, and hashes that apt accepts.
const EDDSA: &str = "22";
const STRONG_HASHES: [&str; 3] = ["8", "9", "10"];

/// How signatures are made.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gpg {
    /// A file with the passphrase; gpg-agent asks where there is none.
    pub(crate) passphrase_file: Option<PathBuf>,
}

/// The form of a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// The text with the signature below it.
    Clear,
    /// The signature alone.
    Detached,
}

impl Gpg {
    /// The signatures of all `keys` for the text in `file`, inside it or separate.
    pub(crate) fn sign(
        &self,
        file: &Path,
        keys: &[Fingerprint],
        form: Form,
    ) -> Result<Vec<u8>, Error> {
        let mut command = Command::new("gpg");
        command.args(["--batch", "--armor", "--digest-algo", "SHA512"]);
        if let Some(passphrase_file) = &self.passphrase_file {
            command.args(["--pinentry-mode", "loopback", "--passphrase-file"]);
            command.arg(passphrase_file);
        }
        for key in keys {
            command.args(["--local-user", key.as_str()]);
        }
        command.args(["--output", "-"]);
        command.arg(match form {
            Form::Clear => "--clearsign",
            Form::Detached => "--detach-sign",
        });
        let output = run(command.arg(file))?;
        succeeded("sign", &output)?;
        Ok(output.stdout)
    }
}

/// Every key of the settings can sign.
pub(crate) fn check_keys(settings: &Settings) -> Result<(), Error> {
    settings.keys.iter().try_for_each(check_key)
}

/// Is this an Ed25519 key that can sign now?
pub(crate) fn check_key(key: &Fingerprint) -> Result<(), Error> {
    let refused = |reason| {
        Err(Error::Key {
            key: key.clone(),
            reason,
        })
    };
    let output = run(Command::new("gpg")
        .args(["--batch", "--with-colons", "--list-secret-keys"])
        .arg(key.as_str()))?;
    // The fields are those of GnuPG's doc/DETAILS.
    let listing = String::from_utf8_lossy(&output.stdout).into_owned();
    let record = |kind: &str| {
        let mut lines = listing
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>());
        lines.find(|fields| fields[0] == kind && fields.len() > 9)
    };
    let (Some(secret), Some(fingerprint)) = (record("sec"), record("fpr")) else {
        return refused("is not among the secret keys of this gpg");
    };
    let field = |number: usize| secret.get(number - 1).copied().unwrap_or_default();
    if fingerprint[9] != key.as_str() {
        return refused("is a subkey; name its primary key");
    }
    if field(4) != EDDSA || field(17) != "ed25519" {
        return refused("is not an Ed25519 key");
    }
    match field(2) {
        "e" => return refused("has expired"),
        "r" => return refused("is revoked"),
        "d" | "i" => return refused("is disabled or invalid"),
        _ => {}
    }
    if !field(12).contains('S') {
        return refused("cannot sign");
    }
    Ok(())
}

/// The public halves, together in one armour.
pub(crate) fn public(keys: &[Fingerprint]) -> Result<String, Error> {
    let mut command = Command::new("gpg");
    command.args(["--batch", "--armor", "--no-emit-version"]);
    command.args(["--export-options", "export-minimal", "--export"]);
    let output = run(command.args(keys.iter().map(Fingerprint::as_str)))?;
    succeeded("export public keys", &output)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The text below whose signatures all known ones are good, and the keys that made them.
pub(crate) fn text_of(file: &Path) -> Result<(Vec<u8>, Vec<Fingerprint>), Error> {
    let status = tempfile::NamedTempFile::new()
        .map_err(crate::error::at("write to", &std::env::temp_dir()))?;
    let mut command = Command::new("gpg");
    command
        .args(["--batch", "--status-file"])
        .arg(status.path());
    let output = run(command.args(["--output", "-", "--verify"]).arg(file))?;
    let lines = std::fs::read_to_string(status.path()).map_err(at("read", status.path()))?;
    let signers = signers(&lines, &output)?;
    Ok((output.stdout, signers))
}

/// The keys whose signatures of `file` are in `signature`.
pub(crate) fn signers_of(signature: &Path, file: &Path) -> Result<Vec<Fingerprint>, Error> {
    let mut command = Command::new("gpg");
    command.args(["--batch", "--status-fd", "1", "--verify"]);
    let output = run(command.arg(signature).arg(file))?;
    signers(&String::from_utf8_lossy(&output.stdout), &output)
}

/// The primary keys of valid and sufficiently strong signatures, from gpg's status lines. A signature with an unknown
/// key is ignored; an invalid one makes the whole result invalid.
fn signers(status: &str, output: &Output) -> Result<Vec<Fingerprint>, Error> {
    let mut keys = Vec::new();
    for line in status.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["[GNUPG:]", "BADSIG", ..] => return Err(failure("verify a signature", output)),
            [
                "[GNUPG:]",
                "VALIDSIG",
                _,
                _,
                _,
                _,
                _,
                _,
                algorithm,
                hash,
                _,
                primary,
                ..,
            ] if algorithm == EDDSA && STRONG_HASHES.contains(&hash) => {
                keys.extend(primary.parse::<Fingerprint>());
            }
            _ => {}
        }
    }
    if keys.is_empty() {
        return Err(failure("verify a signature", output));
    }
    Ok(keys)
}

fn run(command: &mut Command) -> Result<Output, Error> {
    // stdin stays the terminal's, which pinentry needs; messages are read, so they are in one language.
    command.env("LC_ALL", "C.UTF-8").stdin(Stdio::inherit());
    command.output().map_err(|cause| Error::NoProgram {
        program: "gpg",
        package: "gpg gpg-agent",
        cause,
    })
}

fn succeeded(action: &'static str, output: &Output) -> Result<(), Error> {
    if output.status.success() && !output.stdout.is_empty() {
        Ok(())
    } else {
        Err(failure(action, output))
    }
}

fn failure(action: &'static str, output: &Output) -> Error {
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said
        .lines()
        .map(|line| line.trim_start_matches("gpg: "))
        .collect();
    let last = &lines[lines.len().saturating_sub(3)..];
    Error::Gpg {
        action,
        said: last.join("; ").into(),
    }
}
