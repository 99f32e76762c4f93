//! One connection: where it comes from, its place among those that may be open, and when it is given up.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep};
use tonic::transport::server::Connected;

/// What an HTTP/2 client says first.
const PREFACE_BYTES: usize = 24;

/// A socket, or TLS on one.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// Calls of one connection.
#[derive(Debug, Default)]
struct Calls {
    begun: AtomicU64,
    ended: AtomicU64,
}

/// The other end of a connection, kept with each call.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// What the client has shown, verified.
    pub(super) certificate: Option<Arc<[u8]>>,
    calls: Arc<Calls>,
}

impl Peer {
    pub(super) fn new(address: SocketAddr, certificate: Option<Arc<[u8]>>) -> Self {
        Self { address, certificate, calls: Arc::default() }
    }

    /// A call is in progress until what comes back is dropped.
    pub(super) fn calls(&self) -> InProgress {
        self.calls.begun.fetch_add(1, Ordering::Relaxed);
        InProgress(Arc::clone(&self.calls))
    }
}

/// A call of a connection.
#[derive(Debug)]
pub(super) struct InProgress(Arc<Calls>);

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// When a connection is given up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Until the client has begun to speak HTTP/2.
    pub(super) greeting: Duration,
    /// Without a call. None: never.
    pub(super) idle: Option<Duration>,
}

pub(super) struct Connection {
    stream: Box<dyn Duplex>,
    peer: Peer,
    patience: Patience,
    /// Bytes that came, up to [`PREFACE_BYTES`].
    greeted: usize,
    /// Calls that had begun when the wait did.
    begun: u64,
    waiting: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    pub(super) fn new(stream: Box<dyn Duplex>, peer: Peer, patience: Patience, place: OwnedSemaphorePermit) -> Self {
        Self { stream, peer, patience, greeted: 0, begun: 0, waiting: None, _place: place }
    }

    /// Nothing has come: true once that has been so for too long. Answers to pings are nothing.
    fn given_up(&mut self, context: &mut Context<'_>) -> bool {
        let greeting = self.greeted < PREFACE_BYTES;
        let Some(patience) = (if greeting { Some(self.patience.greeting) } else { self.patience.idle }) else {
            return false;
        };
        let calls = &self.peer.calls;
        let (ended, begun) = (calls.ended.load(Ordering::Relaxed), calls.begun.load(Ordering::Relaxed));
        if begun != self.begun {
            self.begun = begun;
            self.waiting = None;
        }
        if begun != ended {
            // An answer is written when a call ends, so this is looked at again.
            self.waiting = None;
            return false;
        }
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(patience)));
        waiting.as_mut().poll(context).is_ready()
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        match Pin::new(&mut self.stream).poll_read(context, into) {
            Poll::Ready(read) => {
                if self.greeted < PREFACE_BYTES {
                    self.greeted += into.filled().len() - before;
                    if self.greeted >= PREFACE_BYTES {
                        self.waiting = None;
                    }
                }
                Poll::Ready(read)
            }
            Poll::Pending if self.given_up(context) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
    use tokio::sync::Semaphore;
    use tokio::time::timeout;

    const GREETING: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(100);

    fn connection(idle: Option<Duration>) -> (Connection, DuplexStream) {
        let (here, there) = tokio::io::duplex(256);
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let peer = Peer::new("127.0.0.1:1".parse().unwrap(), None);
        (Connection::new(Box::new(here), peer, Patience { greeting: GREETING, idle }, place), there)
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_begins_is_given_up_also_one_that_begins_slowly() {
        let (mut connection, mut client) = connection(None);
        client.write_all(b"PRI").await.unwrap();
        let mut read = [0; 64];
        assert_eq!(connection.read(&mut read).await.unwrap(), 3);
        let error = timeout(2 * GREETING, connection.read(&mut read)).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_calls_is_given_up_and_one_with_a_call_is_not() {
        let (mut connection, mut client) = connection(Some(IDLE));
        let mut read = [0; 64];
        client.write_all(&[0; PREFACE_BYTES]).await.unwrap();
        connection.read_exact(&mut read[..PREFACE_BYTES]).await.unwrap();
        let call = connection.peer.calls();
        assert!(timeout(10 * IDLE, connection.read(&mut read)).await.is_err(), "a call is in progress");
        drop(call);
        // What comes and begins no call, such as the answer to a ping, does not count.
        client.write_all(b"pong").await.unwrap();
        assert_eq!(connection.read(&mut read).await.unwrap(), 4);
        let error = timeout(2 * IDLE, connection.read(&mut read)).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_a_connection_stays() {
        let (mut connection, mut client) = connection(None);
        let mut read = [0; PREFACE_BYTES];
        client.write_all(&[0; PREFACE_BYTES]).await.unwrap();
        connection.read_exact(&mut read).await.unwrap();
        assert!(timeout(1000 * IDLE, connection.read(&mut read)).await.is_err());
    }
}
