//! Complaints about connections, each said once.
//!
//! A client or a peer with the wrong settings tries again several times in a second, until an operator
//! reads the log. So the same complaint about the same host is a warning once in a while, and a debug line
//! otherwise; the counters count every one.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use crate::config::limits;
use crate::env::Env;

/// The complaints that were logged: by host and text, each with its time.
pub struct Complaints {
    env: Env,
    said: Mutex<BTreeMap<(String, String), Instant>>,
}

impl Complaints {
    pub fn new(env: Env) -> Complaints {
        Complaints { env, said: Mutex::default() }
    }

    /// Warns that `what` is wrong with `peer`, unless the same was logged a moment ago.
    pub fn say(&self, peer: &str, what: &str) {
        let what = &*shortened(what, limits::COMPLAINT);
        match self.is_news(peer, what) {
            true => tracing::warn!(%peer, "{what}"),
            false => tracing::debug!(%peer, "{what}"),
        }
    }

    fn is_news(&self, peer: &str, what: &str) -> bool {
        // The peer's port (or process, at a unix socket) changes with each try.
        let host = peer.rsplit_once(':').map_or(peer, |(host, _)| host);
        let now = self.env.now();
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (host.to_owned(), what.to_owned());
        if said.get(&key).is_some_and(|at| now < *at + limits::COMPLAIN_AGAIN) {
            return false;
        }
        if said.len() >= limits::COMPLAINTS {
            said.retain(|_, at| now < *at + limits::COMPLAIN_AGAIN);
        }
        if said.len() < limits::COMPLAINTS {
            said.insert(key, now);
        }
        true
    }
}

/// The first `most` bytes of `text`, for people; "…" says that there was more.
pub fn shortened(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most { text.into() } else { format!("{}…", &text[..text.floor_char_boundary(most)]).into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut() {
        assert_eq!(shortened("short", 5), "short");
        assert_eq!(shortened("longer", 5), "longe…");
        assert_eq!(shortened("größer", 3), "gr…");
        let complaints = Complaints::new(Env::system());
        complaints.say("10.0.0.1:5", &"x".repeat(1 << 20));
        let said = complaints.said.lock().unwrap();
        assert!(said.keys().all(|(host, what)| host.len() + what.len() < 2 * limits::COMPLAINT));
        assert_eq!(said.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_of_the_same_host_is_said_once_in_a_while() {
        let complaints = Complaints::new(Env::system());
        assert!(complaints.is_news("10.0.0.1:5", "plain"));
        assert!(!complaints.is_news("10.0.0.1:6", "plain"));
        assert!(complaints.is_news("10.0.0.1:7", "expired"));
        assert!(complaints.is_news("10.0.0.2:5", "plain"));
        assert!(complaints.is_news("[::1]:5", "plain"));
        assert!(!complaints.is_news("[::1]:6", "plain"));
        tokio::time::advance(limits::COMPLAIN_AGAIN).await;
        assert!(complaints.is_news("10.0.0.1:8", "plain"));
        for n in 0..2 * limits::COMPLAINTS {
            complaints.is_news(&format!("{n}:1"), "plain");
        }
        assert!(complaints.said.lock().unwrap().len() <= limits::COMPLAINTS);
    }
}
