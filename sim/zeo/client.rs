//! A client of the protocol, over all its connections.

use std::sync::Arc;

use zrs::env::Env;
use zrs::net::Network;

use crate::history::History;

/// The part of a client that stays when a connection is lost.
pub struct Client {
    pub number: usize,
    pub env: Env,
    pub network: Arc<dyn Network>,
    pub history: History,
    pub read_only: bool,
}
