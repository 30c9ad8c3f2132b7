//! The log: lines for a file or for standard error, and nothing that happens to them there holds the server up.
//!
//! Whoever logs puts a line into a queue, and a thread of its own writes. A disk that hangs, a pipe that nobody reads
//! or a file that can't be written to cost lines, which are counted and told of once there is a way again; they never
//! cost a commit. A file is opened again when a signal asks for that (`signals`): after a rotation its name means a new
//! one.
//!
//! **Left out.** Lines that wait when the process is killed are lost.

use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use zrs::config::{directives, limits, to_allow};
use zrs::env::Env;
use zrs::raft;

/// Lines that are written at once.
const AT_ONCE: usize = 256;
/// How often it is looked whether a full queue has room for the last words.
const LOOKS: u32 = 100;

/// A handle to the log; clones are the same.
#[derive(Clone)]
pub struct Log {
    orders: mpsc::Sender<Order>,
    lost: Arc<AtomicU64>,
    has_file: bool,
}

enum Order {
    Line(Vec<u8>),
    /// Opens the file again, as this signal asked for it.
    Reopen(&'static str),
    Flush(SyncSender<()>),
}

impl Log {
    /// Begins the log of this process, in `file` or on standard error.
    ///
    /// # Errors
    /// The file can't be opened, and will not be possible to open without a change of settings.
    pub fn begin(file: Option<&Path>, level: &str, env: &Env) -> anyhow::Result<Log> {
        let filter = EnvFilter::builder().parse(filter(level).map_err(anyhow::Error::msg)?)?;
        let lost = Arc::new(AtomicU64::new(0));
        let mut sink = Sink::new(file, lost.clone())?;
        let (orders, queue) = mpsc::channel(limits::LOG_LINES);
        env.worker("zrs-log", AT_ONCE, queue, move |orders| sink.take(orders), |()| ControlFlow::Continue(()))?;
        let log = Log { orders, lost, has_file: file.is_some() };
        let is_terminal = !log.has_file && io::stderr().is_terminal();
        let lines = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(is_terminal);
        // (Such errors would be printed, which can fail again.)
        lines.log_internal_errors(false).with_writer(log.clone()).init();
        Ok(log)
    }

    /// Whether the log is a file.
    pub fn has_file(&self) -> bool {
        self.has_file
    }

    /// Prints a line to standard output, and logs it if the log is a file.
    pub fn say(&self, what: fmt::Arguments) {
        // (Standard output may be closed.)
        let _ = writeln!(io::stdout(), "zrsd {}: {what}", env!("CARGO_PKG_VERSION"));
        if self.has_file {
            tracing::info!("{what}");
        }
    }

    /// Says why the process ends: on standard error, and in the file if there is one.
    pub fn last_words(&self, why: fmt::Arguments) {
        if self.has_file {
            tracing::error!("{why}");
        }
        self.print(format_args!("zrsd: {why}"));
    }

    /// Writes all lines that wait, and prints a line to standard error.
    pub fn print(&self, line: fmt::Arguments) {
        if self.has_file {
            self.flush();
            let _ = writeln!(io::stderr(), "{line}");
        } else {
            // (Standard error may be a pipe that nobody reads.)
            self.put(Order::Line(format!("{line}\n").into_bytes()));
            self.flush();
        }
    }

    /// Opens the file again.
    pub fn reopen(&self, signal: &'static str) {
        self.put(Order::Reopen(signal));
    }

    /// Returns once all lines are written, or can't be written in time: before the process ends.
    pub fn flush(&self) {
        let (done, written) = sync_channel(1);
        for _ in 0..LOOKS {
            match self.orders.try_send(Order::Flush(done.clone())) {
                Ok(()) => {
                    let _ = written.recv_timeout(limits::LOG_FLUSH);
                    return;
                }
                Err(TrySendError::Full(_)) => std::thread::sleep(limits::LOG_FLUSH / LOOKS),
                Err(TrySendError::Closed(_)) => return,
            }
        }
    }

    fn put(&self, order: Order) {
        if self.orders.try_send(order).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A level that names all of the program is zrs's own. Of openraft's messages the usual levels show only what operators
/// need, unless a directive names openraft.
fn filter(level: &str) -> Result<String, String> {
    let directives = directives(level)?;
    let whole = directives.iter().rev().find(|(target, _)| target.is_none()).map_or("info", |(_, level)| level);
    let mut filter = vec![whole.to_owned()];
    let named = directives.iter().filter_map(|(target, level)| Some(((*target)?, level)));
    if !named.clone().any(|(target, _)| target.starts_with(raft::LOG_TARGET)) {
        let steps = if ["debug", "trace"].contains(&whole) { raft::LOG_VERBOSE } else { raft::LOG_QUIET };
        filter.push(steps.to_owned());
    }
    filter.extend(named.map(|(target, level)| format!("{target}={level}")));
    Ok(filter.join(","))
}

/// A line on its way into the queue: the subscriber writes each with one call.
pub struct Line<'a>(&'a Log);

impl<'a> MakeWriter<'a> for Log {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

impl io::Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.put(Order::Line(line.to_vec()));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The end of the queue.
struct Sink {
    way: Way,
    /// Lines that were lost since this was told last.
    lost: Arc<AtomicU64>,
    /// Why they could not be written.
    trouble: Option<io::Error>,
    /// Whether the last line was cut short.
    torn: bool,
}

enum Way {
    Errors,
    /// `None`: the file could not be opened yet.
    File(PathBuf, Option<File>),
}

impl Sink {
    fn new(path: Option<&Path>, lost: Arc<AtomicU64>) -> anyhow::Result<Sink> {
        let mut sink = Sink { way: Way::Errors, lost, trouble: None, torn: false };
        if let Some(path) = path {
            let file = match open(path) {
                Ok(file) => Some(file),
                // A full disk is no reason for a node to stay down.
                Err(why) if matches!(why.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                    sink.way = Way::File(path.to_owned(), None);
                    sink.fails(why);
                    None
                }
                Err(why) => {
                    let folder = path.parent().unwrap_or(path);
                    anyhow::bail!("--log-file {}: {why}{}", path.display(), to_allow(&why, folder))
                }
            };
            sink.way = Way::File(path.to_owned(), file);
        }
        Ok(sink)
    }

    fn take(&mut self, orders: Vec<Order>) {
        let mut lines = Vec::new();
        for order in orders {
            match order {
                Order::Line(line) => lines.extend(line),
                Order::Reopen(signal) => {
                    self.write(&std::mem::take(&mut lines));
                    self.reopen(signal);
                }
                Order::Flush(done) => {
                    self.write(&std::mem::take(&mut lines));
                    let _ = done.send(());
                }
            }
        }
        self.write(&lines);
    }

    fn write(&mut self, mut lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        if let Err(why) = self.write_all(&mut lines) {
            let unwritten = lines.iter().filter(|byte| **byte == b'\n').count();
            self.lost.fetch_add(unwritten as u64, Ordering::Relaxed);
            return self.fails(why);
        }
        // (This goes through the queue, as all lines do.)
        match (self.trouble.take(), self.lost.swap(0, Ordering::Relaxed)) {
            (Some(why), lost) => {
                tracing::warn!("{lost} lines of the log were lost: it could not be written to ({why})")
            }
            (None, 0) => {}
            (None, lost) => tracing::warn!("{lost} lines of the log were lost: it could not be written to fast enough"),
        }
    }

    /// Takes what it has written from `lines`.
    fn write_all(&mut self, lines: &mut &[u8]) -> io::Result<()> {
        let way: &mut dyn io::Write = match &mut self.way {
            Way::Errors => &mut io::stderr(),
            Way::File(path, file) => match file {
                Some(file) => file,
                None => file.insert(open(path)?),
            },
        };
        if self.torn {
            way.write_all(b"\n")?;
            self.torn = false;
        }
        while !lines.is_empty() {
            match way.write(lines) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.torn = lines[written - 1] != b'\n';
                    *lines = &lines[written..];
                }
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }

    /// Notes that lines are lost, and says so if there is another place to say it.
    fn fails(&mut self, why: io::Error) {
        if let (None, Way::File(path, _)) = (&self.trouble, &self.way) {
            let path = path.display();
            let _ = writeln!(io::stderr(), "zrsd: --log-file {path}: {why}: lines are lost until it can be written to");
        }
        self.trouble = Some(why);
    }

    fn reopen(&mut self, signal: &'static str) {
        let Way::File(path, file) = &mut self.way else { return };
        match open(path) {
            Ok(opened) => {
                *file = Some(opened);
                self.torn = false;
                tracing::info!("{signal}: opened the log file again");
            }
            Err(why) => {
                let path = path.display();
                let what = format!("{signal}: --log-file {path}: {why}: the log goes on in the file that is open");
                tracing::error!("{what}");
                let _ = writeln!(io::stderr(), "zrsd: {what}");
            }
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_those_of_zrs() {
        assert_eq!(filter("info").unwrap(), "info,openraft=off");
        assert_eq!(filter("DEBUG").unwrap(), "debug,openraft=info");
        assert_eq!(filter("zrs::raft=debug").unwrap(), "info,openraft=off,zrs::raft=debug", "the rest is not silent");
        assert_eq!(filter("warn, openraft=debug").unwrap(), "warn,openraft=debug");
        for level in ["info,zrs::raft=debug,zrs=off", "off", "error"] {
            EnvFilter::builder().parse(filter(level).unwrap()).unwrap();
        }
    }

    #[test]
    fn a_line_that_was_cut_short_is_ended_before_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut sink = Sink::new(Some(&path), Arc::default()).unwrap();
        sink.write(b"one\ntw");
        sink.write(b"three\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntw\nthree\n");
    }

    #[test]
    fn what_can_not_be_written_is_counted() {
        // (All that is written to this file is refused as by a full disk.)
        let mut sink = Sink::new(Some(Path::new("/dev/full")), Arc::default()).unwrap();
        sink.write(b"one\ntwo\n");
        sink.write(b"three\n");
        assert_eq!(sink.lost.load(Ordering::Relaxed), 3);
        assert_eq!(sink.trouble.unwrap().kind(), io::ErrorKind::StorageFull);
    }
}
