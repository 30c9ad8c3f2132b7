//! Asks a node over its HTTP address.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;

use zrs::env::Env;
use zrs::net::{Network as _, Tcp, Wire};

/// The address that is asked if none is given.
pub const USUAL: &str = "127.0.0.1:8180";
/// How long a node may take to say how it is.
const LOOK: Duration = Duration::from_secs(5);
/// How long a node may take to answer a request that changes something; it answers /transfer after an election.
const CHANGE: Duration = Duration::from_secs(35);
/// Bytes of the longest answer that is read.
const ANSWER: usize = 4 * 1024 * 1024;

/// Why there is no good answer.
#[derive(Debug)]
pub enum Failure {
    /// No node was reached.
    Unreached(anyhow::Error),
    /// A node has refused, or did not answer.
    Failed(anyhow::Error),
}

impl Failure {
    /// The reason.
    pub fn why(self) -> anyhow::Error {
        match self {
            Failure::Unreached(why) | Failure::Failed(why) => why,
        }
    }
}

/// Reads `HOST:PORT`; a link to it (`http://HOST:PORT/`) will do.
pub fn address(text: &str) -> Result<String, String> {
    let address = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).and_then(|(_, port)| port.parse().ok());
    match port {
        Some(1u16..) => Ok(address.to_owned()),
        _ => Err(format!("{text:?} is not HOST:PORT ({USUAL}, for example)")),
    }
}

/// The body of a successful answer.
pub async fn get(address: &str, path: &str) -> Result<String, Failure> {
    ask(Method::GET, address, path, LOOK).await
}

/// The body of a successful answer to a request that changes something.
pub async fn post(address: &str, path: &str) -> Result<String, Failure> {
    ask(Method::POST, address, path, CHANGE).await
}

async fn ask(method: Method, address: &str, path: &str, patience: Duration) -> Result<String, Failure> {
    let connected = Env::current().timeout(LOOK, Tcp.connect(address)).await;
    let wire = connected.map_err(anyhow::Error::from).and_then(|connected| connected.map_err(anyhow::Error::from));
    let wire = wire.with_context(|| nobody(address)).map_err(Failure::Unreached)?;
    let exchanged = Env::current().timeout(patience, exchange(wire, method, address, path)).await;
    let late = || format!("no answer from http://{address} within {} s", patience.as_secs());
    let (status, body) = exchanged.with_context(late).flatten().map_err(Failure::Failed)?;
    judge(address, status, &body).map(|()| body).map_err(Failure::Failed)
}

fn nobody(address: &str) -> String {
    let hint = if address == USUAL { " (--http says where to look; this is the usual place)" } else { "" };
    format!("no connection to http://{address}; is zrsd running there, and started with --http {address}?{hint}")
}

/// An error for any answer but a good one: the node's own words, where they are some.
fn judge(address: &str, status: StatusCode, body: &str) -> anyhow::Result<()> {
    let words = body.trim();
    if status.is_success() {
        return Ok(());
    }
    if words.is_empty() || words.starts_with('<') {
        bail!("http://{address} answers {status}; is it the HTTP address of a zrsd?");
    }
    bail!("{address} answers: {words}")
}

async fn exchange(wire: Wire, method: Method, address: &str, path: &str) -> anyhow::Result<(StatusCode, String)> {
    // A node knows itself by few names, and by its IP address always.
    // (Without the scope that an IPv6 address may have.)
    let peer = wire.peer.parse::<SocketAddr>();
    let host = peer.map_or(wire.peer, |peer| SocketAddr::new(peer.ip(), peer.port()).to_string());
    let io = TokioIo::new(tokio::io::join(wire.reader, wire.writer));
    let strange = || format!("{address} is not the HTTP address of a zrsd");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.with_context(strange)?;
    Env::current().spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, host)
        .header(header::CONTENT_LENGTH, 0)
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await.with_context(strange)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER).collect().await;
    let body = body.map_err(|why| anyhow::anyhow!(why)).with_context(|| format!("reading from http://{address}"))?;
    Ok((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
}

/// A value for a query: every byte that may mean something there is written as `%` and two digits.
pub fn encoded(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    value.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for fine in ["a:8180", "127.0.0.1:1", "[::1]:8180", "http://a:8180", "http://a:8180/"] {
            assert!(address(fine).is_ok(), "{fine}");
        }
        assert_eq!(address("http://a:8180/").unwrap(), "a:8180");
        for wrong in ["", "a", ":8180", "a:", "a:x", "a:0", "a:70000", "http://a"] {
            assert!(address(wrong).unwrap_err().contains("is not HOST:PORT"), "{wrong}");
        }
    }

    #[test]
    fn names_in_a_query() {
        assert_eq!(encoded("main-2_x.y~"), "main-2_x.y~");
        assert_eq!(encoded("a b&é"), "a%20b%26%C3%A9");
    }

    #[test]
    fn what_a_node_says_is_told_and_what_no_node_says_is_not() {
        let why = |status: u16, body: &str| {
            judge("a:1", StatusCode::from_u16(status).unwrap(), body).unwrap_err().to_string()
        };
        assert_eq!(why(503, "Not handed over: no.\n"), "a:1 answers: Not handed over: no.");
        assert!(why(404, "<html>").contains("404 Not Found; is it the HTTP address of a zrsd?"));
        assert!(judge("a:1", StatusCode::OK, "ok").is_ok());
    }
}
