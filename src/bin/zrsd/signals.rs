//! Signals: those that mean something here, and those that would end a process and mean nothing.
//!
//! SIGTERM and SIGINT are the server's own (`main`).

use std::io;
use std::time::Duration;

use rustix::process::Signal as Number;
use tokio::signal::unix::{Signal, SignalKind, signal};

use zrs::env::Env;
use zrs::net::Tls;

use crate::log::Log;

const DAY: Duration = Duration::from_secs(86_400);
/// How long before the end of this node's certificate a warning is logged, in seconds.
const EXPIRES_SOON: i64 = 14 * 86_400;

/// The signals that ask for something.
pub struct Signals {
    /// Asks for everything to be opened and read again that is a file.
    hangup: Signal,
    /// Asks for the log file to be opened again: stock tools send this after a rotation.
    rotated: Signal,
}

impl Signals {
    /// Takes these signals, and makes those harmless that supervisors, terminals and scripts may send: what is taken
    /// once does not end the process any more. To be called within a runtime.
    pub fn take() -> io::Result<Signals> {
        let file_too_large = SignalKind::from_raw(Number::XFSZ.as_raw());
        let idle = [SignalKind::user_defined1(), SignalKind::alarm(), SignalKind::pipe(), file_too_large];
        for kind in idle.into_iter().chain([SignalKind::window_change()]) {
            drop(signal(kind)?);
        }
        Ok(Signals { hangup: signal(SignalKind::hangup())?, rotated: signal(SignalKind::user_defined2())? })
    }

    /// Does what the signals ask for, and looks every day for how long the certificate is valid.
    pub async fn heed(mut self, env: Env, log: Log, tls: Option<Tls>) {
        loop {
            if let Some(tls) = &tls {
                warn_of_end(tls);
            }
            tokio::select! {
                biased;
                Some(()) = self.hangup.recv() => {
                    if log.has_file() {
                        log.reopen("SIGHUP");
                    }
                    match &tls {
                        Some(tls) => reload(&env, tls).await,
                        None if log.has_file() => {}
                        None => tracing::info!(
                            "SIGHUP: there is nothing to read or open again without --tls-cert and --log-file"
                        ),
                    }
                }
                Some(()) = self.rotated.recv() => match log.has_file() {
                    true => log.reopen("SIGUSR2"),
                    false => tracing::info!("SIGUSR2: there is no log file to open again without --log-file"),
                },
                () = env.sleep(DAY) => {}
            }
        }
    }
}

async fn reload(env: &Env, tls: &Tls) {
    let reading = tls.clone();
    match env.offload(move || reading.reload()).await {
        Ok(()) => tracing::info!("SIGHUP: read the files of TLS again, for connections from now on"),
        Err(why) => tracing::error!("SIGHUP: the files of TLS stay as they were: {why}"),
    }
}

fn warn_of_end(tls: &Tls) {
    match tls.expires_in() {
        left @ ..0 => tracing::warn!("the certificate of --tls-cert expired {} days ago", -left / 86_400),
        left @ ..EXPIRES_SOON => tracing::warn!("the certificate of --tls-cert expires in {} days", left / 86_400),
        _ => {}
    }
}
