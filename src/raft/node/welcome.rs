//! Lets a node in that comes with an empty folder: a new one, or one that has lost its disk.

use std::sync::Arc;

use super::inner::{Inner, Role};
use super::steward;
use crate::raft::hello::Hello;
use crate::raft::past::Past;
use crate::raft::stamp::Stamp;
use crate::raft::types::{Members, Seat};
use crate::raft::wire::{Admission, FormAnswer};

/// Answers a node that asks to be let in.
pub async fn answer(node: &Arc<Inner>, hello: &Hello) -> FormAnswer {
    if let Role::Secondary { primary, .. } = node.role() {
        return FormAnswer::Primary(Seat { node: primary.id, address: primary.address });
    }
    match let_in(node, hello).await {
        Ok(admission) => FormAnswer::Admitted(admission),
        Err(why) => FormAnswer::Refused(why),
    }
}

async fn let_in(node: &Arc<Inner>, hello: &Hello) -> Result<Admission, String> {
    let reign = match node.role() {
        Role::Primary(reign) => reign,
        _ => return Err("no primary is known".into()),
    };
    let (known, proposed) = (hello.format, node.common_format());
    if known < proposed {
        return Err(format!(
            "it knows commands up to format {known}, and the cluster uses {proposed}: update its zrsd"
        ));
    }
    let Some(stamp) = node.formation.stamp.look().clone() else { return Err("no cluster is here".into()) };
    let folder = hello.from_incarnation;
    node.caller.memory.met(folder, Past::default(), hello.format);
    if let Some((position, bytes)) = node.store.membership()
        && let Ok(members) = postcard::from_bytes::<Members>(&bytes)
        && members.seats.get(&folder).is_some_and(|seat| seat.node == hello.from)
    {
        let stamp = Stamp { members: members.seats, ..stamp };
        return Ok(Admission { stamp, source: node.caller.incarnation, entries: position.index });
    }
    Err(steward::note_folder(node, reign, hello.from, folder).await)
}
