//! Asks for a blob: that of the current revision, and one that was never stored. Counted by blobs.

use zrs::zeo::{Call, Reply};
use zrs::zodb::Tid;

use crate::chance::Chance;
use crate::zeo::act::Act;
use crate::zeo::line::{Answer, Lost};
use crate::zeo::session::Session;

pub const DOWNLOAD: Act = Act {
    name: "zeo_download",
    reads_only: true,
    pause: 100..600,
    turn: |session, chance| Box::pin(download(session, chance)),
};

async fn download(session: &mut Session, chance: &mut Chance) -> Result<u64, Lost> {
    let file = chance.one_of(&session.things().files);
    let mut snapshot = session.line.told();
    if chance.once_in(4) {
        // A moment of the last seconds: a tid counts the minute's seconds in its lower half.
        snapshot = Tid(snapshot.0.saturating_sub(chance.below(5 << 32) / 60));
    }
    let serial = session.look_back(file, snapshot).await?;
    let serial = if chance.once_in(10) { serial.previous() } else { serial };
    let answer = session.line.call(Call::SendBlob { oid: file, serial }).await?;
    Ok(u64::from(matches!(answer, Answer::Reply(Reply::Nothing))))
}
