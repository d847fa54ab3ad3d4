//! The server as a whole: how soon it answers, what it keeps beside the bodies, and how fast files
//! arrive where they are replicated to.

use std::fs;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::b2::Account;
use crate::bodies::{Bodies, Names};
use crate::load::{Bound, drive};
use crate::report::{Finding, Goal, Row, Side};
use crate::server::{Kiln, first_answer};
use crate::small::small_bodies;
use crate::{Bench, Fallible};

pub(crate) fn start_up(bench: &Bench) -> Fallible<Vec<Row>> {
    let mut runs = Vec::new();
    for _ in 0..5 {
        runs.push(first_answer(bench)?.as_secs_f64() * 1e3);
    }
    runs.sort_by(f64::total_cmp);
    let finding = Finding::plain(runs[2], Some(Goal::AtMost(50.0)), json!({ "allMs": runs }));
    Ok(vec![Row {
        name: "start_up",
        what: "ms from start to first answer in an empty folder, median of 5",
        result: Ok(finding),
    }])
}

pub(crate) async fn metadata(bench: &Bench) -> Fallible<Vec<Row>> {
    const FILES: u64 = 20_000;
    const SIZE: usize = 1000;
    let server = Kiln::start(bench)?;
    let account = server.account().await?;
    let bucket = account.create_bucket("many-files").await?;
    let bodies = Rc::new(Bodies::prepare(SIZE, 1000));
    let uploaders = account.uploaders(64, &bucket, Names::Flat, &bodies).await?;
    let (round, _) = drive(uploaders, Bound::turns(FILES), &server.watch()).await?;
    let (folder, data) = server.stop()?;
    let stored = apparent_size(&data)?;
    folder.close()?;
    let beside = stored.checked_sub(round.bytes).ok_or("less is stored than was uploaded")?;
    let details = json!({ "files": FILES, "bodyBytes": round.bytes, "storedBytes": stored });
    let figure = beside as f64 / FILES as f64;
    let mut finding = Finding::plain(figure, Some(Goal::AtMost(450.0)), details);
    finding.measured = Some(Side::new("kiln", vec![round]));
    Ok(vec![Row {
        name: "metadata",
        what: "bytes stored beside the body per file of 1,000 bytes",
        result: Ok(finding),
    }])
}

/// The length of all files under a folder.
fn apparent_size(folder: &Path) -> Fallible<u64> {
    let mut size = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        size += if entry.file_type()?.is_dir() {
            apparent_size(&entry.path())?
        } else {
            entry.metadata()?.len()
        };
    }
    Ok(size)
}

pub(crate) async fn replication(bench: &Bench) -> Fallible<Vec<Row>> {
    const FILES: u64 = 3000;
    let server = Kiln::start(bench)?;
    let account = server.account().await?;
    let source = account.create_bucket("replication-source").await?;
    let destination = account.create_bucket("replication-destination").await?;
    replicate(&account, &source, &destination).await?;
    let uploaders = account.uploaders(16, &source, Names::Flat, &small_bodies()).await?;
    let watch = server.watch();
    let before = watch.sample()?;
    let start = Instant::now();
    let (round, _) = drive(uploaders, Bound::turns(FILES), &watch).await?;
    wait_for_replicas(&account, &source, FILES).await?;
    let seconds = start.elapsed().as_secs_f64();
    let usage = before.until(&watch.sample()?);

    let listing = json!({ "bucketId": destination, "maxFileCount": 10_000 });
    let listed = account.call("b2_list_file_names", &listing).await?;
    let arrived = listed["files"].as_array().map_or(0, Vec::len) as u64;
    if arrived != FILES {
        return Err(format!("{arrived} of {FILES} files arrived").into());
    }
    let details = json!({
        "files": FILES,
        "secondsFromFirstUploadToLastReplica": seconds,
        "serverCpuSecondsPerThousand": usage.server * 1e3 / FILES as f64,
        "foreignCpuShare": usage.foreign_share,
    });
    let mut finding = Finding::plain(FILES as f64 / seconds, None, details);
    finding.measured = Some(Side::new("kiln, the uploads", vec![round]));
    Ok(vec![Row {
        name: "replication",
        what: "files of 4 KiB per second, from first upload to last replica in another bucket",
        result: Ok(finding),
    }])
}

/// Makes everything uploaded to one bucket go to another.
async fn replicate(account: &Account, source: &str, destination: &str) -> Fallible<()> {
    let reading = ["listBuckets", "readFiles", "readFileRetentions", "readFileLegalHolds"];
    let writing = ["listBuckets", "writeFiles", "writeFileRetentions", "writeFileLegalHolds"];
    let reader = account.create_key("replication-reader", &reading).await?;
    let writer = account.create_key("replication-writer", &writing).await?;
    let arriving = json!({
        "asReplicationDestination": { "sourceToDestinationKeyMapping": { &reader: writer } },
    });
    account.update_replication(destination, arriving).await?;
    let leaving = json!({
        "asReplicationSource": {
            "replicationRules": [{
                "destinationBucketId": destination,
                "fileNamePrefix": "",
                "includeExistingFiles": false,
                "isEnabled": true,
                "priority": 1,
                "replicationRuleName": "everything",
            }],
            "sourceApplicationKeyId": reader,
        },
    });
    account.update_replication(source, leaving).await
}

/// Returns once every file is completed. Only names after the last one known to be completed are
/// asked for, so that watching costs the server little.
async fn wait_for_replicas(account: &Account, bucket: &str, files: u64) -> Fallible<()> {
    const PATIENCE: Duration = Duration::from_mins(5);
    const PAGE: u64 = 200;
    let start = Instant::now();
    let mut completed = 0;
    while completed < files {
        let listing = json!({
            "bucketId": bucket,
            "startFileName": Names::Flat.get(completed),
            "maxFileCount": PAGE,
        });
        let answer = account.call("b2_list_file_names", &listing).await?;
        let statuses = answer["files"].as_array().into_iter().flatten();
        let mut in_page = 0;
        for file in statuses {
            let status = file["replicationStatus"].as_str().unwrap_or("no status");
            // Clients take either case, so the bench does too.
            match status.to_ascii_uppercase().as_str() {
                "COMPLETED" => in_page += 1,
                "PENDING" => break,
                _ => return Err(format!("a file has replication status {status}").into()),
            }
        }
        completed += in_page;
        if in_page < PAGE {
            if start.elapsed() > PATIENCE {
                return Err(format!("{completed} of {files} files were replicated").into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    Ok(())
}
