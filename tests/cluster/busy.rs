//! A machine whose processors are all taken: no reign ends, and clients go on.

use std::process::{Child, Command};
use std::time::Duration;

use crate::counters::Counters;
use crate::support::cluster::Cluster;
use crate::times;

/// Processes that take all the processor time that they get.
struct Load(Vec<Child>);

impl Load {
    fn start(count: usize) -> Load {
        let spin = || Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        Load((0..count).map(|_| spin()).collect())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for process in &mut self.0 {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

#[test]
fn a_busy_machine_costs_no_reign() {
    let mut cluster = Cluster::started(3);
    cluster.wait_ready();
    let counters = Counters::start(&cluster);
    let primary = cluster.wait_primary();
    let begun = |cluster: &Cluster| {
        let text: String = cluster.nodes.iter().map(|node| node.log_text()).collect();
        text.matches("primary: reign").count()
    };
    let before = begun(&cluster);
    let load = Load::start(15);
    std::thread::sleep(Duration::from_secs(times(20, 600) as u64));
    counters.wait_progress(&cluster);
    drop(load);
    assert_eq!(begun(&cluster), before, "a reign has ended");
    assert!(cluster.nodes[primary].is_primary());
    counters.check(&cluster);
}
