//! Small uploads against SQLite, small and middling downloads against nginx, and how often an
//! upload makes the disk wait.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;

use serde_json::json;

use crate::bodies::{Bodies, Names};
use crate::http::Connection;
use crate::limits::{self, Rows};
use crate::load::{Ask, Bound, Round, drive, drive_warm};
use crate::report::{Finding, Goal, Missing, Row, Side};
use crate::server::{self, Kiln, Nginx};
use crate::{Bench, Fallible};

/// The size of a small file.
const SMALL: usize = 4096;
/// How many different small bodies there are.
const SMALL_VARIANTS: usize = 4096;
/// How many connections download side by side.
const READERS: u64 = 16;

/// How durable small uploads are called in the report.
struct PutNames {
    file_row: (&'static str, &'static str),
    with_body: (&'static str, &'static str),
}

pub(crate) async fn puts_side_by_side(bench: &Bench) -> Fallible<Vec<Row>> {
    let names = PutNames {
        file_row: (
            "put4k_c64",
            "durable PUT of 4 KiB, 64 connections, share of SQLite group commit of the files' rows",
        ),
        with_body: (
            "put4k_c64_body",
            "the same, share of SQLite group commit of the files' rows and bodies",
        ),
    };
    puts(bench, 64, &names).await
}

pub(crate) async fn puts_alone(bench: &Bench) -> Fallible<Vec<Row>> {
    let names = PutNames {
        file_row: (
            "put4k_c1",
            "durable PUT of 4 KiB, 1 connection, share of SQLite commits of the file's row",
        ),
        with_body: (
            "put4k_c1_body",
            "the same, share of SQLite commits of the file's row and body",
        ),
    };
    puts(bench, 1, &names).await
}

/// Two lines of one measurement. The goal is a share of what no upload can do without, the commit of
/// the file's row; the second line tells how much of the distance is the body, which the server
/// keeps in the database as well and writes in the commit that is answered.
async fn puts(bench: &Bench, connections: usize, names: &PutNames) -> Fallible<Vec<Row>> {
    const GOAL: Goal = Goal::AtLeast(0.35);
    let bodies = small_bodies();
    let body = bodies.whole(0);
    let mut measured = Vec::new();
    let mut file_rows = Vec::new();
    let mut with_bodies = Vec::new();
    for _ in 0..bench.rounds {
        file_rows.push(commits(bench, connections, Rows::File)?);
        with_bodies.push(commits(bench, connections, Rows::FileAndBody(&body))?);
        let server = Kiln::start(bench)?;
        let account = server.account().await?;
        let bucket = account.create_bucket("small-puts").await?;
        let uploaders = account.uploaders(connections, &bucket, Names::Flat, &bodies).await?;
        measured.push(drive_warm(uploaders, Bound::time(bench.time), &server.watch()).await?);
    }
    let measured = Side::new("kiln", measured);
    let rate = measured.best().rate();
    let with_bodies = Side::new("SQLite commits of the file's row and its body", with_bodies);
    let share = rate / with_bodies.best().rate();
    let mut beside_bodies = Finding::plain(share, None, json!({ "rate": rate }));
    beside_bodies.limit = Some(with_bodies);
    let file_rows = Side::new("SQLite commits of the file's row", file_rows);
    let mut beside_rows = Finding::rate_share(measured, file_rows, GOAL);
    beside_rows.details = json!({ "connections": connections });
    Ok(vec![
        Row { name: names.file_row.0, what: names.file_row.1, result: Ok(beside_rows) },
        Row { name: names.with_body.0, what: names.with_body.1, result: Ok(beside_bodies) },
    ])
}

fn commits(bench: &Bench, writers: usize, rows: Rows<'_>) -> Fallible<Round> {
    let folder = bench.folder()?;
    match writers {
        1 => limits::lone_commits(folder.path(), bench.time, rows),
        many => limits::group_commits(folder.path(), many as u64, bench.time, rows),
    }
}

pub(crate) async fn syncs(bench: &Bench) -> Fallible<Vec<Row>> {
    const TOGETHER: Goal = Goal::AtMost(0.3);
    // Less than one would mean that an answer was given before its bytes were safe.
    const ALONE: Goal = Goal::AtLeast(1.0);
    let rows = [
        ("syncs_c32", "sync calls per PUT of 4 KiB, 32 connections", 32, TOGETHER),
        ("syncs_c1", "sync calls per PUT of 4 KiB, 1 connection", 1, ALONE),
    ];
    let mut found = Vec::new();
    for (name, what, connections, goal) in rows {
        let result = if server::installed("strace", "--version") {
            Ok(syncs_per_put(bench, connections, goal).await?)
        } else {
            Err(Missing::Skipped("strace is not installed".to_owned()))
        };
        found.push(Row { name, what, result });
    }
    Ok(found)
}

async fn syncs_per_put(bench: &Bench, connections: usize, goal: Goal) -> Fallible<Finding> {
    const CALLS: [&str; 4] = ["fsync", "fdatasync", "sync", "syncfs"];
    const LOG: &str = "syncs";
    let bodies = small_bodies();
    // The filter in the kernel lets all other calls pass at full speed. Without it a traced server
    // is so slow that fewer uploads would meet in one commit.
    let server = Kiln::start_under(bench, |folder| {
        let mut command = Command::new("strace");
        command
            .args(["-f", "--seccomp-bpf", "-e"])
            .arg(format!("trace={}", CALLS.join(",")))
            .arg("-o")
            .arg(folder.join(LOG))
            .arg(&bench.kiln);
        command
    })?;
    let account = server.account().await?;
    let bucket = account.create_bucket("traced-puts").await?;
    let uploaders = account.uploaders(connections, &bucket, Names::Flat, &bodies).await?;
    let log = server.file(LOG);
    let before = count_calls(&log, &CALLS)?;
    let (round, _) = drive(uploaders, Bound::time(bench.time), &server.watch()).await?;
    let calls = count_calls(&log, &CALLS)? - before;
    let figure = calls as f64 / round.turns as f64;
    let details = json!({ "connections": connections, "syncCalls": calls, "traced": round.json() });
    Ok(Finding::plain(figure, Some(goal), details))
}

fn count_calls(log: &Path, calls: &[&str]) -> Fallible<usize> {
    let log = fs::read_to_string(log)?;
    // A line is the thread and the call; a call that was interrupted by another line goes on in a
    // line that begins differently and so is counted once.
    let called = |line: &&str| {
        line.split_ascii_whitespace()
            .nth(1)
            .and_then(|word| word.split_once('('))
            .is_some_and(|(call, _)| calls.contains(&call))
    };
    Ok(log.lines().filter(called).count())
}

pub(crate) async fn small_gets(bench: &Bench) -> Fallible<Vec<Row>> {
    let what = "GET of 4 KiB, 16 connections, share of nginx with sendfile";
    gets(bench, "get4k_c16", what, SMALL, 1000).await
}

pub(crate) async fn middling_gets(bench: &Bench) -> Fallible<Vec<Row>> {
    let what = "GET of 1 MiB, 16 connections, share of nginx with sendfile";
    gets(bench, "get1m_c16", what, 1024 * 1024, 64).await
}

async fn gets(
    bench: &Bench,
    name: &'static str,
    what: &'static str,
    size: usize,
    files: u64,
) -> Fallible<Vec<Row>> {
    const GOAL: Goal = Goal::AtLeast(0.5);
    let bodies = Rc::new(Bodies::prepare(size, usize::try_from(files)?));
    let nginx = if server::installed("nginx", "-v") {
        Some(Nginx::start(bench, |folder| {
            for number in 0..files {
                fs::write(folder.join(number.to_string()), bodies.whole(number))?;
            }
            Ok(())
        })?)
    } else {
        None
    };
    let kiln = Kiln::start(bench)?;
    let requests = Rc::new(store(&kiln, &bodies, files).await?);
    let mut measured = Vec::new();
    let mut limit = Vec::new();
    for _ in 0..bench.rounds {
        if let Some(nginx) = &nginx {
            let address = nginx.address();
            let requests = Rc::new(
                (0..files)
                    .map(|file| format!("GET /{file} HTTP/1.1\r\nHost: {address}\r\n\r\n"))
                    .map(String::into_bytes)
                    .collect(),
            );
            let workers = readers(address, &requests, size).await?;
            limit.push(drive_warm(workers, Bound::time(bench.time), &nginx.watch()?).await?);
        }
        let workers = readers(kiln.address(), &requests, size).await?;
        measured.push(drive_warm(workers, Bound::time(bench.time), &kiln.watch()).await?);
    }
    let measured = Side::new("kiln", measured);
    let result = if nginx.is_some() {
        Ok(Finding::rate_share(measured, Side::new("nginx", limit), GOAL))
    } else {
        let rate = measured.best().rate();
        Err(Missing::Skipped(format!("nginx is not installed; kiln alone made {rate:.0}/s")))
    };
    Ok(vec![Row { name, what, result }])
}

/// Uploads files and returns the requests that download them.
pub(crate) async fn store(
    server: &Kiln,
    bodies: &Rc<Bodies>,
    files: u64,
) -> Fallible<Vec<Vec<u8>>> {
    const BUCKET: &str = "downloads";
    let account = server.account().await?;
    let bucket = account.create_bucket(BUCKET).await?;
    let uploaders = account.uploaders(4, &bucket, Names::Flat, bodies).await?;
    drive(uploaders, Bound::turns(files), &server.watch()).await?;
    Ok((0..files)
        .map(|number| account.download_request(BUCKET, &Names::Flat.get(number)))
        .collect())
}

/// Connections that download what was stored.
pub(crate) async fn readers(
    address: SocketAddr,
    requests: &Rc<Vec<Vec<u8>>>,
    size: usize,
) -> Fallible<Vec<Ask>> {
    let mut readers = Vec::new();
    for seed in 0..READERS {
        let connection = Connection::open(address).await?;
        readers.push(Ask::new(connection, requests, seed, size as u64));
    }
    Ok(readers)
}

/// The bodies of small files.
pub(crate) fn small_bodies() -> Rc<Bodies> {
    Rc::new(Bodies::prepare(SMALL, SMALL_VARIANTS))
}
