//! Other kilns: B2's Native API, and headers that say what a replica is a copy of.
//!
//! A peer keeps the time of the source, leaves the metadata alone, and answers a second upload of
//! the same origin with the version it has.

use serde::Deserialize;

use crate::domain::remote_answer::RemoteFault;
use crate::replication::destination::remote::Line;
use crate::replication::destination::store::OutgoingFile;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Instance {
    instance_id: String,
}

/// The id of the kiln that answers there; None when something else does.
pub(super) async fn instance(line: &Line) -> Result<Option<String>, RemoteFault> {
    let answer = line.get("/api/v2/instance").await?;
    let told = serde_json::from_slice::<Instance>(&answer.body).ok();
    Ok(told.filter(|_| answer.status == 200).map(|told| told.instance_id))
}

/// What an upload, a start and a finish tell a peer of the source.
pub(super) fn headers(file: &OutgoingFile) -> Vec<(String, String)> {
    let mut headers = vec![
        ("X-Replica-Origin".to_owned(), file.origin.clone()),
        ("X-Replica-Timestamp".to_owned(), file.upload_at.0.to_string()),
        ("X-Replica-Hops".to_owned(), file.hops.join(",")),
    ];
    if let Some(key) = &file.source_key {
        headers.push(("X-Replica-Source-Key".to_owned(), key.clone()));
    }
    headers
}
