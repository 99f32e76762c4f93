use std::time::Duration;

use super::*;
use crate::base::Receipt;
use crate::broker::{AtSessionBound, Closing, Error, Leaving, SessionLoss, losses};

const Q1: Qos = Qos::AtLeastOnce;
const Q2: Qos = Qos::ExactlyOnce;

#[tokio::test]
async fn a_persistent_session_waits_for_its_client() {
    let bench = open().await;
    let mut to = bench.link(persistent("to")).await;
    subscribe(&mut to, "t", Options::at(Q1)).await;
    to.leave(Leaving::Normal, None);
    let mut from = bench.link(hello("from")).await;
    send(&mut from, "t", publication("v", Q1, 1));
    assert_eq!(next_seen(&mut from).await, ["puback#1 Kept"]);
    let Welcome { link: mut to, session_present, .. } = bench.welcome(persistent("to")).await;
    assert!(session_present);
    assert_eq!(next_seen(&mut to).await, ["t=v qos1#1"]);
}

#[tokio::test]
async fn a_session_ends_when_its_time_is_over() {
    let bench = open().await;
    let mut to = bench.link(persistent("to")).await;
    subscribe(&mut to, "t", Options::at(Q1)).await;
    to.leave(Leaving::Normal, Some(10));
    bench.clock.advance(Duration::from_secs(11));
    bench.broker.tick();
    let mut from = bench.link(hello("from")).await;
    send(&mut from, "t", publication("v", Q1, 1));
    assert_eq!(next_seen(&mut from).await, ["puback#1 NoSubscribers"]);
    assert!(!bench.welcome(persistent("to")).await.session_present);
}

#[tokio::test]
async fn a_clean_start_forgets_the_old_session() {
    let bench = open().await;
    let mut to = bench.link(persistent("to")).await;
    subscribe(&mut to, "t", Options::at(Q1)).await;
    drop(to);
    let welcome = bench.welcome(Hello { clean_start: true, ..persistent("to") }).await;
    assert!(!welcome.session_present);
    drop(welcome);
    let welcome = bench.welcome(persistent("to")).await;
    assert!(welcome.session_present);
    let mut from = bench.link(hello("from")).await;
    send(&mut from, "t", publication("v", Q1, 1));
    assert_eq!(next_seen(&mut from).await, ["puback#1 NoSubscribers"]);
}

#[tokio::test]
async fn a_second_connection_takes_the_session_over() {
    let bench = open().await;
    let mut first = bench.link(persistent("a")).await;
    subscribe(&mut first, "t", Options::at(Q1)).await;
    let second = bench.welcome(persistent("a")).await;
    assert!(second.session_present);
    assert_eq!(first.closing(), Some(Closing::TakenOver));
    // The old connection's end must not take the session from the new one.
    drop(first);
    let (mut from, mut second) = (bench.link(hello("from")).await, second.link);
    send(&mut from, "t", publication("v", Q1, 1));
    assert_eq!(next_seen(&mut second).await, ["t=v qos1#1"]);
}

#[tokio::test]
async fn a_session_belongs_to_the_identity_that_made_it() {
    let bench = open().await;
    let _first = bench.link(persistent("a")).await;
    let stranger = Hello { owner: "stranger".into(), ..persistent("a") };
    assert!(matches!(bench.broker.connect(stranger).await, Err(Error::Owner { .. })));
}

#[tokio::test]
async fn a_will_without_delay_goes_out_when_the_connection_is_lost_only() {
    let bench = open().await;
    let mut watcher = bench.link(hello("watcher")).await;
    subscribe(&mut watcher, "will", Options::at(Q1)).await;
    bench.link(Hello { will: Some(will("will", 0)), ..hello("a") }).await.leave(Leaving::Normal, None);
    assert!(seen(&mut watcher).is_empty());
    bench.link(Hello { will: Some(will("will", 0)), ..hello("a") }).await.leave(Leaving::WithWill, None);
    assert_eq!(seen(&mut watcher), ["will=gone qos1#1"]);
    drop(bench.link(Hello { will: Some(will("will", 0)), ..hello("a") }).await);
    assert_eq!(seen(&mut watcher), ["will=gone qos1#2"]);
}

#[tokio::test]
async fn a_delayed_will_waits_and_a_reconnect_cancels_it() {
    let bench = open().await;
    let mut watcher = bench.link(hello("watcher")).await;
    subscribe(&mut watcher, "will", Options::at(Q1)).await;
    let with_will = || Hello { will: Some(will("will", 30)), ..persistent("a") };
    drop(bench.link(with_will()).await);
    bench.clock.advance(Duration::from_secs(29));
    bench.broker.tick();
    assert!(seen(&mut watcher).is_empty());
    drop(bench.link(with_will()).await);
    bench.clock.advance(Duration::from_secs(29));
    bench.broker.tick();
    assert!(seen(&mut watcher).is_empty(), "the reconnect began a new delay");
    bench.clock.advance(Duration::from_secs(1));
    bench.broker.tick();
    assert_eq!(next_seen(&mut watcher).await, ["will=gone qos1#1"]);
}

#[tokio::test]
async fn a_will_goes_out_when_the_session_ends_before_its_delay() {
    let bench = open().await;
    let mut watcher = bench.link(hello("watcher")).await;
    subscribe(&mut watcher, "will", Options::at(Q1)).await;
    drop(bench.link(Hello { will: Some(will("will", 3000)), expiry_s: 5, ..persistent("a") }).await);
    bench.clock.advance(Duration::from_secs(5));
    bench.broker.tick();
    assert_eq!(next_seen(&mut watcher).await, ["will=gone qos1#1"]);
}

#[tokio::test]
async fn the_bound_on_sessions_holds() {
    let bench = open_with(Config { sessions: 1, ..Config::default() }).await;
    let first = bench.link(hello("a")).await;
    assert!(matches!(bench.broker.connect(hello("b")).await, Err(Error::Sessions { .. })));
    drop(first);
    bench.link(hello("b")).await;
}

#[tokio::test]
async fn sessions_queues_and_retained_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    {
        let bench = open_at(folder.path(), Config::default(), clock.clone()).await;
        let mut to = bench.link(persistent("to")).await;
        subscribe(&mut to, "t/#", Options { id: Some(4), ..Options::at(Q2) }).await;
        let mut from = bench.link(hello("from")).await;
        for (packet_id, qos) in [(1, Q1), (2, Q2), (3, Q2)] {
            send(&mut from, "t/x", publication("v", qos, packet_id));
        }
        let mut answers = Vec::new();
        while answers.len() < 3 {
            answers.extend(next_seen(&mut from).await);
        }
        assert_eq!(seen(&mut to).len(), 3);
        assert_eq!(to.acknowledged(2, Acknowledgement::Pubrec), Acknowledged::Taken);
        assert_eq!(next_seen(&mut to).await, ["pubrel#2"]);
        bench.broker.publish(Message::new("state", "on", Q1).retained(), Receipt::unwatched()).await;
        bench.synced().await;
        bench.store.close();
    }
    clock.advance(Duration::from_secs(60));
    let bench = open_at(folder.path(), Config::default(), clock).await;
    let Welcome { link: mut to, session_present, .. } = bench.welcome(persistent("to")).await;
    assert!(session_present);
    assert_eq!(next_seen(&mut to).await, ["t/x=v qos1#1 dup ids[4]", "pubrel#2", "t/x=v qos2#3 dup ids[4]"]);
    subscribe(&mut to, "state", Options::at(Q1)).await;
    assert_eq!(next_seen(&mut to).await, ["state=on qos1#4 retain"]);
    let mut from = bench.link(hello("from")).await;
    send(&mut from, "t/y", publication("w", Q1, 1));
    assert_eq!(next_seen(&mut to).await, ["t/y=w qos1#5 ids[4]"]);
}

#[tokio::test]
async fn a_held_packet_id_survives_a_restart_until_it_is_released() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    {
        let bench = open_at(folder.path(), Config::default(), clock.clone()).await;
        let mut from = bench.link(persistent("from")).await;
        send(&mut from, "t", publication("v", Q2, 9));
        assert_eq!(next_seen(&mut from).await, ["pubrec#9 Kept"]);
        bench.store.close();
    }
    let bench = open_at(folder.path(), Config::default(), clock.clone()).await;
    let mut to = bench.link(hello("to")).await;
    subscribe(&mut to, "t", Options::at(Q2)).await;
    let mut from = bench.link(persistent("from")).await;
    send(&mut from, "t", publication("v", Q2, 9));
    assert_eq!(next_seen(&mut from).await, ["pubrec#9 Kept"]);
    assert!(seen(&mut to).is_empty(), "a repetition is not delivered again");
    from.pubrel(9);
    assert_eq!(next_seen(&mut from).await, ["pubcomp#9 Kept"]);
    send(&mut from, "t", publication("next", Q2, 9));
    assert_eq!(seen(&mut to), ["t=next qos2#1"]);
}

#[tokio::test]
async fn acknowledged_messages_do_not_come_back_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    {
        let bench = open_at(folder.path(), Config::default(), clock.clone()).await;
        let mut to = bench.link(persistent("to")).await;
        subscribe(&mut to, "t", Options::at(Q1)).await;
        let mut from = bench.link(hello("from")).await;
        send(&mut from, "t", publication("v", Q1, 1));
        assert_eq!(next_seen(&mut to).await, ["t=v qos1#1"]);
        assert!(acked(&mut to, 1));
        bench.synced().await;
        bench.store.close();
    }
    let bench = open_at(folder.path(), Config::default(), clock).await;
    let mut to = bench.link(persistent("to")).await;
    assert!(seen(&mut to).is_empty());
    assert_eq!(bench.broker.hub.persistent_bytes.load(std::sync::atomic::Ordering::Relaxed), 0);
}

/// Publishes `count` messages `0`, `1`, ... on `t` and waits for their answers.
async fn publish_many(bench: &Bench, count: usize) {
    let mut from = bench.link(hello("from")).await;
    for chunk in (0..count).collect::<Vec<_>>().chunks(100) {
        for (packet_id, number) in (1..).zip(chunk) {
            let payload = Bytes::from(number.to_string());
            send(&mut from, "t", Publication { payload, ..publication("", Q1, packet_id) });
        }
        let mut answers = 0;
        while answers < chunk.len() {
            answers += next_seen(&mut from).await.len();
        }
    }
}

/// Takes and acknowledges everything until `count` messages came; returns their payloads.
async fn take_many(link: &mut Link, count: usize) -> Vec<usize> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let mut out = Vec::new();
        link.drain(4000, &mut out);
        if out.is_empty() {
            std::future::poll_fn(|context| link.poll_work(context)).await;
        }
        for packet in out {
            let Outgoing::Publish { message, packet_id, .. } = packet else { panic!("{packet:?}") };
            taken.push(std::str::from_utf8(&message.payload).unwrap().parse().unwrap());
            assert!(acked(link, packet_id));
        }
    }
    taken
}

#[tokio::test]
async fn a_long_queue_costs_a_start_nothing_and_comes_back_in_order_and_once() {
    const MANY: usize = 3000;
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    {
        let bench = open_at(folder.path(), Config::default(), clock.clone()).await;
        let mut to = bench.link(persistent("to")).await;
        subscribe(&mut to, "t", Options::at(Q1)).await;
        to.leave(Leaving::Normal, None);
        publish_many(&bench, MANY).await;
        let session = bench.broker.hub.sessions()["to"].clone();
        assert_eq!(session.state().queue.rows_in_memory(), 0, "what waits for an absent client is on the disk only");
        bench.store.close();
    }
    let bench = open_at(folder.path(), Config::default(), clock).await;
    let session = bench.broker.hub.sessions()["to"].clone();
    assert_eq!(session.state().queue.rows_in_memory(), 0, "a start reads none of them");
    let bytes = session.state().queue.bytes();
    assert!((60 * MANY..80 * MANY).contains(&bytes), "{bytes} bytes are about what there is");
    let mut to = bench.link(persistent("to")).await;
    let mut taken = take_many(&mut to, MANY / 2).await;
    assert!(session.state().queue.rows_in_memory() < 1000, "a page or two");
    // What comes meanwhile is behind.
    let mut from = bench.link(hello("late")).await;
    send(&mut from, "t", Publication { payload: Bytes::from(MANY.to_string()), ..publication("", Q1, 1) });
    let left = MANY + 1 - taken.len();
    taken.extend(take_many(&mut to, left).await);
    assert!(taken.iter().copied().eq(0..=MANY), "each once and in order");
    assert!(seen(&mut to).is_empty());
    assert!(session.state().queue.is_in_memory());
    assert_eq!(bench.broker.hub.persistent_bytes.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_queued_message_whose_checksum_is_wrong_is_not_served_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    let bench = open_at(folder.path(), Config::default(), clock).await;
    let mut to = bench.link(persistent("to")).await;
    subscribe(&mut to, "t", Options::at(Q1)).await;
    to.leave(Leaving::Normal, None);
    publish_many(&bench, 6).await;
    for spoil in [
        "UPDATE broker_queue SET payload = x'39' WHERE packet_id = 2",
        "UPDATE broker_queue SET qos = 2 WHERE packet_id = 3",
        "UPDATE broker_queue SET expires_wall_ms = 77 WHERE packet_id = 5",
    ] {
        bench.store.writer().commit(0, move |tx| tx.execute(spoil, [])).await.unwrap();
    }
    let mut to = bench.link(persistent("to")).await;
    assert_eq!(take_many(&mut to, 3).await, [0, 3, 5]);
    assert_eq!(bench.broker.metrics().corrupt.get(), 3);
    bench.synced().await;
    bench.synced().await;
    let left = |c: &rusqlite::Connection| {
        Ok(c.query_row("SELECT count(*) FROM broker_queue", [], |row| row.get::<_, i64>(0))?)
    };
    assert!(bench.store.reader().read(left).await.unwrap() <= 3, "the wrong rows are gone");
}

#[tokio::test]
async fn a_session_and_its_messages_outlive_whatever_the_wall_clock_does() {
    const YEAR_MS: i64 = 365 * 24 * 3_600_000;
    for jump_ms in [-1_700_000_000_000, -10 * YEAR_MS, 3_600_000, 10 * YEAR_MS] {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        {
            let bench = open_at(folder.path(), Config::default(), clock.clone()).await;
            let mut to = bench.link(persistent("to")).await;
            subscribe(&mut to, "t", Options::at(Q1)).await;
            to.leave(Leaving::Normal, None);
            let mut from = bench.link(hello("from")).await;
            send(&mut from, "t", Publication { expiry_s: Some(600), ..publication("v", Q1, 1) });
            assert_eq!(next_seen(&mut from).await, ["puback#1 Kept"]);
            clock.set_wall_ms(1_700_000_000_000 + jump_ms);
            bench.broker.tick();
            bench.store.close();
        }
        clock.advance(Duration::from_secs(60));
        let bench = open_at(folder.path(), Config::default(), clock.clone()).await;
        bench.broker.tick();
        let Welcome { link: mut to, session_present, .. } = bench.welcome(persistent("to")).await;
        assert!(session_present, "{jump_ms}");
        assert_eq!(next_seen(&mut to).await, ["t=v qos1#1 dup"], "{jump_ms}");
        drop(to);
        clock.advance(Duration::from_secs(3601));
        bench.broker.tick();
        assert!(!bench.welcome(persistent("to")).await.session_present, "an hour is an hour");
    }
}

#[tokio::test]
async fn what_a_full_session_does_not_get_is_in_the_ledger_before_the_publisher_is_acknowledged() {
    let bench = open_with(Config { queue_messages: 2, ..Config::default() }).await;
    let mut to = bench.link(persistent("to")).await;
    subscribe(&mut to, "t", Options::at(Q1)).await;
    drop(to);
    let mut from = bench.link(hello("from")).await;
    for packet_id in 1..=5 {
        send(&mut from, "t", publication("v", Q1, packet_id));
        assert_eq!(next_seen(&mut from).await, [format!("puback#{packet_id} Kept")]);
        bench.clock.advance(Duration::from_secs(1));
    }
    let losses = bench.store.reader().read(|connection| losses(connection, 10)).await.unwrap();
    let first_ms = 1_700_000_002_000;
    let lost = SessionLoss { client: "to".to_owned(), messages: 3, first_ms, last_ms: first_ms + 2000 };
    assert_eq!(losses, [lost]);
}

#[tokio::test]
async fn a_full_session_may_be_configured_to_refuse_and_then_nobody_has_the_message() {
    let config = Config { queue_messages: 1, at_session_bound: AtSessionBound::Refuse, ..Config::default() };
    let bench = open_with(config).await;
    let mut to = bench.link(persistent("to")).await;
    subscribe(&mut to, "t", Options::at(Q1)).await;
    drop(to);
    let mut watcher = bench.link(hello("watcher")).await;
    subscribe(&mut watcher, "t", Options::at(Qos::AtMostOnce)).await;
    let mut from = bench.link(hello("from")).await;
    send(&mut from, "t", publication("one", Q1, 1));
    send(&mut from, "t", publication("two", Q1, 2));
    send(&mut from, "t", publication("two", Q2, 3));
    assert_eq!(next_seen(&mut from).await, ["puback#1 Kept", "puback#2 Refused(Full)", "pubrec#3 Refused(Full)"]);
    assert_eq!(seen(&mut watcher), ["t=one"]);
    let Welcome { link: mut to, .. } = bench.welcome(persistent("to")).await;
    assert_eq!(next_seen(&mut to).await, ["t=one qos1#1"]);
    assert!(bench.store.reader().read(|connection| losses(connection, 10)).await.unwrap().is_empty());
}
