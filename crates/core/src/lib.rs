//! From the text of the configuration to the text of units and drop-ins, without looking at the
//! machine: no file, process or environment is touched here, which this crate's `clippy.toml`
//! enforces. Facts about a machine are passed in as values.

#![warn(
    clippy::print_stderr,
    reason = "the macros of the standard library panic when nobody reads"
)]

pub mod backup_timer;
#[cfg(feature = "serde")]
mod by_text;
#[cfg(feature = "render")]
pub mod database_line;
#[cfg(feature = "render")]
pub mod database_url;
pub mod directives;
pub mod dropin;
#[cfg(feature = "edit")]
pub mod edit;
pub mod escape;
pub mod foreign_text;
#[cfg(feature = "render")]
pub mod invitation;
pub mod limits;
#[cfg(feature = "render")]
pub mod listed;
pub mod names;
pub mod notify;
pub mod paths;
mod profile;
#[cfg(test)]
mod properties;
#[cfg(feature = "edit")]
pub mod questions;
pub mod settings;
#[cfg(feature = "render")]
pub mod starter;
#[cfg(feature = "render")]
mod template;
#[cfg(feature = "render")]
pub mod unit;
pub mod unit_text;
pub mod values;
#[cfg(feature = "render")]
pub mod web;
#[cfg(all(feature = "edit", feature = "render"))]
pub mod worker_table;
#[cfg(feature = "render")]
pub mod workers;
