//! Being let in to a cluster that runs, seen from the node that comes with an empty folder.
//!
//! The node asks the members that it finds (`formation`), and the primary makes it an observer (`node::welcome`). It
//! then fetches the primary's database, which has applied the entry that let it in, *before* it runs Raft for the first
//! time. So it never takes a log for its own that began without it, and a cluster that began with an imported database
//! needs no care of its own.
//!
//! | step | after a crash |
//! |---|---|
//! | fetch | goes on where it was: the primary says once more that the node is a member |
//! | note the admission ([`ADMISSION`]) and the position (`catch_up`) | the same |
//! | [`Incoming::take`](crate::engine::Incoming::take): **the point** | the next start finds the database |
//! | take over the term and the stamp ([`settle`]); the log begins behind the position | done again |
//!
//! The term of the database becomes this node's, by a vote that nobody was told of and that counts for nobody.

use std::io;

use openraft::storage::RaftLogStorage;
use serde::{Deserialize, Serialize};

use super::formation::STAMP;
use super::log::LogStore;
use super::stamp::{Stamp, cluster_name};
use super::types::{Ballot, Incarnation, Place, Vote};
use super::wire::{Admission, Offer};
use crate::storage::Store;

const ADMISSION: &str = "admission";

/// What a node needs to begin with the database that it has fetched.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Admitted {
    stamp: Stamp,
    source: Incarnation,
    /// The database's last entry, and a term in which it was known.
    place: Place,
    term: u64,
}

/// Notes that the database of `offer`, which is whole, is the one to begin with.
pub async fn note(log: &LogStore, admission: Admission, offer: &Offer) -> io::Result<()> {
    let Admission { stamp, source, .. } = admission;
    log.set_value(ADMISSION, &Admitted { stamp, source, place: offer.place, term: offer.term }).await
}

/// After a start: if `store` is the database with which this node was let in to a cluster, makes it a member.
pub async fn settle(log: &LogStore, store: &Store) -> io::Result<()> {
    let Some(Admitted { stamp, source, place, term }) = log.value(ADMISSION)? else { return Ok(()) };
    if log.value::<Stamp>(STAMP)?.is_some() || store.applied().index <= place.index {
        return Ok(());
    }
    if log.term() < term {
        let vote = Vote::from(Ballot { term, candidate: source, committed: false });
        log.clone().save_vote(&vote).await?;
    }
    log.set_value(STAMP, &stamp).await?;
    tracing::info!(
        "this node is a member of cluster {}, with the database that it has fetched",
        cluster_name(&stamp.cluster)
    );
    Ok(())
}
