//! Takes object ids. Counted by ids.

use crate::chance::Chance;
use crate::zeo::act::Act;
use crate::zeo::line::Lost;
use crate::zeo::session::Session;

pub const TAKE_OIDS: Act = Act {
    name: "zeo_take_oids",
    reads_only: false,
    pause: 200..900,
    turn: |session, chance| Box::pin(take_oids(session, chance)),
};

async fn take_oids(session: &mut Session, chance: &mut Chance) -> Result<u64, Lost> {
    let count = 1 + chance.below(100);
    session.take_oids(count as i64).await?;
    Ok(count)
}
