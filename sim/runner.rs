//! The runner: a parent process hands the seeds to child processes, one per core, compares what they report, and
//! counts.
//!
//! With `STOP` the first failure ends it all (`etc/mutants`).
//!
//! A run needs a thread of its own, and a panic or an endless loop in one run should end nothing else; hence processes.
//! Every fifth seed runs twice in one child and once in another, for `repeat`.
//!
//! Printed:
//!
//! - of each run, how much happened in it, and the counts of its faults and workloads (`seen`);
//! - of a run that failed (or that was asked for by `SEED`), the story as well, what failed, and the line that repeats
//!   it;
//! - of all runs, the totals by fault and workload, and `N passed, N failed`.
//!
//! A fault, a workload or the matter of a check that no run has seen counts as a failure, from [`EVERYDAY`] seeds on.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use crate::run::{self, Run};
use crate::seen::{self, Totals};
use crate::{checks, faults, repeat, trace, workload, zeo};

/// How many seeds `cargo test` runs.
const EVERYDAY: u64 = 40;
/// Seeds that have found a bug: the seed, the commit, what it was.
const REGRESSIONS: &str = include_str!("regressions.txt");
/// One seed of so many is repeated.
const REPEATED: u64 = 5;
/// How long (of real time) the parent waits for the next report: a run takes seconds.
const PATIENCE: Duration = Duration::from_secs(120);
/// The environment variable that has a child's seeds: `5,10r`, where `r` says that the seed runs twice.
pub const CHILD: &str = "ZRS_SIM_CHILD";

/// How a seed came out, from a child to the parent: a line of JSON.
#[derive(serde::Serialize, serde::Deserialize)]
struct Report {
    seed: u64,
    run: Run,
}

/// The panics of the run under way. They are collected here because a task's panic would be swallowed by its runtime.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The child process: runs seeds one after the other, and reports each on its standard output.
pub fn child(seeds: &str) {
    log_if_wanted();
    std::panic::set_hook(Box::new(|panic| PANICS.lock().unwrap().push(panic.to_string())));
    for job in seeds.split(',') {
        let (seed, twice) = job.strip_suffix('r').map_or((job, false), |seed| (seed, true));
        let seed: u64 = seed.parse().expect("the parent writes numbers");
        let mut run = one(seed, 1);
        if twice {
            let second = one(seed, 2);
            run.failures.extend(repeat::difference("in one process", &run.trace, &second.trace));
        }
        println!("{}", serde_json::to_string(&Report { seed, run }).expect("a report is plain data"));
        let _ = std::io::stdout().flush();
    }
}

/// Runs a seed, for the first or the second `time`.
fn one(seed: u64, time: u32) -> Run {
    let file = std::env::var("TRACE").ok().map(|stem| format!("{stem}.{seed}.{time}"));
    PANICS.lock().unwrap().clear();
    let ran = std::panic::catch_unwind(|| run::run(seed, file.is_some()));
    if let Some(file) = file {
        std::fs::write(&file, trace::lines().join("\n")).unwrap_or_else(|why| panic!("{file}: {why}"));
    }
    let mut run = ran.unwrap_or_else(|_| Run {
        trace: trace::summary(),
        failures: Vec::new(),
        seen: seen::take(),
        counts: [0; 3],
        virtual_time: trace::now(),
        begun: Vec::new(),
    });
    run.failures.extend(PANICS.lock().unwrap().drain(..));
    run
}

fn log_if_wanted() {
    struct Virtual;
    impl tracing_subscriber::fmt::time::FormatTime for Virtual {
        fn format_time(&self, writer: &mut tracing_subscriber::fmt::format::Writer<'_>) -> std::fmt::Result {
            write!(writer, "{:>10.6}", trace::now().as_secs_f64())
        }
    }
    if let Ok(filter) = std::env::var("LOG") {
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(false)
            .with_timer(Virtual)
            .with_writer(std::io::stderr)
            .init();
    }
}

/// The parent process: hands out the seeds that the environment asks for, compares, counts.
pub fn parent() -> ExitCode {
    let begun = Instant::now();
    let single = number("SEED");
    let seeds: Vec<u64> = match single {
        Some(seed) => vec![seed],
        None => match (number("FROM"), number("SEEDS")) {
            (None, None) => everyday(),
            (from, seeds) => {
                let from = from.unwrap_or(1);
                (from..from + seeds.unwrap_or(EVERYDAY)).collect()
            }
        },
    };
    let twice = |seed: u64| single.is_some() || seed.is_multiple_of(REPEATED);
    // Two at least, so that a seed can be repeated in another process.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = number("JOBS").map_or(cores, |jobs| jobs as usize).max(2);
    let mut jobs: Vec<Vec<String>> = vec![Vec::new(); workers];
    for (n, seed) in seeds.iter().enumerate() {
        if twice(*seed) {
            jobs[n % workers].push(format!("{seed}r"));
            jobs[(n + 1) % workers].push(seed.to_string());
        } else {
            jobs[n % workers].push(seed.to_string());
        }
    }
    let (tell, told) = channel();
    let children: Vec<Child> =
        jobs.iter().filter(|jobs| !jobs.is_empty()).map(|jobs| begin(jobs, &tell, &[])).collect();
    drop(tell);
    let mut results = Results::new(single.is_some());
    let stop = number("STOP").is_some();
    while let Ok(report) = told.recv_timeout(PATIENCE) {
        results.take(report);
        if stop && results.failed() > 0 {
            break;
        }
    }
    for mut child in children {
        // (A child that hangs was given up above.)
        let _ = child.kill();
        let _ = child.wait();
    }
    // (Those that were not run are no failures.)
    let seeds: Vec<u64> = seeds.into_iter().filter(|seed| !stop || results.seeds.contains_key(seed)).collect();
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    let repeated = seeds.iter().filter(|seed| twice(**seed)).count();
    results.end(&seeds, &format!("{:.0} seeds a minute, {repeated} of them repeated", seeds.len() as f64 / minutes))
}

/// The seeds that `cargo test` runs: the first ones, and those that have found a bug.
fn everyday() -> Vec<u64> {
    let first = |line: &str| Some(line.split('#').next()?.split_whitespace().next()?.to_owned());
    let regressions =
        REGRESSIONS.lines().filter_map(first).map(|seed| seed.parse().expect("a line begins with a seed"));
    let seeds: BTreeSet<u64> = (1..=EVERYDAY).chain(regressions).collect();
    seeds.into_iter().collect()
}

/// The number in an environment variable.
pub fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Runs one seed once, in a process of its own with these variables; `None` if that hangs or dies.
pub fn alone(seed: u64, variables: &[(&str, String)]) -> Option<Run> {
    let (tell, told) = channel();
    let mut child = begin(&[seed.to_string()], &tell, variables);
    drop(tell);
    let report = told.recv_timeout(PATIENCE);
    let _ = child.kill();
    let _ = child.wait();
    Some(report.ok()?.run)
}

fn begin(jobs: &[String], tell: &Sender<Report>, variables: &[(&str, String)]) -> Child {
    let mut child = Command::new(std::env::current_exe().expect("a program knows where it is"))
        .env(CHILD, jobs.join(","))
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a program can start itself");
    let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let tell = tell.clone();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let report = serde_json::from_str(&line).unwrap_or_else(|why| panic!("a child said {line:?}: {why}"));
            let _ = tell.send(report);
        }
    });
    child
}

/// The results that the children have reported so far.
struct Results {
    /// The story of a run that passed is printed, too.
    stories: bool,
    /// By seed: the trace that was reported first, and what has failed.
    seeds: BTreeMap<u64, (trace::Summary, Vec<String>)>,
    totals: Totals,
}

impl Results {
    fn new(stories: bool) -> Results {
        let workloads = [workload::names(), zeo::names()].concat();
        let totals = Totals::new(faults::names(), workloads, checks::LOOKED_AT.to_vec());
        Results { stories, seeds: BTreeMap::new(), totals }
    }

    fn take(&mut self, Report { seed, run }: Report) {
        let trace::Summary { hash, events } = &run.trace;
        let ([committed, refused, unknown], seconds) = (run.counts, run.virtual_time.as_secs_f64());
        println!(
            "seed {seed}: {seconds:.1} s, {events} events, {committed} commits, {refused} refused, {unknown} unknown, {hash}"
        );
        let failures = match self.seeds.get_mut(&seed) {
            Some((first, failures)) => {
                failures.extend(repeat::difference("in two processes", first, &run.trace));
                failures
            }
            None => {
                self.totals.add(&run.seen);
                run.seen.lines().iter().for_each(|line| println!("  {line}"));
                if self.stories || !run.failures.is_empty() {
                    run.seen.story.iter().for_each(|line| println!("  {line}"));
                }
                &mut self.seeds.entry(seed).or_insert((run.trace, run.failures)).1
            }
        };
        for failure in failures.iter() {
            println!("  FAILED {failure}");
        }
        if !failures.is_empty() {
            println!("  to repeat it: SEED={seed} cargo test --test sim; with as few faults as can be: SHRINK={seed}");
        }
    }

    /// How many seeds have failed so far.
    fn failed(&self) -> usize {
        self.seeds.values().filter(|(_, failures)| !failures.is_empty()).count()
    }

    /// Prints what all runs come to.
    fn end(self, seeds: &[u64], speed: &str) -> ExitCode {
        let mut failed = self.failed();
        for seed in seeds.iter().filter(|seed| !self.seeds.contains_key(seed)) {
            failed += 1;
            println!("seed {seed}: no result; the process that ran it died or hangs");
            println!("  to repeat it: SEED={seed} cargo test --test sim");
        }
        let passed = seeds.len() - failed;
        if seeds.len() > 1 {
            self.totals.table().iter().for_each(|line| println!("{line}"));
        }
        if seeds.len() as u64 >= EVERYDAY {
            for never in self.totals.never() {
                failed += 1;
                println!("FAILED no run has seen {never}");
            }
        }
        println!("{speed}");
        println!("{passed} passed, {failed} failed");
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
