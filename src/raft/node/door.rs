//! The door of a node for its peers: decides which connections are a peer's, and hands clients on from node to node.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::inner::{Inner, Member, NO_MEMBER, Role, Running};
use super::welcome;
use crate::config::limits;
use crate::net::{Credentials, FrameReader, FrameWriter, rehome};
use crate::raft::fetch;
use crate::raft::hello::{Hello, Purpose, Verdict, Welcome, read_hello};
use crate::raft::link::{Connection, Target};
use crate::raft::obituary::{Obituary, Will};
use crate::raft::peers::{Callee, serve_calls};
use crate::raft::stamp::{Stamp, cluster_name};
use crate::raft::types::Ballot;
use crate::raft::wire::{FormAsk, RelayRequest};

/// The relay did not come about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayRefused(pub String);

/// The result of a connection that began with `P1`.
pub enum Accepted {
    /// The connection was a peer's, and is closed.
    Served,
    /// A peer hands over a client; the streams carry that client's dialogue from here on.
    Relay(RelayRequest, Box<(FrameReader, FrameWriter)>),
    /// The connection was refused, or broke, for the reason given.
    Refused(String),
}

/// Takes over a connection whose first frame began with `P1`; returns when it has ended or is a client's.
/// `credentials`: what the peer has shown, where TLS is spoken. `unproven`: dropped once the peer has proved its
/// membership.
pub async fn accept(
    node: &Arc<Inner>,
    first: Bytes,
    mut connection: Connection,
    peer: &str,
    credentials: Option<&Credentials>,
    unproven: impl Send,
) -> Accepted {
    let hello = match admit(node, &first, &mut connection, peer, credentials).await {
        Ok(hello) => hello,
        Err(fault) => return Accepted::Refused(fault.to_string()),
    };
    drop(unproven);
    // Only a peer that has proved its membership may send frames of this size.
    connection.reader.set_limit(limits::PEER_FRAME);
    let (env, from) = (node.env(), hello.from);
    let served = match (hello.purpose, node.running.get()) {
        (Purpose::Form, _) => {
            let answered = env.timeout(limits::HANDSHAKE_TIMEOUT, form(node, &hello, &mut connection));
            answered.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        }
        (Purpose::Calls, Some(_)) => {
            let serving = node.clone();
            OnOwnThread(env.spawn(async move { serve(&serving, &hello, connection).await })).ended().await
        }
        (Purpose::Relay, Some(_)) => return accept_relay(node, connection).await,
        (Purpose::Fetch, Some(_)) => {
            let unable = || no_source(node);
            fetch::serve(&node.work, &node.checkpoints, connection, hello.from_incarnation, unable).await
        }
        (Purpose::Calls | Purpose::Relay | Purpose::Fetch, None) => Ok(()),
    };
    if let Err(fault) = served {
        tracing::debug!("the connection of node {from} ended: {fault}");
    }
    Accepted::Served
}

/// Why other nodes are not to have a copy of this node's database.
fn no_source(node: &Inner) -> Option<String> {
    let differs = || {
        let is_doubtful = !matches!(node.role(), Role::Primary(_)) && !node.alarms.look().is_empty();
        is_doubtful.then(|| "its database is not that of another node, and which of them is right is not known".into())
    };
    node.fitness.no_room().or_else(|| node.fitness.damage()).or_else(differs)
}

/// Answers one question about forming the cluster, or joining it.
async fn form(node: &Arc<Inner>, hello: &Hello, connection: &mut Connection) -> io::Result<()> {
    let answer = match connection.receive().await? {
        FormAsk::Join => welcome::answer(node, hello).await,
        ask => node.formation.answer(ask).await?,
    };
    connection.send(&answer).await
}

/// A task of Raft's thread; dropping this ends the task.
struct OnOwnThread(JoinHandle<io::Result<()>>);

impl OnOwnThread {
    async fn ended(mut self) -> io::Result<()> {
        (&mut self.0).await.unwrap_or_else(|panic| Err(io::Error::other(panic)))
    }
}

impl Drop for OnOwnThread {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Answers a peer's calls. Runs on Raft's thread, where also the socket's events come from then.
async fn serve(node: &Inner, hello: &Hello, mut connection: Connection) -> io::Result<()> {
    let Some(Running { raft, peers, lease, .. }) = node.running.get() else { return Ok(()) };
    if let Some(seat) = &hello.seat {
        peers.said(hello.from_incarnation, &seat.now);
    }
    rehome(&mut connection.reader, &mut connection.writer)?;
    let Inner { log, heard, fitness, caller, store, errands, catch_up, .. } = node;
    let peer = hello.from_incarnation;
    let claimed = || {
        let address = hello.seat.as_ref()?.address.clone();
        Some(Target { node: hello.from, incarnation: Some(peer), address })
    };
    let (member, cluster) = (node.member_of(peer).map(Target::from).or_else(claimed), peers.cluster());
    let (memory, caller) = (&caller.memory, member.as_ref());
    let members = &|| node.members().into_iter().map(Target::from).collect();
    let callee =
        Callee { raft, log, heard, memory, peer, lease, fitness, store, errands, catch_up, caller, members, cluster };
    serve_calls(callee, connection).await
}

/// The IP addresses of each member, by its address, and by that in `--peers`; none for a name that can't be looked up.
pub async fn hosts(node: &Inner) -> BTreeMap<String, Vec<IpAddr>> {
    let mut found = BTreeMap::new();
    for address in node.expected().into_values().chain(node.config.peers.values().cloned()) {
        let there = node.caller.network.resolve(&address).await.unwrap_or_default();
        found.insert(address, there);
    }
    found
}

async fn accept_relay(node: &Inner, mut connection: Connection) -> Accepted {
    let answered = async {
        let request: RelayRequest = connection.receive().await?;
        let verdict = match node.role() {
            Role::Primary(_) => Verdict::Accepted,
            _ => Verdict::Refused("this node is not the primary".into()),
        };
        connection.send(&verdict).await?;
        io::Result::Ok((request, verdict))
    };
    let answered = node.env().timeout(limits::HANDSHAKE_TIMEOUT, answered).await;
    match answered.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok((request, Verdict::Accepted)) => Accepted::Relay(request, Box::new((connection.reader, connection.writer))),
        Ok((_, Verdict::Refused(_) | Verdict::Outdated(_))) => Accepted::Served,
        Err(fault) => Accepted::Refused(fault.to_string()),
    }
}

/// Hands a client over to the primary of the moment, and says which node that is.
pub async fn open_relay(node: &Inner, request: RelayRequest) -> Result<(u64, FrameReader, FrameWriter), RelayRefused> {
    let Role::Secondary { primary, .. } = node.role() else {
        return Err(RelayRefused("no other node is known as primary".into()));
    };
    let Some(running) = node.running.get() else {
        return Err(RelayRefused("the cluster has not formed".into()));
    };
    let target = Target::from(primary);
    let opening = async {
        let cluster = Some(running.peers.cluster());
        let mut connection = node.caller.reach(&target, cluster, Purpose::Relay).await?;
        connection.send(&request).await?;
        let verdict: Verdict = connection.receive().await?;
        io::Result::Ok((connection, verdict))
    };
    let patience = node.caller.patience * 2;
    match node.env().timeout(patience, opening).await {
        Ok(Ok((connection, Verdict::Accepted))) => Ok((target.node, connection.reader, connection.writer)),
        Ok(Ok((_, Verdict::Refused(why) | Verdict::Outdated(why)))) => Err(RelayRefused(why)),
        Ok(Err(fault)) => Err(RelayRefused(fault.to_string())),
        Err(_) => Err(RelayRefused(format!("no answer within {patience:?}"))),
    }
}

/// Checks a peer's Hello and proof. `Err`: the connection was refused, or broke.
async fn admit(
    node: &Inner,
    first: &Bytes,
    connection: &mut Connection,
    peer: &str,
    credentials: Option<&Credentials>,
) -> io::Result<Hello> {
    let shaking = async {
        let hello = read_hello(first, node.caller.newest.version)?;
        let verdict = judge(node, &hello, peer, credentials).await;
        if let Err(why) = &verdict
            && hello.purpose != Purpose::Form
            && hello.from != node.config.node
            && node.member(hello.from).is_some()
        {
            node.caller.memory.refusal(hello.from, Some(why));
        }
        // (Nobody has to do anything about that.)
        if let Err(why) = &verdict
            && hello.purpose != Purpose::Form
            && node.formation.stamp.look().is_none()
        {
            let format = node.caller.newest.format;
            connection.send(&Welcome::NotYet { why: why.clone(), format }).await?;
            return Err(io::Error::new(io::ErrorKind::NotConnected, why.clone()));
        }
        node.caller.accept(first, &hello, connection, verdict).await?;
        Ok(hello)
    };
    let late = || io::Error::new(io::ErrorKind::TimedOut, "the handshake took too long");
    node.env().timeout(limits::HANDSHAKE_TIMEOUT, shaking).await.unwrap_or_else(|_| Err(late()))
}

/// Whether the sender of `hello` may be a peer, and means this node.
async fn judge(node: &Inner, hello: &Hello, peer: &str, credentials: Option<&Credentials>) -> Result<(), String> {
    let own = node.config.node;
    if node.is_alone() && (hello.to != own || !node.expected().contains_key(&hello.from)) {
        return Err(stranger(own, hello.to));
    }
    if hello.to != own {
        return Err(format!("this is node {own}, not node {}", hello.to));
    }
    // (Who has moved may be known at its new place by `--peers` alone, until that can be written into the log.)
    let listed = node.config.peers.get(&hello.from).cloned();
    let addresses: BTreeSet<String> = [address_of(node, hello)?].into_iter().chain(listed).collect();
    if hello.to_incarnation.is_some_and(|known| known != node.caller.incarnation) {
        return Err(format!("node {own} has another data folder than the one that is a member of the cluster"));
    }
    comes_from(node, hello.from, &addresses, peer, credentials).await
}

/// Whether a connection comes from node `from`, which may be at any of these addresses: by its certificate with TLS, by
/// the peer's address without a secret; with a secret, what it sends has to prove that.
async fn comes_from(
    node: &Inner,
    from: u64,
    addresses: &BTreeSet<String>,
    peer: &str,
    credentials: Option<&Credentials>,
) -> Result<(), String> {
    if credentials.is_none() && node.caller.tls.is_some() {
        return Err("with TLS, peers are known by their certificates, and this connection has none".into());
    }
    if let Some(credentials) = credentials {
        let trusted = "--tls-peer-ca says who is a peer";
        let verdicts = addresses.iter().map(|address| credentials.may_be_peer(address));
        let unknown = || Err("it has no address".into());
        let verdict = verdicts.reduce(|verdict, other| verdict.or(other)).unwrap_or_else(unknown);
        return verdict.map_err(|why| format!("by its certificate not node {from}: {why} ({trusted})"));
    }
    if node.config.secret.is_some() {
        return Ok(());
    }
    for address in addresses {
        if node.caller.comes_from(peer, address).await {
            return Ok(());
        }
    }
    Err(format!("{peer} is not the address of node {from}; with --secret-file on all nodes, addresses do not matter"))
}

/// Takes an obituary in, which came from `peer`.
pub async fn accept_obituary(
    node: &Inner,
    frame: &[u8],
    peer: &str,
    credentials: Option<&Credentials>,
) -> Result<(), String> {
    let obituary = Obituary::read(frame, &node.caller.key).map_err(|fault| fault.to_string())?;
    let Some(member) = member_in(node, &obituary) else { return Ok(()) };
    let listed = node.config.peers.get(&member.id).cloned();
    let addresses = [member.address].into_iter().chain(listed).collect();
    comes_from(node, member.id, &addresses, peer, credentials).await?;
    believe(node, obituary);
    Ok(())
}

/// The member whose process has ended. `None`: it is none (any more), and its end changes nothing here.
fn member_in(node: &Inner, obituary: &Obituary) -> Option<Member> {
    let own = node.formation.stamp.look().as_ref().map(|stamp| stamp.cluster);
    let member = node.member_of(obituary.ballot.candidate).filter(|member| member.id == obituary.node);
    let member = member.filter(|_| own == Some(obituary.cluster));
    if member.is_none() {
        tracing::debug!("an obituary of no member: {obituary:?}");
    }
    member
}

/// Has it count that a process has ended.
pub fn believe(node: &Inner, obituary: Obituary) {
    if member_in(node, &obituary).is_none() {
        return;
    }
    node.ended.send_if(|last| {
        // (An earlier one may come later.)
        let is_newer = last.is_none_or(|last| last.term < obituary.ballot.term);
        if is_newer {
            *last = Some(obituary.ballot);
        }
        is_newer
    });
}

/// What this node's witness is to do once this process has ended; nothing while it is not primary.
pub fn will(node: &Inner) -> Option<Will> {
    let Role::Primary(reign) = node.role() else { return None };
    let running = node.running.get()?;
    let own = node.caller.incarnation;
    let ballot = Ballot { term: reign.term, candidate: own, committed: true };
    let obituary = Obituary { cluster: running.peers.cluster(), node: node.config.node, ballot };
    let mut addresses: Vec<String> = Vec::new();
    for member in node.members().into_iter().filter(|member| member.incarnation != own) {
        addresses.extend(node.caller.places(&Target::from(member)));
    }
    let frame = obituary.frame(&node.caller.key);
    (!addresses.is_empty()).then_some(Will { addresses, frame })
}

/// The answer of a node that is alone, node `own`, to those that take it for their peer `wanted`.
fn stranger(own: u64, wanted: u64) -> String {
    let (who, flags) = match own == wanted {
        true => (format!("node {own} is"), "--peers"),
        false => (format!("node {wanted} should be here, and this is node {own},"), "--node and --peers"),
    };
    format!(
        "{who} a cluster of its own, started without {flags}? To join the others it must be started with the same \
         --peers as they, and with an empty data folder (zrsctl export saves what the folder has)"
    )
}

/// Whether an address is on a host of the cluster, as far as this node knows. Without a secret that is all that tells a
/// member which this node does not know yet from anybody else.
fn is_known_host(node: &Inner, stamp: &Stamp, address: &str) -> bool {
    let host = |address: &str| address.rsplit_once(':').map(|(host, _)| host.to_owned());
    let known = node.expected().into_values().chain(stamp.addresses().into_values());
    known.chain(node.formation.peers.values().cloned()).any(|known| host(&known) == host(address))
}

/// The address of the member that `hello` says it comes from. While a cluster forms, numbers alone are known; later a
/// member is known by its data folder, as the log names it.
fn address_of(node: &Inner, hello: &Hello) -> Result<String, String> {
    let from = hello.from;
    let no_member = || format!("node {from} {NO_MEMBER}");
    if hello.purpose == Purpose::Form {
        return node.expected().remove(&from).ok_or_else(no_member);
    }
    if let Some(why) = node.excluded() {
        return Err(why);
    }
    let Some(stamp) = node.formation.stamp.look().clone() else {
        return Err(match node.catch_up.progress() {
            Some(_) => "this node fetches the cluster's database before it takes part".into(),
            None => "this node belongs to no cluster yet".into(),
        });
    };
    if hello.cluster != Some(stamp.cluster) {
        return Err(format!("this node belongs to cluster {}", cluster_name(&stamp.cluster)));
    }
    match node.member_of(hello.from_incarnation) {
        Some(member) if member.id == from => Ok(member.address),
        Some(member) => Err(format!("this data folder is node {}'s, not node {from}'s", member.id)),
        // Who became a member while this node was away may be the one that leads: this node has to hear it, to learn of
        // it from the log.
        None if let Some(seat) = &hello.seat
            && hello.purpose == Purpose::Calls
            && seat.entry > node.store.applied().index
            && (node.config.secret.is_some() || is_known_host(node, &stamp, &seat.address)) =>
        {
            Ok(seat.address.clone())
        }
        None if node.member(from).is_some() => Err(format!("node {from} is known with another data folder")),
        None => Err(no_member()),
    }
}
