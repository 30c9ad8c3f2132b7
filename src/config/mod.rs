//! The settings of a node, and every limit.
//!
//! A [`Config`] is made by [`command_line`] from flags and a TOML file with the same settings (flags win), or in tests
//! and simulation from [`Config::default`]; [`Config::check`] names a setting that is wrong and its cure. After that
//! no code reads flags, files or the environment. [`limits`] lists the numbers that no setting changes.
//!
//! **Where to look**: `settings` is the [`Config`], `check` what it refuses, `cli` the flags, `file` the file,
//! `values`, `level` and `address` the forms of what operators write, `unit` what a systemd unit may have to allow,
//! `open_files` what the system's limit leaves for whom, `sizes` the limits that tests make smaller.
//!
//! **Left out.** Reloading: the log changes the members, not a file, and any other setting is worth a restart.

mod address;
mod check;
mod cli;
mod file;
mod level;
pub mod limits;
mod open_files;
mod settings;
mod sizes;
#[cfg(test)]
mod tests;
mod unit;
mod values;

pub use address::{host, is_address, is_path, port};
pub use check::BadConfig;
pub use cli::{Parsed, Wrong, command, command_line};
pub use level::directives;
pub use open_files::OpenFiles;
pub use settings::{Config, DEFAULT_ADDRESS, PeerTrust, TlsFiles};
pub use sizes::Sizes;
pub use unit::to_allow;
