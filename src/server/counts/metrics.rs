//! The counters of the whole server, for operators and their alarms.
//!
//! Counters are for the life of the process and over all storages; the counts of one storage's clients are in
//! [`tally`](super::tally).

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::{Registry, Unit};

use super::why::Why;
use crate::storage::{CacheCounts, Store};

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

    /// All counters at zero, and those that `store` keeps itself.
    pub fn of(store: &Store) -> Metrics {
        let mut metrics = Metrics::new();
        metrics.registry.register_collector(Box::new(OfStore(store.clone())));
        metrics
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

/// What the database counts, read when it is asked for.
#[derive(Debug)]
struct OfStore(Store);

impl Collector for OfStore {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let CacheCounts { hits, misses, objects, bytes } = self.0.cache_counts();
        let [objects, bytes] = [objects, bytes].map(|n| ConstGauge::new(n.cast_signed()));
        tell(&mut encoder, "cache_hits", "Current records read from the cache.", None, &ConstCounter::new(hits))?;
        tell(
            &mut encoder,
            "cache_misses",
            "Current records, fit for the cache, read from the database.",
            None,
            &ConstCounter::new(misses),
        )?;
        tell(&mut encoder, "cached_objects", "Objects in the cache.", None, &objects)?;
        tell(&mut encoder, "cached", "Memory that the cached objects take.", Some(&Unit::Bytes), &bytes)
    }
}

fn tell(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    metric: &impl EncodeMetric,
) -> fmt::Result {
    metric.encode(encoder.encode_descriptor(name, help, unit, metric.metric_type())?)
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
    use crate::server::testing;
    use crate::zodb::{Oid, Tid};

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

    #[test]
    fn the_cache_is_counted_too() {
        let store = testing::store_with_cache(1 << 20);
        let metrics = Metrics::of(&store);
        testing::commit(&store, 5, vec![testing::write(1, "data")]);
        for _ in 0..3 {
            store.load_before(testing::S, Oid(1), Tid::MAX, Tid(5)).unwrap().unwrap();
        }
        let text = metrics.text();
        for line in ["zrs_cache_hits_total 2", "zrs_cache_misses_total 1", "zrs_cached_objects 1"] {
            assert!(text.contains(&format!("\n{line}\n")), "{text}");
        }
        assert!(text.contains("\nzrs_cached_bytes 1"), "{text}");
    }
}
