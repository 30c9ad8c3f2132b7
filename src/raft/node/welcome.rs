//! Lets a node in that comes with an empty folder: a new one, or one that has lost its disk.

use std::sync::Arc;

use super::inner::{Inner, Role};
use super::steward;
use crate::raft::stamp::Stamp;
use crate::raft::types::Members;
use crate::raft::wire::{Admission, FormAnswer, Hello};

/// Answers a node that asks to be let in.
pub async fn answer(node: &Arc<Inner>, hello: &Hello) -> FormAnswer {
    match let_in(node, hello).await {
        Ok(admission) => FormAnswer::Admitted(admission),
        Err(why) => FormAnswer::Refused(why),
    }
}

async fn let_in(node: &Arc<Inner>, hello: &Hello) -> Result<Admission, String> {
    let reign = match node.role() {
        Role::Primary(reign) => reign,
        Role::Secondary { primary, .. } => return Err(format!("node {} is the primary", primary.id)),
        Role::Forming(_) | Role::Candidate | Role::Excluded(_) => return Err("no primary is known".into()),
    };
    let (known, proposed) = (hello.format, node.common_format());
    if known < proposed {
        return Err(format!(
            "it knows commands up to format {known}, and the cluster uses {proposed}: update its zrsd"
        ));
    }
    let Some(stamp) = node.formation.stamp.look().clone() else { return Err("no cluster is here".into()) };
    let folder = hello.from_incarnation;
    if let Some((position, bytes)) = node.store.membership()
        && let Ok(members) = postcard::from_bytes::<Members>(&bytes)
        && members.seats.get(&folder).is_some_and(|seat| seat.node == hello.from)
    {
        let stamp = Stamp { members: members.seats, ..stamp };
        return Ok(Admission { stamp, source: node.caller.incarnation, entries: position.index });
    }
    Err(steward::note_folder(node, reign, hello.from, folder).await)
}
