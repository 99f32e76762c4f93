//! The cloud asks a gateway for raw readings: from the command line, over a broker, through the queue, to the receiver.

use std::path::Path;
use std::process::{Command, Stdio};

use forebay::flows::record::RawRecord;
use serde_json::Value;

use crate::collecting::{Collecting, publish, report, until_sent};
use crate::gateway::{Gateway, PRESS, forebay, forebay_says, poll, said};
use crate::mosquitto::Mosquitto;

fn link(port: u16, more: &str) -> String {
    format!(
        "[cloud]\nport = {port}\nconnect_timeout_ms = 500\nanswer_timeout_ms = 1000\n\
         [sync]\ntenant = \"plant\"\nlinger_ms = 10\nretry_first_ms = 10\nretry_most_ms = 100\n{more}\n{PRESS}"
    )
}

/// Readings above 100 for three in a row raise an alarm.
const RULE: &str = "[stream.rule]\nraise = 100.0\nclear = 90.0\nraise_after = 3\n";

/// Exit code and the answer.
fn ask(broker: &Mosquitto, more: &[&str]) -> (Option<i32>, Value) {
    let broker = broker.address().to_string();
    let link =
        ["request", "raw", "--broker", &broker, "--tenant", "plant", "--gateway", "test-box", "--stream", "press"];
    let (code, stdout, stderr) = forebay_says(&[&link[..], more].concat());
    (code, serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stdout}{stderr}")))
}

/// The numbers of the raw readings that the receiver holds, and whether any request was cut short.
fn raw(state: &Path) -> Vec<RawRecord> {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let database = rusqlite::Connection::open_with_flags(state.join("forebay.db"), flags).unwrap();
    let mut rows = database
        .prepare("SELECT body FROM inbox_row JOIN inbox_series USING (series_no) WHERE class = 'raw' ORDER BY seq")
        .unwrap();
    let bodies = rows.query_map([], |row| row.get::<_, Vec<u8>>(0)).unwrap();
    bodies.map(|body| ciborium::from_reader(body.unwrap().as_slice()).unwrap()).collect()
}

#[test]
fn what_surrounds_an_alarm_comes_once_however_often_it_is_asked_for() {
    let broker = Mosquitto::start("");
    let folder = tempfile::tempdir().unwrap();
    let collecting = Collecting::start(broker.address(), folder.path());
    let mut gateway = Gateway::start(&format!("{}{RULE}", link(broker.port(), "")));
    // 101, 102 and 103 are the first three above 100.
    publish(&gateway, 1..201);
    let alerts =
        gateway.wait_for("/api/v1/alerts", |alerts| alerts["alerts"].as_array().is_some_and(|all| !all.is_empty()));
    let alarm = alerts["alerts"][0]["id"].as_i64().unwrap_or_else(|| panic!("{alerts}")).to_string();
    let asked = ["--alarm", &alarm, "--before", "5", "--after", "10", "--id", "shift-7"];
    let (code, answer) = ask(&broker, &asked);
    assert_eq!((code, &answer["outcome"], &answer["readings"]), (Some(0), &"queued".into(), &15.into()), "{answer}");
    assert_eq!(answer["truncated"], false, "{answer}");

    // The gateway is killed, and the operator asks again with the same name.
    gateway.kill();
    gateway.restart();
    let (code, answer) = ask(&broker, &asked);
    assert_eq!((code, &answer["outcome"], &answer["readings"]), (Some(0), &"repeated".into(), &15.into()), "{answer}");
    until_sent(&gateway);
    poll("the receiver has the row", || (!raw(folder.path()).is_empty()).then_some(()));
    let rows = raw(folder.path());
    let readings: Vec<_> = rows.iter().flat_map(|row| &row.readings).collect();
    assert_eq!((rows.len(), readings.len()), (1, 15), "{rows:?}");
    let first = answer["first"].as_u64().unwrap();
    let numbers: Vec<u64> = readings.iter().map(|reading| reading.number).collect();
    assert_eq!(numbers, (first..first + 15).collect::<Vec<_>>());
    assert!(readings.iter().any(|reading| reading.values == [Some(103.0)]), "{readings:?}");
    assert_eq!((rows[0].request.as_str(), rows[0].alarm), ("shift-7", alarm.parse().ok()));
    assert_eq!(report(folder.path()).0, Some(0));
    assert!(gateway.log().contains("the cloud asked for raw readings"), "{}", gateway.log());
    drop(collecting);
}

#[test]
fn what_cannot_be_had_is_refused_with_its_reason_and_too_many_are_put_off() {
    let broker = Mosquitto::start("");
    let folder = tempfile::tempdir().unwrap();
    let collecting = Collecting::start(broker.address(), folder.path());
    let gateway = Gateway::start(&link(broker.port(), "requests_per_minute = 4"));
    publish(&gateway, 1..21);
    let (code, answer) = ask(&broker, &["--alarm", "99"]);
    assert_eq!((code, &answer["outcome"]), (Some(1), &"refused".into()), "{answer}");
    assert!(answer["reason"].as_str().unwrap().contains("knows no alarm 99"), "{answer}");
    let (code, answer) = ask(&broker, &["--from", "1970-01-01T00:00:00Z", "--to", "1970-01-01T00:00:01Z"]);
    assert_eq!((code, &answer["outcome"]), (Some(1), &"refused".into()), "{answer}");
    let (code, answer) = ask(&broker, &["--from", "0", "--to", "99999999999999"]);
    assert_eq!((code, &answer["readings"]), (Some(0), &20.into()), "{answer}");
    for _ in 0..2 {
        ask(&broker, &["--alarm", "99"]);
    }
    let (code, answer) = ask(&broker, &["--alarm", "99"]);
    assert_eq!((code, &answer["outcome"]), (Some(1), &"later".into()), "{answer}");
    // That nobody waits for an answer any more does not make the link look bad.
    assert_eq!(gateway.get("/api/v1/link")["state"], "up");
    drop(collecting);
}

#[test]
fn a_gateway_that_is_away_answers_when_it_is_back_and_one_that_never_answers_is_said_to() {
    let broker = Mosquitto::start("");
    let address = broker.address().to_string();
    let link_args =
        ["request", "raw", "--broker", &address, "--tenant", "plant", "--gateway", "test-box", "--stream", "press"];
    let (code, _, stderr) =
        forebay_says(&[&link_args[..], &["--alarm", "1", "--timeout-s", "1", "--id", "x"]].concat());
    assert_eq!(code, Some(1));
    assert!(stderr.contains("the gateway is not connected to this broker"), "{stderr}");
    assert!(stderr.contains("test-box did not answer within 1 s; ask again with --id x"), "{stderr}");

    let mut command: Command = forebay();
    command.args(link_args).args(["--from", "0", "--to", "99999999999999"]);
    let mut asking = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let collecting = Collecting::start(broker.address(), folder.path());
    let gateway = Gateway::start(&link(broker.port(), ""));
    publish(&gateway, 1..21);
    let exited = poll("the question is answered", || asking.try_wait().unwrap());
    let (code, stdout, stderr) = said(asking.wait_with_output().unwrap());
    // It may have been answered before a reading was there, and says so.
    assert!(exited.code() == code && (stdout.contains("queued") || stdout.contains("refused")), "{stdout}{stderr}");
    drop(collecting);
}
