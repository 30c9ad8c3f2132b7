//! One run: a cluster, clients, faults, and the checks afterwards.
//!
//! ```text
//!  0 s                                    15 s              10 s later at most  10 s at most     5 s at most
//!  ├─ clients work, faults begin and end ──┼─ clients work ───┼─ clients end ─────┼────────────────┼─ verdict
//!  │                                       the last has ended it heals, and all   all have ended   nodes hold the same
//!  │                                                          are members again (20 s more at most)
//!  └─ each millisecond: one_primary, no_exclusion, same_state_same_index, seats_once, voters_lead,
//!     caught_up_voters, caught_up_with_all; the ledger and the packs are written down
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use turmoil::Sim;

use crate::chance::Chance;
use crate::checks::caught_up_with_all::CaughtUp;
use crate::checks::relays_end::Relays;
use crate::checks::same_state_same_index::States;
use crate::checks::seats_once::Seated;
use crate::checks::voters_lead::Led;
use crate::checks::{
    answers_by_the_news, appended_once, blobs_are_whole, caught_up_voters, conflicts_are_real, counted,
    every_news_once, few_unknown, heals, iterated_whole, leftovers_go, locks_let_go, members_as_wished, no_exclusion,
    no_lost_commit, no_lost_update, no_mistakes, oids_once, one_primary, one_state_at_a_time, packs_are_done,
    packs_end, rules_kept, serializable, short_logs, the_same_database, undone_as_the_model, votes_are_kept,
};
use crate::cluster::{Cluster, EVERY_CLIENT};
use crate::excerpt::Excerpt;
use crate::faults::{self, Faults};
use crate::history::{End, History};
use crate::ledger::Ledger;
use crate::model::Model;
use crate::node::Shape;
use crate::packed::Manner;
use crate::packs::Packs;
use crate::seen::{self, Seen};
use crate::{repeat, trace, workload, zeo};

/// How long faults happen, as a rule.
const TROUBLE: Duration = Duration::from_secs(15);
/// How long nodes may take to come together once no client writes any more.
const TOGETHER: Duration = Duration::from_secs(5);

/// The result of a run.
#[derive(serde::Serialize, serde::Deserialize)]
pub struct Run {
    pub trace: trace::Summary,
    pub failures: Vec<String>,
    pub seen: Seen,
    /// How many transactions were committed, refused, and left unknown.
    pub counts: [usize; 3],
    pub virtual_time: Duration,
    /// The faults that began, by name and number.
    pub begun: Vec<String>,
}

/// Runs the simulation of `seed`. `keep`: the trace's events are kept.
pub fn run(seed: u64, keep: bool) -> Run {
    trace::begin(keep);
    seen::begin();
    repeat::align_task_ids();
    let excerpt = Excerpt::wanted();
    let history = History::default();
    let enough = Arc::new(AtomicBool::new(false));
    let mut cluster = Cluster::new(network(seed), seed, faults::hosts(seed));
    workload::start(&mut cluster, seed, &history, &enough);
    zeo::start(&mut cluster, seed, &history, &enough);
    let mut scene = Scene {
        cluster,
        history,
        enough,
        trouble: excerpt.until.unwrap_or(TROUBLE),
        faults: Faults::new(seed, excerpt),
        states: States::default(),
        seated: Seated::default(),
        led: Led::default(),
        caught_up: CaughtUp::default(),
        relays: Relays::default(),
        ledger: Ledger::default(),
        packs: Packs::default(),
        shape: Shape::of(seed),
    };
    let failures: Vec<String> = scene.play().err().into_iter().collect();
    let virtual_time = scene.cluster.elapsed();
    let count = |wanted: fn(&End) -> bool| scene.history.look().attempts.iter().filter(|a| wanted(&a.end)).count();
    let counts = [
        count(|end| matches!(end, End::Committed(_))),
        count(|end| matches!(end, End::Conflict(_) | End::NotCommitted(_))),
        count(|end| matches!(end, End::Unknown)),
    ];
    let begun = scene.faults.begun().to_vec();
    // Before the hosts are torn down, which is not part of the run.
    Run { trace: trace::summary(), failures, seen: seen::take(), counts, virtual_time, begun }
}

/// A network without hosts yet, whose delays the seed has drawn.
fn network(seed: u64) -> Sim<'static> {
    let mut chance = Chance::of(seed, "network");
    let slowest = [2, 10, 30][chance.below(3) as usize];
    let mut network = turmoil::Builder::new();
    let seed = chance.number();
    if chance.once_in(2) {
        // (Else the hosts run in the same order in each millisecond.)
        network.enable_random_order();
    }
    // (In writes that the other end has not read; so few that senders have to wait now and then.)
    let capacity = chance.one_of(&[1 << 16, 1 << 16, 256]);
    network
        .rng_seed(seed)
        .tick_duration(Duration::from_millis(1))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(slowest))
        .tcp_capacity(capacity)
        .simulation_duration(Duration::from_secs(3_600))
        .build()
}

struct Scene {
    cluster: Cluster,
    history: History,
    enough: Arc<AtomicBool>,
    /// How long faults happen.
    trouble: Duration,
    faults: Faults,
    states: States,
    seated: Seated,
    led: Led,
    caught_up: CaughtUp,
    relays: Relays,
    ledger: Ledger,
    packs: Packs,
    shape: Shape,
}

impl Scene {
    fn play(&mut self) -> Result<(), String> {
        while self.cluster.elapsed() < self.trouble {
            self.step()?;
            self.faults.step(&mut self.cluster);
        }
        while !self.faults.end(&mut self.cluster) {
            self.step()?;
        }
        let healed = self.cluster.elapsed();
        self.history.look().is_calm = true;
        self.wait(heals::WITHIN, "heals", |scene| heals::leaderless(&scene.cluster))?;
        // (First of all, as a client may know no address but that of a node which is to come back.)
        self.wait(members_as_wished::WITHIN, "members_as_wished", |scene| members_as_wished::missing(&scene.cluster))?;
        members_as_wished::check(&self.cluster)?;
        self.wait(heals::WITHIN, "heals", |scene| heals::missing(&scene.cluster, &scene.history, healed))?;
        self.wait(heals::WITHIN, "packs_end", |scene| packs_end::missing(&scene.packs, healed))?;
        self.enough.store(true, Relaxed);
        self.wait(heals::WITHIN, "heals", |scene| heals::at_work(&scene.history))?;
        let left = self.cluster.elapsed();
        self.wait(heals::WITHIN, "packs_end", |scene| packs_end::missing(&scene.packs, left))?;
        self.wait(TOGETHER, "leftovers_go", |scene| leftovers_go::missing(&scene.cluster.servers()))?;
        self.wait(TOGETHER, "heals", |scene| heals::apart(&scene.cluster))?;
        self.judge()
    }

    /// A millisecond.
    fn step(&mut self) -> Result<(), String> {
        self.cluster.step()?;
        let servers = self.cluster.servers();
        self.history.leads(self.cluster.primary());
        self.history.look().moved = self.cluster.moved();
        self.history.look().resumes = self.packs.going_on().is_some_and(|pack| pack.resumed);
        self.history.look().packed = self.packs.seen.last().map(|pack| pack.upto);
        one_primary::look(&self.cluster, &servers)?;
        no_exclusion::look(&servers)?;
        self.seated.look(&servers)?;
        self.led.look(&self.cluster, &servers)?;
        caught_up_voters::look(&self.cluster, &servers)?;
        self.caught_up.look(&self.cluster, &servers)?;
        self.relays.look(&servers)?;
        leftovers_go::look(&servers);
        self.ledger.look(&servers)?;
        self.packs.look(&servers, self.cluster.primary());
        self.states.look(&servers)
    }

    fn wait(
        &mut self,
        within: Duration,
        check: &str,
        mut missing: impl FnMut(&Self) -> Option<String>,
    ) -> Result<(), String> {
        let deadline = self.cluster.elapsed() + within;
        // (A node that was behind for a moment catches up meanwhile; a client in the middle of a call ends it.)
        while let Some(what) = missing(self) {
            if self.cluster.elapsed() > deadline {
                return Err(format!("{check}: after {within:?}, {what}"));
            }
            self.step()?;
        }
        Ok(())
    }

    fn judge(&self) -> Result<(), String> {
        let record = self.history.look();
        short_logs::check(&self.cluster.servers())?;
        no_mistakes::check(&self.cluster.servers())?;
        // (A disk that fails makes a pack fail that reads it, as does a record that can't be read.)
        let disk_failed = seen::faults().iter().any(|(name, times)| *times > 0 && name.starts_with("disk_f"));
        let may_fail = disk_failed || record.has_junk();
        let (packs, manner) = (&self.packs.seen, Manner { gc: self.shape.pack_gc, may_fail });
        no_lost_commit::check(&record, &self.ledger)?;
        let mut model = Model::of(&record, &self.ledger)?;
        model.pack(&record, packs, manner);
        for (node, server) in self.cluster.servers() {
            the_same_database::check(&model, server.store()).map_err(|why| format!("{why} (at node {node})"))?;
            blobs_are_whole::look(&model, server.store()).map_err(|why| format!("{why} (at node {node})"))?;
            counted(server.store())?;
        }
        packs_are_done::check(&record, &model, packs, manner)?;
        // Those that see the nearest come first.
        every_news_once::check(&record, &model)?;
        answers_by_the_news::check(&record, &model, self.shape.sizes.invalidations)?;
        conflicts_are_real::check(&record, &model)?;
        votes_are_kept::check(&record)?;
        blobs_are_whole::check(&record, &model)?;
        iterated_whole::check(&record, &model)?;
        undone_as_the_model::check(&record, &model, &self.ledger, packs)?;
        serializable::check(&record, &model)?;
        one_state_at_a_time::check(&record, &model)?;
        no_lost_update::check(&record, &model)?;
        appended_once::check(&record, &model)?;
        rules_kept::check(&record, &model)?;
        few_unknown::check(&record, &seen::faults(), EVERY_CLIENT)?;
        locks_let_go::check(&record, &seen::faults())?;
        oids_once::check(&record)
    }
}
