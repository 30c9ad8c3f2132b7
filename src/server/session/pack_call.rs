//! The call `pack`.
//!
//! The answer comes when the pack is over; an `info` with the new size goes before it, and to all other clients of the
//! storage. A pack goes on without the client that asked for it.

use std::sync::{Arc, Weak};

use super::desk::{Answer, Desk, Done, End};
use crate::server::counts::Why;
use crate::server::pack::ask::{Wanted, ask};
use crate::zeo::{MessageId, Reply};
use crate::zodb::Refusal;

/// The pack that one client has asked for.
#[derive(Default)]
pub struct PackCall {
    /// Alive while the pack goes on.
    going_on: Weak<()>,
}

impl PackCall {
    /// `pack`
    pub fn pack(&mut self, desk: &mut Desk, id: &MessageId, time: f64, wait: bool) -> Answer {
        if desk.shared.config.read_only {
            return Answer::Refused(Refusal::ReadOnly);
        }
        // Without this bound a client that does not wait could have any number of packs.
        if self.going_on.strong_count() > 0 {
            return Answer::Refused(Refusal::BadValue("already packing".into()));
        }
        let asking = Arc::new(());
        self.going_on = Arc::downgrade(&asking);
        let (storage, name, client) = (desk.storage(), desk.seat.name.clone(), desk.name.clone());
        tracing::info!(%client, storage = %name, time, wait, "a client wants a pack");
        let asked = ask(desk.shared.clone(), Wanted { storage, name, time, client });
        let packing = desk.env().spawn(async move {
            let answer = asked.await;
            drop(asking);
            answer
        });
        if !wait {
            return Answer::Reply(Reply::Nothing);
        }
        let id = id.clone();
        desk.wait(async move { Done::Packed(id, packing.await.unwrap_or(Err(Why::Stopping))) });
        Answer::Later
    }

    /// The pack that the client waits for is over. The error: the outcome of the pack is unknown.
    pub fn packed(
        &mut self,
        desk: &mut Desk,
        id: &MessageId,
        outcome: Result<Result<(), Refusal>, Why>,
    ) -> Result<(), End> {
        match outcome.map_err(End)? {
            Ok(()) => {
                desk.tell_news()?;
                desk.tell_size();
                desk.reply(id, Reply::Nothing);
            }
            Err(refusal) => desk.refuse(id, &refusal),
        }
        Ok(())
    }
}
