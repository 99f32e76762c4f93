//! A gateway whose models another process computes: what clients, operators and the line see when that process misbehaves.

use std::path::Path;

use serde_json::{Value, json};

use crate::delegate_fixture::{DEVICE, Hostile, is_running, signal};
use crate::gateway::{Gateway, PRESS, Setup, forebay_says, poll, press_readings};

/// `[delegate]` under its name in a gateway's configuration.
fn section(hostile: &Hostile, more: &str) -> String {
    let text = format!("{}{DEVICE}", hostile.settings(more));
    let text = text.replace("[[device]]", "[[delegate.device]]").replace("[[model]]", "[[delegate.model]]");
    let text = text.replace("name = \"*\"", "name = \"simple\"");
    format!("[delegate]\n{text}\n{PRESS}")
}

fn gateway(hostile: &Hostile, more: &str) -> Gateway {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models");
    Gateway::with(&Setup { models: Some(&models), more: &section(hostile, more), ..Setup::default() })
}

fn infer(gateway: &Gateway) -> (u16, Value) {
    let tensor = |name: &str, first: i32| json!({ "name": name, "datatype": "INT32", "shape": [1, 16], "data": (first..first + 16).collect::<Vec<_>>() });
    let body = json!({ "inputs": [tensor("INPUT0", 5), tensor("INPUT1", 1)] });
    let (status, answer) = gateway.post("/v2/models/simple/infer", &body.to_string());
    if status == 200 {
        assert_eq!(
            (&answer["outputs"][0]["data"][0], &answer["outputs"][1]["data"][15]),
            (&6.into(), &4.into()),
            "{answer}"
        );
    }
    (status, answer)
}

fn delegate(gateway: &Gateway) -> Value {
    let models = gateway.get("/api/v1/models");
    let simple = models["models"].as_array().unwrap().iter().find(|model| model["name"] == "simple").cloned();
    simple.unwrap()["delegate"].clone()
}

#[test]
fn a_fallback_is_in_the_answer_in_the_state_in_the_metrics_and_in_the_log() {
    let hostile = Hostile::new(&json!({}));
    let hang = hostile.folder.path().join("hang");
    hostile.becomes(&json!({ "hang_if": hang }));
    let mut gateway = gateway(&hostile, "timeout_ms = 1000");
    let (status, answer) = infer(&gateway);
    assert_eq!((status, &answer["parameters"]), (200, &Value::Null));
    assert_eq!(delegate(&gateway)["state"], "serving");
    std::fs::write(&hang, "").unwrap();
    let (status, answer) = infer(&gateway);
    std::fs::remove_file(&hang).unwrap();
    assert_eq!((status, &answer["parameters"]["forebay_engine"]), (200, &"tract".into()), "{answer}");
    let reason = "its host gave no answer within 1000 ms and was killed";
    assert_eq!(answer["parameters"]["forebay_fallback"], reason);
    let state = poll("a restart", || {
        Some(delegate(&gateway)).filter(|state| state["restarts"].as_u64() > Some(0) && state["state"] == "serving")
    });
    assert!(state["reason"].as_str().unwrap().contains("no answer within 1000 ms"), "{state}");
    assert_eq!((&state["stand_in"], &state["device"]), (&"tract".into(), &"cpu".into()));
    let metrics = gateway.ask("/metrics").1;
    let metrics = metrics.as_str().unwrap();
    assert!(metrics.contains("forebay_engine_fallbacks_total{model=\"simple/1\"} 1"), "{metrics}");
    assert!(metrics.contains("forebay_delegate_restarts_total{model=\"simple/1\",cause=\"Hung\"} 1"), "{metrics}");
    assert!(metrics.contains("forebay_delegate_up{model=\"simple/1\"} 1"), "{metrics}");
    let log = gateway.log();
    assert!(log.contains("a delegate does not answer") && log.contains("a delegate's host is gone"), "{log}");
    gateway.stop();
}

#[test]
fn the_line_goes_on_while_hosts_die_and_a_dead_gateway_leaves_none() {
    let hostile = Hostile::new(&json!({ "crash_at": 2 }));
    let mut gateway = gateway(&hostile, "");
    for batch in 0..20_u64 {
        assert_eq!(infer(&gateway).0, 200);
        let (status, answer) =
            gateway.post("/api/v1/streams/press/readings", &press_readings(batch * 10 + 1..batch * 10 + 11));
        assert_eq!((status, &answer["count"]), (202, &10.into()), "{answer}");
    }
    assert_eq!(gateway.readings("press").len(), 200);
    assert!(hostile.starts() > 1);
    hostile.becomes(&json!({}));
    let pid = poll("a host that stays", || {
        infer(&gateway);
        let state = delegate(&gateway);
        if state["state"] == "serving" { state["pid"].as_u64() } else { None }
    });
    let pid = u32::try_from(pid).unwrap();
    assert!(is_running(pid));
    signal("KILL", gateway.pid());
    poll("the host's end", || (!is_running(pid)).then_some(()));
    gateway.kill();
}

#[test]
fn check_and_doctor_say_what_a_delegate_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let hostile = Hostile::new(&json!({}));
    let config = |text: &str| {
        let path = folder.path().join("forebay.toml");
        let state = folder.path().join("state");
        std::fs::write(&path, format!("[gateway]\nname = \"box\"\n[store]\nstate_dir = {state:?}\n{text}")).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let wrong = config(&section(&hostile, "").replace("devices = [\"cpu\"]", "devices = [\"gpu\"]"));
    let (code, stdout, _) = forebay_says(&["check", "--config", &wrong]);
    assert_eq!(code, Some(1));
    assert!(stdout.contains("no device gpu; cpu") && stdout.contains("forebay.toml:"), "{stdout}");
    let missing = section(&hostile, "").replace("/host\"", "/nobody\"");
    let (code, stdout, _) = forebay_says(&["check", "--config", &config(&missing)]);
    assert_eq!(code, Some(0), "{stdout}");
    assert!(stdout.contains("failed to open") && stdout.contains("/nobody"), "{stdout}");
    let (code, stdout, stderr) = forebay_says(&["doctor", "--json", "--config", &config(&missing)]);
    assert_eq!(code, Some(1), "{stdout}{stderr}");
    let told: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(told["fine"], false);
    let findings = told["findings"].as_array().unwrap();
    let program = findings.iter().find(|finding| finding["what"] == "delegate").unwrap();
    assert_eq!(program["state"], "bad");
    assert!(program["text"].as_str().unwrap().contains("/nobody") && program["advice"].is_string(), "{program}");
    for accelerator in ["nvidia", "intel gpu", "intel npu", "qualcomm npu", "rockchip npu"] {
        assert!(findings.iter().any(|finding| finding["what"] == accelerator), "no word on {accelerator}: {stdout}");
    }
    let (_, stdout, _) = forebay_says(&["doctor", "--config", &config(&missing)]);
    assert!(stdout.contains("BAD delegate") && stdout.contains("ok  machine"), "{stdout}");
}
