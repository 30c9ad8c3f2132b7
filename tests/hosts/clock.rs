//! Clocks: a node whose clock is far ahead does not lead, and the lease of a machine that was suspended is over.

use std::sync::atomic::Ordering::SeqCst;

use crate::site::{LEASE, Site, scoped};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_clock_is_far_ahead_hands_the_role_over() {
    scoped(async {
        let site = Site::start().await;
        let before = site.set("before").await;
        let primary = site.primary().await;
        site.hosts[primary].clocks.ahead.store(600_000, SeqCst);
        site.until("other primary", || {
            site.hosts.iter().position(|host| host.is_primary()).filter(|at| *at != primary)
        })
        .await;
        site.until("alarm", || {
            let alarms = site.hosts[primary].status().node.alarms;
            alarms.iter().any(|alarm| alarm.starts_with("its clock is ")).then_some(())
        })
        .await;
        let after = site.set("after").await;
        // (Its last transactions may have been ahead. But then the next ones are so by a little only.)
        assert!(after > before);
        let now = site.hosts[primary].node().transfer(None).await;
        assert!(now.is_err(), "it has nothing to hand over");
        let number = site.hosts[primary].status().node.node;
        let other = site.primary().await;
        site.refuses(number, &["can't take over", "clock"]).await;

        site.hosts[primary].clocks.ahead.store(0, SeqCst);
        site.until("end of the alarm", || site.hosts[primary].status().node.alarms.is_empty().then_some(())).await;
        site.until("word of it", || {
            let members = site.hosts[other].status().node.members;
            members.iter().all(|member| member.unfit.is_none()).then_some(())
        })
        .await;
        site.hand_over(number).await;
        site.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lease_of_a_suspended_machine_is_over() {
    scoped(async {
        let site = Site::start().await;
        site.set("before").await;
        let primary = site.primary().await;
        let reign = site.hosts[primary].store().reign();
        site.hosts[primary].clocks.suspended.store(2 * LEASE.as_millis() as u64, SeqCst);
        // To its own clock the lease holds; so nobody else has been elected, and it begins a reign of its own again.
        site.until("other reign", || (site.hosts[primary].store().reign() > reign).then_some(())).await;
        site.set("after").await;
        site.stop().await;
    })
    .await;
}
