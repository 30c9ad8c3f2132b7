//! The programs, as an operator meets them: real processes, real sockets, real folders.

#[path = "daemon/log.rs"]
mod log;
#[path = "daemon/unit.rs"]
mod unit;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);

/// A node that is alone, at free ports; killed when it is dropped.
struct Node {
    child: Child,
    /// The lines that the node printed at its start, up to the HTTP address.
    said: Vec<String>,
    http: String,
}

impl Node {
    fn start(data: &Path, more: &[&str]) -> Node {
        Node::start_with(data, more, Stdio::inherit())
    }

    fn start_with(data: &Path, more: &[&str], errors: Stdio) -> Node {
        let mut child = zrsd(data)
            .args(["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"])
            .args(more)
            .stderr(errors)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = Vec::new();
        let http = loop {
            let line = lines.next().expect("zrsd ended at its start").unwrap();
            said.push(line.clone());
            if let Some((_, address)) = line.split_once(": http at ") {
                break address.to_owned();
            }
        };
        Node { child, said, http }
    }

    fn wait_for(&self, path: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            let answer = get(&self.http, path);
            if answer.status == 200 {
                return;
            }
            assert!(Instant::now() < until, "waited in vain for {path}: {answer:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn zrsd(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zrsd"));
    command.arg("--data").arg(data).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn zrsctl(http: &str, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_zrsctl")).args(["--http", http]).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

fn get(http: &str, path: &str) -> Answer {
    ask(http, &format!("GET {path} HTTP/1.1\r\nHost: {http}\r\n\r\n"))
}

/// Status 0: closed without an answer.
fn ask(http: &str, request: &str) -> Answer {
    let mut socket = TcpStream::connect(http).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    // (The server may refuse the request and close before all of it was sent.)
    let _ = socket.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    let answer = text(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

#[test]
fn a_node_that_is_alone_serves_tells_and_stops() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::start(folder.path(), &["--storage", "1", "--storage", "archive"]);
    assert!(node.said[0].starts_with(concat!(
        "zrsd ",
        env!("CARGO_PKG_VERSION"),
        ": ZODB clients and peers at 127.0.0.1:"
    )));
    assert!(!node.said[0].ends_with(":0"), "the bound port is told: {:?}", node.said);
    for path in ["/primary", "/readyz", "/healthz"] {
        node.wait_for(path);
    }

    let status: Value = serde_json::from_str(&get(&node.http, "/status").body).unwrap();
    assert_eq!((status["node"].as_u64(), status["role"].as_str()), (Some(1), Some("primary")), "{status:#}");
    assert_eq!(status["primary"].as_u64(), Some(1));
    assert!(status["term"].as_u64() > Some(0) && status["applied"].as_u64() > Some(0), "{status:#}");
    let last_tid = status["last_tid"].as_str().unwrap();
    assert!(last_tid.len() == 16 && last_tid.bytes().all(|b| b.is_ascii_hexdigit()), "{status:#}");

    let metrics = get(&node.http, "/metrics");
    assert!(metrics.head.contains("application/openmetrics-text") && metrics.body.ends_with("# EOF\n"), "{metrics:?}");
    let front = get(&node.http, "/");
    assert!(front.body.contains("/readyz") && front.body.contains("/transfer"), "{front:?}");

    let glance = zrsctl(&node.http, &["status"]);
    assert!(glance.status.success(), "{glance:?}");
    assert!(text(&glance.stdout).contains("node 1") && text(&glance.stdout).contains("primary"), "{glance:?}");
    let refused = zrsctl(&node.http, &["transfer", "--to", "7"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let words =
        format!("{} answers: Not handed over: node 7 is no member of this cluster; its members are 1.", node.http);
    assert_eq!(text(&refused.stderr), format!("zrsctl: {words}\n"));
    let after = zrsctl("127.0.0.1:1", &["storage", "list", "--http", &node.http]);
    assert!(text(&after.stdout).contains("\narchive ") && after.status.success(), "{after:?}");

    node.signal("-TERM");
    let ended = node.child.wait().unwrap();
    assert_eq!(ended.code(), Some(0));
    let unreachable = zrsctl(&node.http, &["status"]);
    assert_eq!(unreachable.status.code(), Some(1));
    assert!(text(&unreachable.stderr).contains("is zrsd running there"), "{unreachable:?}");
    assert!(unreachable.stdout.is_empty(), "{unreachable:?}");
    for asked in [&["transfer"][..], &["storage", "drop", "x"], &["storage", "list"]] {
        let unreachable = zrsctl(&node.http, asked);
        assert_eq!(unreachable.status.code(), Some(1));
        assert!(text(&unreachable.stderr).contains("is zrsd running there"), "{unreachable:?}");
    }
}

/// A page of another site can make the browser of an operator ask for something, by an address or (DNS rebinding) by a
/// name of its own.
#[test]
fn what_pages_of_other_sites_ask_for_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path(), &["--storage", "1", "--storage", "mian"]);
    node.wait_for("/primary");
    let own = &node.http;
    let post =
        |path: &str, headers: &str| ask(own, &format!("POST {path} HTTP/1.1\r\n{headers}Content-Length: 0\r\n\r\n"));
    let foreign = [
        format!("Host: {own}\r\nOrigin: http://evil.example\r\n"),
        format!("Host: {own}\r\nOrigin: null\r\n"),
        format!("Host: {own}\r\nSec-Fetch-Site: cross-site\r\n"),
        "Host: evil.example\r\n".to_owned(),
        "Host: evil.example\r\nOrigin: http://evil.example\r\nSec-Fetch-Site: same-origin\r\n".to_owned(),
        String::new(),
    ];
    for headers in &foreign {
        for path in ["/transfer", "/storage/drop?name=mian"] {
            let refused = post(path, headers);
            assert!(refused.status == 403 && refused.body.starts_with("Refused: "), "{headers}: {refused:?}");
        }
    }
    // By a name that is not this node's, nobody is told what the cluster is like; but balancers may ask as they like.
    let by_name = |path: &str| ask(own, &format!("GET {path} HTTP/1.1\r\nHost: balancer.example\r\n\r\n"));
    for path in ["/", "/status"] {
        let refused = by_name(path);
        assert_eq!(refused.status, 403, "{refused:?}");
        assert!(refused.body.contains("does not go by the name \"balancer.example\""), "{refused:?}");
    }
    for path in ["/primary", "/readyz", "/healthz", "/metrics"] {
        assert_eq!(by_name(path).status, 200, "{path}");
    }
    let port = own.rsplit_once(':').unwrap().1;
    let local = ask(own, &format!("GET /status HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n"));
    assert_eq!(local.status, 200, "{local:?}");
    // A request that no page of another site can send is done.
    let done =
        post("/transfer?to=1", &format!("Host: {own}\r\nOrigin: http://{own}\r\nSec-Fetch-Site: same-origin\r\n"));
    assert!(done.status == 200 && done.body == "Node 1 is the primary already.\n", "{done:?}");
    let refused = post("/storage/drop?name=m%69an", &format!("Host: {own}\r\n"));
    assert!(refused.status == 503 && refused.body.contains("storage \"mian\" is named by --storage"), "{refused:?}");
}

#[test]
fn what_was_there_is_there_again() {
    let folder = tempfile::tempdir().unwrap();
    let applied = |node: &Node| {
        node.wait_for("/primary");
        serde_json::from_str::<Value>(&get(&node.http, "/status").body).unwrap()["applied"].as_u64().unwrap()
    };
    let node = Node::start(folder.path(), &[]);
    let before = applied(&node);
    drop(node); // by SIGKILL
    assert!(applied(&Node::start(folder.path(), &[])) > before, "a restart goes on with the same log");
}

#[test]
fn folders_are_not_shared_and_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path(), &[]);
    let second = zrsd(folder.path()).args(["--listen", "127.0.0.1:0"]).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(text(&second.stderr).contains(&format!("in use by process {}", node.child.id())), "{second:?}");

    let foreign = tempfile::tempdir().unwrap();
    std::fs::write(foreign.path().join("Data.fs"), "FS21").unwrap();
    let refused = zrsd(foreign.path()).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("not a zrs data folder"), "{refused:?}");
}

#[test]
fn usage() {
    let folder = tempfile::tempdir().unwrap();
    for wrong in [&["--bogus"][..], &["--node", "4", "--peers", "1=a:1,2=b:2"], &["--config", "/nowhere"]] {
        let said = zrsd(folder.path()).args(wrong).output().unwrap();
        assert_eq!(said.status.code(), Some(2), "{wrong:?}: {said:?}");
        assert!(!said.stderr.is_empty());
    }
    let version = zrsd(folder.path()).arg("--version").output().unwrap();
    assert_eq!(text(&version.stdout), concat!("zrsd ", env!("CARGO_PKG_VERSION"), "\n"));
    let help = zrsd(folder.path()).arg("--help").output().unwrap();
    assert!(help.status.success() && text(&help.stdout).contains("<zeoclient>"));
    assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none(), "nothing was written");
    assert_eq!(zrsctl("x", &["bogus"]).status.code(), Some(2));
}

#[test]
fn a_log_file_is_appended_to() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("zrsd.log");
    std::fs::write(&log, "before\n").unwrap();
    let data = folder.path().join("data");
    let node = Node::start(&data, &["--log-file", log.to_str().unwrap(), "--log-level", "debug"]);
    node.wait_for("/primary");
    drop(node);
    let logged = std::fs::read_to_string(&log).unwrap();
    assert!(logged.starts_with("before\n") && logged.len() > 100, "{logged}");
}

#[test]
fn bad_requests_cost_a_connection_at_most() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path(), &[]);
    assert_eq!(get(&node.http, "/nowhere").status, 404);
    let wrong = ask(&node.http, "POST /status HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    assert!(wrong.status == 405 && wrong.head.contains("allow: get, head"), "{wrong:?}");
    assert_eq!(get(&node.http, "/transfer").status, 405);
    let large = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: x\r\n".repeat(1000));
    for garbage in ["\0\0\0\x04ruok", "GET", "GET / HTTP/9.9\r\n\r\n", &large, &many] {
        let mut socket = TcpStream::connect(&node.http).unwrap();
        let _ = socket.write_all(garbage.as_bytes());
        let _ = socket.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        assert!(!text(&answer).contains("200 OK"), "{answer:?}");
    }
    node.wait_for("/healthz");
}

#[test]
fn signals_while_the_folder_is_being_opened_do_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    // The marker is a pipe: zrsd reads it until the test has written to it.
    let marker = folder.path().join("ZRS");
    assert!(Command::new("mkfifo").arg(&marker).status().unwrap().success());
    let child = zrsd(folder.path()).stderr(Stdio::piped()).spawn().unwrap();
    let mut writer = std::fs::File::options().write(true).open(&marker).unwrap();
    for signal in ["-HUP", "-USR2", "-USR1"] {
        let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
    writer.write_all(b"nothing of the kind").unwrap();
    drop(writer);
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(String::from_utf8_lossy(&ended.stderr).contains("ZRS"), "{ended:?}");
}
