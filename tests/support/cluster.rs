//! Nodes of `zrsd` as processes.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::ports::Port;
use super::{PATIENCE, http, wait_for};

const ZRSD: &str = env!("CARGO_BIN_EXE_zrsd");

/// One node: its folder, its ports, and its process while it runs.
pub struct Node {
    pub number: u64,
    pub data: PathBuf,
    /// Options of this node alone.
    pub options: Vec<String>,
    /// Whether the node is started without `--peers`.
    pub forgets_peers: bool,
    port: Port,
    http: Port,
    log: PathBuf,
    process: Option<Child>,
}

impl Node {
    fn new(number: u64, folder: &Path) -> Node {
        Node {
            number,
            data: folder.join(format!("node{number}")),
            options: Vec::new(),
            forgets_peers: false,
            port: Port::free(),
            http: Port::free(),
            log: folder.join(format!("node{number}.log")),
            process: None,
        }
    }

    /// Gives the node, which does not run, another address.
    pub fn moves(&mut self) {
        assert!(self.process.is_none(), "the node runs");
        self.port = Port::free();
    }

    /// Where clients and peers find the node.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port.number)
    }

    pub fn http_address(&self) -> String {
        format!("127.0.0.1:{}", self.http.number)
    }

    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|p| p.try_wait().unwrap().is_none())
    }

    /// The id of the node's process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    pub fn is_primary(&self) -> bool {
        self.get("/primary") == Some(200)
    }

    /// Whether the node knows a primary and has caught up.
    pub fn is_ready(&self) -> bool {
        self.get("/readyz") == Some(200)
    }

    pub fn get(&self, path: &str) -> Option<u16> {
        self.process.as_ref()?;
        http::get(self.http.number, path).map(|(status, _)| status)
    }

    /// The JSON of `/status`; null if the node does not answer.
    pub fn status(&self) -> Value {
        if self.process.is_none() {
            return Value::Null;
        }
        match http::get(self.http.number, "/status") {
            Some((200, body)) => serde_json::from_str(&body).unwrap_or_else(|e| panic!("/status: {e}: {body}")),
            _ => Value::Null,
        }
    }

    pub fn applied(&self) -> Option<u64> {
        self.status()["applied"].as_u64()
    }

    /// kill -9
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Sends SIGTERM and waits for the process to end.
    pub fn terminate(&mut self) -> ExitStatus {
        let process = self.process.as_mut().expect("the node runs");
        signal(process.id(), "TERM");
        let ended = wait_for(|| "the node to end".into(), PATIENCE, || process.try_wait().unwrap());
        self.process = None;
        ended
    }

    /// Removes the node's data, as if the disk had been replaced.
    pub fn empty(&mut self) {
        assert!(self.process.is_none(), "the node runs");
        std::fs::remove_dir_all(&self.data).unwrap();
    }

    pub fn log_text(&self) -> String {
        std::fs::read(&self.log).map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default()
    }
}

/// `kill -NAME pid`
pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {pid}")).status().unwrap();
    assert!(sent.success());
}

/// Nodes that list each other.
pub struct Cluster {
    pub nodes: Vec<Node>,
    options: Vec<String>,
    folder: Option<TempDir>,
}

impl Cluster {
    /// A cluster whose nodes don't run yet.
    pub fn new(size: u64) -> Cluster {
        Cluster::with_options(size, &[])
    }

    pub fn with_options(size: u64, options: &[&str]) -> Cluster {
        let folder = tempfile::Builder::new().prefix("zrs-cluster-").tempdir().unwrap();
        let nodes = (1..=size).map(|number| Node::new(number, folder.path())).collect();
        Cluster { nodes, options: options.iter().map(|o| (*o).to_owned()).collect(), folder: Some(folder) }
    }

    /// One node more, which does not run yet -> its index.
    pub fn add_node(&mut self) -> usize {
        let folder = self.folder.as_ref().expect("the cluster is in use").path();
        let number = self.nodes.iter().map(|node| node.number).max().unwrap_or(0) + 1;
        self.nodes.push(Node::new(number, folder));
        self.nodes.len() - 1
    }

    /// A cluster whose nodes run, with a primary.
    pub fn started(size: u64) -> Cluster {
        let mut cluster = Cluster::new(size);
        cluster.start_all();
        cluster.wait_primary();
        cluster
    }

    fn arguments(&self, index: usize) -> Vec<String> {
        let node = &self.nodes[index];
        let peers: Vec<String> = self.nodes.iter().map(|n| format!("{}={}", n.number, n.address())).collect();
        let mut arguments = vec!["--node".to_owned(), node.number.to_string()];
        match node.forgets_peers {
            true => arguments.extend(["--listen".into(), node.address()]),
            false => arguments.extend(["--peers".into(), peers.join(",")]),
        }
        arguments.extend(["--data".into(), node.data.display().to_string(), "--http".into(), node.http_address()]);
        arguments.extend(self.options.iter().chain(&node.options).cloned());
        arguments
    }

    pub fn start(&mut self, index: usize) {
        assert!(self.nodes[index].process.is_none(), "the node runs");
        let arguments = self.arguments(index);
        let node = &mut self.nodes[index];
        let log: File = OpenOptions::new().create(true).append(true).open(&node.log).unwrap();
        let errors = log.try_clone().unwrap();
        let mut command = Command::new(ZRSD);
        command.args(arguments).env("RUST_BACKTRACE", "1").stdin(Stdio::null()).stdout(log).stderr(errors);
        node.process = Some(command.spawn().expect("zrsd starts"));
    }

    /// Starts the nodes that do not run.
    pub fn start_all(&mut self) {
        for index in 0..self.nodes.len() {
            if self.nodes[index].process.is_none() {
                self.start(index);
            }
        }
    }

    /// kill -9 of all nodes, as near to one moment as can be.
    pub fn kill_all(&mut self) {
        for node in &mut self.nodes {
            if let Some(process) = &mut node.process {
                process.kill().unwrap();
            }
        }
        self.nodes.iter_mut().for_each(Node::kill);
    }

    /// Runs `zrsd` with arguments that it has to refuse, until it ends by itself.
    pub fn refused(arguments: &[String]) -> Output {
        let mut process = Command::new(ZRSD);
        process.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = process.spawn().unwrap();
        let deadline = std::time::Instant::now() + PATIENCE;
        while process.try_wait().unwrap().is_none() && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        let went_on = process.try_wait().unwrap().is_none();
        if went_on {
            process.kill().unwrap();
        }
        let output = process.wait_with_output().unwrap();
        assert!(
            !went_on,
            "zrsd was to refuse these arguments, but went on: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        output
    }

    /// The index of the primary of the moment.
    pub fn primary(&self) -> Option<usize> {
        self.nodes.iter().position(Node::is_primary)
    }

    pub fn wait_primary(&mut self) -> usize {
        for node in &mut self.nodes {
            assert!(node.process.is_none() || node.is_running(), "node {} ended by itself", node.number);
        }
        wait_for(|| format!("a primary: {}", self.situation()), PATIENCE, || self.primary())
    }

    /// Waits until every running node knows a primary and has caught up.
    pub fn wait_ready(&self) {
        for node in self.nodes.iter().filter(|n| n.process.is_some()) {
            let what = || format!("node {} to be ready: {}", node.number, self.situation());
            wait_for(what, PATIENCE, || node.is_ready().then_some(()));
        }
    }

    /// Waits until all running nodes have applied the same -> their statuses.
    pub fn wait_same(&self) -> Vec<Value> {
        let running: Vec<&Node> = self.nodes.iter().filter(|n| n.process.is_some()).collect();
        wait_for(
            || format!("all to have applied the same: {}", self.situation()),
            PATIENCE,
            || {
                let statuses: Vec<Value> = running.iter().map(|n| n.status()).collect();
                let first = statuses[0]["applied"].as_u64()?;
                statuses.iter().all(|s| s["applied"].as_u64() == Some(first)).then_some(statuses)
            },
        )
    }

    /// `HOST:PORT` of all nodes.
    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(Node::address).collect()
    }

    pub fn situation(&self) -> String {
        let each = self.nodes.iter().map(|n| format!("node {}: {}", n.number, n.status()));
        each.collect::<Vec<_>>().join("; ")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill_all();
        if std::thread::panicking() {
            let folder = self.folder.take().expect("taken here only").keep();
            eprintln!("--- kept in {}", folder.display());
            for node in &self.nodes {
                let text = node.log_text();
                let lines: Vec<&str> = text.lines().collect();
                eprintln!("--- node {}, the last of {} lines", node.number, lines.len());
                eprintln!("{}", lines[lines.len().saturating_sub(30)..].join("\n"));
            }
        }
    }
}
