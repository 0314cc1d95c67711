//! Certificates, by openssl(1): the authority of this host, the certificates of its masters, and what a master elsewhere
//! shows. Keys are written by openssl into a directory that root alone can enter, and never printed.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, bail, ensure};
use buildbot_conda_core::foreign_text::ForeignText;
use buildbot_conda_core::invitation::Fingerprint;
use buildbot_conda_core::starter::Address;

use super::invitations::now;
use crate::system::children::Ended;
use crate::system::openssl::{self, complaint};

/// Days that an authority is good for.
const AUTHORITY_DAYS: u32 = 3650;
/// Days that a master's certificate is good for.
pub(super) const CERTIFICATE_DAYS: u32 = 90;
/// Seconds for which both have been good when they are made: clocks of other hosts may be slow.
const BACKDATED: u64 = 24 * 60 * 60;

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
    let until = now() + u64::from(AUTHORITY_DAYS) * 24 * 60 * 60;
    sign(
        &format!("buildbot-conda of {name}"),
        extensions,
        until,
        None,
    )
}

/// Makes a certificate for a master that workers reach by `names`, which are host names and addresses. It ends at `until`,
/// in seconds since 1970.
pub(super) fn make_certificate(
    names: &[String],
    until: u64,
    authority: &Pair,
) -> anyhow::Result<Pair> {
    let alternatives = names.iter().map(|name| match name.parse::<IpAddr>() {
        Ok(address) => format!("IP:{address}"),
        Err(_) => format!("DNS:{name}"),
    });
    let extensions = format!(
        "basicConstraints = critical, CA:FALSE\nkeyUsage = critical, digitalSignature\n\
         extendedKeyUsage = serverAuth\nsubjectAltName = {}\n",
        alternatives.collect::<Vec<_>>().join(", ")
    );
    let name = names
        .first()
        .context("determine the host name of the master")?;
    let mut pair = sign(name, &extensions, until, Some(authority))?;
    // A worker that joins is shown the whole way to the authority.
    pair.certificate.push_str(&authority.certificate);
    Ok(pair)
}

/// A key and a certificate for the common name `name`, signed by `authority` or by itself. openssl-ca(1) is the one
/// command of OpenSSL 3.0 that takes the time from which a certificate is good.
fn sign(
    name: &str,
    extensions: &str,
    until: u64,
    authority: Option<&Pair>,
) -> anyhow::Result<Pair> {
    // Made with mode 0700.
    let scratch = tempfile::tempdir().context("create a directory for a key")?;
    let directory = scratch.path().display();
    let path = |name: &str| scratch.path().join(name);
    // A subject is at most 64 characters, and what is matched are the alternative names.
    let subject: String = name.chars().take(64).collect();
    let settings = format!(
        "[ca]\ndefault_ca = this\n[this]\ndatabase = {directory}/database\nnew_certs_dir = {directory}\n\
         rand_serial = yes\ndefault_md = sha256\nunique_subject = no\npolicy = any\n[any]\ncommonName = supplied\n\
         [req]\ndistinguished_name = subject\nprompt = no\nutf8 = yes\n\
         [subject]\nCN = {subject}\n[extensions]\nsubjectKeyIdentifier = hash\n{extensions}"
    );
    fs::write(path("settings"), settings).context("write the settings of a certificate")?;
    fs::write(path("database"), "").context("write a list of certificates")?;
    let mut command = openssl::command(&["req", "-new", "-nodes", "-newkey", "ec"]);
    command.args(["-pkeyopt", "ec_paramgen_curve:prime256v1"]);
    let files = [
        ("-config", "settings"),
        ("-keyout", "key"),
        ("-out", "request"),
    ];
    with_files(&mut command, scratch.path(), &files);
    succeeded("make a key", &run(command, "")?)?;
    let words = ["ca", "-batch", "-notext", "-extensions", "extensions"];
    let mut command = openssl::command(&words);
    command
        .args(["-startdate", &date(now().saturating_sub(BACKDATED))])
        .args(["-enddate", &date(until)]);
    let mut files = vec![
        ("-config", "settings"),
        ("-in", "request"),
        ("-out", "made"),
    ];
    if let Some(authority) = authority {
        fs::write(path("authority"), &authority.certificate).context("write a certificate")?;
        fs::write(path("authority.key"), &authority.key).context("write a key")?;
        files.extend([("-cert", "authority"), ("-keyfile", "authority.key")]);
    } else {
        command.arg("-selfsign");
        files.push(("-keyfile", "key"));
    }
    with_files(&mut command, scratch.path(), &files);
    succeeded("create a certificate", &run(command, "")?)?;
    let text = |name: &str| {
        fs::read_to_string(path(name)).with_context(|| format!("read the {name} of openssl"))
    };
    Ok(Pair {
        key: text("key")?,
        certificate: text("made")?,
    })
}

/// Options whose values are files of a directory.
fn with_files(command: &mut Command, directory: &Path, files: &[(&str, &str)]) {
    for (option, name) in files {
        command.arg(option).arg(directory.join(name));
    }
}

/// `YYYYMMDDHHMMSSZ` of seconds since 1970, as ASN.1 writes times.
fn date(seconds: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_secs(seconds);
    let text = humantime::format_rfc3339_seconds(time).to_string();
    text.replace(['-', ':', 'T'], "")
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
            "the server at {address} is not the master of this invitation: its certificate is from another authority\n\
             hint: if the master has a new authority, create a new invitation there"
        );
    };
    let scratch = tempfile::tempdir().context("create a directory for a certificate")?;
    let file = scratch.path().join("authority.pem");
    fs::write(&file, &authority).context("write a certificate")?;
    let file = file.to_str().context("convert the path of a file")?;
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
        "{what} with openssl: {}",
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
        let pair = make_certificate(&names, now() + 1000, &authority).unwrap();
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
    fn a_host_whose_clock_is_an_hour_off_accepts_a_certificate_that_was_just_made() {
        const HOUR: u64 = 60 * 60;
        let authority = make_authority("ci").unwrap();
        let until = now() + 2 * HOUR;
        let pair = make_certificate(&["ci".to_owned()], until, &authority).unwrap();
        let scratch = tempfile::tempdir().unwrap();
        fs::write(scratch.path().join("authority"), &authority.certificate).unwrap();
        let verify = |time: u64| {
            let mut command = openssl::command(&["verify", "-attime", &time.to_string()]);
            with_files(&mut command, scratch.path(), &[("-CAfile", "authority")]);
            let output = run(command, &pair.certificate).unwrap();
            output.is_success
        };
        for time in [now() - HOUR, now(), now() + HOUR, until - 1] {
            assert!(verify(time), "{time}");
        }
        // It ends all the same, and did not begin long ago.
        assert!(!verify(until + 1) && !verify(now() - 25 * HOUR));
    }

    #[test]
    fn a_text_without_a_certificate_has_none() {
        assert!(certificates("CONNECTED(00000003)\n---\nno peer certificate\n").is_empty());
        assert!(fingerprint("x").is_err());
    }
}
