//! A rolling upgrade: nodes of two versions work together, and the newer format is used once all know it. (The newer
//! version is this one that passes for the next.)

use crate::counters::Counters;
use crate::support::cluster::Cluster;
use crate::support::{PATIENCE, wait_for};

const NEWER: &str = "--pretend-newer";

/// The newest format that a node knows, and the one in which it would propose.
fn formats(cluster: &Cluster, index: usize) -> Option<(u64, u64)> {
    let status = cluster.nodes[index].status();
    Some((status["format"].as_u64()?, status["proposes"].as_u64()?))
}

#[test]
fn a_rolling_upgrade_loses_nothing_and_changes_the_format_at_its_end() {
    let mut cluster = Cluster::started(3);
    cluster.wait_ready();
    let counters = Counters::start(&cluster);
    let first = cluster.wait_primary();
    let old = formats(&cluster, first).unwrap().0;
    for (upgraded, index) in [(first + 1) % 3, (first + 2) % 3, first].into_iter().enumerate() {
        assert!(cluster.nodes[index].terminate().success());
        cluster.nodes[index].options = vec![NEWER.into()];
        cluster.start(index);
        cluster.wait_ready();
        counters.wait_progress(&cluster);
        let primary = cluster.wait_primary();
        assert_eq!(formats(&cluster, index).unwrap().0, old + 1);
        if upgraded < 2 {
            assert_eq!(formats(&cluster, primary).unwrap().1, old, "a member knows the old format only");
        }
    }
    let primary = cluster.wait_primary();
    let proposes = || formats(&cluster, primary).filter(|(_, proposes)| *proposes == old + 1);
    wait_for(|| format!("the new format: {}", cluster.situation()), PATIENCE, proposes);
    counters.wait_progress(&cluster);

    // There is no way back: a node of the old version can't apply what it gets, and says so.
    let index = (cluster.wait_primary() + 1) % 3;
    assert!(cluster.nodes[index].terminate().success());
    cluster.nodes[index].options.clear();
    let said = cluster.nodes[index].log_text().len();
    cluster.start(index);
    let node = &mut cluster.nodes[index];
    wait_for(|| "the node to end".into(), PATIENCE, || (!node.is_running()).then_some(()));
    node.kill();
    let said = node.log_text().split_off(said);
    assert!(said.contains(&format!("a command of format {}", old + 1)) && said.contains("update zrsd"), "{said}");
    cluster.nodes[index].options = vec![NEWER.into()];
    cluster.start(index);
    cluster.wait_ready();
    counters.check(&cluster);
}
