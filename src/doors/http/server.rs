//! Connections: accepted up to a bound, served with time-outs, drained at the end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::again::Again;
use super::config::Config;
use super::door::Door;
use super::pulse;
use super::stall::StallGuard;
use super::{
    aliases, caller, events, guard, health, ingest, llm, oip, openapi, page, predict, send, streams, traces, traffic,
};
use crate::base::Clock;
use crate::doors::{accept, tls};

/// Head of a request in bytes, and the buffer that hyper reads into. Far over any honest client's.
const HEAD_MAX_BYTES: usize = 32 * 1024;
/// Why the door did not open.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another program listens there.
    #[error(
        "failed to listen on http://{listen}: another program has that port; stop it (`ss -ltnp` names it) or set another `address` in [http]"
    )]
    Taken {
        /// The address as configured.
        listen: SocketAddr,
    },
    /// The address is not ours, the port is privileged, or the system refused.
    #[error("failed to listen on http://{listen}, set by `address` in [http]")]
    Listen {
        /// The address as configured.
        listen: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// What `[http.tls]` names cannot be used.
    #[error("failed to use [http.tls]")]
    Tls(#[from] tls::Error),
}

/// Reads the files of `[http.tls]`, if there is such a section.
pub fn acceptor(config: &Config, clock: &Arc<dyn Clock>) -> Result<Option<TlsAcceptor>, Error> {
    let acceptor = |config| tls::acceptor(config, &[b"http/1.1"], clock);
    Ok(config.tls.as_ref().map(acceptor).transpose()?)
}

/// Takes the port.
pub async fn bind(config: &Config) -> Result<TcpListener, Error> {
    let listen = config.address;
    TcpListener::bind(listen).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => Error::Taken { listen },
        _ => Error::Listen { listen, source },
    })
}

/// Both ends of a connection, kept with each request.
#[derive(Debug, Clone)]
pub(super) struct Ends {
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
    /// What the client has shown, verified.
    pub(super) certificate: Option<Arc<[u8]>>,
}

/// Serves until `stop`, then stops accepting, ends event streams, lets requests finish within
/// `drain_timeout_ms` and cuts the rest. Returns how many connections it had to cut.
pub async fn serve(listener: TcpListener, door: Arc<Door>, stop: CancellationToken) -> usize {
    let tasks = TaskTracker::new();
    let cut = CancellationToken::new();
    tasks.spawn(pulse::run(Arc::clone(&door), stop.clone()));
    let routes = routes(&door, &stop);
    let take = |socket, peer, place| {
        let (routes, door) = (routes.clone(), Arc::clone(&door));
        tasks.spawn(connection(socket, peer, routes, door, place, stop.clone(), cut.clone()));
    };
    accept::each(&listener, door.config.connections_max, "http", &stop, take).await;
    drop(listener);
    tasks.close();
    let patience = Duration::from_millis(door.config.drain_timeout_ms);
    if tokio::time::timeout(patience, tasks.wait()).await.is_ok() {
        return 0;
    }
    let left = tasks.len();
    cut.cancel();
    tasks.wait().await;
    left
}

async fn connection(
    socket: TcpStream,
    peer: SocketAddr,
    routes: Router,
    door: Arc<Door>,
    _place: OwnedSemaphorePermit,
    stop: CancellationToken,
    cut: CancellationToken,
) {
    let _ = socket.set_nodelay(true);
    let Ok(local) = socket.local_addr() else { return };
    let mut ends = Ends { peer, local, certificate: None };
    let socket = StallGuard::new(socket, Duration::from_millis(door.config.write_timeout_ms));
    let Some(acceptor) = &door.parts.tls else {
        return Again::new(Box::pin(converse(socket, ends, routes, &door, stop, cut))).await;
    };
    let patience = Duration::from_millis(door.config.header_timeout_ms);
    let shaken = tokio::select! {
        () = stop.cancelled() => return,
        shaken = tokio::time::timeout(patience, acceptor.accept(socket)) => shaken,
    };
    // A client that talks nonsense, or too slowly, ends its own connection, which is no news.
    let Ok(Ok(stream)) = shaken else { return };
    ends.certificate = tls::client_certificate(&stream);
    Again::new(Box::pin(converse(stream, ends, routes, &door, stop, cut))).await;
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    ends: Ends,
    routes: Router,
    door: &Door,
    stop: CancellationToken,
    cut: CancellationToken,
) {
    let routes = TowerToHyperService::new(routes);
    let asks_models = door.parts.llm.is_some();
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ends.clone());
        if asks_models {
            llm::readdress(&mut request);
        }
        routes.call(request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(door.config.header_timeout_ms))
        .max_buf_size(HEAD_MAX_BYTES);
    let serving = http.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let mut draining = false;
    loop {
        tokio::select! {
            // A client that breaks off or talks nonsense ends its own connection, which is no news.
            _ = serving.as_mut() => return,
            () = cut.cancelled() => return,
            () = stop.cancelled(), if !draining => {
                draining = true;
                serving.as_mut().graceful_shutdown();
            }
        }
    }
}

fn routes(door: &Arc<Door>, stop: &CancellationToken) -> Router {
    let known = axum::middleware::from_fn_with_state(Arc::clone(door), caller::identify);
    let private = Router::new()
        .merge(page::routes())
        .merge(streams::routes())
        .merge(ingest::routes())
        .merge(send::routes())
        .merge(events::routes(stop.clone()))
        .merge(oip::private_routes())
        .merge(predict::routes())
        .merge(aliases::routes())
        .merge(traffic::routes())
        .merge(traces::routes())
        .merge(health::private_routes())
        .route_layer(known);
    let guarded = Router::new()
        .merge(private)
        .merge(health::open_routes())
        .merge(openapi::open_routes())
        .merge(oip::open_routes())
        .fallback(guard::no_such_path)
        .method_not_allowed_fallback(guard::wrong_method)
        .layer(axum::middleware::from_fn_with_state(Arc::clone(door), guard::pass))
        .with_state(Arc::clone(door));
    // An answer of a language model may take minutes, and its errors have another shape: these paths guard themselves.
    match &door.parts.llm {
        Some(llm) => guarded.merge(llm::routes(Arc::clone(llm))),
        None => guarded,
    }
}
