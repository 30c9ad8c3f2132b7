//! What a client of the protocol does again and again: an item of the menu.

use std::ops::Range;

use futures_util::future::LocalBoxFuture;

use super::line::Lost;
use super::session::Session;
use crate::chance::Chance;

/// Something that clients of the protocol do again and again.
pub struct Act {
    /// The act's name in the summary; its streams of chance have the same name.
    pub name: &'static str,
    /// Whether clients that only read do so, too.
    pub reads_only: bool,
    /// How many milliseconds a client waits from one turn to the next.
    pub pause: Range<u64>,
    /// Does the act once. The answers go into the history.
    pub turn: for<'a> fn(&'a mut Session, &'a mut Chance) -> Turn<'a>,
}

/// One turn of an act. A turn gives the work done.
pub type Turn<'a> = LocalBoxFuture<'a, Result<u64, Lost>>;
