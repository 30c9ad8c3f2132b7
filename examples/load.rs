//! Load for `make bench`: connections that load or commit as fast as they are answered.
//!
//! Python clients would be slower than the servers that they measure. This program speaks the ZEO protocol as they do,
//! over the same kind of connections, to zrsd and to the stock server alike, with as little work of its own as
//! possible: it shares the machine with the server. Prints one line of JSON.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use clap::{Parser, ValueEnum};
use tokio::task::JoinSet;

use zrs::config::limits::FRAME;
use zrs::net::{FrameReader, FrameWriter, Network as _, Tcp};
use zrs::zeo::{Call, Encoding, FromServer, MessageId, Value, decode_message, encode_call};
use zrs::zodb::{Oid, Tid};

/// Objects that `fill` stores and `loads` reads.
const OBJECTS: u64 = 2_000;
/// The first id of these objects; committers write objects with greater ids.
const FIRST: u64 = 1_000_000;
/// Objects in each transaction of `commits`.
const WRITES: u64 = 2;
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
}

#[derive(Clone, Copy, ValueEnum)]
enum Work {
    /// Stores the objects for `loads`.
    Fill,
    Loads,
    Commits,
}

fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(flags))
}

async fn run(flags: Flags) -> anyhow::Result<()> {
    if matches!(flags.work, Work::Fill) {
        let mut client = Client::connect(&flags.address).await?;
        for first in (0..OBJECTS).step_by(100) {
            client.commit(FIRST + first, 100, Tid::ZERO, &data(flags.size)).await?;
        }
        println!("{{\"objects\": {OBJECTS}}}");
        return Ok(());
    }
    let mut clients = Vec::new();
    for _ in 0..flags.connections {
        clients.push(Client::connect(&flags.address).await?);
    }
    let begin = Instant::now() + WARM_UP;
    let end = begin + Duration::from_secs_f64(flags.seconds);
    let mut tasks = JoinSet::new();
    for (number, client) in (0u64..).zip(clients) {
        let span = Span { begin, end };
        match flags.work {
            Work::Commits => tasks.spawn(commits(client, number, span, data(flags.size))),
            Work::Fill | Work::Loads => tasks.spawn(loads(client, number, span, flags.pipeline)),
        };
    }
    let mut took = Vec::new();
    while let Some(done) = tasks.join_next().await {
        took.extend(done??);
    }
    took.sort_unstable();
    if took.is_empty() {
        bail!("nothing was answered within {} s", flags.seconds);
    }
    let percentile = |p: usize| f64::from(took[(took.len() - 1) * p / 100]) / 1000.0;
    println!(
        "{{\"count\": {}, \"per_second\": {:.1}, \"p50_ms\": {:.3}, \"p99_ms\": {:.3}}}",
        took.len(),
        took.len() as f64 / flags.seconds,
        percentile(50),
        percentile(99)
    );
    Ok(())
}

fn data(size: usize) -> Bytes {
    (0..size).map(|i| (i * 31 % 251) as u8).collect::<Vec<_>>().into()
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
async fn loads(mut client: Client, number: u64, span: Span, pipeline: usize) -> anyhow::Result<Vec<u32>> {
    let mut took = Vec::new();
    let mut under_way: VecDeque<(i64, Instant)> = VecDeque::new();
    let mut chance = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while Instant::now() < span.end || !under_way.is_empty() {
        while under_way.len() < pipeline && Instant::now() < span.end {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let oid = Oid(FIRST + (chance >> 33) % OBJECTS);
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
async fn commits(mut client: Client, number: u64, span: Span, data: Bytes) -> anyhow::Result<Vec<u32>> {
    let mut took = Vec::new();
    // Objects that were never stored, whatever ran before: no other connection writes them.
    let first = client.new_oid().await?.0 + FIRST + (number + 1) * 1_000;
    let mut serial = Tid::ZERO;
    while Instant::now() < span.end {
        let began = Instant::now();
        serial = client.commit(first, WRITES, serial, &data).await?;
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
        let (txn, none) = (1, Bytes::new());
        let (user, description) = (Bytes::from_static(b"bench"), none.clone());
        let begin = Call::TpcBegin { txn, user, description, extension: none, tid: None, status: b' ' };
        self.writer.push(&encode_call(self.encoding, 0, true, &begin));
        for oid in (first..first + count).map(Oid) {
            let store = Call::StoreA { oid, serial: Some(serial), data: data.clone(), txn };
            self.writer.push(&encode_call(self.encoding, 0, true, &store));
        }
        self.ask(&Call::Vote(txn), |conflicts| conflicts.as_items()?.is_empty().then_some(())).await?;
        self.ask(&Call::TpcFinish(txn), |tid| Tid::from_bytes(tid.as_bytes()?)).await
    }
}
