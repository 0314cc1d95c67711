//! Who listens on a TCP port, from `/proc/net/tcp` and the descriptors of processes (proc(5)).

use std::collections::HashSet;
use std::fs;

/// A process that has a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listener {
    /// None where this process may not see whose it is.
    pub(super) pid: Option<u32>,
    /// `nginx`.
    pub(super) name: Option<String>,
    /// `nginx.service`.
    pub(super) unit: Option<String>,
}

/// `TCP_LISTEN` of `net/tcp_states.h`.
const LISTENING: &str = "0A";

/// The process that listens on `port` at any address; none if the port is free.
pub(super) fn of(port: u16) -> Option<Listener> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let sockets: HashSet<String> = tables
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|text| sockets(&text, port))
        .collect();
    if sockets.is_empty() {
        return None;
    }
    let pid = owner(&sockets);
    let of = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", pid?)).ok();
    Some(Listener {
        pid,
        name: of("comm").map(|text| text.trim().to_owned()),
        unit: of("cgroup").and_then(|text| unit(&text)),
    })
}

/// Inodes of the sockets that listen on a port.
fn sockets(table: &str, port: u16) -> Vec<String> {
    let lines = table.lines().skip(1);
    lines
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (_, local) = fields.get(1)?.rsplit_once(':')?;
            let is_it = u16::from_str_radix(local, 16) == Ok(port) && *fields.get(3)? == LISTENING;
            is_it.then(|| (*fields.get(9)?).to_owned().into())?
        })
        .collect()
}

fn owner(sockets: &HashSet<String>) -> Option<u32> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.into_iter().find(|pid| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten()
            .flatten();
        let mut targets = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok());
        targets.any(|target| {
            let target = target.to_string_lossy();
            let inode = target
                .strip_prefix("socket:[")
                .and_then(|text| text.strip_suffix(']'));
            inode.is_some_and(|inode| sockets.contains(inode))
        })
    })
}

/// The unit that a control group is of, of whichever hierarchy.
fn unit(groups: &str) -> Option<String> {
    let paths = groups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let parts = paths.flat_map(|path| path.split('/'));
    let is_service = |part: &&str| {
        part.strip_suffix(".service")
            .is_some_and(|stem| !stem.is_empty())
    };
    parts.into_iter().find(is_service).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_sockets_of_a_port_are_found() {
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F4A 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4242 1
   1: 0100007F:1F4A 0100007F:9999 01 00000000:00000000 00:00000000 00000000  1000        0 4243 1
   2: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4244 1
";
        assert_eq!(sockets(table, 8010), ["4242"]);
        assert!(sockets(table, 8011).is_empty());
    }

    #[test]
    fn the_unit_is_in_the_control_group() {
        let groups = "0::/system.slice/nginx.service\n";
        assert_eq!(unit(groups).as_deref(), Some("nginx.service"));
        assert_eq!(
            unit("0::/user.slice/user-1000.slice/session-1.scope\n"),
            None
        );
    }

    #[test]
    fn a_port_of_this_process_is_found_with_its_pid() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let found = of(port).expect("somebody listens");
        assert_eq!(found.pid, Some(std::process::id()));
        drop(listener);
    }
}
