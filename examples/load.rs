//! Load for `make bench`: connections that load or commit as fast as they are answered, or wait for news.
//!
//! Python clients would be slower than the servers that they measure. This program speaks the ZEO protocol as they do,
//! over the same kind of connections, to zrsd and to the stock server alike, with as little work of its own as
//! possible: it shares the machine with the server. Prints one line of JSON.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use clap::{Parser, ValueEnum};
use tokio::task::JoinSet;

use zrs::config::limits::FRAME;
use zrs::net::{FrameReader, FrameWriter, Network as _, Tcp};
use zrs::zeo::{Call, Encoding, FromServer, MessageId, Pushed, Value, decode_message, encode_call};
use zrs::zodb::{Oid, Tid};

/// The first id of these objects; committers write objects with greater ids.
const FIRST: u64 = 1_000_000;
/// Objects in each transaction of `fill`.
const FILLED: u64 = 100;
/// Of so many connections of `mixed` one commits.
const COMMITS: u64 = 8;
/// The pause between the commits that `news` tells of.
const PAUSE: Duration = Duration::from_millis(5);
/// The name that a connection gives its transactions.
const TXN: u64 = 1;
/// Time at the beginning that is not measured.
const WARM_UP: Duration = Duration::from_millis(500);

#[derive(Parser)]
struct Flags {
    work: Work,
    /// HOST:PORT of the server
    #[arg(long)]
    address: String,
    #[arg(long, default_value_t = 1)]
    connections: u64,
    /// Requests that a connection of `loads` has under way
    #[arg(long, default_value_t = 1)]
    pipeline: usize,
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Bytes of each object's data
    #[arg(long, default_value_t = 600)]
    size: usize,
    /// Objects that `fill` stores and loads read
    #[arg(long, default_value_t = 2_000)]
    objects: u64,
    /// How often `fill` stores each of them
    #[arg(long, default_value_t = 1)]
    revisions: u64,
    /// Objects in each transaction of `commits`
    #[arg(long, default_value_t = 2)]
    writes: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Work {
    /// Stores the objects for `loads`.
    Fill,
    Loads,
    Commits,
    /// Seven connections of eight load, the others commit.
    Mixed,
    /// Connections that wait for the news of one that commits; how long after its `tpc_finish` they come.
    News,
}

fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(flags))
}

async fn run(flags: Flags) -> anyhow::Result<()> {
    match flags.work {
        Work::Fill => return fill(&flags).await,
        Work::News => return news(&flags).await,
        Work::Loads | Work::Commits | Work::Mixed => {}
    }
    let mut clients = Vec::new();
    for _ in 0..flags.connections {
        clients.push(Client::connect(&flags.address).await?);
    }
    let begin = Instant::now() + WARM_UP;
    let end = begin + Duration::from_secs_f64(flags.seconds);
    let (mut loading, mut committing) = (JoinSet::new(), JoinSet::new());
    for (number, client) in (0u64..).zip(clients) {
        let span = Span { begin, end };
        match flags.work {
            Work::Mixed if number % COMMITS == 0 => committing.spawn(commits(client, number, span, flags.commit())),
            Work::Commits => committing.spawn(commits(client, number, span, flags.commit())),
            _ => loading.spawn(loads(client, number, span, flags.pipeline, flags.objects)),
        };
    }
    let (loaded, committed) = tokio::try_join!(all(loading), all(committing))?;
    match flags.work {
        Work::Commits => tell(committed, flags.seconds, ""),
        _ => {
            let others = format!(", \"commits_per_second\": {:.1}", committed.len() as f64 / flags.seconds);
            tell(loaded, flags.seconds, if committed.is_empty() { "" } else { &others })
        }
    }
}

async fn all(mut tasks: JoinSet<anyhow::Result<Vec<u32>>>) -> anyhow::Result<Vec<u32>> {
    let mut took = Vec::new();
    while let Some(done) = tasks.join_next().await {
        took.extend(done??);
    }
    Ok(took)
}

/// Prints what was measured: microseconds of each.
fn tell(mut took: Vec<u32>, seconds: f64, others: &str) -> anyhow::Result<()> {
    took.sort_unstable();
    if took.is_empty() {
        bail!("nothing was answered within {seconds} s");
    }
    let percentile = |p: usize| f64::from(took[(took.len() - 1) * p / 100]) / 1000.0;
    println!(
        "{{\"count\": {}, \"per_second\": {:.1}, \"p50_ms\": {:.3}, \"p99_ms\": {:.3}{others}}}",
        took.len(),
        took.len() as f64 / seconds,
        percentile(50),
        percentile(99)
    );
    Ok(())
}

/// Stores the objects that loads read, from one connection.
async fn fill(flags: &Flags) -> anyhow::Result<()> {
    let mut client = Client::connect(&flags.address).await?;
    let (data, began) = (data(flags.size), Instant::now());
    let mut serials = BTreeMap::new();
    for _ in 0..flags.revisions {
        for first in (0..flags.objects).step_by(FILLED as usize) {
            let (serial, count) = (serials.entry(first).or_insert(Tid::ZERO), FILLED.min(flags.objects - first));
            *serial = client.commit(FIRST + first, count, *serial, &data).await?;
        }
    }
    let (stored, seconds) = (flags.objects * flags.revisions, began.elapsed().as_secs_f64());
    println!(
        "{{\"objects\": {stored}, \"seconds\": {seconds:.3}, \"per_second\": {:.1}, \"mb_per_second\": {:.2}}}",
        stored as f64 / seconds,
        stored as f64 * flags.size as f64 / seconds / 1e6
    );
    Ok(())
}

/// Measures how long news take from one client's `tpc_finish` to all others.
async fn news(flags: &Flags) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    let end = Instant::now() + WARM_UP + Duration::from_secs_f64(flags.seconds);
    for _ in 0..flags.connections {
        tasks.spawn(listen(Client::connect(&flags.address).await?, end));
    }
    let mut client = Client::connect(&flags.address).await?;
    let Commit { data, writes } = flags.commit();
    let first = client.new_oid().await?.0 + FIRST;
    let (mut serial, mut finished) = (Tid::ZERO, BTreeMap::new());
    while Instant::now() < end - WARM_UP {
        client.vote(first, writes, serial, &data).await?;
        let began = Instant::now();
        serial = client.finish().await?;
        finished.insert(serial, began);
        tokio::time::sleep(PAUSE).await;
    }
    let mut took = Vec::new();
    while let Some(heard) = tasks.join_next().await {
        for (tid, at) in heard?? {
            took.extend(finished.get(&tid).map(|began| u32::try_from((at - *began).as_micros()).unwrap_or(u32::MAX)));
        }
    }
    if took.len() < finished.len() * flags.connections as usize {
        bail!("{} news of {} transactions for {} clients", took.len(), finished.len(), flags.connections);
    }
    tell(took, flags.seconds, "")
}

/// The transactions that a client is told of, and when.
async fn listen(mut client: Client, end: Instant) -> anyhow::Result<Vec<(Tid, Instant)>> {
    let mut heard = Vec::new();
    while let Ok(frame) = tokio::time::timeout_at(end.into(), client.frame()).await {
        let mut frame = Some(frame?);
        while let Some(message) = frame {
            if let FromServer::Push(Pushed::Invalidate { tid, .. }) =
                decode_message(client.encoding, &message).map_err(|e| anyhow!("{e:?}"))?
            {
                heard.push((tid, Instant::now()));
            }
            frame = client.reader.buffered().map_err(|e| anyhow!("{e:?}"))?;
        }
    }
    Ok(heard)
}

/// What each transaction of a client writes.
struct Commit {
    data: Bytes,
    writes: u64,
}

impl Flags {
    fn commit(&self) -> Commit {
        Commit { data: data(self.size), writes: self.writes }
    }
}

/// A record of so many bytes: two pickles, as packs read them. It refers to nothing.
fn data(size: usize) -> Bytes {
    const CLASS: &[u8] = b"\x80\x03N.";
    const STATE: &[u8] = b"\x80\x03B";
    let filling = size.saturating_sub(CLASS.len() + STATE.len() + size_of::<u32>() + 1);
    let length = u32::try_from(filling).expect("a record is smaller than 4 GiB").to_le_bytes();
    let filling: Vec<u8> = (0..filling).map(|i| (i * 31 % 251) as u8).collect();
    [CLASS, STATE, &length, &filling, b"."].concat().into()
}

/// The time that is measured.
#[derive(Clone, Copy)]
struct Span {
    begin: Instant,
    end: Instant,
}

impl Span {
    fn count(&self, began: Instant, took: &mut Vec<u32>) {
        let now = Instant::now();
        if now > self.begin && now <= self.end {
            took.push(u32::try_from((now - began).as_micros()).unwrap_or(u32::MAX));
        }
    }
}

/// Microseconds of each load.
async fn loads(mut client: Client, number: u64, span: Span, pipeline: usize, objects: u64) -> anyhow::Result<Vec<u32>> {
    let mut took = Vec::new();
    let mut under_way: VecDeque<(i64, Instant)> = VecDeque::new();
    let mut chance = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while Instant::now() < span.end || !under_way.is_empty() {
        while under_way.len() < pipeline && Instant::now() < span.end {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let oid = Oid(FIRST + (chance >> 33) % objects);
            let id = client.push(&Call::LoadBefore { oid, tid: Tid::MAX });
            under_way.push_back((id, Instant::now()));
        }
        client.writer.flush().await?;
        if under_way.is_empty() {
            break;
        }
        // (All answers that have arrived are taken with one wake-up.)
        let mut frame = Some(client.frame().await?);
        while let Some(answer) = frame {
            let (id, _) = client.answer(&answer)?;
            if let Some(at) = under_way.iter().position(|(wanted, _)| *wanted == id) {
                let (_, began) = under_way.remove(at).expect("just found");
                span.count(began, &mut took);
            }
            frame = client.reader.buffered().map_err(|e| anyhow!("{e:?}"))?;
        }
    }
    Ok(took)
}

/// Microseconds of each commit, from its begin to its answer.
async fn commits(mut client: Client, number: u64, span: Span, commit: Commit) -> anyhow::Result<Vec<u32>> {
    let mut took = Vec::new();
    // Objects that were never stored, whatever ran before: no other connection writes them.
    let first = client.new_oid().await?.0 + FIRST + (number + 1) * 1_000;
    let mut serial = Tid::ZERO;
    while Instant::now() < span.end {
        let began = Instant::now();
        serial = client.commit(first, commit.writes, serial, &commit.data).await?;
        span.count(began, &mut took);
    }
    Ok(took)
}

struct Client {
    encoding: Encoding,
    reader: FrameReader,
    writer: FrameWriter,
    last_id: i64,
}

impl Client {
    async fn connect(address: &str) -> anyhow::Result<Client> {
        let wire = Tcp.connect(address).await.with_context(|| address.to_owned())?;
        let mut reader = FrameReader::new(wire.reader, FRAME);
        let mut writer = FrameWriter::new(wire.writer);
        let greeting = reader.next().await.map_err(|e| anyhow!("{e:?}"))?.context("closed before the greeting")?;
        let encoding = Encoding::of_greeting(&greeting).context("not a ZEO server")?;
        writer.push(&greeting);
        let mut client = Client { encoding, reader, writer, last_id: 0 };
        client.call(&Call::Register { storage: "1".into(), read_only: false }).await?;
        Ok(client)
    }

    fn push(&mut self, call: &Call) -> i64 {
        self.last_id += 1;
        self.writer.push(&encode_call(self.encoding, self.last_id, false, call));
        self.last_id
    }

    async fn frame(&mut self) -> anyhow::Result<Bytes> {
        self.reader.next().await.map_err(|e| anyhow!("{e:?}"))?.context("the server closed the connection")
    }

    /// The id of the call that was answered (0: a push) and the value; an exception is an error.
    fn answer<'a>(&self, frame: &'a Bytes) -> anyhow::Result<(i64, Value<'a>)> {
        match decode_message(self.encoding, frame).map_err(|e| anyhow!("{e:?}"))? {
            FromServer::Reply { id: MessageId::Int(id), value } => Ok((id, value)),
            FromServer::Push(_) => Ok((0, Value::None)),
            other => bail!("answered {other:?}"),
        }
    }

    /// Makes a call, waits for its answer, and gives what `take` makes of it.
    async fn ask<T>(&mut self, call: &Call, take: impl Fn(&Value<'_>) -> Option<T>) -> anyhow::Result<T> {
        let wanted = self.push(call);
        self.writer.flush().await?;
        loop {
            let frame = self.frame().await?;
            let (id, value) = self.answer(&frame)?;
            if id == wanted {
                return take(&value).with_context(|| format!("answered {value:?} to {call:?}"));
            }
        }
    }

    async fn call(&mut self, call: &Call) -> anyhow::Result<()> {
        self.ask(call, |_| Some(())).await
    }

    async fn new_oid(&mut self) -> anyhow::Result<Oid> {
        self.ask(&Call::NewOids(1), |value| Oid::from_bytes(value.as_items()?.first()?.as_bytes()?)).await
    }

    /// A transaction that writes `count` objects in a row, which all have the same serial.
    async fn commit(&mut self, first: u64, count: u64, serial: Tid, data: &Bytes) -> anyhow::Result<Tid> {
        self.vote(first, count, serial, data).await?;
        self.finish().await
    }

    /// The same up to its vote.
    async fn vote(&mut self, first: u64, count: u64, serial: Tid, data: &Bytes) -> anyhow::Result<()> {
        let (txn, none) = (TXN, Bytes::new());
        let (user, description) = (Bytes::from_static(b"bench"), none.clone());
        let begin = Call::TpcBegin { txn, user, description, extension: none, tid: None, status: b' ' };
        self.writer.push(&encode_call(self.encoding, 0, true, &begin));
        for oid in (first..first + count).map(Oid) {
            let store = Call::StoreA { oid, serial: Some(serial), data: data.clone(), txn };
            self.writer.push(&encode_call(self.encoding, 0, true, &store));
        }
        self.ask(&Call::Vote(txn), |conflicts| conflicts.as_items()?.is_empty().then_some(())).await
    }

    async fn finish(&mut self) -> anyhow::Result<Tid> {
        self.ask(&Call::TpcFinish(TXN), |tid| Tid::from_bytes(tid.as_bytes()?)).await
    }
}
