//! What a newcomer sees first.

use crate::gateway::{forebay, free_port, said};

/// Runs the demonstration and gives what it says.
fn demo(folder: &std::path::Path, arguments: &[&str]) -> String {
    let output = forebay()
        .args(["demo", "--once", "--readings", "3000", "--rate", "1500", "--dir"])
        .arg(folder.join("demo"))
        .args(["--mqtt-port", &free_port().to_string(), "--http-port", &free_port().to_string()])
        .args(arguments)
        .output()
        .unwrap();
    let (code, stdout, stderr) = said(output);
    assert_eq!(code, Some(0), "{stdout}\n{stderr}");
    stdout
}

/// Every figure of that name, in order.
fn figures<'a>(stdout: &'a str, what: &str) -> Vec<&'a str> {
    let lines = stdout.lines().filter(|line| line.trim_start().starts_with(what));
    lines.map(|line| line.split_whitespace().last().unwrap()).collect()
}

#[test]
fn the_demo_ends_with_zero_because_summaries_account_for_every_reading() {
    let folder = tempfile::tempdir().unwrap();
    let stdout = demo(folder.path(), &[]);
    // The story went as told, and the figures are those of this run.
    for (what, figure) in [
        ("acknowledged by the gateway", "3000"),
        ("received by the cloud", "3000"),
        ("missing", "0"),
        ("duplicated", "0"),
        ("altered", "0"),
        ("alarms that the cloud does not know", "0"),
    ] {
        assert_eq!(figures(&stdout, what), [figure], "{what} in:\n{stdout}");
    }
    assert!(stdout.contains("as 2 summaries stand for them"), "{stdout}");
    assert!(stdout.contains("identical to the recording's"), "{stdout}");
    assert!(stdout.contains("Every acknowledged reading is accounted for in the cloud, once."), "{stdout}");
    for event in ["cut", "kill", "restore"] {
        assert!(stdout.to_lowercase().contains(event), "no {event} in:\n{stdout}");
    }
    for process in ["gateway", "cloud", "collect"] {
        assert!(folder.path().join(format!("demo/{process}.log")).exists());
    }
}

#[test]
fn the_demo_with_verdicts_holds_each_reading_against_the_recording() {
    let folder = tempfile::tempdir().unwrap();
    let stdout = demo(folder.path(), &["--verdicts"]);
    assert_eq!(figures(&stdout, "received by the cloud"), ["3000", "3000"], "{stdout}");
    for what in ["missing", "duplicated", "altered"] {
        assert_eq!(figures(&stdout, what), ["0", "0"], "{what} in:\n{stdout}");
    }
    assert!(stdout.contains("each with its verdict"), "{stdout}");
}
