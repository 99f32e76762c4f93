//! Connections: accepted up to a bound, drained at the end.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::{Connected, TcpConnectInfo};
use tonic_health::pb::health_server::HealthServer;

use super::config::Config;
use super::entrance::Entrance;
use super::health::Probe;
use super::service::{Oip, Parts};
use super::wire::grpc_inference_service_server::GrpcInferenceServiceServer;

/// Calls that one connection may have in progress.
const CONCURRENT_CALLS: u32 = 32;
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
}

/// Takes the port.
pub async fn bind(config: &Config) -> Result<TcpListener, Error> {
    let listen = config.address;
    TcpListener::bind(listen).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => Error::Taken { listen },
        _ => Error::Listen { listen, source },
    })
}

/// Serves until `stop`, then stops accepting and lets calls finish within `drain_timeout_ms`; what is left is cut.
pub async fn serve(listener: TcpListener, config: Config, parts: Parts, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(config.connections_max));
    let connections = stream::unfold((listener, places), async |(listener, places)| {
        let place = Arc::clone(&places).acquire_owned().await.ok()?;
        let accepted = match listener.accept().await {
            Ok((socket, _)) => {
                let _ = socket.set_nodelay(true);
                Ok(Connection { socket, _place: place })
            }
            Err(error) => {
                tracing::warn!(%error, "failed to accept a gRPC connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                Err(error)
            }
        };
        Some((accepted, (listener, places)))
    });
    let access = Arc::clone(&parts.access);
    let call_timeout = Duration::from_millis(config.call_timeout_ms);
    let places = Arc::new(Semaphore::new(config.calls_max));
    let probe = HealthServer::new(Probe::new(Arc::clone(&parts.query), stop.clone()));
    let probe = Entrance { inner: probe, access: Arc::clone(&access), places: Arc::clone(&places) };
    let service = GrpcInferenceServiceServer::new(Oip::new(config.server_name.clone(), call_timeout, parts))
        .max_decoding_message_size(config.message_max_bytes)
        .max_encoding_message_size(usize::MAX);
    let service = Entrance { inner: service, access, places };
    let keep_alive = Duration::from_millis(config.keep_alive_ms);
    let serving = Server::builder()
        .timeout(call_timeout)
        .max_concurrent_streams(CONCURRENT_CALLS)
        .http2_keepalive_interval(Some(keep_alive))
        .http2_keepalive_timeout(Some(keep_alive))
        .add_service(service)
        .add_service(probe)
        .serve_with_incoming_shutdown(connections, stop.cancelled());
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
}

/// A connection with its place among those that may be open.
struct Connection {
    socket: TcpStream,
    _place: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.socket.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_read(context, into)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write(context, from)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
