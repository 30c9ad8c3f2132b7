//! Disks that fill up: a node with too little room takes no new entries and does not lead, says so, and comes back by
//! itself; with too few nodes left that have room, writing is refused with the reason.

use std::sync::atomic::Ordering::SeqCst;

use crate::site::{ROOM, Site, scoped};
use crate::support::PATIENCE;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_and_left_in_order() {
    scoped(async {
        let site = Site::start().await;
        site.set("before").await;
        let full = site.primary().await;
        let reserve = site.hosts[full].config().disk_reserve;

        // The primary's disk: another node takes the role, and commits go on.
        site.hosts[full].free.store(reserve / 2 - 1, SeqCst);
        let next = site
            .until("other primary", || site.hosts.iter().position(|host| host.is_primary()).filter(|at| *at != full))
            .await;
        let status = site
            .until("alarm", || {
                let status = site.hosts[full].status().node;
                let is_told = |alarm: &String| alarm.contains("its disk is nearly full: 255 MiB are free at");
                status.alarms.iter().any(is_told).then_some(status)
            })
            .await;
        assert!(status.fault.is_none(), "the node goes on");
        let held = status.log;
        for n in 0..20 {
            site.set(&format!("without it {n}{}", "x".repeat(10_000))).await;
        }
        assert!(site.hosts[full].status().node.log <= held + 4, "the full disk takes nothing more");
        site.until("word of it", || {
            let members = site.hosts[next].status().node.members;
            members.iter().find(|member| member.unfit.is_some()).map(drop)
        })
        .await;

        // A second one: no majority has room, and clients are told so.
        let second = (0..3).find(|at| *at != full && *at != next).unwrap();
        site.hosts[second].free.store(0, SeqCst);
        site.until("refusal", || site.hosts[next].node().no_room()).await;
        let refusing = async {
            loop {
                let refused = site.try_set("refused").await.unwrap_err().to_string();
                if refused.contains("the disks of 2 of 3 nodes are nearly full") {
                    return;
                }
                println!("not for that reason: {refused}");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, refusing).await.expect("a refusal with its reason");
        site.until("primary: reading goes on", || site.hosts[next].is_primary().then_some(())).await;

        // With room again, all of it comes back by itself.
        site.hosts[full].free.store(ROOM, SeqCst);
        site.hosts[second].free.store(ROOM, SeqCst);
        site.set("after").await;
        site.until("caught up node", || {
            let (mine, its) = (site.hosts[full].status().node, site.hosts[next].status().node);
            (mine.alarms.is_empty() && mine.applied >= its.committed).then_some(())
        })
        .await;
        site.stop().await;
    })
    .await;
}
