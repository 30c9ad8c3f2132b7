//! The past of a node: what its disk holds, as the node says itself, or as it has proven to another member.
//!
//! A majority can lose what it has acknowledged only if a node comes back with less than it once had: from an older
//! copy of its folder, say. Such a folder is whole, so the node can't know; but the others remember what the node has
//! proven ([`Memory`](super::memory::Memory)), and compare it with what it says in the handshake.
//!
//! **What can be compared.** Starts are counted. Votes only grow, and are durable before anybody is told. How many
//! entries the log has can shrink, as a new leader replaces entries that were never committed; but never within the
//! vote for the leader to whom they were acknowledged. So entries count only together with that vote.

use serde::{Deserialize, Serialize};

use super::types::Ballot;

/// A start of a node's process. Made durable before the node says a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// How many starts the folder has seen, this one included.
    pub number: u64,
    /// Drawn by chance: two starts of the same number are those of a folder and its copy.
    pub id: u64,
}

/// What a node has on its disk, at least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    pub start: Start,
    /// `None`: the node has not voted.
    pub vote: Option<Ballot>,
    /// How many entries of the log are fsynced. In what was proven: those of the leader that `vote` names.
    pub entries: u64,
}

/// Votes by age. (Of two nodes that stand for the same term, one is granted by a majority and replaces the other.)
fn age(vote: Option<Ballot>) -> Option<(u64, bool)> {
    vote.map(|vote| (vote.term, vote.committed))
}

impl Past {
    /// What is missing here of `proven`, in words to follow "node 2"; `None` if nothing is.
    pub fn lacks(&self, proven: &Past) -> Option<String> {
        let (start, known) = (self.start, proven.start);
        if start.number < known.number {
            let (mine, its) = (start.number, known.number);
            return Some(format!("its folder was started {its} times, and this one {mine} times"));
        }
        if start.number == known.number && start.id != known.id {
            return Some(format!("there were two starts {} of its folder: two copies of it have run", start.number));
        }
        if age(self.vote) < age(proven.vote) {
            let of = |vote: Option<Ballot>| match vote {
                Some(Ballot { term, committed: false, .. }) => format!("of term {term}"),
                Some(Ballot { term, .. }) => format!("of the winner of term {term}"),
                None => "of nobody".into(),
            };
            return Some(format!("its newest vote was {}, and is {}", of(proven.vote), of(self.vote)));
        }
        if age(self.vote) != age(proven.vote) {
            return None;
        }
        if self.vote != proven.vote {
            return Some(format!("its vote in term {} was for another node", self.vote.map_or(0, |vote| vote.term)));
        }
        (self.entries < proven.entries).then(|| {
            let term = self.vote.map_or(0, |vote| vote.term);
            let (mine, its) = (self.entries, proven.entries);
            format!("in term {term} it had {its} entries of the log on its disk, and has {mine}")
        })
    }

    /// Takes in what is proven beyond this; whether there was anything.
    pub fn raise(&mut self, proven: &Past) -> bool {
        let before = *self;
        if proven.start.number > self.start.number {
            self.start = proven.start;
        }
        if age(proven.vote) > age(self.vote) {
            (self.vote, self.entries) = (proven.vote, proven.entries);
        } else if proven.vote == self.vote {
            self.entries = self.entries.max(proven.entries);
        }
        *self != before
    }
}

#[cfg(test)]
mod tests {
    use super::super::types::Incarnation;
    use super::*;

    fn past(start: u64, term: u64, committed: bool, entries: u64) -> Past {
        let vote = Some(Ballot { term, candidate: Incarnation(7), committed });
        Past { start: Start { number: start, id: start }, vote, entries }
    }

    #[test]
    fn an_older_past_lacks_something() {
        let proven = past(3, 5, true, 100);
        assert_eq!(past(3, 5, true, 100).lacks(&proven), None);
        assert_eq!(past(4, 5, true, 130).lacks(&proven), None);
        assert_eq!(
            past(3, 5, true, 99).lacks(&proven).unwrap(),
            "in term 5 it had 100 entries of the log on its disk, and has 99"
        );
        assert_eq!(
            past(9, 5, false, 200).lacks(&proven).unwrap(),
            "its newest vote was of the winner of term 5, and is of term 5"
        );
        assert_eq!(
            past(9, 4, true, 200).lacks(&proven).unwrap(),
            "its newest vote was of the winner of term 5, and is of the winner of term 4"
        );
        let none = Past { vote: None, ..past(9, 0, false, 200) };
        assert_eq!(none.lacks(&proven).unwrap(), "its newest vote was of the winner of term 5, and is of nobody");
        assert_eq!(
            past(2, 6, true, 200).lacks(&proven).unwrap(),
            "its folder was started 3 times, and this one 2 times"
        );
        let copy = Past { start: Start { number: 3, id: 9 }, ..proven };
        assert_eq!(copy.lacks(&proven).unwrap(), "there were two starts 3 of its folder: two copies of it have run");
    }

    #[test]
    fn entries_that_a_newer_leader_replaced_are_not_missing() {
        let proven = past(1, 5, true, 100);
        assert_eq!(past(1, 6, false, 100).lacks(&proven), None);
        assert_eq!(past(1, 6, true, 80).lacks(&proven), None);
        // A vote that another candidate's victory has replaced, in the same term.
        let voted = past(1, 6, false, 0);
        let won = Past { vote: Some(Ballot { term: 6, candidate: Incarnation(8), committed: true }), ..voted };
        assert_eq!(won.lacks(&voted), None);
        let otherwise = Past { vote: Some(Ballot { term: 6, candidate: Incarnation(8), committed: false }), ..voted };
        assert_eq!(otherwise.lacks(&voted).unwrap(), "its vote in term 6 was for another node");
    }

    #[test]
    fn only_more_is_taken_in() {
        let mut known = past(2, 5, false, 0);
        assert!(known.raise(&past(2, 5, true, 40)));
        assert!(!known.raise(&past(1, 5, true, 30)));
        assert!(!known.raise(&past(1, 4, true, 90)));
        assert_eq!(known, past(2, 5, true, 40));
        assert!(known.raise(&past(2, 6, true, 10)));
        assert_eq!(known, past(2, 6, true, 10));
        assert!(known.raise(&past(3, 1, true, 99)));
        assert_eq!((known.start.number, known.entries), (3, 10));
    }

    use proptest::prelude::*;

    fn any_past() -> impl Strategy<Value = Past> {
        (0u64..4, 0u64..4, any::<bool>(), 0u64..4).prop_map(|(s, t, c, e)| past(s, t, c, e))
    }

    proptest! {
        /// Whatever was taken in is not missing, and nothing that was known is forgotten.
        #[test]
        fn what_was_raised_lacks_nothing(a in any_past(), b in any_past()) {
            let mut both = a;
            both.raise(&b);
            prop_assert_eq!(both.lacks(&a), None);
            prop_assert_eq!(both.lacks(&b), None);
        }
    }
}
