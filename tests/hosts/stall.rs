//! A disk that stalls: heartbeats are answered from memory, so that a reign outlives fsyncs that take longer than its
//! lease.

use std::sync::atomic::Ordering::SeqCst;

use crate::site::{Gate, Site, scoped};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reign_outlives_disks_that_stall() {
    scoped(stall()).await;
}

async fn stall() {
    let site = Site::start().await;
    site.set("before").await;
    let primary = site.primary().await;
    let lease = site.hosts[primary].config().election_timeout;
    let reign = site.hosts[primary].store().reign();

    // Both secondaries have a commit to sync, and can't, for the time of many leases.
    let secondaries: Vec<&Gate> = (0..3).filter(|at| *at != primary).map(|at| &site.hosts[at].gate).collect();
    let held: Vec<Gate> = secondaries.into_iter().cloned().collect();
    let (let_go, wait_for_it) = std::sync::mpsc::channel::<()>();
    let gates = held.clone();
    let (closed, are_closed) = tokio::sync::oneshot::channel();
    // (A lock of the standard library must not be held over an await.)
    let holder = std::thread::spawn(move || {
        let guards: Vec<_> = gates.iter().map(Gate::hold).collect();
        closed.send(()).unwrap();
        let _ = wait_for_it.recv();
        drop(guards);
    });
    are_closed.await.unwrap();
    let mut commit = Box::pin(site.set("during"));
    let stalled = async {
        let waits = || held.iter().all(|gate| gate.waiting.load(SeqCst) > 0).then_some(());
        site.until("fsync that waits at both", waits).await;
        tokio::time::sleep(lease * 6).await;
    };
    tokio::select! {
        tid = &mut commit => panic!("committed as {tid} without a majority's disks"),
        () = stalled => {}
    }
    assert!(site.hosts[primary].is_primary(), "the reign is over");
    let_go.send(()).unwrap();
    holder.join().unwrap();
    commit.await;
    assert!(site.hosts[primary].is_primary());
    assert_eq!(site.hosts[primary].store().reign(), reign, "another reign has begun");
    site.stop().await;
}
