//! A fleet's way with everything killed on it: gateway, leaf node, hub, two collectors, PostgreSQL. Every row once.

use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;

use forebay::flows::{CollectMetrics, CollectStream, Rejects, StreamBatch, WarehouseSink};
use forebay::inbox::{self, Warehouse};
use forebay::outbox::Class;
use forebay::uplink::{Answer, Config, JetStreamUplink, Message, Uplink};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::chaos::{Chaos, Fault};
use crate::fleet::{Gateway as Queue, Running, brisk, clock, name};
use crate::gateway::{Gateway, PRESS, VERDICTS, forebay, forebay_says, poll, press_readings};
use crate::link_kinds::{quick, stream_receiver};
use crate::nats_server::{NatsServer, Setup, fleet_stream, impatient};
use crate::postgres::Postgres;

fn warehouse(server: &Postgres) -> Arc<Warehouse> {
    Arc::new(Warehouse::new(server.config(), None).unwrap())
}

/// One collector of the shared consumer, in this process, over some port.
fn replica(link: Config, server: &Postgres, seed: u64) -> Running<CollectMetrics> {
    let sink = WarehouseSink::new(warehouse(server), inbox::Config::default(), clock(), Rejects::default());
    let batch = StreamBatch { messages: 8, ..StreamBatch::default() };
    let rng = StdRng::seed_from_u64(seed);
    let collect = CollectStream::new(stream_receiver(link), Arc::new(sink), batch, quick(), rng);
    let metrics = collect.metrics().clone();
    Running::of(metrics, |stop| collect.run(stop))
}

fn uplink(link: Config) -> JetStreamUplink {
    JetStreamUplink::new(link, "press-7", clock()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_effect_is_once_when_a_collector_dies_between_commit_and_acknowledgement() {
    let (nats, server) = (NatsServer::start(), Postgres::start());
    nats.stream().await;
    let folder = tempfile::tempdir().unwrap();
    let queue = Queue::open(folder.path(), "press-7");
    let stream = queue.stream(Class::Raw, "temperature");
    queue.append(stream, (0..200_u8).map(|row| vec![row])).await;
    let sync = queue.sync(uplink(nats.link()), brisk());
    queue.drained().await;
    sync.stop().await;

    // Asking for the stream, the consumer and messages is short; once messages have come, this side is mute.
    let chaos = Chaos::before(nats.port()).await;
    chaos.plan([Fault::MuteOnceTold(3500); 3]);
    let mut repeated = 0;
    for seed in 0..3 {
        let doomed = replica(impatient(chaos.port()), &server, seed);
        while doomed.metrics.rows.get() + doomed.metrics.duplicates.get() < 200 {
            tokio::task::yield_now().await;
        }
        repeated += doomed.metrics.duplicates.get();
        doomed.kill().await;
    }
    // A mute one gets again what it was too slow for, too.
    assert!(repeated >= 400, "what the first one committed came to the second and the third again: {repeated}");
    let survivors = [replica(nats.link(), &server, 7), replica(nats.link(), &server, 8)];
    let taken = |at: usize| survivors[at].metrics.duplicates.get();
    while taken(0) + taken(1) < 200 {
        tokio::task::yield_now().await;
    }
    for survivor in survivors {
        assert_eq!(survivor.metrics.rows.get(), 0, "nothing of it was new");
        survivor.stop().await;
    }
    let report = warehouse(&server).report(&name("acme"), 10).await.unwrap();
    assert_eq!((report.received(), report.missing()), (200, 0));
    assert!(report.duplicates() >= 600, "{report:?}");
    assert_eq!(server.bodies().await.len(), 200);
}

/// The whole way with real processes. The leaf node's link is cut again and again while rows travel.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reading_is_in_postgresql_once_whoever_is_killed_on_the_way() {
    let mut server = Postgres::start();
    let mut hub = NatsServer::with(Setup { domain: Some("hub"), ..Setup::default() });
    let line = Chaos::before(hub.leaf_port()).await;
    let leaf = NatsServer::with(Setup { domain: Some("leaf"), leaf_of: Some(line.port()), ..Setup::default() });
    site_and_hub(&leaf, &hub).await;

    let mut gateway = Gateway::start(&format!(
        "[cloud]\nkind = \"nats\"\nport = {}\nconnect_timeout_ms = 1000\nanswer_timeout_ms = 1000\n\
         [cloud.nats]\ndomain = \"leaf\"\n\
         [sync]\ntenant = \"plant\"\nbatch_rows = 50\nlinger_ms = 10\nretry_first_ms = 10\nretry_most_ms = 100\n{PRESS}{VERDICTS}",
        leaf.port()
    ));
    let mut replicas = [Replica::start(&hub, &server), Replica::start(&hub, &server)];
    let mut sent = 0;
    let mut publish = |gateway: &Gateway, count: u64| {
        for _ in 0..count / 50 {
            let (status, answer) = gateway.post("/api/v1/streams/press/readings", &press_readings(sent..sent + 50));
            assert_eq!(status, 202, "{answer}");
            sent += 50;
        }
    };
    publish(&gateway, 500);
    line.cut();
    publish(&gateway, 500);
    hub.kill();
    publish(&gateway, 500);
    gateway.kill();
    gateway.restart();
    replicas[0].kill();
    hub.restart();
    publish(&gateway, 500);
    line.cut();
    server.restart();
    publish(&gateway, 500);
    replicas[0] = Replica::start(&hub, &server);
    replicas[1].kill();
    line.cut();
    publish(&gateway, 500);
    server.restart();
    replicas[1] = Replica::start(&hub, &server);
    publish(&gateway, 500);

    gateway.wait_for("/api/v1/queue", |queue| queue["rows"] == 0);
    let report = arguments("--report", &server);
    let arrived = poll_report(&report, sent);
    assert!(arrived.contains("verdict/press"), "{arrived}");
    let rows = server.client().await;
    let counted =
        rows.query_one("SELECT count(*), count(DISTINCT (series_no, seq)) FROM forebay_row", &[]).await.unwrap();
    assert_eq!(counted.get::<_, i64>(0), counted.get::<_, i64>(1));
    let sql = "SELECT count(*), count(DISTINCT body) FROM forebay_row JOIN forebay_series USING (series_no)
               WHERE class = 'verdict'";
    let verdicts = rows.query_one(sql, &[]).await.unwrap();
    assert_eq!(verdicts.get::<_, i64>(0), i64::try_from(sent).unwrap());
    assert_eq!(verdicts.get::<_, i64>(1), i64::try_from(sent).unwrap(), "each reading once");
    for replica in replicas {
        replica.stop();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_sites_stream_answered_for_reaches_the_hub_over_a_line_that_is_cut() {
    let hub = NatsServer::with(Setup { domain: Some("hub"), ..Setup::default() });
    let line = Chaos::before(hub.leaf_port()).await;
    // What the site sends upwards is cut in the middle of messages; a leaf node tries again every second.
    line.plan([5_000, 20_000, 50_000, 80_000].map(|bytes| Fault::CutAfter { bytes, reset: bytes > 20_000 }));
    let leaf = NatsServer::with(Setup { domain: Some("leaf"), leaf_of: Some(line.port()), ..Setup::default() });
    site_and_hub(&leaf, &hub).await;
    let mut site = uplink(impatient(leaf.port()));
    let mut sent = 0_u64;
    for round in 0..600 {
        if round % 150 == 149 {
            line.cut();
        }
        site.connect().await.unwrap();
        for ticket in 0..4 {
            let payload = format!("{sent}{}", "x".repeat(200)).into();
            site.submit(ticket, Message { topic: "fleet/v1/acme/press-7/raw/a".to_owned(), payload }).unwrap();
            sent += 1;
        }
        for _ in 0..4 {
            assert_eq!(site.answer().await.unwrap().1, Answer::Acknowledged, "the site answers whatever the line does");
        }
    }
    let mut there = messages(&hub, "hub").await;
    for _ in 0..300 {
        if there >= sent {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        there = messages(&hub, "hub").await;
    }
    assert_eq!(there, sent, "the site still holds {}", messages(&leaf, "leaf").await);
}

async fn messages(server: &NatsServer, domain: &str) -> u64 {
    let client = async_nats::connect(format!("127.0.0.1:{}", server.port())).await.unwrap();
    let mut stream = async_nats::jetstream::with_domain(client, domain).get_stream("FLEET").await.unwrap();
    stream.info().await.unwrap().state.messages
}

/// The site's stream takes what its gateways publish; the hub's fetches it from there. It must not be a work queue:
/// nats-server 2.9 deletes a message there once it is on its way, and a line that is cut then loses it.
pub(crate) async fn site_and_hub(leaf: &NatsServer, hub: &NatsServer) {
    let site = r#"{"name":"FLEET","subjects":["fleet.v1.>"],"retention":"limits","discard":"new","storage":"file","num_replicas":1}"#;
    fleet_stream(leaf.port(), Some("leaf"), site).await;
    let all = r#"{"name":"FLEET","retention":"workqueue","discard":"new","storage":"file","num_replicas":1,
        "sources":[{"name":"FLEET","external":{"api":"$JS.leaf.API","deliver":"deliver.leaf"}}]}"#;
    fleet_stream(hub.port(), Some("hub"), all).await;
}

/// Asks until a clean report names as many rows of the readings' stream as were sent.
fn poll_report(arguments: &[String], sent: u64) -> String {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    poll("every reading is in the report", || {
        let (code, said, _) = forebay_says(&arguments);
        let whole = said.lines().any(|line| line.contains(&format!("verdict/press: {sent} received of ")));
        (code == Some(0) && whole).then_some(said)
    })
}

fn arguments(what: &str, server: &Postgres) -> Vec<String> {
    let port = format!("127.0.0.1:{}", server.port());
    ["collect", what, "--tenant", "plant", "--postgres", &port, "--postgres-database", "postgres"]
        .map(str::to_owned)
        .to_vec()
}

/// A `forebay collect` process.
struct Replica(Child);

impl Replica {
    fn start(hub: &NatsServer, server: &Postgres) -> Self {
        let mut command = forebay();
        command.args(arguments("--nats", server).into_iter().flat_map(|argument| {
            let port = (argument == "--nats").then(|| format!("127.0.0.1:{}", hub.port()));
            std::iter::once(argument).chain(port)
        }));
        command.args(["--nats-domain", "hub", "--nats-ack-wait", "2"]);
        Self(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// SIGTERM, which must end it in good order.
    fn stop(mut self) {
        std::process::Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status().unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn check_says_what_contradicts_itself_in_a_cloud_of_kind_nats() {
    let folder = tempfile::tempdir().unwrap();
    let write = |cloud: &str| {
        let file = folder.path().join("forebay.toml");
        std::fs::write(&file, format!("[gateway]\nname = \"x\"\n{cloud}")).unwrap();
        let (code, said, _) = forebay_says(&["check", "--config", Path::new(&file).to_str().unwrap()]);
        (code, said)
    };
    let (code, said) = write("[cloud]\nkind = \"nats\"\nhost = \"10.0.0.1\"\nport = 4222\n");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("is not encrypted"), "{said}");
    for (cloud, complaint) in [
        ("[cloud]\nkind = \"nats\"\n", "port must be the NATS server's"),
        ("[cloud]\n[cloud.nats]\nstream = \"FLEET\"\n", "nats is for kind"),
        ("[cloud]\nkind = \"nats\"\nport = 4222\n[cloud.nats]\nstream = \"a.b\"\n", "nats.stream must not hold"),
        ("[cloud]\nkind = \"nats\"\nport = 4222\n[cloud.nats]\nnkey_file = \"/nowhere\"\n", "failed to open /nowhere"),
        ("[cloud]\nkind = \"amqp\"\n", "unknown variant"),
    ] {
        let (code, said) = write(cloud);
        assert_eq!(code, Some(1), "{cloud}: {said}");
        assert!(said.contains(complaint), "{cloud}: {said}");
    }
}
