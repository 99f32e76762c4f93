//! Gateways share a budget that a lender in the cloud owns: real programs, a real broker, a cable that is cut, and SIGKILL on
//! both sides.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::chaos::Chaos;
use crate::gateway::{forebay, forebay_says, poll};
use crate::llm_fixture::{CHAT, Reply, World, chat, provider, route};
use crate::mock_provider::{Behaviour, Mock};
use crate::mosquitto::Mosquitto;
#[cfg(feature = "nats")]
use crate::nats_server::NatsServer;

/// What all gateways together may ask in a month.
const TOTAL: u64 = 40;

/// `forebay lend` on a folder of its own.
struct Lender {
    child: Child,
    arguments: Vec<String>,
    folder: tempfile::TempDir,
}

fn budget(gateways: &str) -> String {
    format!(
        "ask_every_s = 1\n[[budget]]\nlevel = \"key\"\nname = \"app\"\nrequests_per_month = {TOTAL}\ngateways = {gateways}\n\
         lease_s = 6\nlend_percent = 100\nsmallest_percent = 10\n"
    )
}

impl Lender {
    fn start(link: &[&str], gateways: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("lend.toml");
        std::fs::write(&file, budget(gateways)).unwrap();
        let (file, state) = (file.display().to_string(), folder.path().join("lent").display().to_string());
        let arguments = [&["lend", &file, "--state", &state, "--tenant", "plant"], link].concat();
        let arguments: Vec<_> = arguments.into_iter().map(str::to_owned).collect();
        Self { child: spawn(&arguments, folder.path()), arguments, folder }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn restart(&mut self) {
        self.child = spawn(&self.arguments, self.folder.path());
    }

    /// How the budget stands; `Null` before anything was lent.
    fn report(&self) -> Value {
        let state = self.folder.path().join("lent").display().to_string();
        let (code, stdout, _) = forebay_says(&["lend", "--report", "--json", "--state", &state]);
        if code != Some(0) {
            return Value::Null;
        }
        serde_json::from_str::<Value>(&stdout).unwrap()["budgets"][0].clone()
    }

    /// The leases of a gateway that are open.
    fn leases(&self, gateway: &str) -> Vec<Value> {
        let report = self.report();
        let all = report["gateways"].as_array().cloned().unwrap_or_default();
        let one = all.into_iter().find(|one| one["gateway"] == gateway);
        one.map(|one| one["leases"].as_array().unwrap().clone()).unwrap_or_default()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Lender {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the lender's log\n{}", self.log());
        }
    }
}

fn spawn(arguments: &[String], folder: &Path) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).unwrap();
    forebay().args(arguments).stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

/// A gateway whose app spends only what is lent.
fn gateway(link: &str, mock: &Mock) -> World {
    let leased = "[quota]\nflush_ms = 50\n[[quota.limit]]\nlevel = \"key\"\nname = \"app\"\nleased = [\"requests\"]\n";
    let route = route("r", &["m"], &["{ provider = \"p\", model = \"gpt\", reach = \"site\" }"]);
    World::start(&[link, &provider("p", mock, ""), &route, leased].concat())
}

fn mqtt(port: u16) -> String {
    format!(
        "[cloud]\nport = {port}\nconnect_timeout_ms = 500\nanswer_timeout_ms = 1000\n\
         [sync]\ntenant = \"plant\"\nretry_first_ms = 10\nretry_most_ms = 100\n"
    )
}

/// Starts it again under the other name.
fn again_as_second(world: &mut World) {
    tokio::task::block_in_place(|| {
        world.gateway.restart_by(forebay().env("FOREBAY__GATEWAY__NAME", "second-box"));
    });
}

async fn ask(world: &World) -> Reply {
    world.ask(CHAT, &chat("m")).await
}

/// True if it was answered; otherwise its lease was in the way and nothing else.
fn passed(reply: &Reply) -> bool {
    if reply.status == 200 {
        return true;
    }
    let error = &reply.json()["error"];
    assert!(reply.status == 429 && error["message"].as_str().unwrap().contains("lease"), "{reply:?}");
    false
}

/// Asks until `wanted` were answered.
async fn spend(world: &World, wanted: u64) {
    let mut answered = 0;
    for _ in 0..1200 {
        if answered == wanted {
            return;
        }
        match passed(&ask(world).await) {
            true => answered += 1,
            false => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    panic!("only {answered} of {wanted} were answered");
}

fn metric(world: &World, name: &str) -> i64 {
    let (_, text) = world.boss("GET", "/metrics", "");
    let text = text.as_str().unwrap().to_owned();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

fn until_taken(lender: &Lender, gateway: &str) -> Value {
    tokio::task::block_in_place(|| {
        poll("a lease is taken", || {
            let leases = lender.leases(gateway);
            leases.last().filter(|lease| lease["taken"] == true).cloned()
        })
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_gateway_that_is_cut_off_spends_its_lease_and_no_more_and_its_rest_is_spent_by_another() {
    let broker = tokio::task::block_in_place(|| Mosquitto::start(""));
    let mock = Mock::start(Behaviour::default()).await;
    let cable = Chaos::before(broker.port()).await;
    let first = gateway(&mqtt(broker.port()), &mock);
    let mut second = gateway(&mqtt(cable.port()), &mock);
    second.gateway.kill();
    again_as_second(&mut second);

    // Without a lease nothing is spent.
    let refused = ask(&first).await;
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (429, &json!("insufficient_quota")), "{refused:?}");
    assert!(refused.text.contains("has no valid lease of requests"), "{refused:?}");

    let address = broker.address().to_string();
    let mut lender =
        tokio::task::block_in_place(|| Lender::start(&["--broker", &address], "[\"test-box\", \"second-box\"]"));
    until_taken(&lender, "test-box");
    let lease = until_taken(&lender, "second-box");
    let part = lease["amount"].as_u64().unwrap();
    assert!((5..=TOTAL / 2).contains(&part), "{lease}");
    assert!(metric(&second, "forebay_leases_taken_total") >= 1);
    tokio::task::block_in_place(|| {
        poll("its end is told", || (metric(&second, "forebay_leases_next_end_s") > 0).then_some(()));
    });

    // The cable is cut: the second goes on within its lease, and refuses when that is over.
    cable.shut();
    spend(&second, 3).await;
    tokio::task::block_in_place(|| {
        poll("its lease is over", || (metric(&second, "forebay_leases_next_end_s") == -1).then_some(()));
    });
    let refused = ask(&second).await;
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (429, &json!("insufficient_quota")), "{refused:?}");
    assert!(refused.text.contains("has no valid lease of requests"), "{refused:?}");

    // The lender is killed and comes back; the other one spends everything that is not at the second.
    lender.kill();
    lender.restart();
    spend(&first, TOTAL - part).await;
    for _ in 0..20 {
        assert!(!passed(&ask(&first).await), "the second's part is not the first's yet: {}", lender.report());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    // The second is killed as well. When its link is back it tells what it used, and the rest is there for both.
    second.gateway.kill();
    again_as_second(&mut second);
    assert!(!passed(&ask(&second).await), "its lease is over after a restart, too");
    cable.open();
    spend(&first, (part - 3) / 2).await;
    let answered = 3 + TOTAL - part + (part - 3) / 2;
    let report = lender.report();
    let sum = |key: &str| report[key].as_u64().unwrap();
    assert_eq!(sum("used") + sum("lent") + sum("left"), TOTAL, "{report}");
    assert!(sum("used") <= answered && answered <= TOTAL, "{answered} {report}");
    assert!(lender.log().contains("a lease is closed"), "{}", lender.log());
    assert!(!lender.log().contains("not given here"), "{}", lender.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_gateway_without_the_limit_says_so_and_raw_requests_do_not_keep_leases_away() {
    let broker = tokio::task::block_in_place(|| Mosquitto::start(""));
    let mock = Mock::start(Behaviour::default()).await;
    let world = gateway(&format!("{}requests_per_minute = 1\n", mqtt(broker.port())), &mock);
    let address = broker.address().to_string();
    let args = ["request", "raw", "--broker", &address, "--tenant", "plant", "--gateway", "test-box"];
    let args = [&args[..], &["--stream", "press", "--alarm", "1"]].concat();
    tokio::task::block_in_place(|| {
        for _ in 0..3 {
            let (code, stdout, stderr) = forebay_says(&args);
            assert_eq!(code, Some(1), "{stdout}{stderr}");
        }
        let lender = Lender::start(&["--broker", &address], "[\"test-box\"]");
        until_taken(&lender, "test-box");
    });
    assert!(passed(&ask(&world).await));
    // Nothing of this unit is leased there.
    tokio::task::block_in_place(|| {
        let lender = Lender::start(&["--broker", &address], "[\"test-box\"]");
        let file = lender.folder.path().join("lend.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replace("requests_per_month", "tokens_per_month")).unwrap();
        let mut lender = lender;
        lender.kill();
        let _ = std::fs::remove_dir_all(lender.folder.path().join("lent"));
        lender.restart();
        poll("the lender hears why", || lender.log().contains("add leased = [").then_some(()));
        poll("the gateway logs why", || world.gateway.log().contains("which is not taken").then_some(()));
    });
}

#[test]
fn a_file_that_cannot_be_meant_is_refused_with_line_and_column() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lend.toml");
    let says = |text: &str| {
        std::fs::write(&file, text).unwrap();
        forebay_says(&["lend", &file.display().to_string(), "--check"])
    };
    let (code, stdout, stderr) = says(&budget("[\"a\", \"b\"]"));
    assert!(code == Some(0) && stdout.contains("fine; budgets: 1; shares: 2"), "{stdout}{stderr}");
    let (code, stdout, stderr) = says(&budget("[\"a\", \"b\"]").replace("lease_s = 6", "lease_s = 1"));
    assert!(code == Some(1) && stdout.contains("lend.toml:7:11: lease_s is 1"), "{stdout}{stderr}");
    let (code, stdout, stderr) = says(&budget("[\"a\"]").replace("requests_per_month", "requests_per_moth"));
    assert!(code == Some(1) && stdout.contains("lend.toml:5:1: unknown field"), "{stdout}{stderr}");
    // The one that the documentation gives.
    let documented = include_str!("../../docs/quotas.md").split("```toml\n").find(|block| block.contains("[[budget]]"));
    let (code, stdout, stderr) = says(documented.unwrap().split("```").next().unwrap());
    assert!(
        code == Some(0) || stdout.contains("Europe/Berlin"),
        "a machine without time zones says so: {stdout}{stderr}"
    );
    let state = folder.path().join("nothing").display().to_string();
    let (code, _, stderr) = forebay_says(&["lend", "--report", "--state", &state]);
    assert!(code == Some(1) && stderr.contains("nothing was lent from"), "{stderr}");
}

#[cfg(feature = "nats")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn leases_travel_over_nats_as_well_and_fill_no_letterbox() {
    let nats = NatsServer::start();
    nats.stream().await;
    let mock = Mock::start(Behaviour::default()).await;
    let address = crate::gateway::loopback(nats.port()).to_string();
    let lender = tokio::task::block_in_place(|| Lender::start(&["--nats", &address], "[\"test-box\", \"second-box\"]"));
    let link = mqtt(nats.port()).replace("[cloud]\n", "[cloud]\nkind = \"nats\"\n");
    let world = gateway(&link, &mock);
    until_taken(&lender, "test-box");
    spend(&world, 8).await;
    // It speaks by itself when its lease is nearly used up, and gets more.
    spend(&world, 8).await;
    let client = async_nats::connect(&address).await.unwrap();
    if let Ok(mut letters) = async_nats::jetstream::new(client).get_stream("FLEET-LETTERS").await {
        assert_eq!(letters.info().await.unwrap().state.messages, 0);
    }
}
