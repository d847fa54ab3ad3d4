//! Tokens: stateless proofs with a kind, a key, an end and a scope, signed with a secret of their
//! kind.
//!
//! Shape: `4_<key id>_<end, hex ms>_<16 hex digits>_<kind>_<40 hex digits of HMAC-SHA256>`, then
//! `_` and the scope in base64url when there is one. Header- and URL-safe, never a `)`, which b2sdk
//! could not read. Any server process that has the secrets can check them.

use std::sync::{PoisonError, RwLock};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::domain::ids::KeyId;
use crate::domain::refusal::{Refusal, bad_auth_token, expired_auth_token};
use crate::domain::time::Millis;
use crate::entropy::{self, Entropy};

/// What a token is good for. Each kind is signed with a secret of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    Account,
    Upload,
    UploadPart,
    Download,
}

impl TokenKind {
    pub(crate) const ALL: [Self; 4] =
        [Self::Account, Self::Upload, Self::UploadPart, Self::Download];

    /// The name inside the token.
    pub(crate) fn tag(self) -> &'static str {
        match self {
            Self::Account => "acct",
            Self::Upload => "upld",
            Self::UploadPart => "part",
            Self::Download => "dnld",
        }
    }

    /// The fact of the catalog that keeps the sealed signing key of the kind.
    pub(crate) fn fact_name(self) -> String {
        format!("token_key.{}", self.tag())
    }
}

/// How long account and upload tokens live (documented: 24 hours).
pub(crate) const TOKEN_LIFE_MS: i64 = 24 * 60 * 60 * 1000;
const MAC_BYTES: usize = 20;

/// What a genuine token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claims {
    pub(crate) key: KeyId,
    pub(crate) expires_at: Millis,
    /// Makes each token different; 16 hex digits.
    pub(crate) nonce: String,
    /// The scope in the form its kind gives it; empty for account tokens.
    pub(crate) scope: Vec<u8>,
}

/// One secret for each kind.
type Secrets = [(TokenKind, hmac::Key); 4];

/// Draws the secret of a kind of tokens; its memory is wiped when dropped.
pub(crate) fn draw_secret(entropy: &dyn Entropy) -> Zeroizing<Vec<u8>> {
    let mut secret = Zeroizing::new(vec![0; 32]);
    entropy.fill(&mut secret);
    secret
}

/// The secrets that tokens are signed with.
pub(crate) struct Tokens(RwLock<Secrets>);

impl Tokens {
    /// `secret_of` answers the secret of each kind, 32 random bytes.
    pub(crate) fn new<E>(
        mut secret_of: impl FnMut(TokenKind) -> Result<Zeroizing<Vec<u8>>, E>,
    ) -> Result<Self, E> {
        let [account, upload, part, download] = TokenKind::ALL;
        let mut signer = |kind| Ok((kind, hmac::Key::new(hmac::HMAC_SHA256, &secret_of(kind)?)));
        Ok(Self(RwLock::new([signer(account)?, signer(upload)?, signer(part)?, signer(download)?])))
    }

    /// Goes on with other secrets: every token of before is nobody's.
    pub(crate) fn replace(&self, fresh: Self) {
        let fresh = fresh.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = fresh;
    }

    fn mac(&self, kind: TokenKind, head: &str, scope: &str) -> [u8; MAC_BYTES] {
        let mut mac = [0; MAC_BYTES];
        let secrets = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, secret)) = secrets.iter().find(|(of, _)| *of == kind) {
            let mut signing = hmac::Context::with_key(secret);
            for part in [head, "_", scope] {
                signing.update(part.as_bytes());
            }
            let tag = signing.sign();
            mac.copy_from_slice(tag.as_ref().get(..MAC_BYTES).unwrap_or(&[0; MAC_BYTES]));
        }
        mac
    }

    pub(crate) fn issue(
        &self,
        kind: TokenKind,
        key: &KeyId,
        expires_at: Millis,
        scope: &[u8],
        entropy: &dyn Entropy,
    ) -> String {
        let nonce = hex::encode(entropy::bytes::<8>(entropy));
        let head = format!("4_{key}_{:x}_{nonce}_{}", expires_at.0, kind.tag());
        let scope = URL_SAFE_NO_PAD.encode(scope);
        let mac = hex::encode(self.mac(kind, &head, &scope));
        if scope.is_empty() { format!("{head}_{mac}") } else { format!("{head}_{mac}_{scope}") }
    }

    /// Reads a token of `kind`. Anything that this server did not sign as such is
    /// `bad_auth_token`; a genuine one past its end is `expired_auth_token`.
    pub(crate) fn check(
        &self,
        kind: TokenKind,
        token: &str,
        now: Millis,
    ) -> Result<Claims, Refusal> {
        let claims = self.read(kind, token).ok_or_else(bad_auth_token)?;
        if claims.expires_at <= now {
            return Err(expired_auth_token());
        }
        Ok(claims)
    }

    fn read(&self, kind: TokenKind, token: &str) -> Option<Claims> {
        let mut fields = token.splitn(7, '_');
        let (version, key) = (fields.next()?, fields.next()?);
        let (expires, nonce) = (fields.next()?, fields.next()?);
        let (tag, mac) = (fields.next()?, fields.next()?);
        let scope = fields.next();
        if scope == Some("") {
            return None;
        }
        let scope = scope.unwrap_or_default();
        let lower = mac.bytes().all(|b| !b.is_ascii_uppercase());
        if !lower || version != "4" || tag != kind.tag() {
            return None;
        }
        // Everything before the MAC, with the four lines between its five fields.
        let head = [version, key, expires, nonce, tag].map(str::len).iter().sum::<usize>() + 4;
        let head = token.get(..head)?;
        let mut given = [0_u8; MAC_BYTES];
        hex::decode_to_slice(mac, &mut given).ok()?;
        verify_slices_are_equal(&given, &self.mac(kind, head, scope)).ok()?;
        Some(Claims {
            key: KeyId::named(key),
            expires_at: Millis(i64::from_str_radix(expires, 16).ok()?),
            nonce: nonce.to_owned(),
            scope: URL_SAFE_NO_PAD.decode(scope).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::refusal::Code;
    use crate::entropy::SeededEntropy;

    fn tokens() -> Tokens {
        Tokens::new(|kind| Ok::<_, ()>(vec![kind.tag().as_bytes()[0]; 32].into()))
            .expect("infallible")
    }

    fn issue(kind: TokenKind, scope: &[u8]) -> String {
        let key = KeyId::named("000d2e6b27577ea0000000001");
        tokens().issue(kind, &key, Millis(1000), scope, &SeededEntropy::new(3))
    }

    #[test]
    fn a_token_is_good_until_its_end_and_for_its_kind_only() {
        let token = issue(TokenKind::Upload, b"scope");
        let claims = tokens().check(TokenKind::Upload, &token, Millis(999)).expect("genuine");
        assert_eq!(claims.scope, b"scope");
        assert_eq!(claims.key.as_str(), "000d2e6b27577ea0000000001");
        let code = |kind, now| tokens().check(kind, &token, Millis(now)).map_err(|r| r.code);
        assert_eq!(code(TokenKind::Upload, 1000), Err(Code::ExpiredAuthToken));
        assert_eq!(code(TokenKind::Account, 1), Err(Code::BadAuthToken));
        assert_eq!(code(TokenKind::Download, 1), Err(Code::BadAuthToken));
    }

    #[test]
    fn with_other_secrets_the_tokens_of_before_are_dead() {
        let tokens = tokens();
        let token = issue(TokenKind::Account, b"");
        assert!(tokens.check(TokenKind::Account, &token, Millis(1)).is_ok());
        tokens.replace(Tokens::new(|_| Ok::<_, ()>(vec![9; 32].into())).expect("infallible"));
        let code = tokens.check(TokenKind::Account, &token, Millis(1)).map_err(|r| r.code);
        assert_eq!(code, Err(Code::BadAuthToken));
    }

    #[test]
    fn reliability_a16_a18_an_altered_token_is_refused() {
        for token in [issue(TokenKind::Account, b""), issue(TokenKind::Download, b"{\"a\":1}")] {
            let kind =
                if token.contains("acct") { TokenKind::Account } else { TokenKind::Download };
            assert!(tokens().check(kind, &token, Millis(1)).is_ok());
            assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'));
            for at in 0..token.len() {
                let mut bytes = token.clone().into_bytes();
                bytes[at] ^= 1;
                let altered = String::from_utf8_lossy(&bytes).into_owned();
                assert!(tokens().check(kind, &altered, Millis(1)).is_err(), "byte {at}");
            }
            for altered in [
                token.to_uppercase(),
                format!("{token} "),
                format!("{token}_"),
                format!("{token}{token}"),
                format!(" {token}"),
                token.chars().skip(1).collect(),
                String::new(),
            ] {
                assert!(tokens().check(kind, &altered, Millis(1)).is_err(), "{altered}");
            }
        }
    }
}
