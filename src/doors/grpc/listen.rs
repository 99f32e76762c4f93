//! Connections: accepted up to a bound, drained at the end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::codec::CompressionEncoding;
use tonic::transport::Server;
use tonic_health::pb::health_server::HealthServer;

use super::config::Config;
use super::connection::{Connection, Duplex, Patience, Peer};
use super::entrance::Entrance;
use super::health::Probe;
use super::service::{Oip, Parts};
use super::wire::grpc_inference_service_server::GrpcInferenceServiceServer;
use crate::base::Clock;
use crate::doors::tls;

/// After a failed `accept` (no file descriptors left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the door did not open.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another program listens there.
    #[error(
        "failed to listen on {listen} for gRPC: another program has that port; stop it (`ss -ltnp` names it) or set another `address` in [grpc]"
    )]
    Taken {
        /// The address as configured.
        listen: SocketAddr,
    },
    /// The address is not ours, the port is privileged, or the system refused.
    #[error("failed to listen on {listen} for gRPC, set by `address` in [grpc]")]
    Listen {
        /// The address as configured.
        listen: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// What `[grpc.tls]` names cannot be used.
    #[error("failed to use [grpc.tls]")]
    Tls(#[from] tls::Error),
}

/// Takes the port.
pub async fn bind(config: &Config) -> Result<TcpListener, Error> {
    let listen = config.address;
    TcpListener::bind(listen).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => Error::Taken { listen },
        _ => Error::Listen { listen, source },
    })
}

/// Reads the files of `[grpc.tls]`, if there is such a section.
pub fn acceptor(config: &Config, clock: &Arc<dyn Clock>) -> Result<Option<TlsAcceptor>, Error> {
    let acceptor = |config| tls::acceptor(config, &[b"h2"], clock);
    Ok(config.tls.as_ref().map(acceptor).transpose()?)
}

/// Takes connections in; each that has a place and has shaken hands goes to `ready`.
async fn accept(
    listener: TcpListener,
    config: Config,
    tls: Option<TlsAcceptor>,
    ready: mpsc::Sender<io::Result<Connection>>,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(config.connections_max));
    let greeting = Duration::from_millis(config.handshake_timeout_ms);
    let idle = Some(Duration::from_millis(config.idle_timeout_ms)).filter(|idle| !idle.is_zero());
    let patience = Patience { greeting, idle };
    let handshakes = TaskTracker::new();
    loop {
        let place = tokio::select! {
            () = stop.cancelled() => break,
            place = Arc::clone(&places).acquire_owned() => place.expect("this semaphore is never closed"),
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, address)) => {
                let (tls, ready, stop) = (tls.clone(), ready.clone(), stop.clone());
                handshakes.spawn(async move {
                    let shaken = tokio::time::timeout(greeting, shake_hands(socket, address, tls));
                    let shaken = tokio::select! {
                        () = stop.cancelled() => return,
                        shaken = shaken => shaken,
                    };
                    // A client that talks nonsense, or too slowly, ends its own connection, which is no news.
                    if let Ok(Ok((stream, peer))) = shaken {
                        let _ = ready.send(Ok(Connection::new(stream, peer, patience, place))).await;
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "failed to accept a gRPC connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    handshakes.close();
    handshakes.wait().await;
}

async fn shake_hands(
    socket: TcpStream,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
) -> io::Result<(Box<dyn Duplex>, Peer)> {
    let _ = socket.set_nodelay(true);
    match tls {
        None => Ok((Box::new(socket), Peer::new(address, None))),
        Some(acceptor) => {
            let stream = acceptor.accept(socket).await?;
            let peer = Peer::new(address, tls::client_certificate(&stream));
            Ok((Box::new(stream), peer))
        }
    }
}

/// Serves until `stop`, then stops accepting and lets calls finish within `drain_timeout_ms`; what is left is cut.
pub async fn serve(listener: TcpListener, config: Config, parts: Parts, stop: CancellationToken) {
    let (ready, connections) = mpsc::channel(1);
    let (accepting, enough) = (TaskTracker::new(), stop.child_token());
    accepting.spawn(accept(listener, config.clone(), parts.tls.clone(), ready, enough.clone()));
    accepting.close();
    let access = Arc::clone(&parts.access);
    let call_timeout = Duration::from_millis(config.call_timeout_ms);
    let places = Arc::new(Semaphore::new(config.calls_max));
    let probe = HealthServer::new(Probe::new(Arc::clone(&parts.query), stop.clone()));
    let probe = Entrance { inner: probe, access: Arc::clone(&access), places: Arc::clone(&places) };
    let service = GrpcInferenceServiceServer::new(Oip::new(config.server_name.clone(), call_timeout, parts))
        .max_decoding_message_size(config.message_max_bytes)
        .max_encoding_message_size(usize::MAX)
        // What comes out of a message is bounded like one that is not compressed.
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Deflate)
        .send_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Deflate);
    let service = Entrance { inner: service, access, places };
    let keep_alive = Duration::from_millis(config.keep_alive_ms);
    let serving = Server::builder()
        .timeout(call_timeout)
        .max_concurrent_streams(config.connection_calls_max)
        .http2_keepalive_interval(Some(keep_alive))
        .http2_keepalive_timeout(Some(keep_alive))
        .add_service(service)
        .add_service(probe)
        .serve_with_incoming_shutdown(ReceiverStream::new(connections), stop.cancelled());
    let patience = Duration::from_millis(config.drain_timeout_ms);
    let cut = async {
        stop.cancelled().await;
        tokio::time::sleep(patience).await;
    };
    tokio::select! {
        ended = serving => if let Err(error) = ended {
            tracing::error!(%error, "the gRPC door ended");
        },
        () = cut => tracing::warn!(limit_ms = config.drain_timeout_ms, "gRPC calls were cut at the end"),
    }
    enough.cancel();
    accepting.wait().await;
}
