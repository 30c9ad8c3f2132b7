//! A database on its way from one node to another: the messages on a connection for `Purpose::Fetch`, and both ends.
//!
//! ```text
//! receiver                                      source
//!   Open { again, entries }          ────►        the checkpoint of that name, or a new one
//!        ◄────  Opened { name, place, term, files }
//!   Read { file, offset, length }    ────►        `FETCH_AHEAD` of them at a time
//!        ◄────  Part { checksum, bytes }
//!
//! receiver                                      every member, on a connection of its own
//!   Follow { entries, done, total }  ────►        once a second: keeps the log from there on
//!        ◄────  Followed { kept }
//! ```
//!
//! The receiver writes file by file, and goes on with the first file that is not whole when it comes back for the same
//! checkpoint. Both ends hold a few parts in memory, whatever the size of the database.
//!
//! **What is checked.** Each part has a checksum of what the source has read. All files must be there in the end, as
//! they were offered. Then the database that has come is opened, and read from its first pair to its last, as it takes
//! the place of one that may be sound: RocksDB looks at no file before somebody reads from it. So a file that is cut or
//! damaged at the source is found here. It must have the format that this program reads, and the position offered.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::checkpoints::{Checkpoints, Held};
use super::link::Connection;
use super::types::{Incarnation, Place};
use super::wire::{FetchAnswer, FetchAsk, Fetched, Offer, pack, unpack};
use crate::config::limits;
use crate::engine::{Engine, Incoming, Order, ShelfFile, Table};
use crate::env::Env;
use crate::storage::{FORMAT, Position, TABLES, position_of};

use serde::{Deserialize, Serialize};

/// Offers a checkpoint.
fn offer_of(held: &Held) -> io::Result<Offer> {
    let place = Place::of(held.position).ok_or_else(|| io::Error::other("its database is empty"))?;
    let files = held.files().into_iter().map(|ShelfFile { name, size }| (name, size)).collect();
    Ok(Offer { name: held.name.clone(), place, term: held.term, files, format: FORMAT })
}

/// Serves a connection for fetching until the receiver closes it, or asks nothing for so long that its checkpoint may
/// go.
///
/// `unable`: why no checkpoint is to be made: the disk has no room for what it keeps from going, say.
pub async fn serve(
    env: &Env,
    checkpoints: &Checkpoints,
    mut connection: Connection,
    reader: Incarnation,
    unable: impl Fn() -> Option<String>,
) -> io::Result<()> {
    let mut opened: Option<(Arc<Held>, Offer)> = None;
    let ended = exchange(env, checkpoints, &mut connection, reader, unable, &mut opened).await;
    // (Who reads is not who tells how far it is: it says that on a connection of its own.)
    if opened.is_none() {
        checkpoints.note(reader, None);
    }
    // (The last one to let go of a checkpoint removes its files, which may take a while.)
    env.offload(move || drop(opened)).await;
    ended
}

async fn exchange(
    env: &Env,
    checkpoints: &Checkpoints,
    connection: &mut Connection,
    reader: Incarnation,
    unable: impl Fn() -> Option<String>,
    opened: &mut Option<(Arc<Held>, Offer)>,
) -> io::Result<()> {
    loop {
        let asked = env.timeout(limits::CHECKPOINT_KEPT, connection.reader.next()).await;
        let Some(frame) = asked.map_err(|_| silent("the receiver"))?.map_err(io::Error::from)? else { return Ok(()) };
        let answer = match unpack(&frame)? {
            FetchAsk::Open { again, entries } => {
                let held = match again.and_then(|name| checkpoints.again(&name)) {
                    Some(held) => Ok(held),
                    None => match unable() {
                        Some(why) => Err(io::Error::other(why)),
                        None => checkpoints.at_least(entries).await,
                    },
                };
                match held.and_then(|held| offer_of(&held).map(|offer| (held, offer))) {
                    Ok((held, offer)) => {
                        *opened = Some((held, offer.clone()));
                        FetchAnswer::Opened(offer)
                    }
                    Err(why) => FetchAnswer::Failed(why.to_string()),
                }
            }
            FetchAsk::Read { file, offset, length } => match part(checkpoints, opened, file, offset, length).await {
                Ok(bytes) => FetchAnswer::Part { checksum: crc32c::crc32c(&bytes), bytes },
                Err(why) => FetchAnswer::Failed(why.to_string()),
            },
            FetchAsk::Follow(fetched) => {
                // (In this order: what the log has from now on, it keeps. A purge that is under way may still take
                // some; then the receiver is asked to begin again.)
                checkpoints.note(reader, Some(fetched));
                FetchAnswer::Followed { kept: checkpoints.goes_on_from(fetched.entries) }
            }
        };
        connection.send(&answer).await?;
    }
}

async fn part(
    checkpoints: &Checkpoints,
    opened: &Option<(Arc<Held>, Offer)>,
    file: u32,
    offset: u64,
    length: u32,
) -> io::Result<Vec<u8>> {
    let wrong = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why.to_owned());
    let (held, offer) = opened.as_ref().ok_or_else(|| wrong("no checkpoint was opened"))?;
    if checkpoints.again(&held.name).is_none() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the checkpoint is gone"));
    }
    let (name, size) = offer.files.get(file as usize).ok_or_else(|| wrong("the checkpoint has no such file"))?;
    let length = length as usize;
    if length > limits::FETCH_PART || offset.checked_add(length as u64).is_none_or(|end| end > *size) {
        return Err(wrong("the part is too large, or behind the end of the file"));
    }
    checkpoints.read(held, name.clone(), offset, length).await
}

/// A database that has been begun, as its folder has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// The node that it comes from.
    pub source: u64,
    pub offer: Offer,
}

/// A database that was offered, and is to be fetched.
pub struct Offered {
    env: Env,
    incoming: Arc<dyn Incoming>,
    connection: Connection,
    begun: Begun,
    is_new: bool,
}

impl Offered {
    /// Asks node `source` for a database with at least `entries` entries applied: for the one that was begun, if that
    /// has them and is still there.
    pub async fn ask(
        env: &Env,
        incoming: &Arc<dyn Incoming>,
        source: u64,
        mut connection: Connection,
        entries: u64,
    ) -> io::Result<Offered> {
        let reaches = |offer: &Offer| offer.place.index >= entries.saturating_sub(1);
        let before = read_begun(env, incoming).await?.filter(|begun| reaches(&begun.offer));
        let again = before.as_ref().map(|begun| begun.offer.name.clone());
        connection.send(&FetchAsk::Open { again, entries }).await?;
        let offer = match answer(env, &mut connection).await? {
            FetchAnswer::Opened(offer) => offer,
            other => return Err(unexpected(other)),
        };
        if !reaches(&offer) {
            let has = offer.place.index + 1;
            return Err(io::Error::other(format!("the source offers {has} entries, and {entries} are needed")));
        }
        if offer.format != FORMAT {
            let theirs = offer.format;
            let why =
                format!("the source's database is of format {theirs}, and this program knows {FORMAT}: update zrsd");
            return Err(io::Error::other(why));
        }
        let is_new = before.is_none_or(|before| before.offer != offer);
        let (env, incoming, begun) = (env.clone(), incoming.clone(), Begun { source, offer });
        Ok(Offered { env, incoming, connection, begun, is_new })
    }

    pub fn offer(&self) -> &Offer {
        &self.begun.offer
    }

    /// Fetches all of it that is not there, and gives its offer once it is whole and was looked at. `has_room` says
    /// whether so many bytes more may be written; `progress` is told how many bytes are there.
    pub async fn fetch(self, has_room: impl Fn(u64) -> io::Result<()>, progress: impl Fn(u64)) -> io::Result<Offer> {
        let Offered { env, incoming, mut connection, begun, is_new } = self;
        if is_new {
            let (taken, bytes) = (incoming.clone(), pack(&begun));
            env.offload(move || taken.begin(&bytes)).await?;
        }
        let Begun { source, offer } = begun;
        let looked = incoming.clone();
        let whole = env.offload(move || looked.whole()).await?;
        let is_whole = |name: &str, size: u64| whole.iter().any(|file| file.name == name && file.size == size);
        let (total, mut done) = (offer.bytes(), 0);
        for (name, size) in offer.files.iter().filter(|(name, size)| is_whole(name, *size)) {
            tracing::debug!("{name} of {size} bytes is there from before");
            done += size;
        }
        progress(done);
        for (file, (name, size)) in offer.files.iter().enumerate() {
            if is_whole(name, *size) {
                continue;
            }
            has_room(total.saturating_sub(done))?;
            let mut receiving =
                Receiving { env: &env, incoming: &incoming, connection: &mut connection, file: file as u32, name };
            receiving.receive(*size, |bytes| progress(done + bytes)).await?;
            done += size;
        }
        if let Err(why) = check(&env, &incoming, &offer).await {
            if why.kind() == io::ErrorKind::InvalidData {
                // (What is wrong stays wrong: it is not to be looked at again, and again.)
                env.offload(move || incoming.discard()).await?;
            }
            return Err(io::Error::new(why.kind(), format!("the database that node {source} has sent: {why}")));
        }
        Ok(offer)
    }
}

/// Looks at a database that has come as a whole; `InvalidData`: it is not what was offered.
async fn check(env: &Env, incoming: &Arc<dyn Incoming>, offer: &Offer) -> io::Result<()> {
    let wrong = |why: String| Err(io::Error::new(io::ErrorKind::InvalidData, why));
    let looked = incoming.clone();
    let there = env.offload(move || looked.whole()).await?;
    let lacks = |(name, size): &&(String, u64)| !there.iter().any(|file| file.name == *name && file.size == *size);
    if let Some((name, _)) = offer.files.iter().find(lacks) {
        return wrong(format!("{name} has come, and is not there any more"));
    }
    let (position, place) = (read_all(env, incoming).await?, offer.place);
    if position != Position::from(place) {
        return wrong(format!("what was fetched has applied {position:?}, and was offered as {place:?}"));
    }
    Ok(())
}

/// Tells a member how far this node is with the database that it fetches -> whether that member's log goes on from
/// there.
pub async fn follow(env: &Env, connection: &mut Connection, fetched: Fetched) -> io::Result<bool> {
    connection.send(&FetchAsk::Follow(fetched)).await?;
    match answer(env, connection).await? {
        FetchAnswer::Followed { kept } => Ok(kept),
        other => Err(unexpected(other)),
    }
}

/// How many pairs are read at a time: a node that stops meanwhile waits for no more.
const PAIRS: usize = 256;

/// Reads the whole database, and gives its position.
async fn read_all(env: &Env, incoming: &Arc<dyn Incoming>) -> io::Result<Position> {
    let looked = incoming.clone();
    let engine = env.offload(move || looked.open()).await?;
    for table in TABLES {
        let mut from = Vec::new();
        while let Some(next) = {
            let engine = engine.clone();
            env.offload(move || read_some(&*engine, *table, &from)).await?
        } {
            from = next;
        }
    }
    // (Closing it takes a while, too.)
    env.offload(move || position_of(&*engine)).await
}

/// Reads some pairs, and gives the key to go on from.
fn read_some(engine: &dyn Engine, table: Table, from: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut last = None;
    for pair in engine.range(table, from, &[0xff; 32], Order::Ascending).take(PAIRS) {
        last = Some(pair?.0);
    }
    Ok(last.map(|key| [&key[..], &[0]].concat()))
}

/// A file on its way.
struct Receiving<'a> {
    env: &'a Env,
    incoming: &'a Arc<dyn Incoming>,
    connection: &'a mut Connection,
    /// Its place in the offer.
    file: u32,
    name: &'a str,
}

impl Receiving<'_> {
    /// Receives all of the file, which has `size` bytes. `progress` is told how many have come.
    async fn receive(&mut self, size: u64, progress: impl Fn(u64)) -> io::Result<()> {
        // What was asked for and has not come, oldest first.
        let mut awaited: VecDeque<(u64, u32)> = VecDeque::new();
        let (mut asked, mut written) = (0, 0);
        // (An empty file is written all the same.)
        self.write(0, Vec::new()).await?;
        while written < size {
            while asked < size && awaited.len() < limits::FETCH_AHEAD {
                let length = (size - asked).min(limits::FETCH_PART as u64) as u32;
                let ask = FetchAsk::Read { file: self.file, offset: asked, length };
                self.connection.writer.push(&pack(&ask));
                awaited.push_back((asked, length));
                asked += u64::from(length);
            }
            self.connection.writer.flush().await?;
            let (checksum, bytes) = match answer(self.env, self.connection).await? {
                FetchAnswer::Part { checksum, bytes } => (checksum, bytes),
                other => return Err(unexpected(other)),
            };
            let (offset, length) = awaited.pop_front().expect("a part was asked for");
            if bytes.len() != length as usize || crc32c::crc32c(&bytes) != checksum {
                let why = format!("a part of {} at byte {offset} came damaged", self.name);
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            self.write(offset, bytes).await?;
            written += u64::from(length);
            progress(written);
        }
        let (taken, name) = (self.incoming.clone(), self.name.to_owned());
        self.env.offload(move || taken.finish(&name)).await
    }

    async fn write(&self, offset: u64, bytes: Vec<u8>) -> io::Result<()> {
        let (taken, name) = (self.incoming.clone(), self.name.to_owned());
        self.env.offload(move || taken.write(&name, offset, &bytes)).await
    }
}

async fn answer(env: &Env, connection: &mut Connection) -> io::Result<FetchAnswer> {
    let answer = env.timeout(limits::FETCH_SILENCE, connection.receive()).await;
    answer.unwrap_or_else(|_| Err(silent("the source")))
}

/// What has been begun; an offer that can't be read is that of nothing.
pub async fn read_begun(env: &Env, incoming: &Arc<dyn Incoming>) -> io::Result<Option<Begun>> {
    let taken = incoming.clone();
    let bytes = env.offload(move || taken.offer()).await?;
    Ok(bytes.and_then(|bytes| unpack(&bytes).ok()))
}

fn silent(who: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("{who} is silent"))
}

fn unexpected(answer: FetchAnswer) -> io::Error {
    io::Error::other(match answer {
        FetchAnswer::Failed(why) => why,
        FetchAnswer::Opened(_) => "the source answered with an offer instead of a part".into(),
        FetchAnswer::Part { .. } => "the source answered with a part instead of an offer".into(),
        FetchAnswer::Followed { .. } => "the source answered as if it had been told how far this node is".into(),
    })
}

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;
