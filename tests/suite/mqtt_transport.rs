//! TLS, client certificates and WebSocket.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Buf as _;
use forebay::access::Access;
use forebay::doors::mqtt::codec::{Connect, QoS, ReasonCode};
use forebay::doors::mqtt::{Config, Kind, Listener};
use futures_util::{Sink as _, Stream as _};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::mqtt_fixture::{Client, Gateway, V5, V311, open_access, qos1};

/// An authority with a server's and clients' certificates, as files.
pub(crate) struct Authority {
    folder: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        let authority = Self { folder, issuer: Issuer::new(params, key) };
        authority.issue("server", "localhost");
        authority
    }

    /// Files `<name>.pem` and `<name>.key`.
    pub(crate) fn issue(&self, name: &str, common_name: &str) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path(&format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn listener(&self, kind: Kind) -> Listener {
        Listener {
            kind,
            certificate: Some(self.path("server.pem")),
            key: Some(self.path("server.key")),
            ..Listener::default()
        }
    }

    fn connector(&self, client: Option<&str>) -> TlsConnector {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate(&self.path("ca.pem"))).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match client {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let chain = vec![certificate(&self.path(&format!("{name}.pem")))];
                let key = PrivateKeyDer::from_pem_file(self.path(&format!("{name}.key"))).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        TlsConnector::from(Arc::new(config))
    }
}

fn certificate(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap()
}

async fn tls(
    gateway: &Gateway,
    connector: &TlsConnector,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let socket = TcpStream::connect(gateway.address()).await.unwrap();
    connector.connect(ServerName::try_from("localhost").unwrap(), socket).await
}

fn with_listener(listener: Listener) -> Config {
    Config { listener: vec![listener], ..Config::default() }
}

async fn round_trip(client: &mut Client) {
    assert_eq!(client.subscribe("plant/press-7/#", QoS::AtLeastOnce).await, ReasonCode::GrantedQos1);
    client.publish(qos1("plant/press-7/a", 1, "x")).await;
    let mut seen = [false; 2];
    for _ in 0..2 {
        match client.next().await.unwrap() {
            forebay::doors::mqtt::codec::Packet::PubAck(_) => seen[0] = true,
            forebay::doors::mqtt::codec::Packet::Publish(publish) => seen[1] = publish.payload == "x",
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, [true; 2]);
}

#[tokio::test]
async fn messages_pass_over_tls() {
    let authority = Authority::new();
    let gateway = Gateway::with(with_listener(authority.listener(Kind::Tls)), open_access()).await;
    let stream = tls(&gateway, &authority.connector(None)).await.unwrap();
    let mut client = Client::over(stream, V5);
    assert_eq!(client.connect(Connect::new(V5, "a")).await.reason, ReasonCode::Success);
    round_trip(&mut client).await;
}

fn certificate_access() -> Access {
    let text = "[[identity]]\nname = \"press-7\"\ncertificate_cn = \"press-7.plant\"\n\
                publish = [\"plant/%u/+\"]\nsubscribe = [\"plant/%u/#\"]\n";
    Access::new(&toml::from_str(text).unwrap()).unwrap()
}

#[tokio::test]
async fn a_client_certificate_is_an_identity_with_its_rules() {
    let authority = Authority::new();
    authority.issue("press", "press-7.plant");
    authority.issue("stranger", "somebody else");
    let listener = Listener { client_ca: Some(authority.path("ca.pem")), ..authority.listener(Kind::Tls) };
    let gateway = Gateway::with(with_listener(listener), certificate_access()).await;

    let stream = tls(&gateway, &authority.connector(Some("press"))).await.unwrap();
    let mut press = Client::over(stream, V5);
    assert_eq!(press.connect(Connect::new(V5, "a")).await.reason, ReasonCode::Success);
    round_trip(&mut press).await;
    press.publish(qos1("plant/press-8/a", 2, "x")).await;
    assert_eq!(press.acked().await, (2, ReasonCode::NotAuthorized));

    let stream = tls(&gateway, &authority.connector(Some("stranger"))).await.unwrap();
    let mut stranger = Client::over(stream, V5);
    assert_eq!(stranger.connect(Connect::new(V5, "b")).await.reason, ReasonCode::NotAuthorized);

    // Without a certificate the handshake fails, at the latest when the client reads.
    if let Ok(stream) = tls(&gateway, &authority.connector(None)).await {
        let mut nobody = Client::over(stream, V5);
        nobody.send_bytes(&[0x10, 0x00]).await;
        assert_eq!(nobody.next().await, None);
    }
    // So does one that another authority has signed.
    let other = Authority::new();
    other.issue("press", "press-7.plant");
    let chain = vec![certificate(&other.path("press.pem"))];
    let key = PrivateKeyDer::from_pem_file(other.path("press.key")).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate(&authority.path("ca.pem"))).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    if let Ok(stream) = tls(&gateway, &TlsConnector::from(Arc::new(config))).await {
        let mut forged = Client::over(stream, V5);
        forged.send_bytes(&[0x10, 0x00]).await;
        assert_eq!(forged.next().await, None);
    }
}

#[tokio::test]
async fn an_optional_certificate_leaves_room_for_a_key() {
    let authority = Authority::new();
    let listener = Listener {
        client_ca: Some(authority.path("ca.pem")),
        require_client_certificate: false,
        ..authority.listener(Kind::Tls)
    };
    let gateway = Gateway::with(with_listener(listener), open_access()).await;
    let stream = tls(&gateway, &authority.connector(None)).await.unwrap();
    let mut client = Client::over(stream, V311);
    assert_eq!(client.connect(Connect::new(V311, "a")).await.reason, ReasonCode::Success);
    round_trip(&mut client).await;
}

#[tokio::test]
async fn a_missing_certificate_names_the_setting() {
    let config = with_listener(Listener { kind: Kind::Tls, ..Listener::default() });
    let gateway = Gateway::start().await;
    let clock = Arc::new(forebay::base::SystemClock::new());
    let door = forebay::doors::mqtt::Door::bind(config, gateway.broker.clone(), Arc::new(open_access()), clock);
    let error = door.await.unwrap_err().to_string();
    assert!(error.contains("`certificate` is missing"), "{error}");
}

/// The client's side of MQTT over WebSocket, one byte a frame when told so.
struct Frames<S> {
    inner: WebSocketStream<S>,
    rest: bytes::Bytes,
    frame_bytes: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Frames<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.rest = bytes,
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Poll::Ready(Ok(())),
                Some(Ok(_)) => {}
            }
        }
        let take = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest[..take]);
        self.rest.advance(take);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Frames<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        ready!(Pin::new(&mut self.inner).poll_ready(cx)).map_err(std::io::Error::other)?;
        let count = buf.len().min(self.frame_bytes);
        let frame = Message::Binary(bytes::Bytes::copy_from_slice(&buf[..count]));
        Pin::new(&mut self.inner).start_send(frame).map_err(std::io::Error::other)?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx).map_err(std::io::Error::other)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx).map_err(std::io::Error::other)
    }
}

async fn websocket<S>(stream: S, protocol: &'static str) -> Result<WebSocketStream<S>, tungstenite::Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut request = "ws://localhost/mqtt".into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
    let (socket, response) = tokio_tungstenite::client_async(request, stream).await?;
    assert_eq!(response.headers()["sec-websocket-protocol"], protocol);
    Ok(socket)
}

#[tokio::test]
async fn messages_pass_over_websocket_whatever_the_frames_borders() {
    let listener = Listener { kind: Kind::Ws, ..Listener::default() };
    let gateway = Gateway::with(with_listener(listener), open_access()).await;
    for frame_bytes in [1, 7, 100_000] {
        let socket = TcpStream::connect(gateway.address()).await.unwrap();
        let inner = websocket(socket, "mqtt").await.unwrap();
        let mut client = Client::over(Frames { inner, rest: bytes::Bytes::new(), frame_bytes }, V5);
        assert_eq!(client.connect(Connect::new(V5, "a")).await.reason, ReasonCode::Success);
        round_trip(&mut client).await;
    }
}

#[tokio::test]
async fn a_websocket_without_the_subprotocol_is_refused() {
    let listener = Listener { kind: Kind::Ws, ..Listener::default() };
    let gateway = Gateway::with(with_listener(listener), open_access()).await;
    let socket = TcpStream::connect(gateway.address()).await.unwrap();
    let refused = websocket(socket, "chat").await;
    assert!(matches!(refused, Err(tungstenite::Error::Http(response)) if response.status() == 400));
}

#[tokio::test]
async fn a_text_frame_ends_the_connection() {
    let listener = Listener { kind: Kind::Ws, ..Listener::default() };
    let gateway = Gateway::with(with_listener(listener), open_access()).await;
    let socket = TcpStream::connect(gateway.address()).await.unwrap();
    let mut socket = websocket(socket, "mqtt").await.unwrap();
    futures_util::SinkExt::send(&mut socket, Message::text("hello")).await.unwrap();
    let answer = futures_util::StreamExt::next(&mut socket).await;
    assert!(!matches!(answer, Some(Ok(Message::Binary(_)))));
}

#[tokio::test]
async fn messages_pass_over_websocket_inside_tls() {
    let authority = Authority::new();
    let gateway = Gateway::with(with_listener(authority.listener(Kind::Wss)), open_access()).await;
    let stream = tls(&gateway, &authority.connector(None)).await.unwrap();
    let inner = websocket(stream, "mqtt").await.unwrap();
    let mut client = Client::over(Frames { inner, rest: bytes::Bytes::new(), frame_bytes: 100_000 }, V311);
    assert_eq!(client.connect(Connect::new(V311, "a")).await.reason, ReasonCode::Success);
    round_trip(&mut client).await;
}
