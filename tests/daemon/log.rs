//! The log: what a start says, signals, rotations, and places that can't be written to.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Node, PATIENCE, get, text, zrsd};

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn read(path: &Path) -> String {
    fs::read(path).map(|bytes| text(&bytes)).unwrap_or_default()
}

fn wait_for_line(path: &Path, part: &str) {
    let until = Instant::now() + PATIENCE;
    while !read(path).contains(part) {
        assert!(Instant::now() < until, "waited in vain for {part:?} in {}: {}", path.display(), read(path));
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A node that logs to `log`, and is primary; what it says on standard error goes to `errors`.
fn logging(data: &Path, log: &Path, errors: &Path) -> Node {
    let errors = fs::File::options().create(true).append(true).open(errors).unwrap();
    let node = Node::start_with(data, &["--log-file", log.to_str().unwrap()], errors.into());
    node.wait_for("/primary");
    node
}

fn stops(mut node: Node) {
    node.signal("-TERM");
    assert_eq!(node.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_node_that_is_alone_starts_and_stops_without_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let errors = folder.path().join("errors");
    // (The second time it finds its data, and the third time that of a node that was killed.)
    for round in 0..3 {
        let to = fs::File::options().create(true).append(true).open(&errors).unwrap();
        let node = Node::start_with(&folder.path().join("data"), &[], to.into());
        node.wait_for("/primary");
        if round == 1 { drop(node) } else { stops(node) }
    }
    let said = read(&errors);
    assert!(said.contains("zrsd 0.") && said.contains("begins"), "{said}");
    let odd: Vec<&str> = said.lines().filter(|line| !line.contains(" INFO ")).collect();
    assert!(odd.is_empty(), "{odd:#?}");
    assert!(!said.contains("hand"), "there is nobody to hand the role to: {said}");
}

#[test]
fn what_a_start_prints_stands_in_the_log_file() {
    let folder = tempfile::tempdir().unwrap();
    let (log, errors) = (folder.path().join("log"), folder.path().join("errors"));
    let node = logging(&folder.path().join("data"), &log, &errors);
    let said = node.said.clone();
    stops(node);
    let logged = read(&log);
    for line in &said {
        let (_, what) = line.split_once(": ").unwrap();
        assert_eq!(logged.matches(what).count(), 1, "{line}: {logged}");
    }
    assert!(said.iter().any(|line| line.contains("http at ")), "{said:?}");
    assert_eq!(read(&errors), "");
}

#[test]
fn signals_that_mean_nothing_here_do_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let errors = folder.path().join("errors");
    let to = fs::File::options().create(true).append(true).open(&errors).unwrap();
    let mut node = Node::start_with(&folder.path().join("data"), &[], to.into());
    for signal in ["-USR1", "-ALRM", "-PIPE", "-WINCH", "-XFSZ"] {
        node.signal(signal);
    }
    // These mean nothing without a file, and say so.
    node.signal("-HUP");
    node.signal("-USR2");
    wait_for_line(&errors, "SIGHUP: there is nothing to read or open again without --tls-cert and --log-file");
    wait_for_line(&errors, "SIGUSR2: there is no log file to open again without --log-file");
    node.wait_for("/primary");
    assert_eq!(node.child.try_wait().unwrap(), None);
    stops(node);
}

/// Renames the log, asks for a new one, and sees that the log goes on there and only there.
fn rotates(node: &Node, log: &Path, ask: impl FnOnce(&Node)) {
    let old = log.with_extension(format!("{}.old", fs::read_dir(log.parent().unwrap()).unwrap().count()));
    fs::rename(log, &old).unwrap();
    ask(node);
    wait_for_line(log, "opened the log file again");
    let length = fs::metadata(&old).unwrap().len();
    // A line for each of them.
    let before = read(log).lines().count();
    node.signal("-USR2");
    wait_for("another line", || read(log).lines().count() > before);
    assert_eq!(fs::metadata(&old).unwrap().len(), length);
}

#[test]
fn the_log_goes_on_in_a_new_file_after_a_rotation() {
    let folder = tempfile::tempdir().unwrap();
    let (log, errors) = (folder.path().join("log"), folder.path().join("errors"));
    let node = logging(&folder.path().join("data"), &log, &errors);
    rotates(&node, &log, |node| node.signal("-USR2"));
    rotates(&node, &log, |node| node.signal("-HUP"));
    // Rotated by copying and cutting.
    fs::File::options().write(true).open(&log).unwrap().set_len(0).unwrap();
    node.signal("-USR2");
    wait_for_line(&log, "SIGUSR2: opened the log file again");
    assert!(!read(&log).contains('\0'), "{:?}", read(&log));
    stops(node);
    assert_eq!(read(&errors), "");
}

#[test]
fn the_rules_for_logrotate_rotate_the_log() {
    let rules = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/zrsd.logrotate")).unwrap();
    let ask = "systemctl kill --kill-who=main --signal=USR2 zrsd.service || true";
    assert!(rules.contains(ask) && rules.contains("/var/log/zrs/*.log {"), "{rules}");
    let folder = tempfile::tempdir().unwrap();
    let logs = folder.path().join("logs");
    fs::create_dir(&logs).unwrap();
    let (log, errors) = (logs.join("zrsd.log"), folder.path().join("errors"));
    let node = logging(&folder.path().join("data"), &log, &errors);
    let Some(logrotate) =
        ["/usr/sbin/logrotate", "/usr/bin/logrotate"].into_iter().find(|path| Path::new(path).exists())
    else {
        // Without it, what it would do is done by hand.
        return rotates(&node, &log, |node| node.signal("-USR2"));
    };
    // There is no systemd here, so the signal is sent without its help.
    let rules = rules.replace(ask, &format!("kill -USR2 {}", node.child.id()));
    let rules = rules.replace("/var/log/zrs", logs.to_str().unwrap());
    let (file, state) = (folder.path().join("rules"), folder.path().join("state"));
    fs::write(&file, rules).unwrap();
    let before = read(&log);
    let ran = Command::new(logrotate).args(["--force", "--state"]).args([&state, &file]).output().unwrap();
    assert!(ran.status.success() && ran.stderr.is_empty(), "{ran:?}");
    wait_for_line(&log, "SIGUSR2: opened the log file again");
    assert!(read(&logs.join("zrsd.log.1")).starts_with(&before));
    assert_eq!(read(&log).lines().count(), 1, "{}", read(&log));
    stops(node);
}

#[test]
fn a_log_that_can_not_be_written_to_harms_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (log, errors) = (folder.path().join("log"), folder.path().join("errors"));
    // As on a full disk.
    symlink("/dev/full", &log).unwrap();
    let node = logging(&folder.path().join("data"), &log, &errors);
    wait_for_line(&errors, "No space left on device");
    assert!(read(&errors).contains(&format!("zrsd: --log-file {}: ", log.display())), "{}", read(&errors));
    // There is room again.
    fs::remove_file(&log).unwrap();
    node.signal("-USR2");
    wait_for_line(&log, "lines of the log were lost: it could not be written to (No space left on device");
    assert_eq!(read(&errors).lines().count(), 1, "said once: {}", read(&errors));
    stops(node);
}

#[test]
fn a_log_whose_folder_is_gone_harms_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (logs, errors) = (folder.path().join("logs"), folder.path().join("errors"));
    let log = logs.join("log");
    fs::create_dir(&logs).unwrap();
    let node = logging(&folder.path().join("data"), &log, &errors);
    fs::remove_dir_all(&logs).unwrap();
    node.signal("-HUP");
    wait_for_line(&errors, "No such file or directory (os error 2): the log goes on in the file that is open");
    node.wait_for("/primary");
    fs::create_dir(&logs).unwrap();
    node.signal("-HUP");
    wait_for_line(&log, "SIGHUP: opened the log file again");
    stops(node);
}

#[test]
fn a_pipe_that_nobody_reads_holds_nothing_up() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::start_with(folder.path(), &[], Stdio::piped());
    node.wait_for("/primary");
    let mut pipe = node.child.stderr.take().unwrap();
    // Lines come, more than the pipe holds.
    let (_, address) = node.said[0].rsplit_once(' ').unwrap();
    let odd_frame = [&2_000u32.to_be_bytes()[..], &[b'?'; 2_000]].concat();
    let complain = || {
        let mut socket = TcpStream::connect(address).unwrap();
        socket.write_all(&odd_frame).unwrap();
        let _ = socket.read_to_end(&mut Vec::new());
    };
    (0..400).for_each(|_| complain());
    wait_for("the pipe to be full", || rustix::io::ioctl_fionread(&pipe).unwrap() > 30_000);
    assert_eq!(get(&node.http, "/primary").status, 200);
    node.signal("-TERM");
    assert_eq!(node.child.wait().unwrap().code(), Some(0));
    let mut said = Vec::new();
    pipe.read_to_end(&mut said).unwrap();
    assert!(text(&said).contains("its first frame is none of ZEO 5's"), "{}", text(&said));
}

/// A process that ends by itself: its exit code and what it said on standard error.
fn ended(mut child: Child) -> (Option<i32>, String) {
    let (told, errors) = std::sync::mpsc::channel();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    std::thread::spawn(move || told.send(lines.map_while(Result::ok).collect::<Vec<String>>().join("\n")));
    let said = errors.recv_timeout(PATIENCE);
    let _ = child.kill();
    (child.wait().unwrap().code(), said.expect("zrsd was to refuse these settings, but went on"))
}

#[test]
fn a_bad_start_says_one_thing_on_standard_error_and_in_the_log_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| -> PathBuf { folder.path().join(name) };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let in_use = Node::start(&path("in use"), &[]);
    fs::write(path("a.toml"), format!("log-file = {:?}\nheartbeat = 'often'\n", path("log"))).unwrap();
    let config = path("a.toml").display().to_string();
    let port = format!(
        "cannot listen at {taken}: Address already in use (os error 98): another process has this port; stop that one, or \
         choose another port"
    );
    let peers = format!("1={taken},2=h:1,3=h:2");
    for (arguments, code, expected) in [
        (vec!["--listen", &taken], 1, format!("--listen: {port}")),
        (vec!["--listen", "127.0.0.1:0", "--read-listen", &taken], 1, format!("--read-listen: {port}")),
        (vec!["--listen", "127.0.0.1:0", "--http", &taken], 1, format!("--http: {port}")),
        (vec!["--peers", &peers, "--secret-file", "Cargo.lock"], 2, "--secret-file Cargo.lock holds".into()),
        (vec!["--node", "1", "--peers", &peers], 1, format!("the address of node 1 in --peers: {port}")),
        (vec!["--listen", "10.255.255.1:8100"], 1, "this machine has no such address".into()),
        (vec!["--log-level", "verbose"], 2, "--log-level: \"verbose\" is no level: write error,".into()),
        (vec!["--tls-cert", "/nowhere"], 2, "--tls-cert /nowhere: No such file".into()),
        (vec!["--data", "/sys/zrs"], 1, "ReadWritePaths=/sys/zrs".into()),
        (vec!["--config", &config], 2, "line 2: heartbeat: \"often\" is not a time".into()),
        (vec!["--bogus"], 2, "unexpected argument '--bogus' found".into()),
        (vec!["--data", path("in use").to_str().unwrap()], 1, format!("in use by process {}", in_use.child.id())),
    ] {
        let _ = fs::remove_file(path("log"));
        let mut command = zrsd(&path("data"));
        if arguments.contains(&"--data") {
            command = Command::new(env!("CARGO_BIN_EXE_zrsd"));
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        command.arg("--log-file").arg(path("log")).args(&arguments).env("RUST_BACKTRACE", "full");
        let (ended_with, said) = ended(command.spawn().unwrap());
        assert_eq!(ended_with, Some(code), "{arguments:?}: {said}");
        let lines: Vec<&str> =
            said.lines().filter(|line| line.starts_with("zrsd: ") || line.starts_with("error: ")).collect();
        assert!(lines.len() == 1 && lines[0].contains(&expected), "{arguments:?}: {said}");
        assert!(arguments == ["--bogus"] || said.lines().count() == 1, "{arguments:?}: {said}");
        let logged = read(&path("log"));
        let errors: Vec<&str> = logged.lines().filter(|line| line.contains(" ERROR ")).collect();
        assert!(errors.len() == 1 && errors[0].contains(&expected), "{arguments:?}: {logged}");
        assert!(
            logged.lines().all(|line| line.contains(" INFO ") || line.contains(" WARN ") || line == errors[0]),
            "{logged}"
        );
    }
}

#[test]
fn a_log_file_that_can_not_be_opened_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (log, expected) in [("/nowhere/x", "--log-file /nowhere/x: No such file"), ("/sys/x", "ReadWritePaths=/sys")] {
        let child = zrsd(folder.path()).args(["--log-file", log]).spawn().unwrap();
        let (code, said) = ended(child);
        assert!(code == Some(2) && said.contains(expected) && said.lines().count() == 1, "{code:?} {said}");
    }
}
