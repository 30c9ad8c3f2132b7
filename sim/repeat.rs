//! **One seed, one run.** The same seed gives the same trace, byte for byte: in the same process, and in another.
//!
//! Everything else here rests on it: a failure that can't be repeated can't be understood. What would break it, and is
//! kept out of everything above the seams: clocks, chance and threads that are not `Env`'s, the order of hash maps,
//! unbiased `select!`, tokio's watch (it wakes by chance).

use crate::trace::Summary;

/// When a host crashes, tokio drops its tasks in four lists, chosen by the task's number, and turmoil draws delays in the order
/// of their last words. The numbers are the process's own: so every run begins with one that divides by four.
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

/// What is wrong if two runs of a seed came out like this.
pub fn difference(where_: &str, first: &Summary, second: &Summary) -> Option<String> {
    (first != second).then(|| {
        format!(
            "repeat: {where_}, the same seed gave {} events with hash {}, and {} with {}",
            first.events, first.hash, second.events, second.hash
        )
    })
}
