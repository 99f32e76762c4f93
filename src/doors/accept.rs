//! Connections are accepted up to a bound, the same for every door.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// After a failed `accept` (no file descriptors left), so that the loop does not spin.
const PAUSE: Duration = Duration::from_millis(100);

/// Gives each connection to `take` until `stop`, with the place that it has as long as it keeps it; with all places taken the
/// others wait in the system's backlog. `door` is its name in the log.
pub(super) async fn each(
    listener: &TcpListener,
    connections_max: usize,
    door: &str,
    stop: &CancellationToken,
    mut take: impl FnMut(TcpStream, SocketAddr, OwnedSemaphorePermit),
) {
    let places = Arc::new(Semaphore::new(connections_max));
    let next = async || {
        let place = Arc::clone(&places).acquire_owned().await.expect("this semaphore is never closed");
        (listener.accept().await, place)
    };
    loop {
        let (accepted, place) = tokio::select! {
            () = stop.cancelled() => return,
            next = next() => next,
        };
        match accepted {
            Ok((socket, address)) => take(socket, address, place),
            Err(error) => {
                tracing::warn!(%error, door, "failed to accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
