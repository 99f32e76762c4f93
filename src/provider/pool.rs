//! Connections to one origin: bounded, kept while they are good, driven by whoever uses them.
//!
//! A connection has no task of its own. Whoever waits for an answer polls the connection as well, so that a byte from
//! the wire reaches its reader without waking a second task, and dropping the reader closes the connection: that is
//! how a request is cancelled. An idle connection is polled by nobody; that its far side closed it is seen when it is
//! taken out again.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body as _, Frame, Incoming};
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use super::address::Origin;
use super::connect::{Io, connect};
use super::error::{Class, Failure};
use super::metrics::Counters;
use crate::base::{Clock, Name};

/// Read at once from a connection, which bounds its memory; heads of answers have to fit.
const READ_BYTES_MAX: usize = 64 * 1024;

/// How many, and for how long.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    pub(super) connections: u32,
    pub(super) waiting: u32,
    pub(super) connect: Duration,
    pub(super) keep_idle: Duration,
}

/// A connection between requests or within one.
struct Link {
    connection: Pin<Box<Connection<TokioIo<Io>, Full<Bytes>>>>,
    sender: SendRequest<Full<Bytes>>,
    ended: bool,
}

impl Link {
    async fn open(io: Io) -> Result<Self, hyper::Error> {
        let mut builder = http1::Builder::new();
        builder.max_buf_size(READ_BYTES_MAX);
        let (sender, connection) = builder.handshake(TokioIo::new(io)).await?;
        Ok(Self { connection: Box::pin(connection), sender, ended: false })
    }

    fn drive(&mut self, cx: &mut Context<'_>) {
        if !self.ended && self.connection.as_mut().poll(cx).is_ready() {
            self.ended = true;
        }
    }

    /// Whether it takes another request. Polled without a reader to wake: nobody waits for it.
    fn is_ready(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        !self.ended && self.sender.is_ready()
    }
}

struct Idle {
    link: Link,
    since: Duration,
}

/// The connections of one provider to one origin.
pub(super) struct Pool {
    provider: Name,
    origin: Origin,
    limits: Limits,
    tls: Option<Arc<ClientConfig>>,
    clock: Arc<dyn Clock>,
    counters: Counters,
    places: Arc<Semaphore>,
    waiting: AtomicU32,
    idle: Mutex<Vec<Idle>>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("origin", &self.origin).field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Pool {
    pub(super) fn new(
        provider: Name,
        origin: Origin,
        limits: Limits,
        tls: Option<Arc<ClientConfig>>,
        clock: Arc<dyn Clock>,
        counters: Counters,
    ) -> Arc<Self> {
        let places = Arc::new(Semaphore::new(limits.connections as usize));
        let (waiting, idle) = (AtomicU32::new(0), Mutex::new(Vec::new()));
        Arc::new(Self { provider, origin, limits, tls, clock, counters, places, waiting, idle })
    }

    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// One request, to the head of its answer.
    pub(super) async fn send(
        self: &Arc<Self>,
        mut request: Request<Full<Bytes>>,
        first_byte: Duration,
    ) -> Result<Response<Exchange>, Failure> {
        let place = self.place().await?;
        while let Some(mut link) = self.take_idle() {
            match self.ask(&mut link, request, first_byte).await? {
                Asked::Answered(response) => return Ok(self.exchange(response, link, place)),
                // Closed while it was idle, and nothing of the request went out.
                Asked::NotSent(back) => request = *back,
            }
        }
        // Elsewhere: most requests find a connection, and all would carry the room for opening one.
        let mut link = Box::pin(self.open()).await?;
        match self.ask(&mut link, request, first_byte).await? {
            Asked::Answered(response) => Ok(self.exchange(response, link, place)),
            Asked::NotSent(_) => {
                Err(self.unavailable(format!("{} closed the connection at once", self.origin.far_side())))
            }
        }
    }

    /// Opens a connection and keeps it: whether it can be reached.
    pub(super) async fn reach(self: &Arc<Self>) -> Result<(), Failure> {
        let place = self.place().await?;
        let link = self.open().await?;
        self.put_back(link, place);
        Ok(())
    }

    /// Closes connections that nobody used for a while.
    pub(super) fn tidy(&self) {
        let now = self.clock.since_boot();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.take_old(&mut idle, now);
        idle.retain_mut(|idle| idle.link.is_ready());
        drop(idle);
        drop(old);
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, Failure> {
        match self.places.clone().try_acquire_owned() {
            Ok(place) => return Ok(place),
            Err(TryAcquireError::NoPermits) => {}
            Err(TryAcquireError::Closed) => return Err(self.unavailable("it is being taken away".to_owned())),
        }
        let waiting = Waiting::new(&self.waiting);
        if waiting.others >= self.limits.waiting {
            self.counters.refused.inc();
            let reason = format!(
                "its {} connections are taken and {} requests wait for one",
                self.limits.connections, self.limits.waiting
            );
            return Err(Failure::unsent(&self.provider, Class::Overloaded, reason));
        }
        match tokio::time::timeout(self.limits.connect, self.places.clone().acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) => Err(self.unavailable("it is being taken away".to_owned())),
            Err(_) => {
                self.counters.refused.inc();
                let reason = format!(
                    "none of its {} connections was free for {} ms",
                    self.limits.connections,
                    self.limits.connect.as_millis()
                );
                Err(Failure::unsent(&self.provider, Class::Overloaded, reason))
            }
        }
    }

    /// The connection that was used last: the others may grow old and be closed.
    fn take_idle(&self) -> Option<Link> {
        let now = self.clock.since_boot();
        loop {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            if now.saturating_sub(idle.since) < self.limits.keep_idle && idle.link.is_ready() {
                return Some(idle.link);
            }
        }
    }

    async fn open(&self) -> Result<Link, Failure> {
        let opening = async {
            let io = connect(&self.origin, self.tls.as_ref(), self.limits.connect).await?;
            Link::open(io)
                .await
                .map_err(|error| format!("{} and we do not speak HTTP: {error}", self.origin.far_side()))
        };
        match tokio::time::timeout(self.limits.connect, opening).await {
            Ok(Ok(link)) => {
                self.counters.connections.inc();
                Ok(link)
            }
            Ok(Err(reason)) => Err(self.unavailable(reason)),
            Err(_) => {
                let ms = self.limits.connect.as_millis();
                let reason = format!("{} took no connection within {ms} ms", self.origin.far_side());
                Err(Failure::unsent(&self.provider, Class::Timeout, reason))
            }
        }
    }

    async fn ask(&self, link: &mut Link, request: Request<Full<Bytes>>, limit: Duration) -> Result<Asked, Failure> {
        let Link { connection, sender, ended } = link;
        let mut answer = std::pin::pin!(sender.try_send_request(request));
        let asking = poll_fn(|cx| {
            if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
                return Poll::Ready(answer);
            }
            if *ended || connection.as_mut().poll(cx).is_ready() {
                *ended = true;
            }
            answer.as_mut().poll(cx)
        });
        match tokio::time::timeout(limit, asking).await {
            Ok(Ok(response)) => Ok(Asked::Answered(response)),
            Ok(Err(mut error)) => match error.take_message() {
                Some(request) => Ok(Asked::NotSent(Box::new(request))),
                None => Err(self.broken(&error.into_error(), "before it answered")),
            },
            Err(_) => {
                let reason = format!("it did not begin to answer within {} ms", limit.as_millis());
                Err(Failure::sent(&self.provider, Class::Timeout, reason))
            }
        }
    }

    fn exchange(
        self: &Arc<Self>,
        response: Response<Incoming>,
        link: Link,
        place: OwnedSemaphorePermit,
    ) -> Response<Exchange> {
        let (head, body) = response.into_parts();
        let mut exchange = Exchange { body, rest: Some((link, place)), pool: self.clone() };
        if exchange.body.is_end_stream() {
            exchange.finish();
        }
        Response::from_parts(head, exchange)
    }

    /// Keeps it for the next request, before its place is free: so there are never more connections than places.
    fn put_back(&self, mut link: Link, place: OwnedSemaphorePermit) {
        if !self.limits.keep_idle.is_zero() && link.is_ready() {
            let since = self.clock.since_boot();
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push(Idle { link, since });
            let old = self.take_old(&mut idle, since);
            drop(idle);
            drop(old);
        }
        drop(place);
    }

    /// The oldest are at the front.
    fn take_old(&self, idle: &mut Vec<Idle>, now: Duration) -> Vec<Idle> {
        let old = idle.partition_point(|idle| now.saturating_sub(idle.since) >= self.limits.keep_idle);
        if old == 0 { Vec::new() } else { idle.drain(..old).collect() }
    }

    fn unavailable(&self, reason: String) -> Failure {
        Failure::unsent(&self.provider, Class::Unavailable, reason)
    }

    /// What hyper says, as a class. Its texts hold no header and no body.
    fn broken(&self, error: &hyper::Error, when: &str) -> Failure {
        let (class, reason) = if error.is_parse() || is_wrong_framing(error) {
            (Class::Malformed, format!("what came is not HTTP: {}", with_source(error)))
        } else {
            (Class::Unavailable, format!("the connection broke {when}: {}", with_source(error)))
        };
        Failure::sent(&self.provider, class, reason)
    }
}

/// Chunks that are none come as an error of reading.
fn is_wrong_framing(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|source| matches!(source.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData))
}

fn with_source(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error} ({source})"),
        None => error.to_string(),
    }
}

enum Asked {
    Answered(Response<Incoming>),
    NotSent(Box<Request<Full<Bytes>>>),
}

/// Counts itself among those who wait, for as long as it lives.
struct Waiting<'a> {
    count: &'a AtomicU32,
    others: u32,
}

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicU32) -> Self {
        Self { count, others: count.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The body of an answer, with the connection that it comes from. Read to its end, the connection is kept; dropped
/// before, it is closed.
pub(super) struct Exchange {
    body: Incoming,
    rest: Option<(Link, OwnedSemaphorePermit)>,
    pool: Arc<Pool>,
}

impl Exchange {
    /// The next bytes; none: it ended as it should.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        loop {
            let mut polled = Pin::new(&mut self.body).poll_frame(cx);
            if polled.is_pending()
                && let Some((link, _)) = &mut self.rest
            {
                link.drive(cx);
                polled = Pin::new(&mut self.body).poll_frame(cx);
            }
            match polled {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => {
                    self.finish();
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(Err(error))) => {
                    self.rest = None;
                    return Poll::Ready(Some(Err(self.pool.broken(&error, "in the middle of its answer"))));
                }
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(bytes) = Frame::into_data(frame)
                        && !bytes.is_empty()
                    {
                        return Poll::Ready(Some(Ok(bytes)));
                    }
                }
            }
        }
    }

    fn finish(&mut self) {
        if let Some((link, place)) = self.rest.take() {
            self.pool.put_back(link, place);
        }
    }
}
