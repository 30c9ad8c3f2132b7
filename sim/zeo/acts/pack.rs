//! Packs: up to now, to some moment of the last seconds, to one before everything, or to one that is still to come; and
//! waits for the end, or not, or is gone. Beside it, the client cuts objects off, or grafts on again what is about to
//! go. Counted by packs that were answered.

use zrs::zeo::Call;
use zrs::zodb::Tid;

use super::cut::cut;
use super::graft::graft;
use crate::chance::Chance;
use crate::packs::Asked;
use crate::trace;
use crate::zeo::act::Act;
use crate::zeo::line::{Answer, Lost};
use crate::zeo::session::Session;

pub const PACK: Act = Act {
    name: "zeo_pack",
    reads_only: true,
    pause: 300..4_000,
    turn: |session, chance| Box::pin(pack(session, chance)),
};

/// A second, in the lower half of a tid.
const SECOND: u64 = (1 << 32) / 60;

async fn pack(session: &mut Session, chance: &mut Chance) -> Result<u64, Lost> {
    // (Who only reads commits nothing.)
    let at_work = !session.client.read_only && !chance.once_in(3);
    for _ in 0..if at_work { 1 + chance.below(3) } else { 0 } {
        cut(session, chance, false).await?;
    }
    // The transaction at the pack time is then one that wrote garbage, which comes again at once.
    let aims = at_work && chance.once_in(2) && cut(session, chance, true).await? > 0;
    let (told, client, history) = (session.line.told(), session.client.number, session.client.history.clone());
    let node = session.client.read_only.then_some(session.line.node);
    let upto = match chance.below(12) {
        _ if aims => Tid(told.0 + (60 << 32)),
        0 => Tid(told.0.saturating_sub(60 << 32)),
        1..4 => Tid(told.0 + (60 << 32)),
        4..7 => Tid(told.0.saturating_sub(chance.below(6 * SECOND))),
        _ => told,
    };
    // (Not before the tid, whichever way it is rounded.)
    let (time, latest) = (upto.unix_seconds() + 0.000_5, Tid(upto.0 + SECOND / 1_000));
    let number = {
        let mut record = history.look();
        let answered = record.answered;
        record.packs.push(Asked { client, node, upto, latest, answered, began: trace::now(), answer: None });
        record.packs.len() - 1
    };
    let (wait, leaves) = (!chance.once_in(4), chance.once_in(15));
    let id = session.line.ask(Call::Pack { time, wait }, None);
    if leaves {
        session.line.flush().await?;
        return Err(Lost("it left while it packed".to_owned()));
    }
    for _ in 0..if at_work { chance.below(8) } else { 0 } {
        session.line.listen(session.client.env.now() + chance.millis(if aims { 0..3 } else { 0..12 })).await?;
        if session.line.is_answered(&id) {
            break;
        }
        graft(session, chance, aims).await?;
    }
    let answer = session.line.answer(&id).await?;
    if !wait {
        return Ok(0);
    }
    let answer = match answer {
        Answer::Reply(_) => Ok(()),
        Answer::Refused(why) => Err(why.to_string()),
    };
    let done = u64::from(answer.is_ok());
    history.look().packs[number].answer = Some((trace::now(), answer));
    Ok(done)
}
