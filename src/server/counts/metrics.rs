//! The counters of the whole server, for operators and their alarms.
//!
//! Counters are for the life of the process and over all storages; the counts of one storage's clients are in
//! [`tally`](super::tally).

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::why::Why;

/// Labels a frame that is no call: one word, such as `too_large`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BadFrameLabel {
    /// The defect of the frame.
    pub why: &'static str,
}

/// Labels a closed connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ClosedLabel {
    /// Why this node closed the connection.
    pub why: Why,
}

/// The counters of packs.
#[derive(Clone, Debug, Default)]
pub struct PackCounters {
    /// Packs that are going on here.
    pub running: Gauge,
    /// Packs that have ended, complete or not.
    pub ended: Counter,
    /// Revisions that were removed.
    pub revisions: Counter,
    /// Objects that were removed as nothing refers to them.
    pub garbage: Counter,
}

/// All counters; cheap to count, rendered by [`Metrics::text`].
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Accepted sockets, of clients and peers.
    pub accepted: Counter,
    /// Sockets closed at once because there were too many.
    pub turned_away: Counter,
    /// Open sockets, of clients and peers.
    pub open: Gauge,
    /// Open sockets whose other end has not registered yet, held without a greeting or greeted.
    pub held: Gauge,
    /// Open sockets over the limit, let in only because their host is a member's.
    pub reserved: Gauge,
    /// Registered clients served here.
    pub sessions: Gauge,
    /// Clients whose bytes are passed on to the primary.
    pub relays: Gauge,
    /// Objects read for clients, found or not.
    pub loads: Counter,
    /// Objects stored in committed transactions.
    pub stores: Counter,
    /// Transactions committed for clients of this node.
    pub commits: Counter,
    /// Transactions given up by their clients, or refused.
    pub aborts: Counter,
    /// Votes that were answered with conflicts.
    pub conflicts: Counter,
    /// Transactions that committed after a conflict.
    pub conflicts_resolved: Counter,
    /// Finishes whose outcome stayed unknown to the client and to this node.
    pub unknown_outcomes: Counter,
    /// Frames that were no calls, by kind.
    pub bad_frames: Family<BadFrameLabel, Counter>,
    /// Connections that this node closed, by reason.
    pub closed: Family<ClosedLabel, Counter>,
    /// Peers that were refused.
    pub refused_peers: Counter,
    /// Packs.
    pub packs: PackCounters,
    /// Bytes of calls.
    pub received: Counter,
    /// Bytes of answers and invalidations.
    pub sent: Counter,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

impl Metrics {
    /// All counters at zero.
    pub fn new() -> Metrics {
        let mut registry = Registry::with_prefix("zrs");
        let accepted = Counter::default();
        registry.register("accepted", "Sockets accepted", accepted.clone());
        let turned_away = Counter::default();
        registry.register("turned_away", "Sockets closed at once, as there were too many", turned_away.clone());
        let open = Gauge::default();
        registry.register("connections", "Open sockets", open.clone());
        let held = Gauge::default();
        registry.register("held", "Connections that have not registered yet", held.clone());
        let reserved = Gauge::default();
        registry.register("reserved", "Connections over the limit that may be peers'", reserved.clone());
        let sessions = Gauge::default();
        registry.register("sessions", "Registered clients served by this node", sessions.clone());
        let relays = Gauge::default();
        registry.register(
            "relays",
            "Clients relayed to the primary by this node, and packs asked of it",
            relays.clone(),
        );
        let loads = Counter::default();
        registry.register("loads", "Objects read for clients", loads.clone());
        let stores = Counter::default();
        registry.register("stores", "Objects stored in committed transactions", stores.clone());
        let commits = Counter::default();
        registry.register("commits", "Transactions committed for clients of this node", commits.clone());
        let aborts = Counter::default();
        registry.register("aborts", "Transactions given up or refused", aborts.clone());
        let conflicts = Counter::default();
        registry.register("conflicts", "Votes answered with conflicts", conflicts.clone());
        let conflicts_resolved = Counter::default();
        registry.register("conflicts_resolved", "Commits after a conflict", conflicts_resolved.clone());
        let unknown_outcomes = Counter::default();
        registry.register("unknown_outcomes", "Finishes with an unknown outcome", unknown_outcomes.clone());
        let bad_frames = Family::default();
        registry.register("bad_frames", "Frames that were no calls", bad_frames.clone());
        let closed = Family::default();
        registry.register("closed", "Connections closed by this node", closed.clone());
        let refused_peers = Counter::default();
        registry.register("refused_peers", "Peers that were refused", refused_peers.clone());
        let packs = PackCounters::default();
        registry.register("packs_running", "Packs that are going on, on this node as primary", packs.running.clone());
        registry.register("packs", "Packs that have ended on this node as primary", packs.ended.clone());
        registry.register("packed_revisions", "Revisions removed by packs", packs.revisions.clone());
        registry.register("packed_garbage", "Objects removed as nothing refers to them", packs.garbage.clone());
        let received = Counter::default();
        registry.register_with_unit("received", "Calls received", Unit::Bytes, received.clone());
        let sent = Counter::default();
        registry.register_with_unit("sent", "Answers and invalidations sent", Unit::Bytes, sent.clone());
        Metrics {
            registry,
            accepted,
            turned_away,
            open,
            held,
            reserved,
            sessions,
            relays,
            loads,
            stores,
            commits,
            aborts,
            conflicts,
            conflicts_resolved,
            unknown_outcomes,
            bad_frames,
            closed,
            refused_peers,
            packs,
            received,
            sent,
        }
    }

    /// Counts a frame that was no call.
    pub fn bad_frame(&self, why: &'static str) {
        self.bad_frames.get_or_create(&BadFrameLabel { why }).inc();
    }

    /// Counts a connection that this node closed.
    pub fn closed(&self, why: Why) {
        self.closed.get_or_create(&ClosedLabel { why }).inc();
    }

    /// All counters, in the OpenMetrics text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)
            .expect("a String takes all that is written");
        text
    }
}

/// Counts up while it lives.
pub struct Present(Gauge);

impl Present {
    pub fn new(gauge: &Gauge) -> Present {
        gauge.inc();
        Present(gauge.clone())
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_stand_in_the_text() {
        let metrics = Metrics::new();
        metrics.commits.inc();
        metrics.bad_frame("undecodable");
        metrics.closed(Why::ReignOver);
        let present = Present::new(&metrics.sessions);
        let text = metrics.text();
        assert!(text.contains("zrs_commits_total 1"), "{text}");
        assert!(text.contains("zrs_bad_frames_total{why=\"undecodable\"} 1"), "{text}");
        assert!(text.contains("zrs_closed_total{why=\"reign_over\"} 1"), "{text}");
        assert!(text.contains("zrs_sessions 1"), "{text}");
        drop(present);
        assert!(metrics.text().contains("zrs_sessions 0"));
    }
}
