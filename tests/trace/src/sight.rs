//! What is visible of a stopped process: the program that it has become, or the change that it is about to make.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use nix::libc;
use nix::sys::ptrace;
use nix::unistd::Pid;

/// Longest path that the kernel accepts, including its final zero.
const PATH_MAX: usize = 4096;

/// A program that a process has just become.
#[derive(Clone, Debug)]
pub struct Exec {
    /// The process, as the tracer sees it.
    pub pid: Pid,
    /// Its effective user.
    pub uid: u32,
    /// The file that is executed; the interpreter's, for a script.
    pub program: PathBuf,
    /// The whole command line; for a script that of the interpreter, with the script's path in it.
    pub arguments: Vec<String>,
}

impl Exec {
    /// Reads it from a process that has just completed an `execve`.
    pub(crate) fn of(pid: Pid) -> Option<Self> {
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let words = command.strip_suffix(b"\0").unwrap_or(&command);
        Some(Self {
            pid,
            uid: status_field(pid, "Uid:", 1)?,
            program: fs::read_link(format!("/proc/{pid}/exe")).ok()?,
            arguments: words
                .split(|&byte| byte == 0)
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect(),
        })
    }
}

/// A system call that is about to change a file or to start a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The process, as the tracer sees it.
    pub pid: Pid,
    /// The system call, by the plain name of its family: `rename` for `renameat2` as well.
    pub call: &'static str,
    /// What it is about: one absolute path, or two for `rename`, `link` and `symlink`. They are as the process sees
    /// them, or where it goes by an open file, as the tracer does.
    pub paths: Vec<String>,
}

/// Where a system call has the path that matters.
#[derive(Clone, Copy)]
enum Place {
    /// A pointer in this argument, counted from 0; the path starts where the process is.
    Text(usize),
    /// A descriptor of the directory where the path starts, and a pointer to the path.
    At(usize, usize),
    /// A file descriptor in this argument.
    Descriptor(usize),
}

impl Step {
    /// Reads it from a process that has stopped at the entry of a system call; none if the call changes no file.
    pub(crate) fn of(pid: Pid) -> Option<Self> {
        use Place::{At, Descriptor, Text};
        let registers = ptrace::getregs(pid).ok()?;
        let arguments = [registers.rdi, registers.rsi, registers.rdx, registers.r10];
        let (call, places): (_, &[Place]) = match libc::c_long::try_from(registers.orig_rax).ok()? {
            libc::SYS_execve => ("execve", &[Text(0)]),
            libc::SYS_execveat => ("execve", &[At(0, 1)]),
            libc::SYS_open if writes(arguments[1]) => ("open", &[Text(0)]),
            libc::SYS_openat if writes(arguments[2]) => ("open", &[At(0, 1)]),
            libc::SYS_creat => ("open", &[Text(0)]),
            libc::SYS_write | libc::SYS_pwrite64 => ("write", &[Descriptor(0)]),
            libc::SYS_ftruncate => ("truncate", &[Descriptor(0)]),
            libc::SYS_rename => ("rename", &[Text(0), Text(1)]),
            libc::SYS_renameat | libc::SYS_renameat2 => ("rename", &[At(0, 1), At(2, 3)]),
            libc::SYS_link => ("link", &[Text(0), Text(1)]),
            libc::SYS_linkat => ("link", &[At(0, 1), At(2, 3)]),
            libc::SYS_symlink => ("symlink", &[Text(0), Text(1)]),
            libc::SYS_symlinkat => ("symlink", &[Text(0), At(1, 2)]),
            libc::SYS_unlink => ("unlink", &[Text(0)]),
            libc::SYS_unlinkat => ("unlink", &[At(0, 1)]),
            libc::SYS_mkdir => ("mkdir", &[Text(0)]),
            libc::SYS_mkdirat => ("mkdir", &[At(0, 1)]),
            libc::SYS_rmdir => ("rmdir", &[Text(0)]),
            libc::SYS_chmod => ("chmod", &[Text(0)]),
            libc::SYS_fchmodat => ("chmod", &[At(0, 1)]),
            libc::SYS_fchmod => ("chmod", &[Descriptor(0)]),
            libc::SYS_chown | libc::SYS_lchown => ("chown", &[Text(0)]),
            libc::SYS_fchownat => ("chown", &[At(0, 1)]),
            libc::SYS_fchown => ("chown", &[Descriptor(0)]),
            _ => return None,
        };
        let paths: Option<Vec<String>> = places
            .iter()
            .map(|&place| match place {
                Text(path) => absolute(pid, None, &text(pid, arguments[path])?),
                At(start, path) => {
                    absolute(pid, Some(arguments[start]), &text(pid, arguments[path])?)
                }
                Descriptor(index) => opened(pid, arguments[index]),
            })
            .collect();
        Some(Self {
            pid,
            call,
            paths: paths?,
        })
    }
}

/// Whether the system call has succeeded at whose exit a process has stopped.
pub(crate) fn has_succeeded(pid: Pid) -> bool {
    // Errors are negative numbers.
    ptrace::getregs(pid).is_ok_and(|registers| registers.rax.cast_signed() >= 0)
}

/// May an `open` with these flags change something?
fn writes(flags: u64) -> bool {
    let changing = libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC;
    u64::try_from(changing).is_ok_and(|changing| flags & changing != 0)
}

/// The text that ends with a zero at an address of a process.
fn text(pid: Pid, address: u64) -> Option<String> {
    let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
    let mut bytes = Vec::new();
    // In parts that end at page boundaries: the page after the text may not exist.
    while bytes.len() < PATH_MAX {
        let position = address + bytes.len() as u64;
        let mut piece = [0; 256];
        let length = piece.len().min(256 - usize::try_from(position % 256).ok()?);
        let read = memory.read_at(&mut piece[..length], position).ok()?;
        if let Some(end) = piece[..read].iter().position(|&byte| byte == 0) {
            bytes.extend_from_slice(&piece[..end]);
            return Some(String::from_utf8_lossy(&bytes).into_owned());
        }
        bytes.extend_from_slice(&piece[..read]);
    }
    None
}

/// A path that starts at an open directory, or else where the process is. An empty one is of no use.
fn absolute(pid: Pid, start: Option<u64>, path: &str) -> Option<String> {
    if path.is_empty() || path.starts_with('/') {
        return (!path.is_empty()).then(|| path.to_owned());
    }
    // `AT_FDCWD` is a negative number of 32 bits.
    let descriptor = start.filter(|start| start & (1 << 31) == 0);
    let start = if let Some(descriptor) = descriptor {
        opened(pid, descriptor)?
    } else {
        let link = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
        link.to_string_lossy().into_owned()
    };
    Some(format!("{}/{path}", start.trim_end_matches('/')))
}

/// The path of a file that a process has open; nothing for pipes and sockets.
fn opened(pid: Pid, descriptor: u64) -> Option<String> {
    let link = fs::read_link(format!("/proc/{pid}/fd/{descriptor}")).ok()?;
    let path = link.to_string_lossy().into_owned();
    path.starts_with('/').then_some(path)
}

/// A number of `/proc/PID/status`: that of the field's words, counted from 0.
pub(crate) fn status_field(pid: Pid, name: &str, index: usize) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().nth(index)?.parse().ok()
}
