//! Follows processes and all that they start, by ptrace: sees every program that is executed and, on demand, every
//! step that changes a file, and can end all of them at once before a chosen one.
//!
//! What is traced is not changed in any way: the shipped scripts and programs run as they are. What a test makes of
//! what is seen is its own business. Register and system call numbers are those of amd64, the package's architecture.

mod sight;
mod tracer;

pub use nix::unistd::Pid;
pub use sight::{Exec, Step};
pub use tracer::{Ended, Event, Next, attach, run};
