//! **A pack ends although primaries die**: the next primary goes on with it. Within a bounded time after the last fault
//! no pack goes on that was begun before. (docs/storage.md, `src/server/pack`)

use std::time::Duration;

use crate::packs::Packs;

/// The pack that should be over by now.
pub fn missing(packs: &Packs, since: Duration) -> Option<String> {
    let pack = packs.going_on().filter(|pack| pack.began <= since)?;
    Some(format!("the pack up to {}, begun at {:?}, goes on", pack.upto, pack.began))
}
