//! The rules of the house, read off the source: who may name whom, which outside crate lives in
//! which room, words that do not belong. There are no exceptions.

use std::path::{Path, PathBuf};

/// Rooms and the rooms they may name. Leaves may be named by all but `domain`.
const MAY_NAME: [(&str, &[&str]); 8] = [
    ("domain", &[]),
    ("auth", &["domain"]),
    ("catalog", &["domain"]),
    ("blobs", &["domain"]),
    ("operations", &["domain", "auth", "catalog", "blobs"]),
    ("replication", &["domain", "auth", "catalog", "blobs", "operations"]),
    ("jobs", &["domain", "auth", "catalog", "blobs", "operations"]),
    ("api", &["domain", "auth", "operations"]),
];
const LEAVES: [&str; 3] = ["clock", "entropy", "metrics"];

/// Outside crates and the places that may name them.
const CRATES: [(&str, &[&str]); 14] = [
    ("actix_web", &["api/", "house.rs"]),
    ("actix_http", &["api/"]),
    ("rusqlite", &["catalog/"]),
    ("crossbeam_channel", &["catalog/"]),
    ("rustix", &["blobs/", "house.rs"]),
    ("aws_lc_rs", &["auth/", "entropy.rs"]),
    ("sha1", &["domain/digest.rs"]),
    ("md5", &["domain/digest.rs"]),
    ("crc_fast", &["domain/digest.rs"]),
    ("reqwest", &["outbound.rs"]),
    ("clap", &["cli.rs", "config.rs"]),
    ("toml", &["config.rs"]),
    ("chrono", &["domain/time.rs"]),
    ("zeroize", &["domain/key.rs"]),
];

/// Words that stand nowhere in the source of the project, and why.
const WORDS: [(&str, &str); 8] = [
    ("TODO", "finish it, or write down what is missing in docs"),
    ("FIXME", "finish it, or write down what is missing in docs"),
    ("#[allow(", "expect with a reason, so that a stale exception is noticed"),
    ("println!(", "write to a stream that was handed in"),
    ("std::process::exit", "return, so that everything is closed"),
    ("/root/", "a path of one machine"),
    ("/work/", "a path of one machine"),
    ("SystemTime::now", "ask the clock"),
];

fn sources(folder: &Path, into: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
            let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
            into.push((name, std::fs::read_to_string(&path).unwrap()));
        }
    }
}

fn all_sources() -> Vec<(String, String)> {
    let mut all = Vec::new();
    sources(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src"), &mut all);
    assert!(all.len() > 40, "the source was found");
    all
}

/// What the code of a line says, without its comment.
fn code(line: &str) -> &str {
    if line.trim_start().starts_with("//") { "" } else { line }
}

fn check_rooms(name: &str, text: &str) -> Vec<String> {
    let Some((room, _)) = name.split_once('/') else { return Vec::new() };
    let Some((_, allowed)) = MAY_NAME.iter().find(|(known, _)| *known == room) else {
        return vec![format!("{name}: no rule for the room {room}")];
    };
    let mut broken = Vec::new();
    for (at, line) in text.lines().enumerate() {
        for named in code(line).split("crate::").skip(1) {
            let named: String =
                named.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            let is_leaf = LEAVES.contains(&named.as_str()) && room != "domain";
            let is_test_house = named == "testing" && name.contains("tests");
            // Tests of the replication engine build their house with a configuration.
            let is_test_config = named == "config" && name.contains("tests/");
            let fits = named == room || allowed.contains(&named.as_str());
            if !(fits || is_leaf || is_test_house || is_test_config || named.is_empty()) {
                // Test modules at the end of a file may hand in a seeded generator or a clock.
                let in_tests = text.lines().take(at).any(|line| line.trim() == "#[cfg(test)]");
                if !(in_tests && LEAVES.contains(&named.as_str())) {
                    broken.push(format!("{name}:{}: {room} names {named}", at + 1));
                }
            }
        }
    }
    broken
}

fn check_crates(name: &str, text: &str) -> Vec<String> {
    let mut broken = Vec::new();
    for (at, line) in text.lines().enumerate() {
        for (outside, places) in CRATES {
            let line = code(line);
            let named = line.contains(&format!("use {outside}::"))
                || line.contains(&format!(" {outside}::"))
                || line.contains(&format!("({outside}::"));
            if named && !places.iter().any(|place| name.starts_with(place)) {
                broken.push(format!("{name}:{}: {outside} belongs to {places:?}", at + 1));
            }
        }
        let line = code(line);
        let files = line.contains("std::fs") || line.contains("tokio::fs");
        let may = ["blobs/", "config.rs", "house.rs", "cli.rs"]
            .iter()
            .any(|place| name.starts_with(place));
        let is_test =
            name.contains("tests") || name.ends_with("contract.rs") || name == "testing.rs";
        if files && !may && !is_test {
            broken.push(format!(
                "{name}:{}: files are opened in blobs, config, house and cli",
                at + 1
            ));
        }
    }
    broken
}

fn check_words(name: &str, text: &str) -> Vec<String> {
    let mut broken = Vec::new();
    for (at, line) in text.lines().enumerate() {
        for (word, why) in WORDS {
            let is_clock = word == "SystemTime::now" && name == "clock.rs";
            if line.contains(word) && !is_clock {
                broken.push(format!("{name}:{}: {word}: {why}", at + 1));
            }
        }
    }
    for part in name.split('/') {
        let part = part.trim_end_matches(".rs");
        if ["util", "utils", "helper", "helpers", "manager", "common"].contains(&part) {
            broken.push(format!("{name}: name the thing"));
        }
    }
    broken
}

fn check_all(check: fn(&str, &str) -> Vec<String>) {
    let broken: Vec<String> =
        all_sources().iter().flat_map(|(name, text)| check(name, text)).collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn rooms_name_only_the_rooms_below_them() {
    check_all(check_rooms);
    for (name, line) in [
        ("domain/x.rs", "use crate::clock::Clock;"),
        ("operations/x.rs", "    crate::replication::Engine::new();"),
        ("api/x.rs", "use crate::catalog::files;"),
        ("replication/x.rs", "use crate::jobs::sweep;"),
    ] {
        assert_eq!(check_rooms(name, line).len(), 1, "{line} is found in {name}");
    }
    assert!(check_rooms("api/x.rs", "use crate::operations::App;").is_empty());
}

#[test]
fn outside_crates_stay_in_their_rooms() {
    check_all(check_crates);
    for (name, line) in [
        ("operations/x.rs", "use actix_web::web;"),
        ("api/x.rs", "let c = rusqlite::Connection::open();"),
        ("domain/x.rs", "use std::fs::File;"),
    ] {
        assert_eq!(check_crates(name, line).len(), 1, "{line} is found in {name}");
    }
}

#[test]
fn some_words_are_not_used() {
    check_all(check_words);
    assert_eq!(check_words("domain/util.rs", "// TODO later").len(), 2);
}

#[test]
fn comments_in_migrations_hold_no_semicolon_that_would_split_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        seen += 1;
        for line in text.lines().filter(|line| line.trim_start().starts_with("--")) {
            assert!(!line.contains(';'), "{line}");
        }
    }
    assert!(seen >= 4);
}
