//! The least that a proxy with hyper can be: it looks at one letter of the path and passes everything on. What it takes is
//! what this machine takes for two connections, two heads and the bytes, and a measure for everybody who does more.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::HeaderValue;
use hyper::http::uri::PathAndQuery;
use hyper::service::service_fn;
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

/// Serves for ever: `bare ADDRESS MOCK MOCK MOCK`. A path `/1/v1/...` goes to the second of them.
pub(crate) fn serve(arguments: impl Iterator<Item = String>) {
    let mut addresses = arguments.map(|address| address.parse().unwrap());
    let address: SocketAddr = addresses.next().expect("an address to listen on");
    let mocks: Vec<SocketAddr> = addresses.collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await.unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve_one(stream, mocks.clone()));
        }
    });
}

/// A connection to a mock that is kept for the next request of the same client.
struct Onward {
    address: SocketAddr,
    kept: Mutex<Option<SendRequest<Incoming>>>,
}

async fn serve_one(stream: TcpStream, mocks: Vec<SocketAddr>) {
    stream.set_nodelay(true).unwrap();
    let onward: Arc<[Onward]> = mocks.into_iter().map(|address| Onward { address, kept: Mutex::default() }).collect();
    let passed = service_fn(move |request| pass(request, Arc::clone(&onward)));
    // A client that leaves in the middle is no news here.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), passed).await;
}

async fn pass(mut request: Request<Incoming>, onward: Arc<[Onward]>) -> std::io::Result<Response<Incoming>> {
    let path = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    let at = usize::from(path.as_bytes().get(1).copied().unwrap_or(b'0') - b'0');
    let path: Uri = path.get(2..).unwrap_or("/").parse().map_err(std::io::Error::other)?;
    *request.uri_mut() = path;
    let onward = &onward[at];
    let host = HeaderValue::from_str(&onward.address.to_string()).map_err(std::io::Error::other)?;
    request.headers_mut().insert(hyper::header::HOST, host);
    let mut kept = onward.kept.lock().await;
    if kept.as_ref().is_none_or(SendRequest::is_closed) {
        let stream = TcpStream::connect(onward.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        *kept = Some(sender);
    }
    let Some(sender) = kept.as_mut() else { unreachable!("just put there") };
    sender.ready().await.map_err(std::io::Error::other)?;
    sender.send_request(request).await.map_err(std::io::Error::other)
}
