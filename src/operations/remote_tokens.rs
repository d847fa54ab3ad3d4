//! The tokens that open remotes: kept sealed, opened for each attempt, so that a new one cures what an
//! old one could not.

use crate::auth::sealing::Unsealable;
use crate::catalog::remotes::StoredRemote;
use crate::domain::remote::{RemoteId, RemoteToken};
use crate::operations::App;
use crate::operations::error::{Error, Fault};

/// Binds a sealed token to its remote.
fn owner(remote: RemoteId) -> String {
    format!("remote_token.{remote}")
}

/// Seals the token of a remote.
pub(crate) fn seal_token(app: &App, remote: RemoteId, token: &str) -> Result<Vec<u8>, Error> {
    let sealed = app.sealer.seal(&owner(remote), token.as_bytes(), &*app.entropy);
    sealed.map_err(|error| unsealable("seal the token of a remote", error).into())
}

/// Opens the token of a remote. One that was sealed was understood before, so it is again.
pub(crate) fn open_token(app: &App, stored: &StoredRemote) -> Result<RemoteToken, Error> {
    let doing = "open the token of a remote";
    let opened = app.sealer.open(&owner(stored.remote.id), &stored.sealed_token);
    let opened = opened.map_err(|error| unsealable(doing, error))?;
    let text = std::str::from_utf8(&opened).map_err(|_| unsealable(doing, Unsealable))?;
    let read = RemoteToken::parse(text).map_err(|_| unsealable(doing, Unsealable))?;
    Ok(read)
}

fn unsealable(doing: &'static str, error: Unsealable) -> Fault {
    Fault { doing, may_retry: false, source: Box::new(error) }
}
