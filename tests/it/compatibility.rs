//! The compatibility page against the operation table and against the tests.
//!
//! The two tables of the page are written by this test: run it with `KILN_TEST_ACCEPT=1` after
//! adding an operation or a test.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

const PAGE: &str = "docs/compatibility.md";
const BEGIN: &str = "<!-- written by tests/it/compatibility.rs -->";
const END: &str = "<!-- end of what is written -->";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn texts(folder: &Path, into: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            texts(&path, into);
        } else if path.extension().is_some_and(|end| end == "rs" || end == "py") {
            let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            into.push((name, std::fs::read_to_string(&path).unwrap()));
        }
    }
}

/// Test functions with the file each is in.
fn tests() -> BTreeMap<String, String> {
    let mut sources = Vec::new();
    texts(&root().join("src"), &mut sources);
    texts(&root().join("tests"), &mut sources);
    let mut found = BTreeMap::new();
    for (file, text) in &sources {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for (at, line) in lines.iter().enumerate() {
            let marked = |mark: &str| at > 0 && lines[at - 1].starts_with(mark);
            let name = line
                .strip_prefix("async fn ")
                .or_else(|| line.strip_prefix("fn "))
                .filter(|_| marked("#[test]") || marked("#[tokio::test]"))
                .and_then(|rest| rest.split('(').next());
            if let Some(name) = name {
                found.insert(name.to_owned(), file.clone());
            }
        }
    }
    found
}

/// The statement numbers in a test's name: after `native_` or `replication_`, with `to` for ranges.
fn statements(name: &str, family: &str) -> BTreeSet<u32> {
    let mut numbers = BTreeSet::new();
    let parts: Vec<&str> = name.split('_').collect();
    let mut inside = false;
    let mut last = None;
    let mut range = false;
    for part in parts {
        if part == family {
            inside = true;
        } else if inside && part == "to" && last.is_some() {
            range = true;
        } else if let Some(number) = part.parse().ok().filter(|_| inside) {
            if let (true, Some(from)) = (range, last) {
                numbers.extend(from..=number);
            }
            numbers.insert(number);
            (last, range) = (Some(number), false);
        } else if last.is_some() || part != family {
            inside = false;
            last = None;
        }
    }
    numbers
}

fn written(tests: &BTreeMap<String, String>) -> String {
    let mut page = String::from("\n## Operations\n\n");
    page.push_str("All answer on v1, v2, v3 and v4.\n\n");
    page.push_str(
        "| operation | methods | capability | class | scope of the key |\n|---|---|---|---|---|\n",
    );
    for row in kiln::manifest::operations() {
        writeln!(
            page,
            "| {} | {} | {} | {} | {} |",
            row.name,
            row.methods.join(", "),
            row.capability.unwrap_or("-"),
            row.class,
            row.scope
        )
        .unwrap();
    }
    for (family, title, last) in
        [("native", "Native API", 410), ("replication", "Cloud Replication", 229)]
    {
        let mut by_number: BTreeMap<u32, Vec<&str>> = BTreeMap::new();
        for name in tests.keys() {
            for number in statements(name, family) {
                by_number.entry(number).or_default().push(name);
            }
        }
        writeln!(page, "\n## Statements proved: {title}\n").unwrap();
        writeln!(
            page,
            "{} of {last} numbered statements of the specification have a test that names them.\n",
            by_number.len()
        )
        .unwrap();
        page.push_str("| statement | tests |\n|---|---|\n");
        for (number, names) in by_number {
            writeln!(page, "| {number} | {} |", names.join(", ")).unwrap();
        }
    }
    page
}

#[test]
fn the_page_says_what_the_table_and_the_tests_say() {
    let path = root().join(PAGE);
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let expected = format!("{before}{BEGIN}{}{END}{after}", written(&tests()));
    if std::env::var_os("KILN_TEST_ACCEPT").is_some() {
        std::fs::write(&path, &expected).unwrap();
        return;
    }
    assert!(page == expected, "{PAGE} is out of date: run the tests with KILN_TEST_ACCEPT=1");
}

#[test]
fn every_operation_is_called_by_a_test() {
    let mut sources = Vec::new();
    texts(&root().join("tests"), &mut sources);
    for row in kiln::manifest::operations() {
        let called = sources
            .iter()
            .filter(|(file, _)| !file.ends_with("rights.rs") && !file.ends_with("compatibility.rs"))
            .any(|(_, text)| {
                text.contains(row.name)
                    || (row.name == "b2_download_file_by_name" && text.contains("/file/"))
            });
        assert!(called, "no test calls {}", row.name);
    }
}

#[test]
fn numbers_are_read_out_of_names() {
    let of = |name| statements(name, "native").into_iter().collect::<Vec<_>>();
    assert_eq!(of("native_5_6_7_a_token_works"), [5, 6, 7]);
    assert_eq!(of("native_1_2_36_to_39_each"), [1, 2, 36, 37, 38, 39]);
    assert_eq!(of("f26_replication_82_a_key"), Vec::<u32>::new());
    assert_eq!(of("native_153_reliability_f28_truncated"), [153]);
}
