//! What goes wrong at a provider, and the class that it becomes.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay::base::{Clock, SystemClock};
use forebay::provider::{Call, Class, ERROR_BYTES_MAX, Kind, Operation, Wire};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::mock_provider::{Behaviour, Fault, Mock};
use crate::provider_fixture::{Fixture, chat, open, pieces};

const IMPATIENT: &str = "first_byte_timeout_ms = 50\nidle_timeout_ms = 50";

#[tokio::test]
async fn what_comes_instead_of_an_answer_has_a_class() {
    let mock = Mock::start(Behaviour::default()).await;
    let there = Fixture::of(Kind::Openai, &mock, IMPATIENT);
    let cases = [
        (Fault::Reset, Class::Unavailable),
        (Fault::Close, Class::Unavailable),
        (Fault::NotHttp, Class::Malformed),
        (Fault::Html, Class::Malformed),
        (Fault::Never, Class::Timeout),
        (Fault::Delay(Duration::from_secs(60)), Class::Timeout),
        (Fault::Status(400, None), Class::BadRequest),
        (Fault::Status(401, None), Class::Auth),
        (Fault::Status(404, None), Class::NotFound),
        (Fault::Status(413, None), Class::TooLong),
        (Fault::Status(429, Some(7)), Class::RateLimited),
        (Fault::Status(500, None), Class::Unavailable),
        (Fault::Status(503, Some(1)), Class::Overloaded),
        (Fault::Status(529, None), Class::Overloaded),
    ];
    for (fault, class) in cases {
        for stream in [false, true] {
            mock.next(fault);
            let failure = there.provider.send(chat(&*there.provider, "m", stream)).await.unwrap_err();
            assert_eq!(failure.class, class, "{fault:?}: {failure}");
            assert!(failure.sent, "{fault:?}: the request went out");
            match fault {
                Fault::Status(status, wait) => {
                    let answer = failure.answer.unwrap();
                    assert_eq!(answer.status, status);
                    assert!(answer.body.starts_with(b"{\"error\":"), "its body is kept");
                    assert_eq!(failure.retry_after, wait.map(Duration::from_secs));
                }
                _ => assert!(failure.answer.is_none() && failure.retry_after.is_none()),
            }
        }
        // And the next request is none the worse.
        there.provider.send(chat(&*there.provider, "m", false)).await.unwrap().body.collect().await.unwrap();
    }
}

#[tokio::test]
async fn what_goes_wrong_in_the_middle_of_an_answer_comes_after_the_pieces_that_were_good() {
    let mock = Mock::start(Behaviour { pace: Duration::from_millis(1), ..Behaviour::default() }).await;
    let there = Fixture::of(Kind::Openai, &mock, IMPATIENT);
    let cases = [
        (Fault::Half(3), Class::Unavailable),
        (Fault::Half(0), Class::Unavailable),
        (Fault::Stall(3), Class::Timeout),
        (Fault::Stall(0), Class::Timeout),
        (Fault::ResetAfter(3), Class::Unavailable),
    ];
    for (fault, class) in cases {
        mock.next(fault);
        let reply = there.provider.send(chat(&*there.provider, "m", true)).await.unwrap();
        let (pieces, failure) = pieces(reply).await;
        let failure = failure.expect("it broke");
        assert_eq!(failure.class, class, "{fault:?}: {failure}");
        let good = String::from_utf8(pieces.concat()).unwrap().matches("data: ").count();
        match fault {
            // A reset may overtake bytes that were not read yet.
            Fault::ResetAfter(count) => assert!(good <= count),
            Fault::Half(count) | Fault::Stall(count) => assert_eq!(good, count, "{fault:?}"),
            _ => unreachable!(),
        }
    }
    mock.next(Fault::Half(1));
    let reply = there.provider.send(chat(&*there.provider, "m", false)).await.unwrap();
    assert_eq!(reply.body.collect().await.unwrap_err().class, Class::Unavailable, "half of a whole answer");
}

#[tokio::test]
async fn an_answer_has_a_length_and_a_time_beyond_which_it_is_cut() {
    let mock = Mock::start(Behaviour::default()).await;
    let short = Fixture::of(Kind::Openai, &mock, "answer_bytes_max = 100000");
    mock.next(Fault::Endless);
    let (pieces_of_it, failure) = pieces(short.provider.send(chat(&*short.provider, "m", true)).await.unwrap()).await;
    let failure = failure.unwrap();
    assert!(failure.class == Class::Malformed && failure.reason.contains("longer than 100000 bytes"), "{failure}");
    assert!(pieces_of_it.concat().len() <= 100_000);
    mock.until(|mock| mock.cut() == 1).await;

    mock.set(Behaviour { pace: Duration::from_millis(1), ..Behaviour::default() });
    let brief = Fixture::of(Kind::Openai, &mock, "total_timeout_ms = 60");
    mock.next(Fault::Endless);
    let (_, failure) = pieces(brief.provider.send(chat(&*brief.provider, "m", true)).await.unwrap()).await;
    let failure = failure.unwrap();
    assert!(failure.class == Class::Timeout && failure.reason.contains("longer than 60 ms"), "{failure}");
}

#[tokio::test]
async fn a_stream_that_drips_byte_by_byte_comes_whole() {
    let mock = Mock::start(Behaviour { words: 2, ..Behaviour::default() }).await;
    for kind in [Kind::Openai, Kind::Sagemaker] {
        let there = Fixture::of(kind, &mock, "");
        mock.next(Fault::Drip(Duration::ZERO));
        let reply = there.provider.send(chat(&*there.provider, "m", true)).await.unwrap();
        let whole = String::from_utf8(reply.body.collect().await.unwrap().to_vec()).unwrap();
        assert!(whole.starts_with("data: {") && whole.ends_with("data: [DONE]\n\n"), "{kind}: {whole}");
    }
}

#[tokio::test]
async fn a_wrapped_stream_with_garbage_or_an_exception_in_it_is_no_answer() {
    let mock = Mock::start(Behaviour::default()).await;
    let there = Fixture::of(Kind::Sagemaker, &mock, "");
    mock.next(Fault::Garbage(2));
    let (good, failure) = pieces(there.provider.send(chat(&*there.provider, "m", true)).await.unwrap()).await;
    assert_eq!((good.len(), failure.unwrap().class), (2, Class::Malformed));
    // Not of the length that it says.
    mock.next(Fault::Half(1));
    let (good, failure) = pieces(there.provider.send(chat(&*there.provider, "m", true)).await.unwrap()).await;
    assert_eq!((good.len(), failure.unwrap().class), (1, Class::Unavailable));
}

#[tokio::test]
async fn one_request_may_be_less_patient_than_the_configuration() {
    let mock = Mock::start(Behaviour::default()).await;
    let there = Fixture::of(Kind::Openai, &mock, "");
    let mut ask = chat(&*there.provider, "never", true);
    ask.first_byte_timeout = Some(Duration::from_millis(20));
    let failure = there.provider.send(ask).await.unwrap_err();
    assert!(failure.class == Class::Timeout && failure.reason.contains("within 20 ms"), "{failure}");
}

#[tokio::test]
async fn nobody_at_the_address_is_unavailable_and_nothing_was_sent() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    for host in [free.to_string(), "nowhere.invalid:80".to_owned()] {
        let text = format!("name = \"o\"\nkind = \"vllm\"\nbase_url = \"http://{host}\"\nconnect_timeout_ms = 20000");
        let provider = open(&text, None, &clock).unwrap();
        let failure = provider.send(chat(&*provider, "m", true)).await.unwrap_err();
        assert_eq!((failure.class, failure.sent), (Class::Unavailable, false), "{failure}");
        assert_eq!(provider.probe().await.unwrap_err().class, Class::Unavailable);
    }
}

#[tokio::test]
async fn what_a_kind_does_not_do_is_not_asked() {
    let mock = Mock::start(Behaviour::default()).await;
    let there = Fixture::of(Kind::Anthropic, &mock, "");
    let mut ask = chat(&*there.provider, "m", true);
    ask.call = Call::new(Wire::Openai, Operation::Embeddings);
    let failure = there.provider.send(ask).await.unwrap_err();
    assert!(
        failure.class == Class::NotFound && failure.reason.contains("embeddings in the language of openai"),
        "{failure}"
    );
    assert_eq!(mock.requests(), 0);
}

#[tokio::test]
async fn a_callers_key_and_cookies_never_go_along() {
    let mock = Mock::start(Behaviour::default()).await;
    let there =
        Fixture::of(Kind::Anthropic, &mock, "[headers]\nx-team = \"press\"\nanthropic-beta = \"files-api-2025-04-14\"");
    let header = |name: &str, value: &str| (name.parse().unwrap(), value.parse().unwrap());
    let headers = [
        header("authorization", "Bearer fb-callers"),
        header("x-api-key", "fb-callers"),
        header("cookie", "session=fb-callers"),
        header("host", "fb-callers"),
        header("content-length", "3"),
        header("connection", "close"),
        header("x-team", "fb-callers"),
        header("anthropic-beta", "context-1m-2025-08-07"),
    ];
    let mut ask = chat(&*there.provider, "m", false);
    ask.headers = &headers;
    there.provider.send(ask).await.unwrap();
    let seen = mock.last();
    assert!(!format!("{:?}", seen.headers).contains("fb-callers"), "{:?}", seen.headers);
    assert_eq!(seen.header("x-api-key"), "sk-mock");
    assert_eq!(seen.header("x-team"), "press");
    let betas: Vec<_> = seen.headers.get_all("anthropic-beta").iter().collect();
    assert_eq!(betas, ["files-api-2025-04-14", "context-1m-2025-08-07"]);
}

/// A server that says these bytes to whoever comes, whatever they ask.
async fn saying(bytes: Bytes) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 65536]).await;
            let _ = stream.write_all(&bytes).await;
        }
    });
    format!("name = \"o\"\nkind = \"vllm\"\nbase_url = \"http://{address}\"\n{IMPATIENT}")
}

#[tokio::test]
async fn hostile_heads_and_bodies_are_failures_and_never_more() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let ok = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    let huge_head = format!("{ok}x: {}\r\n\r\n", "y".repeat(1 << 20));
    let cases = [
        ("", Class::Unavailable),
        ("HTTP/1.1 200", Class::Unavailable),
        ("HTTP/9.9 200 OK\r\n\r\n", Class::Malformed),
        ("HTTP/1.1 99999 OK\r\n\r\n", Class::Malformed),
        (huge_head.as_str(), Class::Malformed),
        (&format!("{ok}content-length: -1\r\n\r\n"), Class::Malformed),
        (&format!("{ok}content-length: 5\r\n\r\n{{}}"), Class::Unavailable),
        (&format!("{ok}content-encoding: gzip\r\ncontent-length: 2\r\n\r\n{{}}"), Class::Malformed),
        (&format!("{ok}transfer-encoding: chunked\r\n\r\nzz\r\n"), Class::Malformed),
        (&format!("{ok}transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n"), Class::Malformed),
        (
            "HTTP/1.1 302 Found\r\nlocation: https://portal.example/?key=1\r\ncontent-length: 0\r\n\r\n",
            Class::Unavailable,
        ),
        ("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", Class::Unavailable),
    ];
    for (bytes, class) in cases {
        let provider = open(&saying(Bytes::from(bytes.to_owned())).await, None, &clock).unwrap();
        let failure = match provider.send(chat(&*provider, "m", false)).await {
            Ok(reply) => reply.body.collect().await.unwrap_err(),
            Err(failure) => failure,
        };
        let shown = &bytes[..bytes.len().min(120)];
        assert_eq!(failure.class, class, "{shown:?}: {failure}");
        assert!(!failure.reason.contains("key=1"), "{failure}");
    }
}

#[tokio::test]
async fn of_a_long_error_the_beginning_is_kept() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let body = "x".repeat(1 << 20);
    let answer = format!("HTTP/1.1 500 No\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let provider = open(&saying(Bytes::from(answer)).await, None, &clock).unwrap();
    let failure = provider.send(chat(&*provider, "m", false)).await.unwrap_err();
    assert_eq!(failure.class, Class::Unavailable);
    assert_eq!(failure.answer.unwrap().body.len() as u64, ERROR_BYTES_MAX);
}
