//! Does the broker refuse MQTT 5? A 3.1.1 broker answers a 5.0 CONNECT with a CONNACK that has no property length;
//! the 5.0 parser drops it, and a refusal then looks like any cut line. So it is asked once more, byte by byte.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::config::Config;

/// CONNECT, MQTT level 5, clean start, keep-alive 5 s, no properties, empty client id.
const CONNECT_V5: [u8; 15] = [0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 5, 0, 0, 0];
/// CONNACK of 3.1.1: unacceptable protocol version.
const REFUSED: [u8; 4] = [0x20, 2, 0, 1];

/// True only if the broker says so; every failure is a no.
pub(super) async fn refuses_v5(config: &Config, tls: Option<Arc<rustls::ClientConfig>>) -> bool {
    let limit = Duration::from_millis(config.connect_timeout_ms);
    matches!(tokio::time::timeout(limit, ask(config, tls)).await, Ok(Ok(REFUSED)))
}

async fn ask(config: &Config, tls: Option<Arc<rustls::ClientConfig>>) -> io::Result<[u8; 4]> {
    let tcp = TcpStream::connect((config.host.as_str(), config.port)).await?;
    let Some(tls) = tls else { return exchange(tcp).await };
    let name = ServerName::try_from(config.host.clone()).map_err(io::Error::other)?;
    exchange(TlsConnector::from(tls).connect(name, tcp).await?).await
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<[u8; 4]> {
    stream.write_all(&CONNECT_V5).await?;
    stream.flush().await?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}
