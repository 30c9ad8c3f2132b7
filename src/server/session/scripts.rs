//! Golden scripts for the view (`tests/scripts/view`).

use super::view::View;
use crate::server::testing::runner::play_all;
use crate::server::testing::{S, commit, numbers, store, write};
use crate::storage::Store;
use crate::zodb::Tid;

/// A storage whose newest transaction is 5, and one session's view of it.
struct Stage {
    store: Store,
    view: View,
}

impl Stage {
    fn new() -> Stage {
        let store = store();
        commit(&store, 5, vec![write(1, "data")]);
        let view = View::open(&store, S);
        Stage { store, view }
    }

    /// `commit TID OID…`, `news`, `own finish TID`, `own committed`, `own refused`: and where the view is after it.
    fn play(&mut self, input: &str) -> Vec<String> {
        let mut told = Vec::new();
        match input.split_once(' ').unwrap_or((input, "")) {
            ("commit", rest) => {
                let numbers = numbers(rest);
                commit(&self.store, numbers[0], numbers[1..].iter().map(|oid| write(*oid, "data")).collect());
            }
            ("news", "") => {
                for news in self.view.news(&self.store).unwrap().unwrap() {
                    let oids: Vec<String> = news.oids.iter().map(|oid| oid.0.to_string()).collect();
                    told.push(format!("invalidate {}: {}", news.tid.0, oids.join(" ")));
                }
            }
            ("own", "committed") => self.view.own_committed(),
            ("own", "refused") => self.view.own_refused(),
            ("own", rest) => self.view.begin_own(Tid(numbers(rest.trim_start_matches("finish "))[0])),
            _ => panic!("no such input"),
        }
        told.push(format!("view {}", self.view.tid().0));
        told
    }
}

#[test]
fn view() {
    play_all("view", || {
        let mut stage = Stage::new();
        move |input: &str| stage.play(input)
    });
}
