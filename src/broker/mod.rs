//! The broker behind the MQTT door: topic tree, sessions, retained messages, wills, shared subscriptions.
//!
//! It knows no sockets and no packets: a door opens a [`Link`] for a connection, hands in what the client sends and
//! drains what the client is to get. Flows publish with [`Broker::publish`] and take readings through a [`Tap`].
//!
//! A QoS 1 or 2 publish is answered when everybody who has to keep it has it on disk: the tap answered its receipt,
//! each persistent session with a QoS 1 or 2 match has its queue row committed, the retained row is committed. If
//! nobody has to, it is answered at once. Answers leave in the order of the publishes.
//!
//! Architecture invariant: nothing here blocks, and every queue has a bound (see [`Config`]) with a counter at it.
//! A client that does not read loses its own messages or its own connection; it never stops another. What a persistent
//! session loses at its bound is in a ledger, written before the publisher is acknowledged.

mod config;
mod connect;
mod custody;
mod error;
mod hub;
mod link;
mod load;
mod losses;
mod message;
mod metrics;
mod moment;
mod outgoing;
mod parse;
mod publish;
mod replies;
mod retained;
mod route;
mod rows;
mod salvage;
mod session;
mod subscribe;
mod tail;
mod tap;
#[cfg(test)]
mod tests;
mod topic;
mod tree;
mod wreck;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

use crate::base::{Clock, Receipt};
use crate::store::{Store, Wreck};
use hub::Hub;

pub use config::{AtSessionBound, Config};
pub use connect::{Hello, Welcome};
pub use error::Error;
pub use link::{Acknowledged, Leaving, Link};
pub use losses::{SessionLoss, losses};
pub use message::{Message, Qos};
pub use metrics::Metrics;
pub use outgoing::{Acknowledgement, Ids, Outgoing};
pub use publish::Publication;
pub use replies::{Reply, ReplyKind, Verdict};
pub use route::Topic;
pub use rows::SCHEMA;
pub use salvage::Salvaged;
pub use session::{Closing, Options, Will};
pub use subscribe::{Replay, Subscribe, Subscribed};
pub use tap::{Tap, TapMessage, TapResult, Within};

/// Work that could not be done at once: it waits for room, never for ever.
pub type Waiting = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How often deadlines are looked at: wills, session expiry, retained expiry.
const TICK: Duration = Duration::from_millis(250);

/// The broker. Clones share it.
#[derive(Clone)]
pub struct Broker {
    hub: Arc<Hub>,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker").finish_non_exhaustive()
    }
}

impl Broker {
    /// Loads sessions, their queues and retained messages. `store` must have been opened with [`SCHEMA`].
    pub async fn open(config: Config, store: &Store, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let hub = Hub::open(config, store.writer(), &store.reader(), !store.wrecks().is_empty(), clock).await?;
        Ok(Self { hub })
    }

    /// Sets who takes readings. Once, before the doors open; later calls change nothing.
    pub fn attach(&self, tap: Arc<dyn Tap>) {
        let _ = self.hub.tap.set(tap);
        self.routes_changed();
    }

    /// Asks the tap again which topics it wants.
    pub fn routes_changed(&self) {
        self.hub.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Connects a client. Returns when a persistent session is on disk.
    pub async fn connect(&self, hello: Hello) -> Result<Welcome, Error> {
        self.hub.connect(hello).await
    }

    /// Publishes from inside the process; streams do not see it. `receipt` is answered when the retained row and
    /// the rows of persistent subscribers are on disk. Waits only while the database's queue is full.
    /// A topic that is not a valid name is refused as a payload.
    pub async fn publish(&self, message: Message, receipt: Receipt) {
        if !self.hub.topic_limits.name(&message.topic) {
            receipt.refuse(crate::base::Refusal::Payload);
            return;
        }
        if let Some(waiting) = self.hub.publish_inside(message, receipt) {
            waiting.await;
        }
    }

    /// Runs deadlines and left-over work until `stop`. Without it delayed wills and expiry do not happen.
    pub async fn run(self, stop: CancellationToken) {
        let mut chores: FuturesUnordered<Waiting> = FuturesUnordered::new();
        let hub = Arc::clone(&self.hub);
        chores.push(Box::pin(async move {
            if let Err(error) = hub.follow_queue().await {
                tracing::error!(%error, "failed to follow the pages of the messages that wait for absent clients");
            }
        }));
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            chores.extend(self.hub.take_chores());
            tokio::select! {
                () = stop.cancelled() => break,
                _ = ticks.tick() => self.tick(),
                () = self.hub.chore_added.notified() => {}
                Some(()) = chores.next(), if !chores.is_empty() => {}
            }
        }
    }

    /// One look at the deadlines; [`run`](Self::run) does it several times a second.
    pub fn tick(&self) {
        self.hub.tick();
    }

    /// Tells every connection to close (0x8B) and takes no new ones.
    pub fn stop(&self) {
        self.hub.stopping.store(true, Ordering::Release);
        let sessions: Vec<_> = self.hub.sessions().values().cloned().collect();
        for session in sessions {
            if let Some(signal) = &session.state().signal {
                signal.close(Closing::Shutdown);
            }
        }
    }

    /// Receive Maximum that doors announce and hold clients to.
    pub fn receive_maximum(&self) -> u16 {
        self.hub.config.receive_maximum.max(1)
    }

    /// Brings back what a file that was set aside holds of sessions, messages for absent clients and retained messages;
    /// `Ok` also if that was done before. Dropping the future stops it where it is, and a later call goes on.
    pub async fn salvage(&self, wreck: &Wreck) -> Result<Salvaged, Error> {
        self.hub.salvage(wreck).await
    }

    /// There is nothing more to salvage: nobody's wishes need to be remembered for it.
    pub fn salvage_ends(&self) {
        self.hub.salvaging.end();
    }

    /// The counters.
    pub fn metrics(&self) -> &Metrics {
        &self.hub.metrics
    }
}
