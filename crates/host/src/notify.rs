//! Messages to systemd, with the protocol of `sd_notify(3)`.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Longest status line in bytes; `systemctl status` shows one line.
const STATUS_LENGTH: usize = 1000;
/// How long systemd may take to read a message.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sends the status line of a unit to the socket of `NOTIFY_SOCKET`, after `first`: other assignments, each with its
/// line break.
///
/// # Errors
///
/// The error of the system.
pub fn status(socket: &OsStr, first: &str, line: &str) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let datagram = UnixDatagram::unbound()?;
    datagram.set_write_timeout(Some(PATIENCE))?;
    let line = &line[..line.floor_char_boundary(STATUS_LENGTH)];
    datagram.send_to_addr(format!("{first}STATUS={line}").as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_cut_between_characters() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let socket = UnixDatagram::bind(&path).unwrap();
        for (line, expected) in [
            (
                format!("{}é", "a".repeat(STATUS_LENGTH - 1)),
                STATUS_LENGTH - 1,
            ),
            ("short".to_owned(), 5),
        ] {
            status(path.as_os_str(), "READY=1\n", &line).unwrap();
            let mut buffer = [0; 2 * STATUS_LENGTH];
            let length = socket.recv(&mut buffer).unwrap();
            assert_eq!(length, "READY=1\nSTATUS=".len() + expected);
        }
    }
}
