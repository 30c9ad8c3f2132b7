//! **A pack is done when it is answered.** A client that is told that its pack is over finds no older revisions than
//! those current at its time, at the node that it has asked; and no pack goes beyond the time that somebody has asked
//! for, nor is one refused while every object that is referred to exists. (docs/operations.md: packing)

use std::time::Duration;

use crate::history::Record;
use crate::model::Model;
use crate::packed::Manner;
use crate::packs::{Asked, Pack};
use crate::seen;

pub const ASKED: &str = "packs_are_done: answered";
pub const CARRIED_OUT: &str = "packs_are_done: carried out";
pub const REFUSED: &str = "packs_are_done: refused";

/// How much later the simulation sees what a node has applied.
const SEEN: Duration = Duration::from_millis(1);

/// What may be told of a pack that is not done.
const EXCUSES: [&str; 3] = ["already packing", "a pack is going on already", "there is no primary"];

pub fn check(record: &Record, model: &Model, packs: &[Pack], manner: Manner) -> Result<(), String> {
    for pack in packs {
        seen::check(CARRIED_OUT, 1);
        let reaches = |asked: &Asked| asked.latest >= pack.upto && asked.began <= pack.began;
        if !record.packs.iter().any(reaches) {
            return Err(format!("packs_are_done: nobody has asked for {pack:?}"));
        }
    }
    for asked in &record.packs {
        match &asked.answer {
            None => {}
            Some((at, Ok(()))) => {
                seen::check(ASKED, 1);
                done(model, packs, asked, *at)?;
            }
            Some((_, Err(why))) => {
                seen::check(REFUSED, 1);
                let empty = why.contains("nothing to pack up to that time");
                if !manner.may_fail && !empty && !EXCUSES.iter().any(|excuse| why.contains(excuse)) {
                    return Err(format!("packs_are_done: refused: {asked:?}"));
                }
            }
        }
    }
    Ok(())
}

/// Some pack that was over by then has reached the time asked for, unless there was nothing to remove.
fn done(model: &Model, packs: &[Pack], asked: &Asked, at: Duration) -> Result<(), String> {
    let upto = asked.upto.min(asked.answered);
    let reached = packs.iter().filter(|pack| pack.ended.is_some_and(|ended| ended <= at)).map(|pack| pack.upto).max();
    if reached.is_some_and(|reached| reached >= upto) {
        let there = |pack: &Pack, node| pack.ended_at.get(&node).is_some_and(|ended| *ended <= at + SEEN);
        if let Some(node) = asked.node
            && !packs.iter().any(|pack| pack.upto >= upto && there(pack, node))
        {
            return Err(format!("packs_are_done: {asked:?} was answered, but none had ended there: {packs:?}"));
        }
        return Ok(());
    }
    let from = reached.unwrap_or_default();
    // Nothing was committed between the two: then a pack up to the later one has nothing to do.
    match model.transactions.range(from.next()..=upto).next() {
        None => Ok(()),
        Some((tid, _)) => Err(format!(
            "packs_are_done: {asked:?} was answered, but packs had come to {from} only, and {tid} is younger"
        )),
    }
}
