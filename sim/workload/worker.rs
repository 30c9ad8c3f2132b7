//! A client at work, and what a workload is: an item of the menu.

use std::ops::Range;

use futures_util::future::LocalBoxFuture;
use zrs::client::Client;
use zrs::env::Env;
use zrs::zodb::Oid;

use crate::chance::Chance;
use crate::history::{History, Manner};
use crate::things::Things;

/// Something that clients do again and again.
pub struct Workload {
    /// The workload's name in the summary; its streams of chance have the same name.
    pub name: &'static str,
    /// The clients that do the workload.
    pub clients: Clients,
    /// How many milliseconds a client waits from one turn to the next.
    pub pause: Range<u64>,
    /// Does the workload once. The answers go into the history.
    pub turn: for<'a> fn(&'a Worker, &'a mut Chance) -> Turn<'a>,
}

/// One turn of a workload. A turn gives the work done: nothing if the client was refused or has lost its connection.
pub type Turn<'a> = LocalBoxFuture<'a, u64>;

/// The clients that do a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    All,
    /// All but the client that only reads.
    Writers,
}

/// A client of the simulation.
pub struct Worker {
    pub client: usize,
    pub connection: Client,
    pub env: Env,
    pub history: History,
    /// How the client stands by its finishes.
    pub manner: Manner,
}

impl Worker {
    /// A new object id, which goes into the history; `None` without an answer.
    pub async fn new_oid(&self) -> Option<Oid> {
        let oid = self.connection.new_oid().await.ok()?;
        self.history.look().oids.push((self.client, oid));
        Some(oid)
    }

    /// The objects that all clients share; none before the first client has created them.
    pub fn things(&self) -> Things {
        self.history.look().things.clone()
    }
}
