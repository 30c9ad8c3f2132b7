//! Python workers: scripts of `tests/python/workers`, in the virtual environment that `tests/python/venv` makes.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;

use serde_json::Value;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python")
}

fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let made = Command::new(folder().join("venv")).stderr(Stdio::inherit()).output().expect("python3 is there");
        assert!(made.status.success(), "tests/python/venv failed, see above");
        PathBuf::from(String::from_utf8(made.stdout).unwrap().trim())
    })
}

fn command(worker: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(python());
    command.arg(folder().join("workers").join(worker)).args(arguments);
    command
}

/// Runs a worker to its end -> the JSON of its last line.
pub fn run(worker: &str, arguments: &[&str]) -> Value {
    let done = command(worker, arguments).output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{worker} {arguments:?}: {}\n{said}\n{errors}", done.status);
    let last = said.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|_| panic!("{worker} {arguments:?} said {said}\n{errors}"))
}

/// A worker that counts (`count.py run`) until its standard input is closed.
pub struct Counting {
    pub name: String,
    child: Child,
    input: Option<ChildStdin>,
    acknowledged: Arc<AtomicU64>,
    last_line: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Counting {
    pub fn start(name: &str, addresses: &[String]) -> Counting {
        let mut arguments = vec!["run", name];
        arguments.extend(addresses.iter().map(String::as_str));
        let mut child = command("count.py", &arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python starts");
        let acknowledged = Arc::new(AtomicU64::new(0));
        let last_line = Arc::new(Mutex::new(String::new()));
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let reader = std::thread::spawn({
            let (acknowledged, last_line) = (acknowledged.clone(), last_line.clone());
            move || {
                for line in output.lines().map_while(Result::ok) {
                    if line.starts_with("ack ") {
                        acknowledged.fetch_add(1, Ordering::SeqCst);
                    }
                    *last_line.lock().unwrap() = line;
                }
            }
        });
        let input = child.stdin.take();
        Counting { name: name.to_owned(), child, input, acknowledged, last_line, reader: Some(reader) }
    }

    /// How many commits have been answered.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// Stops the worker -> what it counted.
    pub fn stop(mut self) -> Value {
        drop(self.input.take());
        let status = self.child.wait().unwrap();
        self.reader.take().expect("joined once").join().unwrap();
        let line = self.last_line.lock().unwrap().clone();
        assert!(status.success(), "{}: {status}: {line}", self.name);
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("{} said {line}", self.name))
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
