//! Object Lock: what new files may begin with, and changes of retention and legal hold.

use std::sync::Arc;

use crate::auth::caller::{Caller, Grant};
use crate::catalog::{Abort, Tx, files};
use crate::domain::bucket::Bucket;
use crate::domain::capability::Capability;
use crate::domain::file::{Action, FileVersion};
use crate::domain::ids::ClaimedFileId;
use crate::domain::lock::{FileLock, Retention, check_change};
use crate::domain::refusal::{
    Refusal, access_forbidden, bad_request, file_not_present, invalid_file_id, shorten,
    unauthorized,
};
use crate::operations::App;
use crate::operations::authorize::{Fence, fence};
use crate::operations::effects::Moment;
use crate::operations::error::Error;
use crate::operations::files::find_claimed;

/// Refuses a lock that a new file cannot begin with, or that the caller may not set.
pub(crate) fn check_new(
    app: &App,
    caller: &Caller,
    bucket: &Bucket,
    wanted: FileLock,
) -> Result<(), Refusal> {
    if wanted.retention.is_some() {
        caller.require(Capability::WriteFileRetentions)?;
    }
    if wanted.legal_hold.is_some() {
        caller.require(Capability::WriteFileLegalHolds)?;
    }
    bucket.settings.file_lock.check_new(wanted, app.clock.now())
}

/// A version whose lock is to be changed: name and id must both be right.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) file_name: String,
    pub(crate) file_id: String,
}

/// A target that the caller may change.
struct Reached {
    fence: Fence,
    claimed: ClaimedFileId,
    target: Target,
}

/// Who lacks the right is told so with a status of its own: b2sdk takes only that for a refusal to
/// write locks (spec: b2-native-api.md section 14.4).
fn require_write(caller: &Caller, capability: Capability) -> Result<(), Refusal> {
    if caller.may(capability) { Ok(()) } else { Err(access_forbidden()) }
}

fn reach(
    app: &App,
    caller: &Caller,
    target: Target,
    capability: Capability,
) -> Result<Reached, Error> {
    let id = target.file_id.as_str();
    let claimed = ClaimedFileId::parse(id).ok_or_else(|| invalid_file_id(id))?;
    caller.require_bucket(capability, claimed.bucket)?;
    if !caller.key.reaches_name(&target.file_name) {
        return Err(unauthorized().into());
    }
    let fence = fence(app, caller, claimed.bucket)?.ok_or_else(|| target.absent())?;
    let bucket = Arc::clone(&fence.bucket);
    Grant::for_name(&caller.key, capability, bucket, &target.file_name)?;
    fence.bucket.settings.file_lock.check_enabled()?;
    Ok(Reached { fence, claimed, target })
}

impl Target {
    fn absent(&self) -> Refusal {
        file_not_present(shorten(&self.file_name), shorten(&self.file_id))
    }
}

impl Reached {
    /// The version as it is in this transaction.
    fn read(&self, tx: &mut dyn Tx, moment: Moment) -> Result<FileVersion, Abort> {
        let reread = self.fence.reread(tx, moment.now)?;
        let bucket = reread.as_ref().unwrap_or(&self.fence.bucket);
        let version = find_claimed(tx, bucket, &self.claimed)?
            .filter(|version| version.name.as_str() == self.target.file_name)
            .ok_or_else(|| self.target.absent())?;
        match version.action {
            Action::Upload => Ok(version),
            Action::Hide => Err(bad_request("a hide marker cannot be locked").into()),
            Action::Start => Err(bad_request("an unfinished large file cannot be locked").into()),
        }
    }
}

/// Sets, extends, shortens or removes the retention of a version.
pub(crate) async fn update_retention(
    app: &App,
    caller: &Caller,
    target: Target,
    wanted: Option<Retention>,
    bypass_governance: bool,
) -> Result<(), Error> {
    require_write(caller, Capability::WriteFileRetentions)?;
    if bypass_governance {
        caller.require(Capability::BypassGovernance)?;
    }
    let reached = reach(app, caller, target, Capability::WriteFileRetentions)?;
    let moment = Moment::of(app);
    app.catalog
        .write("update_file_retention", move |tx| {
            let version = reached.read(tx, moment)?;
            check_change(version.lock.retention, wanted, moment.locks, bypass_governance)?;
            Ok(files::set_retention(tx, version.number, wanted)?)
        })
        .await?;
    Ok(())
}

/// Sets or lifts the legal hold of a version.
pub(crate) async fn update_legal_hold(
    app: &App,
    caller: &Caller,
    target: Target,
    hold: bool,
) -> Result<(), Error> {
    require_write(caller, Capability::WriteFileLegalHolds)?;
    let reached = reach(app, caller, target, Capability::WriteFileLegalHolds)?;
    let moment = Moment::of(app);
    app.catalog
        .write("update_file_legal_hold", move |tx| {
            let version = reached.read(tx, moment)?;
            Ok(files::set_legal_hold(tx, version.number, hold)?)
        })
        .await?;
    Ok(())
}
