//! The smallest run that still fails: the run of a seed with fewer and fewer of the faults that began in it, and with
//! less and less time for them.
//!
//! A fault's streams of chance are its own, and there is one for each time that it begins. So one that is left out
//! (`ONLY`) changes nothing of the others but what follows from it.
//!
//! ```text
//!   full      kill.0  reset.0  pause.0  kill.1  at_reign.0 │ 15.0 s │ no_lost_commit
//!   halves                     pause.0  kill.1  at_reign.0 │  4.2 s │ no_lost_commit
//!   quarters                            kill.1  at_reign.0 │  4.2 s │ no_lost_commit
//!   smallest                            kill.1             │  4.2 s │ no_lost_commit
//! ```

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use crate::excerpt::Excerpt;
use crate::run::Run;
use crate::runner;

/// In steps of so many milliseconds the time is shortened, at last.
const STEP: u64 = 100;

/// A seed that fails, and the smallest run of it that fails in the same way so far.
struct Smallest {
    seed: u64,
    /// The check that fails.
    check: String,
    excerpt: Excerpt,
    run: Run,
}

/// Makes the run of a seed smaller until nothing can be left out any more, and prints the line that repeats it.
pub fn parent(seed: u64) -> ExitCode {
    let Some(run) = runner::alone(seed, &[]) else {
        println!("seed {seed} hangs, or its process dies: that can't be made smaller");
        return ExitCode::FAILURE;
    };
    let Some(check) = failed(&run) else {
        println!("seed {seed} passes: there is nothing to make smaller");
        return ExitCode::SUCCESS;
    };
    let mut smallest = Smallest { seed, check, excerpt: Excerpt::default(), run };
    smallest.tell();
    smallest.shorten();
    smallest.leave_out();
    smallest.shorten();
    smallest.run.seen.story.iter().for_each(|line| println!("  {line}"));
    smallest.run.failures.iter().for_each(|failure| println!("  FAILED {failure}"));
    let variables: Vec<String> =
        smallest.excerpt.variables().into_iter().map(|(name, value)| format!("{name}={value} ")).collect();
    println!("  smallest: {}SEED={seed} cargo test --test sim", variables.concat());
    ExitCode::FAILURE
}

/// The check that a run has failed.
fn failed(run: &Run) -> Option<String> {
    Some(run.failures.first()?.split(':').next()?.to_owned())
}

impl Smallest {
    /// Whether the run fails in the same way with less; then that is the smallest.
    fn fails_with(&mut self, excerpt: Excerpt) -> bool {
        let run = runner::alone(self.seed, &excerpt.variables());
        let Some(run) = run.filter(|run| failed(run).as_ref() == Some(&self.check)) else { return false };
        (self.excerpt, self.run) = (excerpt, run);
        self.tell();
        true
    }

    fn tell(&self) {
        let (faults, seconds) = (self.run.begun.len(), self.run.virtual_time.as_secs_f64());
        println!("seed {}: {faults} faults, {seconds:.1} s, {}", self.seed, self.check);
    }

    /// Ends the faults' time earlier, by halves of what may be left out.
    fn shorten(&mut self) {
        let (mut too_short, mut enough) = (0, self.excerpt.until.map_or(15_000, |until| until.as_millis() as u64));
        while enough - too_short > STEP {
            let middle = too_short.midpoint(enough) / STEP * STEP;
            let until = Some(Duration::from_millis(middle));
            if middle > too_short && self.fails_with(Excerpt { until, ..self.excerpt.clone() }) {
                enough = middle;
            } else {
                too_short = middle.max(too_short + STEP);
            }
        }
    }

    /// Leaves out faults: all, each half, each quarter, and so on, down to each single one.
    fn leave_out(&mut self) {
        let of = |faults: &[String]| Some(faults.iter().cloned().collect::<BTreeSet<_>>());
        if self.fails_with(Excerpt { only: of(&[]), ..self.excerpt.clone() }) {
            return;
        }
        let mut left = self.run.begun.clone();
        let mut size = left.len().div_ceil(2);
        while size > 0 && !left.is_empty() {
            let mut from = 0;
            while from < left.len() {
                let mut rest = left.clone();
                rest.drain(from..(from + size).min(left.len()));
                if self.fails_with(Excerpt { only: of(&rest), ..self.excerpt.clone() }) {
                    left = rest;
                } else {
                    from += size;
                }
            }
            size = if size == 1 { 0 } else { size.div_ceil(2) };
        }
    }
}
