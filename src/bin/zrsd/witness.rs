//! The witness: a process of its own that sees when this one ends, and tells the other members.
//!
//! A `zrsd` that becomes primary starts itself once more, as `zrsd witness` and with the same settings, and writes what
//! is to be done at its end (a [`Will`]) into a pipe. The system closes the pipe when the last thread of the process
//! has ended, by whatever it ended: then the witness does what it read last, and ends, too. Why that is proof:
//! `zrs::raft`, `obituary`.
//!
//! **The pipe must never be closed while this process lives.** So nobody else has it (the standard library has it
//! closed on `exec`), and it is dropped only after its witness has ended.

use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{ChildStdin, Command, ExitCode, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::fd::OwnedFd;
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use tokio::task::JoinSet;

use zrs::config::{Config, Parsed, command_line, limits};
use zrs::env::{Env, Watch};
use zrs::net::{FrameWriter, Network as _, Tcp, Tls, lingering_close};
use zrs::raft::Will;
use zrs::server::Server;

/// The word on the command line that makes `zrsd` a witness.
const WORD: &str = "witness";
/// How long after its end a witness is started again, at first and at most; twice as long each time.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_AT_MOST: Duration = Duration::from_secs(60);
/// How long one other member may take to be told.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long one that is to end is waited for.
const DISMISSAL: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(5);

/// This process's witness, if it has one.
#[derive(Clone)]
pub struct Witness(Arc<Inner>);

struct Inner {
    present: Mutex<Option<Present>>,
    /// How many there were: a new one is to be told what the one before it was.
    count: Watch<u64>,
    /// None is started any more.
    is_over: AtomicBool,
}

struct Present {
    pipe: ChildStdin,
    /// (A number could be another process's by now.)
    process: OwnedFd,
}

impl Witness {
    pub fn none_yet() -> Witness {
        Witness(Arc::new(Inner { present: Mutex::new(None), count: Watch::new(0), is_over: AtomicBool::new(false) }))
    }

    /// Has there be one whenever this process is primary, and tells it what to do at the end of this process.
    pub async fn instruct(self, server: Arc<Server>, env: Env) {
        let (mut role, mut count) = (server.node().role(), self.0.count.watching());
        let (mut will, mut told, mut has_begun) = (None, None, false);
        loop {
            let _ = role.look_now();
            // (Who leads no more leaves it at that: what it led by stays true, and the others know of a later ballot.)
            let present = server.node().will();
            let is_primary = present.is_some();
            will = present.or(will);
            if is_primary && !has_begun {
                let (keeper, there) = (self.clone(), env.clone());
                let begun = thread::Builder::new().name("zrs-witness".into()).spawn(move || keeper.keep(&there));
                has_begun = begun.is_ok();
            }
            let news = (*count.look_now(), will.clone());
            if let (_, Some(will)) = &news
                && told.as_ref() != Some(&news)
                && self.tell(will)
            {
                told = Some(news);
            }
            tokio::select! { biased;
                _ = role.changed() => {}
                _ = count.changed() => {}
                // (The members change by the log, and seldom.)
                () = env.sleep(limits::WILL_AGE), if is_primary => {}
            }
        }
    }

    /// Starts one, and another one whenever it ends; on a thread of its own.
    fn keep(&self, env: &Env) {
        let mut pause = AGAIN;
        while !self.is_over() {
            let began = env.now();
            let ended = self.one();
            if self.is_over() {
                return;
            }
            if began.elapsed() > AGAIN_AT_MOST {
                pause = AGAIN;
            }
            match ended {
                Ok(status) => {
                    tracing::warn!("the witness of this process has ended ({status}); another one starts in {pause:?}")
                }
                Err(fault) => tracing::warn!(
                    "this process has no witness: {fault}. Should it be killed while it is primary, the others wait until \
                     its lease is over"
                ),
            }
            thread::sleep(pause);
            pause = (pause * 2).min(AGAIN_AT_MOST);
        }
    }

    /// Starts one, and waits for its end.
    fn one(&self) -> io::Result<ExitStatus> {
        let mut child = Command::new("/proc/self/exe")
            .arg0(std::env::args_os().next().unwrap_or_else(|| "zrsd".into()))
            .arg(WORD)
            .args(std::env::args_os().skip(1))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let is_there = child.stdin.take().map_or(Ok(()), |pipe| self.take(pipe, child.id()));
        if is_there.is_err() || self.is_over() {
            let _ = child.kill();
        }
        let ended = child.wait();
        // (Nobody reads from the pipe any more.)
        *self.present() = None;
        is_there.and(ended)
    }

    /// Has a new one be told from now on. (After an error the pipe is closed, and the witness ends: it knows nothing.)
    fn take(&self, pipe: ChildStdin, child: u32) -> io::Result<()> {
        let pid = Pid::from_raw(child as i32).ok_or(io::ErrorKind::InvalidData)?;
        // A witness that reads nothing must not hold this process up.
        fcntl_setfl(&pipe, OFlags::NONBLOCK)?;
        *self.present() = Some(Present { pipe, process: pidfd_open(pid, PidfdFlags::empty())? });
        self.0.count.send_if(|count| {
            *count += 1;
            true
        });
        Ok(())
    }

    /// Whether there is a witness that has been told. One that does not take it is ended: the next one will.
    fn tell(&self, will: &Will) -> bool {
        let mut message = vec![0; 4];
        message.extend(postcard::to_stdvec(will).expect("it has no maps of unknown length"));
        let length = message.len() as u32 - 4;
        message[..4].copy_from_slice(&length.to_be_bytes());
        let mut present = self.present();
        let Some(there) = present.as_mut() else { return false };
        let is_told = there.pipe.write_all(&message).is_ok();
        if !is_told {
            there.end();
        }
        is_told
    }

    /// Ends the witness for good, and waits for its end, as this process is about to become another program's.
    pub fn dismiss(&self) {
        self.0.is_over.store(true, Ordering::SeqCst);
        for _ in 0..DISMISSAL.as_millis() / LOOK.as_millis() {
            match self.present().as_ref() {
                Some(there) => there.end(),
                None => return,
            }
            thread::sleep(LOOK);
        }
    }

    fn is_over(&self) -> bool {
        self.0.is_over.load(Ordering::SeqCst)
    }

    fn present(&self) -> MutexGuard<'_, Option<Present>> {
        self.0.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Present {
    fn end(&self) {
        // (It may have ended by itself.)
        let _ = pidfd_send_signal(&self.process, Signal::KILL);
    }
}

/// The settings of the process whose witness this one is to be; `None`: it is to be none.
pub fn called() -> Option<Vec<OsString>> {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    (arguments.get(1)? == WORD).then(|| {
        arguments.remove(1);
        arguments
    })
}

/// What a witness does.
pub fn witness(arguments: Vec<OsString>) -> ExitCode {
    if io::stdin().is_terminal() {
        let _ = writeln!(io::stderr(), "zrsd starts its witness by itself, and nobody else does");
        return ExitCode::FAILURE;
    }
    // What is meant for the process that it witnesses: a supervisor may send it to both.
    for number in [SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2] {
        if signal_hook::flag::register(number, Arc::new(AtomicBool::new(false))).is_err() {
            return ExitCode::FAILURE;
        }
    }
    let Parsed::Run(config) = command_line(arguments) else { return ExitCode::FAILURE };
    let Some(will) = last_will() else { return ExitCode::SUCCESS };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return ExitCode::FAILURE;
    };
    runtime.block_on(carry_out(*config, will));
    // (A name that is still being looked up must not keep this process: a supervisor waits for its end.)
    runtime.shutdown_background();
    ExitCode::SUCCESS
}

/// Reads until the process at the other end has ended; gives what it said last. `None`: nothing, or nothing is sure.
fn last_will() -> Option<Will> {
    let mut input = io::stdin().lock();
    let mut last = None;
    loop {
        let mut length = [0; 4];
        match input.read_exact(&mut length) {
            Ok(()) => {}
            Err(fault) if fault.kind() == io::ErrorKind::UnexpectedEof => return last,
            Err(_) => return None,
        }
        let mut message = vec![0; u32::from_be_bytes(length) as usize];
        match input.read_exact(&mut message) {
            Ok(()) => last = Some(postcard::from_bytes(&message).ok()?),
            Err(fault) if fault.kind() == io::ErrorKind::UnexpectedEof => return last,
            Err(_) => return None,
        }
    }
}

/// Tells all the others at the same time. What does not arrive is no loss but of time.
async fn carry_out(config: Config, will: Will) {
    // (Read now: the files may be others than they were at the start.)
    let env = Env::system();
    let tls = match config.tls().map(|files| Tls::load(files, env.clone())).transpose() {
        Ok(tls) => tls,
        Err(_) => return,
    };
    let mut telling = JoinSet::new();
    for address in will.addresses {
        let (tls, frame) = (tls.clone(), will.frame.clone());
        let env = env.clone();
        telling.spawn(async move { env.timeout(PATIENCE, send(&env, &address, tls, &frame)).await });
    }
    while telling.join_next().await.is_some() {}
}

async fn send(env: &Env, address: &str, tls: Option<Tls>, frame: &[u8]) -> io::Result<()> {
    let mut wire = Tcp.connect(address).await?;
    if let Some(tls) = tls {
        wire = tls.connect(wire, address).await?;
    }
    let mut writer = FrameWriter::new(wire.writer);
    writer.push(frame);
    writer.flush().await?;
    lingering_close(env, writer.into_writer(), wire.reader).await;
    Ok(())
}
