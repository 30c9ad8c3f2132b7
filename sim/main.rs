//! The simulation: a whole cluster and its clients in one thread, in virtual time, by a seed.
//!
//! What runs is the real server, storage, log and client over simulated seams (`zrs::net::Network`, `zrs::env::World`,
//! `zrs::engine::SimDisk`); nothing above them knows. Each seed draws its own network delays, disk delays, clocks, load and
//! faults; what must hold all the same stands in `checks/`, one promise per file. A seed's run is the same each time, so that
//! a failure can be looked at as often as it takes.
//!
//! ```text
//! cargo test --test sim                      the everyday seeds
//! SEED=7 cargo test --test sim               one seed, twice, and its story
//! SEEDS=500 FROM=1000 cargo test --test sim  many
//! TRACE=/tmp/t SEED=7 cargo test --test sim  writes the events to /tmp/t.7.1 and /tmp/t.7.2
//! LOG=zrs=debug SEED=7 cargo test --test sim -- with the servers' log, in virtual time, on standard error
//! ```
//!
//! The parent process hands the seeds to children, one per core, as a run needs a thread of its own and its panics
//! should end nothing else. Every fifth seed runs twice in one child and once in another: `repeat`.

mod chance;
mod checks;
mod cluster;
mod disk;
mod faults;
mod history;
mod network;
mod repeat;
mod run;
mod trace;
mod workload;
mod world;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use run::Run;

/// How many seeds `cargo test` runs.
const EVERYDAY: u64 = 40;
/// One seed of so many is repeated.
const REPEATED: u64 = 5;
/// How long (of real time) a run may take: it takes seconds.
const PATIENCE: Duration = Duration::from_secs(600);
/// The seeds that a child is to run.
const CHILD: &str = "ZRS_SIM_CHILD";

/// What panicked, anywhere: a task's panic would be swallowed by its runtime.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn main() -> ExitCode {
    if let Ok(seeds) = std::env::var(CHILD) {
        child(&seeds);
        return ExitCode::SUCCESS;
    }
    // `cargo test NAME` gives every test program the name, and wants only tests that are called so.
    let mut arguments = std::env::args().skip(1);
    if arguments
        .any(|argument| argument == "--list" || !(argument.starts_with('-') || "simulation".contains(&argument)))
    {
        println!("0 passed, 0 failed");
        return ExitCode::SUCCESS;
    }
    parent()
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

// The child: runs seeds one after the other, and says how each came out in one line of its standard output.

fn child(seeds: &str) {
    log_if_wanted();
    std::panic::set_hook(Box::new(|panic| PANICS.lock().unwrap().push(panic.to_string())));
    for job in seeds.split(',') {
        let (seed, repeated) = job.strip_suffix('r').map_or((job, false), |seed| (seed, true));
        let seed: u64 = seed.parse().expect("the parent writes numbers");
        let first = one(seed, 1);
        let mut failures = first.failures;
        if repeated {
            let second = one(seed, 2);
            failures.extend(repeat::difference("in one process", &first.trace, &second.trace));
        }
        let report = Report {
            seed,
            hash: first.trace.hash,
            events: first.trace.events,
            counts: first.counts,
            millis: first.virtual_time.as_millis() as u64,
            failures,
            story: first.story,
        };
        println!("{}", serde_json::to_string(&report).expect("a report is plain data"));
        let _ = std::io::stdout().flush();
    }
}

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
        story: Vec::new(),
        counts: [0; 3],
        virtual_time: Duration::ZERO,
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

/// How a seed came out, from the child to the parent.
#[derive(serde::Serialize, serde::Deserialize)]
struct Report {
    seed: u64,
    hash: String,
    events: u64,
    counts: [usize; 3],
    millis: u64,
    failures: Vec<String>,
    story: Vec<String>,
}

// The parent: hands out the seeds, compares, counts.

/// A seed that a child runs.
struct Job {
    seed: u64,
    twice: bool,
}

fn parent() -> ExitCode {
    let begun = Instant::now();
    let single = number("SEED");
    let seeds: Vec<u64> = match single {
        Some(seed) => vec![seed],
        None => {
            let from = number("FROM").unwrap_or(1);
            (from..from + number("SEEDS").unwrap_or(EVERYDAY)).collect()
        }
    };
    let repeated: Vec<u64> = seeds.iter().copied().filter(|seed| single.is_some() || seed % REPEATED == 0).collect();
    // Two at least, so that a seed can be repeated in another process.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = number("JOBS").map_or(cores, |jobs| jobs as usize).max(2);
    let mut jobs: Vec<Vec<Job>> = (0..workers).map(|_| Vec::new()).collect();
    for (n, seed) in seeds.iter().enumerate() {
        let twice = repeated.contains(seed);
        jobs[n % workers].push(Job { seed: *seed, twice });
        if twice {
            jobs[(n + 1) % workers].push(Job { seed: *seed, twice: false });
        }
    }
    let (tell, told) = channel();
    let children: Vec<Child> = jobs.iter().filter(|jobs| !jobs.is_empty()).map(|jobs| begin(jobs, &tell)).collect();
    drop(tell);
    let failed = collect(&seeds, &told, single.is_some());
    for mut child in children {
        // (One that hangs was given up above.)
        let _ = child.kill();
        let _ = child.wait();
    }
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    println!("{:.0} seeds a minute, {} of them repeated", seeds.len() as f64 / minutes, repeated.len());
    println!("{} passed, {failed} failed", seeds.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn begin(jobs: &[Job], tell: &Sender<Report>) -> Child {
    let list: Vec<String> =
        jobs.iter().map(|job| format!("{}{}", job.seed, if job.twice { "r" } else { "" })).collect();
    let mut child = Command::new(std::env::current_exe().expect("a program knows where it is"))
        .env(CHILD, list.join(","))
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

/// Takes the reports as they come; returns how many seeds have failed.
fn collect(seeds: &[u64], told: &Receiver<Report>, single: bool) -> usize {
    let mut failures: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    let mut first: BTreeMap<u64, trace::Summary> = BTreeMap::new();
    while let Ok(report) = told.recv_timeout(PATIENCE) {
        let Report { seed, hash, events, counts: [committed, refused, unknown], millis, .. } = &report;
        let seconds = *millis as f64 / 1_000.0;
        println!(
            "seed {seed}: {seconds:.1} s, {events} events, {committed} commits, {refused} refused, {unknown} unknown, {hash}"
        );
        let trace = trace::Summary { hash: hash.clone(), events: *events };
        let known = failures.entry(*seed).or_default();
        match first.get(seed) {
            Some(earlier) => known.extend(repeat::difference("in two processes", earlier, &trace)),
            None => {
                first.insert(*seed, trace);
                known.extend(report.failures.clone());
                if single || !report.failures.is_empty() {
                    report.story.iter().for_each(|line| println!("  {line}"));
                }
            }
        }
        for failure in known.iter() {
            println!("  FAILED {failure}");
        }
        if !known.is_empty() {
            println!("  to repeat it: SEED={seed} cargo test --test sim");
        }
    }
    for seed in seeds {
        if !first.contains_key(seed) {
            println!(
                "seed {seed}: no result; the process that ran it died or hangs\n  to repeat it: SEED={seed} cargo test --test sim"
            );
            failures.entry(*seed).or_default().push("no result".to_owned());
        }
    }
    failures.values().filter(|failures| !failures.is_empty()).count()
}
