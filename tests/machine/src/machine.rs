//! A machine as tests see it: commands, files, units, the journal, reboot and power cut.

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::boot::Boot;
use crate::process::{self, Output};
use crate::root::debian_root;
use crate::tree::{Layers, Tree};
use crate::{Environment, Release};

/// How long an ordinary command may take.
const COMMAND_LIMIT: Duration = Duration::from_mins(2);

/// Minimum time between two checks of a condition; longer if checking takes long.
const PAUSE: Duration = Duration::from_millis(100);

/// Runs a command in a separate overlay. Arguments: the overlay's options, where to mount it, a directory of the host,
/// the command.
const BESIDE: &str = r#"
mount -t overlay overlay -o "$1" "$2"
cd "$2"
mount -t proc proc proc
mount --rbind /dev dev
mount --bind "$3" mnt
shift 3
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 chroot . "$@"
"#;

/// Describes a machine; created by [`Machine::builder`].
#[derive(Debug)]
pub struct Builder {
    layers: Layers,
}

impl Builder {
    /// Puts an environment at its prefix. It belongs to root, so that no service can change what it runs.
    #[must_use]
    pub fn with_environment(self, environment: &Environment) -> Self {
        Self {
            layers: self.layers.with(environment.tree().to_path_buf()),
        }
    }

    /// What its file system is made of.
    pub fn layers(self) -> Layers {
        self.layers
    }

    /// Boots it, and returns when systemd has started everything.
    ///
    /// # Errors
    ///
    /// When a tool is missing, this process is not root, or systemd does not come up; then with the console's text.
    pub fn boot(self) -> Result<Machine> {
        Machine::boot(self.layers)
    }
}

/// A booted machine, gone without a trace when it is dropped.
#[derive(Debug)]
pub struct Machine {
    // In this order: the machine is off before its tree is removed.
    boot: Option<Boot>,
    tree: Tree,
}

impl Machine {
    /// A plain Debian of `release`.
    ///
    /// # Errors
    ///
    /// When its root cannot be made.
    pub fn builder(release: Release) -> Result<Builder> {
        Ok(Builder {
            layers: Layers::new(debian_root(release)?),
        })
    }

    /// Boots a fresh machine over `layers`; many may be made from the same ones.
    ///
    /// # Errors
    ///
    /// As [`Builder::boot`].
    pub fn boot(layers: Layers) -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            bail!(
                "only root can boot a machine\nhint: `cargo xtask test` and `cargo xtask demo` call sudo for it"
            );
        }
        let tree = Tree::create(layers)?;
        let boot = Boot::start(&tree)?;
        Ok(Self {
            boot: Some(boot),
            tree,
        })
    }

    /// As [`Machine::boot`], with its own host name; the others share one.
    ///
    /// # Errors
    ///
    /// As [`Machine::boot`], or if the name cannot be written.
    pub fn boot_named(layers: Layers, name: &str) -> Result<Self> {
        let mut machine = Self::boot(layers)?;
        machine.write_file("/etc/hostname", &format!("{name}\n"), "0644", "root")?;
        name.clone_into(&mut machine.tree.host_name);
        machine.run(&["hostname", name])?.succeeded()?;
        Ok(machine)
    }

    fn on(&self) -> Result<&Boot> {
        self.boot.as_ref().context("use a machine that is on")
    }

    /// Runs a command as root and waits for it, two minutes at most.
    ///
    /// # Errors
    ///
    /// If it cannot be run or does not finish; an exit status other than 0 is not an error, see [`Output::succeeded`].
    pub fn run(&self, words: &[&str]) -> Result<Output> {
        self.run_within(COMMAND_LIMIT, words)
    }

    /// As [`Machine::run`], with a limit of the caller's.
    ///
    /// # Errors
    ///
    /// As [`Machine::run`].
    pub fn run_within(&self, limit: Duration, words: &[&str]) -> Result<Output> {
        self.on()?.run(words, limit, b"")
    }

    /// Runs a script in the machine's `sh` as root, and stops at its first failing command.
    ///
    /// # Errors
    ///
    /// As [`Machine::run`].
    pub fn shell(&self, script: &str) -> Result<Output> {
        self.run(&["sh", "-euc", script])
    }

    /// Runs a command as `user`, in a login's environment.
    ///
    /// # Errors
    ///
    /// As [`Machine::run`].
    pub fn run_as(&self, user: &str, words: &[&str]) -> Result<Output> {
        let home = self.run(&["sh", "-c", "getent passwd \"$0\" | cut -d: -f6", user])?;
        let variable = format!("HOME={}", home.text());
        self.run(
            &[
                &["runuser", "-u", user, "--", "env", &variable, "--chdir=/"],
                words,
            ]
            .concat(),
        )
    }

    /// Writes a file as `install` does: parents are made, `mode` is octal, `owner` is a user, whose group the
    /// file gets as well.
    ///
    /// # Errors
    ///
    /// When the machine's tools fail.
    pub fn write_file(&self, path: &str, text: &str, mode: &str, owner: &str) -> Result<()> {
        let script = r#"mkdir -p "$(dirname "$0")"; cat >"$0"; chmod "$1" "$0"; chown "$2:" "$0""#;
        let words = ["sh", "-euc", script, path, mode, owner];
        self.on()?
            .run(&words, COMMAND_LIMIT, text.as_bytes())?
            .succeeded()?;
        Ok(())
    }

    /// The text of a file.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn read_file(&self, path: &str) -> Result<String> {
        Ok(self.run(&["cat", path])?.succeeded()?.stdout)
    }

    /// Copies a file or the contents of a directory from the host, owners and modes kept.
    ///
    /// # Errors
    ///
    /// When either side cannot be read or written.
    pub fn copy_in(&self, source: &Path, destination: &str) -> Result<()> {
        // Through a pipe into the machine's own tar: a link in the machine can then only lead to the machine.
        let mut pack = Command::new("tar");
        let unpack = if source.is_dir() {
            pack.arg("-C").arg(source).args(["-cf", "-", "."]);
            r#"mkdir -p "$0"; tar -C "$0" -xpf -"#
        } else {
            pack.arg("-C")
                .arg(source.parent().unwrap_or(Path::new("/")))
                .args(["-cf", "-"])
                .arg(
                    source
                        .file_name()
                        .with_context(|| format!("copy `{}`", source.display()))?,
                );
            r#"mkdir -p "$(dirname "$0")"; tar -xpOf - >"$0""#
        };
        let archive = pack.output().context("start `tar`")?;
        if !archive.status.success() {
            bail!(
                "pack `{}`: {}",
                source.display(),
                String::from_utf8_lossy(&archive.stderr)
            );
        }
        self.on()?
            .run(
                &["sh", "-euc", unpack, destination],
                COMMAND_LIMIT,
                &archive.stdout,
            )?
            .succeeded()?;
        Ok(())
    }

    /// Copies a package in and installs it with apt, without questions.
    ///
    /// # Errors
    ///
    /// When it cannot be copied; apt's own failure is in the output.
    pub fn install_package(&self, package: &Path) -> Result<Output> {
        let name = package
            .file_name()
            .and_then(|name| name.to_str())
            .context("name a package's file")?;
        self.copy_in(package, &format!("/root/{name}"))?;
        let install =
            format!("cd /root; DEBIAN_FRONTEND=noninteractive apt-get install -y ./{name}");
        self.run_within(Duration::from_mins(5), &["sh", "-euc", &install])
    }

    /// The journal of a unit since the machine's first boot, message texts only.
    ///
    /// # Errors
    ///
    /// When journalctl fails.
    pub fn journal(&self, unit: &str) -> Result<String> {
        self.read_journal(&["--unit", unit])
    }

    /// Where the journal ends now, for [`Machine::journal_after`].
    ///
    /// # Errors
    ///
    /// When journalctl fails or names no cursor.
    pub fn journal_cursor(&self) -> Result<String> {
        self.run(&["journalctl", "--sync"])?.succeeded()?;
        let output = self
            .run(&["journalctl", "--quiet", "--lines=0", "--show-cursor"])?
            .succeeded()?;
        let cursor = output.stdout.trim().strip_prefix("-- cursor: ");
        Ok(cursor
            .with_context(|| format!("read a cursor from {output}"))?
            .to_owned())
    }

    /// The journal of a unit from a cursor on, message texts only.
    ///
    /// # Errors
    ///
    /// When journalctl fails.
    pub fn journal_after(&self, unit: &str, cursor: &str) -> Result<String> {
        self.read_journal(&["--unit", unit, "--after-cursor", cursor])
    }

    fn read_journal(&self, selection: &[&str]) -> Result<String> {
        // What a unit has just written is read only after journald has taken it in.
        self.run(&["journalctl", "--sync"])?.succeeded()?;
        let all = ["journalctl", "--no-pager", "--quiet", "--output=cat"];
        let output = self.run(&[&all, selection].concat())?;
        Ok(output.succeeded()?.stdout)
    }

    /// What `systemctl status` prints; its exit status is that of the unit's state.
    ///
    /// # Errors
    ///
    /// When it cannot be run.
    pub fn status(&self, unit: &str) -> Result<Output> {
        self.run(&["systemctl", "--no-pager", "--full", "status", unit])
    }

    /// One property of a unit, as `systemctl show` prints its value.
    ///
    /// # Errors
    ///
    /// When systemctl fails.
    pub fn unit_property(&self, unit: &str, property: &str) -> Result<String> {
        let output = self
            .run(&["systemctl", "show", "--value", "--property", property, unit])?
            .succeeded()?;
        Ok(output.text().to_owned())
    }

    /// Calls `condition` until it gives a value, and gives that.
    ///
    /// # Errors
    ///
    /// `what` did not come about within `limit`, with the end of the journal, or the first error of `condition`.
    pub fn wait_until<T>(
        &self,
        what: &str,
        limit: Duration,
        mut condition: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            let asked = Instant::now();
            if let Some(value) = condition()? {
                return Ok(value);
            }
            let pause = PAUSE.max(asked.elapsed() * 2);
            if Instant::now() > deadline {
                let journal = self
                    .run(&["journalctl", "--no-pager", "--lines=60"])
                    .map(|output| output.stdout);
                bail!(
                    "wait {} s until {what}\n{}",
                    limit.as_secs(),
                    journal.unwrap_or_default()
                );
            }
            thread::sleep(pause);
        }
    }

    /// The number of the machine's PID 1 as this process sees it, for those who follow processes.
    ///
    /// # Errors
    ///
    /// When the machine is off.
    pub fn first_process(&self) -> Result<i32> {
        Ok(self.on()?.init().as_raw_nonzero().get())
    }

    /// Runs a program of the host in the machine's network alone; for clients that the machine does not have.
    ///
    /// # Errors
    ///
    /// When it cannot be run or does not end.
    pub fn run_on_network(&self, words: &[&str], limit: Duration) -> Result<Output> {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", self.on()?.init().as_raw_nonzero()))
            .args(["--net", "--"])
            .args(words);
        process::run(&mut command, b"", limit)
    }

    /// Runs a program of another root in the machine's network, as root and with nothing else of the machine's; for
    /// clients that would not fit into it. The host's directory `shared` is `/mnt` there; else nothing is kept.
    ///
    /// # Errors
    ///
    /// When it cannot be run or does not end.
    pub fn run_beside(
        &self,
        layers: Layers,
        shared: &Path,
        words: &[&str],
        limit: Duration,
    ) -> Result<Output> {
        let tree = Tree::create(layers)?;
        let (options, root) = (tree.mount_options(), tree.directory.join("root"));
        let isolated = [
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "sh",
            "-euc",
            BESIDE,
            "sh",
        ];
        let places = [
            options.as_str(),
            root.to_str().context("name a root")?,
            shared.to_str().context("name a directory")?,
        ];
        self.run_on_network(&[&isolated[..], &places, words].concat(), limit)
    }

    /// Powers off in order and boots the same tree again.
    ///
    /// # Errors
    ///
    /// When either does not work.
    pub fn reboot(&mut self) -> Result<()> {
        self.power_off()?;
        self.power_on()
    }

    /// Kills everything at once and boots the same tree again.
    ///
    /// # Errors
    ///
    /// When it does not come up again.
    pub fn power_cut(&mut self) -> Result<()> {
        self.boot
            .take()
            .context("cut the power of a machine that is on")?
            .cut_power()?;
        self.power_on()
    }

    /// Powers off cleanly.
    ///
    /// # Errors
    ///
    /// If it takes longer than systemd itself would ever wait.
    pub fn power_off(&mut self) -> Result<()> {
        self.boot
            .take()
            .context("power off a machine that is on")?
            .power_off()
    }

    fn power_on(&mut self) -> Result<()> {
        self.boot = Some(Boot::start(&self.tree)?);
        Ok(())
    }

    /// Powers off, and makes what was written on this machine the directory `destination`, a layer for others.
    ///
    /// # Errors
    ///
    /// When it cannot be powered off or moved.
    pub fn freeze(mut self, destination: &Path) -> Result<()> {
        self.power_off()?;
        self.tree.into_layer(destination)
    }
}
