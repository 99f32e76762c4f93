//! A connection: name, TCP, TLS.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::sockopt;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::address::Origin;

/// No name is tried at more addresses than this.
const ADDRESSES_MAX: u32 = 8;

/// A cable that is pulled out says nothing. What nobody over there has acknowledged for so long is given up.
const UNHEARD: Duration = Duration::from_secs(10);
/// Silence after which the other side's kernel is asked whether it is there, and from one such question to the next; without
/// an answer [`UNHEARD`] holds.
const SILENT: Duration = Duration::from_secs(10);
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Bytes to and from a provider.
#[derive(Debug)]
pub(super) enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Opens a connection. The error says what went wrong, for people. The caller bounds the time; `limit` is what it gives,
/// and no address of a name with several takes all of it.
pub(super) async fn connect(origin: &Origin, tls: Option<&Arc<ClientConfig>>, limit: Duration) -> Result<Io, String> {
    let tcp = tcp(origin, limit).await?;
    // One write is one message here; waiting for more costs a round trip.
    let closed = |error| format!("{} closed at once: {error}", origin.far_side());
    tcp.set_nodelay(true).map_err(closed)?;
    notice_when_gone(&tcp).map_err(closed)?;
    let Some(tls) = tls else { return Ok(Io::Plain(tcp)) };
    let host = origin.host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(host).map_err(|_| format!("{:?} is no name for a certificate", origin.host))?;
    let stream = TlsConnector::from(tls.clone())
        .connect(name, tcp)
        .await
        .map_err(|error| format!("{} and we found no secure connection: {error}", origin.far_side()))?;
    Ok(Io::Tls(Box::new(stream)))
}

async fn tcp(origin: &Origin, limit: Duration) -> Result<TcpStream, String> {
    let far_side = origin.far_side();
    let found =
        lookup_host(&far_side).await.map_err(|error| format!("the name {} was not found: {error}", origin.host))?;
    let addresses: Vec<_> = found.take(ADDRESSES_MAX as usize).collect();
    let mut left = u32::try_from(addresses.len()).unwrap_or(1);
    let mut reason = format!("the name {} has no address", origin.host);
    for address in addresses {
        // The last one may take what the caller's own limit leaves.
        match tokio::time::timeout(limit / left.max(1), TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => reason = format!("{address} does not take a connection: {error}"),
            Err(_) => reason = format!("{address} does not answer"),
        }
        left = left.saturating_sub(1);
    }
    Err(reason)
}

fn notice_when_gone(tcp: &TcpStream) -> io::Result<()> {
    sockopt::set_tcp_user_timeout(tcp, u32::try_from(UNHEARD.as_millis()).unwrap_or(u32::MAX))?;
    sockopt::set_tcp_keepidle(tcp, SILENT)?;
    sockopt::set_tcp_keepintvl(tcp, ASK_AGAIN)?;
    Ok(sockopt::set_socket_keepalive(tcp, true)?)
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_is_told_to_notice_a_far_side_that_is_gone() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = Origin::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let Io::Plain(tcp) = connect(&origin, None, Duration::from_secs(5)).await.unwrap() else { panic!("no TLS") };
        assert!(sockopt::socket_keepalive(&tcp).unwrap() && tcp.nodelay().unwrap());
        assert_eq!(sockopt::tcp_user_timeout(&tcp).unwrap(), 10_000);
        assert_eq!((sockopt::tcp_keepidle(&tcp).unwrap(), sockopt::tcp_keepintvl(&tcp).unwrap()), (SILENT, ASK_AGAIN));
    }
}
