//! A web server on loopback, as plain as one that publishes an apt repository may be: files of a directory, their
//! dates, and nothing else. Asked as a proxy, it answers for every host.

use std::fs::{self, File};
use std::io::{self, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::SystemTime;

/// What is called with the path of each request before it is answered.
type Hook = dyn Fn(&str) + Send + Sync;

/// Serves until it is dropped.
pub struct Server {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
}

impl Server {
    /// Serves the files below `directory`.
    #[track_caller]
    pub fn start(directory: PathBuf) -> Self {
        Self::with_hook(directory, |_| ())
    }

    /// As [`Self::start`]; `before` is called with the path of each request before it is answered.
    #[track_caller]
    pub fn with_hook(directory: PathBuf, before: impl Fn(&str) + Send + Sync + 'static) -> Self {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has free ports");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let ended = Arc::new(AtomicBool::new(false));
        let (end, hook): (_, Arc<Hook>) = (Arc::clone(&ended), Arc::new(before));
        thread::spawn(move || {
            for connection in listener.incoming() {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                let (directory, hook) = (directory.clone(), Arc::clone(&hook));
                // A client may close its connection at any time.
                thread::spawn(move || {
                    connection.and_then(|stream| serve(&stream, &directory, &*hook))
                });
            }
        });
        Self { address, ended }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the listener; should that fail, it sleeps on until the tests end.
        let _ = TcpStream::connect(self.address);
    }
}

/// Answers the requests of one connection until its end.
fn serve(stream: &TcpStream, directory: &Path, before: &Hook) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    while let Some((target, since)) = request(&mut reader)? {
        let path = path_of(&target);
        before(&path);
        let found = open(&directory.join(path.trim_start_matches('/')));
        let mut writer = stream;
        match found {
            Err(_) => writer.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?,
            Ok((_, _, modified)) if since.is_some_and(|since| modified <= since) => {
                writer.write_all(b"HTTP/1.1 304 Not Modified\r\n\r\n")?;
            }
            Ok((file, size, modified)) => {
                let date = httpdate::fmt_http_date(modified);
                write!(
                    writer,
                    "HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nLast-Modified: {date}\r\n\r\n"
                )?;
                io::copy(&mut file.take(size), &mut writer)?;
            }
        }
    }
    Ok(())
}

/// The target of the next request and its `If-Modified-Since`; nothing at the end of the connection.
fn request(reader: &mut impl io::BufRead) -> io::Result<Option<(String, Option<SystemTime>)>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let target = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut since = None;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
            return Ok(Some((target, since)));
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("If-Modified-Since")
        {
            since = httpdate::parse_http_date(value.trim()).ok();
        }
    }
}

/// The path of a request's target, which names the host as well where this is asked as a proxy.
fn path_of(target: &str) -> String {
    let path = target.strip_prefix("http://").map_or(target, |rest| {
        rest.find('/').map_or("/", |start| &rest[start..])
    });
    let mut decoded = Vec::new();
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits: Vec<u8> = bytes.by_ref().take(2).collect();
            let code = str::from_utf8(&digits).ok();
            decoded.extend(code.and_then(|code| u8::from_str_radix(code, 16).ok()));
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn open(path: &Path) -> io::Result<(File, u64, SystemTime)> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    Ok((file, metadata.len(), metadata.modified()?))
}
