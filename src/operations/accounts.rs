//! Accounts and their master application keys.

use crate::auth::caller::Caller;
use crate::auth::sealing::{draw_secret, secrets_match};
use crate::auth::token::TokenKind;
use crate::catalog::accounts::{self, Account};
use crate::catalog::keys::{self, StoredKey};
use crate::catalog::server_facts;
use crate::domain::capability::Capabilities;
use crate::domain::ids::{AccountId, KeyId};
use crate::domain::key::{Key, Secret};
use crate::domain::refusal::{bad_auth_token, bad_request, unauthorized};
use crate::entropy;
use crate::operations::App;
use crate::operations::error::Error;

/// A new account with the only sight of its secret.
#[derive(Clone, Debug)]
pub(crate) struct NewAccount {
    pub(crate) id: AccountId,
    pub(crate) name: String,
    pub(crate) secret: Secret,
}

fn master_key(account: AccountId, sealed_secret: Vec<u8>) -> StoredKey {
    StoredKey {
        key: Key {
            id: KeyId::master(account),
            account,
            name: "master".to_owned(),
            capabilities: Capabilities::all(),
            buckets: None,
            name_prefix: None,
            expires_at: None,
            is_master: true,
            made_by_version: 1,
        },
        sealed_secret,
    }
}

/// Draws the id and the secret of an account to be made.
pub(crate) fn draw_account(app: &App) -> (AccountId, Secret) {
    (AccountId::from_bytes(entropy::bytes(&*app.entropy)), draw_secret(&*app.entropy))
}

/// Makes an account and its master application key, with the given id and secret or drawn ones.
pub(crate) async fn create_account(
    app: &App,
    name: &str,
    fixed: Option<(AccountId, Secret)>,
) -> Result<NewAccount, Error> {
    if name.len() > 100 || name.chars().any(char::is_control) {
        return Err(bad_request("an account name has at most 100 printable characters").into());
    }
    let (id, secret) = fixed.unwrap_or_else(|| draw_account(app));
    let owner = KeyId::master(id);
    let sealed = app.sealer.seal(owner.as_str(), secret.expose().as_bytes(), &*app.entropy)?;
    let stored = master_key(id, sealed);
    let now = app.clock.now();
    let (row_name, answer_name) = (name.to_owned(), name.to_owned());
    app.catalog
        .write("create_account", move |tx| {
            accounts::insert_account(tx, id, &row_name, now)?;
            keys::insert_key(tx, &stored, now)?;
            Ok(())
        })
        .await?;
    Ok(NewAccount { id, name: answer_name, secret })
}

/// How the first account was found.
#[derive(Clone, Debug)]
pub(crate) enum FirstAccount {
    Made(NewAccount),
    Known,
    /// The operator gave another master key: the old one is dead, and with it every token, since
    /// their signing keys are gone from the catalog. `app.tokens` still holds the old ones.
    KeyReplaced,
}

/// Makes sure that the first account has this id and this master key, as the operator fixed them.
///
/// Refuses when the data folder belongs to another account.
pub(crate) async fn ensure_first_account(
    app: &App,
    fixed: Option<(AccountId, Secret)>,
) -> Result<FirstAccount, Error> {
    let first = app.catalog.read(|tx| Ok(accounts::find_first_account(tx)?))?;
    let Some(first) = first else {
        return create_account(app, "", fixed).await.map(FirstAccount::Made);
    };
    let Some((id, secret)) = fixed else { return Ok(FirstAccount::Known) };
    if id != first {
        return Err(bad_request(format!(
            "the data folder belongs to account {first}, not to {id}: remove master_key_id or \
             use another data folder"
        ))
        .into());
    }
    let key_id = KeyId::master(id);
    let stored = app.catalog.read(|tx| Ok(keys::find_key(tx, &key_id)?))?;
    let open = |stored: &StoredKey| app.sealer.open(key_id.as_str(), &stored.sealed_secret);
    let known = stored.as_ref().map(open).transpose()?.unwrap_or_default();
    if secrets_match(secret.expose().as_bytes(), &known) {
        return Ok(FirstAccount::Known);
    }
    // The old master key dies, as at Backblaze, and so do its tokens: who replaces a key because
    // it leaked must not leave a day to whoever has it. Tokens name their key and not its secret,
    // so those of other keys die too; clients authorize again by themselves.
    let sealed = app.sealer.seal(key_id.as_str(), secret.expose().as_bytes(), &*app.entropy)?;
    app.catalog
        .write("set_master_key", move |tx| {
            keys::set_secret(tx, &key_id, &sealed)?;
            for kind in TokenKind::ALL {
                server_facts::remove_fact(tx, &kind.fact_name())?;
            }
            Ok(())
        })
        .await?;
    Ok(FirstAccount::KeyReplaced)
}

/// All accounts, oldest first.
pub(crate) fn list_accounts(app: &App) -> Result<Vec<Account>, Error> {
    Ok(app.catalog.read(|tx| Ok(accounts::list_accounts(tx)?))?)
}

/// The account made first.
pub(crate) fn first_account(app: &App) -> Result<AccountId, Error> {
    let first = app.catalog.read(|tx| Ok(accounts::find_first_account(tx)?))?;
    first.ok_or_else(|| unauthorized().into())
}

/// The master application key of an account, for whoever administers the server.
pub(crate) fn master_of(
    app: &App,
    _operator: &Operator,
    account: AccountId,
) -> Result<Caller, Error> {
    let known = list_accounts(app)?.iter().any(|one| one.id == account);
    if !known {
        return Err(bad_request(format!("no such account: {account}")).into());
    }
    super::authorize::caller_with_key(app, &KeyId::master(account))
}

/// Proof that somebody may administer the server: made from the first account's master key, or by
/// whoever has the data folder open.
pub(crate) struct Operator(());

impl Operator {
    /// For the process that holds the data folder.
    pub(crate) fn of_data_folder() -> Self {
        Self(())
    }

    /// Checks the first account's master application key.
    pub(crate) fn with_key(app: &App, key_id: &str, secret: &str) -> Result<Self, Error> {
        let authorized = super::authorize::authorize_account(app, key_id, secret, 4)?;
        let key = &authorized.caller.key;
        if key.is_master && key.account == first_account(app)? {
            Ok(Self(()))
        } else {
            Err(bad_auth_token().into())
        }
    }
}
