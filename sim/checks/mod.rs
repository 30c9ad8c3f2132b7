//! The checks: the promises that must hold, one a file.
//!
//! Each check counts what it had to look at ([`seen::check`](crate::seen::check)): a check that never had anything to
//! look at would hold whatever the server does.

pub mod answers_by_the_news;
pub mod appended_once;
pub mod blobs_are_whole;
pub mod caught_up_voters;
pub mod caught_up_with_all;
pub mod conflicts_are_real;
mod counted;
pub mod every_news_once;
pub mod few_unknown;
pub mod heals;
pub mod iterated_whole;
pub mod leftovers_go;
pub mod locks_let_go;
pub mod members_as_wished;
pub mod no_exclusion;
pub mod no_lost_commit;
pub mod no_lost_update;
pub mod no_mistakes;
pub mod oids_once;
pub mod one_primary;
pub mod one_state_at_a_time;
pub mod packs_are_done;
pub mod packs_end;
pub mod relays_end;
pub mod rules_kept;
pub mod same_state_same_index;
pub mod seats_once;
pub mod serializable;
pub mod short_logs;
pub mod the_same_database;
pub mod undone_as_the_model;
pub mod voters_lead;
pub mod votes_are_kept;

pub use counted::counted;

use crate::{packed, witnesses};

/// All that the checks must have looked at, in enough runs.
pub const LOOKED_AT: [&str; 63] = [
    answers_by_the_news::CACHES,
    answers_by_the_news::LOADS,
    answers_by_the_news::OLD,
    answers_by_the_news::SERIALS,
    answers_by_the_news::TOO_MANY,
    appended_once::APPENDED,
    blobs_are_whole::KEPT,
    blobs_are_whole::NONE,
    blobs_are_whole::SENT,
    caught_up_voters::BEGINNERS,
    caught_up_with_all::CAUGHT_UP,
    conflicts_are_real::FINAL,
    conflicts_are_real::GIVEN_UP,
    conflicts_are_real::RESOLVED,
    conflicts_are_real::TO_RESOLVE,
    every_news_once::NEWS,
    every_news_once::OWN,
    few_unknown::STOPPED,
    few_unknown::UNKNOWN,
    heals::CLIENTS,
    iterated_whole::PASSED_OVER,
    iterated_whole::TRANSACTIONS,
    leftovers_go::STAGED,
    locks_let_go::VOTES,
    members_as_wished::REFUSED,
    members_as_wished::SETTLED,
    members_as_wished::WISHES,
    no_lost_commit::COMMITTED,
    no_lost_commit::NOT_COMMITTED,
    no_lost_commit::UNKNOWN,
    no_lost_update::UPDATES,
    oids_once::OIDS,
    witnesses::HEARD,
    packed::GARBAGE,
    packed::REFERRED,
    packed::REMOVED,
    packed::RESUMED,
    packed::UNCERTAIN,
    packs_are_done::ASKED,
    packs_are_done::CARRIED_OUT,
    packs_are_done::REFUSED,
    one_state_at_a_time::CACHED,
    one_state_at_a_time::OLD,
    one_state_at_a_time::READS,
    one_state_at_a_time::VIEWS,
    relays_end::RELAYS,
    rules_kept::RULES,
    seats_once::CHANGES,
    seats_once::FOLDERS,
    serializable::BASES,
    serializable::CHECKS,
    short_logs::FETCHED,
    short_logs::SHORTENED,
    the_same_database::FROM_MEMORY,
    the_same_database::REVISIONS,
    undone_as_the_model::LOGS,
    undone_as_the_model::REFUSED,
    undone_as_the_model::TOO_OLD,
    undone_as_the_model::UNDONE,
    voters_lead::LOOKS,
    voters_lead::OBSERVERS,
    voters_lead::STRANGERS,
    votes_are_kept::FINISHES,
];
