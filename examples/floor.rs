//! The floor for `make bench`: a server that does as little as a server of this protocol can.
//!
//! It keeps everything in memory, in one thread; a commit is one write and one fdatasync of a file, which nobody ever
//! reads. It checks nothing: no conflicts, no limits. What a real server does beyond that is what it costs to be one.
//!
//! Prints its address once it listens, and runs until it is killed.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::rc::Rc;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use clap::Parser;
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use zrs::config::limits::FRAME;
use zrs::net::{FrameReader, FrameWriter, Network as _, Tcp, Wire};
use zrs::zeo::{Call, Encoding, Push, Reply, decode_request, encode_push, encode_refusal, encode_reply};
use zrs::zodb::{Oid, Refusal, Tid};

#[derive(Parser)]
struct Flags {
    /// HOST:PORT to listen at
    #[arg(long)]
    listen: String,
    /// The file that is written
    #[arg(long)]
    file: PathBuf,
}

/// All that the server has.
struct Floor {
    objects: HashMap<Oid, (Tid, Bytes)>,
    last: Tid,
    next_oid: u64,
    file: File,
    /// Where news go, by connection.
    clients: HashMap<u64, mpsc::UnboundedSender<Bytes>>,
}

fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, serve(flags))
}

async fn serve(flags: Flags) -> anyhow::Result<()> {
    let file = File::create(&flags.file).with_context(|| flags.file.display().to_string())?;
    let (objects, clients) = (HashMap::new(), HashMap::new());
    let floor = Rc::new(RefCell::new(Floor { objects, last: Tid(1), next_oid: 0, file, clients }));
    let mut listener = Tcp.listen(&flags.listen).await?;
    println!("{}", flags.listen);
    for number in 0.. {
        let wire = listener.accept().await?;
        let floor = floor.clone();
        tokio::task::spawn_local(async move {
            // (A client that is gone, or says what is no call, has ended.)
            let _ = talk(&floor, number, wire).await;
            floor.borrow_mut().clients.remove(&number);
        });
    }
    Ok(())
}

async fn talk(floor: &RefCell<Floor>, number: u64, wire: Wire) -> anyhow::Result<()> {
    let encoding = Encoding::Msgpack;
    let mut reader = FrameReader::new(wire.reader, FRAME);
    let mut writer = FrameWriter::new(wire.writer);
    writer.push(encoding.greeting());
    writer.flush().await?;
    reader.next().await.map_err(|e| anyhow!("{e:?}"))?.context("gone")?;
    let (news, mut told) = mpsc::unbounded_channel();
    floor.borrow_mut().clients.insert(number, news);
    let mut writes = Vec::new();
    loop {
        tokio::select! { biased;
            Some(message) = told.recv() => writer.push(&message),
            frame = reader.next() => {
                let mut frame = frame.map_err(|e| anyhow!("{e:?}"))?;
                if frame.is_none() {
                    return Ok(());
                }
                while let Some(call) = frame {
                    let request = decode_request(encoding, &call).map_err(|e| anyhow!("{e:?}"))?;
                    let answer = floor.borrow_mut().call(number, request.call, &mut writes)?;
                    if !request.asynchronous {
                        writer.push(&match answer {
                            Ok(reply) => encode_reply(encoding, &request.id, &reply),
                            Err(refusal) => encode_refusal(encoding, &request.id, &refusal),
                        });
                    }
                    frame = reader.buffered().map_err(|e| anyhow!("{e:?}"))?;
                }
            }
        }
        writer.flush().await?;
    }
}

impl Floor {
    fn call(
        &mut self,
        number: u64,
        call: Call,
        writes: &mut Vec<(Oid, Bytes)>,
    ) -> anyhow::Result<Result<Reply, Refusal>> {
        Ok(Ok(match call {
            Call::Register { .. } => Reply::Tid(self.last),
            Call::NewOids(count) => {
                let first = self.next_oid + 1;
                self.next_oid += count.max(1).unsigned_abs();
                Reply::Oids((first..=self.next_oid).map(Oid).collect())
            }
            Call::LoadBefore { oid, .. } => match self.objects.get(&oid) {
                Some((tid, data)) => Reply::Loaded { data: data.clone(), tid: *tid, end: None },
                None => return Ok(Err(Refusal::NoObject(oid))),
            },
            Call::TpcBegin { .. } => {
                writes.clear();
                Reply::Nothing
            }
            Call::StoreA { oid, data, .. } => {
                writes.push((oid, data));
                Reply::Nothing
            }
            Call::Vote(_) => Reply::Conflicts(Vec::new()),
            Call::TpcFinish(_) => Reply::Tid(self.finish(number, std::mem::take(writes))?),
            _ => Reply::Nothing,
        }))
    }

    fn finish(&mut self, number: u64, writes: Vec<(Oid, Bytes)>) -> anyhow::Result<Tid> {
        let record: Vec<u8> = writes.iter().flat_map(|(_, data)| data.iter().copied()).collect();
        self.file.write_all(&record)?;
        self.file.sync_data()?;
        self.last = Tid(self.last.0 + 1);
        let oids: Vec<Oid> = writes.iter().map(|(oid, _)| *oid).collect();
        let message = encode_push(Encoding::Msgpack, &Push::Invalidate { tid: self.last, oids: &oids });
        for (_, client) in self.clients.iter().filter(|(client, _)| **client != number) {
            let _ = client.send(message.clone());
        }
        self.objects.extend(writes.into_iter().map(|(oid, data)| (oid, (self.last, data))));
        Ok(self.last)
    }
}
