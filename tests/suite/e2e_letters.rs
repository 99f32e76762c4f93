//! What a gateway on a JetStream hears: receipts and requests while it listens, its letterbox after it was away, and
//! nothing that does harm.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use async_nats::jetstream;
use forebay::flows::record::RawRecord;
use forebay::flows::{Address, SyncConfig};
use forebay::inbox;
use forebay::outbox::Class;
use forebay::uplink::{Config, Ears, JetStreamUplink};
use rusqlite::OpenFlags;
use serde_json::Value;

use crate::chaos::{Chaos, Fault};
use crate::collecting::{Collecting, publish, received, report, until_sent};
use crate::fleet::{Collector, Gateway as Queue, brisk, clock, name};
use crate::fleet_faults::site_and_hub;
use crate::gateway::{Gateway, PRESS, VERDICTS, forebay, forebay_says, http, loopback, poll};
use crate::link_kinds::{collect_stream, collect_stream_over};
use crate::nats_server::{NatsServer, Setup, fleet_stream, impatient, in_domain};

/// A gateway that sends soon and waits two seconds for a receipt.
fn link(port: u16, more: &str) -> String {
    format!(
        "[cloud]\nkind = \"nats\"\nport = {port}\nconnect_timeout_ms = 1000\nanswer_timeout_ms = 2000\n\
         [sync]\ntenant = \"plant\"\nbatch_rows = 50\nlinger_ms = 10\nretry_first_ms = 10\nretry_most_ms = 100\n\
         receipt_timeout_ms = 2000\n{more}\n{PRESS}{VERDICTS}"
    )
}

fn counter(gateway: &Gateway, name: &str) -> u64 {
    let (status, text) = http(gateway.http, "GET", "/metrics", "", "").unwrap();
    assert_eq!(status, 200, "{text}");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

fn queued(gateway: &Gateway) -> u64 {
    gateway.get("/api/v1/queue")["rows"].as_u64().unwrap()
}

/// The stream's answers so far.
fn taken(gateway: &Gateway) -> u64 {
    counter(gateway, "forebay_uplink_acknowledged_messages_total")
}

/// What the receiver holds, which may not have begun yet.
fn arrived(state: &Path) -> Vec<u64> {
    let begun = rusqlite::Connection::open_with_flags(state.join("forebay.db"), OpenFlags::SQLITE_OPEN_READ_ONLY)
        .is_ok_and(|database| database.prepare("SELECT 1 FROM inbox_row").is_ok());
    if begun { received(state) } else { Vec::new() }
}

async fn client(server: &NatsServer) -> async_nats::Client {
    async_nats::connect(loopback(server.port()).to_string()).await.unwrap()
}

/// Messages in a stream, and how many it ever took.
async fn state(server: &NatsServer, stream: &str) -> (u64, u64) {
    let context = jetstream::new(client(server).await);
    match context.get_stream(stream).await {
        Ok(mut stream) => {
            let state = &stream.info().await.unwrap().state;
            (state.messages, state.last_sequence)
        }
        Err(_) => (0, 0),
    }
}

async fn until_state(server: &NatsServer, stream: &str, messages: u64) {
    let wait = async {
        while state(server, stream).await.0 != messages {
            tokio::task::yield_now().await;
        }
    };
    let late = tokio::time::timeout(Duration::from_secs(60), wait).await.is_err();
    assert!(!late, "{stream} never held {messages}: {:?}", state(server, stream).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_collector_killed_between_its_effect_and_its_receipt_repeats_the_receipt() {
    let nats = NatsServer::start();
    nats.stream().await;
    let folder = tempfile::tempdir().unwrap();
    // Asking for streams, the consumer and messages is short; once messages have come, this side is mute.
    let line = Chaos::before(nats.port()).await;
    line.plan([Fault::MuteOnceTold(6000)]);
    let mut collecting = Collecting::of_stream(loopback(line.port()), folder.path(), &[]);
    let gateway = Gateway::start(&link(nats.port(), "compress = false"));
    publish(&gateway, 1..201);
    poll("everything is committed", || (arrived(folder.path()).len() == 200).then_some(()));
    assert!(queued(&gateway) > 0, "committed is not confirmed");
    collecting.kill();
    collecting.restart_from(loopback(nats.port()));
    until_sent(&gateway);
    let (code, stdout) = report(folder.path());
    assert_eq!((code, received(folder.path()).len()), (Some(0), 200), "{stdout}");
    let press = stdout.lines().find(|line| line.contains("verdict/press")).unwrap();
    assert!(!press.ends_with(" 0 repeated"), "nothing came twice: {stdout}");
}

/// Gives how many of 200 readings the receiver has after the stream had acknowledged them all and dropped them.
async fn after_a_purge(acknowledged_by: &str) -> (Vec<u64>, (Option<i32>, String)) {
    let nats = NatsServer::start();
    nats.stream().await;
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(&link(nats.port(), &format!("acknowledged_by = \"{acknowledged_by}\"")));
    publish(&gateway, 1..201);
    if acknowledged_by == "broker" {
        until_sent(&gateway);
    } else {
        poll("the stream has everything", || (taken(&gateway) >= 4).then_some(()));
        assert!(queued(&gateway) >= 200, "nothing leaves the queue on the stream's word");
    }
    jetstream::new(client(&nats).await).get_stream("FLEET").await.unwrap().purge().await.unwrap();
    let collecting = Collecting::of_stream(loopback(nats.port()), folder.path(), &[]);
    if acknowledged_by == "broker" {
        publish(&gateway, 201..202);
    }
    until_sent(&gateway);
    poll("the receiver has what was sent", || {
        let has = arrived(folder.path());
        (has.len() >= 200 || has.last() == Some(&201)).then_some(())
    });
    drop(collecting);
    (received(folder.path()), report(folder.path()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_purged_stream_forgot_is_sent_again_and_nothing_is_missing() {
    let (received, (code, report)) = after_a_purge("receiver").await;
    assert_eq!(received, (1..201).collect::<Vec<_>>());
    assert_eq!(code, Some(0), "{report}");
}

/// The negative control: the test above sees a loss where there is one, and so does the report.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_the_streams_word_a_purge_loses_rows_and_the_report_says_so() {
    let (received, (code, report)) = after_a_purge("broker").await;
    assert!(received.len() < 201, "nothing was lost");
    assert_eq!(code, Some(1), "{report}");
    assert!(report.contains("MISSING, and nobody says why: "), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stream_that_keeps_too_little_costs_repetitions_and_no_row() {
    let nats = NatsServer::start();
    let narrow = r#"{"name":"FLEET","subjects":["fleet.v1.>"],"retention":"limits","discard":"old","max_msgs":2,"storage":"file","num_replicas":1}"#;
    fleet_stream(nats.port(), None, narrow).await;
    let gateway = Gateway::start(&link(nats.port(), ""));
    publish(&gateway, 1..401);
    poll("the stream has dropped most of it", || (taken(&gateway) >= 8).then_some(()));
    let folder = tempfile::tempdir().unwrap();
    let collecting = Collecting::of_stream(loopback(nats.port()), folder.path(), &[]);
    until_sent(&gateway);
    assert_eq!(received(folder.path()), (1..401).collect::<Vec<_>>());
    assert_eq!(report(folder.path()).0, Some(0));
    drop(collecting);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_gateway_killed_before_its_receipts_came_sends_again_and_two_collectors_confirm() {
    let nats = NatsServer::start();
    nats.stream().await;
    let folder = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::start(&link(nats.port(), ""));
    publish(&gateway, 1..201);
    poll("the stream has everything", || (taken(&gateway) >= 4).then_some(()));
    gateway.kill();
    // A SQLite file has one writer: the second collector takes over from the first.
    let mut first = Collecting::of_stream(loopback(nats.port()), folder.path(), &[]);
    until_state(&nats, "FLEET", 0).await;
    let confirmed = arrived(folder.path()).len();
    assert!(confirmed > 0, "something was committed while its sender was dead");
    gateway.restart();
    publish(&gateway, 201..301);
    first.kill();
    let second = Collecting::of_stream(loopback(nats.port()), folder.path(), &[]);
    until_sent(&gateway);
    poll("each reading is there", || (received(folder.path()).len() >= 300).then_some(()));
    assert_eq!(received(folder.path()), (1..301).collect::<Vec<_>>(), "each once");
    assert_eq!(report(folder.path()).0, Some(0));
    drop(second);
}

fn listening(link: Config, sync: &SyncConfig) -> JetStreamUplink {
    let receipts = Address::receipts(&sync.tenant, &name("press-7"));
    let ears = Ears { filters: vec![receipts.clone()], response_topic: Some(receipts), answers: None };
    JetStreamUplink::new(link, "press-7", clock()).unwrap().listening(ears)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_gateway_that_was_away_finds_its_receipts_in_its_letterbox_and_sends_nothing_again() {
    let nats = NatsServer::start();
    nats.stream().await;
    let (up, sender, receiver) =
        (Chaos::before(nats.port()).await, tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let queue = Queue::open(sender.path(), "press-7");
    let stream = queue.stream(Class::Raw, "temperature");
    queue.append(stream, (0..200_u8).map(|row| vec![row])).await;
    // Nothing is sent again for want of a receipt while this test runs.
    let patient = SyncConfig { receipt_timeout_ms: 600_000, receipt_most_ms: 600_000, ..brisk() };
    let sync = queue.sync(listening(impatient(up.port()), &patient), patient);
    until_state(&nats, "FLEET", 4).await;
    up.shut();
    let cloud = client(&nats).await;
    let nobody = |error: async_nats::RequestError| error.kind() == async_nats::RequestErrorKind::NoResponders;
    while !cloud.request("cloud.v1.acme.press-7.receipt", "is somebody there?".into()).await.is_err_and(nobody) {}
    assert_eq!(queue.rows(), 200);
    let collector = Collector::open(receiver.path());
    let collect = collect_stream(&collector, nats.port());
    collector.received(200).await;
    until_state(&nats, "FLEET-LETTERS", 4).await;
    assert_eq!(queue.rows(), 200, "nobody told it yet");
    up.open();
    queue.drained().await;
    assert_eq!((sync.metrics.receipts.get(), sync.metrics.resent.get()), (4, 0));
    assert_eq!(state(&nats, "FLEET").await.1, 4, "nothing was sent again");
    until_state(&nats, "FLEET-LETTERS", 0).await;
    // Who listens needs no letters.
    queue.append(stream, (0..50_u8).map(|row| vec![row])).await;
    queue.drained().await;
    assert_eq!(state(&nats, "FLEET-LETTERS").await, (0, 4));
    sync.stop().await;
    collect.stop().await;
    assert_eq!(collector.report().await.duplicates(), 0);
}

/// Behind a leaf node with a stream of its own: rows go into the site's stream, letters lie at the hub.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_gateway_at_a_site_with_a_stream_finds_its_letters_at_the_hub() {
    let hub = NatsServer::with(Setup { domain: Some("hub"), ..Setup::default() });
    let leaf = NatsServer::with(Setup { domain: Some("leaf"), leaf_of: Some(hub.leaf_port()), ..Setup::default() });
    site_and_hub(&leaf, &hub).await;
    let (up, sender, receiver) =
        (Chaos::before(leaf.port()).await, tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let queue = Queue::open(sender.path(), "press-7");
    let stream = queue.stream(Class::Raw, "temperature");
    queue.append(stream, (0..200_u8).map(|row| vec![row])).await;
    let patient = SyncConfig { receipt_timeout_ms: 600_000, receipt_most_ms: 600_000, ..brisk() };
    let mut link = in_domain("leaf", impatient(up.port()));
    link.nats.as_mut().unwrap().letters_domain = Some(name("hub"));
    let sync = queue.sync(listening(link, &patient), patient);
    until_state(&hub, "FLEET", 4).await;
    up.shut();
    let cloud = client(&hub).await;
    let nobody = |error: async_nats::RequestError| error.kind() == async_nats::RequestErrorKind::NoResponders;
    while !cloud.request("cloud.v1.acme.press-7.receipt", "is somebody there?".into()).await.is_err_and(nobody) {}
    let collector = Collector::open(receiver.path());
    let collect = collect_stream_over(&collector, in_domain("hub", impatient(hub.port())));
    collector.received(200).await;
    until_state(&hub, "FLEET-LETTERS", 4).await;
    assert_eq!((queue.rows(), state(&leaf, "FLEET-LETTERS").await), (200, (0, 0)));
    up.open();
    queue.drained().await;
    assert_eq!((sync.metrics.receipts.get(), sync.metrics.resent.get()), (4, 0));
    until_state(&hub, "FLEET-LETTERS", 0).await;
    sync.stop().await;
    collect.stop().await;
    assert_eq!(collector.report().await.duplicates(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_the_receiver_refuses_stays_at_the_gateway_and_does_not_pile_up_in_the_stream() {
    let nats = NatsServer::start();
    nats.stream().await;
    let (sender, receiver) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut collector = Collector::open(receiver.path());
    collector.inbox = inbox::Inbox::new(inbox::Config { max_series: 1, ..inbox::Config::default() });
    let collect = collect_stream(&collector, nats.port());
    let queue = Queue::open(sender.path(), "press-7");
    let sync = queue.sync(listening(nats.link(), &brisk()), brisk());
    queue.append(queue.stream(Class::Raw, "temperature"), (0..50_u8).map(|row| vec![row])).await;
    queue.drained().await;
    queue.append(queue.stream(Class::Raw, "pressure"), (0..50_u8).map(|row| vec![row])).await;
    let refused = async {
        while collect.metrics.refused.get() < 5 {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(60), refused).await.is_ok(), "it is not tried again");
    assert_eq!(queue.rows(), 50, "nobody has it");
    sync.stop().await;
    until_state(&nats, "FLEET", 0).await;
    collect.stop().await;
    assert_eq!(collector.report().await.received(), 50);
}

/// Exit code and the answer.
fn ask(nats: &NatsServer, more: &[&str]) -> (Option<i32>, Value, String) {
    let server = loopback(nats.port()).to_string();
    let (code, stdout, stderr) = forebay_says(&[&asking(&server)[..], more].concat());
    (code, serde_json::from_str(&stdout).unwrap_or_default(), stderr)
}

fn asking(server: &str) -> [&str; 10] {
    ["request", "raw", "--nats", server, "--tenant", "plant", "--gateway", "test-box", "--stream", "press"]
}

/// The rows of class `raw` that the receiver holds.
fn raw(state: &Path) -> Vec<RawRecord> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let database = rusqlite::Connection::open_with_flags(state.join("forebay.db"), flags).unwrap();
    let mut rows = database
        .prepare("SELECT body FROM inbox_row JOIN inbox_series USING (series_no) WHERE class = 'raw' ORDER BY seq")
        .unwrap();
    let bodies = rows.query_map([], |row| row.get::<_, Vec<u8>>(0)).unwrap();
    bodies.map(|body| ciborium::from_reader(body.unwrap().as_slice()).unwrap()).collect()
}

const ALL: [&str; 4] = ["--from", "0", "--to", "99999999999999"];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_the_cloud_asks_for_comes_once_also_from_a_gateway_that_was_away() {
    let nats = NatsServer::start();
    let folder = tempfile::tempdir().unwrap();
    let collecting = Collecting::of_stream(loopback(nats.port()), folder.path(), &[]);
    let mut gateway = Gateway::start(&link(nats.port(), ""));
    publish(&gateway, 1..21);
    until_sent(&gateway);
    let (code, answer, stderr) = ask(&nats, &[&ALL[..], &["--id", "shift-6"]].concat());
    assert_eq!((code, &answer["outcome"], &answer["readings"]), (Some(0), &"queued".into(), &20.into()), "{stderr}");

    gateway.kill();
    let (code, _, stderr) = ask(&nats, &[&ALL[..], &["--id", "shift-7", "--timeout-s", "1"]].concat());
    assert_eq!(code, Some(1));
    assert!(stderr.contains("did not answer within 1 s; the request waits in its letterbox"), "{stderr}");
    gateway.restart();
    // Nobody asks any more, and it comes.
    let rows = poll("the receiver has both", || Some(raw(folder.path())).filter(|rows| rows.len() == 2));
    let of = |row: &RawRecord| (row.request.clone(), row.readings.len());
    assert_eq!(
        rows.iter().map(of).collect::<BTreeMap<_, _>>(),
        [("shift-6", 20), ("shift-7", 20)].map(|(id, n)| (id.to_owned(), n)).into()
    );
    until_state(&nats, "FLEET-LETTERS", 0).await;
    let (code, answer, stderr) = ask(&nats, &[&ALL[..], &["--id", "shift-7"]].concat());
    assert_eq!((code, &answer["outcome"]), (Some(0), &"repeated".into()), "{answer}{stderr}");
    until_sent(&gateway);
    assert_eq!(raw(folder.path()).len(), 2, "at most once");
    assert_eq!(gateway.get("/api/v1/link")["state"], "up");
    assert_eq!(report(folder.path()).0, Some(0));
    drop(collecting);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_request_that_has_to_wait_its_turn_stays_in_the_letterbox() {
    let nats = NatsServer::start();
    let folder = tempfile::tempdir().unwrap();
    let collecting = Collecting::of_stream(loopback(nats.port()), folder.path(), &[]);
    let gateway = Gateway::start(&link(nats.port(), "requests_per_minute = 1"));
    publish(&gateway, 1..21);
    until_sent(&gateway);
    let (code, ..) = ask(&nats, &[&ALL[..], &["--id", "one"]].concat());
    assert_eq!(code, Some(0));
    let (code, answer, _) = ask(&nats, &[&ALL[..], &["--id", "two"]].concat());
    assert_eq!((code, &answer["outcome"]), (Some(1), &"later".into()), "{answer}");
    assert_eq!(state(&nats, "FLEET-LETTERS").await.0, 1, "it comes again when there is room");
    drop(collecting);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stranger_on_the_clouds_subjects_does_no_harm() {
    let nats = NatsServer::start();
    let folder = tempfile::tempdir().unwrap();
    let mut collecting = Collecting::of_stream(loopback(nats.port()), folder.path(), &[]);
    let mut gateway = Gateway::start(&link(nats.port(), ""));
    publish(&gateway, 1..21);
    until_sent(&gateway);
    collecting.kill();
    publish(&gateway, 21..61);
    poll("the stream has it", || (taken(&gateway) >= 2).then_some(()));
    gateway.kill();
    let stranger = client(&nats).await;
    // A letterbox full of it.
    let letters = jetstream::new(stranger.clone()).get_stream("FLEET-LETTERS").await.unwrap();
    let durable = jetstream::consumer::pull::Config {
        durable_name: Some("plant=test-box".to_owned()),
        filter_subject: "letters.v1.plant.test-box.*".to_owned(),
        ..Default::default()
    };
    let mut letterbox = letters.create_consumer(durable).await.unwrap();
    let nonsense = |to: &str| -> Vec<(String, Vec<u8>)> {
        ["receipt", "request", "response"]
            .into_iter()
            .flat_map(|word| {
                [vec![], b"{\"v\":1}".to_vec(), vec![0xff; 4096], vec![b'{'; 6000]]
                    .map(|payload| (format!("{to}.{word}"), payload))
            })
            .collect()
    };
    for (subject, payload) in nonsense("letters.v1.plant.test-box") {
        stranger.request(subject, payload.into()).await.unwrap();
    }
    gateway.restart();
    let empty = async {
        loop {
            let info = letterbox.info().await.unwrap();
            // A `response` is for nobody's letterbox and is thrown away like the rest.
            if info.num_pending == 0 && info.num_ack_pending == 0 {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(60), empty).await.is_ok(), "it is stuck in its letterbox");
    // And said aloud, to it and to others.
    let before = counter(&gateway, "forebay_sync_strange_receipts_total");
    for to in ["cloud.v1.plant.test-box", "cloud.v1.plant.other-box", "cloud.v1.other.test-box"] {
        for (subject, payload) in nonsense(to) {
            stranger.publish(subject, payload.into()).await.unwrap();
        }
        stranger.publish(format!("{to}.receipt"), vec![7; 900_000].into()).await.unwrap();
    }
    stranger.flush().await.unwrap();
    poll("it heard its own", || (counter(&gateway, "forebay_sync_strange_receipts_total") >= before + 3).then_some(()));
    assert!(queued(&gateway) >= 40, "nothing of it counts");
    assert!(counter(&gateway, "forebay_uplink_unheard_messages_total") >= 3, "what is too long is not looked at");
    collecting.restart();
    until_sent(&gateway);
    assert_eq!(received(folder.path()), (1..61).collect::<Vec<_>>());
    drop(collecting);
}

/// The users of `docs/cloud.md`, word for word, but for the gateway's name.
fn documented_users() -> String {
    let text = include_str!("../../docs/cloud.md");
    let block = text.split("```").find(|block| block.trim_start().starts_with("authorization {")).unwrap();
    block.replace("press-hall-1", "test-box")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn with_the_documented_permissions_everything_works_and_a_gateway_can_do_nothing_else() {
    let users = documented_users();
    let nats = NatsServer::with(Setup { more: &users, ..Setup::default() });
    let (folder, secrets) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let secret = |user: &str| {
        let file = secrets.path().join(user);
        std::fs::write(&file, format!("{user}-password\n")).unwrap();
        file.display().to_string()
    };
    let (collect, operator, boxes) = (secret("collect"), secret("operator"), secret("test-box"));
    let user = |name: &'static str, file: &str| {
        vec!["--user".to_owned(), name.to_owned(), "--password-file".to_owned(), file.to_owned()]
    };
    let as_collect = user("collect", &collect);
    let as_collect: Vec<_> =
        as_collect.iter().map(String::as_str).chain(["--nats-inbox-prefix", "_INBOX.collect"]).collect();
    let collecting = Collecting::of_stream(loopback(nats.port()), folder.path(), &as_collect);
    let config = link(nats.port(), "").replace(
        "[sync]",
        &format!("username = \"test-box\"\npassword_file = \"{boxes}\"\n[cloud.nats]\ninbox_prefix = \"_INBOX.test-box\"\n[sync]"),
    );
    let mut gateway = Gateway::start(&config);
    publish(&gateway, 1..21);
    until_sent(&gateway);
    let as_operator = user("operator", &operator);
    let as_operator: Vec<_> =
        as_operator.iter().map(String::as_str).chain(["--nats-inbox-prefix", "_INBOX.operator"]).collect();
    let (code, answer, stderr) = ask(&nats, &[&ALL[..], &as_operator].concat());
    assert_eq!((code, &answer["outcome"]), (Some(0), &"queued".into()), "{stderr}");
    gateway.kill();
    let (_, _, stderr) = ask(&nats, &[&ALL[..], &as_operator, &["--id", "later", "--timeout-s", "1"]].concat());
    assert!(stderr.contains("waits in its letterbox"), "{stderr}");
    gateway.restart();
    poll("the receiver has both", || (raw(folder.path()).len() == 2).then_some(()));
    until_sent(&gateway);
    assert_eq!(gateway.get("/api/v1/link")["state"], "up", "{}", gateway.get("/api/v1/link"));

    // Whoever has the gateway's password can do what the gateway can, and nothing else.
    let (refused, mut said) = tokio::sync::mpsc::channel(64);
    let thief =
        async_nats::ConnectOptions::with_user_and_password("test-box".to_owned(), "test-box-password".to_owned())
            .custom_inbox_prefix("_INBOX.test-box")
            .event_callback(move |event| {
                let refused = refused.clone();
                async move { drop(refused.send(event.to_string()).await) }
            });
    let thief = thief.connect(loopback(nats.port()).to_string()).await.unwrap();
    let forbidden = [
        "fleet.v1.plant.other-box.verdict.press",
        "cloud.v1.plant.test-box.receipt",
        "cloud.v1.plant.test-box.request",
        "cloud.v1.plant.other-box.response",
        "letters.v1.plant.test-box.request",
        "$JS.API.CONSUMER.MSG.NEXT.FLEET-LETTERS.plant=other-box",
        "$JS.API.CONSUMER.DURABLE.CREATE.FLEET-LETTERS.thief",
        "$JS.API.STREAM.MSG.GET.FLEET-LETTERS",
        "$JS.API.STREAM.PURGE.FLEET",
    ];
    for subject in forbidden {
        thief.publish(subject, "x".into()).await.unwrap();
        let told = tokio::time::timeout(Duration::from_secs(30), async {
            loop {
                let event = said.recv().await.unwrap();
                if event.to_lowercase().contains(&format!("publish to \"{}\"", subject.to_lowercase())) {
                    break;
                }
            }
        });
        assert!(told.await.is_ok(), "{subject} is not refused");
    }
    for subject in ["cloud.v1.plant.*.receipt", "cloud.v1.plant.other-box.request", "letters.>", "fleet.>", "_INBOX.>"]
    {
        let _listening = thief.subscribe(subject).await.unwrap();
        let told = tokio::time::timeout(Duration::from_secs(30), async {
            while !said.recv().await.unwrap().to_lowercase().contains("permissions violation for subscription") {}
        });
        assert!(told.await.is_ok(), "{subject} may be listened to");
    }
    drop(collecting);
}

/// Before letterboxes there were gateways and servers without them.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_letterboxes_receipts_and_requests_reach_who_listens() {
    let nats = NatsServer::start();
    nats.stream().await;
    let folder = tempfile::tempdir().unwrap();
    let server = loopback(nats.port()).to_string();
    let mut collecting = forebay();
    collecting.args(["collect", "--nats", &server, "--tenant", "plant", "--nats-ack-wait", "1", "--state"]);
    let mut collecting = collecting.arg(folder.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let gateway = Gateway::start(&link(nats.port(), ""));
    publish(&gateway, 1..21);
    until_sent(&gateway);
    let (code, answer, stderr) = ask(&nats, &ALL);
    assert_eq!((code, &answer["outcome"]), (Some(0), &"queued".into()), "{stderr}");
    assert_eq!(gateway.get("/api/v1/link")["state"], "up");
    collecting.kill().unwrap();
    collecting.wait().unwrap();
}
