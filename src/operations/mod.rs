//! Acts: what a caller can ask for, each a function `(app, caller, input) -> outcome`.
//!
//! Kept here: the rules of each act and its transaction, the only place from which callers change
//! anything. Deliberately not here: HTTP, JSON, status numbers, and the workers that consume the
//! rows written here. `api` and the workers call. The promise that would break first: an act has
//! happened wholly and durably, or not at all.

pub(crate) mod accounts;
pub(crate) mod authorize;
pub(crate) mod buckets;
pub(crate) mod controls;
pub(crate) mod copy;
pub(crate) mod cors;
pub(crate) mod dead_tokens;
pub(crate) mod destination_gate;
pub(crate) mod download;
pub(crate) mod effects;
pub(crate) mod encryption;
pub(crate) mod error;
pub(crate) mod facts;
pub(crate) mod files;
pub(crate) mod key_ring;
pub(crate) mod keys;
pub(crate) mod large_files;
pub(crate) mod left_behind;
pub(crate) mod lifecycle;
pub(crate) mod list;
pub(crate) mod lock_clock;
pub(crate) mod locks;
pub(crate) mod notifications;
pub(crate) mod remote_tokens;
pub(crate) mod remotes;
pub(crate) mod replica_sessions;
pub(crate) mod replicas;
pub(crate) mod replication_jobs;
pub(crate) mod replication_rules;
pub(crate) mod reset;
pub(crate) mod signatures;
pub(crate) mod stream_figures;
pub(crate) mod streams;
pub(crate) mod test_mode;
pub(crate) mod upload;
pub(crate) mod upload_slots;
pub(crate) mod usage;

use std::sync::Arc;

use tokio::sync::Notify;

use crate::auth::key_ring::KeyRing;
use crate::auth::sealing::Sealer;
use crate::auth::token::Tokens;
use crate::blobs::BlobStore;
use crate::blobs::metered::BlobMetrics;
use crate::catalog::Catalog;
use crate::clock::{Clock, Waits};
use crate::domain::encryption::DefaultEncryption;
use crate::domain::ids::Numbers;
use crate::domain::large_file::PartSizes;
use crate::domain::replication::Leniency;
use crate::domain::webhook::TargetPolicy;
use crate::entropy::Entropy;
use crate::metrics::Metrics;
use crate::operations::dead_tokens::DeadTokens;
use crate::operations::facts::Facts;
use crate::operations::left_behind::LeftBehind;
use crate::operations::lock_clock::LockClock;
use crate::operations::replication_jobs::JobCounts;
use crate::operations::signatures::SignaturePolicy;
use crate::operations::test_mode::Strikes;
use crate::operations::upload_slots::UploadSlots;
use crate::operations::usage::Usage;

/// Everything an act needs.
pub(crate) struct App {
    pub(crate) catalog: Catalog,
    pub(crate) blobs: Arc<dyn BlobStore>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Until when locks hold, whatever the wall clock does.
    pub(crate) lock_clock: LockClock,
    /// When what waits is due, whatever the wall clock does.
    pub(crate) waits: Waits,
    pub(crate) entropy: Arc<dyn Entropy>,
    /// Shared with transaction bodies, which must be free of borrows.
    pub(crate) numbers: Arc<Numbers>,
    pub(crate) tokens: Tokens,
    pub(crate) sealer: Sealer,
    /// Wraps the keys of blobs encrypted with SSE-B2.
    pub(crate) key_ring: KeyRing,
    /// Names this data folder among others; part of the origin of replicas.
    pub(crate) instance: Arc<str>,
    pub(crate) policy: Policy,
    pub(crate) facts: Facts,
    pub(crate) dead_tokens: DeadTokens,
    pub(crate) strikes: Strikes,
    /// Shared with downloads under way, which may end when nobody looks.
    pub(crate) usage: Arc<Usage>,
    pub(crate) upload_slots: UploadSlots,
    pub(crate) left_behind: LeftBehind,
    pub(crate) job_counts: JobCounts,
    /// Held by whoever walks buckets with lifecycle rules: one walk at a time is enough.
    pub(crate) lifecycle_turn: tokio::sync::Mutex<()>,
    pub(crate) wake: Wake,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) blob_metrics: Arc<BlobMetrics>,
}

/// What the operator may set about acts.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own in the settings")]
pub(crate) struct Policy {
    pub(crate) buckets_max: i64,
    /// Refuse keys that version 4 made for one bucket on older versions, as Backblaze does.
    pub(crate) strict_v4_keys: bool,
    /// Let uploads bring their own upload time.
    pub(crate) custom_timestamps: bool,
    /// Refuse account tokens in downloads that pages of other origins ask for.
    pub(crate) strict_cors_tokens: bool,
    pub(crate) replication_leniency: Leniency,
    /// Take replicas that other servers send.
    pub(crate) accept_peers: bool,
    /// Replicate files whose metadata is too large for Backblaze to replicate.
    pub(crate) copy_large_metadata: bool,
    pub(crate) part_sizes: PartSizes,
    /// Of new buckets that ask for nothing, and of those that are set back.
    pub(crate) default_encryption: DefaultEncryption,
    pub(crate) signatures: SignaturePolicy,
    /// Content up to this size is kept in the catalog, in bytes.
    pub(crate) inline_max: u64,
    /// Where event notifications may go.
    pub(crate) webhooks: TargetPolicy,
    /// Where clients find this server, when the operator says; never a webhook.
    pub(crate) public_url: Option<String>,
    /// Events that may wait for one notification rule.
    pub(crate) event_queue_max: i64,
}

/// Tells workers to look; carries no data, so a lost wake-up costs time only.
#[derive(Default)]
pub(crate) struct Wake {
    pub(crate) replication: Notify,
    pub(crate) sweep: Notify,
    pub(crate) lifecycle: Notify,
    pub(crate) events: Notify,
}
