//! Reads all objects in one transaction, from the cache where it knows. Counted by objects read.

use zrs::zodb::Tid;

use crate::chance::Chance;
use crate::zeo::act::Act;
use crate::zeo::line::Lost;
use crate::zeo::session::Session;

pub const LOOK: Act =
    Act { name: "zeo_look", reads_only: true, pause: 30..200, turn: |session, chance| Box::pin(look(session, chance)) };

async fn look(session: &mut Session, chance: &mut Chance) -> Result<u64, Lost> {
    let oids = session.things().all();
    if chance.once_in(4) {
        // Other threads load at the same time.
        oids.iter().for_each(|oid| session.line.glance(*oid, Tid::MAX));
    }
    let snapshot = session.line.told();
    let found = session.read_all(&oids, snapshot).await?;
    Ok(found.len() as u64)
}
