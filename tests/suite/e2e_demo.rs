//! What a newcomer sees first.

use crate::gateway::{forebay, free_port, said};

#[test]
fn the_demo_ends_with_zero_because_every_count_agrees() {
    let folder = tempfile::tempdir().unwrap();
    let output = forebay()
        .args(["demo", "--once", "--readings", "3000", "--rate", "1500", "--dir"])
        .arg(folder.path().join("demo"))
        .args(["--mqtt-port", &free_port().to_string(), "--http-port", &free_port().to_string()])
        .output()
        .unwrap();
    let (code, stdout, stderr) = said(output);
    assert_eq!(code, Some(0), "{stdout}\n{stderr}");
    // The story went as told, and the figures are those of this run.
    let figure = |what: &str| {
        let line = stdout.lines().find(|line| line.trim_start().starts_with(what));
        line.unwrap_or_else(|| panic!("no {what:?} in:\n{stdout}")).split_whitespace().last().unwrap().to_owned()
    };
    assert_eq!(figure("acknowledged by the gateway"), "3000");
    assert_eq!(figure("received by the cloud"), "3000");
    assert_eq!([figure("missing"), figure("duplicated"), figure("altered")], ["0", "0", "0"]);
    assert!(stdout.contains("Every acknowledged reading is in the cloud, once."), "{stdout}");
    for event in ["cut", "kill", "restore"] {
        assert!(stdout.to_lowercase().contains(event), "no {event} in:\n{stdout}");
    }
    for process in ["gateway", "cloud", "collect"] {
        assert!(folder.path().join(format!("demo/{process}.log")).exists());
    }
}
