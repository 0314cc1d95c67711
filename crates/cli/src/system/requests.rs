//! Requests to a web server of this host, as a browser makes them: by TCP to a master, by TLS to the front of it. The
//! name in a certificate is the business of those who come from elsewhere, and is not checked here.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of an answer that are read.
const LARGEST: usize = 1 << 20;

/// Where a request goes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way<'a> {
    /// To this port on the loopback interface.
    Plain(u16),
    /// By TLS to the port 443, for this host.
    Tls(&'a str),
}

/// How much of an answer is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Much {
    /// All of it.
    All,
    /// What stands above the body, of one that does not end.
    Head,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// In small letters.
    pub(crate) head: String,
    pub(crate) body: String,
}

/// Sends a request without a body, and gives the answer. `more` are further headers.
///
/// # Errors
///
/// When nobody answers, or not in the words of HTTP.
pub(crate) fn ask(
    way: Way<'_>,
    method: &str,
    path: &str,
    more: &str,
    much: Much,
) -> anyhow::Result<Answer> {
    let host = match way {
        Way::Plain(_) => "localhost",
        Way::Tls(host) => host,
    };
    let length = if method == "POST" {
        "Content-Length: 0\r\n"
    } else {
        ""
    };
    let connection = if more.contains("Connection:") {
        ""
    } else {
        "Connection: close\r\n"
    };
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{length}{connection}{more}\r\n");
    let bytes = match way {
        Way::Plain(port) => plain(port, &request, much)?,
        Way::Tls(host) => tls(host, &request, much)?,
    };
    parsed(&String::from_utf8_lossy(&bytes))
}

fn parsed(text: &str) -> anyhow::Result<Answer> {
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        bail!("no answer in HTTP");
    };
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    Ok(Answer {
        status: status.context("an answer without a status")?,
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    })
}

fn plain(port: u16, request: &str, much: Much) -> anyhow::Result<Vec<u8>> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
        .with_context(|| format!("connect to port {port} of this host"))?;
    stream
        .set_read_timeout(Some(PATIENCE))
        .context("limit a wait")?;
    stream
        .write_all(request.as_bytes())
        .context("send a request")?;
    read(&mut stream, much).context("read an answer")
}

fn tls(host: &str, request: &str, much: Much) -> anyhow::Result<Vec<u8>> {
    let mut command = Command::new("timeout");
    command.arg(PATIENCE.as_secs().to_string()).args([
        "openssl",
        "s_client",
        "-quiet",
        "-connect",
        "127.0.0.1:443",
    ]);
    // An address is no name to choose a certificate by, RFC 6066.
    if host.parse::<IpAddr>().is_err() {
        command.args(["-servername", host]);
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("run openssl")?;
    let mut stdin = child.stdin.take().context("write to openssl")?;
    let mut stdout = child.stdout.take().context("read from openssl")?;
    // One that has ended already says so by what it has not printed.
    let _ = stdin.write_all(request.as_bytes());
    let read = read(&mut stdout, much).context("read from openssl");
    // `timeout` passes it on.
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::TERM);
    }
    drop(stdin);
    let status = child.wait().context("wait for openssl")?;
    let bytes = read?;
    if status.code() == Some(127) {
        bail!(
            "openssl, which asks for pages by TLS, is not installed\nhint: `apt-get install openssl`"
        );
    }
    if bytes.is_empty() {
        bail!("nobody answers by TLS at port 443 of this host for `{host}`");
    }
    Ok(bytes)
}

fn read(source: &mut impl Read, much: Much) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    loop {
        let length = source.read(&mut part)?;
        bytes.extend_from_slice(&part[..length]);
        let has_head = bytes.windows(4).any(|window| window == b"\r\n\r\n");
        if length == 0 || bytes.len() > LARGEST || (much == Much::Head && has_head) {
            return Ok(bytes);
        }
    }
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
        let answer = ask(Way::Plain(port), "POST", "/x", "", Much::All).unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (403, "closed"));
        assert!(answer.head.contains("content-type: text/plain"));
        let upgrade = "Connection: Upgrade\r\n";
        let endless = ask(Way::Plain(port), "GET", "/ws", upgrade, Much::Head).unwrap();
        assert_eq!(endless.status, 403);
        let asked = server.join().unwrap();
        assert!(asked[0].starts_with(
            "POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n"
        ));
        assert!(asked[1].contains("\r\nConnection: Upgrade\r\n") && !asked[1].contains("close"));
    }

    #[test]
    fn what_is_not_http_is_no_answer() {
        for text in ["", "SSH-2.0\r\n", "HTTP/1.1\r\n\r\n", "HTTP/1.1 x\r\n\r\n"] {
            assert!(parsed(text).is_err(), "{text}");
        }
    }
}
