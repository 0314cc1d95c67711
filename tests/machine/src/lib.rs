//! Throwaway Debian machines with a real systemd as PID 1, and a real Conda environment with Buildbot for them.
//!
//! Owns: the cached Debian roots, the Conda channel and environments, booting and ending machines, commands and REST
//! calls in them, the instances (master and worker) that tests use. What must hold on such a machine is in this crate's
//! `tests/`; `cargo xtask demo` shows it to people. Only the finished .deb is looked at, never the crates it is made of.
//!
//! Everything is kept in the user's cache directory ([`cache_directory`]), and needs root and the Debian packages that
//! `cargo xtask test` installs. Machines have no network but their own loopback, and those that a test makes for several
//! of them.

mod attacks;
mod boot;
mod cache;
mod conda;
mod emulated;
mod faults;
mod held;
mod instances;
mod lever;
mod machine;
mod network;
mod package;
mod places;
mod prepared;
mod process;
mod programs;
mod release;
mod rest;
mod root;
mod scenarios;
mod stage;
mod system;
mod table;
mod timings;
mod tree;
mod unit;

pub use cache::kept_directory;
pub use conda::{Channel, Environment, PREFIX, Version, python_with_rattler, virtual_environment};
pub use faults::{TABLES, Verdict, attack, fault, forget_faults, verdict};
pub use held::{HeldBuilds, held_configuration};
pub use instances::{MASTER, WORKER, create_instances, master_configuration};
pub use lever::{lever_configuration, pull_lever};
pub use machine::{Builder, Machine};
pub use network::Network;
pub use package::{environments_package, latest_package};
pub use places::{cache_directory, machines_directory, matrix_directory};
pub use prepared::{
    CHANNEL, LOCK, OTHER_LOCK, attached, installed, installed_with, layer, managed, set_up,
    with_running_master, without_conda,
};
pub use process::Output;
pub use programs::{with_packages, with_programs};
pub use release::Release;
pub use rest::{Build, Rest};
pub use root::{archive, debian_root, systemd_version};
pub use scenarios::Scenarios;
pub use stage::{
    CONFIGURATION, LATER, MASTER_UNIT, SOON, Stage, WORKER_UNIT, held_script, scripted,
};
pub use system::System;
pub use table::{Row, Shown, Table};
pub use tree::Layers;
pub use unit::Unit;

/// What a machine test returns.
pub type Outcome = anyhow::Result<()>;
