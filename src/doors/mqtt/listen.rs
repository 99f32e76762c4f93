//! Listeners: bind, accept, hand each socket to its own task.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::config::{Config, Kind, Listener};
use super::connection::Stream;
use super::error::Error;
use super::handshake::{self, Failure, Peer};
use super::metrics::Metrics;
use super::{holder, websocket};
use crate::access::Access;
use crate::base::Clock;
use crate::broker::Broker;
use crate::doors::tls;

/// What every connection needs.
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) broker: Broker,
    pub(super) access: Arc<Access>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Metrics,
    /// Counts client ids given to clients without one.
    pub(super) assigned: AtomicU64,
}

struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    kind: Kind,
    tls: Option<TlsAcceptor>,
}

/// The MQTT door with its sockets bound and nobody let in yet.
pub struct Door {
    shared: Arc<Shared>,
    bound: Vec<Bound>,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").field("addresses", &self.addresses()).finish_non_exhaustive()
    }
}

impl Door {
    /// Reads certificates and binds every listener. Fails as a whole.
    pub async fn bind(
        config: Config,
        broker: Broker,
        access: Arc<Access>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        let mut bound = Vec::new();
        for listener in &config.listener {
            let tls = if listener.kind.has_tls() { Some(acceptor(listener, &clock)?) } else { None };
            let wanted = listener.address;
            let socket = TcpListener::bind(wanted).await.map_err(|source| match source.kind() {
                io::ErrorKind::AddrInUse => Error::Taken { address: wanted, holder: holder::describe(wanted.port()) },
                _ => Error::Listen { address: wanted, source },
            })?;
            let address = socket.local_addr().map_err(|source| Error::Listen { address: wanted, source })?;
            bound.push(Bound { listener: socket, address, kind: listener.kind, tls });
        }
        let (metrics, assigned) = (Metrics::default(), AtomicU64::new(0));
        Ok(Self { shared: Arc::new(Shared { config, broker, access, clock, metrics, assigned }), bound })
    }

    /// Where it really listens, in the order of the configuration.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.bound.iter().map(|bound| bound.address).collect()
    }

    /// The counters.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Serves until `stop`, then tells every client and gives them `drain_ms` to go.
    pub async fn serve(self, stop: CancellationToken) {
        let Self { shared, bound } = self;
        let tasks = TaskTracker::new();
        let places = Arc::new(Semaphore::new(shared.config.connections));
        for bound in bound {
            tasks.spawn(accept_all(bound, shared.clone(), places.clone(), tasks.clone(), stop.clone()));
        }
        stop.cancelled().await;
        shared.broker.stop();
        tasks.close();
        let drain = Duration::from_millis(shared.config.drain_ms);
        let _ = tokio::time::timeout(drain, tasks.wait()).await;
    }
}

fn acceptor(listener: &Listener, clock: &Arc<dyn Clock>) -> Result<TlsAcceptor, Error> {
    let address = listener.address;
    let given = |setting, file: &Option<PathBuf>| file.clone().ok_or(Error::Missing { address, setting });
    let config = tls::Config {
        certificate: given("certificate", &listener.certificate)?,
        key: given("key", &listener.key)?,
        client_ca: listener.client_ca.clone(),
        require_client_certificate: listener.require_client_certificate,
    };
    tls::acceptor(&config, &[], clock).map_err(|source| Error::Tls { address, source })
}

async fn accept_all(
    bound: Bound,
    shared: Arc<Shared>,
    places: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let Bound { listener, address, kind, tls } = bound;
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, or a client that was gone already: others are served meanwhile.
                tracing::warn!(%address, error = &error as &dyn std::error::Error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        shared.metrics.accepted.inc();
        let Ok(place) = places.clone().try_acquire_owned() else {
            shared.metrics.over_limit.inc();
            continue;
        };
        let (shared, tls) = (shared.clone(), tls.clone());
        let stop = stop.clone();
        tasks.spawn(async move {
            let _place = place;
            let limit = Duration::from_millis(shared.config.connect_timeout_ms);
            // Boxed, so that a connected client does not keep room for the handshake's variables.
            let handshake = Box::pin(tokio::time::timeout(limit, welcome(socket, peer, kind, tls, &shared)));
            let connected = tokio::select! {
                () = stop.cancelled() => return,
                connected = handshake => connected,
            };
            match connected {
                Ok(Ok(connection)) => connection.serve().await,
                Ok(Err(failure)) => {
                    shared.metrics.refused.inc();
                    tracing::debug!(%peer, error = &failure as &dyn std::error::Error, "no connection");
                }
                Err(_) => {
                    shared.metrics.refused.inc();
                    tracing::debug!(%peer, "a client did not finish its CONNECT in time");
                }
            }
        });
    }
}

async fn welcome(
    socket: TcpStream,
    address: SocketAddr,
    kind: Kind,
    tls: Option<TlsAcceptor>,
    shared: &Arc<Shared>,
) -> Result<Box<super::connection::Connection>, Failure> {
    socket.set_nodelay(true)?;
    let frame_bytes = shared.config.packet_bytes + 16;
    let broken = |error: tokio_tungstenite::tungstenite::Error| Failure::Io(io::Error::other(error));
    let mut certificate = None;
    let stream: Stream = match tls {
        None if kind == Kind::Ws => Box::new(websocket::accept(socket, frame_bytes).await.map_err(broken)?),
        None => Box::new(socket),
        Some(acceptor) => {
            let stream = acceptor.accept(socket).await?;
            certificate = tls::client_certificate(&stream);
            if kind == Kind::Wss {
                Box::new(websocket::accept(stream, frame_bytes).await.map_err(broken)?)
            } else {
                Box::new(stream)
            }
        }
    };
    handshake::accept(stream, Peer { address, certificate }, shared).await.map(Box::new)
}
