//! The daemon: parse, log, build, run, stop.
#![forbid(unsafe_code)]

mod last_call;
mod log;
mod signals;
mod witness;

use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::panic::PanicHookInfo;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use zrs::config::{Config, OpenFiles, Parsed, Wrong, command_line, limits};
use zrs::engine::{Durability, Folder, FolderShelf, Rocks};
use zrs::env::Env;
use zrs::journal::{Directory, Sizes};
use zrs::net::{BadTls, Network, Tcp, Tls};
use zrs::server::{Disks, Server};
use zrs::{http, storage};

use last_call::LastCall;
use log::Log;
use signals::Signals;
use witness::Witness;

/// The system's allocator (glibc's) keeps freed memory, in as many pools as there are threads: after a large
/// transaction a node held twice the memory that it needs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The exit code after settings that can't be right.
const WRONG_USAGE: u8 = 2;

fn main() -> ExitCode {
    if let Some(arguments) = witness::called() {
        return witness::witness(arguments);
    }
    let env = Env::system();
    let config = match command_line(std::env::args_os()) {
        Parsed::Run(config) => *config,
        Parsed::Said(text) => text.exit(),
        Parsed::Wrong(wrong) => return refuse(&wrong, &env),
    };
    let log = match Log::begin(config.log_file.as_deref(), &config.log_level, &env) {
        Ok(log) => log,
        Err(why) => {
            let _ = writeln!(io::stderr(), "zrsd: {why:#}");
            return ExitCode::from(WRONG_USAGE);
        }
    };
    let panicking = log.clone();
    std::panic::set_hook(Box::new(move |panic| panicked(&panicking, panic)));
    match run(config, env, &log) {
        Ok(()) => {
            log.flush();
            ExitCode::SUCCESS
        }
        Err(why) => {
            log.last_words(format_args!("{why:#}"));
            if why.is::<BadTls>() { ExitCode::from(WRONG_USAGE) } else { ExitCode::FAILURE }
        }
    }
}

/// Refuses the settings, in the log file as well.
fn refuse(wrong: &Wrong, env: &Env) -> ExitCode {
    if let Some(file) = &wrong.log_file
        && let Ok(log) = Log::begin(Some(file), &Config::default().log_level, env)
    {
        tracing::error!("{}", wrong.why);
        log.flush();
    }
    let _ = writeln!(io::stderr(), "{wrong}");
    ExitCode::from(WRONG_USAGE)
}

fn run(mut config: Config, env: Env, log: &Log) -> anyhow::Result<()> {
    tracing::info!("zrsd {} begins, with its data in {}", env!("CARGO_PKG_VERSION"), config.data.display());
    config.open_files = OpenFiles::raise().map_err(anyhow::Error::msg)?;
    for warning in config.warnings().into_iter().chain(config.open_files.warning()) {
        tracing::warn!("{warning}");
    }
    // Few, and they stay: a system that gives no more threads is met at the start, and not in the middle of a write.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(limits::BLOCKING_THREADS)
        .thread_keep_alive(limits::THREAD_KEPT)
        .enable_all()
        .build()?;
    let tls = config.tls().map(|files| Tls::load(files, env.clone())).transpose()?;
    // Before the databases are opened, which can take long. (SIGTERM and SIGINT may end this process, while there is
    // nothing to finish.)
    runtime.block_on(async {
        drop(env.spawn(Signals::take()?.heed(env.clone(), log.clone(), tls.clone())));
        io::Result::Ok(())
    })?;
    // The folder's lock is held to the end, and keeps other processes out.
    let folder = Folder::open(&config.data)?;
    let journal = Directory::open(&folder.log()).context("opening the log")?;
    let store = Rocks::open(&folder.store(), storage::TABLES, Durability::Flush).context("opening the store")?;
    let shelf = FolderShelf::open(folder.path(), storage::TABLES)?;
    let disks =
        Disks { log: Arc::new(journal), segments: Sizes::default(), store: Arc::new(store), shelf: Arc::new(shelf) };
    let witness = Witness::none_yet();
    let served = runtime.block_on(env.scope(serve(config, env.clone(), log, tls, disks, witness.clone())));
    let ended = match served {
        Ok(Next::BeginAgain(last_call)) => {
            witness.dismiss();
            begin_again(&last_call, log)
        }
        other => other.map(drop),
    };
    // (A disk that hangs must not keep the process alive.)
    runtime.shutdown_timeout(limits::DRAIN);
    ended
}

/// Executes this program anew, in the same process: everything of its former life ends at once, as by `kill -9`.
fn begin_again(last_call: &LastCall, log: &Log) -> anyhow::Result<()> {
    tracing::info!("beginning again, with the database that was fetched");
    log.flush();
    let program = std::env::current_exe()?;
    // A signal that came meanwhile was meant for the next life, too.
    if last_call.is_over() {
        return Ok(());
    }
    let again = |program: &Path| Command::new(program).args(std::env::args_os().skip(1)).exec();
    let why = again(&program);
    // (An update has put another file there, or none.)
    again(Path::new("/proc/self/exe"));
    Err(why).context("zrsd can't begin again by itself: start it")
}

/// How the process goes on once it has stopped serving.
enum Next {
    End,
    /// With the database that was fetched from another node. The process begins anew as a whole, as nothing of it may
    /// have the former database open any more.
    BeginAgain(LastCall),
}

async fn serve(
    config: Config,
    env: Env,
    log: &Log,
    tls: Option<Tls>,
    disks: Disks,
    witness: Witness,
) -> anyhow::Result<Next> {
    // (Before the addresses are announced: from then on a supervisor may send SIGTERM.)
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let last_call = LastCall::begin()?;
    let network: Arc<dyn Network> = Arc::new(Tcp);
    let config = Arc::new(config);
    // (An address that can't be had ends the start before the cluster hears of this node.)
    let operators = match &config.http {
        Some(address) => Some(network.listen(address).await.context("--http")?),
        None => None,
    };
    let server = Arc::new(Server::start(config.clone(), env.clone(), network, tls, disks).await?);
    log.say(format_args!("ZODB clients and peers at {}", server.address()));
    if let Some(address) = server.read_address() {
        log.say(format_args!("clients that only read at {address}"));
    }
    if let Some(listener) = operators {
        let address = listener.address();
        http::serve(server.clone(), env.clone(), listener);
        log.say(format_args!("http at {address}"));
    }
    drop(env.spawn(witness.instruct(server.clone(), env.clone())));
    let mut fault = server.node().fault();
    let mut outdated = server.node().outdated();
    let begins_again = tokio::select! {
        biased;
        _ = fault.until(Option::is_some) => {
            // (A node with a fault must not go on voting.)
            let _ = env.timeout(limits::DRAIN, server.node().abandon()).await;
            anyhow::bail!("stopped by a fault: {}", fault.look().clone().unwrap_or_default())
        }
        _ = terminate.recv() => false,
        _ = interrupt.recv() => false,
        _ = outdated.until(Option::is_some) => true,
    };
    if begins_again {
        tracing::info!("stopping, to begin again with the database that was fetched");
    } else {
        let handing = if server.is_alone() { "" } else { "handing the role over and " };
        tracing::info!("stopping: {handing}finishing the commits under way; another SIGINT stops at once");
    }
    let stopping = async {
        server.stop().await;
        match begins_again {
            true => server.node().take_fetched().await.context("the database that was fetched can't be taken"),
            false => Ok(false),
        }
    };
    tokio::select! {
        biased;
        _ = interrupt.recv() => anyhow::bail!("stopped at once, as asked"),
        stopped = stopping => drop(stopped?),
    }
    Ok(if begins_again { Next::BeginAgain(last_call) } else { Next::End })
}

/// A panic is a broken invariant. A node that went on without the task that panicked could keep its place in the
/// cluster and do nothing there, so the process ends, and its supervisor starts it again from what is on disk. Only the
/// modules that read the bytes of one connection and hold nothing else may fail alone: that connection closes.
fn panicked(log: &Log, panic: &PanicHookInfo) {
    let trace = std::backtrace::Backtrace::force_capture();
    tracing::error!("{panic}\n{trace}");
    let place = panic.location().map_or("", |at| at.file());
    if !["src/zeo/", "src/http/"].iter().any(|alone| place.contains(alone)) {
        log.print(format_args!("zrsd: {panic}\nzrsd: this is a bug; ending the process"));
        std::process::abort();
    }
}
