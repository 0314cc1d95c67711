//! HTTP requests: to the web server of this host, as a browser sends them, with TCP to a master and with TLS to the
//! front; and to a web hook elsewhere. The answering side is not trusted: an answer has a total time limit and a size
//! limit.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use buildbot_conda_core::foreign_text::ForeignText;

use super::{interrupt, openssl};

/// How long an answer of a master may take; openssl has its own time for TLS.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often an interrupt is looked for meanwhile.
const POLL: Duration = Duration::from_millis(100);
/// Bytes of an answer that are read.
const LARGEST: usize = 1 << 20;

/// Where a request goes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way<'a> {
    /// To this port on the loopback interface.
    Plain(u16),
    /// By TLS to the port 443 of this host, for this name. The name in the certificate is the business of those who come
    /// from elsewhere, and is not checked.
    Front(&'a str),
    /// By TLS to a port of this host elsewhere, which has to show a certificate of its name.
    Elsewhere(&'a str, u16),
}

/// How much of an answer is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Much {
    /// All of it.
    All,
    /// The headers above the body, for an answer that does not end.
    Head,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The first line.
    pub(crate) line: ForeignText,
    pub(crate) body: String,
}

/// Sends a request, and returns the answer. `more` contains further headers.
///
/// # Errors
///
/// If there is no answer, or it is not HTTP.
pub(crate) fn ask(
    way: Way<'_>,
    method: &str,
    path: &str,
    more: &str,
    body: &str,
    much: Much,
) -> anyhow::Result<Answer> {
    let host = match way {
        Way::Plain(_) => "localhost".to_owned(),
        Way::Front(host) | Way::Elsewhere(host, 443) => host.to_owned(),
        Way::Elsewhere(host, port) => format!("{host}:{port}"),
    };
    let length = if method == "POST" {
        format!("Content-Length: {}\r\n", body.len())
    } else {
        String::new()
    };
    let connection = if more.contains("Connection:") {
        ""
    } else {
        "Connection: close\r\n"
    };
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{length}{connection}{more}\r\n{body}");
    let is_enough = |bytes: &[u8]| {
        let has_head = || bytes.windows(4).any(|window| window == b"\r\n\r\n");
        bytes.len() > LARGEST || (much == Much::Head && has_head())
    };
    let bytes = match way {
        Way::Plain(port) => plain(port, &request, PATIENCE, is_enough)?,
        Way::Front(host) => tls("127.0.0.1", 443, host, false, &request, is_enough)?,
        Way::Elsewhere(host, port) => tls(host, port, host, true, &request, is_enough)?,
    };
    parsed(&String::from_utf8_lossy(&bytes))
}

fn parsed(text: &str) -> anyhow::Result<Answer> {
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        bail!("the answer is not HTTP");
    };
    let line = head.lines().next().unwrap_or_default();
    let status = line
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
    Ok(Answer {
        status: status.context("an answer without a status")?,
        line: ForeignText::new(line),
        body: body.to_owned(),
    })
}

fn plain(
    port: u16,
    request: &str,
    patience: Duration,
    is_enough: impl Fn(&[u8]) -> bool,
) -> anyhow::Result<Vec<u8>> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
        .with_context(|| format!("connect to port {port} of this host"))?;
    stream
        .set_read_timeout(Some(POLL))
        .context("set a timeout")?;
    stream
        .write_all(request.as_bytes())
        .context("send a request")?;
    let began = Instant::now();
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    while !is_enough(&bytes) {
        ensure!(!interrupt::is_noted(), "interrupted");
        ensure!(
            began.elapsed() < patience,
            "port {port} of this host does not end its answer within {} s",
            patience.as_secs()
        );
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => bytes.extend_from_slice(&buffer[..length]),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                _ => return Err(error).context("read an answer"),
            },
        }
    }
    Ok(bytes)
}

/// By openssl, which verifies the certificate where that is wanted. What may be secret in a request is on its standard
/// input.
fn tls(
    target: &str,
    port: u16,
    name: &str,
    is_verified: bool,
    request: &str,
    is_enough: impl Fn(&[u8]) -> bool,
) -> anyhow::Result<Vec<u8>> {
    let target = format!("{target}:{port}");
    let mut command = openssl::command(&["s_client", "-quiet", "-connect", &target]);
    if is_verified {
        command.args(["-verify_quiet", "-verify_return_error"]);
        command.args(["-verify_hostname", name]);
    }
    // An address is not a name that selects a certificate, RFC 6066.
    if name.parse::<IpAddr>().is_err() {
        command.args(["-servername", name]);
    }
    let ended = openssl::run(command, request, is_enough)?;
    ensure!(
        !ended.stdout.is_empty(),
        "no answer by TLS: {}",
        openssl::complaint(&ended)
    );
    Ok(ended.stdout)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn an_answer_is_read_to_its_end_or_to_its_body() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = thread::spawn(move || {
            let mut asked = Vec::new();
            for is_endless in [false, true] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut buffer = [0; 1024];
                let length = stream.read(&mut buffer).unwrap();
                asked.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
                stream
                    .write_all(b"HTTP/1.1 403 No\r\nContent-Type: Text/Plain\r\n\r\nclosed")
                    .unwrap();
                if is_endless {
                    // Ends when the other side goes.
                    let _ = stream.read(&mut buffer);
                }
            }
            asked
        });
        let answer = ask(Way::Plain(port), "POST", "/x", "", "", Much::All).unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (403, "closed"));
        assert_eq!(answer.line, ForeignText::new("HTTP/1.1 403 No"));
        let upgrade = "Connection: Upgrade\r\n";
        let endless = ask(Way::Plain(port), "GET", "/ws", upgrade, "", Much::Head).unwrap();
        assert_eq!(endless.status, 403);
        let asked = server.join().unwrap();
        assert!(asked[0].starts_with(
            "POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n"
        ));
        assert!(asked[1].contains("\r\nConnection: Upgrade\r\n") && !asked[1].contains("close"));
    }

    #[test]
    fn an_answer_that_does_not_end_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // As long as the other side is connected.
            while stream.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_millis(10));
            }
        });
        let began = Instant::now();
        let patience = Duration::from_millis(300);
        let refused = plain(port, "", patience, |_| false).unwrap_err();
        assert!(refused.to_string().contains("does not end its answer"));
        assert!(began.elapsed() < Duration::from_secs(10));
        server.join().unwrap();
    }

    #[test]
    fn what_is_not_http_is_no_answer() {
        for text in ["", "SSH-2.0\r\n", "HTTP/1.1\r\n\r\n", "HTTP/1.1 x\r\n\r\n"] {
            assert!(parsed(text).is_err(), "{text}");
        }
    }
}
