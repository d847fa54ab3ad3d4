//! Listings: pages of names against the bare cursor, and whether their cost follows what they
//! answer or how much is stored.

use std::rc::Rc;

use serde_json::{Value, json};

use crate::b2::Account;
use crate::bodies::{Bodies, FOLDERS, Names, Random, TREE};
use crate::http::Connection;
use crate::limits::{Cursor, PAGE_NAMES, page_start};
use crate::load::{Ask, Bound, Round, drive, drive_warm};
use crate::report::{Finding, Goal, Row, Side};
use crate::server::Kiln;
use crate::{Bench, Fallible};

/// "No dearer", with room for the noise that two medians of one run have.
const NO_DEARER: Goal = Goal::AtMost(1.2);
/// A search among ten times as many keys may go one level deeper, but not read ten times as much.
const FOLLOWS_RESULTS: Goal = Goal::AtMost(1.3);

/// A server that holds a number of files, and the two kinds of requests for it.
struct Filled {
    server: Kiln,
    pages: Rc<Vec<Vec<u8>>>,
    folders: Rc<Vec<Vec<u8>>>,
    filling: Round,
}

impl Filled {
    async fn start(bench: &Bench, files: u64) -> Fallible<Self> {
        const TINY: usize = 16;
        const PAGES: usize = 512;
        let server = Kiln::start(bench)?;
        let account = server.account().await?;
        let bucket = account.create_bucket("listed").await?;
        let bodies = Rc::new(Bodies::prepare(TINY, 256));
        let uploaders = account.uploaders(64, &bucket, Names::Tree, &bodies).await?;
        let (filling, _) = drive(uploaders, Bound::turns(files), &server.watch()).await?;
        if filling.turns != files {
            return Err(format!("{} of {files} files within ten minutes", filling.turns).into());
        }
        let mut random = Random::new(files);
        let page = |start: String| json!({ "bucketId": bucket, "startFileName": start, "maxFileCount": PAGE_NAMES });
        let folders = json!({
            "bucketId": bucket,
            "prefix": TREE,
            "delimiter": "/",
            "maxFileCount": PAGE_NAMES,
        });
        // What is asked in bulk is dropped unread, so one answer of each kind is looked at first.
        expect_entries(&account, &page(Names::sorted(files, 0)), PAGE_NAMES.into()).await?;
        expect_entries(&account, &folders, FOLDERS).await?;
        let request = |body: &Value| account.request("b2_list_file_names", body);
        let pages = (0..PAGES).map(|_| request(&page(page_start(&mut random, files)))).collect();
        let folders = vec![request(&folders)];
        Ok(Self { server, pages: Rc::new(pages), folders: Rc::new(folders), filling })
    }

    /// One connection that lists again and again.
    async fn list(&self, bench: &Bench, requests: &Rc<Vec<Vec<u8>>>) -> Fallible<Round> {
        let connection = Connection::open(self.server.address()).await?;
        // A hundred folders take more than this, and so do a thousand names.
        let lister = Ask::new(connection, requests, 0, 100 * FOLDERS);
        drive_warm(vec![lister], Bound::time(bench.time), &self.server.watch()).await
    }
}

async fn expect_entries(account: &Account, body: &Value, expected: u64) -> Fallible<()> {
    let answer = account.call("b2_list_file_names", body).await?;
    let found = answer["files"].as_array().ok_or("a listing without files")?.len() as u64;
    if found != expected {
        return Err(format!("a listing of {found} entries instead of {expected}").into());
    }
    Ok(())
}

pub(crate) async fn listings(bench: &Bench) -> Fallible<Vec<Row>> {
    let (few, many) = bench.listed;
    let small = Filled::start(bench, few).await?;
    let large = Filled::start(bench, many).await?;
    let folder = bench.folder()?;
    let mut cursor = Cursor::prepare(folder.path(), many)?;
    let mut limit = Vec::new();
    let mut pages = [Vec::new(), Vec::new()];
    let mut folders = [Vec::new(), Vec::new()];
    for _ in 0..bench.rounds {
        limit.push(cursor.pages(bench.time)?);
        for (of, server) in [&small, &large].into_iter().enumerate() {
            pages[of].push(server.list(bench, &server.pages).await?);
            folders[of].push(server.list(bench, &server.folders).await?);
        }
    }
    let details = json!({
        "files": { "few": few, "many": many },
        "filling": { "few": small.filling.json(), "many": large.filling.json() },
    });
    let [few_pages, many_pages] = pages;
    let pages_growth = growth(&few_pages, &many_pages, NO_DEARER, &details);
    let [few_folders, many_folders] = folders;
    let many_pages = Side::new("kiln with many files", many_pages);
    let limit = Side::new("SQLite cursor over as many rows", limit);
    let mut share = Finding::rate_share(many_pages, limit, Goal::AtLeast(0.4));
    share.details = details.clone();
    let mut folders_growth = growth(&few_folders, &many_folders, FOLLOWS_RESULTS, &details);
    folders_growth.measured = Some(Side::new("kiln with many files", many_folders));
    folders_growth.limit = Some(Side::new("kiln with few files", few_folders));
    Ok(vec![
        Row {
            name: "list_pages",
            what: "pages of 1,000 names, share of the SQLite cursor",
            result: Ok(share),
        },
        Row {
            name: "list_pages_growth",
            what: "time of a page of names with ten times as many files",
            result: Ok(pages_growth),
        },
        Row {
            name: "list_folders_growth",
            what: "time of a listing of 100 folders with ten times as many files",
            result: Ok(folders_growth),
        },
    ])
}

/// How much longer an answer takes with many files than with few.
fn growth(few: &[Round], many: &[Round], goal: Goal, details: &Value) -> Finding {
    let median = |rounds: &[Round]| {
        rounds.iter().map(|round| round.quantile(0.5)).fold(f64::INFINITY, f64::min)
    };
    let cpu =
        |rounds: &[Round]| rounds.iter().map(Round::cpu_per_thousand).fold(f64::INFINITY, f64::min);
    let (few_ms, many_ms) = (median(few), median(many));
    let mut details = details.clone();
    details["medianMs"] = json!({ "few": few_ms, "many": many_ms });
    details["cpuSecondsPerThousand"] = json!({ "few": cpu(few), "many": cpu(many) });
    Finding::plain(many_ms / few_ms, Some(goal), details)
}
