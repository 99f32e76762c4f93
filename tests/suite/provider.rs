//! Providers of every kind against the mock: addresses, keys, connections, streams, cancellation.

use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use forebay::base::{Clock, ManualClock, SystemClock};
use forebay::provider::{Class, Config, Kind, Metrics, Operation, Providers, Wire};
use prometheus_client::registry::Registry;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::task::JoinSet;

use crate::mock_provider::{Behaviour, Fault, Mock, read_events};
use crate::provider_fixture::{Fixture, chat, chat_in, open, pieces};

fn manual() -> (Arc<ManualClock>, Arc<dyn Clock>) {
    let clock = Arc::new(ManualClock::at(1_790_000_000_000));
    (clock.clone(), clock)
}

#[tokio::test]
async fn every_kind_is_asked_at_its_address_with_its_proof_and_answers_whole_and_in_pieces() {
    let mock = Mock::start(Behaviour::default()).await;
    for kind in Kind::ALL {
        let there = Fixture::of(kind, &mock, "");
        for wire in kind.wires() {
            for stream in [false, true] {
                let operation = if *wire == Wire::Oip { Operation::Infer } else { Operation::Chat };
                let reply = there.provider.send(chat_in(*wire, operation, "m1", stream)).await.unwrap();
                assert_eq!(reply.request_id(), Some("req_mock"));
                let whole = reply.body.collect().await.unwrap();
                let seen = mock.last();
                let proof = match (kind, wire) {
                    (Kind::Anthropic, _) => seen.header("x-api-key"),
                    (Kind::AzureOpenai, _) => seen.header("api-key"),
                    (Kind::Gemini, Wire::Gemini) => seen.header("x-goog-api-key"),
                    (Kind::Vertex, _) => seen.header("authorization").strip_prefix("Bearer ya29.").unwrap(),
                    (Kind::Bedrock | Kind::Sagemaker, _) => {
                        seen.header("authorization").strip_prefix("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/").unwrap()
                    }
                    _ => seen.header("authorization").strip_prefix("Bearer ").unwrap(),
                };
                assert!(!proof.is_empty(), "{kind} {wire:?}: {seen:?}");
                assert_eq!(seen.header("host"), mock.address().to_string());
                if *wire == Wire::Anthropic && kind != Kind::Vertex {
                    assert_eq!(seen.header("anthropic-version"), "2023-06-01");
                }
                let said = match wire {
                    Wire::Converse if stream => {
                        read_events(&whole).iter().filter(|(kind, _)| kind == "contentBlockDelta").count() == 5
                    }
                    Wire::Oip => whole.starts_with(b"{\"model_name\""),
                    _ => String::from_utf8_lossy(&whole).contains("press"),
                };
                assert!(said, "{kind} {wire:?} {stream}: {}", String::from_utf8_lossy(&whole));
            }
        }
        there.provider.probe().await.unwrap();
    }
}

#[tokio::test]
async fn claude_on_vertex_has_its_model_in_the_address_and_its_version_in_the_body() {
    let mock = Mock::start(Behaviour::default()).await;
    let there = Fixture::of(Kind::Vertex, &mock, "location = \"europe-west1\"");
    there.provider.send(chat_in(Wire::Anthropic, Operation::Chat, "claude-sonnet-4@20250514", true)).await.unwrap();
    let seen = mock.last();
    assert!(
        seen.path
            .ends_with("/locations/europe-west1/publishers/anthropic/models/claude-sonnet-4@20250514:streamRawPredict")
    );
    assert_eq!(seen.json()["anthropic_version"], "vertex-2023-10-16");
    assert!(seen.json().get("model").is_none() && seen.json()["max_tokens"] == 9);
}

#[tokio::test]
async fn requests_in_turn_share_one_connection_and_a_stream_gives_it_back_at_its_end() {
    let mock = Mock::start(Behaviour::default()).await;
    let there = Fixture::of(Kind::Openai, &mock, "");
    for n in 0..20 {
        let reply = there.provider.send(chat(&*there.provider, "m", n % 2 == 0)).await.unwrap();
        let (pieces, failure) = pieces(reply).await;
        assert!(failure.is_none() && !pieces.is_empty());
    }
    there.provider.probe().await.unwrap();
    assert_eq!((mock.connections(), mock.requests()), (1, 21));
}

#[tokio::test]
async fn an_error_keeps_the_connection_and_a_close_is_heeded() {
    let mock = Mock::start(Behaviour::default()).await;
    let there = Fixture::of(Kind::Openai, &mock, "");
    for _ in 0..3 {
        mock.next(Fault::Status(500, None));
        there.provider.send(chat(&*there.provider, "m", false)).await.unwrap_err();
    }
    assert_eq!(mock.connections(), 1);
    mock.next(Fault::NoKeepAlive);
    for _ in 0..2 {
        there.provider.send(chat(&*there.provider, "m", false)).await.unwrap().body.collect().await.unwrap();
    }
    assert_eq!(mock.connections(), 2);
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_costs_no_request() {
    let mock = Mock::start(Behaviour::default()).await;
    let there = Fixture::of(Kind::Openai, &mock, "");
    there.provider.send(chat(&*there.provider, "m", false)).await.unwrap().body.collect().await.unwrap();
    let address = mock.address();
    drop(mock);
    // Its task ends at its next chance, and with it the connection.
    let mock = loop {
        match Mock::bind(address, Behaviour::default()).await {
            Ok(mock) => break mock,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    there.provider.send(chat(&*there.provider, "m", false)).await.unwrap().body.collect().await.unwrap();
    assert_eq!(mock.requests(), 1);
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_time() {
    let mock = Mock::start(Behaviour::default()).await;
    let (clock, as_clock) = manual();
    let there = Fixture::with_clock(Kind::Openai, &mock, "keep_idle_ms = 1000", &as_clock);
    let ask = || async {
        there.provider.send(chat(&*there.provider, "m", false)).await.unwrap().body.collect().await.unwrap();
    };
    ask().await;
    clock.advance(Duration::from_millis(999));
    ask().await;
    assert_eq!(mock.connections(), 1);
    clock.advance(Duration::from_millis(1000));
    there.provider.tidy();
    ask().await;
    assert_eq!(mock.connections(), 2);
}

#[tokio::test]
async fn there_are_never_more_connections_than_allowed_and_the_line_has_an_end() {
    let mock = Mock::start(Behaviour::default()).await;
    let there = Fixture::of(Kind::Openai, &mock, "connections_max = 2\nwaiting_max = 1\nconnect_timeout_ms = 60000");
    let one = there.provider.send(chat(&*there.provider, "stall-1", true)).await.unwrap();
    let two = there.provider.send(chat(&*there.provider, "stall-1", true)).await.unwrap();
    let provider = there.provider.clone();
    let mut waits = Box::pin(async move {
        let ask = chat(&*provider, "m", false);
        provider.send(ask).await.unwrap().body.collect().await.unwrap()
    });
    // Polled once, it stands in line.
    let mut once = Context::from_waker(Waker::noop());
    assert!(waits.as_mut().poll(&mut once).is_pending());
    let refused = there.provider.send(chat(&*there.provider, "m", false)).await.unwrap_err();
    assert_eq!((refused.class, refused.sent), (Class::Overloaded, false), "{refused}");
    assert_eq!(mock.requests(), 2);
    drop(one);
    waits.await;
    drop(two);
    mock.until(|mock| mock.cut() == 2).await;
    let full = Fixture::of(Kind::Openai, &mock, "connections_max = 1\nconnect_timeout_ms = 20");
    let _held = full.provider.send(chat(&*full.provider, "stall-1", true)).await.unwrap();
    let refused = full.provider.send(chat(&*full.provider, "m", false)).await.unwrap_err();
    assert!(refused.class == Class::Overloaded && refused.reason.contains("was free for 20 ms"), "{refused}");
}

#[tokio::test]
async fn whoever_stops_waiting_cancels_the_request() {
    let mock = Mock::start(Behaviour::default()).await;
    let there = Fixture::of(Kind::Openai, &mock, "");
    let mut reply = there.provider.send(chat(&*there.provider, "stall-2", true)).await.unwrap();
    reply.body.next().await.unwrap().unwrap();
    drop(reply);
    mock.until(|mock| mock.cut() == 1).await;
    {
        let waits = there.provider.send(chat(&*there.provider, "never", true));
        tokio::select! {
            _ = waits => panic!("it never answers"),
            () = mock.until(|mock| mock.requests() == 2) => {}
        }
    }
    mock.until(|mock| mock.cut() == 2).await;
}

#[tokio::test]
async fn a_key_that_was_exchanged_under_way_is_found_by_the_request_that_was_refused() {
    let behaviour = |key: &str| Behaviour { key: Some(key.to_owned()), ..Behaviour::default() };
    let mock = Mock::start(behaviour("sk-mock")).await;
    let there = Fixture::of(Kind::Anthropic, &mock, "");
    there.provider.send(chat(&*there.provider, "m", false)).await.unwrap();
    mock.set(behaviour("sk-next"));
    let refused = there.provider.send(chat(&*there.provider, "m", false)).await.unwrap_err();
    assert_eq!(refused.class, Class::Auth);
    assert_eq!(refused.answer.as_ref().unwrap().status, 401);
    assert_eq!(mock.requests(), 2, "with the same key nobody asks again");
    std::fs::write(there.key_file(), "sk-next\n").unwrap();
    there.provider.send(chat(&*there.provider, "m", false)).await.unwrap();
    assert!(!format!("{refused:?} {there:?}", there = there.provider).contains("sk-"), "no key in what is printed");
}

#[tokio::test]
async fn a_systemd_credential_is_a_key_and_its_absence_is_explained() {
    let mock = Mock::start(Behaviour { key: Some("sk-credential".to_owned()), ..Behaviour::default() }).await;
    let (_, clock) = manual();
    let folder = tempfile::tempdir().unwrap();
    let text = format!("name = \"o\"\nkind = \"openai\"\nbase_url = \"{}\"\ncredential = \"openai\"", mock.url("/v1"));
    let error = open(&text, Some(folder.path()), &clock).unwrap_err().to_string();
    assert!(error.starts_with("failed to read credential "), "{error}");
    assert!(open(&text, None, &clock).unwrap_err().to_string().contains("LoadCredential="));
    std::fs::write(folder.path().join("openai"), "sk-credential").unwrap();
    let provider = open(&text, Some(folder.path()), &clock).unwrap();
    provider.send(chat(&*provider, "m", false)).await.unwrap();
}

#[tokio::test]
async fn an_access_token_serves_many_requests_and_is_renewed_before_its_end() {
    let mock = Mock::start(Behaviour::default()).await;
    let (clock, as_clock) = manual();
    let there = Fixture::with_clock(Kind::Vertex, &mock, "", &as_clock);
    let tokens = || mock.seen().iter().filter(|seen| seen.path == "/token").count();
    let ask = || async { there.provider.send(chat(&*there.provider, "m", false)).await };
    for _ in 0..3 {
        ask().await.unwrap().body.collect().await.unwrap();
    }
    assert_eq!(tokens(), 1);
    let form = String::from_utf8(mock.seen()[0].body.to_vec()).unwrap();
    assert!(
        form.starts_with("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=ey"),
        "{form}"
    );
    clock.advance(Duration::from_secs(3600 - 300));
    ask().await.unwrap();
    assert_eq!(tokens(), 2);
    clock.advance(Duration::from_secs(3600 - 300));
    // The old token is good for minutes yet: that no new one is to be had stops nobody.
    mock.next(Fault::Status(503, None));
    ask().await.unwrap();
    assert_eq!(tokens(), 3);
    clock.advance(Duration::from_secs(3600));
    mock.next(Fault::Status(400, None));
    let refused = ask().await.unwrap_err();
    assert!(refused.class == Class::Auth && !refused.sent, "{refused}");
    assert_eq!(ask().await.unwrap_err().class, Class::Auth, "for some seconds nobody asks again");
    assert_eq!(tokens(), 4);
    clock.advance(Duration::from_secs(5));
    ask().await.unwrap();
    // Taken back before its end: one request finds out and goes on with another.
    mock.next(Fault::Status(401, None));
    ask().await.unwrap();
    assert_eq!(tokens(), 6);
}

#[tokio::test]
async fn requests_at_the_same_time_fetch_one_token() {
    let mock = Mock::start(Behaviour::default()).await;
    let there = Fixture::of(Kind::Vertex, &mock, "");
    let mut all = JoinSet::new();
    for _ in 0..20 {
        let provider = there.provider.clone();
        all.spawn(async move { drop(provider.send(chat(&*provider, "m", false)).await.unwrap()) });
    }
    all.join_all().await;
    assert_eq!(mock.seen().iter().filter(|seen| seen.path == "/token").count(), 1);
}

#[tokio::test]
async fn what_comes_of_requests_is_counted_by_provider() {
    let mock = Mock::start(Behaviour::default()).await;
    let (metrics, mut registry) = (Metrics::default(), Registry::default());
    metrics.register(&mut registry);
    let (_, clock) = manual();
    let text = format!("name = \"gpu\"\nkind = \"vllm\"\nbase_url = \"{}\"", mock.url(""));
    let config: Config = toml::from_str(&text).unwrap();
    let mut providers = Providers::open(vec![config], None, &clock, &metrics).unwrap();
    let gpu = providers.find("gpu").unwrap().clone();
    assert!(providers.add(gpu.clone()).unwrap_err().to_string().contains("two of the name gpu"));
    let answer = gpu.send(chat(&*gpu, "m", false)).await.unwrap().body.collect().await.unwrap();
    gpu.send(chat(&*gpu, "status-429", false)).await.unwrap_err();
    let cut = pieces(gpu.send(chat(&*gpu, "half-2", true)).await.unwrap()).await;
    let held = gpu.send(chat(&*gpu, "stall-1", true)).await.unwrap();
    let shown = || {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    };
    let bytes = answer.len() + cut.0.concat().len();
    for line in [
        "provider_requests_total{provider=\"gpu\",outcome=\"answered\"} 3".to_owned(),
        "provider_requests_total{provider=\"gpu\",outcome=\"rate_limited\"} 1".to_owned(),
        "provider_cut_answers_total{provider=\"gpu\",outcome=\"unavailable\"} 1".to_owned(),
        "provider_in_flight{provider=\"gpu\"} 1".to_owned(),
        "provider_connections_total{provider=\"gpu\"} 2".to_owned(),
        format!("provider_received_bytes_total{{provider=\"gpu\"}} {bytes}"),
    ] {
        assert!(shown().contains(&line), "{line}\n{}", shown());
    }
    drop(held);
    assert!(shown().contains("provider_in_flight{provider=\"gpu\"} 0"));
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn server(&self, name: &str) -> Arc<rustls::ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        Arc::new(config)
    }
}

#[tokio::test]
async fn only_a_certificate_of_the_named_authority_for_the_right_name_is_believed() {
    let (authority, other) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, authority.0.pem()).unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let cases =
        [(&authority, "localhost", true), (&authority, "elsewhere.example", false), (&other, "localhost", false)];
    for (signer, name, is_good) in cases {
        let mock = Mock::start_tls(Behaviour::default(), signer.server(name)).await;
        let text = format!(
            "name = \"o\"\nkind = \"vllm\"\nbase_url = \"https://localhost:{}\"\nca_file = \"{}\"",
            mock.address().port(),
            ca_file.display()
        );
        let provider = open(&text, None, &clock).unwrap();
        match provider.send(chat(&*provider, "m", true)).await {
            Ok(reply) => {
                let (pieces, failure) = pieces(reply).await;
                assert!(is_good && failure.is_none() && !pieces.is_empty(), "{name}");
            }
            Err(failure) => {
                assert!(!is_good && failure.class == Class::Unavailable && !failure.sent, "{name}: {failure}");
                assert!(failure.reason.contains("certificate"), "{failure}");
                assert_eq!(mock.requests(), 0, "nothing was sent to whom nobody knows");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_frame_is_lost_in_many_streams_at_the_same_time() {
    const STREAMS: usize = 300;
    let behaviour = Behaviour { words: 20, pace: Duration::from_millis(5), ..Behaviour::default() };
    let mock = Mock::start(behaviour).await;
    let there = Fixture::of(Kind::Openai, &mock, "connections_max = 300");
    let mut all = JoinSet::new();
    for _ in 0..STREAMS {
        let provider = there.provider.clone();
        all.spawn(async move {
            let reply = provider.send(chat(&*provider, "m", true)).await.unwrap();
            let whole = reply.body.collect().await.unwrap();
            String::from_utf8(whole.to_vec()).unwrap().matches("data: ").count()
        });
    }
    // The role, twenty words, the reason why it ended, [DONE].
    assert!(all.join_all().await.iter().all(|events| *events == 23));
    assert!(mock.connections() <= STREAMS as u64);
}
