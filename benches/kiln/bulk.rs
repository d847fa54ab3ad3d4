//! Large uploads: what they cost beyond receiving and digesting, how much memory many of them take,
//! and whether they leave room for small downloads.

use std::rc::Rc;
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::b2::{Account, Upload, UploadUrl};
use crate::bodies::{Bodies, Counter, Names};
use crate::http::Connection;
use crate::load::{Bound, Round, drive, drive_warm};
use crate::process::{peak_resident, reset_peak, resident, warm_memory};
use crate::report::{Finding, Goal, Per, Row, Side};
use crate::server::{KEY, KEY_ID, Kiln, Sink};
use crate::small::{readers, small_bodies, store};
use crate::{Bench, Fallible, in_runtime};

/// The size of a large file.
pub(crate) const LARGE: usize = 64 * 1024 * 1024;
/// How many different large bodies there are.
pub(crate) const LARGE_VARIANTS: usize = 16;
/// How many large uploads run side by side where their number is not the point.
pub(crate) const STREAMS: usize = 4;
/// The most large uploads of one round, so that a fast machine does not fill its disk.
const MOST_UPLOADS: u64 = 64;
/// How much longer than the downloads the uploads beside them go on, before and after.
const HEAD_START: Duration = Duration::from_millis(500);
/// Room for the pages that a round writes.
pub(crate) const WARM_MEBIBYTES: usize = 4096;

pub(crate) async fn puts(bench: &Bench) -> Fallible<Vec<Row>> {
    let bodies = Rc::new(Bodies::prepare(LARGE, LARGE_VARIANTS));
    let bound = Bound::time(bench.time).and_turns(MOST_UPLOADS);
    let mut measured = Vec::new();
    let mut limit = Vec::new();
    for _ in 0..bench.rounds {
        limit.push(poured(bench, &bodies, bound).await?);
        let server = Kiln::start(bench)?;
        let account = server.account().await?;
        let bucket = account.create_bucket("large-puts").await?;
        warm_memory(WARM_MEBIBYTES)?;
        let uploaders = account.uploaders(STREAMS, &bucket, Names::Flat, &bodies).await?;
        measured.push(drive(uploaders, bound, &server.watch()).await?.0);
    }
    let measured = Side::new("kiln", measured);
    let limit = Side::new("HTTP, SHA-1 and MD5 alone", limit);
    let finding = Finding {
        figure: measured.cpu(Per::Gigabyte) / limit.cpu(Per::Gigabyte),
        goal: Some(Goal::AtMost(1.4)),
        measured: Some(measured),
        limit: Some(limit),
        per: Per::Gigabyte,
        details: json!({ "connections": STREAMS }),
    };
    Ok(vec![Row {
        name: "put64m_c4",
        what: "durable PUT of 64 MiB, 4 connections, CPU beside HTTP + SHA-1 + MD5 alone",
        result: Ok(finding),
    }])
}

/// A round of uploads to the sink.
async fn poured(bench: &Bench, bodies: &Rc<Bodies>, bound: Bound) -> Fallible<Round> {
    let sink = Sink::start(bench)?;
    let counter = Rc::new(Counter::default());
    // As long as the paths and tokens of real uploads, so that heads cost the same.
    let url = UploadUrl {
        address: sink.address(),
        path: format!("b2api/v4/b2_upload_file/{}", "0".repeat(44)),
        token: "0".repeat(80),
    };
    warm_memory(WARM_MEBIBYTES)?;
    let mut pouring = Vec::new();
    for _ in 0..STREAMS {
        let connection = Connection::open(url.address).await?;
        pouring.push(Upload::new(connection, &url, Names::Flat, &counter, bodies));
    }
    Ok(drive(pouring, bound, &sink.watch()).await?.0)
}

pub(crate) async fn memory(bench: &Bench) -> Fallible<Vec<Row>> {
    const UPLOADS: usize = 64;
    let bodies = Rc::new(Bodies::prepare(LARGE, LARGE_VARIANTS));
    let server = Kiln::start(bench)?;
    let account = server.account().await?;
    let bucket = account.create_bucket("many-puts").await?;
    warm_memory(WARM_MEBIBYTES)?;
    let idle = resident(server.pid())?;
    reset_peak(server.pid())?;
    let uploaders = account.uploaders(UPLOADS, &bucket, Names::Flat, &bodies).await?;
    let bound = Bound::turns(UPLOADS as u64);
    let (round, _) = drive(uploaders, bound, &server.watch()).await?;
    let peak = peak_resident(server.pid())?;
    let details = json!({
        "connections": UPLOADS,
        "idleMebibytes": idle,
        "residentAfterMebibytes": resident(server.pid())?,
    });
    let mut finding = Finding::plain(peak, Some(Goal::AtMost(128.0)), details);
    finding.measured = Some(Side::new("kiln", vec![round]));
    finding.per = Per::Gigabyte;
    Ok(vec![Row {
        name: "memory_c64",
        what: "MiB resident at most during 64 uploads of 64 MiB at once",
        result: Ok(finding),
    }])
}

pub(crate) async fn gets_beside_puts(bench: &Bench) -> Fallible<Vec<Row>> {
    const FILES: u64 = 1000;
    let server = Kiln::start(bench)?;
    let bodies = small_bodies();
    let requests = Rc::new(store(&server, &bodies, FILES).await?);
    let alone = readers(server.address(), &requests, bodies.size()).await?;
    let alone = drive_warm(alone, Bound::time(bench.time), &server.watch()).await?;

    warm_memory(WARM_MEBIBYTES)?;
    let address = server.address();
    // The uploads have a thread of their own: on the readers' thread, the wait for a turn behind
    // four busy uploads would be taken for the server's.
    let time = bench.time + 2 * HEAD_START;
    let large = Bodies::prepare(LARGE, LARGE_VARIANTS);
    let watch = server.watch();
    let beside = thread::spawn(move || {
        let uploads = async move {
            let bodies = Rc::new(large);
            let account = Account::authorize(address, KEY_ID, KEY).await?;
            let bucket = account.create_bucket("beside").await?;
            let uploaders = account.uploaders(STREAMS, &bucket, Names::Flat, &bodies).await?;
            Ok(drive(uploaders, Bound::time(time), &watch).await?.0)
        };
        in_runtime(uploads).map_err(|failure| failure.to_string())
    });
    tokio::time::sleep(HEAD_START).await;
    let workers = readers(address, &requests, bodies.size()).await?;
    let (round, _) = drive(workers, Bound::time(bench.time), &server.watch()).await?;
    let uploads = beside.join().map_err(|_| "the uploading thread panicked")??;

    let details = json!({
        "aloneP99Ms": alone.quantile(0.99),
        "aloneRate": alone.rate(),
        "uploads": uploads.json(),
        "uploadMegabytesPerSecond": uploads.megabytes_per_second(),
    });
    let mut finding = Finding::plain(round.quantile(0.99), Some(Goal::AtMost(50.0)), details);
    finding.measured = Some(Side::new("kiln", vec![round]));
    Ok(vec![Row {
        name: "get4k_beside_puts",
        what: "p99 in ms of GET of 4 KiB beside 4 uploads of 64 MiB",
        result: Ok(finding),
    }])
}
