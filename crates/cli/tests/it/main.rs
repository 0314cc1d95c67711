//! The command line, as one program: the real command below root directories, with exact output and exit status. What
//! needs a running system is tested on booted machines.

#![expect(
    clippy::unwrap_used,
    reason = "a test whose host cannot be set up has failed"
)]
#![expect(
    clippy::needless_raw_string_hashes,
    reason = "expect-test writes its texts so"
)]

mod activation_records;
mod adopt;
mod create;
mod database;
mod doctor;
mod drain;
mod env;
mod farm;
mod headless;
mod host;
mod house;
mod logs;
mod metrics;
mod migrate;
mod notify;
mod outcome;
mod recorded_activations;
mod recover;
mod refusals;
mod repo;
mod search_path;
mod systemd;
mod terminal;
mod unit_files;
mod verbs;
mod web;
