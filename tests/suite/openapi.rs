//! The description at `/openapi.json` against what the gateway answers: schemathesis makes requests from the one, good and
//! bad ones, and holds the other to it. Status codes, types and forms that are not described fail, and so does any 5xx.

use std::path::Path;
use std::process::Command;

use crate::gateway::{Gateway, PRESS, Setup, press_reading, said};

#[test]
fn every_answer_to_whatever_is_asked_is_as_described() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let gateway = Gateway::with(&Setup {
        access: "allow_anonymous_loopback = true\nanonymous_manage_models = true",
        models: Some(&root.join("tests/fixtures/models")),
        more: PRESS,
        ..Setup::default()
    });
    for n in 1..=20 {
        assert_eq!(gateway.post("/api/v1/streams/press/readings", &press_reading(n)).0, 202);
    }
    let interpreter = std::env::var("FOREBAY_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let mut schemathesis = Command::new(&interpreter);
    schemathesis
        .args(["-m", "schemathesis.cli", "--config-file"])
        .arg(root.join("tests/suite/schemathesis.toml"))
        .args(["run", &format!("http://{}/openapi.json", gateway.http), "--max-examples", "10", "--no-color"])
        .current_dir(gateway.folder.path());
    let output = schemathesis
        .output()
        .unwrap_or_else(|error| panic!("{interpreter}: {error}; name a Python 3 in FOREBAY_PYTHON"));
    let (code, stdout, stderr) = said(output);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(stdout.contains("Tested: "), "{stdout}");
}
