//! One run: a cluster, clients, faults, and what has to be so afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use turmoil::Sim;

use crate::chance::Chance;
use crate::checks::same_state_same_index::States;
use crate::checks::{
    counted, heals, kept, no_lost_commit, no_lost_update, oids_once, one_primary, one_state_at_a_time,
};
use crate::cluster::Cluster;
use crate::faults::Faults;
use crate::history::{End, History};
use crate::{repeat, trace, workload};

/// How long faults happen.
const TROUBLE: Duration = Duration::from_secs(15);
/// How long nodes may take to come together once nobody writes any more.
const TOGETHER: Duration = Duration::from_secs(5);

/// What came of a run.
pub struct Run {
    pub trace: trace::Summary,
    pub failures: Vec<String>,
    /// Which faults there were.
    pub story: Vec<String>,
    /// How many transactions were committed, refused, and left unknown.
    pub counts: [usize; 3],
    pub virtual_time: Duration,
}

/// Runs the simulation of `seed`. `keep`: the trace's events are kept.
pub fn run(seed: u64, keep: bool) -> Run {
    trace::begin(keep);
    repeat::align_task_ids();
    let mut chance = Chance::of(seed, "network");
    let slowest = [2, 10, 30][chance.below(3) as usize];
    let mut sim = turmoil::Builder::new()
        .rng_seed(chance.number())
        .tick_duration(Duration::from_millis(1))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(slowest))
        .tcp_capacity(1 << 16)
        .simulation_duration(Duration::from_secs(3_600))
        .build();
    let history = History::default();
    let enough = Arc::new(AtomicBool::new(false));
    let cluster = Cluster::new(&mut sim, seed);
    workload::start(&mut sim, &cluster, seed, &history, &enough);
    let mut scene = Scene { sim, cluster, history, enough, faults: Faults::new(seed), states: States::default() };
    let failures: Vec<String> = scene.play().err().into_iter().chain(scene.cluster.faults()).collect();
    let virtual_time = scene.sim.elapsed();
    let count = |wanted: fn(&End) -> bool| scene.history.look().attempts.iter().filter(|a| wanted(&a.end)).count();
    let counts = [
        count(|end| matches!(end, End::Committed(_))),
        count(|end| matches!(end, End::NotCommitted(_))),
        count(|end| matches!(end, End::Unknown)),
    ];
    // Before the hosts are torn down, which is not part of the run.
    let trace = trace::summary();
    Run { trace, failures, story: std::mem::take(&mut scene.faults.story), counts, virtual_time }
}

struct Scene<'a> {
    sim: Sim<'a>,
    cluster: Cluster,
    history: History,
    enough: Arc<AtomicBool>,
    faults: Faults,
    states: States,
}

impl Scene<'_> {
    fn play(&mut self) -> Result<(), String> {
        while self.sim.elapsed() < TROUBLE {
            self.step()?;
            self.faults.step(&mut self.sim, &mut self.cluster);
        }
        while !self.faults.end(&mut self.sim, &mut self.cluster) {
            self.step()?;
        }
        let healed = self.sim.elapsed();
        self.wait(heals::WITHIN, "heals", |scene| heals::missing(&scene.cluster, &scene.history, healed))?;
        self.enough.store(true, Relaxed);
        self.wait(TOGETHER, "heals", |scene| heals::apart(&scene.cluster))?;
        self.judge()
    }

    /// A millisecond.
    fn step(&mut self) -> Result<(), String> {
        trace::step(self.sim.elapsed());
        self.sim.step().map_err(|fault| format!("a host has failed: {fault}"))?;
        let servers = self.cluster.servers();
        one_primary::look(&servers)?;
        self.states.look(&servers)
    }

    fn wait(
        &mut self,
        within: Duration,
        check: &str,
        mut missing: impl FnMut(&Self) -> Option<String>,
    ) -> Result<(), String> {
        let deadline = self.sim.elapsed() + within;
        // A node that fell behind for a moment is seen again, a client in the middle of something ends it.
        while let Some(what) = missing(self) {
            if self.sim.elapsed() > deadline {
                return Err(format!("{check}: after {within:?}, {what}"));
            }
            self.step()?;
        }
        Ok(())
    }

    fn judge(&self) -> Result<(), String> {
        let record = self.history.look();
        for (node, server) in self.cluster.servers() {
            let all = kept(server.store()).map_err(|fault| format!("node {node} can't be read: {fault}"))?;
            no_lost_commit::check(&record, &all)?;
            no_lost_update::check(&all)?;
            one_state_at_a_time::check(&record, &all)?;
            counted(server.store())?;
        }
        oids_once::check(&record)
    }
}
