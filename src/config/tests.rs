//! Command lines and files, and the settings or errors that they give.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

use super::*;

fn run(line: &str) -> Config {
    match command_line(line.split_whitespace()) {
        Parsed::Run(config) => *config,
        other => panic!("{line}: {other:?}"),
    }
}

fn refused(line: &str) -> String {
    match command_line(line.split_whitespace()) {
        Parsed::Wrong(why) => why.to_string(),
        other => panic!("{line}: {other:?}"),
    }
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn a_node_that_is_alone() {
    let config = run("zrsd --data d");
    assert_eq!(config, Config { data: "d".into(), ..Config::default() });
    assert_eq!(config.address(), "127.0.0.1:8100");
    assert_eq!(config.members(), BTreeMap::from([(1, "127.0.0.1:8100".into())]));
    assert_eq!(run("zrsd --data d --listen 127.0.0.1:0").public_address(), "127.0.0.1:0");
}

#[test]
fn three_nodes() {
    let config = run("zrsd --data d --node 2 --peers 1=a:1,2=b:2,3=[::1]:3 --listen 0.0.0.0:2");
    assert_eq!(config.address(), "0.0.0.0:2");
    assert_eq!(config.public_address(), "b:2");
    assert_eq!(config.peers[&3], "[::1]:3");
}

#[test]
fn every_flag() {
    let config = run("zrsd --data d --storage main --storage archive --read-only --read-listen h:2 --max-lag 1.5 \
         --transaction-timeout 7 --pack-gc false --msgpack --http h:3 --log-file f --log-level debug --heartbeat 10 \
         --election-timeout 100 --relay-grace 0");
    assert_eq!(config.storages, ["main", "archive"]);
    assert!(config.read_only && config.msgpack && !config.pack_gc);
    assert_eq!(config.max_lag, Duration::from_millis(1500));
    assert_eq!(config.transaction_timeout, Duration::from_secs(7));
    assert_eq!((config.heartbeat, config.election_timeout), (Duration::from_millis(10), Duration::from_millis(100)));
    assert_eq!(config.relay_grace, Duration::ZERO);
    assert_eq!(config.log_file, Some("f".into()));
}

#[test]
fn the_file_says_the_same_and_flags_win() {
    let file = file(
        "node = 3\ndata = 'd'\nread-only = true\nmsgpack = true\npack-gc = false\nstorage = ['x', 'y']\nmax-lag = 2\n\
         heartbeat = 20\n\
         [peers]\n1 = 'a:1'\n2 = 'b:2'\n3 = 'c:3'\n",
    );
    let path = file.path().display();
    let config = run(&format!("zrsd --config {path} --node 1 --read-only=false --storage z"));
    assert_eq!((config.node, config.read_only, config.msgpack, config.pack_gc), (1, false, true, false));
    assert_eq!(config.storages, ["z"]);
    assert_eq!(config.max_lag, Duration::from_secs(2));
    assert_eq!(config.peers.len(), 3);
}

#[test]
fn the_file_knows_no_other_keys() {
    let file = file("data = 'd'\nread_only = true\n");
    let said = refused(&format!("zrsd --config {}", file.path().display()));
    assert!(said.contains("unknown field `read_only`") && said.contains("`read-only`"), "{said}");
    assert!(refused("zrsd --config /nowhere/at/all").contains("--config /nowhere/at/all: No such file"));
}

#[test]
fn refusals_name_the_setting_and_the_cure() {
    for (line, part) in [
        ("zrsd", "--data is missing"),
        ("zrsd --data d --node 0", "numbered from 1"),
        ("zrsd --data d --node 4 --peers 1=a:1,2=b:2,3=c:3", "--node 4 is not in --peers, which lists 1, 2, 3"),
        ("zrsd --data d --peers 1=a:1,2=a:1", "nodes 1 and 2 have the same address a:1"),
        ("zrsd --data d --peers 1=a:1,1=b:1", "node 1 is listed twice"),
        ("zrsd --data d --peers a:1,b:1", "is not NUMBER=HOST:PORT"),
        ("zrsd --data d --peers 1=a,2=b:1", "\"a\" is no address"),
        ("zrsd --data d --peers 1=a:0,2=b:1", "can't find port 0"),
        ("zrsd --data d --peers 1=a:1,2=b:1 --listen a:0", "port 0 serves a cluster of one node"),
        ("zrsd --data d --listen ::1:5", "no address"),
        ("zrsd --data d --http 127.0.0.1:8100", "already taken by another flag"),
        ("zrsd --data d --storage a --storage a", "given twice"),
        ("zrsd --data d --heartbeat 150", "at least 3 heartbeats (450 ms)"),
        ("zrsd --data d --heartbeat 1", "at least 5 ms"),
        ("zrsd --data d --transaction-timeout 0", "more than zero"),
        ("zrsd --data d --max-lag=-1", "not a time"),
        ("zrsd --data d --max-lag inf", "not a time"),
        ("zrsd --data d --tls-key k", "--tls-key k without --tls-cert"),
        ("zrsd --data d --tls-client-ca c", "--tls-client-ca c without --tls-cert"),
        ("zrsd --data d --tls-peer-ca c", "--tls-peer-ca c without --tls-cert"),
        ("zrsd --data d --peers 1=a:1,2=b:1 --listen /run/s", "serves a cluster of one node"),
        ("zrsd --data d --peers 1=/run/s,2=b:1", "no address"),
        ("zrsd --data d --http /run/s", "HOST:PORT only"),
        ("zrsd --data d --listen /run/s --read-listen /run/s", "already taken"),
        ("zrsd --data d --listen /run/s --tls-cert c", "these are always plain"),
        ("zrsd --data d --bogus", "--bogus"),
    ] {
        let said = refused(line);
        assert!(said.contains(part), "{line}: {said}");
    }
}

#[test]
fn a_secret_is_read_and_never_shown() {
    let good = file("0123456789abcdef-secret\n");
    let config = run(&format!("zrsd --data d --secret-file {}", good.path().display()));
    assert_eq!(config.secret.as_deref(), Some(&b"0123456789abcdef-secret"[..]));
    assert!(!format!("{config:?}").contains("48, 49"), "{config:?}");
    let short = file("short\n");
    assert!(refused(&format!("zrsd --data d --secret-file {}", short.path().display())).contains("holds 5 bytes"));
}

#[test]
fn files_of_tls() {
    assert_eq!(run("zrsd --data d").tls(), None);
    let alone = run("zrsd --data d --tls-cert c").tls().unwrap();
    assert_eq!(alone, TlsFiles { cert: "c".into(), key: "c".into(), client_ca: None, peers: PeerTrust::Nobody });
    let line = "zrsd --data d --peers 1=a:1,2=b:1,3=c:1 --tls-cert c --tls-key k";
    let config = run(line);
    assert_eq!(config.tls().unwrap().peers, PeerTrust::SameCertificate);
    assert_eq!(config.warnings(), Vec::<String>::new());
    let all = run(&format!("{line} --tls-client-ca d --tls-peer-ca p")).tls().unwrap();
    let expected =
        TlsFiles { cert: "c".into(), key: "k".into(), client_ca: Some("d".into()), peers: PeerTrust::Ca("p".into()) };
    assert_eq!(all, expected);
}

#[test]
fn sockets_in_the_file_system() {
    assert_eq!(run("zrsd --data d --listen ./s").address(), "./s");
    let config = run("zrsd --data d --peers 1=a:1,2=b:1,3=c:1 --read-listen /run/s");
    assert_eq!(config.read_listen.as_deref(), Some("/run/s"));
}

#[test]
fn warnings() {
    assert_eq!(run("zrsd --data d").warnings(), Vec::<String>::new());
    let said = run("zrsd --data d --peers 1=a:1,2=b:1").warnings().join("\n");
    assert!(said.contains("odd numbers") && said.contains("--secret-file"));
}

#[test]
fn help_teaches() {
    let help = command().render_long_help().to_string();
    for part in [
        "Examples:",
        "zrsd --data ./data",
        "<zeoclient>",
        "Exit codes",
        "--read-listen <HOST:PORT|PATH>",
        "--tls-client-ca <FILE|DIR>",
    ] {
        assert!(help.contains(part), "{part} is not in:\n{help}");
    }
    command().debug_assert();
}

#[test]
fn addresses() {
    for good in ["a:1", "10.0.0.1:8100", "[::1]:0", "db-1.example.org:65535"] {
        assert!(is_address(good), "{good}");
    }
    for poor in ["", "a", ":1", "a:", "a:x", "a:65536", "::1:5", "a b:1", "a:+1", "[::1:5", "http://a:1"] {
        assert!(!is_address(poor), "{poor}");
    }
    assert_eq!((host("[::1]:5"), port("[::1]:5")), (Some("::1"), Some(5)));
}
