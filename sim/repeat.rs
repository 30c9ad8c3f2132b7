//! **One seed, one run.** The same seed gives the same trace, byte for byte: in the same process, and in another.
//!
//! Everything else here rests on this: a failure that can't be repeated can't be understood. Kept out of everything
//! above the seams, as they would break it: clocks, chance and threads that are not `Env`'s, the order of hash maps,
//! unbiased `select!`, tokio's watch (which wakes by chance).

use crate::trace::Summary;

/// Begins a run with a task number that divides by four.
///
/// When a host crashes, tokio drops its tasks in four lists, chosen by the task's number, and turmoil draws delays for
/// what the tasks send at their end, in that order. The numbers go on through all runs of a process.
pub fn align_task_ids() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        loop {
            let id: u64 = tokio::spawn(async {}).id().to_string().parse().unwrap();
            if id % 4 == 3 {
                return;
            }
        }
    });
}

/// The difference between two runs of a seed that were made `place` ('in one process'), if there is one.
pub fn difference(place: &str, first: &Summary, second: &Summary) -> Option<String> {
    (first != second).then(|| {
        format!(
            "repeat: {place}, the same seed gave {} events with hash {}, and {} with {}",
            first.events, first.hash, second.events, second.hash
        )
    })
}
