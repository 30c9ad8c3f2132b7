//! Operators: health, status, metrics, handing over the primary's role, changing the members, and dropping storages.
//!
//! A small HTTP/1.1 server over the same [`Network`](crate::net::Network) and [`Env`] as everything else, so that it
//! runs in simulation, too. One request, one connection: clients are health checks, scrapers and people, and a
//! connection that is closed after its answer can't be idle for long.
//!
//! **Promises.** `/primary` answers 200 only where a commit would be accepted at this moment. No page reads or changes
//! a storage's objects. Requests are bounded in number, size and time ([`limits`], 'HTTP').
//!
//! **Left out.** TLS and passwords: bind the server to an address that only operators reach. (`guard` keeps out what
//! web pages ask for in the browsers of operators.)

mod guard;
mod member;
mod page;
mod route;
mod state;

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::HeaderMap;
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::sync::Semaphore;

pub use page::Page;
pub use route::{Kind, PAGES, Route};

use crate::config::limits;
use crate::env::Env;
use crate::net::{Listener, Wire};
use crate::server::Server;
use guard::Names;

/// Answers at `listener` for as long as the process lives.
pub fn serve(server: Arc<Server>, env: Env, listener: Box<dyn Listener>) {
    env.clone().spawn(accept(server, env, listener));
}

async fn accept(server: Arc<Server>, env: Env, mut listener: Box<dyn Listener>) {
    let places = Arc::new(Semaphore::new(server.config().open_files.http));
    loop {
        let wire = match listener.accept().await {
            Ok(wire) => wire,
            Err(why) => {
                tracing::warn!(%why, "http: accept failed");
                env.sleep(limits::HTTP_RETRY).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::debug!(peer = wire.peer, "http: too many connections");
            continue;
        };
        let server = server.clone();
        let deadline = env.clone();
        env.spawn(async move {
            let peer = wire.peer.clone();
            match deadline.timeout(limits::HTTP_EXCHANGE, converse(server, wire)).await {
                Ok(Ok(())) => {}
                Ok(Err(why)) => tracing::debug!(peer, %why, "http: closed"),
                Err(_) => tracing::debug!(peer, "http: too slow"),
            }
            drop(place);
        });
    }
}

async fn converse(server: Arc<Server>, wire: Wire) -> hyper::Result<()> {
    let io = TokioIo::new(tokio::io::join(wire.reader, wire.writer));
    let service = service_fn(move |request| {
        let server = server.clone();
        async move { Ok::<_, Infallible>(respond(&server, &request).await) }
    });
    // (No Date header: hyper reads the system's clock for it.)
    hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .auto_date_header(false)
        .max_buf_size(limits::HTTP_HEAD)
        .max_headers(limits::HTTP_HEADERS)
        .serve_connection(io, service)
        .await
}

async fn respond<B>(server: &Server, request: &Request<B>) -> Response<Full<Bytes>> {
    let uri = request.uri();
    let answer = match Route::of(request.method().as_str(), uri.path(), uri.query()) {
        Ok(route) => admitted(server, route, request.headers()).await,
        Err(answer) => answer,
    };
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() = StatusCode::from_u16(answer.status).expect("answers have valid status codes");
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(allow) = answer.allow {
        headers.insert(header::ALLOW, HeaderValue::from_static(allow));
    }
    response
}

/// The answer to a request, if it may come from where it says.
async fn admitted(server: &Server, route: Route, headers: &HeaderMap) -> Page {
    let kind = route.kind();
    let permit = match kind {
        Kind::Change => guard::may_change(headers, &names(server)),
        Kind::Description => guard::may_read(headers, &names(server)),
        Kind::Signal => Ok(()),
    };
    if let Err(refusal) = permit {
        tracing::debug!(?route, answer = refusal.body.trim_end(), "http: refused");
        return refusal;
    }
    let page = answer(server, route).await;
    let tells_why = kind == Kind::Signal && page.status != 200;
    if tells_why && guard::may_read(headers, &names(server)).is_err() {
        return Page::text(page.status, "no");
    }
    page
}

/// The names by which this node may be asked.
fn names(server: &Server) -> Names {
    let config = server.config();
    let members = server.node().status().members.into_iter().map(|member| member.address);
    Names::of(members.chain(config.members().into_values()).chain(config.http.clone()))
}

async fn answer(server: &Server, route: Route) -> Page {
    match route {
        Route::Front => Page::text(200, front(server)),
        Route::Health => told(state::healthy(&server.status()), "ok"),
        Route::Ready => told(state::ready(&server.status()), "ready"),
        Route::Primary => match server.is_primary() {
            true => Page::text(200, "primary"),
            false => Page::text(503, "not the primary"),
        },
        Route::Status => {
            let body = format!("{:#}", state::document(&server.status()));
            Page { content_type: "application/json", ..Page::text(200, body) }
        }
        Route::Metrics => {
            let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            Page { status: 200, content_type, allow: None, body: server.metrics().text() }
        }
        Route::Transfer(to) => asked(server.transfer(to).await),
        Route::Members(wish) => asked(server.change_members(wish).await),
        Route::DropStorage(name) => asked(server.drop_storage(&name).await),
    }
}

fn asked(done: Result<String, String>) -> Page {
    match done {
        Ok(words) => Page::text(200, words),
        Err(why) => Page::text(503, why),
    }
}

fn told(state: Result<(), String>, good: &str) -> Page {
    match state {
        Ok(()) => Page::text(200, good),
        Err(why) => Page::text(503, why),
    }
}

fn front(server: &Server) -> String {
    let mut text = format!("zrs {} at {}\n", env!("CARGO_PKG_VERSION"), server.address());
    for (method, path, what) in PAGES {
        text.push_str(&format!("\n  {:<30}{what}", format!("{method} {path}")));
    }
    text
}
