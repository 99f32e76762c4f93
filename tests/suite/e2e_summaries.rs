//! What the cloud gets of a stream by default: windows in a few numbers, whole also over kills; and readings on demand.

use forebay::flows::record::{Closed, Quality, RawRecord, SummaryRecord, decode_summary};
use serde_json::{Value, json};

use crate::gateway::{Gateway, PRESS, Setup, http, poll};

/// A stream whose readings carry their time, so that two runs give the same summaries.
const TIMED: &str = r#"
[[stream]]
name = "press"
topic = "plant/press"
[stream.signal]
fields = [{ name = "force", path = "v" }, { name = "heat", path = "w" }]
[stream.signal.decoder]
time = "t"
time_format = "unix_ms"
id = "n"
[stream.signal.intake]
duplicate_key = "id"
interval_ms = 1000
late = "drop"
missing = "drop"
"#;

/// Bodies of the rows that wait in one class, single or in blocks.
fn bodies(gateway: &Gateway, class: &str) -> Vec<Vec<u8>> {
    let database = gateway.database();
    let mut found: Vec<(i64, Vec<u8>)> = Vec::new();
    let mut rows = database
        .prepare("SELECT seq, body FROM outbox_row JOIN outbox_stream USING (stream_no) WHERE class = ?1")
        .unwrap();
    found.extend(rows.query_map([class], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap));
    let mut blocks = database
        .prepare(
            "SELECT block.base, block.raw_bytes, block.body FROM outbox_block block JOIN outbox_stream USING (stream_no)
             WHERE class = ?1",
        )
        .unwrap();
    let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, Vec<u8>>(2)?));
    for block in blocks.query_map([class], read).unwrap() {
        let (base, raw_bytes, body) = block.unwrap();
        let raw = zstd::bulk::decompress(&body, usize::try_from(raw_bytes).unwrap()).unwrap();
        let columns: Vec<ciborium::Value> = ciborium::from_reader(raw.as_slice()).unwrap();
        // The last two columns: the lengths of the bodies, and the bodies.
        let mut bodies = columns[7].as_bytes().unwrap().as_slice();
        for (seq, length) in (base..).zip(columns[6].as_array().unwrap()) {
            let length = usize::try_from(u64::try_from(length.as_integer().unwrap()).unwrap()).unwrap();
            let (body, behind) = bodies.split_at(length);
            found.push((seq, body.to_vec()));
            bodies = behind;
        }
    }
    found.sort_unstable();
    found.into_iter().map(|(_, body)| body).collect()
}

fn summaries(gateway: &Gateway) -> Vec<SummaryRecord> {
    bodies(gateway, "summary").iter().map(|body| decode_summary(body).unwrap()).collect()
}

fn accept(gateway: &Gateway, readings: &[Value]) {
    let (status, answer) = gateway.post("/api/v1/streams/press/readings", &json!(readings).to_string());
    assert_eq!(status, 202, "{answer}");
}

/// One reading a second with a pattern; some seconds are missing.
fn timed(n: u64) -> Value {
    let wave = (n as f64 * 0.37).sin();
    json!({ "n": n, "t": 1_700_000_000_000_u64 + 1000 * (n + n / 40), "v": 50.0 + 20.0 * wave, "w": (n % 17) as f64 })
}

/// 250 readings in packs, with repeats and late ones among them, and what happens between two packs.
fn publish(gateway: &mut Gateway, mut between: impl FnMut(&mut Gateway, u64)) {
    for first in (1..=250).step_by(10) {
        let mut pack: Vec<Value> = (first..first + 10).map(timed).collect();
        pack.insert(5, timed(first));
        pack.insert(
            7,
            json!({ "n": 1_000_000 + first, "t": 1_700_000_000_000_u64 + 1000 * (first - 1), "v": 1.0, "w": 1.0 }),
        );
        accept(gateway, &pack);
        between(gateway, first);
    }
    let (status, answer) = gateway.post("/api/v1/streams/press/summary", "");
    assert_eq!((status, &answer["count"]), (202, &json!(50)), "{answer}");
}

#[test]
fn a_summary_over_sigkills_is_that_of_an_uninterrupted_run() {
    let config = format!("{TIMED}[stream.summary]\nreadings = 100\n");
    let mut calm = Gateway::start(&config);
    publish(&mut calm, |_, _| {});
    let wanted = summaries(&calm);
    assert_eq!(wanted.iter().map(|summary| summary.count).collect::<Vec<_>>(), [100, 100, 50]);
    let closed: Vec<_> = wanted.iter().map(|summary| summary.closed).collect();
    assert_eq!(closed, [Closed::Full, Closed::Full, Closed::Asked]);
    let quality = Quality { missing: 2, late: 10, duplicates: 10, dropped: 10, flagged: 0 };
    assert_eq!(wanted[0].quality, quality, "{:?}", wanted[0]);
    assert!(wanted.iter().all(|summary| summary.fields.len() == 2 && summary.fields[1].quantiles.is_some()));

    let mut troubled = Gateway::start(&config);
    publish(&mut troubled, |gateway, first| {
        if [31, 91, 101, 191, 231].contains(&first) {
            gateway.kill();
            gateway.restart();
        }
    });
    let mut found = summaries(&troubled);
    assert!(found.windows(2).all(|pair| pair[0].last < pair[1].first), "numbers do not overlap");
    assert!(found[2].last > 250, "a kill leaves numbers out");
    for (found, wanted) in found.iter_mut().zip(&wanted) {
        (found.first, found.last) = (wanted.first, wanted.last);
    }
    assert_eq!(found, wanted);
    // Nothing but summaries waits for the cloud.
    assert_eq!(troubled.get("/api/v1/queue")["rows"], 3);
    // A window that is empty is no summary.
    let (status, answer) = troubled.post("/api/v1/streams/press/summary", "");
    assert_eq!((status, &answer["count"]), (200, &json!(0)));
    assert_eq!(summaries(&troubled).len(), 3);
}

#[test]
fn a_slow_sensors_summary_ends_by_its_age_also_when_nothing_comes_after_a_restart() {
    let mut gateway = Gateway::start(&format!("{PRESS}[stream.summary]\nmax_age_s = 2\n"));
    let windows = "/api/v1/streams/press/windows";
    let count = |answer: &Value| answer["windows"].as_array().map_or(0, Vec::len);
    accept(&gateway, &[json!({ "n": 1, "value": 1 })]);
    gateway.wait_for(windows, |answer| count(answer) == 1);
    accept(&gateway, &[json!({ "n": 2, "value": 2 }), json!({ "n": 3, "value": 3 })]);
    gateway.kill();
    gateway.restart();
    gateway.wait_for(windows, |answer| count(answer) == 2);
    let found: Vec<_> = summaries(&gateway).iter().map(|one| (one.count, one.closed)).collect();
    assert_eq!(found, [(1, Closed::Age), (2, Closed::Age)]);
}

fn raw(gateway: &Gateway) -> Vec<RawRecord> {
    bodies(gateway, "raw").iter().map(|body| ciborium::from_reader(body.as_slice()).unwrap()).collect()
}

#[test]
fn readings_around_an_alarm_go_to_the_cloud_once_a_request() {
    let rule = "[stream.rule]\nraise = 1000.0\nclear = 900.0\n";
    let mut gateway = Gateway::start(&format!("{PRESS}{rule}"));
    let send = "/api/v1/streams/press/send";
    let readings: Vec<_> = (1..=700).map(|n| json!({ "n": n, "value": if n == 400 { 2000 } else { n } })).collect();
    accept(&gateway, &readings);
    let ask = json!({ "request": "why", "alarm": 1, "before": 300, "after": 100 }).to_string();
    let (status, answer) = gateway.post(send, &ask);
    assert_eq!(status, 202, "{answer}");
    let wanted = json!({
        "stream": "press", "request": "why", "first_seq": 100, "last_seq": 499, "readings": 400, "rows": 2,
        "truncated": false, "repeated": false,
    });
    assert_eq!(answer, wanted);
    let rows = raw(&gateway);
    let parts: Vec<_> = rows.iter().map(|row| (row.part, row.is_last, row.alarm, row.truncated)).collect();
    assert_eq!(parts, [(1, false, Some(1), false), (2, true, Some(1), false)]);
    let values: Vec<_> = rows.iter().flat_map(|row| &row.readings).map(|one| one.values[0].unwrap()).collect();
    let original: Vec<_> = (100..500).map(|n| if n == 400 { 2000.0 } else { f64::from(n) }).collect();
    assert_eq!(values, original);

    // The same request has no second effect, over a kill either.
    gateway.kill();
    gateway.restart();
    let (status, again) = gateway.post(send, &ask);
    assert_eq!((status, &again["repeated"], &again["readings"]), (202, &json!(true), &json!(400)));
    assert_eq!(raw(&gateway).len(), 2);
    // More than there is yet is declared.
    let (status, answer) = gateway.post(send, &json!({ "alarm": 1, "before": 5, "after": 9000 }).to_string());
    assert_eq!((status, &answer["readings"], &answer["truncated"]), (202, &json!(306), &json!(true)));
    assert!(raw(&gateway).last().unwrap().truncated);
    // A stretch of time: everything there is.
    let (status, answer) = gateway.post(send, &json!({ "from_ms": 0, "to_ms": 4_000_000_000_000_u64 }).to_string());
    assert_eq!((status, &answer["readings"], &answer["truncated"]), (202, &json!(700), &json!(true)), "{answer}");

    for (ask, status, code) in [
        (json!({ "alarm": 77 }), 404, "no_alarm"),
        (json!({ "from_ms": 5, "to_ms": 6 }), 404, "no_readings"),
        (json!({ "from_ms": 6, "to_ms": 5 }), 400, "bad_request"),
        (json!({ "alarm": 1, "from_ms": 5, "to_ms": 6 }), 400, "bad_request"),
        (json!({ "alarm": 1, "request": "two words" }), 400, "bad_request"),
        (json!({ "alarm": 1, "of": "that day" }), 400, "bad_request"),
    ] {
        let (found, answer) = gateway.post(send, &ask.to_string());
        assert_eq!((found, &answer["error"]["code"]), (status, &json!(code)), "{ask}: {answer}");
    }
    assert_eq!(gateway.post("/api/v1/streams/nowhere/send", "{}").0, 404);
}

#[test]
fn what_history_no_longer_has_is_declared() {
    let config = format!("[history]\nreadings = 300\n{PRESS}");
    let gateway = Gateway::start(&config);
    for first in (1..=1024).step_by(256) {
        let readings: Vec<_> = (first..first + 256).map(|n| json!({ "n": n, "value": n })).collect();
        accept(&gateway, &readings);
    }
    // What is not kept leaves in blocks, in the background.
    gateway.wait_for("/api/v1/streams/press/readings?after_seq=0&limit=1", |answer| answer["readings"][0]["seq"] != 1);
    let (status, answer) = gateway
        .post("/api/v1/streams/press/send", &json!({ "from_ms": 0, "to_ms": 4_000_000_000_000_u64 }).to_string());
    assert_eq!((status, &answer["truncated"]), (202, &json!(true)));
    let rows = raw(&gateway);
    let oldest = rows[0].readings[0].values[0].unwrap();
    assert!((2.0..=725.0).contains(&oldest), "{oldest} is the oldest that is kept: the newest 300 are");
    assert!(rows.iter().all(|row| row.truncated));
}

#[test]
fn only_an_operator_decides_what_is_sent() {
    let key = "an operator's key of many letters";
    let digest = forebay::base::Digest::of(key.as_bytes());
    let identity = |name: &str, publish: &str, key_sha256: &str| {
        format!(
            "[[access.identity]]\nname = \"{name}\"\nkey_sha256 = \"{key_sha256}\"\npublish = [{publish}]\nsubscribe = [\"#\"]\n"
        )
    };
    let sensor = forebay::base::Digest::of(b"a sensor's key of many letters");
    let access = [
        identity("operator", "\"forebay/+/send\"", &digest.to_string()),
        identity("press-7", "\"plant/#\"", &sensor.to_string()),
    ]
    .concat();
    let gateway = Gateway::with(&Setup { access: &access, more: PRESS, ..Setup::default() });
    let ask = |path: &str, key: &str| {
        let headers = format!("Authorization: Bearer {key}\r\n");
        http(gateway.http, "POST", path, &headers, r#"{"from_ms":1,"to_ms":2}"#).unwrap()
    };
    for path in ["/api/v1/streams/press/send", "/api/v1/streams/press/summary"] {
        let (status, body) = ask(path, "a sensor's key of many letters");
        assert_eq!(status, 403, "{body}");
        assert!(body.contains("forebay/press/send"), "the hint names the topic: {body}");
    }
    let found = poll("an operator is let in", || Some(ask("/api/v1/streams/press/send", key)));
    assert_eq!(found.0, 404, "let in; there are no readings: {}", found.1);
    assert_eq!(ask("/api/v1/streams/press/summary", key).0, 200);
}
