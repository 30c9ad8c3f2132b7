//! **Only voters count.** Who is primary is a voter, with the very folder that the members have for its number; what is
//! committed lies in the logs of more than half of the voters, whatever observers have; and a node that was not let in
//! has voted for nobody.

use std::collections::BTreeMap;
use std::sync::Arc;

use zrs::raft::Role;
use zrs::roster::Part;
use zrs::server::Server;

use crate::cluster::Cluster;
use crate::seats::Seats;
use crate::seen;

pub const LOOKS: &str = "voters_lead: looks at primaries";
pub const STRANGERS: &str = "voters_lead: looks at nodes that wait to be let in";
pub const OBSERVERS: &str = "voters_lead: looks at commits beside observers";

/// How often commits are counted, in looks: it takes a while.
const EVERY: u64 = 7;

#[derive(Default)]
pub struct Led {
    looks: u64,
    /// By primary, its reign and what it had committed at the last look.
    committed: BTreeMap<u64, (String, u64)>,
}

impl Led {
    pub fn look(&mut self, cluster: &Cluster, servers: &BTreeMap<u64, Arc<Server>>) -> Result<(), String> {
        self.looks += 1;
        for (node, server) in servers {
            match &*server.node().role().look() {
                Role::Primary(reign) => {
                    seen::check(LOOKS, 1);
                    // (A reign begins with an entry that it has applied, so it has applied what made it a voter.)
                    let Some(seats) = Seats::of(server.store()) else { continue };
                    if server.is_primary() && !seats.voting().contains(node) {
                        return Err(format!("voters_lead: node {node} is primary, and {:?} vote", seats.voting()));
                    }
                    if self.looks.is_multiple_of(EVERY) {
                        self.count(*node, server, format!("{reign:?}"), &seats)?;
                    }
                }
                Role::Forming(_) if self.looks.is_multiple_of(EVERY) && cluster.node(*node).was_wiped => {
                    let status = server.node().status();
                    if status.cluster.is_none() {
                        seen::check(STRANGERS, 1);
                        if status.term > 0 || status.log > 0 {
                            return Err(format!("voters_lead: node {node} was not let in, and has {status:?}"));
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Counts who has what is committed.
    fn count(&mut self, node: u64, server: &Server, reign: String, seats: &Seats) -> Result<(), String> {
        let status = server.node().status();
        let is_news = |last: &(String, u64)| last.0 == reign && last.1 < status.committed;
        let news = self.committed.get(&node).is_some_and(is_news);
        self.committed.insert(node, (reign, status.committed));
        let voters: Vec<_> = status.members.iter().filter(|member| member.part == Part::Voter).collect();
        // (In the middle of a change, a majority of those before it counts, or of those after it.)
        if !news || voters.iter().map(|member| member.node).ne(seats.voting()) {
            return Ok(());
        }
        let has = |log: Option<u64>| log.is_some_and(|log| log >= status.committed);
        let have = voters.iter().filter(|member| member.node == node || has(member.log)).count();
        let observers = status.members.len() > voters.len();
        seen::check(OBSERVERS, u64::from(observers));
        if have * 2 <= voters.len() {
            let committed = status.committed;
            return Err(format!(
                "voters_lead: {committed} entries are committed, and {have} of {} voters have them: {:?}",
                voters.len(),
                status.members
            ));
        }
        Ok(())
    }
}
