//! What a file that was set aside gives back, and what stays as it has become since.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::broker::{Acknowledgement, losses};
use crate::store::Wreck;

/// Messages that wait for each absent client.
const WAITING: u16 = 300;

fn spread_hello(client: &str) -> Hello {
    Hello { expiry_s: u32::MAX, ..persistent(client) }
}

/// Two absent clients with subscriptions and messages, one of which was in the middle of QoS 2, and retained messages;
/// as a kill leaves it.
async fn killed(folder: &Path) {
    let living = tempfile::tempdir().unwrap();
    let bench = open_at(living.path(), Config::default(), clock()).await;
    for (client, filter) in [("shelf", "plant/#"), ("dock", "plant/#")] {
        let mut link = bench.link(spread_hello(client)).await;
        subscribe(&mut link, filter, Options { id: Some(7), ..Options::at(Qos::ExactlyOnce) }).await;
        if client == "shelf" {
            let mut sender = bench.link(hello("sender")).await;
            for (packet_id, payload) in [(1, "first"), (2, "second")] {
                send(&mut sender, "plant/press", publication(payload, Qos::ExactlyOnce, packet_id));
            }
            let mut seen = 0;
            while seen < 2 {
                seen += next_seen(&mut link).await.len();
            }
            // The first is with its client, the second is on its way.
            link.acknowledged(1, Acknowledgement::Pubrec);
            bench.synced().await;
        }
    }
    let mut sender = bench.link(hello("sender")).await;
    for packet_id in 1..=WAITING {
        let payload: &'static str = Box::leak(format!("message {packet_id}").into_boxed_str());
        if let Some(waiting) = send(&mut sender, "plant/press", publication(payload, Qos::AtLeastOnce, packet_id)) {
            waiting.await;
        }
        if packet_id == WAITING / 2 {
            bench.synced().await;
            next_seen(&mut sender).await;
        }
    }
    for (topic, payload) in [("state/press", "running"), ("state/oven", "hot"), ("state/door", "open")] {
        let publication = Publication { retain: true, ..publication(payload, Qos::AtLeastOnce, 9) };
        send(&mut sender, topic, publication);
    }
    bench.synced().await;
    for name in ["forebay.db", "forebay.db-wal", "epoch"] {
        std::fs::copy(living.path().join(name), folder.join(name)).unwrap();
    }
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(1_700_000_000_000))
}

/// The next start: the file is set aside.
#[allow(clippy::disallowed_methods, reason = "tests spoil files on purpose")]
async fn next_start(folder: &Path) -> (Bench, Wreck) {
    std::fs::write(folder.join("forebay.db.corrupt"), b"").unwrap();
    start(folder).await
}

async fn start(folder: &Path) -> (Bench, Wreck) {
    let bench = open_at(folder, Config::default(), clock()).await;
    let wrecks = bench.store.wrecks();
    assert_eq!(wrecks.len(), 1);
    (bench, wrecks.into_iter().next().unwrap())
}

/// Everything that waits for a client, answered as a client would.
async fn receive(link: &mut Link) -> Vec<String> {
    let mut all = Vec::new();
    // A row of its own marks the end: it comes behind everything that waits.
    while !all.last().is_some_and(|text: &String| text.contains("=the end")) {
        for text in next_seen(link).await {
            let id = |text: &str| text.split('#').nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u16>().ok());
            if text.contains("qos1#") {
                link.acknowledged(id(&text).unwrap(), Acknowledgement::Puback);
            } else if text.contains("qos2#") {
                link.acknowledged(id(&text).unwrap(), Acknowledgement::Pubrec);
            } else if text.starts_with("pubrel#") {
                link.acknowledged(id(&text).unwrap(), Acknowledgement::Pubcomp);
            }
            link.wake_others();
            all.push(text);
        }
    }
    all
}

async fn end(bench: &Bench) {
    let (told, heard) = tokio::sync::oneshot::channel();
    let receipt = crate::base::Receipt::new(move |outcome| told.send(outcome).unwrap());
    let message = Message::new("plant/end", "the end", Qos::AtLeastOnce);
    bench.broker.publish(message, receipt).await;
    heard.await.unwrap().unwrap();
}

async fn lost(bench: &Bench) -> Vec<(String, u64)> {
    let read = |connection: &rusqlite::Connection| losses(connection, 100);
    let losses = bench.store.reader().read(read).await.unwrap();
    losses.into_iter().map(|loss| (loss.client, loss.messages)).collect()
}

fn retained(bench: &Bench) -> Vec<(String, String)> {
    let filter = crate::broker::topic::Filter::parse("state/#").unwrap();
    let found = bench.broker.hub.retained.matching(filter, std::time::Duration::ZERO);
    found
        .iter()
        .map(|message| (message.topic.to_string(), String::from_utf8(message.payload.to_vec()).unwrap()))
        .collect()
}

#[tokio::test]
async fn sessions_their_messages_and_retained_ones_come_back_as_if_nothing_had_happened() {
    let folder = tempfile::tempdir().unwrap();
    killed(folder.path()).await;
    let (bench, wreck) = next_start(folder.path()).await;
    assert!(retained(&bench).is_empty());
    let salvaged = bench.broker.salvage(&wreck).await.unwrap();
    // 300 for each, the two of QoS 2, three retained ones.
    assert_eq!((salvaged.messages, salvaged.lost, salvaged.is_whole), (2 * 300 + 2 + 3, 0, true));
    assert_eq!(retained(&bench).len(), 3);
    assert_eq!(bench.broker.salvage(&wreck).await.unwrap(), salvaged, "done is done");
    drop(bench);
    // And they are this file's now.
    let (bench, wreck) = start(folder.path()).await;
    assert_eq!(bench.broker.salvage(&wreck).await.unwrap(), salvaged);
    assert_eq!(retained(&bench).len(), 3);
    end(&bench).await;
    for client in ["shelf", "dock"] {
        let welcome = bench.welcome(spread_hello(client)).await;
        assert!(welcome.session_present, "its client need not subscribe again");
        let mut link = welcome.link;
        let seen = receive(&mut link).await;
        let texts: Vec<&String> = seen.iter().filter(|text| text.contains("=message")).collect();
        assert_eq!(texts.len(), usize::from(WAITING), "{seen:?}");
        assert!(texts[0].contains("=message 1 ") && texts[299].contains("=message 300 "), "in order");
        assert!(texts[0].contains("ids[7]"));
        if client == "shelf" {
            assert_eq!(seen[0], "pubrel#1", "it has the first one");
            assert!(seen[1].starts_with("plant/press=second qos2#2 dup"), "{}", seen[1]);
        }
    }
    assert_eq!(lost(&bench).await, []);
}

#[tokio::test]
async fn a_client_that_came_back_first_keeps_its_new_session_and_gets_what_waited_on_top() {
    let folder = tempfile::tempdir().unwrap();
    killed(folder.path()).await;
    let (bench, wreck) = next_start(folder.path()).await;
    let welcome = bench.welcome(spread_hello("shelf")).await;
    assert!(!welcome.session_present);
    let mut shelf = welcome.link;
    subscribe(&mut shelf, "other/#", Options::at(Qos::AtLeastOnce)).await;
    // This one wants nothing of the past.
    let dock = bench.link(Hello { clean_start: true, ..spread_hello("dock") }).await;
    dock.leave(crate::broker::Leaving::Normal, None);
    // Said since: a newer state, and that there is none.
    let mut sender = bench.link(hello("sender")).await;
    for (topic, payload) in [("state/oven", "cold"), ("state/door", "")] {
        send(&mut sender, topic, Publication { retain: true, ..publication(payload, Qos::AtLeastOnce, 9) });
    }
    bench.synced().await;
    let salvaged = bench.broker.salvage(&wreck).await.unwrap();
    assert_eq!((salvaged.lost, salvaged.is_whole), (0, true));
    bench.broker.salvage_ends();
    let pair = |topic: &str, payload: &str| (topic.to_owned(), payload.to_owned());
    assert_eq!(retained(&bench), [pair("state/oven", "cold"), pair("state/press", "running")]);
    let message = Message::new("other/end", "the end", Qos::AtLeastOnce);
    bench.broker.publish(message, crate::base::Receipt::unwatched()).await;
    let seen = receive(&mut shelf).await;
    let count = |word: &str| seen.iter().filter(|text| text.contains(word)).count();
    assert_eq!((count("=message"), count("=second"), count("=first")), (300, 1, 0), "the first one is with it already");
    shelf.leave(crate::broker::Leaving::Normal, None);
    bench.synced().await;
    drop((sender, bench));
    // The new session won: what it subscribed to is what it has.
    let (bench, _) = start(folder.path()).await;
    let welcome = bench.welcome(spread_hello("shelf")).await;
    assert!(welcome.session_present);
    let subscriptions = bench.broker.hub.sessions()["shelf"].state().subscriptions.keys().cloned().collect::<Vec<_>>();
    assert_eq!(subscriptions, ["other/#".into()]);
    assert!(bench.broker.hub.sessions()["dock"].state().subscriptions.is_empty());
    assert_eq!(lost(&bench).await, []);
}

#[tokio::test]
async fn a_salvage_of_sessions_that_is_cut_off_at_any_commit_goes_on_with_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    killed(folder.path()).await;
    let (mut bench, mut wreck) = next_start(folder.path()).await;
    let mut cuts = 0;
    for commits in 0..60 {
        let before = bench.store.metrics().commits_done();
        let cut = std::future::poll_fn(|context| {
            let done = bench.store.metrics().commits_done() - before >= commits / 4;
            if !done {
                context.waker().wake_by_ref();
            }
            if done { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        });
        let is_cut = tokio::select! {
            biased;
            () = cut => true,
            salvaged = bench.broker.salvage(&wreck) => { salvaged.unwrap(); false }
        };
        cuts += u64::from(is_cut);
        drop(bench);
        (bench, wreck) = start(folder.path()).await;
        if !is_cut {
            break;
        }
        // Tries are bounded; this test is about the others.
        let again = |tx: &store::Tx<'_>| {
            tx.execute(
                "UPDATE broker_salvage SET tries = 0,
                 crc = row_crc('broker_salvage', file, 0, gathered, done, messages, lost)",
                [],
            )
        };
        bench.store.writer().commit(0, again).await.unwrap();
    }
    assert!(cuts > 10, "{cuts}");
    bench.broker.salvage(&wreck).await.unwrap();
    end(&bench).await;
    for client in ["shelf", "dock"] {
        let welcome = bench.welcome(spread_hello(client)).await;
        assert!(welcome.session_present);
        let mut link = welcome.link;
        let seen = receive(&mut link).await;
        let messages: Vec<&String> = seen.iter().filter(|text| text.contains("=message")).collect();
        assert_eq!(messages.len(), usize::from(WAITING));
        assert_eq!(messages.iter().collect::<BTreeSet<_>>().len(), usize::from(WAITING), "none twice");
    }
    assert_eq!((lost(&bench).await, retained(&bench).len()), (Vec::new(), 3));
}

#[tokio::test]
#[allow(clippy::disallowed_methods, reason = "tests spoil files on purpose")]
async fn whatever_became_of_the_file_what_is_left_reaches_its_clients_and_the_rest_is_named() {
    const PAGE: usize = 4096;
    type Spoil = fn(&mut Vec<u8>, &mut Vec<u8>);
    let spoils: [(&str, Spoil); 5] = [
        ("the header is zeros", |database, log| {
            database[..PAGE.min(4096)].fill(0);
            let pages = (log.len() - 32) / (24 + PAGE);
            for frame in 0..pages {
                let at = 32 + frame * (24 + PAGE);
                if log[at..at + 4] == [0, 0, 0, 1] {
                    log[at + 24..at + 24 + PAGE].fill(0);
                }
            }
        }),
        ("the log is gone", |_, log| log.clear()),
        ("one page in three is zeros", |database, log| {
            database.chunks_mut(PAGE).skip(1).step_by(3).for_each(|page| page.fill(0));
            log[32..].chunks_exact_mut(24 + PAGE).skip(1).step_by(3).for_each(|frame| frame[24..].fill(0));
        }),
        ("one bit in each page", |database, log| {
            for (number, page) in database.chunks_mut(PAGE).enumerate() {
                page[(number * 911) % PAGE] ^= 1 << (number % 8);
            }
            for (number, frame) in log[32..].chunks_exact_mut(24 + PAGE).enumerate() {
                frame[24 + (number * 677) % PAGE] ^= 1 << (number % 8);
            }
        }),
        ("everything is gone", |database, log| {
            database.fill(0);
            log.clear();
        }),
    ];
    let original = tempfile::tempdir().unwrap();
    killed(original.path()).await;
    let read = |name: &str| std::fs::read(original.path().join(name)).unwrap();
    let good: BTreeSet<String> = (1..=WAITING).map(|n| format!("message {n}")).collect();
    for (what, spoil) in spoils {
        let folder = tempfile::tempdir().unwrap();
        let (mut database, mut log) = (read("forebay.db"), read("forebay.db-wal"));
        spoil(&mut database, &mut log);
        std::fs::write(folder.path().join("forebay.db"), &database).unwrap();
        if !log.is_empty() {
            std::fs::write(folder.path().join("forebay.db-wal"), &log).unwrap();
        }
        std::fs::copy(original.path().join("epoch"), folder.path().join("epoch")).unwrap();
        let (bench, wreck) = next_start(folder.path()).await;
        let salvaged = bench.broker.salvage(&wreck).await.unwrap();
        let sessions: Vec<Arc<str>> = bench.broker.hub.sessions().keys().cloned().collect();
        for client in &sessions {
            let welcome = bench.welcome(spread_hello(client)).await;
            let mut link = welcome.link;
            subscribe(&mut link, "plant/#", Options::at(Qos::AtLeastOnce)).await;
            end(&bench).await;
            for text in receive(&mut link).await.iter().filter(|text| text.contains("=message")) {
                let payload = text.split(['=']).nth(1).unwrap().split(" qos").next().unwrap();
                assert!(good.contains(payload), "{what}: {text}");
            }
        }
        let named: u64 = lost(&bench).await.iter().map(|(_, messages)| messages).sum();
        assert_eq!(named, salvaged.lost, "{what}");
        match what {
            "the header is zeros" => {
                assert_eq!((salvaged.messages, sessions.len()), (605, 2), "{what}: {salvaged:?}");
            }
            "everything is gone" => assert_eq!((salvaged.messages, sessions.len()), (0, 0)),
            "the log is gone" => {}
            _ => assert!(salvaged.messages > 100 && !salvaged.is_whole, "{what}: {salvaged:?}"),
        }
    }
}
