//! Inference over TLS, with clients' certificates, by NVIDIA's client; and connections that only hold a place.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use forebay::access;
use forebay::doors::{http, tls};
use forebay::engine;

use crate::gateway::{Gateway, free_port, loopback, said};
use crate::http_fixture;
use crate::mqtt_transport::Authority;

const KEY: &str = "correct horse battery staple";

fn authority() -> Authority {
    let authority = Authority::new();
    authority.issue("app", "app.plant");
    authority
}

fn access() -> String {
    let digest = forebay::base::Digest::of(KEY.as_bytes());
    format!(
        "[[access.identity]]\nname = \"app\"\ncertificate_cn = \"app.plant\"\nmanage_models = true\n\
         [[access.identity]]\nname = \"other\"\nkey_sha256 = \"{digest}\"\n"
    )
}

fn config(authority: &Authority) -> tls::Config {
    tls::Config {
        certificate: authority.path("server.pem"),
        key: authority.path("server.key"),
        client_ca: Some(authority.path("ca.pem")),
        require_client_certificate: false,
    }
}

fn passes(kind: &str, port: u16, folder: &Path) {
    let interpreter = std::env::var("FOREBAY_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/oip_tls.py");
    let mut python = Command::new(&interpreter);
    python.arg(script).args([kind, &port.to_string()]).arg(folder).arg(KEY);
    let output =
        python.output().unwrap_or_else(|error| panic!("{interpreter}: {error}; name a Python 3 in FOREBAY_PYTHON"));
    let (code, stdout, stderr) = said(output);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tritons_http_client_speaks_tls_and_its_certificate_is_an_identity() {
    let authority = authority();
    #[derive(serde::Deserialize)]
    struct Section {
        access: access::Config,
    }
    let setup = http_fixture::Setup {
        http: http::Config { address: loopback(0), tls: Some(config(&authority)), ..http::Config::default() },
        access: toml::from_str::<Section>(&access()).unwrap().access,
        streams: &[],
        engines: engine::built_in(),
        models: Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models")),
        ..http_fixture::Setup::default()
    };
    let gateway = setup.start().await;
    let (port, folder) = (gateway.address.port(), authority.path(""));
    tokio::task::spawn_blocking(move || passes("http", port, &folder)).await.unwrap();
    // One that speaks plainly, and one that says nothing it can read, are let go without an answer.
    for nonsense in [&b"GET /v2 HTTP/1.1\r\nhost: localhost\r\n\r\n"[..], &[0; 64]] {
        let answer = tokio::task::spawn_blocking(move || until_closed(port, nonsense)).await.unwrap();
        assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    }
}

#[test]
fn tritons_grpc_client_speaks_tls_and_its_certificate_is_an_identity() {
    let authority = authority();
    let port = free_port();
    let tls::Config { certificate, key, client_ca, .. } = config(&authority);
    let gateway = Gateway::with(&crate::gateway::Setup {
        access: &format!("allow_anonymous_loopback = false\n{}", access()),
        models: Some(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models")),
        more: &format!(
            "[grpc]\naddress = \"{}\"\nhandshake_timeout_ms = 300\n[grpc.tls]\ncertificate = {certificate:?}\nkey = {key:?}\n\
             client_ca = {:?}\nrequire_client_certificate = false\n",
            loopback(port),
            client_ca.unwrap()
        ),
        ..crate::gateway::Setup::default()
    });
    passes("grpc", port, &authority.path(""));
    // What is no handshake, and what never becomes one, is closed.
    for nonsense in [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], b"", b"\x16\x03"] {
        until_closed(port, nonsense);
    }
    drop(gateway);
}

#[test]
fn connections_that_never_begin_and_those_without_a_call_give_their_place_back() {
    let port = free_port();
    let _gateway = Gateway::with(&crate::gateway::Setup {
        models: Some(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models")),
        more: &format!(
            "[grpc]\naddress = \"{}\"\nconnections_max = 1\nhandshake_timeout_ms = 100\nidle_timeout_ms = 100\n",
            loopback(port)
        ),
        ..crate::gateway::Setup::default()
    });
    // Each takes the one place there is, so the next is served only when it was given back.
    let preface_and_settings = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
    for said in [&b""[..], b"PRI", &preface_and_settings, b"GET / HTTP/1.1\r\n\r\n"] {
        until_closed(port, said);
    }
}

/// Says something and returns what comes back until the other end closes.
fn until_closed(port: u16, said: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(loopback(port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    socket.write_all(said).unwrap();
    let mut answer = Vec::new();
    match socket.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
    }
    answer
}
