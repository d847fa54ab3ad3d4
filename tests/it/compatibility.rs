//! The compatibility page against the operation table and against the tests.
//!
//! The tables of the page are written by this test: run it with `KILN_TEST_ACCEPT=1` after adding
//! an operation or a test. Every numbered statement of the specification is named by a test or
//! stands in `fixtures/unproved.toml` with the reason why none does; never both, never neither.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

const PAGE: &str = "docs/compatibility.md";
const BEGIN: &str = "<!-- written by tests/it/compatibility.rs -->";
const END: &str = "<!-- end of what is written -->";
const UNPROVED: &str = "fixtures/unproved.toml";
/// What stands above the rows of that file.
const UNPROVED_HEAD: &str = "\
# Statements of the specification that no test names, with the reason. `tests/it/compatibility.rs`
# fails when a statement is neither here nor in a test's name, and when it is in both. With
# KILN_TEST_ACCEPT=1 it takes out what a test names by now; it never puts anything in. So where two
# branches meet, either side of this file will do.
";

/// Numbered statements by the word that test names have before their numbers.
struct Family {
    name: &'static str,
    title: &'static str,
    last: u32,
}

const FAMILIES: [Family; 3] = [
    Family { name: "native", title: "Native API", last: 410 },
    Family { name: "replication", title: "Cloud Replication", last: 229 },
    Family { name: "s3", title: "S3-compatible API", last: 168 },
];

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

/// Names of the test functions: those marked as such, and the checks that run real clients.
fn tests() -> BTreeSet<String> {
    let mut sources = Vec::new();
    texts(&root().join("src"), &mut sources);
    texts(&root().join("tests"), &mut sources);
    let mut found = BTreeSet::new();
    for (file, text) in &sources {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for (at, line) in lines.iter().enumerate() {
            let marked = |mark: &str| at > 0 && lines[at - 1].starts_with(mark);
            let is_test = marked("#[test]") || marked("#[tokio::test]");
            let name = line
                .strip_prefix("async fn ")
                .or_else(|| line.strip_prefix("fn "))
                .filter(|_| is_test)
                .or_else(|| line.strip_prefix("def ").filter(|_| is_check(file, text, line)))
                .and_then(|rest| rest.split('(').next());
            found.extend(name.map(str::to_owned));
        }
    }
    found
}

/// Whether a Python function is one of the checks that are run.
fn is_check(file: &str, text: &str, line: &str) -> bool {
    let name = line.trim_start_matches("def ").split('(').next().unwrap_or_default();
    let checks = text.split_once("\nCHECKS = [").map_or("", |(_, checks)| checks);
    let listed = checks.split(']').next().unwrap_or_default();
    let is_python = Path::new(file).extension().is_some_and(|end| end == "py");
    is_python && listed.split(',').any(|one| one.trim() == name)
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

/// Numbers and ranges with commas between them, as `12, 234-269`.
fn parse_numbers(text: &str) -> Option<BTreeSet<u32>> {
    let mut numbers = BTreeSet::new();
    for part in text.split(',').map(str::trim) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        for number in first..=last {
            numbers.insert(number).then_some(())?;
        }
    }
    Some(numbers)
}

fn show_numbers(numbers: &BTreeSet<u32>) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let show = |(first, last): (u32, u32)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    ranges.into_iter().map(show).collect::<Vec<_>>().join(", ")
}

/// Statements that no test names, with the reason, by family.
type Unproved = BTreeMap<String, Vec<(BTreeSet<u32>, String)>>;

fn unproved(text: &str) -> Result<Unproved, String> {
    let rows: BTreeMap<String, BTreeMap<String, String>> =
        toml::from_str(text).map_err(|error| error.to_string())?;
    let mut read = Unproved::new();
    for (family, rows) in rows {
        let known = FAMILIES.iter().find(|one| one.name == family);
        let last = known.ok_or_else(|| format!("no statements are called {family}"))?.last;
        let mut seen = BTreeSet::new();
        let mut list = Vec::new();
        for (numbers, reason) in rows {
            let set = parse_numbers(&numbers).ok_or_else(|| format!("{numbers}: no numbers"))?;
            if reason.trim().is_empty() {
                return Err(format!("{family} {numbers}: the reason is missing"));
            }
            for &number in &set {
                if number == 0 || number > last || !seen.insert(number) {
                    return Err(format!("{family} {number}: unknown, or listed twice"));
                }
            }
            list.push((set, reason));
        }
        list.sort_by_key(|(set, _)| set.first().copied());
        read.insert(family, list);
    }
    Ok(read)
}

fn show_unproved(unproved: &Unproved) -> String {
    let mut text = UNPROVED_HEAD.to_owned();
    for (family, rows) in unproved {
        writeln!(text, "\n[{family}]").unwrap();
        for (numbers, reason) in rows {
            writeln!(text, "\"{}\" = {reason:?}", show_numbers(numbers)).unwrap();
        }
    }
    text
}

/// Tests by the statements that they name.
fn proofs<'t>(tests: &'t BTreeSet<String>, family: &str) -> BTreeMap<u32, Vec<&'t str>> {
    let mut by_number: BTreeMap<u32, Vec<&str>> = BTreeMap::new();
    for name in tests {
        for number in statements(name, family) {
            by_number.entry(number).or_default().push(name);
        }
    }
    by_number
}

/// Every statement must be named by a test or listed; what is wrong about that, in words.
fn disagreements(tests: &BTreeSet<String>, unproved: &Unproved) -> Vec<String> {
    let mut wrong = Vec::new();
    for Family { name, last, .. } in &FAMILIES {
        let proofs = proofs(tests, name);
        let listed: BTreeSet<u32> =
            unproved.get(*name).into_iter().flatten().flat_map(|(set, _)| set.clone()).collect();
        for number in 1..=*last {
            match (proofs.get(&number), listed.contains(&number)) {
                (Some(by), true) => wrong.push(format!(
                    "{name} {number} is proved by {} and still listed in {UNPROVED}: take the \
                     number out of its row, or run this test with KILN_TEST_ACCEPT=1",
                    by.join(", ")
                )),
                (None, false) => wrong.push(format!(
                    "{name} {number} has no test: name it in one, or give the reason in {UNPROVED}"
                )),
                _ => {}
            }
        }
        let beyond = proofs.range(last + 1..).chain(proofs.range(..1));
        wrong.extend(beyond.map(|(number, by)| format!("{name} {number} is no statement: {by:?}")));
    }
    wrong
}

fn without_proved(tests: &BTreeSet<String>, mut unproved: Unproved) -> Unproved {
    for (family, rows) in &mut unproved {
        let proofs = proofs(tests, family);
        for (numbers, _) in rows.iter_mut() {
            numbers.retain(|number| !proofs.contains_key(number));
        }
        rows.retain(|(numbers, _)| !numbers.is_empty());
    }
    unproved.retain(|_, rows| !rows.is_empty());
    unproved
}

fn written(tests: &BTreeSet<String>, unproved: &Unproved) -> String {
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
    page.push_str("\n## Operations of the S3-compatible API\n\n");
    page.push_str(
        "| operation | method | address | capability | class | Native API |\n|---|---|---|---|---|---|\n",
    );
    for row in kiln::manifest::s3_operations() {
        writeln!(
            page,
            "| {} | {} | {} | {} | {} | {} |",
            row.name,
            row.method,
            row.address,
            row.capability.unwrap_or("-"),
            row.class,
            row.native.unwrap_or("-")
        )
        .unwrap();
    }
    page.push_str("\n## Operations of remotes and replication streams\n\n");
    page.push_str(
        "| operation | method | address | capability | InfluxDB has it |\n|---|---|---|---|---|\n",
    );
    for row in kiln::manifest::stream_operations() {
        writeln!(
            page,
            "| {} | {} | {} | {} | {} |",
            row.name,
            row.method,
            row.address,
            row.capability.unwrap_or("-"),
            if row.is_influx { "yes" } else { "no" }
        )
        .unwrap();
    }
    for Family { name, title, last } in &FAMILIES {
        let proofs = proofs(tests, name);
        writeln!(page, "\n## Statements proved: {title}\n").unwrap();
        writeln!(
            page,
            "{} of {last} numbered statements of the specification have a test that names them.\n",
            proofs.len()
        )
        .unwrap();
        page.push_str("| statement | tests |\n|---|---|\n");
        for (number, names) in proofs {
            writeln!(page, "| {number} | {} |", names.join(", ")).unwrap();
        }
        writeln!(page, "\n## Statements without a test: {title}\n").unwrap();
        page.push_str("| statements | why |\n|---|---|\n");
        for (numbers, reason) in unproved.get(*name).into_iter().flatten() {
            writeln!(page, "| {} | {reason} |", show_numbers(numbers)).unwrap();
        }
    }
    page
}

/// One test, since accepting writes both files and the page is made from the other one.
#[test]
fn the_page_and_the_list_of_what_is_not_proved_say_what_the_tests_say() {
    let accept = std::env::var_os("KILN_TEST_ACCEPT").is_some();
    let tests = tests();
    let path = root().join(UNPROVED);
    let text = std::fs::read_to_string(&path).unwrap();
    let mut unproved = unproved(&text).unwrap_or_else(|wrong| panic!("{UNPROVED}: {wrong}"));
    if accept {
        unproved = without_proved(&tests, unproved);
        std::fs::write(&path, show_unproved(&unproved)).unwrap();
    } else {
        assert!(
            text == show_unproved(&unproved),
            "{UNPROVED} is not in order: run with KILN_TEST_ACCEPT=1"
        );
    }
    let wrong = disagreements(&tests, &unproved);
    assert!(wrong.is_empty(), "{} disagreements:\n{}", wrong.len(), wrong.join("\n"));
    let path = root().join(PAGE);
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let expected = format!("{before}{BEGIN}{}{END}{after}", written(&tests, &unproved));
    if accept {
        std::fs::write(&path, &expected).unwrap();
        return;
    }
    assert!(page == expected, "{PAGE} is out of date: run the tests with KILN_TEST_ACCEPT=1");
}

#[test]
fn what_is_proved_and_listed_or_neither_is_noticed() {
    let all = "[native]\n\"1-410\" = \"why\"\n[replication]\n\"1-229\" = \"why\"\n\
               [s3]\n\"1-168\" = \"why\"";
    let listed = unproved(all).unwrap();
    let tests = |names: &[&str]| names.iter().map(|&one| one.to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(disagreements(&tests(&[]), &listed), Vec::<String>::new());
    let proved = tests(&["native_1_2_5_works", "replication_229_works"]);
    let wrong = disagreements(&proved, &listed);
    assert_eq!(wrong.len(), 4);
    assert!(wrong[0].contains("native_1_2_5_works") && wrong[0].contains("KILN_TEST_ACCEPT=1"));
    let shrunk = without_proved(&proved, listed);
    assert_eq!(disagreements(&proved, &shrunk), Vec::<String>::new());
    let text = show_unproved(&shrunk);
    assert!(text.contains("\"3-4, 6-410\" = \"why\"") && text.contains("\"1-228\""), "{text}");
    assert_eq!(unproved(&text), Ok(shrunk.clone()), "what is written is read back");
    let neither = disagreements(&tests(&["replication_229_works"]), &shrunk);
    assert_eq!(neither.len(), 3);
    assert!(neither[0].contains("has no test"));
    assert_eq!(disagreements(&tests(&["native_411_works"]), &unproved(all).unwrap()).len(), 1);
    for wrong in [
        "[native]\n\"0\" = \"why\"",
        "[native]\n\"411\" = \"why\"",
        "[native]\n\"1\" = \"\"",
        "[native]\n\"1-3\" = \"why\"\n\"3\" = \"why\"",
        "[native]\n\"x\" = \"why\"",
        "[nothing]\n\"1\" = \"why\"",
    ] {
        assert!(unproved(wrong).is_err(), "{wrong}");
    }
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
fn every_operation_of_remotes_and_streams_is_called_by_a_test() {
    let mut sources = Vec::new();
    texts(&root().join("tests/it/streams"), &mut sources);
    sources.retain(|(file, _)| !file.ends_with("rights.rs"));
    for row in kiln::manifest::stream_operations() {
        // What follows the id, or the address itself; the method in the same call.
        let what = row.address.split_once("{id}").map_or(row.address, |(_, what)| what);
        let is_called = sources.iter().any(|(_, text)| {
            text.contains(what)
                && (row.method == "GET" || text.contains(&format!("\"{}\"", row.method)))
        });
        assert!(is_called, "no test calls {}", row.name);
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
