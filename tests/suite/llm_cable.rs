//! The cable is cut while models answer: what is on its way ends with an error, what comes next is answered nearer, and
//! nothing of it is lost from the records.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tokio::time::timeout;

use crate::chaos::Chaos;
use crate::gateway::Gateway;
use crate::llm_fixture::{CHAT, PATIENCE, World, attempts, chat, provider, route, streamed};
use crate::mock_provider::{Behaviour, Mock};

/// A provider in the cloud and one in the plant, and a cloud that says whether there is a link.
struct Plant {
    world: World,
    cloud: Mock,
    site: Mock,
    /// What goes through the cable: to the cloud's broker, and to the provider.
    cable: [Chaos; 2],
    _broker: Gateway,
}

impl Plant {
    async fn start(more: &str) -> Self {
        let plant = Self::with("", ["", ""], more).await;
        plant.until_answered_by("far/gpt").await;
        plant
    }

    /// With settings of `[sync]`, of the candidate in the cloud and the one in the plant, and sections.
    async fn with(sync: &str, [far_too, near_too]: [&str; 2], more: &str) -> Self {
        let broker = tokio::task::block_in_place(|| Gateway::start(""));
        let (cloud, site) = (Mock::start(Behaviour::default()).await, Mock::start(Behaviour::default()).await);
        let cable = [Chaos::before(broker.mqtt.port()).await, Chaos::before(cloud.address().port()).await];
        let far = format!(
            "[[provider]]\nname = \"far\"\nkind = \"openai-compatible\"\nbase_url = \"http://127.0.0.1:{}/v1\"\nconnect_timeout_ms = 1000\n",
            cable[1].port()
        );
        let link = format!(
            "[cloud]\nport = {}\nconnect_timeout_ms = 500\nanswer_timeout_ms = 1000\n\
             [sync]\ntenant = \"plant\"\nretry_first_ms = 10\nretry_most_ms = 100\n{sync}",
            cable[0].port()
        );
        let candidates = [
            format!("{{ provider = \"far\", model = \"gpt\"{far_too} }}"),
            format!("{{ provider = \"near\", model = \"qwen\", reach = \"site\"{near_too} }}"),
        ];
        let route = route("r", &["m"], &candidates.each_ref().map(String::as_str));
        let config = [link, far, provider("near", &site, ""), route, more.to_owned()];
        let world = World::start(&config.concat());
        Self { world, cloud, site, cable, _broker: broker }
    }

    fn cut(&self) {
        self.cable.iter().for_each(Chaos::shut);
    }

    fn mend(&self) {
        self.cable.iter().for_each(Chaos::open);
    }

    /// Asks again and again; every answer is whole, whoever gives it.
    async fn until_answered_by(&self, model: &str) {
        let asking = async {
            let mut connection = self.world.connect().await;
            loop {
                let reply = connection.ask("app", CHAT, &[], &chat("m")).await;
                assert_eq!(reply.status, 200, "{reply:?}");
                if reply.model() == model {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("{model} never answered"));
    }

    /// Until routes believe that the link is down.
    async fn until_known_to_be_down(&self) {
        let asking = async {
            loop {
                let reply = self.world.ask(CHAT, &chat("m")).await;
                assert_eq!((reply.status, reply.model()), (200, "near/qwen"), "with the cable cut: {reply:?}");
                if reply.header("x-forebay-link") == "down" {
                    return;
                }
            }
        };
        timeout(PATIENCE, asking).await.expect("the link is known to be down");
    }
}

const SOON: &str = "[routing]\nlink_back_ms = 200\nprobes = \"all\"\nprobe_every_ms = 1000\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cable_cut_in_the_middle_of_streams_ends_them_with_an_error_and_the_next_request_is_answered_nearer() {
    let plant = Plant::start(SOON).await;
    // Long enough that nobody ends by himself.
    plant.cloud.set(Behaviour { words: 3000, pace: Duration::from_millis(20), ..Behaviour::default() });
    let mut streams = Vec::new();
    for (path, body, error) in [
        (CHAT, streamed("m"), "data: {\"error\":{"),
        ("/v1/messages", streamed("m"), "event: error\ndata: "),
        ("/v1/responses", json!({ "model": "m", "input": "Hello", "stream": true }), "event: error\ndata: "),
        ("/api/chat", streamed("m"), "{\"error\":"),
    ] {
        let id = format!("cut{}", path.replace('/', "-"));
        let mut live = plant.world.begin_as(&id, path, &body).await;
        live.until(" press").await;
        streams.push((id, live, error));
    }
    plant.cut();
    join_all(streams.into_iter().map(async |(id, live, error)| {
        let reply = live.rest().await;
        assert_eq!((reply.status, reply.model()), (200, "far/gpt"), "{id}");
        let said = reply.text.rfind(error).unwrap_or_else(|| panic!("{id}: no error in {}", reply.text));
        assert!(reply.text[said..].trim_end().lines().count() <= 2, "{id}: {}", reply.text);
        let record = plant.world.record(&id);
        assert_eq!((attempts(&record), &record["link"]), (vec!["far/gpt cut".to_owned()], &json!("up")), "{record}");
        assert_eq!((&record["error"], &record["estimated"]), (&json!("cut"), &json!(true)), "{record}");
    }))
    .await;

    // Whether or not it is known already that the link is down, the answer comes from nearer.
    plant.until_known_to_be_down().await;
    let asked = plant.cloud.requests();
    for at in 0..20 {
        let id = format!("down-{at}");
        let reply = plant.world.ask_as(&id, CHAT, &if at % 2 == 0 { chat("m") } else { streamed("m") }).await;
        assert_eq!(
            (reply.status, reply.model(), reply.header("x-forebay-attempts")),
            (200, "near/qwen", "1"),
            "{reply:?}"
        );
        let why = reply.header("x-forebay-route");
        assert!(why.contains("link down") && why.contains("not far/gpt: the link is down"), "{why}");
        let record = plant.world.record(&id);
        assert_eq!(attempts(&record), ["far/gpt link", "near/qwen ok"], "{record}");
    }
    assert_eq!(plant.cloud.requests(), asked, "nobody tried it for nothing");

    plant.cloud.set(Behaviour::default());
    plant.mend();
    plant.until_answered_by("far/gpt").await;
    assert_eq!(plant.world.record("cut-v1-messages")["status"].as_u64().map(|status| status >= 500), Some(true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn with_the_cable_cut_budgets_records_and_keys_go_on_and_nobody_is_probed_in_vain() {
    let plant =
        Plant::start(&[SOON, "[[quota.limit]]\nlevel = \"key\"\nname = \"app\"\nrequests_per_day = 100000\n"].concat())
            .await;
    plant.cut();
    plant.until_known_to_be_down().await;
    let (tried, probed) =
        (plant.cable[1].connections(), |mock: &Mock| mock.seen().iter().filter(|seen| seen.method == "GET").count());
    let before = probed(&plant.site);
    // The one in the plant is probed all the while.
    let rounds = plant.site.until(|site| probed(site) >= before + 3);
    timeout(PATIENCE, rounds).await.expect("probes go on where there is a link");
    assert_eq!(plant.cable[1].connections(), tried, "a probe over a link that is down only says what is known");

    let (status, made) = plant.world.boss("POST", "/api/v1/keys", r#"{"name":"night-shift"}"#);
    assert_eq!(status, 201, "{made}");
    let key = made["key"].as_str().unwrap();
    let reply = plant.world.connect().await.ask(key, CHAT, &[("x-request-id", "offline")], &chat("m")).await;
    assert_eq!((reply.status, reply.model()), (200, "near/qwen"), "{reply:?}");
    assert_eq!(plant.world.record("offline")["link"], "down");
    let spent = |plant: &Plant| {
        plant.world.boss("GET", "/api/v1/limits?level=key&name=app", "").1["limits"][0]["spent"].as_u64()
    };
    let before = spent(&plant).unwrap();
    assert_eq!(plant.world.ask(CHAT, &chat("m")).await.status, 200);
    assert_eq!(spent(&plant), Some(before + 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn over_a_metered_link_who_is_for_one_that_is_up_is_not_asked() {
    let plant = Plant::with("metered = true\n", [", links = [\"up\"]", ""], SOON).await;
    // Until the broker has answered for the first time the link is down, which nobody in the cloud is for either.
    let metered = async {
        loop {
            let reply = plant.world.ask_as("metered", CHAT, &chat("m")).await;
            assert_eq!((reply.status, reply.model()), (200, "near/qwen"), "{reply:?}");
            if reply.header("x-forebay-link") == "metered" {
                return reply;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let reply = timeout(PATIENCE, metered).await.expect("the link is known to be metered");
    let why = reply.header("x-forebay-route");
    assert!(why.contains("link metered") && why.contains("not far/gpt: the link is metered"), "{why}");
    assert_eq!(plant.cloud.requests(), 0, "and nobody probes it, either");
    plant.cut();
    plant.until_known_to_be_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_request_that_may_not_leave_the_site_does_not_notice_the_cable() {
    let plant = Plant::start(SOON).await;
    plant.site.set(Behaviour { words: 40, pace: Duration::from_millis(20), ..Behaviour::default() });
    let asked = plant.cloud.requests();
    let mut connection = plant.world.connect().await;
    let mut live = connection.begin("app", CHAT, &[("x-forebay-reach", "site")], &streamed("m")).await;
    live.until(" press").await;
    plant.cut();
    let reply = live.rest().await;
    assert_eq!((reply.status, reply.model()), (200, "near/qwen"));
    assert!(reply.text.ends_with("data: [DONE]\n\n"), "{}", reply.text);
    assert_eq!(plant.cloud.requests(), asked);
    // What must not leave the box has nobody here, and is told so rather than sent out.
    let reply = plant.world.connect().await.ask("app", CHAT, &[("x-forebay-reach", "box")], &chat("m")).await;
    assert_eq!(reply.status, 400, "{reply:?}");
    assert!(reply.header("x-forebay-route").contains("near/qwen: it is on the site"), "{reply:?}");
}
