//! Delegates' hosts that end, hang, leak and lie, with requests going on: every answer is right or says what is wrong, and the host
//! comes back.

use std::sync::atomic::{AtomicU64, Ordering};

use forebay::engine::Error;
use forebay::engine::delegate::Phase;
use serde_json::json;

use crate::delegate_fixture::{DEVICE, Hostile, Plant, ask, is_running, wait_for_restart};
use crate::gateway::poll;

#[test]
fn a_host_that_crashes_under_load_costs_no_answer() {
    let (plant, hostile) = Plant::hostile(&json!({ "crash_at": 40 }), "");
    let handle = plant.load("simple").unwrap();
    let (stood_in, came_back) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for client in 0..3 {
            let (handle, stood_in, came_back) = (&handle, &stood_in, &came_back);
            scope.spawn(move || {
                // Until hosts of three starts have answered and died.
                for request in 0.. {
                    let outputs = ask(handle, client * 100_000 + request % 1000, 1).unwrap();
                    match &outputs.fallback {
                        Some(reason) => {
                            assert_eq!(outputs.engine, "adder");
                            assert!(reason.contains("host"), "{reason}");
                            stood_in.fetch_add(1, Ordering::Relaxed);
                        }
                        None => {
                            assert_eq!(outputs.engine, "onnxruntime-cpu");
                            let restarts = handle.delegate().unwrap().restarts;
                            came_back.fetch_max(restarts, Ordering::Relaxed);
                        }
                    }
                    if came_back.load(Ordering::Relaxed) >= 3 {
                        return;
                    }
                }
            });
        }
    });
    assert!(stood_in.load(Ordering::Relaxed) >= 3 && hostile.starts() >= 4);
    let reason = poll("a reason", || handle.delegate().unwrap().reason.filter(|reason| reason.contains("signal")));
    assert_eq!(reason, "its host ended, with signal 11 (segmentation fault)");
}

#[test]
fn a_host_that_hangs_is_killed_and_another_answers() {
    let (plant, _hostile) = Plant::hostile(&json!({ "hang_at": 3 }), "timeout_ms = 1000");
    let handle = plant.load("simple").unwrap();
    let pid = handle.delegate().unwrap().pid.unwrap();
    assert_eq!(ask(&handle, 1, 1).unwrap().fallback, None);
    let outputs = ask(&handle, 2, 1).unwrap();
    assert_eq!(outputs.fallback.as_deref(), Some("its host gave no answer within 1000 ms and was killed"));
    let state = wait_for_restart(&handle, 1);
    assert_ne!(state.pid, Some(pid));
    assert!(!is_running(pid));
    assert_eq!(state.reason.as_deref(), Some("its host gave no answer within 1000 ms and was killed"));
}

#[test]
fn without_a_stand_in_the_request_fails_and_says_why() {
    let device = DEVICE.replace("devices = [\"cpu\"]", "devices = [\"cpu\"]\nstand_in = false");
    let hostile = Hostile::new(&json!({ "exit_at": 2 }));
    let plant = Plant::new(&hostile.settings(&device), vec![std::sync::Arc::new(crate::delegate_fixture::Adder)]);
    let handle = plant.load("simple").unwrap();
    assert_eq!(handle.stand_in(), None);
    let error = ask(&handle, 1, 1).unwrap_err();
    assert_eq!(error.to_string(), "model simple/1 is not computed by onnxruntime-cpu: its host ended");
    hostile.becomes(&json!({}));
    poll("an answer", || match ask(&handle, 1, 1) {
        Err(error @ Error::Delegate { .. }) => {
            assert!(error.to_string().contains("its host"), "{error}");
            None
        }
        answer => Some(answer.unwrap()),
    });
}

#[test]
fn a_host_that_leaks_is_started_anew_between_two_requests() {
    let device = DEVICE.replace("provider = \"cpu\"", "provider = \"cpu\"\nmemory_limit_bytes = 50000000");
    let hostile = Hostile::new(&json!({ "leak": 4_000_000 }));
    let plant = Plant::new(&hostile.settings(&device), vec![std::sync::Arc::new(crate::delegate_fixture::Adder)]);
    let handle = plant.load("simple").unwrap();
    let mut requests = 0;
    let state = poll("two restarts", || {
        requests += 1;
        ask(&handle, requests, 1).unwrap();
        Some(handle.delegate().unwrap()).filter(|state| state.restarts >= 2)
    });
    let reason = state.reason.unwrap();
    assert!(reason.contains("bytes of memory, the limit is 50000000 (memory_limit_bytes)"), "{reason}");
}

#[test]
fn whatever_a_host_says_of_its_outputs_is_held_against_the_declaration() {
    let expected = [
        ("outside", "output OUTPUT0: 64 bytes at"),
        ("far", "output OUTPUT0: 64 bytes at 9223372036854775808"),
        ("over the inputs", "output OUTPUT0: 64 bytes at 0"),
        ("short", "a tensor of INT32 [1, 16] in 60 bytes"),
        ("type", "output OUTPUT0: FP32, expected INT32"),
        ("no type", "a tensor of no known type"),
        ("shape", "output OUTPUT0: shape [16, 1], expected [-1, 16]"),
        ("overflow", "a tensor of INT32 [4611686018427387904, 4611686018427387904]"),
        ("unaligned", "a tensor at byte"),
        ("count", "something behind its end"),
        ("torn", "a message ends too early"),
        ("more", "something behind its end"),
        ("many", "2147483648 tensors, the most is 1024"),
        ("id", "an answer to request 3, expected 2"),
        ("kind", "a message of kind 77"),
        ("nothing", "a message ends too early"),
        ("huge", "a message of 100001 bytes, the most is 65536"),
    ];
    let (plant, hostile) = Plant::hostile(&json!({}), "");
    for (lie, reason) in expected {
        hostile.becomes(&json!({ "lie": lie }));
        let handle = plant.load("simple").unwrap();
        let outputs = ask(&handle, 5, 1).unwrap();
        let told = outputs.fallback.unwrap_or_else(|| panic!("{lie} was believed"));
        assert!(told.starts_with("its host broke the agreement and was killed: "), "{lie}: {told}");
        assert!(told.contains(reason), "{lie}: {told}");
        wait_for_restart(&handle, 1);
    }
}

#[test]
fn memory_grows_to_what_outputs_need_and_no_further() {
    let (plant, hostile) = Plant::hostile(&json!({ "wants": 3_000_000 }), "shared_bytes_max = 8000000");
    let handle = plant.load("simple").unwrap();
    for rows in [1, 2, 9000, 1] {
        assert_eq!(ask(&handle, 7, rows).unwrap().fallback, None, "{rows} rows");
    }
    let reason = ask(&handle, 7, 70_000).unwrap().fallback.unwrap();
    assert!(reason.contains("the most is 8000000 (delegate.shared_bytes_max)"), "{reason}");
    assert_eq!((ask(&handle, 7, 1).unwrap().fallback, hostile.starts()), (None, 1), "the host was well all the time");
    hostile.becomes(&json!({ "wants": 3_000_000, "wants_more": 4_000_000 }));
    let refused = plant.load("simple").unwrap();
    assert!(refused.passed_over()[0].reason.contains("it wants 4000000 bytes after 3000000"), "{refused:?}");
}

#[test]
fn a_host_cannot_take_the_memory_away_under_the_gateways_feet() {
    let (plant, _hostile) = Plant::hostile(&json!({ "shrink": true }), "");
    let handle = plant.load("simple").unwrap();
    assert_eq!(ask(&handle, 1, 100).unwrap().fallback, None);
    assert_eq!(handle.delegate().unwrap().restarts, 0);
}

#[test]
fn a_device_that_computes_wrong_does_not_serve() {
    let (plant, _hostile) = Plant::hostile(&json!({ "wrong": 1 }), "");
    let handle = plant.load("simple").unwrap();
    assert_eq!(handle.engine(), "adder");
    let passed = &handle.passed_over()[0];
    assert_eq!(passed.engine, "onnxruntime-cpu");
    assert!(passed.reason.contains("than sample 1 has") && passed.reason.contains("given 2"), "{}", passed.reason);
    let outputs = ask(&handle, 1, 1).unwrap();
    assert!(outputs.fallback.unwrap().contains("it must not serve"), "the answer says so, too");
}

#[test]
fn a_device_that_computes_wrong_after_a_crash_does_not_serve_again() {
    let (plant, hostile) = Plant::hostile(&json!({ "wrong": 1, "wrong_from_start": 2, "exit_at": 3 }), "");
    let handle = plant.load("simple").unwrap();
    assert_eq!(ask(&handle, 1, 1).unwrap().fallback, None);
    assert!(ask(&handle, 1, 1).unwrap().fallback.is_some());
    let reason = poll("a host that is refused", || {
        handle.delegate().unwrap().reason.filter(|reason| reason.contains("does not start"))
    });
    assert!(reason.contains("than sample 1 has"), "{reason}");
    assert!(ask(&handle, 1, 1).unwrap().fallback.is_some());
    hostile.becomes(&json!({}));
    poll("a device that is right again", || ask(&handle, 1, 1).unwrap().fallback.is_none().then_some(()));
}

#[test]
fn a_model_without_golden_inputs_is_not_given_to_a_device_unless_somebody_says_so() {
    let (plant, _hostile) = Plant::hostile(&json!({}), "");
    let mut spec = crate::delegate_fixture::spec("simple");
    spec.samples.clear();
    let handle = plant.pool.load(&spec).unwrap();
    assert_eq!(handle.engine(), "adder");
    assert!(handle.passed_over()[0].reason.contains("no golden inputs"), "{:?}", handle.passed_over());
    let device = DEVICE.replace("devices = [\"cpu\"]", "devices = [\"cpu\"]\nrequire_golden = false");
    let hostile = Hostile::new(&json!({}));
    let plant = Plant::new(&hostile.settings(&device), Vec::new());
    assert_eq!(plant.pool.load(&spec).unwrap().engine(), "onnxruntime-cpu");
}

#[test]
fn a_device_that_fails_request_after_request_is_started_anew() {
    let (plant, _hostile) = Plant::hostile(&json!({ "fail_from": 2 }), "");
    let handle = plant.load("simple").unwrap();
    assert_eq!(ask(&handle, 1, 1).unwrap().fallback, None);
    for _ in 0..3 {
        assert_eq!(ask(&handle, 1, 1).unwrap().fallback.as_deref(), Some("its host says: the device is lost"));
    }
    wait_for_restart(&handle, 1);
    assert_eq!(ask(&handle, 1, 1).unwrap().fallback, None);
}

#[test]
fn a_host_that_cannot_load_leaves_the_model_to_the_next_engine_with_its_reason() {
    let modes = [
        (json!({ "refuse": "no such device" }), "its host says: no such device"),
        (
            json!({ "die_while_loading": true }),
            "it ended while loading, with signal 11 (segmentation fault); its last words: driver fault 17",
        ),
        (json!({ "hang_while_loading": true }), "its host gave no answer within 3000 ms and was killed"),
        (json!({ "protocol": 99 }), "it speaks version 99 of the protocol"),
    ];
    let (plant, hostile) = Plant::hostile(&json!({}), "load_timeout_ms = 3000");
    for (mode, reason) in modes {
        hostile.becomes(&mode);
        let handle = plant.load("simple").unwrap();
        assert_eq!(handle.engine(), "adder");
        assert!(handle.passed_over()[0].reason.contains(reason), "{:?}", handle.passed_over());
        assert!(ask(&handle, 1, 1).unwrap().fallback.unwrap().contains(reason));
        assert_eq!(std::fs::read_dir(plant.folder.path().join("delegate")).unwrap().count(), 0, "it left something");
    }
}

#[test]
fn a_host_with_a_network_does_not_serve_unless_somebody_says_so() {
    let hostile = Hostile::new(&json!({}));
    let settings = hostile.settings(DEVICE).replace("allow_network = true", "allow_network = false");
    let plant = Plant::new(&settings, vec![std::sync::Arc::new(crate::delegate_fixture::Adder)]);
    let handle = plant.load("simple").unwrap();
    assert!(handle.passed_over()[0].reason.contains("nothing keeps it off the network"), "{:?}", handle.passed_over());
}

#[test]
fn a_library_that_nobody_tried_is_not_loaded() {
    let hostile = Hostile::new(&json!({}));
    let settings = hostile.settings(DEVICE);
    std::fs::write(hostile.folder.path().join("library.so"), "another").unwrap();
    let plant = Plant::new(&settings, vec![std::sync::Arc::new(crate::delegate_fixture::Adder)]);
    let handle = plant.load("simple").unwrap();
    assert!(handle.passed_over()[0].reason.contains("library.so has SHA-256"), "{:?}", handle.passed_over());
    assert_eq!(hostile.starts(), 0);
}

#[test]
fn a_model_that_is_taken_away_takes_its_host_with_it() {
    let (plant, _hostile) = Plant::hostile(&json!({}), "");
    let handle = plant.load("simple").unwrap();
    let state = handle.delegate().unwrap();
    assert_eq!(state.phase, Phase::Serving);
    let pid = state.pid.unwrap();
    assert!(is_running(pid));
    drop(handle);
    assert!(!is_running(pid));
    assert_eq!(std::fs::read_dir(plant.folder.path().join("delegate")).unwrap().count(), 0);
}
