//! Reads objects as they were some time ago (`loadBefore` with an older tid), and single revisions (`loadSerial`).
//! Counted by objects read.

use zrs::zodb::Tid;

use super::some_of;
use crate::chance::Chance;
use crate::zeo::act::Act;
use crate::zeo::line::Lost;
use crate::zeo::session::Session;

pub const LOOK_BACK: Act = Act {
    name: "zeo_look_back",
    reads_only: true,
    pause: 60..300,
    turn: |session, chance| Box::pin(look_back(session, chance)),
};

async fn look_back(session: &mut Session, chance: &mut Chance) -> Result<u64, Lost> {
    // A moment of the last seconds: a tid counts the minute's seconds in its lower half.
    let snapshot = Tid(session.line.told().0.saturating_sub(chance.below(5 << 32) / 60));
    let oids = some_of(&session.things().all(), chance);
    for oid in &oids {
        let serial = session.look_back(*oid, snapshot).await?;
        // That revision again, and one that no transaction has written.
        session.serial(*oid, serial).await?;
        session.serial(*oid, serial.previous()).await?;
    }
    Ok(oids.len() as u64)
}
