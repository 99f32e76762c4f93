//! One connection's task: read what is there, write what is due, wait without a buffer.
//!
//! Read and write buffers belong to the thread, not to the connection: between two polls a connection keeps only
//! the piece of a packet that is incomplete and what the socket did not take.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::Sleep;

use super::codec::{Decoder, Disconnect, Packet, PacketId, ProtocolVersion, ReasonCode};
use super::inbound::Step;
use super::listen::Shared;
use super::outbound::{Aliases, encode_all};
use super::reasons;
use crate::access::Principal;
use crate::base::Refusal;
use crate::broker::{Closing, Leaving, Link, Outgoing, Topic, Waiting};

/// Bytes of the thread's read buffer, and of output gathered before a write.
const BUFFER_BYTES: usize = 64 * 1024;
/// An incomplete packet up to this size is moved to the front of the thread's buffer before the next read.
const PARTIAL_BYTES: usize = 16 * 1024;
/// A client that does not take this much is not listened to either.
const UNSENT_BYTES: usize = 64 * 1024;
/// Reads of one connection before others get their turn.
const ROUNDS: usize = 8;
/// Time for the last packet to leave.
const FAREWELL: Duration = Duration::from_millis(1000);

/// A byte stream in both directions.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// TCP, TLS or WebSocket.
pub(super) type Stream = Box<dyn Duplex>;

thread_local! {
    static INPUT: RefCell<Vec<u8>> = RefCell::new(vec![0; BUFFER_BYTES]);
    static OUTPUT: RefCell<(Vec<u8>, Vec<Outgoing>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// What CONNECT settled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) version: ProtocolVersion,
    pub(super) keep_alive_s: u16,
    /// Largest packet that the client takes.
    pub(super) packet_bytes: u32,
    /// Topic aliases that the client takes and we are willing to use.
    pub(super) topic_alias_maximum: u16,
    /// The session has an expiry, so DISCONNECT may change it.
    pub(super) may_outlive: bool,
}

/// What the task has to await with its whole self.
pub(super) enum Event {
    Subscribe(super::codec::Subscribe),
    Unsubscribe(super::codec::Unsubscribe),
    End(End),
}

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The socket closed or broke.
    Lost,
    /// DISCONNECT.
    Left(Leaving, Option<u32>),
    /// The client broke a rule.
    Fault(ReasonCode),
    /// Nothing was heard for too long.
    Silent,
    /// The broker wants it.
    Closing(Closing),
    /// MQTT 3.1.1: a publish was refused.
    Refused(Refusal),
    /// The session could not be changed on disk.
    Unavailable,
}

/// A topic that the client publishes to.
pub(super) struct Known {
    pub(super) topic: Topic,
    pub(super) allowed: bool,
}

pub(super) struct Connection {
    stream: Stream,
    pub(super) decoder: Decoder,
    pub(super) link: Link,
    pub(super) principal: Principal,
    pub(super) settings: Settings,
    pub(super) shared: Arc<Shared>,
    pub(super) topics: HashMap<Box<str>, Known>,
    pub(super) aliases: Vec<Option<Box<str>>>,
    sent_aliases: Aliases,
    /// Input that is not handled: an incomplete packet, or what came after one that has to wait.
    partial: Vec<u8>,
    /// `partial` may hold a whole packet.
    backlog: bool,
    pub(super) unsent: Vec<u8>,
    sent: usize,
    pub(super) waiting: Option<Waiting>,
    timer: Option<Pin<Box<Sleep>>>,
    heard_at: Duration,
}

impl Connection {
    #[allow(clippy::too_many_arguments, reason = "the parts that the handshake has made")]
    pub(super) fn new(
        stream: Stream,
        decoder: Decoder,
        link: Link,
        principal: Principal,
        settings: Settings,
        shared: Arc<Shared>,
        mut partial: Vec<u8>,
        unsent: Vec<u8>,
    ) -> Self {
        partial.shrink_to_fit();
        let heard_at = shared.clock.since_boot();
        let mut connection = Self {
            stream,
            decoder,
            link,
            principal,
            settings,
            shared,
            topics: HashMap::new(),
            aliases: Vec::new(),
            sent_aliases: Aliases::default(),
            backlog: !partial.is_empty(),
            partial,
            unsent,
            sent: 0,
            waiting: None,
            timer: None,
            heard_at,
        };
        connection.timer = connection.patience().map(|patience| Box::pin(tokio::time::sleep(patience)));
        connection
    }

    fn patience(&self) -> Option<Duration> {
        let keep_alive_s = self.settings.keep_alive_s;
        (keep_alive_s > 0).then(|| Duration::from_millis(u64::from(keep_alive_s) * 1500))
    }

    /// Serves until the end, then says goodbye.
    pub(super) async fn serve(mut self) {
        let end = loop {
            match poll_fn(|context| self.poll_event(context)).await {
                Event::Subscribe(subscribe) => {
                    if !Box::pin(self.subscribe(subscribe)).await {
                        break End::Unavailable;
                    }
                }
                Event::Unsubscribe(unsubscribe) => {
                    if !Box::pin(self.unsubscribe(unsubscribe)).await {
                        break End::Unavailable;
                    }
                }
                Event::End(end) => break end,
            }
        };
        Box::pin(self.finish(end)).await;
    }

    async fn finish(self, end: End) {
        let Self { mut stream, link, settings, shared, mut unsent, sent, .. } = self;
        let (reason, how, expiry_s) = match end {
            End::Lost => (None, Leaving::WithWill, None),
            End::Left(how, expiry_s) => (None, how, expiry_s),
            End::Fault(reason) => (Some(reason), Leaving::WithWill, None),
            End::Silent => (Some(ReasonCode::KeepAliveTimeout), Leaving::WithWill, None),
            End::Closing(why) => (Some(reasons::closing(why)), Leaving::WithWill, None),
            End::Refused(_) | End::Unavailable => {
                (Some(ReasonCode::ImplementationSpecificError), Leaving::WithWill, None)
            }
        };
        match end {
            End::Fault(reason) => {
                shared.metrics.faults.inc();
                tracing::info!(client = link.client(), reason = ?reason, "a client broke the protocol");
            }
            End::Silent => {
                shared.metrics.silent.inc();
                tracing::debug!(client = link.client(), "a client was silent for too long");
            }
            End::Refused(refusal) => {
                tracing::warn!(client = link.client(), ?refusal, "a publish of an MQTT 3.1.1 client was not kept");
            }
            End::Closing(why) => tracing::info!(client = link.client(), ?why, "a client is disconnected"),
            End::Lost | End::Left(..) | End::Unavailable => {}
        }
        // The will goes out before the goodbye, which may take its time.
        link.leave(how, expiry_s);
        if end == End::Lost {
            return;
        }
        if let Some(reason) = reason.filter(|_| settings.version == ProtocolVersion::V5) {
            // A packet written in part must be finished first; writing to memory does not fail.
            let _ = Packet::Disconnect(Disconnect::new(reason).into()).encode(settings.version, &mut unsent);
        }
        let goodbye = async {
            stream.write_all(&unsent[sent..]).await?;
            stream.flush().await?;
            stream.shutdown().await?;
            if matches!(end, End::Left(..)) {
                return Ok(());
            }
            // What the client still sends must be read: closing on unread bytes resets the connection, and the reason
            // would be lost.
            let mut rest = [0; 1024];
            while stream.read(&mut rest).await? > 0 {}
            Ok::<_, io::Error>(())
        };
        let _ = tokio::time::timeout(FAREWELL, goodbye).await;
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        for _ in 0..ROUNDS {
            if let Some(why) = self.link.closing() {
                return Poll::Ready(Event::End(End::Closing(why)));
            }
            if let Some(waiting) = &mut self.waiting
                && waiting.as_mut().poll(context).is_ready()
            {
                self.waiting = None;
            }
            let sent = self.poll_send(context);
            if let Poll::Ready(Err(end)) = sent {
                return Poll::Ready(Event::End(end));
            }
            if self.poll_silence(context).is_ready() {
                return Poll::Ready(Event::End(End::Silent));
            }
            let unsent = self.unsent.len() - self.sent;
            let full = self.link.unanswered() >= usize::from(self.shared.broker.receive_maximum());
            if self.waiting.is_some() || unsent > UNSENT_BYTES || full && self.settings.version == ProtocolVersion::V311
            {
                return Poll::Pending;
            }
            let step = if self.backlog { self.work_off() } else { ready!(self.poll_input(context)) };
            self.link.wake_others();
            if let Step::Event(event) = step {
                return Poll::Ready(event);
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Ready when nothing has been heard for 1.5 times the keep-alive.
    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(patience) = self.patience() else { return Poll::Pending };
        loop {
            let Some(timer) = &mut self.timer else { return Poll::Pending };
            ready!(timer.as_mut().poll(context));
            let quiet = self.shared.clock.since_boot().saturating_sub(self.heard_at);
            // A publisher that is kept waiting is not silent.
            if quiet >= patience && self.waiting.is_none() && !self.backlog {
                return Poll::Ready(());
            }
            let left = patience.saturating_sub(quiet).max(Duration::from_millis(10));
            self.timer = Some(Box::pin(tokio::time::sleep(left)));
        }
    }

    fn work_off(&mut self) -> Step {
        self.backlog = false;
        let input = std::mem::take(&mut self.partial);
        let (used, step) = self.handle_all(&input);
        self.keep(&input[used..]);
        step
    }

    /// Keeps input for later; none costs no memory.
    fn keep(&mut self, rest: &[u8]) {
        self.partial.clear();
        if rest.is_empty() {
            self.partial = Vec::new();
        } else {
            self.partial.extend_from_slice(rest);
        }
    }

    fn poll_input(&mut self, context: &mut Context<'_>) -> Poll<Step> {
        INPUT.with_borrow_mut(|input| {
            let kept = self.partial.len();
            let count = if kept <= PARTIAL_BYTES {
                let count = ready!(poll_read(&mut self.stream, context, &mut input[kept..]));
                input[..kept].copy_from_slice(&self.partial);
                count
            } else {
                // A large packet: gathered where it will be read.
                let count = ready!(poll_read(&mut self.stream, context, input));
                if let Ok(count) = count {
                    self.partial.extend_from_slice(&input[..count]);
                }
                count
            };
            match count {
                Ok(0) | Err(_) => Poll::Ready(Step::Event(Event::End(End::Lost))),
                Ok(count) if kept <= PARTIAL_BYTES => {
                    self.heard_at = self.shared.clock.since_boot();
                    let (used, step) = self.handle_all(&input[..kept + count]);
                    self.keep(&input[used..kept + count]);
                    Poll::Ready(step)
                }
                Ok(_) => {
                    self.heard_at = self.shared.clock.since_boot();
                    match self.decoder.packet_bytes(&self.partial) {
                        Ok(Some(bytes)) if bytes > self.partial.len() => Poll::Ready(Step::Next),
                        _ => Poll::Ready(self.work_off()),
                    }
                }
            }
        })
    }

    /// Handles whole packets until there is none, or one has to wait. Returns what was used.
    fn handle_all(&mut self, input: &[u8]) -> (usize, Step) {
        let mut used = 0;
        while used < input.len() {
            let frame = match self.decoder.frame(&input[used..]) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => return (used, Step::fault(error.reason_code())),
            };
            used += frame.packet_bytes();
            match self.handle(frame) {
                Step::Next => {}
                step @ (Step::Wait | Step::Event(_)) => {
                    self.backlog = used < input.len();
                    return (used, step);
                }
            }
        }
        (used, Step::Next)
    }

    /// Writes what is due. Pending: the socket is full. Ready: nothing is left.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<Result<(), End>> {
        if self.poll_unsent(context)?.is_pending() {
            self.link.listen(context);
            return Poll::Pending;
        }
        // What is raised after this wakes the task again.
        let _ = self.link.poll_work(context);
        OUTPUT.with_borrow_mut(|(bytes, packets)| {
            loop {
                bytes.clear();
                self.link.drain(BUFFER_BYTES, packets);
                if packets.is_empty() {
                    break;
                }
                let end =
                    encode_all(packets, bytes, &mut self.link, &mut self.sent_aliases, &self.settings, &self.shared);
                let mut written = 0;
                while written < bytes.len() {
                    match Pin::new(&mut self.stream).poll_write(context, &bytes[written..]) {
                        Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(End::Lost)),
                        Poll::Ready(Ok(count)) => written += count,
                        Poll::Pending => {
                            self.unsent.extend_from_slice(&bytes[written..]);
                            self.link.listen(context);
                            return end.map_or(Poll::Pending, |end| Poll::Ready(Err(end)));
                        }
                    }
                }
                if let Some(end) = end {
                    return Poll::Ready(Err(end));
                }
            }
            self.poll_flush(context)
        })
    }

    fn poll_unsent(&mut self, context: &mut Context<'_>) -> Poll<Result<(), End>> {
        while self.sent < self.unsent.len() {
            match ready!(Pin::new(&mut self.stream).poll_write(context, &self.unsent[self.sent..])) {
                Ok(0) | Err(_) => return Poll::Ready(Err(End::Lost)),
                Ok(count) => self.sent += count,
            }
        }
        if self.sent > 0 {
            self.unsent = Vec::new();
            self.sent = 0;
            return self.poll_flush(context);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), End>> {
        match Pin::new(&mut self.stream).poll_flush(context) {
            Poll::Ready(Err(_)) => Poll::Ready(Err(End::Lost)),
            // TLS and WebSocket keep the rest and are flushed again with the next write or poll.
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(())),
        }
    }

    /// Appends a packet to what is to be sent.
    pub(super) fn send(&mut self, packet: &Packet) {
        if let Err(error) = packet.encode(self.settings.version, &mut self.unsent) {
            tracing::error!(error = &error as &dyn std::error::Error, "a packet could not be written");
        }
    }
}

fn poll_read(stream: &mut Stream, context: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
    let mut buffer = ReadBuf::new(into);
    ready!(Pin::new(stream).poll_read(context, &mut buffer))?;
    Poll::Ready(Ok(buffer.filled().len()))
}

/// A packet id that came from the wire or from the broker is never 0.
pub(super) fn packet_id(number: u16) -> PacketId {
    PacketId::new(number).unwrap_or(PacketId::MIN)
}
