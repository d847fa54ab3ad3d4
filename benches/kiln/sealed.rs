//! What encryption with SSE-B2 costs: the same requests to a bucket that encrypts and to one that
//! does not.

use std::rc::Rc;

use serde_json::json;

use crate::bodies::{Bodies, Names};
use crate::bulk::{LARGE, LARGE_VARIANTS, STREAMS, WARM_MEBIBYTES};
use crate::load::{Bound, Round, drive, drive_warm};
use crate::process::warm_memory;
use crate::report::{Finding, Goal, Per, Row, Side};
use crate::server::Kiln;
use crate::small::{readers, small_bodies};
use crate::{Bench, Fallible};

/// Processor time of encrypted requests, in that of the others.
const GOAL: Goal = Goal::AtMost(1.35);
/// Connections that upload small files side by side.
const SMALL_STREAMS: usize = 16;
/// The most large uploads of one round.
const MOST_UPLOADS: u64 = 48;
/// How many files are downloaded again and again.
const FILES: u64 = 64;

/// What is done to both buckets.
#[derive(Clone, Copy)]
enum Deed {
    Put,
    Get,
}

pub(crate) async fn sealed(bench: &Bench) -> Fallible<Vec<Row>> {
    let small = small_bodies();
    let middling = Rc::new(Bodies::prepare(1024 * 1024, FILES as usize));
    let large = Rc::new(Bodies::prepare(LARGE, LARGE_VARIANTS));
    let per_request = Per::ThousandOperations;
    Ok(vec![
        Row {
            name: "put4k_c16_sealed",
            what: "durable PUT of 4 KiB, CPU with SSE-B2 beside CPU without",
            result: Ok(compared(bench, Deed::Put, &small, per_request).await?),
        },
        Row {
            name: "get4k_c16_sealed",
            what: "GET of 4 KiB, CPU with SSE-B2 beside CPU without",
            result: Ok(compared(bench, Deed::Get, &small, per_request).await?),
        },
        Row {
            name: "get1m_c16_sealed",
            what: "GET of 1 MiB, CPU with SSE-B2 beside CPU without",
            result: Ok(compared(bench, Deed::Get, &middling, Per::Gigabyte).await?),
        },
        Row {
            name: "put64m_c4_sealed",
            what: "durable PUT of 64 MiB, CPU with SSE-B2 beside CPU without",
            result: Ok(compared(bench, Deed::Put, &large, Per::Gigabyte).await?),
        },
    ])
}

async fn compared(bench: &Bench, deed: Deed, bodies: &Rc<Bodies>, per: Per) -> Fallible<Finding> {
    let (mut encrypted, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        plain.push(round(bench, deed, bodies, false).await?);
        encrypted.push(round(bench, deed, bodies, true).await?);
    }
    let measured = Side::new("kiln, with SSE-B2", encrypted);
    let limit = Side::new("kiln, without", plain);
    Ok(Finding {
        figure: measured.cpu(per) / limit.cpu(per),
        goal: Some(GOAL),
        measured: Some(measured),
        limit: Some(limit),
        per,
        details: json!({}),
    })
}

async fn round(bench: &Bench, deed: Deed, bodies: &Rc<Bodies>, seals: bool) -> Fallible<Round> {
    const BUCKET: &str = "sealed-or-not";
    let server = Kiln::start(bench)?;
    let account = server.account().await?;
    let bucket = account.create_bucket(BUCKET).await?;
    if seals {
        account.encrypt(&bucket).await?;
    }
    let is_large = bodies.size() == LARGE;
    if is_large {
        warm_memory(WARM_MEBIBYTES)?;
    }
    let streams = if is_large { STREAMS } else { SMALL_STREAMS };
    let uploaders = account.uploaders(streams, &bucket, Names::Flat, bodies).await?;
    match deed {
        Deed::Put if is_large => {
            let bound = Bound::time(bench.time).and_turns(MOST_UPLOADS);
            Ok(drive(uploaders, bound, &server.watch()).await?.0)
        }
        Deed::Put => drive_warm(uploaders, Bound::time(bench.time), &server.watch()).await,
        Deed::Get => {
            drive(uploaders, Bound::turns(FILES), &server.watch()).await?;
            let requests = (0..FILES)
                .map(|number| account.download_request(BUCKET, &Names::Flat.get(number)))
                .collect();
            let readers = readers(server.address(), &Rc::new(requests), bodies.size()).await?;
            drive_warm(readers, Bound::time(bench.time), &server.watch()).await
        }
    }
}
