//! Pings: after that, the client was told of every commit that any client was answered before. Counted by pings.

use zrs::zeo::Call;

use crate::chance::Chance;
use crate::zeo::act::Act;
use crate::zeo::line::Lost;
use crate::zeo::session::Session;

pub const PING: Act = Act {
    name: "zeo_ping",
    reads_only: true,
    pause: 100..500,
    turn: |session, chance| Box::pin(ping(session, chance)),
};

async fn ping(session: &mut Session, chance: &mut Chance) -> Result<u64, Lost> {
    session.ping().await?;
    if chance.once_in(2) {
        session.line.call(Call::LastTransaction).await?;
    }
    Ok(1)
}
