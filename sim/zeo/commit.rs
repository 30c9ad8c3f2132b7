//! A transaction as Python's client commits it, with the ways in which applications and hosts misbehave.
//!
//! ```text
//!   tpc_begin, storea …, deleteObject …, undoa …, checkCurrentSerial …
//!   vote ──► conflicts ──► loadSerial (theirs, old), storea … and vote again, under the locks      up to VOTES times
//!        └─► a conflict that can't be resolved ──► tpc_abort ──► all anew from a newer snapshot    up to TRIES times
//!   voted ──► tpc_finish
//! ```
//!
//! Meanwhile, by chance: loads beside a vote or a finish that waits, as by other threads; an abort after the vote, or
//! instead of a resolution; a client that is gone while it votes, resolves, or has voted, or as soon as it has sent its
//! finish; one that takes its time with the locks in hand, or for ever.

use std::collections::BTreeMap;

use bytes::Bytes;
use zrs::zeo::{Call, MessageId, Reply, StoreConflict, undo_id};
use zrs::zodb::{Conflict, Oid, Refusal, Tid};

use super::line::{Answer, Lost};
use super::plan::{Plan, Read, merge};
use super::session::Session;
use crate::chance::Chance;
use crate::history::{End, GiveUp, Manner, Reached, TRIES};
use crate::trace;
use crate::value::{Value, blob, read, record};

/// How many times a client votes on a transaction whose conflicts it resolves. (Python's does nine times.)
const VOTES: u32 = 9;

/// A transaction on its way.
struct Draft<'a> {
    plan: &'a Plan,
    mark: u64,
    /// The client's number for the transaction, the address of a Python object.
    txn: u64,
    /// The serial that each write is based on, and the state.
    writes: BTreeMap<Oid, (Tid, Value)>,
    checks: BTreeMap<Oid, Tid>,
    padding: usize,
    /// The finish was sent.
    is_finishing: bool,
}

/// Does a transaction, and after a conflict does it again, so many times in all. Gives how many have committed.
pub async fn transact(session: &mut Session, chance: &mut Chance, plan: &Plan) -> Result<u64, Lost> {
    let mut marks = Vec::new();
    while marks.len() < TRIES {
        let Some((mark, end)) = attempt(session, chance, plan).await? else { return Ok(0) };
        match end {
            End::Committed(_) => return Ok(1),
            End::Conflict(_) => marks.push(mark),
            End::NotCommitted(_) | End::Unknown => return Ok(0),
        }
    }
    let client = session.client.number;
    session.client.history.look().give_ups.push(GiveUp { client, marks });
    Ok(0)
}

/// One attempt. Gives its mark and its end; `None`: there was nothing to do.
async fn attempt(session: &mut Session, chance: &mut Chance, plan: &Plan) -> Result<Option<(u64, End)>, Lost> {
    let snapshot = session.line.told();
    let found = session.read_all(&plan.reads, snapshot).await?;
    let thinks = if plan.lingers && chance.once_in(3) { 20..250 } else { 0..20 };
    session.client.env.sleep(chance.millis(thinks)).await;
    let mark = session.client.history.look().attempts.len() as u64;
    let writes = (plan.change)(&found, mark);
    if writes.is_empty() && plan.undoes.is_empty() {
        return Ok(None);
    }
    let mut draft = begin(session, chance, plan, snapshot, &found, writes);
    if plan.leaves_a_part && chance.once_in(2) {
        session.line.flush().await?;
        session.client.env.sleep(chance.millis(1..100)).await;
        session.client.history.ends(draft.mark, End::NotCommitted("it left before it voted".to_owned()));
        return Err(Lost("it left before it voted".to_owned()));
    }
    let end = match dialogue(session, chance, &mut draft).await {
        Ok(end) => end,
        Err(Lost(why)) => {
            let end = if draft.is_finishing { End::Unknown } else { End::NotCommitted(why.clone()) };
            session.client.history.ends(draft.mark, end);
            return Err(Lost(why));
        }
    };
    session.client.history.ends(draft.mark, end.clone());
    if let End::Committed(Some(at_least)) = end {
        let (client, view) = (session.client.number, session.line.told());
        let why = "it committed that itself";
        session.client.history.look().reached.push(Reached { client, view, at_least, why });
    }
    Ok(Some((draft.mark, end)))
}

/// Sends everything up to the vote.
fn begin<'a>(
    session: &mut Session,
    chance: &mut Chance,
    plan: &'a Plan,
    snapshot: Tid,
    found: &BTreeMap<Oid, Read>,
    writes: BTreeMap<Oid, Value>,
) -> Draft<'a> {
    let history = &session.client.history;
    let mark = history.begins(session.client.number, snapshot, |_| writes.clone());
    let base = |oid: &Oid| found.get(oid).map_or(Tid::ZERO, |read| read.serial);
    let writes: BTreeMap<Oid, (Tid, Value)> =
        writes.into_iter().map(|(oid, value)| (oid, (base(&oid), value))).collect();
    let checks: BTreeMap<Oid, Tid> =
        plan.checks.iter().filter(|oid| !writes.contains_key(oid)).map(|oid| (*oid, base(oid))).collect();
    session.begun += 1;
    let txn = 0x7f3a_0000_0000 + 48 * session.begun;
    let padding = if chance.once_in(10) { chance.below(20_000) as usize } else { 20 };
    let draft = Draft { plan, mark, txn, writes, checks, padding, is_finishing: false };
    history.note(mark, |attempt| {
        attempt.bases = draft.bases();
        attempt.checks = draft.checks.clone();
        attempt.may_be_undone = plan.may_be_undone;
        attempt.undoes.clone_from(&plan.undoes);
        attempt.touches.clone_from(&plan.touches);
        attempt.stream = Some(session.line.stream);
    });
    let (user, description) = (Bytes::from_static(b"somebody"), mark.to_string().into());
    let begin = Call::TpcBegin { txn, user, description, extension: Bytes::new(), tid: None, status: b' ' };
    session.line.tell(&begin);
    for oid in draft.writes.keys() {
        draft.write(*oid, chance).iter().for_each(|call| session.line.tell(call));
    }
    if plan.leaves_a_part {
        // (Of a blob that has no end nobody will ask for.)
        session.line.tell(&Call::StoreBlobStart);
        session.line.tell(&Call::StoreBlobChunk(blob(mark, 3_000)));
    }
    for tid in &plan.undoes {
        session.line.tell(&Call::UndoA { id: undo_id(*tid).into(), txn });
    }
    for (oid, serial) in &draft.checks {
        session.line.tell(&Call::CheckCurrentSerial { oid: *oid, serial: *serial, txn });
    }
    draft
}

impl Draft<'_> {
    fn bases(&self) -> BTreeMap<Oid, Tid> {
        self.writes.iter().map(|(oid, (base, _))| (*oid, *base)).collect()
    }

    /// The calls that write an object.
    fn write(&self, oid: Oid, chance: &mut Chance) -> Vec<Call> {
        let (serial, value) = &self.writes[&oid];
        let (serial, txn) = (*serial, self.txn);
        if *value == Value::Gone {
            return vec![Call::DeleteObject { oid, serial, txn }];
        }
        let data = record(value, self.mark, self.padding);
        let Value::Blob(length) = value else { return vec![Call::StoreA { oid, serial: Some(serial), data, txn }] };
        let (mut calls, mut bytes) = (vec![Call::StoreBlobStart], blob(self.mark, *length));
        while !bytes.is_empty() {
            let part = 1 + chance.below(bytes.len() as u64) as usize;
            calls.push(Call::StoreBlobChunk(bytes.split_to(part)));
        }
        calls.push(Call::StoreBlobEnd { oid, serial: Some(serial), data, txn });
        calls
    }
}

/// Votes, until there are no conflicts left, and finishes.
async fn dialogue(session: &mut Session, chance: &mut Chance, draft: &mut Draft<'_>) -> Result<End, Lost> {
    for vote in 1.. {
        let id = session.line.ask(Call::Vote(draft.txn), Some((draft.mark, draft.bases())));
        if chance.once_in(if draft.plan.is_moody { 10 } else { 150 }) {
            session.line.flush().await?;
            return Err(Lost("it left while it voted".to_owned()));
        }
        let asked = trace::now();
        if let Some(patience) = &draft.plan.patience {
            session.line.listen(session.client.env.now() + chance.millis(patience.clone())).await?;
            if !session.line.is_answered(&id) {
                return Err(Lost("it lost its patience while it voted".to_owned()));
            }
        }
        if chance.once_in(4) {
            glance(session, chance, draft, &id).await?;
        }
        let answer = session.line.answer(&id).await;
        // (One that is never answered, too.)
        session.client.history.note(draft.mark, |attempt| attempt.votes.push((asked, trace::now())));
        match answer? {
            Answer::Reply(Reply::Conflicts(conflicts)) => {
                let told = conflicts.iter().map(conflict).collect();
                if !draft.plan.resolves || vote == VOTES || chance.once_in(15) {
                    return abort(session, draft, End::Conflict(told)).await;
                }
                for told in conflicts {
                    let unresolved = conflict(&told);
                    if !resolve(session, chance, draft, told).await? {
                        // (Those before it are resolved: they are based on the newer state now.)
                        return abort(session, draft, End::Conflict(vec![unresolved])).await;
                    }
                }
                if chance.once_in(60) {
                    return Err(Lost("it left instead of voting again".to_owned()));
                }
                if chance.once_in(8) {
                    session.client.env.sleep(chance.millis(1..300)).await;
                }
                if draft.plan.adds && chance.once_in(2) {
                    add(session, chance, draft).await?;
                }
            }
            Answer::Reply(_) => return voted(session, chance, draft).await,
            Answer::Refused(Refusal::Conflict(conflict) | Refusal::ReadConflict(conflict)) => {
                return abort(session, draft, End::Conflict(vec![conflict])).await;
            }
            Answer::Refused(refusal) => {
                return abort(session, draft, End::NotCommitted(refusal.to_string())).await;
            }
        }
    }
    unreachable!("the last vote is answered")
}

fn conflict(told: &StoreConflict) -> Conflict {
    Conflict { oid: told.oid, committed: told.committed, read: told.read }
}

/// Loads, again and again, beside a call that waits: the objects that are written, and any other.
async fn glance(session: &mut Session, chance: &mut Chance, draft: &Draft<'_>, waits: &MessageId) -> Result<(), Lost> {
    let mut oids: Vec<Oid> = draft.writes.keys().copied().collect();
    oids.push(chance.one_of(&session.things().all()));
    for _ in 0..1 + chance.below(12) {
        let told = session.line.told();
        let before = chance.one_of(&[Tid::MAX, told.next(), told]);
        oids.iter().for_each(|oid| session.line.glance(*oid, before));
        session.line.listen(session.client.env.now() + chance.millis(1..6)).await?;
        if session.line.is_answered(waits) {
            break;
        }
    }
    Ok(())
}

async fn abort(session: &mut Session, draft: &Draft<'_>, end: End) -> Result<End, Lost> {
    session.line.call(Call::TpcAbort(draft.txn)).await?;
    Ok(end)
}

/// Resolves a conflict, as `ClientStorage.tpc_vote` does, and stores the result. `false`: it gives up, as Python does
/// if the state that it had read is not there any more.
async fn resolve(
    session: &mut Session,
    chance: &mut Chance,
    draft: &mut Draft<'_>,
    conflict: StoreConflict,
) -> Result<bool, Lost> {
    let StoreConflict { oid, committed, read: base, data } = conflict;
    let wanted = draft.writes[&oid].1.clone();
    let sent = read(&data);
    assert_eq!(sent, Some((wanted.clone(), draft.mark)), "a conflict comes with the data that the client had sent");
    let theirs = session.serial(oid, committed).await?;
    let old = if base == Tid::ZERO { Value::Gone } else { session.serial(oid, base).await? };
    if base != Tid::ZERO && old == Value::Gone {
        // (The object was deleted then, or a pack has removed what the client had read.)
        return Ok(false);
    }
    let value = merge(&old, &theirs, &wanted, draft.mark);
    write(session, chance, draft, oid, committed, value);
    session.client.history.note(draft.mark, |attempt| attempt.resolved += 1);
    Ok(true)
}

/// Adds objects that did not stand in the first vote: a new one, or a counter; or one that was only checked so far.
async fn add(session: &mut Session, chance: &mut Chance, draft: &mut Draft<'_>) -> Result<(), Lost> {
    if chance.once_in(3) {
        let oid = session.new_oid().await?;
        let value = Value::Number(draft.mark);
        write(session, chance, draft, oid, Tid::ZERO, value);
        return Ok(());
    }
    let checked = draft.checks.keys().next().filter(|_| !chance.once_in(4)).copied();
    let (oid, snapshot) = (checked.unwrap_or(chance.one_of(&session.things().counters)), session.line.told());
    if let Some(Read { value: Value::Number(number), serial }) = session.read_all(&[oid], snapshot).await?.remove(&oid)
        && !draft.writes.contains_key(&oid)
    {
        write(session, chance, draft, oid, serial, Value::Number(number + 1));
    }
    Ok(())
}

fn write(session: &mut Session, chance: &mut Chance, draft: &mut Draft<'_>, oid: Oid, base: Tid, value: Value) {
    session.client.history.note(draft.mark, |attempt| {
        attempt.bases.insert(oid, base);
        attempt.writes.insert(oid, value.clone());
    });
    draft.writes.insert(oid, (base, value));
    draft.write(oid, chance).iter().for_each(|call| session.line.tell(call));
}

/// The locks are held.
async fn voted(session: &mut Session, chance: &mut Chance, draft: &mut Draft<'_>) -> Result<End, Lost> {
    let (env, history) = (session.client.env.clone(), session.client.history.clone());
    let is_calm = history.look().is_calm;
    let mut manner = match history.look().primary {
        Some(primary) if primary == session.line.node => Manner::Waits,
        _ => Manner::Risks,
    };
    match chance.below(100) {
        0..4 => return abort(session, draft, End::NotCommitted("it was aborted after its vote".to_owned())).await,
        4..6 => return Err(Lost("it left after its vote".to_owned())),
        // (Once the faults are over, all are to get on: nobody sleeps on the locks.)
        6 if !is_calm && chance.once_in(3) => {
            env.sleep(chance.millis(4_000..7_000)).await;
            return Err(Lost("it fell asleep after its vote".to_owned()));
        }
        7..13 => {
            env.sleep(chance.millis(20..900)).await;
            manner = Manner::Risks;
        }
        _ => {}
    }
    if !draft.plan.holds.is_empty() {
        env.sleep(chance.millis(draft.plan.holds.clone())).await;
        manner = Manner::Risks;
    }
    if draft.plan.lingers && chance.once_in(3) {
        // (What others do under locks that are not enough has to come in between.)
        env.sleep(chance.millis(10..200)).await;
    }
    let leaves = chance.once_in(60);
    if leaves {
        manner = Manner::Leaves;
    }
    history.note(draft.mark, |attempt| attempt.manner = manner);
    draft.is_finishing = true;
    let id = session.line.ask(Call::TpcFinish(draft.txn), Some((draft.mark, draft.bases())));
    session.line.flush().await?;
    if leaves {
        return Err(Lost("it left while it finished".to_owned()));
    }
    if chance.once_in(3) {
        glance(session, chance, draft, &id).await?;
    }
    Ok(match session.line.answer(&id).await? {
        Answer::Reply(Reply::Tid(tid)) => End::Committed(Some(tid)),
        other => End::NotCommitted(format!("its finish was answered with {other:?}")),
    })
}
