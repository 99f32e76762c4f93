//! A key from `forebay key` to the doors it opens, and those it does not.

use forebay::doors::mqtt::codec::{ConnAck, Connect, Delivery, ProtocolVersion, Publish, QoS, ReasonCode};

use crate::gateway::{Gateway, PRESS, Setup, forebay_says, http, press_reading};
use crate::mqtt_fixture::{Client, V5, V311, id};

/// What `forebay key` prints: the key and the section for the configuration.
fn new_key(name: &str) -> (String, String) {
    let (code, stdout, stderr) = forebay_says(&["key", name]);
    assert_eq!(code, Some(0), "{stderr}");
    let key = stdout.lines().find_map(|line| line.strip_prefix("# fb-")).expect("a key is printed");
    (format!("fb-{key}"), stdout)
}

async fn connect(gateway: &Gateway, version: ProtocolVersion, login: Option<(&str, &str)>) -> (Client, ConnAck) {
    let mut client = Client::tcp(gateway.mqtt, version).await;
    // A session's id belongs to the identity that opened it.
    let mut connect = Connect::new(version, format!("caller-{}", login.map_or("nobody", |(name, _)| name)));
    if let Some((name, key)) = login {
        connect.user_name = Some(name.into());
        connect.password = Some(key.as_bytes().to_vec().into());
    }
    let ack = client.connect(connect).await;
    (client, ack)
}

fn ask(gateway: &Gateway, method: &str, path: &str, key: Option<&str>, body: &str) -> u16 {
    let header = key.map_or(String::new(), |key| format!("Authorization: Bearer {key}\r\n"));
    http(gateway.http, method, path, &header, body).unwrap().0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_opens_the_doors_its_rules_name_and_no_other() {
    let (press_key, press) = new_key("press");
    let (other_key, other) = new_key("other");
    assert_ne!(press_key, other_key);
    // The printed section as it is, with the rules of the first made to fit the stream.
    let access = format!(
        "{}\n{other}",
        press.replace("\"plant/%u/#\"", "\"plant/%u\"").replace("[\"forebay/#\"]", "[\"forebay/#\", \"plant/press\"]")
    );
    let gateway = Gateway::with(&Setup { access: &access, more: PRESS, ..Setup::default() });

    for version in [V5, V311] {
        for (login, wanted) in [
            (None, ReasonCode::NotAuthorized),
            (Some(("press", "fb-wrong")), ReasonCode::BadUserNameOrPassword),
            (Some(("press", other_key.as_str())), ReasonCode::BadUserNameOrPassword),
            (Some(("nobody", press_key.as_str())), ReasonCode::BadUserNameOrPassword),
            (Some(("press", press_key.as_str())), ReasonCode::Success),
        ] {
            assert_eq!(connect(&gateway, version, login).await.1.reason, wanted, "{version:?} {login:?}");
        }
    }
    let publish = |payload: String| Publish::new("plant/press", Delivery::AtLeastOnce(id(1)), payload);
    let (mut client, _) = connect(&gateway, V5, Some(("press", &press_key))).await;
    client.publish(publish(press_reading(1))).await;
    assert_eq!(client.acked().await, (1, ReasonCode::Success));
    client.publish(Publish::new("plant/other", Delivery::AtLeastOnce(id(2)), "1")).await;
    assert_eq!(client.acked().await, (2, ReasonCode::NotAuthorized));
    assert_eq!(client.subscribe("forebay/press/verdict", QoS::AtMostOnce).await, ReasonCode::Success);
    assert_eq!(client.subscribe("#", QoS::AtMostOnce).await, ReasonCode::NotAuthorized);
    // The other one's rules do not cover this stream.
    let (mut client, ack) = connect(&gateway, V5, Some(("other", &other_key))).await;
    assert_eq!(ack.reason, ReasonCode::Success);
    client.publish(publish(press_reading(2))).await;
    assert_eq!(client.acked().await, (1, ReasonCode::NotAuthorized));

    let path = "/api/v1/streams/press/readings";
    assert_eq!(ask(&gateway, "POST", path, None, &press_reading(3)), 401);
    assert_eq!(ask(&gateway, "POST", path, Some("fb-wrong"), &press_reading(3)), 401);
    assert_eq!(ask(&gateway, "POST", path, Some(&other_key), &press_reading(3)), 403);
    assert_eq!(ask(&gateway, "POST", path, Some(&press_key), &press_reading(3)), 202);
    assert_eq!(ask(&gateway, "GET", "/api/v1/streams", None, ""), 401);
    assert_eq!(ask(&gateway, "GET", "/api/v1/streams", Some(&press_key), ""), 200);
    assert_eq!(ask(&gateway, "GET", path, Some(&press_key), ""), 200);
    assert_eq!(ask(&gateway, "GET", path, Some(&other_key), ""), 404, "a stream that it may not subscribe to is none");
    assert_eq!(ask(&gateway, "GET", "/metrics", None, ""), 401);
    assert_eq!(ask(&gateway, "GET", "/readyz", None, ""), 200, "probes have no key");

    let header = format!("Authorization: Bearer {press_key}\r\n");
    let (_, body) = http(gateway.http, "GET", path, &header, "").unwrap();
    let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
    let values: Vec<_> = answer["readings"].as_array().unwrap().iter().map(|reading| &reading["values"][0]).collect();
    assert_eq!(values, [&1.0, &3.0], "what was refused was not kept");
}

#[test]
fn a_name_that_cannot_be_an_identity_is_refused() {
    let (code, stdout, stderr) = forebay_says(&["key", "press hall"]);
    assert_eq!(code, Some(1), "{stdout}");
    assert!(stdout.is_empty() && stderr.contains("failed to use that name"), "{stderr}");
}
