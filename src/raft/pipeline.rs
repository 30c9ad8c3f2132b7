//! Entries on their way to a peer: several messages at a time, answered in their order.
//!
//! **Two on the way.** While the peer writes one message to its disk, the next one is there already; so its disk never
//! waits for the line. More would only make smaller groups of what shares an fsync.
//!
//! **What is committed goes along with entries.** openraft has a message of its own for each step of what is
//! committed. While entries come one after the other, that is held back for a moment, as the next ones tell the same:
//! each commit then costs one message and one answer. A held message gives way to a later one, and has no answer of its
//! own: the answer of the later one says more, and openraft takes the earlier one for answered with it, as of the
//! moment at which it was made.

use std::future::Future;
use std::time::Duration;

use futures_util::stream::{self, BoxStream, FuturesOrdered};
use futures_util::{FutureExt, Stream, StreamExt};
use openraft::errors::RPCError;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, StreamAppendResult};
use tokio::time::Instant;

use super::types::{Record, Types};
use crate::config::limits;
use crate::env::{Alarm, Env};

type Request = AppendEntriesRequest<Types>;
type Response = AppendEntriesResponse<Types>;
type Answer = Result<StreamAppendResult<Types>, RPCError<Types>>;

/// What goes before a message on the same connection.
#[derive(Clone, Copy, Default)]
pub struct Ahead {
    /// How many messages with entries.
    pub messages: usize,
    /// Their bytes.
    pub bytes: usize,
}

/// A message that is to be sent.
pub struct Sending {
    pub request: Request,
    /// About how many bytes its entries take; 0 only if there are none.
    pub size: usize,
    pub ahead: Ahead,
}

impl Sending {
    pub fn new(request: Request, ahead: Ahead) -> Sending {
        let size = request.entries.iter().map(|entry| Record::from(entry).size()).sum();
        Sending { request, size, ahead }
    }
}

/// An answer, whether it is to all that was sent, and the bytes of that.
type Answered = (Answer, bool, usize);

/// The messages of one stream.
struct Pipeline<'s, R, A, F>
where
    F: Future<Output = Answered>,
{
    env: &'s Env,
    requests: R,
    append: A,
    answers: FuturesOrdered<F>,
    ahead: Ahead,
    /// A message without entries, and when it is to be sent at the latest.
    held: Option<(Request, Instant)>,
    alarm: Alarm,
    /// When entries were last sent, and how much earlier those before them.
    sent: Option<(Instant, Duration)>,
    over: bool,
}

/// Sends `requests` by `append`, which is called in their order -> the answers, in the same order, up to the first that
/// is not plain success.
pub fn pipeline<'s, R, A, F>(env: &'s Env, requests: R, append: A) -> BoxStream<'s, Answer>
where
    R: Stream<Item = Request> + Send + Unpin + 's,
    A: Fn(Sending) -> F + Send + 's,
    F: Future<Output = Result<Response, RPCError<Types>>> + Send + 's,
{
    let append = move |sending: Sending| {
        let (previous, size) = (sending.request.prev_log_id, sending.size);
        let last = sending.request.entries.last().map(|entry| entry.log_id).or(previous);
        append(sending).map(move |answered| match answered {
            Ok(response) => {
                let whole = !matches!(&response, Response::PartialSuccess(upto) if *upto != last);
                (Ok(response.into_stream_result(previous, last)), whole, size)
            }
            Err(fault) => (Err(fault), false, size),
        })
    };
    let (answers, ahead) = (FuturesOrdered::new(), Ahead::default());
    let pipeline = Pipeline {
        env,
        requests,
        append,
        answers,
        ahead,
        held: None,
        alarm: Alarm::default(),
        sent: None,
        over: false,
    };
    let next = async |pipeline: Option<Pipeline<'s, R, _, _>>| {
        let mut pipeline = pipeline?;
        let (answer, whole, _) = pipeline.next().await?;
        let goes_on = whole && matches!(answer, Ok(Ok(_)));
        Some((answer, goes_on.then_some(pipeline)))
    };
    stream::unfold(Some(pipeline), next).boxed()
}

impl<R, A, F> Pipeline<'_, R, A, F>
where
    R: Stream<Item = Request> + Unpin,
    A: Fn(Sending) -> F,
    F: Future<Output = Answered>,
{
    /// The next answer; `None`: all are given, and no more requests come.
    async fn next(&mut self) -> Option<Answered> {
        loop {
            let until = self.held.as_ref().map(|(_, until)| *until);
            let takes = !self.over && self.answers.len() < limits::APPENDS;
            tokio::select! { biased;
                Some(answered) = self.answers.next(), if !self.answers.is_empty() => {
                    let size = answered.2;
                    self.ahead.messages -= usize::from(size > 0);
                    self.ahead.bytes -= size;
                    return Some(answered);
                }
                request = self.requests.next(), if takes => match request {
                    Some(request) if request.entries.is_empty() => match until.or_else(|| self.hold()) {
                        Some(until) => self.held = Some((request, until)),
                        None => self.send(request),
                    },
                    Some(request) => {
                        self.held = None;
                        self.send(request);
                    }
                    None => {
                        self.over = true;
                        self.send_held();
                    }
                },
                () = self.env.wake(&mut self.alarm, until.unwrap_or_else(|| self.env.now())), if until.is_some() => {
                    self.send_held();
                }
                else => return None,
            }
        }
    }

    /// Until when a message without entries is to be held: only while entries come one after the other.
    fn hold(&self) -> Option<Instant> {
        let now = self.env.now();
        let (last, pause) = self.sent?;
        (pause.max(now - last) < limits::COMMITTED_HELD).then(|| now + limits::COMMITTED_HELD)
    }

    fn send_held(&mut self) {
        if let Some((request, _)) = self.held.take() {
            self.send(request);
        }
    }

    fn send(&mut self, request: Request) {
        let sending = Sending::new(request, self.ahead);
        let size = sending.size;
        if size > 0 {
            let now = self.env.now();
            self.sent = Some((now, self.sent.map_or(Duration::MAX, |(last, _)| now - last)));
        }
        let answer = (self.append)(sending);
        self.ahead.messages += usize::from(size > 0);
        self.ahead.bytes += size;
        self.answers.push_back(answer);
    }
}
