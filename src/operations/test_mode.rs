//! What the test modes do to a call, before anything else is looked at.

use std::sync::{Mutex, PoisonError};

use crate::auth::token::TokenKind;
use crate::domain::refusal::{Refusal, upload_failed};
use crate::domain::test_mode::{CHECKS_PER_EXPIRY, Rhythm, TestModes, UPLOADS_PER_FAILURE};
use crate::entropy;
use crate::operations::App;

/// Which of the calls that ask for it are struck; calls that do not ask do not count.
pub(crate) struct Strikes {
    uploads: Mutex<Rhythm>,
    token_checks: Mutex<Rhythm>,
}

impl Default for Strikes {
    fn default() -> Self {
        Self {
            uploads: Mutex::new(Rhythm::new(UPLOADS_PER_FAILURE)),
            token_checks: Mutex::new(Rhythm::new(CHECKS_PER_EXPIRY)),
        }
    }
}

fn strikes(app: &App, rhythm: &Mutex<Rhythm>) -> bool {
    let [drawn] = entropy::bytes(&*app.entropy);
    rhythm.lock().unwrap_or_else(PoisonError::into_inner).strikes(drawn)
}

/// Lets an upload fail when it is one of those that shall.
pub(crate) fn before_upload(app: &App, modes: TestModes) -> Result<(), Refusal> {
    if modes.fail_some_uploads && strikes(app, &app.strikes.uploads) {
        return Err(upload_failed());
    }
    Ok(())
}

/// Ends an account token when its time has come; the check that follows finds it expired.
pub(crate) fn before_token_check(app: &App, modes: TestModes, token: &str) {
    if !modes.expire_some_tokens {
        return;
    }
    let now = app.clock.now();
    // Only genuine tokens count, so that a client finds as many failures as the rhythm has.
    if let Ok(claims) = app.tokens.check(TokenKind::Account, token, now)
        && strikes(app, &app.strikes.token_checks)
    {
        app.dead_tokens.insert(claims, now);
    }
}
