//! Connections between peers: the handshake from both sides, and [`Link`], a lasting connection with many calls on it.
//!
//! A link connects at its first call, and again at the next call after it broke. Calls are numbered, so that a caller
//! that gives up does not disturb the others; a break fails all calls that wait. There are two links to each peer: one
//! for entries, one for calls that must not wait behind entries (votes, heartbeats, read indices).

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};

use super::addresses::Addresses;
use super::hello::{
    GREETING, Hello, OLDEST_VERSION, PeerKey, Proof, Purpose, SeatClaim, Side, VERSION, Verdict, Welcome,
};
use super::memory::{Memory, outdated};
use super::past::Past;
use super::stamp::ClusterId;
use super::types::Incarnation;
use super::wire::{Answer, Ask, Numbered, pack, unpack};
use crate::command;
use crate::config::limits;
use crate::env::{Env, Watch};
use crate::net::{FrameReader, FrameWriter, Network, Tls};

/// This node as its peers know it, and its means to call them.
#[derive(Clone)]
pub struct Caller {
    pub env: Env,
    pub network: Arc<dyn Network>,
    /// `Some`: connections to peers use TLS.
    pub tls: Option<Tls>,
    pub key: PeerKey,
    pub node: u64,
    pub incarnation: Incarnation,
    pub memory: Memory,
    /// This node's own seat.
    pub seat: Watch<Option<SeatClaim>>,
    /// Where the members may be.
    pub addresses: Addresses,
    /// The newest version of the peers' protocol, and the newest command format, that this node tells its peers.
    pub newest: Newest,
    /// How long connecting and the handshake may take.
    pub patience: Duration,
}

/// The newest versions that a node knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Newest {
    /// Of the peers' protocol.
    pub version: u8,
    /// Of commands.
    pub format: u8,
}

impl Newest {
    /// Those of this program; `pretend`: those of the next one, for tests of upgrades.
    pub fn of(pretend: bool) -> Newest {
        Newest { version: VERSION + u8::from(pretend), format: command::FORMAT + u8::from(pretend) }
    }
}

/// A peer and the way to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    pub node: u64,
    /// `None` while the cluster forms.
    pub incarnation: Option<Incarnation>,
    pub address: String,
}

/// An open connection to a peer, after the handshake.
pub struct Connection {
    pub reader: FrameReader,
    pub writer: FrameWriter,
}

impl Connection {
    pub async fn send<T: Serialize>(&mut self, message: &T) -> io::Result<()> {
        self.writer.push(&pack(message));
        self.writer.flush().await
    }

    pub async fn receive<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        match self.reader.next().await.map_err(io::Error::from)? {
            Some(frame) => unpack(&frame),
            None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the peer closed the connection")),
        }
    }
}

impl Caller {
    /// The same as [`Caller::connect`], wherever the member may be: it may not be at `target.address` any more, and
    /// this node may not have that in its log yet.
    pub async fn reach(&self, target: &Target, cluster: Option<ClusterId>, purpose: Purpose) -> io::Result<Connection> {
        let mut fault: Option<io::Error> = None;
        for address in self.places(target) {
            let there = Target { address, ..target.clone() };
            match self.connect(&there, cluster, purpose).await {
                Ok(connection) => return Ok(connection),
                Err(why) => {
                    tracing::debug!("node {} is not at {}: {why}", there.node, there.address);
                    // (A refusal says more than a silence.)
                    if fault.as_ref().is_none_or(|fault| fault.kind() != io::ErrorKind::PermissionDenied) {
                        fault = Some(why);
                    }
                }
            }
        }
        Err(fault.expect("there is a place at least"))
    }

    /// Where to look for a peer, one place after the other; never empty.
    pub fn places(&self, target: &Target) -> Vec<String> {
        let mut places = target.incarnation.map(|member| self.addresses.of(target.node, member)).unwrap_or_default();
        if !places.contains(&target.address) {
            places.push(target.address.clone());
        }
        places
    }

    /// Connects to a peer at `target.address` and proves membership to it, within `self.patience`.
    pub async fn connect(
        &self,
        target: &Target,
        cluster: Option<ClusterId>,
        purpose: Purpose,
    ) -> io::Result<Connection> {
        if let Some(why) = self.memory.excluded().look().clone().filter(|_| purpose != Purpose::Form) {
            return Err(io::Error::other(why));
        }
        let attempt = self.env.timeout(self.patience, self.shake_hands(target, cluster, purpose));
        let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {:?}", self.patience));
        let connected = attempt.await.unwrap_or_else(|_| Err(late()));
        if purpose != Purpose::Form {
            match &connected {
                Ok(_) => self.memory.refusal(target.node, None),
                Err(why) if why.kind() == io::ErrorKind::PermissionDenied => {
                    self.memory.refusal(target.node, Some(&why.to_string()));
                }
                Err(_) => {}
            }
        }
        connected
    }

    async fn shake_hands(
        &self,
        target: &Target,
        cluster: Option<ClusterId>,
        purpose: Purpose,
    ) -> io::Result<Connection> {
        let mut wire = self.network.connect(&target.address).await?;
        if let Some(tls) = &self.tls {
            wire = tls.connect(wire, &target.address).await?;
        }
        let mut connection = Connection {
            reader: FrameReader::new(wire.reader, limits::FIRST_FRAME),
            writer: FrameWriter::new(wire.writer),
        };
        let mut hello = GREETING.to_vec();
        hello.extend(pack(&Hello {
            version: self.newest.version,
            oldest: OLDEST_VERSION,
            format: self.newest.format,
            cluster,
            from: self.node,
            from_incarnation: self.incarnation,
            to: target.node,
            to_incarnation: target.incarnation,
            known: target.incarnation.and_then(|member| self.memory.of(member)),
            nonce: self.nonce(),
            purpose,
            seat: self.seat.look().clone(),
        }));
        connection.writer.push(&hello);
        connection.writer.flush().await?;
        let (nonce, theirs, format) = match receive_greeting(&mut connection).await? {
            Welcome::Challenge { version, .. } if !(OLDEST_VERSION..=self.newest.version).contains(&version) => {
                return Err(refused(&format!("the peer wants to speak version {version} of the peers' protocol")));
            }
            Welcome::Challenge { version: _, format, nonce, past, proof } => {
                if !self.key.is_proof(&proof, Side::Acceptor, &hello, &nonce, &past) {
                    return Err(refused(
                        "the peer does not know the cluster's secret (compare the files of --secret-file)",
                    ));
                }
                (nonce, past, format)
            }
            Welcome::Refused(why) => return Err(refused(&why)),
            Welcome::NotYet { why, format } => {
                if let Some(member) = target.incarnation {
                    self.memory.met(member, Past::default(), format);
                }
                return Err(io::Error::new(io::ErrorKind::NotConnected, why));
            }
        };
        let past = self.memory.own()?;
        let proof = self.key.prove(Side::Initiator, &hello, &nonce, &past);
        connection.send(&Proof { past, proof }).await?;
        match connection.receive().await? {
            Verdict::Accepted => {
                if let Some(member) = target.incarnation {
                    self.memory.met(member, theirs, format);
                }
                connection.reader.set_limit(limits::PEER_FRAME);
                Ok(connection)
            }
            Verdict::Refused(why) => Err(refused(&why)),
            Verdict::Outdated(why) => {
                self.memory.exclude(why.clone());
                Err(refused(&why))
            }
        }
    }

    fn nonce(&self) -> [u8; 16] {
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&self.env.seed().to_be_bytes());
        nonce[8..].copy_from_slice(&self.env.seed().to_be_bytes());
        nonce
    }

    /// The acceptor's side of the handshake, after `first`, the frame with `hello`, has come in; `verdict`: whether
    /// its sender may be a peer.
    ///
    /// `Err` if the connection is not to be used: refused, or broken.
    pub async fn accept(
        &self,
        first: &Bytes,
        hello: &Hello,
        connection: &mut Connection,
        verdict: Result<(), String>,
    ) -> io::Result<()> {
        if let Err(why) = verdict {
            connection.send(&Welcome::Refused(why.clone())).await?;
            return Err(refused(&why));
        }
        // (Looked up before the peer is asked what it has: see `memory`.)
        let remembered = self.memory.of(hello.from_incarnation);
        let (nonce, past) = (self.nonce(), self.memory.own()?);
        let proof = self.key.prove(Side::Acceptor, first, &nonce, &past);
        // (`read_hello` has made sure that there is one.)
        let version = hello.common_version(self.newest.version).unwrap_or(OLDEST_VERSION);
        let format = self.newest.format;
        connection.send(&Welcome::Challenge { version, format, nonce, past, proof }).await?;
        let Proof { past: theirs, proof } = connection.receive().await?;
        let verdict = if !self.key.is_proof(&proof, Side::Initiator, first, &nonce, &theirs) {
            Verdict::Refused("no proof of membership (compare the files of --secret-file)".into())
        } else if hello.format < command::OLDEST_FORMAT {
            let (theirs, oldest) = (hello.format, command::OLDEST_FORMAT);
            Verdict::Refused(format!("it knows commands up to format {theirs}, too old for {oldest}: update its zrsd"))
        } else {
            let known = hello.known.filter(|_| hello.to_incarnation.is_some());
            let mine = known.and_then(|known| past.lacks(&known)).map(|lack| outdated(self.node, hello.from, &lack));
            let theirs = remembered.and_then(|known| theirs.lacks(&known));
            if let Some(why) = &mine {
                self.memory.exclude(why.clone());
            }
            match (mine, theirs.map(|lack| outdated(hello.from, self.node, &lack))) {
                (_, Some(why)) => Verdict::Outdated(why),
                (Some(why), None) => Verdict::Refused(why),
                (None, None) => Verdict::Accepted,
            }
        };
        connection.send(&verdict).await?;
        match verdict {
            Verdict::Accepted if hello.purpose == Purpose::Form => Ok(()),
            Verdict::Accepted => {
                self.memory.met(hello.from_incarnation, theirs, hello.format);
                self.memory.refusal(hello.from, None);
                Ok(())
            }
            Verdict::Refused(why) | Verdict::Outdated(why) => {
                self.memory.refusal(hello.from, Some(&why));
                Err(refused(&why))
            }
        }
    }

    /// Whether `peer` (`host:port`) has an IP address of the host in `address`: the only check without a secret.
    pub async fn comes_from(&self, peer: &str, address: &str) -> bool {
        let Some(ip) = ip_of(peer) else { return false };
        match self.network.resolve(address).await {
            Ok(known) => known.contains(&ip),
            Err(e) => {
                tracing::warn!("the address {address} of a peer can't be looked up: {e}");
                false
            }
        }
    }
}

/// Reads the acceptor's Welcome, past the ZEO greeting (two bytes) that a primary sends to every connection.
async fn receive_greeting(connection: &mut Connection) -> io::Result<Welcome> {
    loop {
        match connection.reader.next().await.map_err(io::Error::from)? {
            Some(frame) if frame.len() == 2 && (frame[0] == b'Z' || frame[0] == b'M') => {}
            Some(frame) => return unpack(&frame),
            None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the peer closed the connection")),
        }
    }
}

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, format!("refused: {why}"))
}

/// The IP address in `host:port`, if there is one.
pub fn ip_of(address: &str) -> Option<IpAddr> {
    let (host, _) = address.rsplit_once(':')?;
    let ip: IpAddr = host.trim_matches(['[', ']']).parse().ok()?;
    Some(ip.to_canonical())
}

/// A lasting connection to one peer; cheap to clone.
#[derive(Clone)]
pub struct Link {
    calls: mpsc::Sender<Call>,
    env: Env,
}

struct Call {
    ask: Ask,
    answer: oneshot::Sender<io::Result<Answer>>,
}

impl Link {
    /// `quiet`: how long the peer may say nothing while it owes an answer. After that the link connects anew, as TCP
    /// may need as long as a partition has lasted to find out that the partition is over.
    pub fn new(caller: Caller, target: Target, cluster: ClusterId, quiet: Duration) -> Link {
        let (calls, queue) = mpsc::channel(limits::PEER_CALLS);
        let env = caller.env.clone();
        env.spawn(
            async move { Keeper { caller, target, cluster, quiet, refusal: None, failures: 0 }.keep(queue).await },
        );
        Link { calls, env }
    }

    /// Asks the peer; an error if the peer can't be reached or does not answer `within` that time.
    pub async fn call(&self, ask: Ask, within: Duration) -> io::Result<Answer> {
        let call = async {
            let (answer, answered) = oneshot::channel();
            self.calls.send(Call { ask, answer }).await.map_err(|_| closed())?;
            answered.await.map_err(|_| closed())?
        };
        let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {within:?}"));
        self.env.timeout(within, call).await.unwrap_or_else(|_| Err(late()))
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the link is closed")
}

/// The task of a link: connects when there is a call, and ends when the last [`Link`] is dropped.
struct Keeper {
    caller: Caller,
    target: Target,
    cluster: ClusterId,
    quiet: Duration,
    /// The peer's last refusal, which is logged once.
    refusal: Option<String>,
    /// How often it could not be reached in a row.
    failures: usize,
}

impl Keeper {
    /// Logs why the peer can't be called: a refusal at once, as somebody has to do something about it. Who is away is
    /// said by `node::presence`, once.
    fn tell(&mut self, address: &str, fault: &io::Error) {
        let node = self.target.node;
        let words = fault.to_string();
        match fault.kind() {
            io::ErrorKind::PermissionDenied if self.refusal.as_ref() != Some(&words) => {
                tracing::warn!("node {node} at {address}: {words}");
                self.refusal = Some(words);
            }
            io::ErrorKind::PermissionDenied => {}
            _ => tracing::debug!("node {node} at {address}: {words}"),
        }
    }

    async fn keep(mut self, mut queue: mpsc::Receiver<Call>) {
        while let Some(first) = queue.recv().await {
            if first.answer.is_closed() {
                continue;
            }
            let places = self.caller.places(&self.target);
            let address = places[self.failures % places.len()].clone();
            let there = Target { address, ..self.target.clone() };
            match self.caller.connect(&there, Some(self.cluster), Purpose::Calls).await {
                Ok(connection) => {
                    // (Where it was reached, it is called again.)
                    self.failures %= places.len();
                    if self.refusal.take().is_some() {
                        tracing::info!("node {} at {} lets this node in", there.node, there.address);
                    }
                    let fault = converse(&self.caller.env, self.quiet, connection, first, &mut queue).await;
                    tracing::debug!("link to node {} ended: {fault}", self.target.node);
                }
                Err(fault) => {
                    self.failures = self.failures.wrapping_add(1);
                    self.tell(&there.address, &fault);
                    fail(first, &fault);
                    while let Ok(call) = queue.try_recv() {
                        fail(call, &fault);
                    }
                }
            }
        }
    }
}

fn fail(call: Call, fault: &io::Error) {
    let _ = call.answer.send(Err(io::Error::new(fault.kind(), fault.to_string())));
}

/// Carries calls and answers until the connection breaks; gives the reason.
async fn converse(
    env: &Env,
    quiet: Duration,
    connection: Connection,
    first: Call,
    queue: &mut mpsc::Receiver<Call>,
) -> io::Error {
    let Connection { mut reader, mut writer } = connection;
    // How many answers the peer owes, and when it last took or sent bytes.
    let (mut owed, mut alive) = (0u64, env.now());
    let mut waiting: BTreeMap<u64, oneshot::Sender<io::Result<Answer>>> = BTreeMap::new();
    let mut number = 0;
    let mut next = Some(first);
    let fault = loop {
        if let Some(call) = next.take() {
            if owed == 0 {
                alive = env.now();
            }
            owed += 1;
            number += 1;
            waiting.retain(|_, answer| !answer.is_closed());
            waiting.insert(number, call.answer);
            writer.push_parts(&[], pack(&Numbered { number, body: call.ask }).into(), &[]);
        }
        tokio::select! {
            biased;
            frame = reader.next() => match frame {
                Ok(Some(frame)) => match unpack::<Numbered<Answer>>(&frame) {
                    Ok(answer) => {
                        owed = owed.saturating_sub(1);
                        alive = env.now();
                        if let Some(waiter) = waiting.remove(&answer.number) {
                            let _ = waiter.send(Ok(answer.body));
                        }
                    }
                    Err(fault) => break fault,
                },
                Ok(None) => break io::Error::new(io::ErrorKind::UnexpectedEof, "the peer closed the connection"),
                Err(fault) => break fault.into(),
            },
            written = writer.write_some(), if writer.queued() > 0 => match written {
                Ok(()) => alive = env.now(),
                Err(fault) => break fault,
            },
            () = env.sleep_until(alive + quiet), if owed > 0 => {
                break io::Error::new(io::ErrorKind::TimedOut, "the peer is silent");
            }
            call = queue.recv(), if writer.queued() < limits::PEER_FRAME => match call {
                Some(call) => next = Some(call),
                None => break closed(),
            },
        }
    };
    for (_, waiter) in waiting {
        let _ = waiter.send(Err(io::Error::new(fault.kind(), fault.to_string())));
    }
    fault
}
