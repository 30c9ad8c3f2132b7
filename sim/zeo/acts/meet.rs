//! All clients that write meet at one flag at the same moment, each in its part: one checks the flag and keeps the lock
//! for a while, one wants to count it up and is gone before that is over, and one comes to check it, too. Lines before
//! a lock are long only by appointment: on their own, three clients are hardly ever at the same object at once. Counted
//! by commits.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::chance::Chance;
use crate::trace;
use crate::value::Value;
use crate::zeo::act::Act;
use crate::zeo::commit::transact;
use crate::zeo::line::Lost;
use crate::zeo::plan::Plan;
use crate::zeo::session::Session;

pub const MEET: Act = Act {
    name: "zeo_meet",
    reads_only: false,
    pause: 100..200,
    turn: |session, chance| Box::pin(meet(session, chance)),
};

/// How often they meet.
const PERIOD: Duration = Duration::from_millis(1_500);
/// How early a client is there, if it has nothing else to do.
const EARLY: Duration = Duration::from_millis(200);

async fn meet(session: &mut Session, chance: &mut Chance) -> Result<u64, Lost> {
    let now = trace::now();
    let number = now.as_millis() / PERIOD.as_millis() + 1;
    let next = PERIOD * u32::try_from(number).expect("no run lasts for years");
    if now + EARLY < next {
        return Ok(0);
    }
    let part = (session.client.number + number as usize) % 3;
    let comes = next + chance.millis([0..10, 30..90, 60..200][part].clone());
    session.line.listen(session.client.env.now() + comes.saturating_sub(now)).await?;
    let things = session.things();
    let (flag, own) = (things.flags[number as usize % things.flags.len()], things.counters[part]);
    let writes = if part == 1 { flag } else { own };
    let plan = Plan {
        reads: vec![flag, own],
        change: Box::new(move |found, _| match &found[&writes].value {
            Value::Number(number) => BTreeMap::from([(writes, Value::Number(number + 1))]),
            _ => BTreeMap::new(),
        }),
        checks: vec![flag],
        resolves: true,
        patience: (part == 1 && !chance.once_in(4)).then_some(20..200),
        holds: [100..400, 0..50, 0..50][part].clone(),
        ..Plan::default()
    };
    transact(session, chance, &plan).await
}
