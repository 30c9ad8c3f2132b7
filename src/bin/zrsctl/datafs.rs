//! `zrsctl import` and `zrsctl export`: a `Data.fs` into data folders, and out of one.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use zrs::engine::Folder;
use zrs::env::Env;
use zrs::filestorage::{self, Imported, Phase, Progress};
use zrs::journal::Directory;
use zrs::raft;
use zrs::storage::Store;

/// How often the bar moves on a terminal; how often a line is written where standard error is none.
const BAR: Duration = Duration::from_millis(100);
const LINE: Duration = Duration::from_secs(5);
/// Cells of the bar.
const CELLS: usize = 30;
const MB: f64 = 1e6;
/// Seconds by which the last transaction may be ahead of this machine's clock.
const AHEAD: f64 = 1.0;

#[derive(Args)]
pub struct ImportFlags {
    /// The file that FileStorage wrote. Stop its ZEO server first: later commits are not imported
    #[arg(value_name = "DATA.FS")]
    file: PathBuf,
    /// The folder of its blobs (blob-dir), in either layout
    #[arg(long, value_name = "DIR")]
    blobs: Option<PathBuf>,
    /// The data folder to make: not there, or empty; or an imported one, to add another storage before its node starts.
    /// Give it several times for several nodes on this machine
    #[arg(long, value_name = "DIR", required = true)]
    pub data: Vec<PathBuf>,
    /// The name of the storage, which clients ask for
    #[arg(long, value_name = "NAME", default_value = "1")]
    storage: String,
    /// What to do if files of blobs are missing
    #[arg(long, value_name = "WHAT", default_value = "refuse")]
    missing_blobs: MissingBlobsFlag,
    /// Import what can be read of a damaged file, and list what can't
    #[arg(long)]
    salvage: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum MissingBlobsFlag {
    /// Import nothing, and name them
    Refuse,
    /// Leave them out, and say how many
    Ignore,
}

#[derive(Args)]
pub struct ExportFlags {
    /// The data folder of a node that is stopped
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// The file to write; it must not be there
    #[arg(value_name = "DATA.FS")]
    file: PathBuf,
    /// The folder to write the blobs to: not there, or empty
    #[arg(long, value_name = "DIR")]
    blobs: Option<PathBuf>,
    /// The name of the storage
    #[arg(long, value_name = "NAME", default_value = "1")]
    storage: String,
    /// Leave the blobs out
    #[arg(long, conflicts_with = "blobs")]
    without_blobs: bool,
    /// Export what the node has applied, though its log has later entries (after a kill, say)
    #[arg(long)]
    as_it_is: bool,
}

pub async fn import(flags: ImportFlags) -> anyhow::Result<()> {
    if let Some(user) = user_of(&flags.file) {
        eprintln!("zrsctl: warning: {} is in use{user}; commits from now on are not imported", flags.file.display());
    }
    let import = filestorage::Import {
        file: flags.file,
        blobs: flags.blobs,
        storage: flags.storage,
        missing_blobs: match flags.missing_blobs {
            MissingBlobsFlag::Refuse => filestorage::MissingBlobs::Refuse,
            MissingBlobsFlag::Ignore => filestorage::MissingBlobs::Ignore,
        },
        salvage: flags.salvage,
    };
    let (data, env) = (flags.data, Env::current());
    let began = env.now();
    let told = data.clone();
    let done = stoppable(move |overseer| filestorage::create(&data, |store| import.run(store, overseer))).await?;
    warn(&done, env.wall());
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "imported {} transactions, {} records and {} blobs ({:.1} MB) in {seconds:.1} s, {:.1} MB/s; last transaction {}",
        done.transactions,
        done.records,
        done.blobs,
        done.bytes as f64 / MB,
        done.bytes as f64 / MB / seconds.max(1e-3),
        done.last
    );
    for folder in &told {
        println!("data folder {}", folder.display());
    }
    Ok(())
}

fn warn(done: &Imported, now: Duration) {
    for warning in &done.warnings {
        eprintln!("zrsctl: warning: {warning}");
    }
    let ahead = done.last.unix_seconds() - now.as_secs_f64();
    if ahead > AHEAD {
        eprintln!(
            "zrsctl: warning: database records {ahead:.0} seconds in the future: until then new transactions get ids \
             right behind the last one, as they would with FileStorage"
        );
    }
    for lost in &done.lost {
        eprintln!("zrsctl: salvage: {lost}");
    }
    match done.lost_count.saturating_sub(done.lost.len() as u64) {
        0 => {}
        more => eprintln!("zrsctl: salvage: and {more} more damaged places"),
    }
    if done.lost_count > 0 {
        eprintln!("zrsctl: warning: the file is damaged in {} places, see above", done.lost_count);
    }
}

pub async fn export(flags: ExportFlags) -> anyhow::Result<()> {
    let (folder, store) = filestorage::open_stopped(&flags.data)?;
    if let Some(behind) = unapplied(&folder, &store).context("reading the node's log")?
        && !flags.as_it_is
    {
        anyhow::bail!(
            "data folder {}: the node was not stopped properly, and its log has {behind} entries that its database does not \
             have; some of them may be commits that were answered. Start the node, let it catch up, and stop it with \
             SIGTERM. To export what is there, up to transaction {}: --as-it-is",
            flags.data.display(),
            store.storage(&flags.storage).map(|storage| store.last_tid(storage).to_string()).unwrap_or_default()
        );
    }
    let export = filestorage::Export {
        file: flags.file.clone(),
        blobs: flags.blobs,
        storage: flags.storage,
        without_blobs: flags.without_blobs,
    };
    let began = Env::current().now();
    let done = stoppable(move |overseer| export.run(&store, overseer)).await?;
    if done.strange_status > 0 {
        eprintln!(
            "zrsctl: warning: {} transactions have a status that FileStorage does not know; it is a blank now",
            done.strange_status
        );
    }
    println!(
        "exported {} transactions, {} records and {} blobs ({:.1} MB) in {:.1} s; last transaction {}",
        done.transactions,
        done.records,
        done.blobs,
        done.bytes as f64 / MB,
        began.elapsed().as_secs_f64(),
        done.last
    );
    drop(folder);
    Ok(())
}

/// How many entries of the node's log its store has not applied. (An imported folder that no node has used has no log.)
fn unapplied(folder: &Folder, store: &Store) -> io::Result<Option<u64>> {
    if !folder.log().is_dir() {
        return Ok(None);
    }
    raft::unapplied(Arc::new(Directory::open_read_only(&folder.log())?), store)
}

/// Does `work` beside this task, which watches for signals: the first one tells `work` to stop and tidy up.
async fn stoppable<T: Send + 'static>(
    work: impl FnOnce(&mut dyn FnMut(Progress) -> bool) -> io::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = Arc::new(AtomicBool::new(false));
    let asked = stop.clone();
    let env = Env::current();
    let clock = env.clone();
    let working = env.offload(move || {
        let mut bar = Bar::new(clock);
        let done = work(&mut |progress| {
            bar.show(progress);
            !asked.load(Ordering::Relaxed)
        });
        bar.end();
        done
    });
    tokio::pin!(working);
    let done = tokio::select! {
        biased;
        done = &mut working => done,
        _ = terminate.recv() => { stop.store(true, Ordering::Relaxed); working.await }
        _ = interrupt.recv() => { stop.store(true, Ordering::Relaxed); working.await }
    };
    match done {
        Err(why) if why.kind() == io::ErrorKind::Interrupted => {
            anyhow::bail!("stopped, as asked; nothing was left behind")
        }
        other => Ok(other?),
    }
}

/// The process that holds the lock beside a `Data.fs`, in words to follow "in use"; `None`: the file is not locked.
fn user_of(file: &std::path::Path) -> Option<String> {
    let mut name = file.as_os_str().to_owned();
    name.push(".lock");
    let lock = std::fs::File::open(&name).ok()?;
    match lock.try_lock_shared() {
        Err(std::fs::TryLockError::WouldBlock) => {
            let text = std::fs::read_to_string(&name).unwrap_or_default();
            let pid = text.split_whitespace().next().filter(|word| word.bytes().all(|b| b.is_ascii_digit()));
            Some(pid.map(|pid| format!(" by process {pid}")).unwrap_or_default())
        }
        _ => None,
    }
}

/// Progress on standard error: a bar on a terminal, else a line every few seconds.
struct Bar {
    env: Env,
    phase: Phase,
    /// When the phase began.
    began: tokio::time::Instant,
    shown: tokio::time::Instant,
    terminal: bool,
    drawn: bool,
}

impl Bar {
    fn new(env: Env) -> Bar {
        let now = env.now();
        Bar { env, phase: Phase::Copying, began: now, shown: now, terminal: io::stderr().is_terminal(), drawn: false }
    }

    fn show(&mut self, progress: Progress) {
        let now = self.env.now();
        if progress.phase != self.phase {
            // Reading is much faster than copying: the time that is left goes by the speed of the phase.
            (self.phase, self.began) = (progress.phase, now);
        }
        if now - self.shown < if self.terminal { BAR } else { LINE } {
            return;
        }
        self.shown = now;
        let text = describe(progress, now - self.began);
        // (Standard error may be closed.)
        let mut out = io::stderr();
        let _ = if self.terminal {
            self.drawn = true;
            write!(out, "\r{} {text}\x1b[K", bar(progress))
        } else {
            writeln!(out, "zrsctl: {text}")
        };
    }

    fn end(&mut self) {
        if self.drawn {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

fn fraction(progress: Progress) -> f64 {
    if progress.total == 0 { 1.0 } else { (progress.done as f64 / progress.total as f64).min(1.0) }
}

fn bar(progress: Progress) -> String {
    let full = (fraction(progress) * CELLS as f64) as usize;
    format!("[{}{}]", "#".repeat(full), ".".repeat(CELLS - full))
}

fn describe(progress: Progress, since: Duration) -> String {
    let (part, seconds) = (fraction(progress), since.as_secs_f64());
    let speed = progress.bytes as f64 / MB / seconds.max(1e-3);
    let what = if progress.phase == Phase::Looking { "looking through the file: " } else { "" };
    let mut text = format!("{what}{:3.0}%  {speed:.1} MB/s", part * 100.0);
    // (An estimate from the first moments would be far off.)
    if part > 0.02 {
        let left = (seconds / part - seconds).round() as u64;
        text.push_str(&format!("  {}:{:02} left", left / 60, left % 60));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar() {
        let progress = Progress { phase: Phase::Copying, done: 25, total: 100, bytes: 50_000_000 };
        assert_eq!(bar(progress), "[#######.......................]");
        assert_eq!(describe(progress, Duration::from_secs(25)), " 25%  2.0 MB/s  1:15 left");
        let looking = Progress { phase: Phase::Looking, ..progress };
        let text = describe(looking, Duration::from_secs(25));
        assert_eq!(text, "looking through the file:  25%  2.0 MB/s  1:15 left");
        let nothing = Progress { phase: Phase::Copying, done: 0, total: 0, bytes: 0 };
        assert_eq!(bar(nothing), format!("[{}]", "#".repeat(CELLS)));
        assert_eq!(describe(Progress { done: 1, ..progress }, Duration::from_secs(1)), "  1%  50.0 MB/s");
        assert_eq!(describe(nothing, Duration::ZERO), "100%  0.0 MB/s  0:00 left");
    }
}
