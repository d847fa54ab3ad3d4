//! The rules of the house, read off the source: who may name whom, which outside crate lives in
//! which room, what a transaction body may not do, words that do not belong.
//!
//! There are no exceptions. Each check is a function over a file's name and text, so that every
//! test also plants violations and sees them found.

use std::path::{Path, PathBuf};

/// What each room may name besides itself. A leaf is a room of one file.
const MAY_NAME: [(&str, &[&str]); 12] = [
    ("domain", &[]),
    ("clock", &["domain"]),
    ("entropy", &["domain"]),
    ("metrics", &["domain"]),
    ("outbound", &["domain"]),
    ("auth", &["domain", "clock", "entropy", "metrics"]),
    ("catalog", &["domain", "clock", "entropy", "metrics"]),
    ("blobs", &["domain", "clock", "entropy", "metrics"]),
    ("operations", &["domain", "auth", "catalog", "blobs", "clock", "entropy", "metrics"]),
    ("replication", WORKERS),
    ("jobs", WORKERS),
    ("api", &["domain", "auth", "operations", "clock", "metrics"]),
];
const WORKERS: &[&str] = &[
    "domain",
    "auth",
    "catalog",
    "blobs",
    "operations",
    "clock",
    "entropy",
    "metrics",
    "outbound",
];
/// What stands above all rooms: it may name everything, and no room names it.
const ABOVE: [&str; 10] =
    ["main", "lib", "cli", "config", "fuzzing", "house", "manifest", "testing", "tls", "bin"];
/// The only one above the rooms that sends requests.
const SENDER: &str = "house";

/// Outside crates and the only places that may name them.
const CRATES: [(&str, &[&str]); 26] = [
    ("quick_xml", &["api/s3/xml.rs", "replication/destination/remote/xml.rs"]),
    ("actix_web", &["api/", "house.rs"]),
    ("actix_http", &["api/", "house.rs"]),
    ("rusqlite", &["catalog/"]),
    ("crossbeam_channel", &["catalog/"]),
    ("rustix", &["blobs/", "entropy.rs", "house.rs"]),
    ("aws_lc_rs", &["auth/", "blobs/sealed.rs"]),
    ("aws_sigv4", &["auth/sigv4.rs"]),
    ("sha1", &["domain/checksum.rs", "domain/digest.rs"]),
    ("sha2", &["domain/checksum.rs", "domain/digest.rs"]),
    ("md5", &["domain/digest.rs"]),
    ("crc_fast", &["domain/checksum.rs", "domain/digest.rs"]),
    ("chrono", &["domain/time.rs"]),
    ("zeroize", &["auth/", "domain/encryption.rs", "domain/key.rs"]),
    ("rustls", &["tls.rs"]),
    ("rcgen", &["tls.rs"]),
    ("reqwest", &["outbound/"]),
    ("http_body", &["outbound/"]),
    ("url", &["domain/remote.rs", "domain/webhook.rs"]),
    ("clap", &["cli/", "config.rs"]),
    ("clap_complete", &["cli/"]),
    ("libfuzzer_sys", &["bin/fuzz.rs"]),
    ("toml", &["config.rs"]),
    ("tracing_subscriber", &["house.rs"]),
    ("base64", &["auth/", "api/", "domain/", "replication/destination/remote/"]),
    (
        "tokio",
        &[
            "catalog/",
            "blobs/",
            "operations/",
            "replication/",
            "jobs/",
            "api/",
            "house.rs",
            "outbound/",
        ],
    ),
];
/// Outside crates that belong to no room: plain vocabulary.
const ANYWHERE: [&str; 7] =
    ["bytes", "futures_util", "hex", "serde", "serde_json", "thiserror", "tracing"];

/// Calls and the only places that may make them, tests excepted.
const CALLS: [(&[&str], &[&str], &str); 6] = [
    (&["std", "fs"], FILE_ROOMS, "files are opened in blobs, config, house, tls and cli"),
    (&["tokio", "fs"], FILE_ROOMS, "files are opened in blobs, config, house, tls and cli"),
    (&["SystemTime", "now"], &["clock.rs"], "ask the clock"),
    (&["Instant", "now"], &["clock.rs"], "ask the clock"),
    (&["Utc", "now"], &["clock.rs"], "ask the clock"),
    (&["process", "exit"], &[], "return, so that everything is closed"),
];
const FILE_ROOMS: &[&str] = &["blobs/", "config.rs", "house.rs", "cli/", "tls.rs"];

/// Words of code that stand nowhere.
const CODE_WORDS: [(&str, &str); 7] = [
    ("#[allow(", "expect with a reason, so that a stale exception is noticed"),
    ("#![allow(", "expect with a reason, so that a stale exception is noticed"),
    ("println!(", "write to a stream that was handed in"),
    ("eprintln!(", "write to a stream that was handed in"),
    ("print!(", "write to a stream that was handed in"),
    ("dbg!(", "remove it"),
    ("todo!(", "finish it"),
];

/// Words that stand nowhere, not even in comments and texts; in two halves, so that this file
/// does not hold them either.
const TEXT_WORDS: [((&str, &str), &str); 12] = [
    (("TO", "DO"), "finish it, or write down in docs what is missing"),
    (("FIX", "ME"), "finish it, or write down in docs what is missing"),
    (("/ro", "ot/"), "a path of one machine"),
    (("/wo", "rk/"), "a path of one machine"),
    (("/tm", "p/"), "a path of one machine"),
    (("/ho", "me/"), "a path of one machine"),
    (("crates", ".io"), "a host of a package registry"),
    (("pypi", ".org"), "a host of a package registry"),
    (("npmjs", ".org"), "a host of a package registry"),
    (("debian", ".org"), "a host of a package registry"),
    (("docker", ".io"), "a host of a package registry"),
    (("golang", ".org"), "a host of a package registry"),
];

const EMPTY_NAMES: [&str; 9] =
    ["util", "utils", "helper", "helpers", "manager", "managers", "common", "misc", "shared"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn collect(folder: &Path, endings: &[&str], into: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let ending = path.extension().and_then(|ending| ending.to_str());
        if path.is_dir() {
            collect(&path, endings, into);
        } else if ending.is_some_and(|ending| endings.contains(&ending)) {
            let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            into.push((name, std::fs::read_to_string(&path).unwrap()));
        }
    }
}

/// The files of the program, their names without `src/`.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    collect(&root().join("src"), &["rs"], &mut found);
    assert!(found.len() > 60, "the source was found");
    found.into_iter().map(|(name, text)| (name.replacen("src/", "", 1), text)).collect()
}

/// Whether `text` begins a raw string at `at`; answers the number of `#` and of letters before.
fn raw_string(text: &[char], at: usize) -> Option<(usize, usize)> {
    let letters = match text.get(at..)? {
        ['b' | 'c', 'r', ..] => 2,
        ['r', ..] => 1,
        _ => return None,
    };
    let is_word = |c: &char| c.is_alphanumeric() || *c == '_';
    if at > 0 && is_word(&text[at - 1]) {
        return None;
    }
    let marks = text[at + letters..].iter().take_while(|c| **c == '#').count();
    (text.get(at + letters + marks) == Some(&'"')).then_some((marks, letters))
}

/// The text without comments and without what stands inside of strings and characters; the lines
/// stay where they are.
fn code_of(text: &str) -> String {
    let text: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    let keep_lines = |from: usize, to: usize, code: &mut String| {
        code.extend(text[from..to.min(text.len())].iter().filter(|c| **c == '\n'));
    };
    while at < text.len() {
        let rest = &text[at..];
        let from = at;
        if rest.starts_with(&['/', '/']) {
            at += rest.iter().take_while(|c| **c != '\n').count();
        } else if rest.starts_with(&['/', '*']) {
            let mut depth = 0;
            while at < text.len() {
                match (text[at], text.get(at + 1)) {
                    ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
                    ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
                    _ => at += 1,
                }
                if depth == 0 {
                    break;
                }
            }
            keep_lines(from, at, &mut code);
        } else if let Some((marks, letters)) = raw_string(&text, at) {
            at += letters + marks + 1;
            let closing: Vec<char> =
                std::iter::once('"').chain(std::iter::repeat_n('#', marks)).collect();
            while at < text.len() && !text[at..].starts_with(&closing) {
                at += 1;
            }
            at += closing.len();
            keep_lines(from, at, &mut code);
            code.push_str("\"\"");
        } else if rest[0] == '"' {
            at += 1;
            while at < text.len() && text[at] != '"' {
                at += if text[at] == '\\' { 2 } else { 1 };
            }
            at += 1;
            keep_lines(from, at, &mut code);
            code.push_str("\"\"");
        } else if rest[0] == '\'' && rest.get(1) == Some(&'\\') {
            at += 3;
            while at < text.len() && text[at] != '\'' {
                at += 1;
            }
            at += 1;
        } else if rest[0] == '\'' && rest.get(2) == Some(&'\'') {
            at += 3;
        } else {
            code.push(rest[0]);
            at += 1;
        }
    }
    code
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Join,
    Mark(char),
}

/// The tokens of code with the line and the depth of braces each is at.
fn tokens(code: &str) -> Vec<(Token, usize, usize)> {
    let chars: Vec<char> = code.chars().collect();
    let (mut found, mut at, mut line, mut depth) = (Vec::new(), 0, 1, 0_usize);
    while let Some(&c) = chars.get(at) {
        if c.is_alphabetic() || c == '_' {
            let word: String =
                chars[at..].iter().take_while(|c| c.is_alphanumeric() || **c == '_').collect();
            at += word.chars().count();
            found.push((Token::Word(word), line, depth));
            continue;
        }
        if c == ':' && chars.get(at + 1) == Some(&':') {
            found.push((Token::Join, line, depth));
            at += 2;
            continue;
        }
        match c {
            '\n' => line += 1,
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if !c.is_whitespace() {
            found.push((Token::Mark(c), line, depth));
        }
        at += 1;
    }
    found
}

/// A path in the code, imports with braces taken apart.
#[derive(Clone, Debug)]
struct Named {
    words: Vec<String>,
    line: usize,
    depth: usize,
}

fn named(code: &str) -> Vec<Named> {
    let tokens = tokens(code);
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some((token, line, depth)) = tokens.get(at) {
        match token {
            Token::Word(_) | Token::Join => {
                let start = Named { words: Vec::new(), line: *line, depth: *depth };
                at = read_path(&tokens, at, start, &mut found);
            }
            Token::Mark(_) => at += 1,
        }
    }
    found
}

/// Reads the path at `at`, which goes on from `path`; answers where it ends.
fn read_path(
    tokens: &[(Token, usize, usize)],
    mut at: usize,
    mut path: Named,
    found: &mut Vec<Named>,
) -> usize {
    loop {
        match tokens.get(at) {
            Some((Token::Word(word), line, _)) => {
                if word != "self" || path.words.is_empty() {
                    path.words.push(word.clone());
                }
                path.line = *line;
                at += 1;
                if !matches!(tokens.get(at), Some((Token::Join, ..))) {
                    break;
                }
            }
            Some((Token::Join, ..)) => at += 1,
            Some((Token::Mark('{'), ..)) => {
                at += 1;
                while let Some((token, ..)) = tokens.get(at) {
                    match token {
                        Token::Mark('}') => return at + 1,
                        Token::Word(_) | Token::Join => {
                            at = read_path(tokens, at, path.clone(), found);
                        }
                        Token::Mark(_) => at += 1,
                    }
                }
                return at;
            }
            _ => break,
        }
    }
    found.push(path);
    at
}

/// The line from which on the code of a file is test code; a far one when there is none.
fn tests_begin(name: &str, code: &str) -> usize {
    let test_file = |part: &str| {
        matches!(part, "tests" | "tests.rs" | "contract.rs" | "faulty.rs" | "testing.rs")
    };
    if name == "testing/house.rs" || name.split('/').any(test_file) {
        return 0;
    }
    let lines: Vec<&str> = code.lines().map(str::trim).collect();
    let inline = lines.windows(2).position(|two| two == ["#[cfg(test)]", "mod tests {"]);
    inline.map_or(usize::MAX, |at| at + 1)
}

fn room_of(name: &str) -> &str {
    name.split('/').next().unwrap_or(name).trim_end_matches(".rs")
}

/// How many modules deep a file is.
fn module_depth(name: &str) -> usize {
    name.trim_end_matches("/mod.rs").split('/').count()
}

fn check_rooms(name: &str, text: &str) -> Vec<String> {
    let (room, code) = (room_of(name), code_of(text));
    let tests = tests_begin(name, &code);
    let above = ABOVE.contains(&room);
    let Some(allowed) =
        MAY_NAME.iter().find(|(known, _)| *known == room).map(|(_, allowed)| *allowed).or(
            // Those above may name everything.
            above.then_some(&[]),
        )
    else {
        return vec![format!("{name}:1: no rule for the room {room}")];
    };
    let mut broken = Vec::new();
    for Named { words, line, depth } in named(&code) {
        let supers = words.iter().take_while(|word| *word == "super").count();
        let to_root = module_depth(name) + usize::from(depth > 0);
        if supers > 0 && supers >= to_root {
            broken.push(format!("{name}:{line}: write crate:: so that the room can be seen"));
        }
        let ("crate", Some(other)) = (words[0].as_str(), words.get(1)) else { continue };
        let fits = if other == "testing" {
            line > tests
        } else if other == "outbound" {
            allowed.contains(&"outbound") || [SENDER, "outbound"].contains(&room)
        } else {
            above || other == room || allowed.contains(&other.as_str())
        };
        if !fits {
            broken.push(format!("{name}:{line}: {room} names {other}"));
        }
    }
    broken
}

fn check_crates(name: &str, text: &str) -> Vec<String> {
    let code = code_of(text);
    let tests = tests_begin(name, &code);
    let mut broken = Vec::new();
    let lives = |places: &[&str]| places.iter().any(|place| name.starts_with(place));
    for Named { words, line, .. } in named(&code) {
        let is_path = words.len() > 1;
        for (outside, places) in CRATES {
            // Tests of pure rooms may run on a runtime.
            let runtime = outside == "tokio" && line > tests;
            if is_path && words[0] == outside && !lives(places) && !runtime {
                broken.push(format!("{name}:{line}: {outside} belongs to {places:?}"));
            }
        }
        for (call, places, why) in CALLS {
            let calls = words.windows(2).any(|two| two == call);
            if calls && !lives(places) && line <= tests {
                broken.push(format!("{name}:{line}: {}: {why}", call.join("::")));
            }
        }
    }
    broken
}

fn check_words(name: &str, text: &str) -> Vec<String> {
    let mut broken = Vec::new();
    for (at, line) in code_of(text).lines().enumerate() {
        for (word, why) in CODE_WORDS {
            let mut found = line.match_indices(word);
            let starts = |at: usize| !line.split_at(at).0.ends_with(|c: char| c.is_alphanumeric());
            if found.any(|(at, _)| starts(at)) {
                broken.push(format!("{name}:{}: {word}: {why}", at + 1));
            }
        }
    }
    for part in name.split('/') {
        if EMPTY_NAMES.contains(&part.trim_end_matches(".rs")) {
            broken.push(format!("{name}:1: name the thing"));
        }
    }
    for Named { words, line, .. } in named(&code_of(text)) {
        if EMPTY_NAMES.contains(&words[0].as_str()) && words.len() > 1 {
            broken.push(format!("{name}:{line}: name the thing"));
        }
    }
    broken
}

fn check_text(name: &str, text: &str) -> Vec<String> {
    let mut broken = Vec::new();
    for (at, line) in text.lines().enumerate() {
        for ((first, second), why) in TEXT_WORDS {
            let word = [first, second].concat();
            if line.contains(&word) {
                broken.push(format!("{name}:{}: {word}: {why}", at + 1));
            }
        }
    }
    broken
}

/// Transaction bodies may run twice and hold up all other writers.
fn check_bodies(name: &str, text: &str) -> Vec<String> {
    let code = code_of(text);
    let mut broken = Vec::new();
    for (start, call) in code.match_indices(".write(") {
        let (before_body, arguments) = code.split_at(start + call.len());
        if !arguments.trim_start().starts_with('"') {
            continue;
        }
        let mut depth = 1_usize;
        let end = arguments.find(|c: char| {
            depth = depth + usize::from(c == '(') - usize::from(c == ')');
            depth == 0
        });
        let (arguments, _) = arguments.split_at(end.unwrap_or(arguments.len()));
        for word in [".await", "app.", "self.", ".clock", ".entropy", "tracing::"] {
            // A body owns what it works with; naming the server in it is an effect in the making.
            for (at, _) in arguments.match_indices(word) {
                let (before_word, _) = arguments.split_at(at);
                let before = before_word.chars().next_back();
                let inside_a_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
                if word.starts_with('.') || !inside_a_word {
                    let lines = |text: &str| text.matches('\n').count();
                    let line = 1 + lines(before_body) + lines(before_word);
                    broken.push(format!("{name}:{line}: {word} in a transaction body"));
                }
            }
        }
    }
    broken
}

fn holds(check: fn(&str, &str) -> Vec<String>, files: &[(String, String)]) {
    let broken: Vec<String> = files.iter().flat_map(|(name, text)| check(name, text)).collect();
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

/// Expects exactly one finding, at `line`.
fn finds(check: fn(&str, &str) -> Vec<String>, name: &str, text: &str, line: usize) {
    let found = check(name, text);
    let place = format!("{name}:{line}:");
    assert!(found.len() == 1 && found[0].starts_with(&place), "{text}\n{found:?}");
}

#[test]
fn rooms_name_only_the_rooms_below_them() {
    holds(check_rooms, &sources());
    finds(check_rooms, "domain/x.rs", "use crate::clock::Clock;", 1);
    finds(check_rooms, "operations/x.rs", "fn f() {\n    crate::replication::Engine::new();\n}", 2);
    finds(check_rooms, "api/x.rs", "//! x\n\nuse crate::catalog::files;", 3);
    finds(check_rooms, "api/x.rs", "use crate::{auth, blobs};", 1);
    finds(
        check_rooms,
        "api/x.rs",
        "use crate::{\n    operations::{App, upload},\n    jobs,\n};",
        3,
    );
    finds(check_rooms, "replication/x.rs", "use crate::jobs::sweep;", 1);
    finds(check_rooms, "jobs/x.rs", "use crate::config::Config;", 1);
    finds(check_rooms, "cli.rs", "use crate::outbound;", 1);
    finds(check_rooms, "operations/x.rs", "use crate::testing::TestHouse;", 1);
    finds(check_rooms, "unknown/x.rs", "", 1);
    for (name, right) in [
        ("api/x.rs", "use crate::operations::App; // not crate::catalog"),
        ("api/x.rs", "const TEXT: &str = \"crate::catalog\";"),
        ("jobs/sweep.rs", "#[cfg(test)]\nmod tests {\n    use crate::testing::TestHouse;\n}"),
        ("house.rs", "use crate::{api, outbound, catalog};"),
    ] {
        assert_eq!(check_rooms(name, right), Vec::<String>::new());
    }
}

#[test]
fn no_path_climbs_out_of_its_room() {
    finds(check_rooms, "catalog/files.rs", "use super::super::operations::App;", 1);
    finds(check_rooms, "catalog/mod.rs", "use super::operations::App;", 1);
    finds(check_rooms, "clock.rs", "#[cfg(test)]\nmod tests { use super::super::house; }", 2);
    assert!(check_rooms("catalog/files.rs", "mod tests { use super::super::tx; }").is_empty());
    assert!(check_rooms("clock.rs", "mod tests { use super::Clock; }").is_empty());
}

#[test]
fn outside_crates_and_the_world_stay_in_their_rooms() {
    holds(check_crates, &sources());
    finds(check_crates, "operations/x.rs", "use actix_web::web;", 1);
    finds(check_crates, "api/x.rs", "fn f() {\n    rusqlite::Connection::open();\n}", 2);
    finds(check_crates, "domain/x.rs", "use tokio::sync::Notify;", 1);
    finds(check_crates, "catalog/x.rs", "use sha1::{\n    Sha1,\n};", 2);
    finds(check_crates, "domain/x.rs", "use std::fs::File;", 1);
    finds(check_crates, "operations/x.rs", "use std::{fs, io};", 1);
    finds(check_crates, "api/x.rs", "let t = std::time::Instant::now();", 1);
    finds(check_crates, "jobs/x.rs", "let t = SystemTime::now();", 1);
    finds(check_crates, "cli.rs", "std::process::exit(1);", 1);
    assert!(check_crates("api/x.rs", "use actix_web::web; // rusqlite::x").is_empty());
    assert!(check_crates("domain/x.rs", "let sha1 = digests.sha1;").is_empty());
}

#[test]
fn each_dependency_has_a_place() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let (_, list) = manifest.split_once("\n[dependencies]\n").unwrap();
    let (list, _) = list.split_once("\n[").unwrap();
    let mut seen = 0;
    for line in list.lines() {
        let Some((name, _)) = line.split_once(" = ") else { continue };
        let name = if name == "md-5" { "md5".to_owned() } else { name.replace('-', "_") };
        let placed =
            CRATES.iter().any(|(known, _)| *known == name) || ANYWHERE.contains(&name.as_str());
        assert!(placed, "say in house_rules.rs which rooms may name {name}");
        seen += 1;
    }
    assert!(seen > 15, "the dependencies were found");
}

#[test]
fn some_words_are_not_used() {
    holds(check_words, &sources());
    finds(check_words, "domain/helper.rs", "", 1);
    finds(check_words, "domain/x.rs", "\nuse common::x;", 2);
    finds(check_words, "domain/x.rs", "#[allow(dead_code)]\nfn f() {}", 1);
    finds(check_words, "cli.rs", "fn f() {\n    println!(\"\");\n}", 2);
    assert!(check_words("cli.rs", "// println!( is not used").is_empty());
}

#[test]
fn nothing_unfinished_and_no_machine_is_named() {
    let mut files = Vec::new();
    for folder in ["src", "tests", "benches", "migrations", "docs", "changelog.d"] {
        let endings = ["rs", "py", "sql", "md", "toml", "txt"];
        collect(&root().join(folder), &endings, &mut files);
    }
    for page in std::fs::read_dir(root()).unwrap() {
        let path = page.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "md" || ending == "toml") {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            files.push((name, std::fs::read_to_string(&path).unwrap()));
        }
    }
    holds(check_text, &files);
    for ((first, second), _) in TEXT_WORDS {
        finds(check_text, "docs/x.md", &format!("fine\nnot {first}{second} fine"), 2);
    }
}

#[test]
fn transaction_bodies_reach_nothing_outside() {
    holds(check_bodies, &sources());
    let body = |inside: &str| {
        format!("app\n.write(\"x\", move |tx| {{\n{inside}\nOk(f(tx)?)\n}})\n.await?;")
    };
    finds(check_bodies, "jobs/x.rs", &body("g().await;"), 3);
    finds(check_bodies, "jobs/x.rs", &body("app.wake();"), 3);
    finds(check_bodies, "jobs/x.rs", &body("tracing::info!(\"\");"), 3);
    assert!(check_bodies("jobs/x.rs", &body("g();")).is_empty());
    assert!(check_bodies("house.rs", "file.write(&page).await").is_empty());
}

#[test]
fn comments_in_migrations_hold_no_semicolon_that_would_split_them() {
    let mut files = Vec::new();
    collect(&root().join("migrations"), &["sql"], &mut files);
    assert!(files.len() >= 4);
    for (name, text) in files {
        for line in text.lines().filter(|line| line.trim_start().starts_with("--")) {
            assert!(!line.contains(';'), "{name}: {line}");
        }
    }
}

/// Tables that a reset leaves as they are: what the server itself must go on remembering.
const KEPT_BY_RESET: [&str; 4] = ["server_facts", "counters", "config_versions", "ring_keys"];

/// The tables that migrations, in their order, leave behind.
fn tables(migrations: &[(String, String)]) -> std::collections::BTreeSet<String> {
    let mut found = std::collections::BTreeSet::new();
    for (_, text) in migrations {
        for line in text.lines() {
            let words: Vec<&str> = line.split([' ', '(', ';']).collect();
            match words.as_slice() {
                ["CREATE", "TABLE", made, ..] => found.insert((*made).to_owned()),
                ["DROP", "TABLE", gone, ..] => found.remove(*gone),
                ["ALTER", "TABLE", before, "RENAME", "TO", after, ..] => {
                    found.remove(*before) && found.insert((*after).to_owned())
                }
                _ => false,
            };
        }
    }
    found
}

#[test]
fn a_reset_knows_every_table() {
    let mut files = Vec::new();
    collect(&root().join("migrations"), &["sql"], &mut files);
    files.sort();
    let reset = std::fs::read_to_string(root().join("src/catalog/reset.rs")).unwrap();
    let tables = tables(&files);
    assert!(tables.len() > 10, "{tables:?}");
    for table in tables {
        let emptied =
            ["\"", " "].iter().any(|end| reset.contains(&format!("DELETE FROM {table}{end}")));
        let kept = KEPT_BY_RESET.contains(&table.as_str());
        assert!(emptied != kept, "say in src/catalog/reset.rs what becomes of {table}");
    }
}
