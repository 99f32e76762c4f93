//! A TCP proxy that fails as told: what a bad line does to a connection, on purpose and by a seed.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What happens to one connection.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Accepted and closed at once.
    Refuse,
    /// Accepted, and then silence in both directions.
    HalfOpen,
    /// Silence in both directions after so many bytes from the client; both ends stay open.
    HoldAfter(usize),
    /// Nothing passes from the client once the server has said more than so many bytes, which all arrive.
    MuteOnceTold(usize),
    /// Closed after so many bytes from the client: in good order, or by RST.
    CutAfter { bytes: usize, reset: bool },
    /// After so many bytes from the client, what the server says is thrown away until `more` have passed; then cut.
    /// The server acted on messages whose answers never arrive, so they come again.
    SwallowAnswers { after: usize, more: usize },
    /// Every piece is late by this much.
    Delay(Duration),
}

impl Fault {
    /// Any of them, with sizes on the scale of `bytes`.
    pub(crate) fn any(rng: &mut impl Rng, bytes: usize) -> Self {
        let after = rng.random_range(0..bytes);
        match rng.random_range(0..8) {
            0 => Self::HalfOpen,
            1 => Self::HoldAfter(after),
            2 => Self::MuteOnceTold(after / 100),
            3 | 4 => Self::SwallowAnswers { after, more: rng.random_range(1..bytes) },
            _ => Self::any_loud(rng, bytes),
        }
    }

    /// Any of those that end the connection by themselves. The silent ones end by a timeout, and a side that waits for
    /// no answer has only its keep-alive for that, of seconds.
    pub(crate) fn any_loud(rng: &mut impl Rng, bytes: usize) -> Self {
        let after = rng.random_range(0..bytes);
        match rng.random_range(0..4) {
            0 => Self::Refuse,
            1 => Self::CutAfter { bytes: after, reset: false },
            2 => Self::CutAfter { bytes: after, reset: true },
            _ => Self::Delay(Duration::from_millis(rng.random_range(1..10))),
        }
    }
}

pub(crate) struct Chaos {
    port: u16,
    script: Arc<Mutex<VecDeque<Fault>>>,
    connections: Arc<AtomicUsize>,
    shut: Arc<AtomicBool>,
    /// Changes cut every connection.
    cuts: watch::Sender<u64>,
    _accepting: JoinSet<()>,
}

impl Chaos {
    /// Listens on a free port and passes on to `upstream` on loopback.
    pub(crate) async fn before(upstream: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (script, connections) = (Arc::new(Mutex::new(VecDeque::new())), Arc::new(AtomicUsize::new(0)));
        let (cuts, shut) = (watch::Sender::new(0), Arc::new(AtomicBool::new(false)));
        let mut accepting = JoinSet::new();
        let told = (shut.clone(), cuts.subscribe());
        accepting.spawn(accept(listener, upstream, script.clone(), connections.clone(), told));
        Self { port, script, connections, shut, cuts, _accepting: accepting }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The next connections take these faults, one each; those after them none.
    pub(crate) fn plan(&self, faults: impl IntoIterator<Item = Fault>) {
        self.script.lock().unwrap().extend(faults);
    }

    /// Ends every connection now.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Ends every connection now and refuses new ones until [`open`](Self::open).
    pub(crate) fn shut(&self) {
        self.shut.store(true, Ordering::SeqCst);
        self.cut();
    }

    /// Lets connections in again.
    pub(crate) fn open(&self) {
        self.shut.store(false, Ordering::SeqCst);
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn accept(
    listener: TcpListener,
    upstream: u16,
    script: Arc<Mutex<VecDeque<Fault>>>,
    connections: Arc<AtomicUsize>,
    (shut, cuts): (Arc<AtomicBool>, watch::Receiver<u64>),
) {
    let mut running = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        connections.fetch_add(1, Ordering::SeqCst);
        let mut cuts = cuts.clone();
        cuts.mark_unchanged();
        // Looked at after the mark: a cut that comes later is seen, one that came before has set this.
        if shut.load(Ordering::SeqCst) {
            continue;
        }
        let fault = script.lock().unwrap().pop_front().unwrap_or(Fault::None);
        running.spawn(async move {
            tokio::select! {
                () = pass(client, upstream, fault) => {}
                _ = cuts.changed() => {}
            }
        });
    }
}

async fn pass(client: TcpStream, upstream: u16, fault: Fault) {
    if matches!(fault, Fault::Refuse) {
        return;
    }
    let Ok(server) = TcpStream::connect(("127.0.0.1", upstream)).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    if let Fault::CutAfter { reset: true, .. } = fault {
        // Closing with a linger of zero sends RST.
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let (passed, told) = (watch::Sender::new(0_usize), watch::Sender::new(0_usize));
    let (seen, heard) = (passed.subscribe(), told.subscribe());
    tokio::select! {
        () = upwards(client_read, server_write, fault, (passed, heard)) => {}
        () = downwards(server_read, client_write, fault, (seen, told)) => {}
    }
}

async fn upwards(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    fault: Fault,
    (passed, told): (watch::Sender<usize>, watch::Receiver<usize>),
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(read) = from.read(&mut buffer).await else { return };
        if read == 0 {
            return;
        }
        let before = *passed.borrow();
        let (limit, then_hold) = match fault {
            Fault::HalfOpen => (0, true),
            Fault::HoldAfter(bytes) => (bytes, true),
            Fault::CutAfter { bytes, .. } => (bytes, false),
            Fault::SwallowAnswers { after, more } => (after + more, false),
            Fault::MuteOnceTold(bytes) if *told.borrow() > bytes => continue,
            _ => (usize::MAX, false),
        };
        if let Fault::Delay(by) = fault {
            tokio::time::sleep(by).await;
        }
        let allowed = read.min(limit - before);
        // Told before it is written, so that no answer overtakes the order to swallow it.
        passed.send_replace(before + allowed);
        if to.write_all(&buffer[..allowed]).await.is_err() {
            return;
        }
        if allowed < read {
            if then_hold {
                std::future::pending::<()>().await;
            }
            return;
        }
    }
}

async fn downwards(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    fault: Fault,
    (passed, told): (watch::Receiver<usize>, watch::Sender<usize>),
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(read) = from.read(&mut buffer).await else { return };
        if read == 0 {
            return;
        }
        let upwards = *passed.borrow();
        match fault {
            Fault::HalfOpen => continue,
            Fault::HoldAfter(bytes) if upwards >= bytes => continue,
            Fault::SwallowAnswers { after, .. } if upwards > after => continue,
            Fault::Delay(by) => tokio::time::sleep(by).await,
            _ => {}
        }
        // Told before it is written, so that no reaction to it slips through.
        told.send_modify(|bytes| *bytes += read);
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
