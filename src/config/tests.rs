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
        Parsed::Wrong(wrong) => wrong.to_string(),
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

/// The settings of a file with these lines, which has line 1 from here.
fn from_file(lines: &str) -> Result<Config, String> {
    let file = file(&format!("data = 'd'\n{lines}\n"));
    match command_line(["zrsd".as_ref(), "--config".as_ref(), file.path().as_os_str()]) {
        Parsed::Run(config) => Ok(*config),
        Parsed::Wrong(wrong) => {
            assert_eq!(wrong.to_string(), format!("zrsd: {}", wrong.why), "one line");
            Err(wrong.why.replace(&format!("--config {}: ", file.path().display()), ""))
        }
        other => panic!("{lines}: {other:?}"),
    }
}

#[test]
fn the_file_is_understood_as_it_is_meant() {
    let with = |change: &dyn Fn(&mut Config)| {
        let mut config = Config { data: "d".into(), ..Config::default() };
        change(&mut config);
        Ok(config)
    };
    let ms = Duration::from_millis;
    for lines in ["storage = 'main'", "storage = ['main']"] {
        assert_eq!(from_file(lines), with(&|config| config.storages = vec!["main".into()]), "{lines}");
    }
    assert_eq!(from_file("storage = 7"), with(&|config| config.storages = vec!["7".into()]));
    for time in ["400", "400.0", "'400'", "'400ms'", "'400 ms'", "'0.4s'", "0x190", "4_00"] {
        assert_eq!(from_file(&format!("election-timeout = {time}")), with(&|c| c.election_timeout = ms(400)), "{time}");
    }
    for time in ["90", "90.0", "'90'", "'90s'", "'90 S'", "'1.5min'", "'90000ms'", "'0.025 h'"] {
        assert_eq!(from_file(&format!("max-lag = {time}")), with(&|config| config.max_lag = ms(90_000)), "{time}");
    }
    for yes in ["true", "'true'", "'yes'", "'On'"] {
        assert_eq!(from_file(&format!("read-only = {yes}")), with(&|config| config.read_only = true), "{yes}");
    }
    let peers = [(1, "a:1".to_owned()), (2, "b:2".to_owned()), (3, "c:3".to_owned())];
    for lines in [
        "node = '3'\npeers = '1=a:1,2=b:2, 3=c:3'",
        "node = 3\npeers = ['1=a:1', '2=b:2', '3=c:3']",
        "node = 3\npeers = { 1 = 'a:1', 2 = 'b:2', 3 = 'c:3' }",
        "node = 3\n[peers]\n1 = 'a:1'\n2 = 'b:2'\n3 = 'c:3'",
    ] {
        let expected = with(&|config| (config.node, config.peers) = (3, peers.clone().into()));
        assert_eq!(from_file(lines), expected, "{lines}");
    }
}

#[test]
fn a_wrong_line_of_the_file_is_named_with_what_is_expected() {
    for (lines, said) in [
        ("read_only = true", "line 2: read_only: there is no such setting: did you mean read-only?"),
        ("\nelection-timeot = 3", "line 3: election-timeot: there is no such setting: did you mean election-timeout?"),
        ("storages = ['a']", "line 2: storages: there is no such setting: did you mean storage?"),
        ("qqq = 1", "line 2: qqq: there is no such setting (zrsd --help has all of them)"),
        (
            "[zrsd]\nnode = 1",
            "line 2: zrsd: there is no such setting: leave [zrsd] out, as all settings stand at the top",
        ),
        ("config = 'x'", "line 2: config: this is for the command line alone"),
        ("node = [1]", "line 2: node: expected a whole number, and found [1]"),
        ("node = 'one'", "line 2: node: \"one\" is not the number of a node: write a whole number from 1 on"),
        ("node = true", "line 2: node: expected a whole number, and found true"),
        ("http = 8180", "line 2: http: expected HOST:PORT in quotes, and found 8180"),
        ("log-file = true", "line 2: log-file: expected FILE in quotes, and found true"),
        ("read-only = 'maybe'", "line 2: read-only: \"maybe\" is neither true nor false"),
        ("disk-reserve = '1 GB'", "line 2: disk-reserve: \"1 GB\" is not a whole number (of MiB)"),
        (
            "heartbeat = '50 sek'",
            "line 2: heartbeat: \"50 sek\" is not a time: write a number of milliseconds, or one with a unit: 300ms, \
             1.5s, 2min",
        ),
        (
            "heartbeat = 2020-01-01",
            "line 2: heartbeat: expected a number of milliseconds, or a time in quotes (\"300ms\")",
        ),
        ("max-lag = -1", "line 2: max-lag: \"-1\" is not a time from 0 to 365 days"),
        ("max-lag = nan", "line 2: max-lag: \"nan\" is not a time"),
        ("storage = []", "line 2: storage: the list is empty"),
        ("storage = [['a']]", "line 2: storage: expected a name in quotes, or a list of such names"),
        ("tls-cert = ''", "line 2: tls-cert: expected FILE in quotes"),
        ("peers = 'a:1,b:1'", "line 2: peers: \"a:1\" is not NUMBER=HOST:PORT"),
        ("peers = 3", "line 2: peers: expected \"1=HOST:PORT,2=HOST:PORT,...\", or a table of such addresses"),
        (
            "[peers]\n1 = 'a:1'\nheartbeat = 50",
            "line 2: peers: \"heartbeat\" is not the number of a node (all other settings stand above the line [peers])",
        ),
        ("listen = /run/zrs", "line 2: "),
        ("node = 1\nnode = 2", "line 3: duplicate key"),
        // The first one is told.
        ("heartbeat = 'x'\nqqq = 1", "line 2: heartbeat: "),
    ] {
        let told = from_file(lines).unwrap_err();
        assert!(told.starts_with(said), "{lines}: {told}");
    }
    assert!(from_file("listen = /run/zrs").unwrap_err().ends_with("(listen = /run/zrs)"));
    assert!(refused("zrsd --config /nowhere/at/all").contains("--config /nowhere/at/all: No such file"));
}

#[test]
fn times_are_the_same_on_the_command_line() {
    let config = |times: &[&str]| match command_line(["zrsd", "--data", "d"].iter().chain(times)) {
        Parsed::Run(config) => *config,
        other => panic!("{times:?}: {other:?}"),
    };
    let ms = Duration::from_millis;
    let times =
        config(&["--heartbeat", "30ms", "--election-timeout", "0.5 s", "--relay-grace", "2s", "--max-lag", "2min"]);
    assert_eq!((times.heartbeat, times.election_timeout, times.relay_grace), (ms(30), ms(500), ms(2_000)));
    assert_eq!((times.max_lag, config(&["--max-lag", "2"]).max_lag), (ms(120_000), ms(2_000)));
}

#[test]
fn who_refuses_the_settings_knows_the_log_file() {
    let in_file = file("log-file = 'l'\nnode = 'x'\n");
    let path = in_file.path().display();
    for (line, log_file) in [
        ("zrsd --data d --log-file f --node 0".to_owned(), Some("f")),
        ("zrsd --data d --node 0".to_owned(), None),
        ("zrsd --log-file f --bogus".to_owned(), Some("f")),
        (format!("zrsd --data d --config {path}"), Some("l")),
        (format!("zrsd --bogus --config {path}"), Some("l")),
        (format!("zrsd --log-file f --config {path}"), Some("f")),
    ] {
        match command_line(line.split_whitespace()) {
            Parsed::Wrong(wrong) => assert_eq!(wrong.log_file, log_file.map(Into::into), "{line}"),
            other => panic!("{line}: {other:?}"),
        }
    }
}

#[test]
fn log_levels() {
    for good in ["info", "DEBUG", "off", "info,zrs::raft=debug", "zrs=warn", "info, zrs::server=trace,"] {
        directives(good).unwrap();
    }
    assert_eq!(directives("warn,a::b=Info").unwrap(), [(None, "warn".into()), (Some("a::b"), "info".into())]);
    for (poor, part) in [
        ("verbose", "\"verbose\" is no level: write error, warn, info, debug or trace"),
        ("warning", "\"warning\" is no level"),
        ("3", "\"3\" is no level"),
        ("", "it is empty: write error"),
        (",", "it is empty"),
        ("zrs::raft", "\"zrs::raft\" is no level"),
        ("info,zrs=", "\"\" is no level"),
        ("info,zrs==debug", "\"=debug\" is no level"),
        ("info,=debug", "\"\" can't be a part of the program"),
        ("zrs raft=debug", "\"zrs raft\" can't be a part of the program"),
        ("info;zrs=debug", "\"info;zrs\" can't be"),
    ] {
        let said = directives(poor).unwrap_err();
        assert!(said.contains(part), "{poor}: {said}");
    }
    assert!(refused("zrsd --data d --log-level verbose").contains("--log-level: \"verbose\" is no level"));
}

#[test]
fn what_a_unit_must_allow_is_said_where_it_may_be_the_reason() {
    use std::io::ErrorKind;
    for kind in [ErrorKind::ReadOnlyFilesystem, ErrorKind::PermissionDenied] {
        let said = to_allow(&kind.into(), "/srv/zrs".as_ref());
        assert!(said.contains("ReadWritePaths=/srv/zrs"), "{said}");
    }
    assert_eq!(to_allow(&ErrorKind::NotFound.into(), "/srv/zrs".as_ref()), "");
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
        ("zrsd --data d --listen ::1:5", "no address: write an IPv6 address in brackets, such as [::1]:5"),
        ("zrsd --data d --listen 127.0.0.1:65536", "\"127.0.0.1:65536\" is no address: ports end at 65535"),
        ("zrsd --data d --http h:99999", "--http \"h:99999\" is no address: ports end at 65535"),
        ("zrsd --data d --peers 1=a:1,2=b:70000", "--peers: node 2: \"b:70000\" is no address: ports end at 65535"),
        ("zrsd --data d --listen db1", "its port is missing"),
        ("zrsd --data d --listen 8100", "its host is missing"),
        ("zrsd --data d --http http://h:1", "without http://"),
        ("zrsd --data d --heartbeat 50sec", "is not a time: write a number of milliseconds, or one with a unit"),
        ("zrsd --data d --pack-gc maybe", "neither true nor false"),
        ("zrsd --data d --node x", "not the number of a node"),
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
