//! A session: a client with a connection. Reads are those of Python's client: as of one tid for a whole transaction,
//! from the cache where it knows, else from the server.

use std::collections::BTreeMap;
use std::rc::Rc;

use zrs::zeo::{Call, MessageId, Reply};
use zrs::zodb::{Oid, Tid};

use super::client::Client;
use super::line::{Answer, Line, Lost};
use super::plan::Read;
use crate::history::{Reached, Shown};
use crate::things::Things;
use crate::value::{Found, Value, read};

/// A client with a connection.
pub struct Session {
    pub client: Rc<Client>,
    pub line: Line,
    /// Object ids of this client that no object has yet.
    pub oids: Vec<Oid>,
    /// Transactions that were begun on this connection.
    pub begun: u64,
}

impl Session {
    /// The objects that all clients share; none before the first client has created them.
    pub fn things(&self) -> Things {
        self.client.history.look().things.clone()
    }

    /// Reads objects as of `snapshot`, which the client was told of.
    pub async fn read_all(&mut self, oids: &[Oid], snapshot: Tid) -> Result<BTreeMap<Oid, Read>, Lost> {
        let (mut all, mut asked): (BTreeMap<Oid, Read>, Vec<(Oid, MessageId)>) = Default::default();
        for oid in oids.iter().copied() {
            let cached = self.line.cache.borrow().get(oid).filter(|(serial, _)| *serial <= snapshot).cloned();
            match cached {
                Some((serial, found)) => {
                    all.insert(oid, Read { value: found.0.clone(), serial });
                    self.shown(snapshot, oid, Some(found), true, false);
                }
                None if asked.iter().all(|(other, _)| *other != oid) => {
                    asked.push((oid, self.line.ask(Call::LoadBefore { oid, tid: snapshot.next() }, None)));
                }
                None => {}
            }
        }
        for (oid, id) in asked {
            let (serial, found) = loaded(self.line.answer(&id).await?);
            let value = found.as_ref().map_or(Value::Gone, |(value, _)| value.clone());
            all.insert(oid, Read { value, serial });
            self.shown(snapshot, oid, found, false, false);
        }
        Ok(all)
    }

    /// Reads an object as it was at an older tid.
    pub async fn look_back(&mut self, oid: Oid, snapshot: Tid) -> Result<Tid, Lost> {
        let (serial, found) = loaded(self.line.call(Call::LoadBefore { oid, tid: snapshot.next() }).await?);
        self.shown(snapshot, oid, found, false, true);
        Ok(serial)
    }

    /// The revision of exactly this serial.
    pub async fn serial(&mut self, oid: Oid, tid: Tid) -> Result<Value, Lost> {
        match self.line.call(Call::LoadSerial { oid, tid }).await? {
            Answer::Reply(Reply::Data(data)) => Ok(read(&data).map_or(Value::Gone, |(value, _)| value)),
            // The revision says that the object was deleted.
            _ => Ok(Value::Gone),
        }
    }

    /// An object id that no object has.
    pub async fn new_oid(&mut self) -> Result<Oid, Lost> {
        if self.oids.is_empty() {
            self.take_oids(20).await?;
        }
        Ok(self.oids.pop().expect("the server gives as many ids as it is asked for"))
    }

    /// Takes object ids from the server.
    pub async fn take_oids(&mut self, count: i64) -> Result<(), Lost> {
        match self.line.call(Call::NewOids(count)).await? {
            Answer::Reply(Reply::Oids(oids)) if oids.len() as i64 == count => {
                let number = self.client.number;
                self.client.history.look().oids.extend(oids.iter().map(|oid| (number, *oid)));
                self.oids.extend(oids);
                Ok(())
            }
            other => panic!("new_oids({count}) was answered with {other:?}"),
        }
    }

    /// Pings: then the client was told of every commit that any client was answered before.
    pub async fn ping(&mut self) -> Result<(), Lost> {
        let at_least = self.client.history.look().answered;
        self.line.call(Call::Ping).await?;
        let (client, view, why) = (self.client.number, self.line.told(), "it pinged after that was answered");
        self.client.history.look().reached.push(Reached { client, view, at_least, why });
        Ok(())
    }

    fn shown(&self, snapshot: Tid, oid: Oid, found: Option<Found>, cached: bool, historical: bool) {
        let client = self.client.number;
        self.client.history.look().shown.push(Shown { client, snapshot, oid, found, historical, cached });
    }
}

/// The serial, and what was found; zero and nothing if there was no object.
fn loaded(answer: Answer) -> (Tid, Option<Found>) {
    match answer {
        Answer::Reply(Reply::Loaded { data, tid, .. }) => (tid, read(&data)),
        _ => (Tid::ZERO, None),
    }
}
