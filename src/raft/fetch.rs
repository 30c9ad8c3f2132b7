//! A database on its way from one node to another: the messages on a connection for `Purpose::Fetch`, and both ends.
//!
//! ```text
//! receiver                                      source
//!   Open { again, entries }          ────►        the checkpoint of that name, or a new one
//!        ◄────  Opened { name, place, files }
//!   Read { file, offset, length }    ────►        [`AHEAD`] of them at a time
//!        ◄────  Part { checksum, bytes }
//! ```
//!
//! The receiver writes file by file, and goes on with the first file that is not whole when it comes back for the same
//! checkpoint. Both ends hold a few parts in memory, whatever the size of the database.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::checkpoints::{Checkpoints, Held};
use super::link::Connection;
use super::types::Place;
use crate::config::limits;
use crate::engine::{Incoming, ShelfFile};
use crate::env::Env;
use crate::storage::{Position, position_of};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FetchAsk {
    /// Asks for a checkpoint: the one that was begun, if it is still there, or one that has so many entries applied.
    Open {
        again: Option<String>,
        entries: u64,
    },
    Read {
        file: u32,
        offset: u64,
        length: u32,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FetchAnswer {
    Opened(Offer),
    Part {
        /// CRC-32C of the bytes.
        checksum: u32,
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    Failed(String),
}

/// What a checkpoint is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    pub name: String,
    /// The last entry that it has applied.
    pub place: Place,
    /// Names and bytes.
    pub files: Vec<(String, u64)>,
}

impl Offer {
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, size)| size).sum()
    }

    fn of(held: &Held) -> io::Result<Offer> {
        let place = Place::of(held.position).ok_or_else(|| io::Error::other("the database is empty"))?;
        let files = held.files().into_iter().map(|ShelfFile { name, size }| (name, size)).collect();
        Ok(Offer { name: held.name.clone(), place, files })
    }
}

/// Serves a connection for fetching until the receiver closes it.
pub async fn serve(checkpoints: &Checkpoints, mut connection: Connection) -> io::Result<()> {
    let mut opened: Option<(Arc<Held>, Offer)> = None;
    loop {
        let Some(frame) = connection.reader.next().await.map_err(io::Error::from)? else { return Ok(()) };
        let answer = match super::wire::unpack(&frame)? {
            FetchAsk::Open { again, entries } => {
                let again = again.and_then(|name| checkpoints.again(&name));
                let held = match again {
                    Some(held) => Ok(held),
                    None => checkpoints.at_least(entries).await,
                };
                match held.and_then(|held| Offer::of(&held).map(|offer| (held, offer))) {
                    Ok((held, offer)) => {
                        opened = Some((held, offer.clone()));
                        FetchAnswer::Opened(offer)
                    }
                    Err(why) => FetchAnswer::Failed(why.to_string()),
                }
            }
            FetchAsk::Read { file, offset, length } => match part(checkpoints, &opened, file, offset, length).await {
                Ok(bytes) => FetchAnswer::Part { checksum: crc32c::crc32c(&bytes), bytes },
                Err(why) => FetchAnswer::Failed(why.to_string()),
            },
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
    let (name, size) = offer.files.get(file as usize).ok_or_else(|| wrong("the checkpoint has no such file"))?;
    let length = length as usize;
    if length > limits::FETCH_PART || offset.checked_add(length as u64).is_none_or(|end| end > *size) {
        return Err(wrong("the part is too large, or behind the end of the file"));
    }
    checkpoints.read(held, name.clone(), offset, length).await
}

/// Fetches a database with at least `entries` entries applied, goes on with the one that was begun if that has them,
/// and gives its position once it is whole and was looked at. `progress` is told how many bytes of how many are there.
pub async fn fetch(
    env: &Env,
    incoming: Arc<dyn Incoming>,
    mut connection: Connection,
    entries: u64,
    progress: impl Fn(&Offer, u64),
) -> io::Result<Position> {
    let begun = read_offer(env, &incoming).await?.filter(|offer| offer.place.index >= entries);
    connection.send(&FetchAsk::Open { again: begun.as_ref().map(|offer| offer.name.clone()), entries }).await?;
    let offer = match connection.receive().await? {
        FetchAnswer::Opened(offer) => offer,
        other => return Err(unexpected(other)),
    };
    if begun.as_ref() != Some(&offer) {
        let (taken, bytes) = (incoming.clone(), super::wire::pack(&offer));
        env.offload(move || taken.begin(&bytes)).await?;
    }
    let looked = incoming.clone();
    let whole = env.offload(move || looked.whole()).await?;
    let is_whole = |name: &str, size: u64| whole.iter().any(|file| file.name == name && file.size == size);
    let mut done: u64 = whole.iter().map(|file| file.size).sum();
    progress(&offer, done);
    for (file, (name, size)) in offer.files.iter().enumerate() {
        if is_whole(name, *size) {
            continue;
        }
        // What was asked for and has not come, oldest first.
        let mut awaited: VecDeque<(u64, u32)> = VecDeque::new();
        let (mut asked, mut written) = (0, 0);
        // (An empty file is written all the same.)
        let first = incoming.clone();
        let named = name.clone();
        env.offload(move || first.write(&named, 0, &[])).await?;
        while written < *size {
            while asked < *size && awaited.len() < limits::FETCH_AHEAD {
                let length = (*size - asked).min(limits::FETCH_PART as u64) as u32;
                connection.writer.push(&super::wire::pack(&FetchAsk::Read {
                    file: file as u32,
                    offset: asked,
                    length,
                }));
                awaited.push_back((asked, length));
                asked += u64::from(length);
            }
            connection.writer.flush().await?;
            let answer = env.timeout(limits::PEER_CALL_TIMEOUT, connection.receive()).await;
            let answer =
                answer.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "the source is silent")))?;
            let FetchAnswer::Part { checksum, bytes } = answer else { return Err(unexpected(answer)) };
            let (offset, length) = awaited.pop_front().expect("a part was asked for");
            if bytes.len() != length as usize || crc32c::crc32c(&bytes) != checksum {
                let why = format!("a part of {name} at byte {offset} came damaged");
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            let (taken, named) = (incoming.clone(), name.clone());
            env.offload(move || taken.write(&named, offset, &bytes)).await?;
            written += u64::from(length);
            done += u64::from(length);
            progress(&offer, done);
        }
        let (taken, named) = (incoming.clone(), name.clone());
        env.offload(move || taken.finish(&named)).await?;
    }
    let looked = incoming.clone();
    let position = env.offload(move || position_of(&*looked.open()?)).await?;
    if position != Position::from(offer.place) {
        let place = offer.place;
        let why = format!("what was fetched has applied {position:?}, and was offered as {place:?}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    Ok(position)
}

/// The offer of what is there; one that can't be read is that of nothing.
async fn read_offer(env: &Env, incoming: &Arc<dyn Incoming>) -> io::Result<Option<Offer>> {
    let taken = incoming.clone();
    let bytes = env.offload(move || taken.offer()).await?;
    Ok(bytes.and_then(|bytes| super::wire::unpack(&bytes).ok()))
}

fn unexpected(answer: FetchAnswer) -> io::Error {
    io::Error::other(match answer {
        FetchAnswer::Failed(why) => why,
        FetchAnswer::Opened(_) => "the source answered with an offer instead of a part".into(),
        FetchAnswer::Part { .. } => "the source answered with a part instead of an offer".into(),
    })
}
