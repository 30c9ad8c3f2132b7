//! The Rust client of a zrs cluster (or of one node).
//!
//! **What it is.** A [`Client`] finds the server that serves it and stays with it: the primary, for one that writes;
//! any node that has caught up, for one that only reads. It loads objects through a cache that is told of every change,
//! and commits [`Transaction`]s, which read one state of the database and conflict with any client that has changed
//! their objects meanwhile.
//!
//! ```no_run
//! use std::sync::Arc;
//! use zrs::client::{Client, CommitError, Options};
//! use zrs::env::Env;
//! use zrs::net::Tcp;
//! use zrs::zodb::Oid;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let addresses = ["a:8100", "b:8100", "c:8100"].map(str::to_owned).to_vec();
//! let client = Client::connect(Options { addresses, ..Options::default() }, Env::system(), Arc::new(Tcp)).await?;
//!
//! // Runs again from the beginning whenever another client has changed object 1 meanwhile.
//! let count = client
//!     .transact(async |transaction| {
//!         let count: u64 = String::from_utf8_lossy(&transaction.read(Oid(1)).await?).parse().unwrap_or(0);
//!         transaction.write(Oid(1), (count + 1).to_string());
//!         Ok::<_, CommitError>(count + 1)
//!     })
//!     .await?;
//! println!("{count}");
//! # Ok(())
//! # }
//! ```
//!
//! **Why it is.** The tools of this project speak to a cluster as its users do, and its tests can say what a client may
//! rely on. The client runs on [`Env`](crate::env::Env) and [`Network`](crate::net::Network) alone, so the simulation
//! has the same one.
//!
//! **What it promises.**
//! - The search for the primary asks all addresses at once: one that refuses, is silent or names another node delays no
//!   other. Every wait is bounded by [`Options::wait`], after which the answer is an error.
//! - An object read as current was current at the [`Client::view`], and the view only grows, over connections and
//!   failovers. The view moves past other clients' commits as the server tells of them; [`Client::sync`] waits for all
//!   commits that were answered before the call.
//! - A transaction reads its snapshot, through a failover too. Its commit either takes its place after everything it
//!   depends on, or is an error. After a lost connection, loads are repeated, and so is a commit whose finish was not
//!   yet sent; a finish that was sent and not answered is [`CommitError::Unknown`], and never repeated.
//! - The cache takes no more memory than [`Options::cache_bytes`]; queues are bounded.
//!
//! **How a failover looks.** The primary is n1, the client's view 10; object 1 is cached as [7, …), object 2 as [8, …):
//!
//! ```text
//!   n1 killed                             connection lost; view 10 and cache stay; a transaction at 10 reads from them
//!   asks n1, n2, n3 at once               n1: refused   n2: not primary, knows of none   n3: the same
//!   (pause)  n2: not primary, n3 is       asks n3 at once
//!   n3 registers it: last is 12           other clients have committed 11 and 12 meanwhile
//!   getInvalidations(10) = 12, [2]        object 2 is dropped; view 12; object 1 is still cached, and current at 12
//!   loads, commits go on                  new transactions read at 12, that from before still at 10
//!   invalidateTransaction(13, [1])        object 1 was [7, 13); view 13
//! ```
//!
//! **What was left out.** Resolving conflicts (the caller knows what the objects mean, and begins again), blobs, undo
//! and pack, commits side by side (a server takes one at a time from a connection; connect more clients for that), and
//! a cache on disk.
//!
//! **Where to look**: `handle` has the calls of a [`Client`], `transaction` what runs in transactions; `link` is the
//! task of the connection, `find` its search for a server, `commit` the commit that it carries out, `cache` what it
//! keeps current.

mod cache;
mod commit;
mod errors;
mod find;
mod handle;
mod link;
mod options;
mod search;
mod shared;
#[cfg(test)]
mod tests;
mod transaction;

pub use cache::Loaded;
pub use errors::{CallError, CommitError, ConnectError};
pub use handle::Client;
pub use options::Options;
pub use shared::Up;
pub use transaction::Transaction;
