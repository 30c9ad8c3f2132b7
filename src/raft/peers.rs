//! openraft's network: its calls as [`Ask`]s over links, and its peers' asks answered.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, FuturesUnordered};
use futures_util::{Stream, StreamExt};
use openraft::OptionalSend;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, v2::RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::catch_up::CatchUp;
use super::errand::{Brought, bring};
use super::fitness::Fitness;
use super::heard::Heard;
use super::lease::Lease;
use super::link::{Caller, Connection, Link, Target};
use super::log::LogStore;
use super::machine::{NoData, Raft, Snapshot};
use super::memory::Memory;
use super::pipeline::{Ahead, Sending, pipeline};
use super::stamp::ClusterId;
use super::types::{Ballot, Incarnation, LogPosition, Place, Record, Seat, Types, Vote};
use super::wire::{Answer, Appended, Ask, CatchUpAnswer, Numbered, pack, unpack};
use crate::config::limits;
use crate::env::Env;
use crate::storage::{MARK_SCHEME, Store};

/// Links to all peers, made when they are first needed.
#[derive(Clone)]
pub struct Peers {
    caller: Caller,
    cluster: ClusterId,
    links: Arc<Mutex<LinksByPeer>>,
    /// How many of the log's first entries are to go.
    going: Arc<AtomicU64>,
}

/// By the peer's number and its folder, if that is known.
type LinksByPeer = BTreeMap<(u64, Option<Incarnation>), PeerLinks>;

/// openraft's words for a stream of answers.
type Appending<'s> =
    BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>, RPCError<Types>>>;

/// The links to one peer, and what this node remembers of it.
#[derive(Clone)]
pub struct PeerLinks {
    /// `None`: a call to whoever has that number, whose answers prove nothing.
    member: Option<Incarnation>,
    memory: Memory,
    env: Env,
    /// When the peer last refused entries (its disk is full, say), and why.
    refused: Arc<Mutex<Option<(Instant, String)>>>,
    /// How many of the log's first entries are to go.
    going: Arc<AtomicU64>,
    /// For entries.
    pub bulk: Link,
    /// For calls that must not wait behind entries.
    pub control: Link,
}

impl Peers {
    pub fn new(caller: Caller, cluster: ClusterId) -> Peers {
        Peers { caller, cluster, links: Arc::default(), going: Arc::default() }
    }

    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Sends none of the log's first `entries` entries any more: openraft purges no entry that is on its way, and a
    /// peer that takes entries more slowly than they come would keep all of them here.
    pub fn let_go(&self, entries: u64) {
        self.going.fetch_max(entries, Ordering::Relaxed);
    }

    pub fn links(&self, target: Target) -> PeerLinks {
        let mut links = self.links.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(member) = target.incarnation {
            self.caller.addresses.set(member, &target.address);
        }
        let make = |quiet| Link::new(self.caller.clone(), target.clone(), self.cluster, quiet);
        let make = || PeerLinks {
            member: target.incarnation,
            memory: self.caller.memory.clone(),
            env: self.caller.env.clone(),
            refused: Arc::default(),
            going: self.going.clone(),
            bulk: make(limits::PEER_CALL_TIMEOUT),
            control: make(self.caller.patience * 2),
        };
        links.entry((target.node, target.incarnation)).or_insert_with(make).clone()
    }

    /// Notes where a member has said to be.
    pub fn said(&self, member: Incarnation, address: &str) {
        self.caller.addresses.said(member, address);
    }

    /// Closes the links to those that are no members any more.
    pub fn keep_only(&self, members: &[Incarnation]) {
        let mut links = self.links.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        links.retain(|(_, member), _| member.is_none_or(|member| members.contains(&member)));
        self.caller.addresses.keep_only(members);
    }
}

impl RaftNetworkFactory<Types> for Peers {
    type Network = PeerLinks;

    async fn new_client(&mut self, target: Incarnation, seat: &Seat) -> PeerLinks {
        self.links(Target { node: seat.node, incarnation: Some(target), address: seat.address.clone() })
    }
}

fn unreachable(fault: io::Error) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::new(&fault))
}

fn unexpected(answer: Answer) -> RPCError<Types> {
    unreachable(io::Error::other(match answer {
        Answer::Failed(why) => why,
        other => format!("an answer to another question: {other:?}"),
    }))
}

fn place(id: Option<LogPosition>) -> Option<Place> {
    id.map(Place::from)
}

fn position(place: Option<Place>) -> Option<LogPosition> {
    place.map(LogPosition::from)
}

fn voted(answer: Answer) -> Result<VoteResponse<Types>, RPCError<Types>> {
    match answer {
        Answer::Voted { ballot, granted, last } => {
            Ok(VoteResponse { vote: ballot.into(), vote_granted: granted, last_log_id: position(last) })
        }
        other => Err(unexpected(other)),
    }
}

impl PeerLinks {
    /// Remembers what an answer of the peer has proven: the vote, and entries of the leader that it names.
    fn saw(&self, vote: &Vote, entries: u64) {
        if let Some(member) = self.member {
            self.memory.saw(member, Ballot::from(vote), entries);
        }
    }

    /// An error if the peer refused entries a moment ago: openraft would send it the same ones five times a second.
    fn may_take_entries(&self) -> Result<(), RPCError<Types>> {
        match &*self.refused() {
            Some((at, why)) if self.env.now() < *at + limits::CHECKUP => {
                Err(unreachable(io::Error::other(format!("a moment ago: {why}"))))
            }
            _ => Ok(()),
        }
    }

    fn refused(&self) -> MutexGuard<'_, Option<(Instant, String)>> {
        self.refused.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Sends one append, behind others that are on their way.
    async fn append(
        &self,
        sending: Sending,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let Sending { request: rpc, size, ahead } = sending;
        let synced = self.synced();
        let (link, within) = match rpc.entries.is_empty() {
            true if ahead.messages == 0 => (&self.control, option.hard_ttl()),
            // A microsecond more for each byte: a slow line must get the largest entry through.
            _ => {
                let next = rpc.prev_log_id.map_or(0, |previous| previous.index + 1);
                if next < self.going.load(Ordering::Relaxed) {
                    return Err(unreachable(io::Error::other(format!("entry {} is about to be purged", next + 1))));
                }
                // (A full peer takes what a new leader needs to begin with.)
                if size > limits::SMALL_APPEND {
                    self.may_take_entries()?;
                }
                (&self.bulk, limits::PEER_CALL_TIMEOUT + Duration::from_micros((ahead.bytes + size) as u64))
            }
        };
        let last = rpc.entries.last().map(|entry| entry.log_id).or(rpc.prev_log_id);
        let ask = Ask::Append {
            ballot: Ballot::from(&rpc.vote),
            previous: place(rpc.prev_log_id),
            records: rpc.entries.iter().map(Record::from).collect(),
            committed: place(rpc.leader_commit),
            synced,
        };
        let entries = |last: Option<LogPosition>| last.map_or(0, |last| last.index + 1);
        let answer = link.call(ask, within).await.map_err(unreachable)?;
        if let (Answer::Failed(why), false) = (&answer, rpc.entries.is_empty()) {
            *self.refused() = Some((self.env.now(), why.clone()));
        }
        match answer {
            Answer::Appended(appended) => Ok(match appended {
                Appended::All => {
                    self.saw(&rpc.vote, entries(last));
                    AppendEntriesResponse::Success
                }
                Appended::Upto(last) => {
                    self.saw(&rpc.vote, entries(position(last)));
                    AppendEntriesResponse::PartialSuccess(position(last))
                }
                Appended::Conflict => AppendEntriesResponse::Conflict,
                Appended::HigherVote(ballot) => AppendEntriesResponse::HigherVote(ballot.into()),
            }),
            other => Err(unexpected(other)),
        }
    }
    /// How many entries this node has fsynced.
    fn synced(&self) -> u64 {
        self.memory.own().map_or(0, |own| own.entries)
    }
}

impl RaftNetworkV2<Types> for PeerLinks {
    type SnapshotData = NoData;

    /// openraft gives every append the time of a heartbeat. That is right for a heartbeat; entries may wait longer for
    /// a slow disk, and sending them again would only add to the disk's work.
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        self.append(Sending::new(rpc, Ahead::default()), option).await
    }

    fn stream_append<'s, S>(&'s mut self, requests: S, option: RPCOption) -> Appending<'s>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        let links: &PeerLinks = self;
        let append = move |sending| links.append(sending, option.clone());
        Box::pin(std::future::ready(Ok(pipeline(&links.env, requests, append))))
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let (ballot, last) = (Ballot::from(&rpc.vote), place(rpc.last_log_id));
        let ask = Ask::Vote { ballot, last, transfer: rpc.leadership_transfer };
        let response = voted(self.control.call(ask, option.hard_ttl()).await.map_err(unreachable)?)?;
        if response.vote_granted {
            self.saw(&rpc.vote, 0);
        }
        Ok(response)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let (ballot, last) = (Ballot::from(&rpc.vote), place(rpc.last_log_id));
        let ask = Ask::PreVote { ballot, last, transfer: rpc.leadership_transfer };
        voted(self.control.call(ask, option.hard_ttl()).await.map_err(unreachable)?)
    }

    /// Asks the peer to fetch a member's database, until the peer has what this node's log does not have any more.
    /// Every failure is one that openraft tries again after a pause, but for the one by which it says that this node
    /// leads no more.
    ///
    /// A success counts as a heartbeat of the moment when this call began, and so as a part of this node's lease: the
    /// peer, before it answers, has taken the question for one (`catch_up`).
    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let (ballot, entries) = (Ballot::from(&vote), snapshot.meta.last_log_id.map_or(0, |last| last.index + 1));
        let failed = |fault: io::Error| StreamingError::Unreachable(Unreachable::new(&fault));
        let mut cancel = std::pin::pin!(cancel);
        loop {
            let ask = Ask::CatchUp { ballot, entries };
            let asking = self.control.call(ask, option.hard_ttl().max(limits::CATCH_UP_ANSWER));
            let answer = tokio::select! { biased;
                closed = &mut cancel => return Err(closed.into()),
                answer = asking => answer.map_err(failed)?,
            };
            match answer {
                Answer::CatchUp(CatchUpAnswer::Applied { entries: applied }) if applied >= entries => {
                    return Ok(SnapshotResponse::new(vote));
                }
                Answer::CatchUp(CatchUpAnswer::HigherVote(higher)) => return Ok(SnapshotResponse::new(higher.into())),
                // (One that has applied some has fewer entries than the question was about.)
                Answer::CatchUp(CatchUpAnswer::Fetching | CatchUpAnswer::Applied { .. }) => {}
                Answer::Failed(why) => return Err(failed(io::Error::other(why))),
                other => return Err(failed(io::Error::other(format!("an answer to another question: {other:?}")))),
            }
            tokio::select! { biased;
                closed = &mut cancel => return Err(closed.into()),
                () = self.env.sleep(limits::CATCH_UP_AGAIN) => {}
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let ask = Ask::Transfer {
            ballot: Ballot::from(rpc.from_leader()),
            to: *rpc.to_node_id(),
            last: place(rpc.last_log_id().copied()),
        };
        match self.control.call(ask, option.hard_ttl()).await.map_err(unreachable)? {
            Answer::Transferring(Ok(())) => Ok(Ok(())),
            Answer::Transferring(Err(why)) => Err(unreachable(io::Error::other(why))),
            other => Err(unexpected(other)),
        }
    }
}

/// What a node answers its peers' calls with.
#[derive(Clone, Copy)]
pub struct Callee<'a> {
    pub raft: &'a Raft,
    pub log: &'a LogStore,
    pub heard: &'a Heard,
    pub memory: &'a Memory,
    /// The peer that calls.
    pub peer: Incarnation,
    pub lease: &'a Lease,
    pub fitness: &'a Fitness,
    pub store: &'a Store,
    /// Where the errands of peers go.
    pub errands: &'a mpsc::Sender<Brought>,
    pub catch_up: &'a Arc<CatchUp>,
    /// The peer's address, if it is a member.
    pub caller: Option<&'a Target>,
    /// Gives the members, this node included.
    pub members: &'a (dyn Fn() -> Vec<Target> + Sync),
    pub cluster: ClusterId,
}

/// Answers a peer's calls until the peer closes the connection.
pub async fn serve_calls(callee: Callee<'_>, connection: Connection) -> io::Result<()> {
    let Connection { mut reader, mut writer } = connection;
    let mut answering = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some((number, body)) = answering.next(), if !answering.is_empty() => {
                writer.push(&pack(&Numbered { number, body }));
            }
            frame = reader.next(), if answering.len() < limits::PEER_CALLS => match frame? {
                Some(frame) => {
                    let Numbered { number, body } = unpack::<Numbered<Ask>>(&frame)?;
                    answering.push(async move { (number, answer(callee, body).await) });
                }
                None => return Ok(()),
            },
            written = writer.write_some(), if writer.queued() > 0 => written?,
        }
    }
}

async fn answer(callee: Callee<'_>, ask: Ask) -> Answer {
    let Callee { raft, lease, memory, .. } = callee;
    let excluded = || memory.excluded().look().clone();
    if let Some(why) = excluded() {
        return Answer::Failed(why);
    }
    let answered = match ask {
        Ask::Append { ballot, previous, records, committed, synced } => {
            let answered = append(callee, ballot, previous, records, committed).await;
            if ballot.candidate == callee.peer
                && matches!(&answered, Ok(Answer::Appended(appended)) if !matches!(appended, Appended::HigherVote(_)))
            {
                // A leader's vote is on its disk before it sends anything.
                callee.memory.saw(ballot.candidate, ballot, synced);
            }
            answered
        }
        Ask::Vote { ballot, last, transfer } => {
            let request = vote_request(ballot, last, transfer);
            raft.vote(request).await.map(vote_answer).map_err(|e| e.to_string())
        }
        Ask::PreVote { ballot, last, transfer } => {
            let request = vote_request(ballot, last, transfer);
            raft.pre_vote(request).await.map(vote_answer).map_err(|e| e.to_string())
        }
        Ask::Transfer { ballot, to, last } => {
            let request = TransferLeaderRequest::new(ballot.into(), to, position(last));
            let answered = raft.handle_transfer_leader(request).await;
            answered.map(|done| Answer::Transferring(done.map_err(|e| e.to_string()))).map_err(|e| e.to_string())
        }
        Ask::ReadIndex => Ok(Answer::ReadIndex(lease.read_index(raft).await)),
        Ask::Checkup => Ok(Answer::Checkup(callee.fitness.checkup(callee.store.applied().index, callee.heard.lag()))),
        Ask::Errand(errand) => Ok(Answer::Report(bring(callee.errands, errand).await)),
        Ask::CatchUp { ballot, entries } => catch_up(callee, ballot, entries).await,
        Ask::Marks => {
            let marks = callee.store.marks();
            let marks = marks[marks.len().saturating_sub(limits::MARKS_TOLD)..].to_vec();
            Ok(Answer::Marks { scheme: MARK_SCHEME, marks })
        }
    };
    // (Also if that was learnt meanwhile: nothing is promised any more.)
    excluded().map_or_else(|| answered.unwrap_or_else(Answer::Failed), Answer::Failed)
}

/// Takes the question for a heartbeat first: its answer is a part of the leader's lease.
async fn catch_up(callee: Callee<'_>, ballot: Ballot, entries: u64) -> Result<Answer, String> {
    let leader = callee.caller.ok_or("this node does not know the caller as a member")?;
    let beat =
        AppendEntriesRequest { vote: ballot.into(), prev_log_id: None, entries: Vec::new(), leader_commit: None };
    let answer = match callee.raft.append_entries(beat).await.map_err(|e| e.to_string())? {
        AppendEntriesResponse::HigherVote(vote) => CatchUpAnswer::HigherVote(Ballot::from(&vote)),
        _ => callee.catch_up.asked(leader, callee.members, callee.cluster, entries),
    };
    Ok(Answer::CatchUp(answer))
}

async fn append(
    callee: Callee<'_>,
    ballot: Ballot,
    previous: Option<Place>,
    records: Vec<Record>,
    committed: Option<Place>,
) -> Result<Answer, String> {
    let Callee { raft, log, heard, fitness, .. } = callee;
    let empty = records.is_empty();
    // (What a new leader needs to begin with still gets in.)
    if let Some(why) = fitness.is_full()
        && records.iter().map(Record::size).sum::<usize>() > limits::SMALL_APPEND
    {
        return Err(why);
    }
    let request = AppendEntriesRequest {
        vote: ballot.into(),
        prev_log_id: position(previous),
        entries: records.into_iter().map(Record::into_entry).collect::<io::Result<_>>().map_err(|e| e.to_string())?,
        leader_commit: position(committed),
    };
    // In this order: Raft takes the append first, and then looks whether a heartbeat can be answered from memory.
    let response = tokio::select! {
        biased;
        response = raft.append_entries(request) => response.map_err(|e| e.to_string())?,
        true = is_beat(raft, log, ballot, previous), if empty => AppendEntriesResponse::Success,
    };
    let appended = match response {
        AppendEntriesResponse::Success => Appended::All,
        AppendEntriesResponse::PartialSuccess(last) => Appended::Upto(place(last)),
        AppendEntriesResponse::Conflict => Appended::Conflict,
        AppendEntriesResponse::HigherVote(vote) => Appended::HigherVote(Ballot::from(&vote)),
    };
    if !matches!(appended, Appended::HigherVote(_)) {
        heard.note(ballot.candidate, ballot.term, committed);
    }
    Ok(Answer::Appended(appended))
}

/// Whether an append without entries, which Raft was given before this call, has done all that its success says: Raft
/// follows the leader (which renews its lease), and the vote and everything up to `previous` are on disk here.
///
/// openraft would answer only once whatever else this node was given to write is on disk, too. A disk that stalls for
/// the length of a lease would end the reign of a primary that every node can hear.
async fn is_beat(raft: &Raft, log: &LogStore, ballot: Ballot, previous: Option<Place>) -> bool {
    let vote = Vote::from(ballot);
    let follows = raft.with_raft_state(move |state| {
        let there = previous.is_none_or(|place| state.log_ids.get(place.index) == Some(place.into()));
        vote.committed && *state.vote_ref() == vote && there
    });
    matches!(follows.await, Ok(true)) && log.holds(&vote, previous)
}

fn vote_request(ballot: Ballot, last: Option<Place>, transfer: bool) -> VoteRequest<Types> {
    VoteRequest { vote: ballot.into(), last_log_id: position(last), leadership_transfer: transfer }
}

fn vote_answer(response: VoteResponse<Types>) -> Answer {
    Answer::Voted {
        ballot: Ballot::from(&response.vote),
        granted: response.vote_granted,
        last: place(response.last_log_id),
    }
}
