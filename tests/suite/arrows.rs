//! The map of the house, held by a test: a room names only rooms above it in this table.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Room -> rooms it may name. A row names only rows above it, so the table itself cannot hold a cycle.
/// A new arrow is a design decision: its own commit, with the reason.
const ARROWS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("telemetry", &["base"]),
    ("store", &["base"]),
    ("access", &["base", "store"]),
    ("broker", &["base", "store"]),
    ("cache", &["base", "store"]),
    ("signal", &["base"]),
    ("rules", &["base"]),
    ("route", &["base"]),
    ("catalog", &["base"]),
    ("dialect", &["base"]),
    ("engine", &["base"]),
    ("generate", &["base"]),
    ("history", &["base", "store"]),
    ("outbox", &["base", "store"]),
    ("pipeline", &["base"]),
    ("price", &["base"]),
    ("provider", &["base"]),
    ("inbox", &["base", "store"]),
    ("ledger", &["base", "store"]),
    ("quota", &["base", "store"]),
    ("transform", &["base"]),
    ("uplink", &["base"]),
    (
        "flows",
        &[
            "base",
            "store",
            "access",
            "broker",
            "cache",
            "signal",
            "rules",
            "route",
            "catalog",
            "dialect",
            "engine",
            "generate",
            "history",
            "outbox",
            "pipeline",
            "price",
            "provider",
            "inbox",
            "ledger",
            "quota",
            "transform",
            "uplink",
        ],
    ),
    ("doors", &["base", "access", "broker", "dialect", "flows"]),
    (
        "app",
        &[
            "base",
            "telemetry",
            "store",
            "access",
            "broker",
            "cache",
            "signal",
            "rules",
            "route",
            "catalog",
            "dialect",
            "engine",
            "generate",
            "history",
            "outbox",
            "pipeline",
            "price",
            "provider",
            "inbox",
            "ledger",
            "quota",
            "transform",
            "uplink",
            "flows",
            "doors",
        ],
    ),
];

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Each line without its `//` comment. String literals that hold `//` lose their tail, which names no room.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(at, line)| (at + 1, line.split("//").next().unwrap_or("")))
}

/// Rooms named as `crate::room` or `forebay::room`, also inside a group: `use crate::{a::B, c}`.
fn rooms_named(code: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut start = 0;
            for (i, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => {
                        rooms.push(group[start..i].to_owned());
                        break;
                    }
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        rooms.push(group[start..i].to_owned());
                        start = i + 1;
                    }
                    _ => {}
                }
            }
        } else {
            rooms.push(rest.to_owned());
        }
    }
    let head = |text: &String| text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    rooms.iter().map(head).filter(|room| !room.is_empty()).collect()
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

#[test]
fn no_arrow_points_up_or_sideways() {
    let allowed: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    let mut wrong = Vec::new();
    for (room, arrows) in ARROWS {
        let mut files = Vec::new();
        rust_files(&source().join(room), &mut files);
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            let code: String = code_lines(&text).map(|(_, line)| format!("{line}\n")).collect();
            for named in rooms_named(&code) {
                let known = allowed.contains_key(named.as_str());
                if known && named != *room && !arrows.contains(&named.as_str()) {
                    wrong.push(format!("{}: {room} -> {named}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that point up or sideways:\n{}", wrong.join("\n"));
}

#[test]
fn the_table_names_every_room_once_and_only_rooms_above() {
    let mut above: Vec<&str> = Vec::new();
    for (room, arrows) in ARROWS {
        for arrow in *arrows {
            assert!(above.contains(arrow), "{room} -> {arrow}: not a row above");
        }
        assert!(!above.contains(room), "{room} stands twice");
        above.push(room);
    }
    let mut rooms: Vec<_> = fs::read_dir(source())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    rooms.sort();
    let mut table: Vec<_> = above.iter().map(ToString::to_string).collect();
    table.sort();
    assert_eq!(rooms, table, "folders under src/ and the table differ");
}

#[test]
fn nobody_imports_everything_or_climbs_out() {
    let mut files = Vec::new();
    rust_files(&source(), &mut files);
    let mut wrong = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for (line, code) in code_lines(&text) {
            if code.contains("use crate::*") || code.contains("super::super") {
                wrong.push(format!("{}:{line}: {}", file.display(), code.trim()));
            }
        }
    }
    let root = fs::read_to_string(source().join("lib.rs")).unwrap();
    for (line, code) in code_lines(&root) {
        if code.contains("pub use") {
            wrong.push(format!("src/lib.rs:{line}: a re-export at the root hides the room"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_reader_sees_arrows_inside_groups_and_paths() {
    assert_eq!(rooms_named("use crate::{base::{Name, Seq}, store::Tx};"), ["base", "store"]);
    assert_eq!(rooms_named("let x = crate::outbox::Class::Alarm;"), ["outbox"]);
}
