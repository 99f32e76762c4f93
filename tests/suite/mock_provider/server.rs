//! The server: a task a connection.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::behaviour::{Behaviour, Fault, Seen};
use super::body::{Cut, End, MockBody};
use super::routes::{Answer, answer, dialect_of, error, error_frame, model_of};

/// So many requests are remembered.
const SEEN_MAX: usize = 1024;

/// What the tasks of all connections share.
pub(super) struct Shared {
    behaviour: Mutex<Behaviour>,
    queue: Mutex<VecDeque<Fault>>,
    seen: Mutex<VecDeque<Seen>>,
    /// How often each model that gets well was asked.
    ill: Mutex<HashMap<String, u32>>,
    remember: bool,
    requests: AtomicU64,
    connections: AtomicU64,
    cut: AtomicU64,
    changed: Notify,
}

impl Shared {
    /// An answer whose reader went away.
    pub(super) fn cut(&self) {
        self.cut.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_waiters();
    }
}

/// A running mock; it ends when dropped.
pub(crate) struct Mock {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Mock {
    /// On a free port of this machine.
    pub(crate) async fn start(behaviour: Behaviour) -> Self {
        Self::serve(TcpListener::bind("127.0.0.1:0").await.unwrap(), None, behaviour, true)
    }

    /// With TLS.
    pub(crate) async fn start_tls(behaviour: Behaviour, tls: Arc<rustls::ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::serve(listener, Some(TlsAcceptor::from(tls)), behaviour, true)
    }

    /// For a benchmark: remembers nothing.
    pub(crate) async fn bind(address: SocketAddr, behaviour: Behaviour) -> io::Result<Self> {
        Ok(Self::serve(TcpListener::bind(address).await?, None, behaviour, false))
    }

    fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, behaviour: Behaviour, remember: bool) -> Self {
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            behaviour: Mutex::new(behaviour),
            queue: Mutex::default(),
            seen: Mutex::default(),
            ill: Mutex::default(),
            remember,
            requests: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            changed: Notify::new(),
        });
        let task = tokio::spawn(accept(listener, tls, shared.clone()));
        Self { address, shared, task }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:port` and `path`.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// From the next request on.
    pub(crate) fn set(&self, behaviour: Behaviour) {
        *self.shared.behaviour.lock().unwrap() = behaviour;
    }

    /// Goes wrong once, in turn after what was queued before.
    pub(crate) fn next(&self, fault: Fault) {
        self.shared.queue.lock().unwrap().push_back(fault);
    }

    /// The requests so far, the latest 1,024 of them.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().iter().cloned().collect()
    }

    /// The latest request.
    pub(crate) fn last(&self) -> Seen {
        self.shared.seen.lock().unwrap().back().cloned().expect("nobody asked the mock")
    }

    pub(crate) fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }

    pub(crate) fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Answers whose reader went away.
    pub(crate) fn cut(&self) -> u64 {
        self.shared.cut.load(Ordering::SeqCst)
    }

    /// Waits for something to have happened.
    pub(crate) async fn until(&self, happened: impl Fn(&Self) -> bool) {
        loop {
            let changed = self.shared.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            if happened(self) {
                return;
            }
            changed.await;
        }
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    // Dropped with the mock, and its connections with it.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
        };
        shared.connections.fetch_add(1, Ordering::SeqCst);
        shared.changed.notify_waiters();
        connections.spawn(connection(stream, tls.clone(), shared.clone()));
    }
}

/// The same socket once more, for faults that hyper cannot make.
struct Socket(Mutex<Option<OwnedFd>>);

impl Cut for Socket {
    fn reset_on_close(&self) {
        if let Some(socket) = self.0.lock().unwrap().take() {
            rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).unwrap();
        }
    }
}

impl Socket {
    fn write(&self, bytes: &[u8]) {
        if let Some(socket) = self.0.lock().unwrap().take() {
            rustix::io::write(&socket, bytes).unwrap();
        }
    }
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    stream.set_nodelay(true).unwrap();
    let socket = Arc::new(Socket(Mutex::new(stream.as_fd().try_clone_to_owned().ok())));
    let service = service_fn(|request| respond(request, shared.clone(), socket.clone()));
    let http = hyper::server::conn::http1::Builder::new();
    // An error here is a client that went away, or a fault that was asked for.
    let _ = match tls {
        None => http.serve_connection(TokioIo::new(stream), service).await,
        Some(tls) => match tls.accept(stream).await {
            Ok(stream) => http.serve_connection(TokioIo::new(stream), service).await,
            Err(_) => return,
        },
    };
}

async fn respond(
    request: Request<Incoming>,
    shared: Arc<Shared>,
    socket: Arc<Socket>,
) -> Result<Response<MockBody>, io::Error> {
    let (head, incoming) = request.into_parts();
    let body = read(incoming).await?;
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let method = head.method.to_string();
    if shared.remember {
        let mut seen = shared.seen.lock().unwrap();
        if seen.len() == SEEN_MAX {
            seen.pop_front();
        }
        seen.push_back(Seen {
            method: method.clone(),
            path: path.clone(),
            headers: head.headers.clone(),
            body: body.clone(),
        });
    }
    shared.requests.fetch_add(1, Ordering::SeqCst);
    shared.changed.notify_waiters();
    let does = shared.behaviour.lock().unwrap().clone();
    let json: Value = serde_json::from_slice(&body).unwrap_or_default();
    let queued = shared.queue.lock().unwrap().pop_front();
    let model = model_of(&path, &json);
    let fault = match queued.or_else(|| Fault::of_model(&model)).unwrap_or(does.fault) {
        Fault::Flaky(times) => {
            let mut ill = shared.ill.lock().unwrap();
            let asked = ill.entry(model).or_default();
            *asked += 1;
            if *asked <= times { Fault::Status(503, None) } else { Fault::None }
        }
        fault => fault,
    };

    let mut wait = does.first_byte;
    let mut reset: Option<Arc<dyn Cut>> = None;
    match fault {
        Fault::Delay(more) => wait += more,
        Fault::Never => {
            // Ends when the reader does.
            let _gone = Gone(&shared);
            std::future::pending().await
        }
        Fault::Reset => {
            socket.reset_on_close();
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Fault::Close => return Err(io::ErrorKind::ConnectionAborted.into()),
        Fault::NotHttp => {
            socket.write(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n");
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Fault::ResetAfter(_) => reset = Some(socket),
        _ => {}
    }
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
    let is_known = does.key.as_ref().is_none_or(|key| {
        head.headers.iter().any(|(_, value)| {
            value.to_str().is_ok_and(|value| value == key || value.strip_prefix("Bearer ") == Some(key))
        })
    });
    let mut answer = match fault {
        Fault::Status(status, wait) => error(dialect_of(&path), status, wait),
        _ if !is_known && !path.starts_with("/token") => error(dialect_of(&path), 401, None),
        _ => answer(&method, &path, &json, &does),
    };
    if fault == Fault::Html {
        answer.content_type = "text/html; charset=utf-8";
        answer.frames = vec![Bytes::from_static(b"<html><body>Please log in to the guest network.</body></html>")];
    }
    let (frames, pace, end) = spoil(&mut answer, fault, does.pace);
    let mut response = Response::builder().status(answer.status).header("content-type", answer.content_type);
    response = response.header("x-request-id", "req_mock").header("request-id", "req_mock");
    for (name, value) in &answer.headers {
        response = response.header(*name, value);
    }
    if fault == Fault::NoKeepAlive {
        response = response.header("connection", "close");
    }
    Ok(response.body(MockBody::new(frames, pace, end, reset, shared)).unwrap())
}

/// Nobody waits for the answer any more.
struct Gone<'a>(&'a Shared);

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        self.0.cut();
    }
}

/// The frames as the fault leaves them.
fn spoil(answer: &mut Answer, fault: Fault, pace: Duration) -> (Vec<Bytes>, Duration, End) {
    let mut frames = std::mem::take(&mut answer.frames);
    // A whole answer is one frame; half of it is half of its bytes.
    let mut keep = |count: usize| {
        if frames.len() == 1 && count > 0 {
            let half = frames[0].len() / 2;
            frames[0].truncate(half);
        } else {
            frames.truncate(count);
        }
        std::mem::take(&mut frames)
    };
    match fault {
        Fault::Half(count) | Fault::ResetAfter(count) => (keep(count), pace, End::Broken),
        Fault::Stall(count) => (keep(count), pace, End::Stalled),
        Fault::Short(count) => (keep(count), pace, End::Proper),
        Fault::Garbage(count) => {
            let mut frames = keep(count);
            frames.push(Bytes::from_static(b"\xff\xfe{]data:: \x00\n\n"));
            (frames, pace, End::Proper)
        }
        Fault::ErrorAfter(count) => {
            let mut frames = keep(count);
            frames.push(error_frame(answer.dialect));
            (frames, pace, End::Proper)
        }
        Fault::Drip(pace) => {
            let bytes = frames.iter().flat_map(|frame| frame.iter().copied());
            (bytes.map(|byte| Bytes::copy_from_slice(&[byte])).collect(), pace, End::Proper)
        }
        Fault::Endless => {
            frames.truncate(2);
            (frames, pace, End::Endless)
        }
        _ => (frames, pace, End::Proper),
    }
}

async fn read(mut incoming: Incoming) -> io::Result<Bytes> {
    let mut body = BytesMut::new();
    while let Some(frame) = std::future::poll_fn(|cx| std::pin::Pin::new(&mut incoming).poll_frame(cx)).await {
        if let Ok(bytes) = frame.map_err(io::Error::other)?.into_data() {
            body.extend_from_slice(&bytes);
        }
    }
    Ok(body.freeze())
}
