//! The broker without sockets: real store, a clock that moves when told to.

mod custody;
mod salvage;
mod sessions;
mod spreading;

use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Waker};

use bytes::Bytes;

use super::{
    Acknowledged, Acknowledgement, Broker, Config, Hello, Link, Message, Options, Outgoing, Publication, Qos,
    ReplyKind, SCHEMA, Subscribe, Subscribed, Waiting, Welcome, Will,
};
use crate::base::ManualClock;
use crate::store::{self, Store};

struct Bench {
    broker: Broker,
    clock: Arc<ManualClock>,
    store: Store,
    _folder: Option<tempfile::TempDir>,
}

#[allow(clippy::disallowed_methods, reason = "ends with the test's runtime")]
async fn open_at(path: &Path, config: Config, clock: Arc<ManualClock>) -> Bench {
    let store_config = store::Config { state_dir: path.to_owned(), ..store::Config::default() };
    let (store, _) = Store::open(&store_config, &[SCHEMA], clock.clone()).unwrap();
    let broker = Broker::open(config, &store, clock.clone()).await.unwrap();
    let hub = broker.hub.clone();
    // What `Broker::run` does between its ticks, which are the test's.
    tokio::spawn(async move {
        loop {
            for chore in hub.take_chores() {
                chore.await;
            }
            hub.chore_added.notified().await;
        }
    });
    Bench { broker, clock, store, _folder: None }
}

async fn open_with(config: Config) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    let mut bench = open_at(folder.path(), config, clock).await;
    bench._folder = Some(folder);
    bench
}

async fn open() -> Bench {
    open_with(Config::default()).await
}

fn hello(client: &str) -> Hello {
    Hello {
        client: client.into(),
        owner: "tester".into(),
        clean_start: true,
        expiry_s: 0,
        will: None,
        receive_maximum: 100,
    }
}

fn persistent(client: &str) -> Hello {
    Hello { clean_start: false, expiry_s: 3600, ..hello(client) }
}

fn will(topic: &str, delay_s: u32) -> Will {
    Will { message: Arc::new(Message::new(topic, "gone", Qos::AtLeastOnce)), delay_s, expiry_s: None }
}

impl Bench {
    async fn welcome(&self, hello: Hello) -> Welcome {
        self.broker.connect(hello).await.unwrap()
    }

    async fn link(&self, hello: Hello) -> Link {
        self.welcome(hello).await.link
    }

    /// Everything handed to the writer so far is on disk.
    async fn synced(&self) {
        self.store.writer().commit(0, |_| Ok(())).await.unwrap();
    }
}

async fn subscribe(link: &mut Link, filter: &str, options: Options) -> Subscribed {
    let wanted = vec![Subscribe { filter: filter.into(), options }];
    let (outcomes, replay) = link.subscribe(wanted).await.unwrap();
    link.replay(replay);
    outcomes[0]
}

fn publication(payload: &'static str, qos: Qos, packet_id: u16) -> Publication {
    Publication {
        waits: false,
        payload: Bytes::from_static(payload.as_bytes()),
        qos,
        retain: false,
        packet_id,
        expiry_s: None,
        properties: Bytes::new(),
    }
}

fn send(link: &mut Link, topic: &str, publication: Publication) -> Option<Waiting> {
    let mut topic = link.topic(topic).unwrap();
    let waiting = link.publish(&mut topic, publication);
    link.wake_others();
    waiting
}

/// What the client would see, each packet in words.
fn seen(link: &mut Link) -> Vec<String> {
    let mut out = Vec::new();
    link.drain(1 << 20, &mut out);
    out.into_iter()
        .map(|packet| match packet {
            Outgoing::Publish { message, qos, packet_id, dup, retain, ids } => {
                let mut text = format!("{}={}", message.topic, String::from_utf8_lossy(&message.payload));
                if qos > Qos::AtMostOnce {
                    text += &format!(" qos{}#{packet_id}", qos as u8);
                }
                for (flag, word) in [(dup, " dup"), (retain, " retain")] {
                    text += if flag { word } else { "" };
                }
                if let Some(ids) = ids {
                    text += &format!(" ids{ids:?}");
                }
                text
            }
            Outgoing::Pubrel { packet_id } => format!("pubrel#{packet_id}"),
            Outgoing::Reply(reply) => {
                let kind = match reply.kind {
                    ReplyKind::Puback => "puback",
                    ReplyKind::Pubrec => "pubrec",
                    ReplyKind::Pubcomp => "pubcomp",
                };
                format!("{kind}#{} {:?}", reply.packet_id, reply.verdict)
            }
        })
        .collect()
}

/// Waits until the link has work, then says what it is.
async fn next_seen(link: &mut Link) -> Vec<String> {
    loop {
        let now = seen(link);
        if !now.is_empty() {
            return now;
        }
        std::future::poll_fn(|context| link.poll_work(context)).await;
    }
}

fn idle(link: &Link) -> bool {
    link.poll_work(&Context::from_waker(Waker::noop())).is_pending()
}

fn acked(link: &mut Link, packet_id: u16) -> bool {
    let known = link.acknowledged(packet_id, Acknowledgement::Puback);
    link.wake_others();
    known == Acknowledged::Taken
}
