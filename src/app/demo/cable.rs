//! The cable to the cloud: a TCP forwarder that can be cut.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Connections through the cable at one time.
const MAX_CONNECTIONS: usize = 64;

/// A cable between a local port and `to`. Dropping it cuts it for good.
#[derive(Debug)]
pub(crate) struct Cable {
    address: SocketAddr,
    plugged: watch::Sender<bool>,
    sent_bytes: Arc<AtomicU64>,
    _forwarding: JoinSet<()>,
}

impl Cable {
    /// Listens on a free loopback port and forwards to `to`.
    pub(crate) async fn plug(to: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (plugged, state) = watch::channel(true);
        let mut forwarding = JoinSet::new();
        let sent_bytes = Arc::new(AtomicU64::new(0));
        forwarding.spawn(forward(listener, to, state, Arc::clone(&sent_bytes)));
        Ok(Self { address, plugged, sent_bytes, _forwarding: forwarding })
    }

    /// Where the gateway finds its end.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes that went towards the cloud: every message with all that is around it, repeats and handshakes included.
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }

    /// Breaks every connection; new ones are closed at once.
    pub(crate) fn cut(&self) {
        self.plugged.send_replace(false);
    }

    /// New connections pass again.
    pub(crate) fn restore(&self) {
        self.plugged.send_replace(true);
    }
}

async fn forward(listener: TcpListener, to: SocketAddr, plugged: watch::Receiver<bool>, sent: Arc<AtomicU64>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((near, _)) = listener.accept().await else { return };
        while connections.try_join_next().is_some() {}
        if *plugged.borrow() && connections.len() < MAX_CONNECTIONS {
            connections.spawn(carry(near, to, plugged.clone(), Arc::clone(&sent)));
        }
    }
}

async fn carry(mut near: TcpStream, to: SocketAddr, mut plugged: watch::Receiver<bool>, sent: Arc<AtomicU64>) {
    let Ok(mut far) = TcpStream::connect(to).await else { return };
    let ((near_read, mut near_write), (mut far_read, far_write)) = (near.split(), far.split());
    tokio::select! {
        _ = pass_on(near_read, far_write, &sent) => {}
        _ = tokio::io::copy(&mut far_read, &mut near_write) => {}
        _ = plugged.wait_for(|plugged| !plugged) => {}
    }
}

async fn pass_on(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, sent: &AtomicU64) -> io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..read]).await?;
        sent.fetch_add(read as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cut_cable_breaks_connections_and_a_restored_one_carries_again() {
        let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = echo.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            loop {
                let (mut stream, _) = echo.accept().await.unwrap();
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            }
        });
        let cable = Cable::plug(to).await.unwrap();
        let mut stream = TcpStream::connect(cable.address()).await.unwrap();
        stream.write_all(b"ping").await.unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(cable.sent_bytes(), 4, "what goes to the cloud is counted, not what comes back");
        cable.cut();
        assert_eq!(stream.read(&mut answer).await.unwrap_or(0), 0);
        let mut refused = TcpStream::connect(cable.address()).await.unwrap();
        assert_eq!(refused.read(&mut answer).await.unwrap_or(0), 0);
        cable.restore();
        let mut again = TcpStream::connect(cable.address()).await.unwrap();
        again.write_all(b"pong").await.unwrap();
        again.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"pong");
    }
}
