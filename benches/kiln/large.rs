//! Files in parts, copies, and many kinds of requests at once.

use std::fs;
use std::rc::Rc;
use std::time::Instant;

use serde_json::{Value, json};

use crate::b2::{Account, Upload, text};
use crate::bodies::{Bodies, Counter, Names, Random};
use crate::bulk::{LARGE, LARGE_VARIANTS, STREAMS, WARM_MEBIBYTES};
use crate::http::Connection;
use crate::limits::{self, Rows};
use crate::load::{Bound, Round, Worker, drive, drive_warm};
use crate::process::warm_memory;
use crate::report::{Finding, Goal, Row, Side};
use crate::server::Kiln;
use crate::small::{small_bodies, store};
use crate::{Bench, Fallible};

/// Parts of the large file: a GiB in pieces of 64 MiB.
const PARTS: u64 = 16;
/// How many parts are sent at once.
const PART_STREAMS: usize = 5;

/// Sends parts of one large file.
struct PartUpload {
    connection: Connection,
    /// In which the number and the digest change from one part to the next.
    head: Vec<u8>,
    number_at: usize,
    sha1_at: usize,
    counter: Rc<Counter>,
    bodies: Rc<Bodies>,
}

impl PartUpload {
    async fn open(
        account: &Account,
        file: &str,
        counter: &Rc<Counter>,
        bodies: &Rc<Bodies>,
    ) -> Fallible<Self> {
        let wanted = json!({ "fileId": file });
        let (connection, url) =
            account.connect_to_upload("b2_get_upload_part_url", &wanted).await?;
        let mut head = format!(
            "POST /{} HTTP/1.1\r\nHost: {}\r\nAuthorization: {}\r\nContent-Length: {}\r\n\
             X-Bz-Part-Number: ",
            url.path,
            url.address,
            url.token,
            bodies.size()
        );
        let number_at = head.len();
        head.push_str("00000\r\nX-Bz-Content-Sha1: ");
        let sha1_at = head.len();
        head.push_str(&"0".repeat(40));
        head.push_str("\r\n\r\n");
        let (head, counter, bodies) = (head.into_bytes(), Rc::clone(counter), Rc::clone(bodies));
        Ok(Self { connection, head, number_at, sha1_at, counter, bodies })
    }
}

impl Worker for PartUpload {
    async fn turn(&mut self) -> Fallible<u64> {
        let number = self.counter.next();
        let (variant, shared) = self.bodies.get(number);
        let digits = format!("{:05}", number + 1);
        self.head[self.number_at..][..digits.len()].copy_from_slice(digits.as_bytes());
        self.head[self.sha1_at..][..40].copy_from_slice(variant.sha1());
        self.connection.exchange(&[&self.head, variant.start(), shared]).await?;
        Ok(self.bodies.size() as u64)
    }
}

/// Bytes that a process had written to the device so far.
fn written(pid: u32) -> Fallible<u64> {
    let io = fs::read_to_string(format!("/proc/{pid}/io"))?;
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(line.ok_or("the kernel does not count written bytes")?.trim().parse()?)
}

/// One large file, from the first byte of its first part to the answer that it is finished; its
/// rate in bytes per second is that of the whole.
async fn large_file(bench: &Bench, bodies: &Rc<Bodies>) -> Fallible<(Round, f64)> {
    let server = Kiln::start(bench)?;
    let account = server.account().await?;
    let bucket = account.create_bucket("one-large-file").await?;
    let wanted = json!({ "bucketId": bucket, "fileName": "large", "contentType": "text/plain" });
    let file = text(&account.call("b2_start_large_file", &wanted).await?, "fileId")?;
    let counter = Rc::new(Counter::default());
    let mut uploads = Vec::new();
    for _ in 0..PART_STREAMS {
        uploads.push(PartUpload::open(&account, &file, &counter, bodies).await?);
    }
    warm_memory(WARM_MEBIBYTES)?;
    let before = written(server.pid())?;
    let start = Instant::now();
    let (mut round, _) = drive(uploads, Bound::turns(PARTS), &server.watch()).await?;
    let sha1s: Vec<String> = (0..PARTS)
        .map(|number| String::from_utf8_lossy(bodies.get(number).0.sha1()).into_owned())
        .collect();
    let finish = json!({ "fileId": file, "partSha1Array": sha1s });
    let finished = account.call("b2_finish_large_file", &finish).await?;
    round.seconds = start.elapsed().as_secs_f64();
    if finished["contentLength"].as_u64() != Some(round.bytes) {
        return Err(format!("a file of another size was finished: {finished}").into());
    }
    let share = (written(server.pid())? - before) as f64 / round.bytes as f64;
    Ok((round, share))
}

pub(crate) async fn parts(bench: &Bench) -> Fallible<Vec<Row>> {
    let bodies = Rc::new(Bodies::prepare(LARGE, LARGE_VARIANTS));
    let (mut in_parts, mut whole, mut shares) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        let server = Kiln::start(bench)?;
        let account = server.account().await?;
        let bucket = account.create_bucket("large-puts").await?;
        warm_memory(WARM_MEBIBYTES)?;
        let uploaders = account.uploaders(STREAMS, &bucket, Names::Flat, &bodies).await?;
        whole.push(drive(uploaders, Bound::turns(PARTS), &server.watch()).await?.0);
        drop(server);
        let (round, share) = large_file(bench, &bodies).await?;
        in_parts.push(round);
        shares.push(share);
    }
    let most = shares.iter().copied().fold(0.0, f64::max);
    let details = json!({ "parts": PARTS, "connections": PART_STREAMS, "allShares": shares });
    let written = Finding::plain(most, Some(Goal::AtMost(1.02)), details);
    let in_parts = Side::new("kiln, one file in parts", in_parts);
    let whole = Side::new("kiln, PUT of 64 MiB, 4 connections", whole);
    let rate = Finding::rate_share(in_parts, whole, Goal::AtLeast(0.85));
    Ok(vec![
        Row {
            name: "large1g_x5",
            what: "a file of 1 GiB in 16 parts, 5 at once, share of the rate of PUT of 64 MiB x 4",
            result: Ok(rate),
        },
        Row {
            name: "large1g_written",
            what: "bytes written to the device per byte of a file in parts, until it is finished",
            result: Ok(written),
        },
    ])
}

/// Sends one prepared request again and again.
struct Repeat {
    connection: Connection,
    request: Rc<Vec<u8>>,
}

impl Worker for Repeat {
    async fn turn(&mut self) -> Fallible<u64> {
        self.connection.exchange(&[&self.request]).await
    }
}

pub(crate) async fn copies(bench: &Bench) -> Fallible<Vec<Row>> {
    const COPIERS: usize = 16;
    const SIZE: usize = 8 * 1024 * 1024;
    let large = Rc::new(Bodies::prepare(SIZE, 1));
    let small = small_bodies();
    let (mut copied, mut uploaded) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        let server = Kiln::start(bench)?;
        let account = server.account().await?;
        let bucket = account.create_bucket("small-puts").await?;
        let uploaders = account.uploaders(COPIERS, &bucket, Names::Flat, &small).await?;
        uploaded.push(drive_warm(uploaders, Bound::time(bench.time), &server.watch()).await?);

        let bucket = account.create_bucket("many-copies").await?;
        let one = account.uploaders(1, &bucket, Names::Flat, &large).await?;
        drive(one, Bound::turns(1), &server.watch()).await?;
        let listed = account.call("b2_list_file_names", &json!({ "bucketId": bucket })).await?;
        let source = text(&listed["files"][0], "fileId")?;
        let wanted = json!({ "sourceFileId": source, "fileName": "copy" });
        let request = Rc::new(account.request("b2_copy_file", &wanted));
        let mut copiers = Vec::new();
        for _ in 0..COPIERS {
            let connection = Connection::open(server.address()).await?;
            copiers.push(Repeat { connection, request: Rc::clone(&request) });
        }
        copied.push(drive_warm(copiers, Bound::time(bench.time), &server.watch()).await?);
    }
    let copied = Side::new("kiln, copies of a file of 8 MiB", copied);
    let uploaded = Side::new("kiln, PUT of 4 KiB", uploaded);
    let mut finding = Finding::rate_share(copied, uploaded, Goal::AtLeast(0.9));
    finding.details = json!({ "connections": COPIERS });
    Ok(vec![Row {
        name: "copy_c16",
        what: "copies of a file of 8 MiB, 16 connections, share of the rate of PUT of 4 KiB",
        result: Ok(finding),
    }])
}

/// What the nearest durable peer does of the same mixture on the machine of the measurements that
/// the goals come from, and what SQLite committed there, rows with bodies as here.
const PEER_RATE: f64 = 2862.0;
const PEER_COMMITS: f64 = 25_000.0;

/// Requests of many kinds: of a hundred, 60 downloads, 25 uploads, 10 looks at a file, 2 pages of a
/// listing, 3 uploads that are deleted again.
struct Mixed {
    connection: Connection,
    reads: Rc<Vec<Vec<u8>>>,
    looks: Rc<Vec<Vec<u8>>>,
    page: Rc<Vec<u8>>,
    upload: Upload,
    deletions: Rc<Account>,
    random: Random,
}

impl Worker for Mixed {
    async fn turn(&mut self) -> Fallible<u64> {
        let pick = |random: &mut Random, from: &[Vec<u8>]| random.below(from.len());
        match self.random.below(100) {
            0..60 => {
                let at = pick(&mut self.random, &self.reads);
                self.connection.exchange(&[&self.reads[at]]).await
            }
            60..85 => self.upload.turn().await,
            85..95 => {
                let at = pick(&mut self.random, &self.looks);
                self.connection.exchange(&[&self.looks[at]]).await
            }
            95..97 => self.connection.exchange(&[&self.page]).await,
            _ => {
                let stored: Value = serde_json::from_slice(&self.upload.store().await?)?;
                let gone = json!({ "fileId": stored["fileId"], "fileName": stored["fileName"] });
                let request = self.deletions.request("b2_delete_file_version", &gone);
                self.connection.exchange(&[&request]).await
            }
        }
    }
}

pub(crate) async fn mixed(bench: &Bench) -> Fallible<Vec<Row>> {
    const WORKERS: usize = 32;
    const FILES: u64 = 1000;
    let bodies = small_bodies();
    let body = bodies.whole(0);
    let (mut measured, mut commits) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        let folder = bench.folder()?;
        commits.push(limits::group_commits(
            folder.path(),
            64,
            bench.time,
            Rows::FileAndBody(&body),
        )?);
        let server = Kiln::start(bench)?;
        let reads = Rc::new(store(&server, &bodies, FILES).await?);
        let account = Rc::new(server.account().await?);
        let bucket = account.create_bucket("mixed-load").await?;
        let uploads = account.uploaders(WORKERS, &bucket, Names::Tree, &bodies).await?;
        let (_, uploads) = drive(uploads, Bound::turns(FILES), &server.watch()).await?;
        let list = json!({ "bucketId": bucket, "maxFileCount": 1000 });
        let listed = account.call("b2_list_file_names", &list).await?;
        let files = listed["files"].as_array().ok_or("a listing without files")?;
        let looks: Vec<Vec<u8>> = files
            .iter()
            .map(|file| account.request("b2_get_file_info", &json!({ "fileId": file["fileId"] })))
            .collect();
        let looks = Rc::new(looks);
        let page = json!({ "bucketId": bucket, "maxFileCount": 100 });
        let page = Rc::new(account.request("b2_list_file_names", &page));
        let mut workers = Vec::new();
        for (number, upload) in uploads.into_iter().enumerate() {
            workers.push(Mixed {
                connection: Connection::open(server.address()).await?,
                reads: Rc::clone(&reads),
                looks: Rc::clone(&looks),
                page: Rc::clone(&page),
                upload,
                deletions: Rc::clone(&account),
                random: Random::new(number as u64 + 1),
            });
        }
        measured.push(drive_warm(workers, Bound::time(bench.time), &server.watch()).await?);
    }
    let measured = Side::new("kiln", measured);
    let commits = Side::new("SQLite commits of the file's row and its body", commits);
    let scale = commits.best().rate() / PEER_COMMITS;
    let details = json!({ "connections": WORKERS, "peerRateThere": PEER_RATE, "scale": scale });
    let figure = measured.best().rate() / (PEER_RATE * scale);
    let mut finding = Finding::plain(figure, Some(Goal::AtLeast(2.5)), details);
    finding.measured = Some(measured);
    finding.limit = Some(commits);
    Ok(vec![Row {
        name: "mixed_c32",
        what: "mixed requests, 32 connections, times the nearest durable peer scaled by commits",
        result: Ok(finding),
    }])
}
