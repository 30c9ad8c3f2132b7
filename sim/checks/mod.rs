//! The checks: the promises that must hold, one a file.
//!
//! Each check counts what it had to look at ([`seen::check`](crate::seen::check)): a check that never had anything to
//! look at would hold whatever the server does.

pub mod answers_by_the_news;
pub mod appended_once;
pub mod conflicts_are_real;
pub mod every_news_once;
pub mod few_unknown;
pub mod heals;
mod kept;
pub mod locks_let_go;
pub mod no_exclusion;
pub mod no_lost_commit;
pub mod no_lost_update;
pub mod oids_once;
pub mod one_primary;
pub mod one_state_at_a_time;
pub mod rules_kept;
pub mod same_state_same_index;
pub mod serializable;
pub mod the_same_database;
pub mod votes_are_kept;

pub use kept::{counted, kept};

/// All that the checks must have looked at, in enough runs.
pub const LOOKED_AT: [&str; 29] = [
    answers_by_the_news::CACHES,
    answers_by_the_news::LOADS,
    answers_by_the_news::OLD,
    answers_by_the_news::SERIALS,
    appended_once::APPENDED,
    conflicts_are_real::FINAL,
    conflicts_are_real::GIVEN_UP,
    conflicts_are_real::RESOLVED,
    conflicts_are_real::TO_RESOLVE,
    every_news_once::NEWS,
    every_news_once::OWN,
    few_unknown::STOPPED,
    few_unknown::UNKNOWN,
    heals::CLIENTS,
    locks_let_go::VOTES,
    no_lost_commit::COMMITTED,
    no_lost_commit::NOT_COMMITTED,
    no_lost_commit::UNKNOWN,
    no_lost_update::UPDATES,
    oids_once::OIDS,
    one_state_at_a_time::CACHED,
    one_state_at_a_time::OLD,
    one_state_at_a_time::READS,
    one_state_at_a_time::VIEWS,
    rules_kept::RULES,
    serializable::BASES,
    serializable::CHECKS,
    the_same_database::REVISIONS,
    votes_are_kept::FINISHES,
];
