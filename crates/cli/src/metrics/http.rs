//! One answer to one request of HTTP, on standard input and output: systemd accepts the connection.

use std::io::{self, Read, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use rustix::net::sockopt::{self, Timeout};

/// The type of `OpenMetrics`.
const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Bytes; a scraper's request has some hundred.
const LONGEST_REQUEST: u64 = 8192;
/// For each part of a request. The unit limits the whole request.
const PATIENCE: Duration = Duration::from_secs(5);

/// Reads a request, and answers it with what `text` gives.
pub(super) fn answer(text: impl FnOnce() -> anyhow::Result<String>) -> anyhow::Result<ExitCode> {
    let stdin = io::stdin().lock();
    // A pipe has no time limit, and its writer is the caller.
    let _ = sockopt::set_socket_timeout(&stdin, Timeout::Recv, Some(PATIENCE));
    let request = read(stdin).context("read the request")?;
    let mut words = request.split(' ');
    let (status, kind, body) = match (words.next(), words.next()) {
        (Some("GET" | "HEAD"), Some("/metrics")) => match text() {
            Ok(text) => ("200 OK", TYPE, text),
            Err(error) => {
                eprintln!("error: {error:#}");
                let body = "buildbot-conda metrics failed, see the journal\n".to_owned();
                ("500 Internal Server Error", "text/plain", body)
            }
        },
        (Some("GET" | "HEAD"), Some(_)) => ("404 Not Found", "text/plain", "/metrics\n".to_owned()),
        _ => ("400 Bad Request", "text/plain", String::new()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let body = if request.starts_with("HEAD ") {
        ""
    } else {
        &body
    };
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all((head + body).as_bytes())
        .and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("answer"),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// The head of a request, to its empty line.
fn read(from: impl Read) -> io::Result<String> {
    let mut head = Vec::new();
    for byte in io::BufReader::new(from.take(LONGEST_REQUEST)).bytes() {
        head.push(byte?);
        if head.ends_with(b"\r\n\r\n") {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}
