//! Back to the state after the first start, while the server runs: for tests.

use crate::auth::token::{Tokens, draw_secret};
use crate::catalog::reset;
use crate::operations::App;
use crate::operations::error::Error;
use crate::operations::usage::forget_counts;

/// Removes every bucket, file, key and job, all usage and caps, and every account but the first,
/// which keeps its master application key; all tokens die.
///
/// One transaction: whoever is at work meanwhile finds in his own what he was about either still
/// there or gone. Bytes in the blob store go with the next sweeps. The clock stays as it is, and
/// numbers and ids that were given out do not come again.
pub(crate) async fn reset_server(app: &App) -> Result<(), Error> {
    let mut sealed = Vec::new();
    let fresh = Tokens::new(|kind| {
        let name = kind.fact_name();
        let secret = draw_secret(&*app.entropy);
        sealed.push((name.clone(), app.sealer.seal(&name, &secret, &*app.entropy)?));
        Ok::<_, Error>(secret)
    })?;
    let now = app.clock.now();
    let removed =
        app.catalog.write("reset", move |tx| Ok(reset::remove_everything(tx, &sealed, now)?));
    forget_counts(app, removed).await?;
    app.tokens.replace(fresh);
    app.wake.sweep.notify_one();
    Ok(())
}
