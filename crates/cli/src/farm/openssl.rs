//! Certificates, by openssl(1): the authority of this host, the certificates of its masters, and what a master elsewhere
//! shows. Keys are written by openssl into a directory that root alone can enter, and never printed.

use std::fs;
use std::net::IpAddr;
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use buildbot_conda_core::foreign_text::ForeignText;
use buildbot_conda_core::invitation::Fingerprint;
use buildbot_conda_core::starter::Address;

use crate::system::children::Ended;
use crate::system::openssl::{self, complaint};

/// Days that an authority is good for.
const AUTHORITY_DAYS: u32 = 3650;
/// Days that a master's certificate is good for.
pub(super) const CERTIFICATE_DAYS: u32 = 90;

/// A private key and the certificate that belongs to it, in PEM.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) key: String,
    pub(super) certificate: String,
}

/// Makes an authority for the masters of the host `name`.
pub(super) fn make_authority(name: &str) -> anyhow::Result<Pair> {
    let extensions =
        "basicConstraints = critical, CA:TRUE, pathlen:0\nkeyUsage = critical, keyCertSign\n";
    request(
        &format!("buildbot-conda of {name}"),
        extensions,
        AUTHORITY_DAYS,
        None,
    )
}

/// Makes a certificate for a master that workers reach by `names`, which are host names and addresses.
pub(super) fn make_certificate(names: &[String], authority: &Pair) -> anyhow::Result<Pair> {
    let alternatives = names.iter().map(|name| match name.parse::<IpAddr>() {
        Ok(address) => format!("IP:{address}"),
        Err(_) => format!("DNS:{name}"),
    });
    let extensions = format!(
        "basicConstraints = critical, CA:FALSE\nkeyUsage = critical, digitalSignature\n\
         extendedKeyUsage = serverAuth\nsubjectAltName = {}\n",
        alternatives.collect::<Vec<_>>().join(", ")
    );
    let name = names.first().context("name a master's host")?;
    let mut pair = request(name, &extensions, CERTIFICATE_DAYS, Some(authority))?;
    // A worker that joins is shown the whole way to the authority.
    pair.certificate.push_str(&authority.certificate);
    Ok(pair)
}

/// A key and a certificate for the common name `name`, signed by `authority` or by itself.
fn request(
    name: &str,
    extensions: &str,
    days: u32,
    authority: Option<&Pair>,
) -> anyhow::Result<Pair> {
    // Made with mode 0700.
    let scratch = tempfile::tempdir().context("make a directory for a key")?;
    let path = |name: &str| scratch.path().join(name);
    // A subject is at most 64 characters, and what is matched are the alternative names.
    let subject: String = name.chars().take(64).collect();
    let settings = format!(
        "[req]\ndistinguished_name = subject\nx509_extensions = extensions\nprompt = no\nutf8 = yes\n\
         [subject]\nCN = {subject}\n[extensions]\nsubjectKeyIdentifier = hash\n{extensions}"
    );
    fs::write(path("settings"), settings).context("write what a certificate shall have")?;
    let mut command = openssl::command(&["req", "-x509", "-new", "-nodes", "-newkey", "ec"]);
    command
        .args(["-pkeyopt", "ec_paramgen_curve:prime256v1", "-days"])
        .arg(days.to_string());
    for (option, name) in [
        ("-config", "settings"),
        ("-keyout", "key"),
        ("-out", "made"),
    ] {
        command.arg(option).arg(path(name));
    }
    if let Some(authority) = authority {
        fs::write(path("authority"), &authority.certificate).context("write a certificate")?;
        fs::write(path("authority.key"), &authority.key).context("write a key")?;
        for (option, name) in [("-CA", "authority"), ("-CAkey", "authority.key")] {
            command.arg(option).arg(path(name));
        }
    }
    succeeded("make a certificate", &run(command, "")?)?;
    let text = |name: &str| {
        fs::read_to_string(path(name)).with_context(|| format!("read the {name} of openssl"))
    };
    Ok(Pair {
        key: text("key")?,
        certificate: text("made")?,
    })
}

/// The fingerprint of the first certificate of a text.
pub(super) fn fingerprint(certificate: &str) -> anyhow::Result<Fingerprint> {
    let words = ["x509", "-noout", "-fingerprint", "-sha256"];
    let output = run(openssl::command(&words), certificate)?;
    succeeded("read a certificate", &output)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let (_, digits) = text.trim().split_once('=').context("read a fingerprint")?;
    digits.parse().context("read a fingerprint")
}

/// The certificate of the authority with that fingerprint, as the master at `address` shows it, once the master's own
/// certificate is seen to come from it and to be for that host.
///
/// # Errors
///
/// Whatever keeps a worker from connecting: nobody listens, no TLS, another authority, another host, an expired
/// certificate.
pub(super) fn authority_of(address: &Address, expected: &Fingerprint) -> anyhow::Result<String> {
    let shown = connect(address, &["-showcerts"])?;
    let text = String::from_utf8_lossy(&shown.stdout);
    let shown_ones = certificates(&text);
    if shown_ones.is_empty() {
        let reason = complaint(&shown);
        bail!("no TLS with the master at {address}: {reason}");
    }
    let mut found = None;
    for one in shown_ones {
        if fingerprint(&one)? == *expected {
            found = Some(one);
        }
    }
    let Some(authority) = found else {
        bail!(
            "what listens at {address} is not the master of this invitation: its certificate comes from another authority\n\
             hint: if the master has got a new authority, make a new invitation there"
        );
    };
    let scratch = tempfile::tempdir().context("make a directory for a certificate")?;
    let file = scratch.path().join("authority.pem");
    fs::write(&file, &authority).context("write a certificate")?;
    let file = file.to_str().context("name a file")?;
    let host = if address.host.parse::<IpAddr>().is_ok() {
        "-verify_ip"
    } else {
        "-verify_hostname"
    };
    let words = ["-verify_return_error", "-CAfile", file, host, &address.host];
    let verified = connect(address, &words)?;
    let text = String::from_utf8_lossy(&verified.stdout);
    ensure!(
        verified.is_success && text.contains("Verify return code: 0 (ok)"),
        "the certificate of the master at {address} is not accepted: {}",
        verify_error(&verified)
    );
    Ok(authority)
}

fn connect(address: &Address, words: &[&str]) -> anyhow::Result<Ended> {
    let mut command = openssl::command(&["s_client", "-connect", &address.to_string()]);
    command.args(words);
    // A name for the server to choose its certificate by; an address is none, RFC 6066.
    if address.host.parse::<IpAddr>().is_err() {
        command.args(["-servername", &address.host]);
    }
    run(command, "").with_context(|| format!("ask the master at {address} for its certificate"))
}

/// Each certificate of a text, in PEM.
fn certificates(text: &str) -> Vec<String> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let parts = text.split(BEGIN).skip(1);
    let whole = parts.filter_map(|part| part.split_once(END));
    whole
        .map(|(body, _)| format!("{BEGIN}{body}{END}\n"))
        .collect()
}

fn verify_error(output: &Ended) -> ForeignText {
    let text = [&output.stderr[..], &output.stdout[..]].concat();
    let text = String::from_utf8_lossy(&text);
    let mut lines = text.lines();
    let reason = lines.find_map(|line| {
        let (_, reason) = line.trim().split_once("verify error:num=")?;
        reason.split_once(':').map(|(_, reason)| reason)
    });
    reason.map_or_else(|| complaint(output), ForeignText::new)
}

fn succeeded(what: &str, output: &Ended) -> anyhow::Result<()> {
    ensure!(
        output.is_success,
        "{what} by openssl: {}",
        complaint(output)
    );
    Ok(())
}

fn run(command: Command, input: &str) -> anyhow::Result<Ended> {
    openssl::run(command, input, |_| false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_comes_from_its_authority_and_brings_it_along() {
        let authority = make_authority("ci").unwrap();
        let names = ["ci.example.org".to_owned(), "192.0.2.1".to_owned()];
        let pair = make_certificate(&names, &authority).unwrap();
        let chain = certificates(&pair.certificate);
        assert_eq!(chain.len(), 2);
        let expected = fingerprint(&authority.certificate).unwrap();
        assert_eq!(fingerprint(&chain[1]).unwrap(), expected);
        assert_ne!(fingerprint(&chain[0]).unwrap(), expected);
        let words = ["x509", "-noout", "-ext", "subjectAltName"];
        let shown = run(openssl::command(&words), &chain[0]).unwrap();
        let shown = String::from_utf8(shown.stdout).unwrap();
        assert!(
            shown.contains("DNS:ci.example.org, IP Address:192.0.2.1"),
            "{shown}"
        );
    }

    #[test]
    fn a_text_without_a_certificate_has_none() {
        assert!(certificates("CONNECTED(00000003)\n---\nno peer certificate\n").is_empty());
        assert!(fingerprint("x").is_err());
    }
}
