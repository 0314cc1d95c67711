//! A network of several machines, which nothing else is connected to; its links can be cut, slowed and restored.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::{Machine, Outcome};

const WIRE: &str = include_str!("wire.py");

/// An Ethernet between the network namespaces of machines. It ends when it is dropped.
#[derive(Debug)]
pub struct Network {
    wire: Child,
    answers: BufReader<ChildStdout>,
    /// The names of the hosts, in the order of their addresses.
    names: Vec<String>,
}

impl Network {
    /// A network of the hosts `names`, which get the addresses from 10.77.0.1 on. None is connected yet.
    ///
    /// # Errors
    ///
    /// When Python cannot be started.
    pub fn new(names: &[&str]) -> Result<Self> {
        let mut wire = Command::new("python3")
            .args(["-c", WIRE])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start `python3`")?;
        let answers = BufReader::new(wire.stdout.take().expect("stdout was piped"));
        Ok(Self {
            wire,
            answers,
            names: names.iter().map(|&name| name.to_owned()).collect(),
        })
    }

    /// The address of the host `name`.
    ///
    /// # Panics
    ///
    /// When the network has no such host.
    pub fn address(&self, name: &str) -> String {
        let place = self.names.iter().position(|one| one == name);
        format!("10.77.0.{}", place.expect("the network has this host") + 1)
    }

    /// Connects a machine as the host `name`, which then knows the names of all others. This must be repeated after
    /// each boot of the machine, which creates a new network namespace.
    ///
    /// # Errors
    ///
    /// If the machine is off, or has no interfaces of its own.
    pub fn connect(&mut self, name: &str, machine: &Machine) -> Outcome {
        let address = self.address(name);
        self.command(&format!(
            "connect {name} {} {address}",
            machine.first_process()?
        ))?;
        let hosts: String = std::iter::once(format!("127.0.0.1 localhost {name}\n"))
            .chain(self.names.iter().filter(|one| *one != name).map(|other| {
                let address = self.address(other);
                format!("{address} {other} {other}.example\n")
            }))
            .collect();
        machine.write_file("/etc/hosts", &hosts, "0644", "root")
    }

    /// Drops every frame between two hosts, as when one of them has vanished: neither is notified.
    ///
    /// # Errors
    ///
    /// If the wire has exited.
    pub fn cut(&mut self, name: &str, other: &str) -> Outcome {
        self.command(&format!("cut {name} {other}"))
    }

    /// Drops every frame that a host sends or is sent.
    ///
    /// # Errors
    ///
    /// If the wire has exited.
    pub fn cut_off(&mut self, name: &str) -> Outcome {
        self.command(&format!("cut {name} *"))
    }

    /// Ends all cuts of a host.
    ///
    /// # Errors
    ///
    /// If the wire has exited.
    pub fn restore(&mut self, name: &str) -> Outcome {
        self.command(&format!("restore {name} *"))
    }

    /// Delays the frames that a host sends, and drops a part of them.
    ///
    /// # Errors
    ///
    /// If the wire has exited.
    pub fn slow(&mut self, name: &str, milliseconds: u32, lost_per_cent: u32) -> Outcome {
        self.command(&format!("link {name} {milliseconds} {lost_per_cent}"))
    }

    fn command(&mut self, line: &str) -> Outcome {
        let input = self.wire.stdin.as_mut().expect("stdin was piped");
        writeln!(input, "{line}").context("write to the wire")?;
        let mut answer = String::new();
        self.answers
            .read_line(&mut answer)
            .context("read from the wire")?;
        ensure!(answer == "ok\n", "`{line}` on the wire: {answer}");
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        drop(self.wire.stdin.take());
        // It has exited already, or exits now; a destructor cannot handle an error.
        let _ = self.wire.wait();
    }
}
