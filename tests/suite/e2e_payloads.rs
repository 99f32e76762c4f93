//! Payloads that cannot be read: refused with the place, kept for looking at, in nobody's way.

use forebay::doors::mqtt::codec::{Connect, Delivery, Publish, ReasonCode};

use crate::gateway::{Gateway, PRESS, press_reading};
use crate::mqtt_fixture::{Client, V5, V311, id};

/// A payload and what its refusal must say.
const BAD: &[(&str, &str)] = &[
    ("{\"n\":1,\n\"value\":}", "line 2, column 9"),
    ("{\"n\":1,\"value\":\"warm\"}", "value"),
    ("not json", "line 1"),
    ("", "line 1"),
];

fn rejected(gateway: &Gateway) -> Vec<(String, Vec<u8>)> {
    let database = gateway.database();
    let mut rows = database.prepare("SELECT reason, payload FROM history_rejected ORDER BY id").unwrap();
    let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

#[test]
fn a_bad_payload_over_http_is_refused_with_its_place_and_kept() {
    let gateway = Gateway::start(PRESS);
    for (number, (payload, place)) in BAD.iter().enumerate() {
        let (status, answer) = gateway.post("/api/v1/streams/press/readings", payload);
        assert_eq!(status, 422, "{payload}: {answer}");
        assert_eq!(answer["error"]["code"], "payload");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(place), "{payload}: {message}");
        assert!(answer["error"]["hint"].as_str().unwrap().contains("decoder"), "{answer}");
        let kept = rejected(&gateway);
        assert_eq!(kept.len(), number + 1);
        assert_eq!(kept[number].1, payload.as_bytes());
        assert!(kept[number].0.contains(place), "{}", kept[number].0);
    }
    let (status, answer) = gateway.post("/api/v1/streams/pres/readings", "1");
    assert_eq!((status, &answer["error"]["code"]), (404, &"no_stream".into()), "{answer}");
    assert_eq!(gateway.post("/api/v1/streams/press/readings", &press_reading(1)).0, 202);
    assert_eq!(gateway.numbers("press"), [1]);
    assert_eq!(gateway.get("/api/v1/streams/press")["tally"]["rejected"], BAD.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_payload_over_mqtt_is_kept_and_does_not_stop_its_sender() {
    let gateway = Gateway::start(PRESS);
    for (number, version) in [V5, V311].into_iter().enumerate() {
        let mut client = Client::tcp(gateway.mqtt, version).await;
        assert_eq!(client.connect(Connect::new(version, "sensor")).await.reason, ReasonCode::Success);
        client.publish(Publish::new("plant/press", Delivery::AtLeastOnce(id(1)), "{\"n\":1,\"value\":}")).await;
        // MQTT 3.1.1 has no word for it, and would send it again for ever.
        let wanted = if version == V5 { ReasonCode::PayloadFormatInvalid } else { ReasonCode::Success };
        assert_eq!(client.acked().await, (1, wanted));
        assert_eq!(rejected(&gateway).len(), number + 1, "kept before it is answered");
        let good = press_reading(number as u64 + 1);
        client.publish(Publish::new("plant/press", Delivery::AtLeastOnce(id(2)), good)).await;
        assert_eq!(client.acked().await, (2, ReasonCode::Success));
    }
    assert_eq!(gateway.numbers("press"), [1, 2]);
}
