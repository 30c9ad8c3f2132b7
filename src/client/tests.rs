//! The client against scripted servers, on a clock that jumps ahead.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::*;
use crate::config::limits;
use crate::env::Env;
use crate::net::{FrameReader, FrameWriter, Listener, Network, Wire};
use crate::zeo::{Call, Encoding, Push, Reply, decode_request, encode_push, encode_refusal, encode_reply};
use crate::zodb::{Oid, Refusal, Tid};

/// The host at an address.
#[derive(Clone)]
enum Host {
    /// Packets to it vanish.
    Gone,
    /// The listener takes connections and sends nothing.
    Frozen,
    /// Not primary; names the primary, if it knows one.
    Secondary(Option<&'static str>),
    Refusing(Refusal),
    /// Registers clients at `last` and sends `pushes`; then answers `calls` calls, loads with revision 5.
    Primary {
        last: Tid,
        calls: usize,
        pushes: Vec<(Tid, Vec<Oid>)>,
    },
}

struct Hosts(BTreeMap<&'static str, Host>);

impl Network for Hosts {
    fn listen<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        unreachable!("clients do not listen")
    }

    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Wire>> {
        Box::pin(async move {
            let host = match self.0.get(address) {
                None => return Err(io::ErrorKind::ConnectionRefused.into()),
                Some(Host::Gone) => return std::future::pending().await,
                Some(host) => host.clone(),
            };
            let (near, far) = tokio::io::duplex(1 << 16);
            tokio::spawn(serve(host, far));
            let (reader, writer) = tokio::io::split(near);
            Ok(Wire { reader: Box::new(reader), writer: Box::new(writer), peer: address.to_owned() })
        })
    }

    fn resolve<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        unreachable!("clients do not resolve names")
    }
}

async fn serve(host: Host, far: tokio::io::DuplexStream) {
    const PACK: Encoding = Encoding::Msgpack;
    let (reader, writer) = tokio::io::split(far);
    let (mut reader, mut writer) =
        (FrameReader::new(Box::new(reader), limits::FRAME), FrameWriter::new(Box::new(writer)));
    if matches!(host, Host::Frozen) {
        return std::future::pending().await;
    }
    // (The client does not wait for this greeting.)
    writer.push(b"Z5");
    writer.flush().await.unwrap();
    assert_eq!(&reader.next().await.unwrap().unwrap()[..], b"R5");
    let mut answered = 0;
    while let Ok(Some(frame)) = reader.next().await {
        let request = decode_request(PACK, &frame).unwrap();
        let reply = |reply: Reply| encode_reply(PACK, &request.id, &reply);
        match (&host, &request.call) {
            (Host::Secondary(primary), _) => {
                let refusal = Refusal::NotPrimary(primary.map(str::to_owned));
                writer.push(&encode_refusal(PACK, &request.id, &refusal));
            }
            (Host::Refusing(refusal), _) => writer.push(&encode_refusal(PACK, &request.id, refusal)),
            (Host::Primary { last, pushes, .. }, Call::Register { .. }) => {
                writer.push(&reply(Reply::Tid(*last)));
                for (tid, oids) in pushes {
                    writer.push(&encode_push(PACK, &Push::Invalidate { tid: *tid, oids }));
                }
            }
            (Host::Primary { calls, .. }, _) if answered == *calls => return std::future::pending().await,
            (Host::Primary { last, .. }, call) => {
                answered += 1;
                let data = Bytes::from_static(b"five");
                match call {
                    Call::LoadBefore { .. } => writer.push(&reply(Reply::Loaded { data, tid: Tid(5), end: None })),
                    _ => writer.push(&reply(Reply::Tid(*last))),
                }
            }
            (Host::Gone | Host::Frozen, _) => unreachable!("these hosts send nothing"),
        }
        if writer.flush().await.is_err() {
            return;
        }
    }
}

fn primary() -> Host {
    Host::Primary { last: Tid(10), calls: usize::MAX, pushes: Vec::new() }
}

async fn connect(addresses: &[&str], hosts: &[(&'static str, Host)]) -> Result<Client, ConnectError> {
    let addresses = addresses.iter().map(|address| (*address).to_owned()).collect();
    let options = Options { addresses, wait: Duration::from_secs(10), ..Options::default() };
    Client::connect(options, Env::system(), Arc::new(Hosts(hosts.iter().cloned().collect()))).await
}

fn address(client: &Client) -> String {
    client.up().look().as_ref().unwrap().address.clone()
}

#[tokio::test(start_paused = true)]
async fn the_primary_is_found_among_the_dead() {
    let began = Instant::now();
    let hosts = [("a", Host::Gone), ("b", Host::Frozen), ("c", primary())];
    let client = connect(&["a", "b", "c"], &hosts).await.unwrap();
    assert_eq!((address(&client).as_str(), client.view()), ("c", Tid(10)));
    assert!(began.elapsed() < Duration::from_millis(10), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_secondary_says_where_it_is_though_an_older_word_leads_nowhere() {
    let began = Instant::now();
    let hosts =
        [("b", Host::Secondary(Some("a"))), ("a", Host::Frozen), ("c", Host::Secondary(Some("d"))), ("d", primary())];
    let client = connect(&["b", "c"], &hosts).await.unwrap();
    assert_eq!(address(&client), "d");
    assert!(began.elapsed() < Duration::from_millis(10), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn every_wait_ends() {
    let began = Instant::now();
    let hosts = [("a", Host::Gone), ("b", Host::Frozen), ("c", Host::Secondary(None))];
    let error = connect(&["a", "b", "c", "d"], &hosts).await.unwrap_err();
    assert_eq!(began.elapsed().as_secs(), 10);
    let ConnectError::Unreachable(whys) = error else { panic!("{error}") };
    assert_eq!(whys.iter().map(|(address, _)| address.as_str()).collect::<Vec<_>>(), ["a", "b", "c", "d"]);

    // The only server stops answering: the connection is given up after the silence, and the caller gets an error.
    let silent = Host::Primary { last: Tid(10), calls: 0, pushes: Vec::new() };
    let client = connect(&["a"], &[("a", silent)]).await.unwrap();
    let began = Instant::now();
    assert_eq!(client.load(Oid(1)).await, Err(CallError::Disconnected));
    assert_eq!(began.elapsed().as_secs(), 10);
    assert!(client.up().look().as_ref().is_none_or(|up| up.generation > 1));
    let transaction = Transaction::new(client.clone(), Tid(10));
    transaction.write(Oid(1), "");
    let began = Instant::now();
    assert_eq!(transaction.commit("", "").await, Err(CommitError::Disconnected));
    assert!(began.elapsed().as_secs() <= 30, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_believed_unless_a_primary_may_come() {
    let wrong = Refusal::NoStorage { name: "1".into(), known: vec!["a".into(), "b".into()] };
    let hosts = [("a", Host::Refusing(wrong.clone())), ("b", Host::Secondary(Some("a")))];
    let began = Instant::now();
    assert_eq!(connect(&["a", "b"], &hosts).await.unwrap_err(), ConnectError::Refused(wrong));
    assert!(began.elapsed() < Duration::from_secs(1));
    let hosts = [("a", Host::Refusing(Refusal::ReadOnly)), ("b", Host::Secondary(None))];
    assert!(matches!(connect(&["a", "b"], &hosts).await.unwrap_err(), ConnectError::Unreachable(_)));
}

#[tokio::test(start_paused = true)]
async fn what_is_told_out_of_turn_ends_the_connection() {
    let odd = Host::Primary { last: Tid(10), calls: usize::MAX, pushes: vec![(Tid(12), vec![]), (Tid(11), vec![])] };
    // The connection is closed at once; and the server then has less than the client has seen, so it is not used again.
    let ConnectError::Unreachable(whys) = connect(&["a"], &[("a", odd)]).await.unwrap_err() else { panic!() };
    assert_eq!(whys, [("a".to_owned(), "it has less than this client has seen".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_connection_is_kept() {
    let client = connect(&["a"], &[("a", primary())]).await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(client.up().look().as_ref().unwrap().generation, 1);
    assert_eq!(client.load(Oid(1)).await.unwrap().data, "five");
}
