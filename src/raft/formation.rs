//! How a cluster forms: once, by itself, in any order of starting, and through any crash.
//!
//! 1. A node with an empty folder draws an *incarnation* by chance and fsyncs it. The incarnation is all that the node
//!    knows of itself so far.
//! 2. The founder (the smallest node id of `--peers`) asks all others until each has answered that it is new, has the
//!    same list, and begins with the same data (`base`: none, or an imported database). Then the founder draws the
//!    cluster's id and fsyncs its own [`Stamp`]: cluster, members, incarnations, base.
//! 3. The founder hands the stamp to the others, which fsync it, and asks again until all have it. From the stamp on, a
//!    node runs Raft and votes; but no node is a candidate yet, as no log names members.
//! 4. Once all are stamped, the founder initialises its log with the members. Raft does the rest.
//!
//! **Any crash** resumes at the step whose result is on disk: incarnations are asked for again, a stamp is handed out
//! again, an initialised log is never initialised again.
//!
//! **An empty node that meets a cluster** (its disk was replaced, say, or it is a new one) has an incarnation that no
//! stamp names. Nobody stamps it, and it neither initialises nor votes: a vote of a node that forgot what it had
//! acknowledged could undo a commit. It asks to be let in, until the primary has made it an observer (`admission`). The
//! node says what it waits for, in `/status` and in the log.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use super::base::{LogBase, disagreement};
use super::hello::Purpose;
use super::link::{Caller, Target};
use super::log::LogStore;
use super::stamp::{Stamp, cluster_name, peers_list};
use super::types::{Incarnation, Seat};
use super::wire::{Admission, FormAnswer, FormAsk};
use crate::env::Watch;

pub(super) const STAMP: &str = "stamp";
pub(super) const INCARNATION: &str = "incarnation";
/// How often the others are asked while a cluster forms.
const ROUND: Duration = Duration::from_millis(100);

/// This node's part in forming the cluster.
pub struct Formation {
    pub caller: Caller,
    pub log: LogStore,
    /// The base of this node's store.
    pub base: LogBase,
    /// All members, this node among them, as `--peers` lists them.
    pub peers: BTreeMap<u64, String>,
    /// Set once, when the stamp is on disk.
    pub stamp: Watch<Option<Stamp>>,
    /// Whether this node was let in to a cluster that runs.
    pub admitted: Watch<bool>,
    /// Held while a stamp that came in is considered.
    pub turn: tokio::sync::Mutex<()>,
    /// The condition that this node waits for, in words for people; empty if the node waits for nothing.
    pub waiting: Watch<String>,
}

/// This folder's incarnation: drawn and fsynced when the folder is new.
pub async fn incarnation(log: &LogStore, draw: impl FnOnce() -> u64) -> io::Result<Incarnation> {
    if let Some(known) = log.value(INCARNATION)? {
        return Ok(known);
    }
    let drawn = Incarnation(draw());
    log.set_value(INCARNATION, &drawn).await?;
    Ok(drawn)
}

/// The stamp in this folder, if there is one; an error if the stamp is another node's.
pub fn read_stamp(log: &LogStore, node: u64, incarnation: Incarnation) -> anyhow::Result<Option<Stamp>> {
    let Some(stamp) = log.value::<Stamp>(STAMP)? else { return Ok(None) };
    match stamp.members.get(&incarnation) {
        Some(seat) if seat.node == node => Ok(Some(stamp)),
        Some(Seat { node: owner, .. }) => anyhow::bail!(
            "this data folder belongs to node {owner} of cluster {}, and this is node {node}: \
             start it with --node {owner}, or give --data another folder",
            cluster_name(&stamp.cluster)
        ),
        None => anyhow::bail!(
            "this data folder's stamp does not name it as a member of cluster {}: it was put together from several \
             folders; give --data the folder as it was, or an empty one",
            cluster_name(&stamp.cluster)
        ),
    }
}

/// How a node begins.
#[derive(Clone, Debug)]
pub enum Begun {
    /// As a member.
    Stamped(Stamp),
    /// It was let in to a cluster that runs, and needs that cluster's database first.
    Admitted(Admission),
}

/// What a round of questions has found.
enum Round {
    /// All folders are empty, and all nodes agree: the seats of all.
    Empty(BTreeMap<Incarnation, Seat>),
    Admitted(Admission),
    Waiting,
}

impl Formation {
    fn node(&self) -> u64 {
        self.caller.node
    }

    fn is_founder(&self) -> bool {
        self.peers.keys().next() == Some(&self.node())
    }

    fn others(&self) -> impl Iterator<Item = Target> + '_ {
        let others = self.peers.iter().filter(|(id, _)| **id != self.node());
        others.map(|(node, address)| Target { node: *node, incarnation: None, address: address.clone() })
    }

    /// Returns once this node can begin. On the founder, makes the stamp.
    pub async fn begin(&self) -> io::Result<Begun> {
        let mut stamped = self.stamp.watching();
        loop {
            if let Some(stamp) = stamped.look_now().clone() {
                return Ok(Begun::Stamped(stamp));
            }
            match self.ask_round().await {
                Round::Empty(seats) if self.is_founder() => {
                    let mut cluster = [0; 16];
                    cluster[..8].copy_from_slice(&self.caller.env.seed().to_be_bytes());
                    cluster[8..].copy_from_slice(&self.caller.env.seed().to_be_bytes());
                    self.take_stamp(Stamp { cluster, members: seats, base: self.base.digest() }).await?;
                    continue;
                }
                Round::Admitted(admission) => {
                    let _turn = self.turn.lock().await;
                    if self.stamp.look().is_some() {
                        continue;
                    }
                    self.admitted.send(true);
                    return Ok(Begun::Admitted(admission));
                }
                Round::Empty(_) | Round::Waiting => {}
            }
            let _ = self.caller.env.timeout(ROUND, stamped.changed()).await;
        }
    }

    /// Founder: returns once every other member holds the stamp.
    pub async fn stamp_others(&self, stamp: &Stamp) {
        for Seat { node, address } in stamp.members.values().filter(|seat| seat.node != self.node()) {
            let target = Target { node: *node, incarnation: None, address: address.clone() };
            loop {
                let problem = match self.ask(&target, &FormAsk::Stamp(stamp.clone())).await {
                    Ok(FormAnswer::Stamped(theirs)) if theirs == *stamp => break,
                    Ok(FormAnswer::Stamped(theirs)) => {
                        format!("belongs to cluster {} already", cluster_name(&theirs.cluster))
                    }
                    Ok(FormAnswer::Refused(why)) => why,
                    Ok(FormAnswer::Empty { .. } | FormAnswer::Admitted(_) | FormAnswer::Primary(_)) => {
                        "did not take the cluster's stamp".into()
                    }
                    Err(fault) => fault.to_string(),
                };
                self.wait_for(format!("node {} at {}: {problem}", target.node, target.address));
                self.caller.env.sleep(ROUND).await;
            }
        }
        self.waiting.send(String::new());
    }

    /// Asks all others once.
    async fn ask_round(&self) -> Round {
        let seat = |node: u64| Seat { node, address: self.peers[&node].clone() };
        let mut seats = BTreeMap::from([(self.caller.incarnation, seat(self.node()))]);
        let mut bases = BTreeMap::from([(self.node(), self.base.clone())]);
        let (mut problem, mut refusal) = (None, None);
        for target in self.others() {
            let found = match self.ask(&target, &FormAsk::Probe).await {
                Ok(FormAnswer::Empty { incarnation, peers, base }) if peers == self.peers => {
                    bases.insert(target.node, base);
                    let copied = seats.get(&incarnation).map(|seat| seat.node);
                    match copied {
                        Some(node) => {
                            format!(
                                "has a copy of node {node}'s data folder, made after its first start; give it one of its own"
                            )
                        }
                        None => {
                            seats.insert(incarnation, seat(target.node));
                            continue;
                        }
                    }
                }
                Ok(FormAnswer::Empty { peers, .. }) => {
                    format!("was started with another list: --peers {}", peers_list(&peers))
                }
                Ok(FormAnswer::Stamped(stamp)) => {
                    let knows_this = stamp.members.contains_key(&self.caller.incarnation);
                    match self.ask_to_join(&target, &stamp).await {
                        Ok(admission) => return Round::Admitted(admission),
                        // (The founder is handing out the stamp, and will come here too.)
                        Err(_) if knows_this && stamp.addresses() == self.peers => continue,
                        Err(why) => {
                            refusal.get_or_insert(format!("node {} at {}: {why}", target.node, target.address));
                            continue;
                        }
                    }
                }
                Ok(FormAnswer::Refused(why)) => why,
                Ok(FormAnswer::Admitted(_) | FormAnswer::Primary(_)) => "gave an answer to another question".into(),
                Err(fault) => fault.to_string(),
            };
            problem.get_or_insert(format!("node {} at {}: {found}", target.node, target.address));
        }
        if let Some(disagreement) = disagreement(&bases) {
            self.wait_for(disagreement);
            return Round::Waiting;
        }
        // (What a cluster says that is there counts more than who can't be reached.)
        match refusal.or(problem) {
            Some(problem) => {
                self.wait_for(problem);
                Round::Waiting
            }
            None if seats.len() == self.peers.len() => Round::Empty(seats),
            None => Round::Waiting,
        }
    }

    /// Asks a member of the cluster with that stamp to let this node in. The error says why it is not in yet.
    async fn ask_to_join(&self, target: &Target, stamp: &Stamp) -> Result<Admission, String> {
        let cluster = cluster_name(&stamp.cluster);
        if self.base != LogBase::default() {
            return Err(format!(
                "belongs to cluster {cluster} already, and this node's data folder has {}: empty the folder, and the \
                 node is let in",
                self.base
            ));
        }
        let mut answer = self.ask(target, &FormAsk::Join).await;
        if let Ok(FormAnswer::Primary(seat)) = answer {
            let primary = Target { node: seat.node, incarnation: None, address: seat.address };
            answer = self.ask(&primary, &FormAsk::Join).await;
        }
        let why = match answer {
            Ok(FormAnswer::Admitted(admission)) if admission.stamp.members.contains_key(&self.caller.incarnation) => {
                return Ok(admission);
            }
            Ok(FormAnswer::Refused(why)) => why,
            Ok(FormAnswer::Primary(seat)) => format!("node {} is the primary, perhaps", seat.node),
            Ok(_) => "it answered another question".into(),
            Err(fault) => fault.to_string(),
        };
        Err(format!(
            "belongs to cluster {cluster} already, which does not know this node's (empty) data folder; this node does \
             not vote, and waits to be let in: {why}"
        ))
    }

    /// Asks a node a question about forming a cluster.
    pub async fn ask(&self, target: &Target, ask: &FormAsk) -> io::Result<FormAnswer> {
        let mut connection = self.caller.connect(target, None, Purpose::Form).await?;
        let exchange = async {
            connection.send(ask).await?;
            connection.receive().await
        };
        let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer");
        self.caller.env.timeout(self.caller.patience, exchange).await.unwrap_or_else(|_| Err(late()))
    }

    /// Answers a question about forming a cluster.
    pub async fn answer(&self, ask: FormAsk) -> io::Result<FormAnswer> {
        match ask {
            FormAsk::Probe => Ok(self.present()),
            FormAsk::Stamp(stamp) => self.consider(stamp).await,
            FormAsk::Join => Ok(FormAnswer::Refused("this node can't let others in".into())),
        }
    }

    fn present(&self) -> FormAnswer {
        match &*self.stamp.look() {
            Some(stamp) => FormAnswer::Stamped(stamp.clone()),
            None => FormAnswer::Empty {
                incarnation: self.caller.incarnation,
                peers: self.peers.clone(),
                base: self.base.clone(),
            },
        }
    }

    async fn consider(&self, stamp: Stamp) -> io::Result<FormAnswer> {
        // One stamp at a time, from the check to the disk: of two stamps only one is taken.
        let _turn = self.turn.lock().await;
        if let Some(mine) = self.stamp.look().clone() {
            return Ok(FormAnswer::Stamped(mine));
        }
        if *self.admitted.look() {
            return Ok(FormAnswer::Refused("is about to begin with the database of another cluster".into()));
        }
        if stamp.members.len() != self.peers.len() || stamp.addresses() != self.peers {
            let why = format!("was started with another list: --peers {}", peers_list(&self.peers));
            return Ok(FormAnswer::Refused(why));
        }
        if stamp.members.get(&self.caller.incarnation).map(|seat| seat.node) != Some(self.node()) {
            let why = "has a data folder that is newer than the cluster that is being formed; if that cluster has \
                       never run, empty the data folders of all its nodes and start them again";
            return Ok(FormAnswer::Refused(why.into()));
        }
        if stamp.base != self.base.digest() {
            let why = format!("does not begin with the same data: it has {}", self.base);
            return Ok(FormAnswer::Refused(why));
        }
        self.take_stamp(stamp.clone()).await?;
        Ok(FormAnswer::Stamped(stamp))
    }

    async fn take_stamp(&self, stamp: Stamp) -> io::Result<()> {
        self.log.set_value(STAMP, &stamp).await?;
        tracing::info!("this node is a member of cluster {}", cluster_name(&stamp.cluster));
        self.stamp.send(Some(stamp));
        self.waiting.send(String::new());
        Ok(())
    }

    /// Says what this node waits for.
    pub fn wait_for(&self, what: String) {
        self.waiting.send_if(|waiting| {
            if *waiting == what {
                return false;
            }
            tracing::info!("waiting for {what}");
            *waiting = what;
            true
        });
    }
}
