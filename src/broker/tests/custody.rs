use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::base::Refusal;
use crate::broker::{Tap, TapMessage, TapResult};

const Q1: Qos = Qos::AtLeastOnce;
const Q2: Qos = Qos::ExactlyOnce;

/// Takes everything under `read/` and answers when the test says so.
#[derive(Default)]
struct HeldTap {
    taken: Mutex<Vec<TapMessage>>,
    busy: AtomicBool,
    room: tokio::sync::Notify,
}

impl Tap for HeldTap {
    fn wants(&self, topic: &str) -> bool {
        topic.starts_with("read/")
    }

    fn take(&self, message: TapMessage) -> TapResult {
        if self.busy.load(Ordering::SeqCst) {
            return TapResult::Busy(message);
        }
        self.taken.lock().unwrap().push(message);
        TapResult::Taken
    }

    fn room(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            while self.busy.load(Ordering::SeqCst) {
                self.room.notified().await;
            }
        })
    }
}

impl HeldTap {
    fn next(&self) -> TapMessage {
        self.taken.lock().unwrap().remove(0)
    }
}

async fn tapped() -> (Bench, Arc<HeldTap>) {
    let bench = open().await;
    let tap = Arc::new(HeldTap::default());
    bench.broker.attach(tap.clone());
    (bench, tap)
}

#[tokio::test]
async fn nothing_is_acknowledged_before_the_tap_has_kept_it() {
    let (bench, tap) = tapped().await;
    let mut from = bench.link(hello("from")).await;
    send(&mut from, "read/a", publication("1", Q1, 1));
    send(&mut from, "elsewhere", publication("2", Q1, 2));
    assert!(seen(&mut from).is_empty(), "the second answer waits for the first");
    tap.next().receipt.kept();
    assert!(!idle(&from));
    assert_eq!(seen(&mut from), ["puback#1 Kept", "puback#2 NoSubscribers"]);
}

#[tokio::test]
async fn a_refusal_of_the_tap_is_the_answer() {
    let (bench, tap) = tapped().await;
    let mut from = bench.link(hello("from")).await;
    send(&mut from, "read/a", publication("1", Q1, 1));
    send(&mut from, "read/a", publication("2", Q2, 2));
    tap.next().receipt.refuse(Refusal::Payload);
    drop(tap.next());
    assert_eq!(next_seen(&mut from).await, ["puback#1 Refused(Payload)", "pubrec#2 Refused(Dropped)"]);
    // A refused QoS 2 message is not held: the client may send it again.
    send(&mut from, "read/a", publication("2", Q2, 2));
    tap.next().receipt.kept();
    assert_eq!(next_seen(&mut from).await, ["pubrec#2 Kept"]);
}

#[tokio::test]
async fn a_persistent_publishers_packet_id_commits_with_the_reading_or_not_at_all() {
    let (bench, tap) = tapped().await;
    let mut from = bench.link(persistent("from")).await;
    send(&mut from, "read/a", publication("v", Q2, 3));
    let message = tap.next();
    assert!(message.within.is_some());
    message.receipt.kept();
    drop(message.within);
    assert_eq!(next_seen(&mut from).await, ["pubrec#3 Refused(Dropped)"], "its rows were not written");
    send(&mut from, "read/a", publication("v", Q2, 3));
    let TapMessage { within, receipt, .. } = tap.next();
    let writer = bench.store.writer();
    writer.commit(64, move |tx| within.unwrap().run(tx)).await.unwrap();
    receipt.kept();
    assert_eq!(next_seen(&mut from).await, ["pubrec#3 Kept"]);
    let held: i64 = bench
        .store
        .reader()
        .read(|connection| Ok(connection.query_row("SELECT count(*) FROM broker_incoming", [], |row| row.get(0))?))
        .await
        .unwrap();
    assert_eq!(held, 1);
}

#[tokio::test]
async fn a_busy_tap_slows_qos_1_and_drops_qos_0_with_a_count() {
    let (bench, tap) = tapped().await;
    let mut from = bench.link(hello("from")).await;
    tap.busy.store(true, Ordering::SeqCst);
    assert!(send(&mut from, "read/a", publication("0", Qos::AtMostOnce, 0)).is_none());
    assert_eq!(bench.broker.metrics().dropped_tap.get(), 1);
    let waiting = send(&mut from, "read/a", publication("1", Q1, 1)).expect("it waits");
    tap.busy.store(false, Ordering::SeqCst);
    tap.room.notify_waiters();
    waiting.await;
    tap.next().receipt.kept();
    assert_eq!(seen(&mut from), ["puback#1 Kept"]);
}

#[tokio::test]
async fn a_repetition_while_the_first_is_undecided_is_answered_with_it() {
    let (bench, tap) = tapped().await;
    let mut from = bench.link(persistent("from")).await;
    send(&mut from, "read/a", publication("v", Q2, 3));
    // The connection breaks; the client comes back and repeats.
    drop(from);
    let mut from = bench.link(persistent("from")).await;
    send(&mut from, "read/a", publication("v", Q2, 3));
    let TapMessage { within, receipt, .. } = tap.next();
    assert!(tap.taken.lock().unwrap().is_empty(), "the tap sees it once");
    bench.store.writer().commit(64, move |tx| within.unwrap().run(tx)).await.unwrap();
    receipt.kept();
    assert_eq!(next_seen(&mut from).await, ["pubrec#3 Kept"]);
}

#[tokio::test]
async fn publishes_from_inside_reach_clients_but_no_stream() {
    let (bench, tap) = tapped().await;
    let mut to = bench.link(hello("to")).await;
    subscribe(&mut to, "#", Options::at(Q1)).await;
    let (tell, told) = tokio::sync::oneshot::channel();
    let receipt = crate::base::Receipt::new(move |outcome| tell.send(outcome).unwrap());
    bench.broker.publish(Message::new("read/alert", "x", Q1).retained(), receipt).await;
    assert_eq!(told.await.unwrap(), Ok(()));
    assert!(tap.taken.lock().unwrap().is_empty());
    assert_eq!(seen(&mut to), ["read/alert=x qos1#1"]);
}
