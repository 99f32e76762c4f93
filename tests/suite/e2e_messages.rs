//! What goes wrong at a start says where it is and what to do.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::gateway::{PRESS, Setup, forebay, free_port, loopback, poll, said, write_config};

/// Runs a command that must end by itself: exit code and everything it said.
fn ends(command: &mut Command) -> (Option<i32>, String) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    poll("the command ends by itself", || child.try_wait().unwrap());
    let (code, stdout, stderr) = said(child.wait_with_output().unwrap());
    (code, format!("{stdout}{stderr}"))
}

fn run(config: &Path) -> (Option<i32>, String) {
    ends(forebay().arg("run").arg("--config").arg(config))
}

fn check(config: &Path) -> (Option<i32>, String) {
    ends(forebay().arg("check").arg("--config").arg(config))
}

fn config(folder: &Path, more: &str) -> PathBuf {
    write_config(folder, loopback(free_port()), loopback(free_port()), &Setup { more, ..Setup::default() })
}

#[test]
fn a_taken_mqtt_port_is_named_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind(loopback(free_port())).unwrap();
    let address = taken.local_addr().unwrap();
    let config = write_config(folder.path(), address, loopback(free_port()), &Setup::default());
    let (code, text) = run(&config);
    assert_eq!(code, Some(1), "{text}");
    let wanted = [
        format!("failed to listen on {address}"),
        "has the port".into(),
        "set another `address` in `[[mqtt.listener]]`".into(),
    ];
    assert!(wanted.iter().all(|wanted| text.contains(wanted)), "{text}");
    // Freed, the same configuration serves; the failed start broke nothing.
    drop(taken);
    assert_eq!(check(&config).0, Some(0));
}

#[test]
fn a_taken_http_port_is_named_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind(loopback(free_port())).unwrap();
    let address = taken.local_addr().unwrap();
    let (code, text) = run(&write_config(folder.path(), loopback(free_port()), address, &Setup::default()));
    assert_eq!(code, Some(1), "{text}");
    let wanted = [
        format!("failed to listen on http://{address}"),
        "another program has that port".into(),
        "set another `address` in [http]".into(),
    ];
    assert!(wanted.iter().all(|wanted| text.contains(wanted)), "{text}");
}

#[test]
fn doctor_finds_the_taken_port_too() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind(loopback(free_port())).unwrap();
    let config = write_config(folder.path(), taken.local_addr().unwrap(), loopback(free_port()), &Setup::default());
    let (code, text) = ends(forebay().arg("doctor").arg("--config").arg(&config));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.lines().any(|line| line.starts_with("BAD mqtt") && line.contains("cannot be opened")), "{text}");
    assert!(text.lines().any(|line| line.starts_with("ok  disk")), "{text}");
}

/// A mistake in the configuration: what stands there, the text at which the finding points, and what is said.
const MISTAKES: &[(&str, &str, &[&str])] = &[
    ("[sync]\nbatch_row = 3", "batch_row", &["unknown field `batch_row`", "did you mean `batch_rows`?"]),
    ("[sink]\nx = 1", "sink", &["unknown field `sink`"]),
    ("[outbox]\nreserve_rows = \"many\"", "\"many\"", &["invalid type: string \"many\""]),
    ("[[stream]]\nname = \"press\"\ntopic = \"plant/#/x\"", "\"plant/#/x\"", &["must be the last level"]),
    ("[[stream]]\nname = \"press hall\"\ntopic = \"plant/press\"", "\"press hall\"", &["name"]),
    ("[[stream]]\nname = \"press\"", "[[stream]]", &["missing field `topic`"]),
    (
        "[[stream]]\nname = \"press\"\ntopic = \"plant/press\"\n[stream.signal.window]\nsize = 3\nstep = 4",
        "4",
        &["window.step"],
    ),
    ("[[stream]]\nname = \"press\"\ntopic = \"plant/press\"\n[stream.rule]\nclear = 1.0", "1.0", &["needs `raise`"]),
    ("[cloud]\nkeep_alive_s = 1", "1", &["keep_alive_s"]),
    ("[gateway", "[gateway", &[]),
];

#[test]
fn every_mistake_in_the_configuration_is_shown_with_line_column_and_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    for (mistake, at, said) in MISTAKES {
        let path = config(folder.path(), mistake);
        let text = std::fs::read_to_string(&path).unwrap();
        let begins = text.rfind(mistake).unwrap();
        let place = begins + if *at == "4" { mistake.rfind(at).unwrap() } else { mistake.find(at).unwrap() };
        let line = text[..place].matches('\n').count() + 1;
        for (how, (code, answer)) in [("check", check(&path)), ("run", run(&path))] {
            assert_eq!(code, Some(1), "{how} with {mistake}: {answer}");
            assert!(answer.contains(&format!("{}:{line}:", path.display())), "{how}: no line {line} in {answer}");
            for word in *said {
                assert!(answer.contains(word), "{how}: no {word} in {answer}");
            }
            assert!(answer.contains(" | ") && answer.contains('^'), "{how}: the line is not shown: {answer}");
        }
    }
}

#[test]
fn a_column_is_that_of_the_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let path = config(folder.path(), "[sync]\n  batch_rows   =   \"x\"\n");
    let (code, text) = check(&path);
    assert_eq!(code, Some(1));
    let line =
        std::fs::read_to_string(&path).unwrap().lines().position(|line| line.contains("batch_rows")).unwrap() + 1;
    assert!(text.contains(&format!("{}:{line}:20: ", path.display())), "{text}");
}

#[test]
fn an_absent_configuration_says_how_to_name_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nothing.toml");
    for (code, text) in [check(&path), run(&path)] {
        assert_eq!(code, Some(1));
        assert!(text.contains("nothing.toml") && text.contains("--config FILE"), "{text}");
    }
    let (code, text) = check(folder.path());
    assert_eq!(code, Some(1));
    assert!(text.contains("name the file, not its folder"), "{text}");
}

#[test]
fn a_wrong_variable_of_the_environment_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = config(folder.path(), PRESS);
    assert_eq!(check(&path).0, Some(0));
    let wrong = [
        ("FOREBAY__HTTP__ADDRESS", "nonsense", "invalid socket address"),
        ("FOREBAY__STORE__READERS", "many", "expected usize"),
        ("FOREBAY__HTTP__ADRESS", "127.0.0.1:1", "did you mean `address`?"),
    ];
    for (name, value, said) in wrong {
        for command in ["check", "run"] {
            let (code, text) = ends(forebay().arg(command).arg("--config").arg(&path).env(name, value));
            assert_eq!(code, Some(1), "{command} {name}={value}: {text}");
            assert!(text.contains(name) && text.contains(said), "{command} {name}={value}: {text}");
        }
    }
    // A right one is taken.
    let taken = TcpListener::bind(loopback(free_port())).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, text) = ends(forebay().arg("run").arg("--config").arg(&path).env("FOREBAY__HTTP__ADDRESS", &address));
    assert_eq!(code, Some(1));
    assert!(text.contains(&format!("failed to listen on http://{address}")), "{text}");
}

#[test]
fn check_points_out_what_an_operator_should_know_of_a_configuration_that_is_fine() {
    let folder = tempfile::tempdir().unwrap();
    let path = config(folder.path(), PRESS);
    let (code, text) = check(&path);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("note: access.allow_anonymous_loopback is on"), "{text}");
    assert!(text.contains("note: no [cloud]"), "{text}");
    assert!(text.contains("fine; streams: 1"), "{text}");
    let (code, text) = check(&config(folder.path(), "[cloud]\nhost = \"cloud.example\"\n"));
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("the link to cloud.example is not encrypted"), "{text}");
}
