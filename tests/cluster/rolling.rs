//! A rolling upgrade: nodes of two versions work together, and the newer format is used once all know it. (The newer
//! version is this one that passes for the next.)

use std::process::Command;

use zrs::env::Env;
use zrs::zodb::Oid;

use crate::connect;
use crate::counters::Counters;
use crate::support::cluster::Cluster;
use crate::support::{PATIENCE, wait_for};

const NEWER: &str = "--pretend-newer";

/// The newest format that a node knows, and the one in which it would propose.
fn formats(cluster: &Cluster, index: usize) -> Option<(u64, u64)> {
    let status = cluster.nodes[index].status();
    Some((status["format"].as_u64()?, status["proposes"].as_u64()?))
}

#[test]
fn a_rolling_upgrade_loses_nothing_and_changes_the_format_at_its_end() {
    let mut cluster = Cluster::started(3);
    cluster.wait_ready();
    let counters = Counters::start(&cluster);
    let first = cluster.wait_primary();
    let old = formats(&cluster, first).unwrap().0;
    for (upgraded, index) in [(first + 1) % 3, (first + 2) % 3, first].into_iter().enumerate() {
        assert!(cluster.nodes[index].terminate().success());
        cluster.nodes[index].options = vec![NEWER.into()];
        cluster.start(index);
        cluster.wait_ready();
        counters.wait_progress(&cluster);
        let primary = cluster.wait_primary();
        assert_eq!(formats(&cluster, index).unwrap().0, old + 1);
        if upgraded < 2 {
            assert_eq!(formats(&cluster, primary).unwrap().1, old, "a member knows the old format only");
        }
    }
    let primary = cluster.wait_primary();
    let proposes = || formats(&cluster, primary).filter(|(_, proposes)| *proposes == old + 1);
    wait_for(|| format!("the new format: {}", cluster.situation()), PATIENCE, proposes);
    counters.wait_progress(&cluster);

    // There is no way back: a node of the old version can't apply what it gets, and says so.
    let index = (cluster.wait_primary() + 1) % 3;
    assert!(cluster.nodes[index].terminate().success());
    // (Once it is there again, the others propose what it knows.)
    counters.wait_progress(&cluster);
    cluster.nodes[index].options.clear();
    let said = cluster.nodes[index].log_text().len();
    cluster.start(index);
    let node = &mut cluster.nodes[index];
    wait_for(|| "the node to end".into(), PATIENCE, || (!node.is_running()).then_some(()));
    node.kill();
    let said = node.log_text().split_off(said);
    assert!(said.contains(&format!("a command of format {}", old + 1)) && said.contains("update zrsd"), "{said}");
    cluster.nodes[index].options = vec![NEWER.into()];
    cluster.start(index);
    cluster.wait_ready();
    counters.check(&cluster);
}

/// The folder that zrsd 0.1.0 made, in the formats of its time: each later version must open it.
///
/// `ZRS_BLESS=1` makes it anew: four commits of three objects, and a stop by SIGTERM.
#[test]
fn a_folder_of_this_format_is_opened() {
    let packed = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/folder-2.tar.xz");
    let mut cluster = Cluster::new(1);
    let data = cluster.nodes[0].data.clone();
    let home = data.parent().expect("the folder lies in another").to_owned();
    let name = data.file_name().expect("the folder has a name").to_str().unwrap().to_owned();
    let python = |program: &str, arguments: [&str; 2]| {
        let mut command = Command::new("python3");
        let done = command.args(["-c", program]).args(arguments).arg(&name).current_dir(&home).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    let large: Vec<u8> = (0..300_000u64).map(|n| ((n * n) >> 7) as u8).collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if std::env::var_os("ZRS_BLESS").is_some() {
        cluster.start(0);
        cluster.wait_primary();
        let work = async {
            let client = connect(&cluster).await;
            for (oid, value) in
                [(0, b"root".to_vec()), (1, b"first".to_vec()), (1, b"second".to_vec()), (2, large.clone())]
            {
                let transaction = client.begin().await.unwrap();
                transaction.write(Oid(oid), value);
                transaction.commit("user", "description").await.unwrap();
            }
        };
        runtime.block_on(Env::system().scope(work));
        assert!(cluster.nodes[0].terminate().success());
        python("import sys, tarfile; tarfile.open(sys.argv[1], 'w:xz').add(sys.argv[3], 'folder')", [packed, ""]);
        std::fs::remove_dir_all(&data).unwrap();
    }
    python(
        "import os, sys, tarfile; tarfile.open(sys.argv[1]).extractall(); os.rename('folder', sys.argv[3])",
        [packed, ""],
    );
    let adopt =
        Command::new(env!("CARGO_BIN_EXE_zrsctl")).args(["adopt", "--yes", "--data"]).arg(&data).output().unwrap();
    assert!(adopt.status.success(), "{}", String::from_utf8_lossy(&adopt.stderr));
    cluster.start(0);
    cluster.wait_primary();
    let look = async {
        let client = connect(&cluster).await;
        for (oid, value) in [(0, b"root".to_vec()), (1, b"second".to_vec()), (2, large.clone())] {
            assert!(client.load(Oid(oid)).await.unwrap().data == value, "object {oid}");
        }
        let newest = client.load(Oid(1)).await.unwrap().tid;
        let before = client.load_before(Oid(1), newest).await.unwrap().expect("there is an older revision");
        assert_eq!(before.data, &b"first"[..]);
    };
    runtime.block_on(Env::system().scope(look));
}
