//! The pages for operators against the source: codes of errors, figures, reasons.

use std::collections::BTreeSet;
use std::path::Path;

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The part of a text between two others; it is there.
fn between<'t>(text: &'t str, from: &str, to: &str) -> &'t str {
    let (_, rest) = text.split_once(from).unwrap_or_else(|| panic!("{from} is there"));
    rest.split_once(to).unwrap_or_else(|| panic!("{to} follows {from}")).0
}

/// What stands between a sign and its next occurrence, as often as there is any.
fn quoted(text: &str, sign: char) -> impl Iterator<Item = &str> {
    text.split(sign).skip(1).step_by(2)
}

/// Rows of `codes!`: the code and the status, each pair once.
fn codes_of_source(source: &str) -> Vec<(String, String)> {
    let table = between(source, "\ncodes! {\n", "\n}");
    let mut rows = Vec::new();
    for row in table.lines() {
        let code = quoted(row, '"').next().unwrap();
        let status = row.rsplit(' ').next().unwrap().trim_end_matches(';');
        let pair = (code.to_owned(), status.to_owned());
        if !rows.contains(&pair) {
            rows.push(pair);
        }
    }
    rows
}

/// Rows of the page: the code and the status.
fn codes_of_page(page: &str) -> Vec<(String, String)> {
    let rows = page.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let code = cells.next()?.trim_end_matches('`').to_owned();
        Some((code, cells.next()?.to_owned()))
    });
    rows.collect()
}

/// Names of figures: in quotes or after `TYPE` in the source, in code spans on the page.
fn figures(text: &str) -> BTreeSet<String> {
    let letter = |c: char| c.is_ascii_lowercase() || c == '_';
    let found = text.match_indices("kiln_").map(|(at, _)| {
        let (before, name) = text.split_at(at);
        let (name, _) = name.split_at(name.find(|c| !letter(c)).unwrap_or(name.len()));
        (before.chars().next_back(), name.to_owned())
    });
    found.filter(|(before, _)| !before.is_some_and(letter)).map(|(_, name)| name).collect()
}

fn reasons_of_source(source: &str) -> BTreeSet<String> {
    let table = between(source, "\nreasons! {\n", "\n}");
    quoted(table, '"').map(str::to_owned).collect()
}

fn reasons_of_page(page: &str) -> BTreeSet<String> {
    const OF_ONE_WORD: [&str; 4] = ["timeout", "expired", "purged", "superseded"];
    let (_, section) = page.split_once("## When replication fails").unwrap();
    let section = section.split_once("\n## ").map_or(section, |(section, _)| section);
    let is_reason = |word: &&str| word.contains('_') || OF_ONE_WORD.contains(word);
    let words = quoted(section, '`').filter(is_reason);
    words.map(str::to_owned).collect()
}

#[test]
fn the_page_of_errors_has_each_code_with_its_status_in_order() {
    let source = codes_of_source(&read("src/domain/refusal.rs"));
    assert!(source.len() > 20, "the codes were found");
    assert_eq!(codes_of_page(&read("docs/errors.md")), source);
}

#[test]
fn the_guide_names_exactly_the_figures_that_are_served() {
    let mut source = figures(&read("src/api/admin/health.rs"));
    source.extend(figures(&read("src/api/admin/stream_metrics.rs")));
    assert!(source.len() > 20, "the figures were found");
    assert_eq!(figures(&read("docs/operations-guide.md")), source);
}

#[test]
fn the_guide_says_what_to_do_about_each_reason_of_replication() {
    let source = reasons_of_source(&read("src/domain/replication.rs"));
    assert!(source.len() > 15, "the reasons were found");
    assert_eq!(reasons_of_page(&read("docs/operations-guide.md")), source);
}

#[test]
fn a_page_that_leaves_something_out_is_noticed() {
    let source = "\ncodes! {\n    NotFound, \"not_found\", 404;\n}";
    assert_eq!(codes_of_page("| `not_found` | 404 | x |"), codes_of_source(source));
    assert_ne!(codes_of_page("| `not_found` | 400 | x |"), codes_of_source(source));
    assert_eq!(figures("(\"kiln_x_total\", 1)"), figures("| `kiln_x_total` | x |"));
    assert_ne!(figures("(\"kiln_x_total\", 1)"), figures("| `kiln_x` | x |"));
    let source = "\nreasons! {\n    IoError, \"io_error\";\n}";
    let page = "## When replication fails\n| `io_error` | wait |";
    assert_eq!(reasons_of_page(page), reasons_of_source(source));
    assert_ne!(reasons_of_page("## When replication fails\n"), reasons_of_source(source));
}
