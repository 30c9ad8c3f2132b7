//! The Rust client against real nodes: it finds the primary, follows it, loses nothing, and reads nothing stale.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use support::PATIENCE;
use support::cluster::Cluster;
use zrs::client::{CallError, Client, CommitError, ConnectError, Options};
use zrs::env::Env;
use zrs::net::{Tcp, TlsClient};
use zrs::zodb::{Oid, Refusal, Tid};

fn options(cluster: &Cluster) -> Options {
    Options { addresses: cluster.addresses(), wait: PATIENCE, ..Options::default() }
}

async fn connect(options: Options) -> Client {
    Client::connect(options, Env::system(), Arc::new(Tcp)).await.unwrap()
}

/// Commits a value; once more, if an election has cut off the answer.
async fn set(client: &Client, oid: Oid, value: &str) -> Tid {
    loop {
        let transaction = client.begin().await.unwrap();
        transaction.write(oid, value.to_owned());
        match transaction.commit("test", "set").await {
            Ok(tid) => return tid,
            Err(CommitError::Unknown) => client.sync().await.unwrap(),
            Err(error) => panic!("{error}"),
        };
    }
}

async fn get(client: &Client, oid: Oid) -> String {
    String::from_utf8(client.load(oid).await.unwrap().data.to_vec()).unwrap()
}

fn number(data: &[u8]) -> u64 {
    std::str::from_utf8(data).unwrap().parse().unwrap()
}

/// Counts an object up, and tries again after conflicts.
async fn count_up(client: &Client, oid: Oid) -> Result<(), CommitError> {
    loop {
        let counted = client.transact(async |transaction| {
            let count = number(&transaction.read(oid).await?);
            transaction.write(oid, (count + 1).to_string());
            Ok::<_, CommitError>(())
        });
        match counted.await {
            Err(CommitError::Conflict(_)) => {}
            ended => return ended,
        }
    }
}

async fn primary(cluster: &Cluster) -> usize {
    // (Asking each node blocks this thread for a moment.)
    loop {
        if let Some(primary) = cluster.primary() {
            return primary;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the client is connected to the primary of the moment: that may change at any time, and clients follow.
fn wait_at_primary(client: &Client, cluster: &Cluster) {
    let there = || {
        let up = client.up().look().clone()?;
        (up.address == cluster.nodes[cluster.primary()?].address()).then_some(())
    };
    support::wait_for(|| format!("a client at the primary: {}", cluster.situation()), PATIENCE, there);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_found_by_any_address_and_commits() {
    let cluster = Cluster::started(3);
    cluster.wait_ready();
    let first = connect(options(&cluster)).await;
    let tid = set(&first, Oid(0), "root").await;
    assert_eq!(first.view(), tid);
    for node in &cluster.nodes {
        // Each address alone leads to the primary; a secondary names it.
        let client = connect(Options { addresses: vec![node.address()], ..options(&cluster) }).await;
        wait_at_primary(&client, &cluster);
        assert_eq!(client.load(Oid(0)).await.unwrap().tid, tid);
        // Readers are served by the node that they ask.
        let reader = connect(Options { addresses: vec![node.address()], read_only: true, ..options(&cluster) }).await;
        assert_eq!(reader.up().look().clone().unwrap().address, node.address());
        assert_eq!(get(&reader, Oid(0)).await, "root");
        let transaction = reader.begin().await.unwrap();
        transaction.write(Oid(0), "not by a reader");
        assert_eq!(transaction.commit("", "").await, Err(CommitError::Refused(Refusal::ReadOnly)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_read_their_snapshot_and_conflict() {
    let cluster = Cluster::started(1);
    let (one, two) = (connect(options(&cluster)).await, connect(options(&cluster)).await);
    let (oid, other, missing) = (one.new_oid().await.unwrap(), two.new_oid().await.unwrap(), Oid(1 << 40));
    assert_ne!(oid, other);
    assert_eq!(one.load(missing).await, Err(CallError::Refused(Refusal::NoObject(missing))));
    set(&one, oid, "1").await;
    set(&one, other, "1").await;
    two.sync().await.unwrap();

    let old = one.begin().await.unwrap();
    let blind = one.begin().await.unwrap();
    let checks = one.begin().await.unwrap();
    assert_eq!(&old.read(oid).await.unwrap()[..], b"1");
    let changed = set(&two, oid, "2").await;
    one.sync().await.unwrap();
    assert_eq!(one.view(), changed);
    assert_eq!(get(&one, oid).await, "2");
    assert_eq!(&old.read(oid).await.unwrap()[..], b"1");
    assert_eq!(&checks.read(oid).await.unwrap()[..], b"1");

    for transaction in [&old, &blind] {
        transaction.write(oid, "3");
        assert_eq!(&transaction.read(oid).await.unwrap()[..], b"3");
        match transaction.commit("", "").await {
            Err(CommitError::Conflict(conflicts)) => assert_eq!(conflicts[0].committed, changed),
            other => panic!("{other:?}"),
        }
        assert!(matches!(transaction.commit("", "").await, Err(CommitError::Refused(Refusal::WrongTransaction(_)))));
    }
    checks.check_current(oid);
    checks.write(other, "2");
    assert!(matches!(checks.commit("", "").await, Err(CommitError::Conflict(_))));
    assert_eq!(get(&one, oid).await, "2");
    assert_eq!(get(&one, other).await, "1");

    // The conflict is the error after three tries.
    let tries = AtomicU64::new(0);
    let ended = one.transact(async |transaction| {
        tries.fetch_add(1, SeqCst);
        transaction.read(oid).await?;
        set(&two, oid, "again").await;
        transaction.write(oid, "never");
        Ok::<_, CommitError>(())
    });
    assert!(matches!(ended.await, Err(CommitError::Conflict(_))));
    assert_eq!(tries.load(SeqCst), 3);

    let refused =
        Client::connect(Options { storage: "other".into(), ..options(&cluster) }, Env::system(), Arc::new(Tcp));
    let unknown = Refusal::NoStorage { name: "other".into(), known: vec!["1".into()] };
    assert_eq!(refused.await.unwrap_err(), ConnectError::Refused(unknown));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conflict_is_tried_again() {
    let cluster = Cluster::started(1);
    let clients = [connect(options(&cluster)).await, connect(options(&cluster)).await];
    set(&clients[0], Oid(1), "0").await;
    clients[1].sync().await.unwrap();
    let mut tasks = Vec::new();
    for client in &clients {
        for _ in 0..3 {
            let client = client.clone();
            tasks.push(tokio::spawn(async move {
                for _ in 0..20 {
                    count_up(&client, Oid(1)).await.unwrap();
                }
            }));
        }
    }
    for task in tasks {
        task.await.unwrap();
    }
    for client in &clients {
        client.sync().await.unwrap();
        assert_eq!(get(client, Oid(1)).await, "120");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cache_is_bounded_and_serves() {
    let cluster = Cluster::started(1);
    let client = connect(Options { cache_bytes: 100_000, ..options(&cluster) }).await;
    let transaction = client.begin().await.unwrap();
    for oid in 1..=200 {
        transaction.write(Oid(oid), vec![oid as u8; 5_000]);
    }
    transaction.commit("", "").await.unwrap();
    for round in 0..3 {
        let loads = (1..=200).map(|oid| client.load(Oid(oid)));
        for (oid, loaded) in (1..=200u64).zip(futures_util::future::join_all(loads).await) {
            assert_eq!(&loaded.unwrap().data[..], &vec![oid as u8; 5_000][..], "round {round}");
            assert!(client.cached_bytes() <= 100_000);
        }
    }
    assert!(client.cached_bytes() > 50_000);
    // (Objects larger than the cache are not kept in it.)
    let large = vec![7; 3_000_000];
    let transaction = client.begin().await.unwrap();
    transaction.write(Oid(1), large.clone());
    transaction.commit("", "").await.unwrap();
    assert_eq!(&client.load(Oid(1)).await.unwrap().data[..], &large[..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stale_is_read_after_a_failover() {
    let mut cluster = Cluster::started(3);
    cluster.wait_ready();
    // (One that would not give up a silent primary while the others elect the next one, however long that takes.)
    let client = connect(Options { silence: 2 * PATIENCE, ..options(&cluster) }).await;
    for oid in 1..=3 {
        set(&client, Oid(oid), "before").await;
        get(&client, Oid(oid)).await;
    }
    let seen = client.view();
    let snapshot = client.begin().await.unwrap();
    let mut up = client.up();
    // The primary is stopped, so that this client hangs on it, while another writes through the next one.
    let old = primary(&cluster).await;
    let pid = cluster.nodes[old].pid().unwrap();
    support::cluster::signal(pid, "STOP");
    let others: Vec<String> =
        cluster.nodes.iter().enumerate().filter(|(n, _)| *n != old).map(|(_, node)| node.address()).collect();
    let writer = connect(Options { addresses: others, ..options(&cluster) }).await;
    set(&writer, Oid(2), "after").await;
    assert_eq!(get(&client, Oid(2)).await, "before");
    assert_eq!(client.view(), seen);
    cluster.nodes[old].kill();
    up.until(|up| up.as_ref().is_some_and(|up| up.generation > 1)).await.unwrap();
    assert!(client.view() > seen);
    assert_eq!(get(&client, Oid(2)).await, "after");
    assert_eq!(get(&client, Oid(1)).await, "before");
    // A transaction that was begun before reads on from its snapshot, and its write is a conflict.
    assert_eq!(&snapshot.read(Oid(2)).await.unwrap()[..], b"before");
    snapshot.write(Oid(2), "too late");
    assert!(matches!(snapshot.commit("", "").await, Err(CommitError::Conflict(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_primary_is_given_up() {
    let mut cluster = Cluster::started(3);
    cluster.wait_ready();
    let client = connect(Options { silence: Duration::from_secs(2), ..options(&cluster) }).await;
    set(&client, Oid(1), "0").await;
    let old = primary(&cluster).await;
    support::cluster::signal(cluster.nodes[old].pid().unwrap(), "STOP");
    // No packet tells that the primary is gone; a commit begun now succeeds all the same, unless its finish was sent
    // there.
    let began = tokio::time::Instant::now();
    match count_up(&client, Oid(1)).await {
        Ok(()) => assert_eq!(get(&client, Oid(1)).await, "1"),
        Err(CommitError::Unknown) => {}
        Err(error) => panic!("{error}"),
    }
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    // (A commit whose outcome is unknown ends before the client has found the next primary.)
    let silent = cluster.nodes[old].address();
    client.up().until(|up| up.as_ref().is_some_and(|up| up.address != silent)).await.unwrap();
    cluster.nodes[old].kill();
}

/// How the commits of one object's tasks ended.
#[derive(Default)]
struct Told {
    answered: AtomicU64,
    unknown: AtomicU64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_primary_is_killed_under_load() {
    let mut cluster = Cluster::started(3);
    cluster.wait_ready();
    let stop = Arc::new(AtomicBool::new(false));
    let mut told = BTreeMap::new();
    let mut tasks = Vec::new();
    let setup = connect(options(&cluster)).await;
    for oid in [Oid(1), Oid(2)] {
        set(&setup, oid, "0").await;
        let count = Arc::new(Told::default());
        told.insert(oid, count.clone());
        // Two clients, two tasks each, at one counter.
        for _ in 0..2 {
            let client = connect(options(&cluster)).await;
            for _ in 0..2 {
                let (client, count, stop) = (client.clone(), count.clone(), stop.clone());
                tasks.push(tokio::spawn(async move {
                    while !stop.load(SeqCst) {
                        match count_up(&client, oid).await {
                            Ok(()) => count.answered.fetch_add(1, SeqCst),
                            Err(CommitError::Unknown) => count.unknown.fetch_add(1, SeqCst),
                            Err(error) => panic!("{error}"),
                        };
                    }
                }));
            }
        }
    }
    for _ in 0..3 {
        let old = primary(&cluster).await;
        let before: Vec<u64> = told.values().map(|told| told.answered.load(SeqCst)).collect();
        cluster.nodes[old].kill();
        let began = tokio::time::Instant::now();
        while told.values().zip(&before).any(|(told, before)| told.answered.load(SeqCst) < before + 10) {
            assert!(began.elapsed() < PATIENCE, "nobody goes on: {}", cluster.situation());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        println!("ten more commits after {:?}", began.elapsed());
        cluster.start(old);
        cluster.wait_ready();
    }
    stop.store(true, SeqCst);
    for task in tasks {
        task.await.unwrap();
    }
    setup.sync().await.unwrap();
    for (oid, told) in told {
        let (found, answered) = (number(&setup.load(oid).await.unwrap().data), told.answered.load(SeqCst));
        let unknown = told.unknown.load(SeqCst);
        println!("object {oid}: {found}, answered {answered}, unknown {unknown}");
        assert!(
            (answered..=answered + unknown).contains(&found),
            "{answered} answered, {unknown} unknown, found {found}"
        );
    }
}

fn pem(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls").join(format!("{name}.pem"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_speaks_tls_and_follows_the_primary() {
    let paths = ["node1", "node1_key", "peers-ca", "clients-ca"].map(|name| pem(name).display().to_string());
    let [cert, key, peers, clients] = paths.each_ref().map(String::as_str);
    let mut tls_options =
        vec!["--tls-cert", cert, "--tls-key", key, "--tls-peer-ca", peers, "--tls-client-ca", clients];
    // (Only the kill is to move the role.)
    tls_options.extend(["--election-timeout", "1000"]);
    let mut cluster = Cluster::with_options(3, &tls_options);
    cluster.start_all();
    let first = cluster.wait_primary();
    cluster.wait_ready();
    let by_tls = |own: Option<&str>| {
        let own = own.map(|own| (pem(own), pem(&format!("{own}_key"))));
        let own = own.as_ref().map(|(cert, key)| (cert.as_path(), key.as_path()));
        TlsClient::new(&pem("peers-ca"), own, None, &Env::system()).unwrap()
    };
    let address = cluster.nodes[(first + 1) % 3].address();
    let with = |tls| Options { addresses: vec![address.clone()], tls, ..options(&cluster) };
    let client = connect(with(Some(by_tls(Some("client"))))).await;
    wait_at_primary(&client, &cluster);
    let large = "x".repeat(3 << 20);
    set(&client, Oid(1), &large).await;
    let reader = connect(Options { read_only: true, ..with(Some(by_tls(Some("client")))) }).await;
    assert_eq!(get(&reader, Oid(1)).await, large);
    let soon = Duration::from_secs(2);
    for tls in [None, Some(by_tls(None)), Some(by_tls(Some("stranger")))] {
        let refused = Options { wait: soon, ..with(tls) };
        let refused = Client::connect(refused, Env::system(), Arc::new(Tcp)).await;
        assert!(matches!(refused, Err(ConnectError::Unreachable(_))), "{refused:?}");
    }
    cluster.nodes[first].kill();
    set(&client, Oid(1), "after").await;
    let mut news = reader.news();
    let view = client.view();
    tokio::time::timeout(PATIENCE, news.until(|tid| *tid >= view)).await.unwrap().unwrap();
    assert_eq!(get(&reader, Oid(1)).await, "after");
}
