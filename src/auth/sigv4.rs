//! Signatures of S3 requests (AWS Signature Version 4): of those that come in, which are checked, and
//! of our own to other stores, which a [`Signer`] signs.
//!
//! A request is taken apart into a [`Claim`]: who says to have signed it, when, and what of it.
//! Then the claim is verified with the secret of that key. Keys are derived and signatures computed
//! by the `aws-sigv4` crate; the form of the request that is signed is built here, because a checker
//! may only look at what the signer says to have signed, and must take the request as it came.
//!
//! A signer and we must read an address alike, or a signed request could be changed into another
//! one. So escapes are compared by what they stand for: `+` is itself in a path and a space in a
//! query. Whoever reads the address after us has to read it so.
//!
//! Not here: keys and clocks, which are handed in. The promise that would break first: whatever of
//! a request changes what it does, its signature covers.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use aws_sigv4::sign::v4::{calculate_signature, generate_signing_key};
use zeroize::Zeroizing;

use crate::auth::sealing::secrets_match;
use crate::domain::digest::{Sha256Digest, sha256_of};
use crate::domain::key::Secret;
use crate::domain::time::Millis;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const SERVICE: &str = "s3";
const TERMINATOR: &str = "aws4_request";

/// How far the clock of a signer may be from ours (as AWS has it).
pub(crate) const SKEW_MS_MAX: i64 = 15 * 60 * 1000;
/// The longest life of a signed address: a week (as AWS has it).
const EXPIRES_S_MAX: i64 = 604_800;
/// The longest proof that is read, in bytes (ours).
const PROOF_BYTES_MAX: usize = 16 * 1024;

const DATE: &str = "x-amz-date";
const PAYLOAD: &str = "x-amz-content-sha256";
const TOKEN: &str = "x-amz-security-token";

/// What of a request can be signed, as it came.
#[derive(Clone, Copy)]
pub(crate) struct Request<'r> {
    pub(crate) method: &'r str,
    /// Still encoded.
    pub(crate) path: &'r str,
    /// Still encoded, without its question mark.
    pub(crate) query: &'r str,
    /// In the order of arrival, names in lower case.
    pub(crate) headers: &'r [(&'r str, &'r [u8])],
}

impl<'r> Request<'r> {
    fn values<'n>(&self, name: &'n str) -> impl Iterator<Item = &'r [u8]> + use<'r, 'n> {
        let headers = self.headers.iter();
        headers.filter(move |(known, _)| *known == name).map(|(_, value)| *value)
    }

    /// The only header of this name.
    fn one(&self, name: &str) -> Result<Option<&'r [u8]>, BadSignature> {
        let mut values = self.values(name);
        let first = values.next();
        if values.next().is_some() { Err(BadSignature::Ambiguous) } else { Ok(first) }
    }
}

/// What the checker goes by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules<'r> {
    pub(crate) now: Millis,
    pub(crate) region: &'r str,
    /// Take the region that the signer names, whatever it is.
    pub(crate) any_region: bool,
}

/// Where a proof stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Header,
    /// The address: it was signed in advance, to be handed on.
    Query,
}

/// Why a request is not taken as signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadSignature {
    #[error("more than one proof")]
    Ambiguous,
    #[error("the address and the Host header name different hosts")]
    TwoHosts,
    #[error("not Signature Version 4")]
    OtherMechanism,
    /// `what` says what is wrong, after "the authorization is malformed;".
    #[error("malformed: {what}")]
    Malformed { place: Place, what: &'static str },
    #[error("signed for the region {given}")]
    WrongRegion { place: Place, given: String, wanted: String },
    #[error("a signed address must live between 1 and {EXPIRES_S_MAX} seconds")]
    ExpiresOutOfRange,
    #[error("no {PAYLOAD} header")]
    NoPayloadHash,
    #[error("unknown {PAYLOAD}")]
    UnknownPayloadHash,
    #[error("bodies in chunks cannot be sent to an address that was signed in advance")]
    ChunksToSignedAddress,
    #[error("no date")]
    NoDate,
    #[error("signed at {at:?}, it is {now:?}")]
    TooSkewed { at: Millis, now: Millis },
    #[error("not valid before {at:?}")]
    NotYet { at: Millis, now: Millis },
    #[error("expired at {end:?}")]
    Expired { end: Millis, life_s: i64, now: Millis },
    /// Carries the name of the header.
    #[error("{0} is not signed")]
    NotSigned(String),
    #[error("temporary credentials are not known")]
    SecurityToken,
    #[error("the signature is another one")]
    Mismatch,
}

/// What the signer says of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PayloadHash {
    Unsigned,
    Is(Sha256Digest),
    /// It comes in chunks; `signed` ones each have a signature, and headers may follow the last.
    Chunks {
        signed: bool,
        trailer: bool,
    },
}

impl PayloadHash {
    fn parse(text: &[u8]) -> Result<Self, BadSignature> {
        Ok(match text {
            b"UNSIGNED-PAYLOAD" => Self::Unsigned,
            b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD" => Self::Chunks { signed: true, trailer: false },
            b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER" => {
                Self::Chunks { signed: true, trailer: true }
            }
            b"STREAMING-UNSIGNED-PAYLOAD-TRAILER" => Self::Chunks { signed: false, trailer: true },
            digits => {
                let digits = std::str::from_utf8(digits).ok();
                let digest = digits.and_then(Sha256Digest::parse);
                Self::Is(digest.ok_or(BadSignature::UnknownPayloadHash)?)
            }
        })
    }
}

/// Who says to have signed a request, when and what.
#[derive(Clone)]
pub(crate) struct Claim {
    pub(crate) key: String,
    pub(crate) region: String,
    pub(crate) payload: PayloadHash,
    /// The payload hash as it was signed.
    payload_text: Vec<u8>,
    /// The moment of the signature, `YYYYMMDDTHHMMSSZ`.
    timestamp: String,
    /// `YYYYMMDD/region/s3/aws4_request`.
    scope: String,
    /// The beginning of the day in the scope.
    day: Millis,
    signed_headers: String,
    signature: String,
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the signature: whoever reads the log could send the request again.
        f.debug_struct("Claim").field("key", &self.key).finish_non_exhaustive()
    }
}

/// What a proof consists of, wherever it stands.
struct Proof {
    place: Place,
    credential: String,
    signed_headers: String,
    signature: String,
}

/// Reads who signed a request; None when nobody says so.
pub(crate) fn read_claim(
    request: &Request<'_>,
    rules: &Rules<'_>,
) -> Result<Option<Claim>, BadSignature> {
    let header = request.one("authorization")?;
    let parameters = Parameters::of(request.query);
    match (header, parameters.has_proof()) {
        (Some(_), true) => Err(BadSignature::Ambiguous),
        (Some(header), false) => from_header(request, rules, header).map(Some),
        (None, true) => from_address(request, rules, &parameters).map(Some),
        (None, false) if parameters.has_old_proof() => Err(BadSignature::OtherMechanism),
        (None, false) => Ok(None),
    }
}

fn from_header(
    request: &Request<'_>,
    rules: &Rules<'_>,
    header: &[u8],
) -> Result<Claim, BadSignature> {
    let proof = parse_header(header)?;
    let (at, timestamp) = match request.one(DATE)? {
        Some(date) => moment(date).ok_or(BadSignature::NoDate)?,
        None => match request.one("date")? {
            Some(date) => http_moment(date).or_else(|| moment(date)).ok_or(BadSignature::NoDate)?,
            None => return Err(BadSignature::NoDate),
        },
    };
    let payload = request.one(PAYLOAD)?.ok_or(BadSignature::NoPayloadHash)?;
    let claim = claim(proof, timestamp, at, payload, rules)?;
    if (rules.now.0 - at.0).abs() > SKEW_MS_MAX {
        return Err(BadSignature::TooSkewed { at, now: rules.now });
    }
    check_coverage(request, &claim.signed_headers)?;
    Ok(claim)
}

/// Reads `AWS4-HMAC-SHA256 Credential=..., SignedHeaders=..., Signature=...`.
fn parse_header(header: &[u8]) -> Result<Proof, BadSignature> {
    let place = Place::Header;
    let malformed = |what| BadSignature::Malformed { place, what };
    if header.len() > PROOF_BYTES_MAX {
        return Err(malformed("it is too long"));
    }
    let header = std::str::from_utf8(header).map_err(|_| malformed("it is not text"))?.trim();
    let (algorithm, rest) = header.split_once(' ').unwrap_or((header, ""));
    if algorithm.is_empty() {
        return Err(malformed("it is empty"));
    }
    if algorithm != ALGORITHM {
        return Err(BadSignature::OtherMechanism);
    }
    let (mut credential, mut signed_headers, mut signature) = (None, None, None);
    for field in rest.split(',') {
        let (name, value) =
            field.trim().split_once('=').ok_or(malformed("a field has no value"))?;
        let known = match name {
            "Credential" => &mut credential,
            "SignedHeaders" => &mut signed_headers,
            "Signature" => &mut signature,
            _ => return Err(malformed("it has an unknown field")),
        };
        if known.replace(value.to_owned()).is_some() {
            return Err(malformed("a field is there twice"));
        }
    }
    Ok(Proof {
        place,
        credential: credential.ok_or(malformed("Credential is missing"))?,
        signed_headers: signed_headers.ok_or(malformed("SignedHeaders is missing"))?,
        signature: signature.ok_or(malformed("Signature is missing"))?,
    })
}

fn from_address(
    request: &Request<'_>,
    rules: &Rules<'_>,
    parameters: &Parameters<'_>,
) -> Result<Claim, BadSignature> {
    let place = Place::Query;
    let malformed = |what| BadSignature::Malformed { place, what };
    let one = |name| {
        let value = parameters.one(name)?;
        value.ok_or(malformed("a parameter of the signature is missing"))
    };
    if parameters.one(TOKEN)?.is_some() {
        return Err(BadSignature::SecurityToken);
    }
    if one("x-amz-algorithm")? != ALGORITHM {
        return Err(BadSignature::OtherMechanism);
    }
    let proof = Proof {
        place,
        credential: one("x-amz-credential")?,
        signed_headers: one("x-amz-signedheaders")?,
        signature: one("x-amz-signature")?,
    };
    let date = one(DATE)?;
    let (at, timestamp) = moment(date.as_bytes()).ok_or(malformed("X-Amz-Date is not a moment"))?;
    let life_s = one("x-amz-expires")?;
    let digits = life_s.bytes().all(|byte| byte.is_ascii_digit());
    let life_s = life_s.parse().ok().filter(|s| digits && (1..=EXPIRES_S_MAX).contains(s));
    let life_s = life_s.ok_or(BadSignature::ExpiresOutOfRange)?;
    let payload = match request.one(PAYLOAD)? {
        Some(value) => value.to_vec(),
        None => match parameters.one(PAYLOAD)? {
            Some(value) => value.into_bytes(),
            None => b"UNSIGNED-PAYLOAD".to_vec(),
        },
    };
    let claim = claim(proof, timestamp, at, &payload, rules)?;
    if matches!(claim.payload, PayloadHash::Chunks { .. }) {
        return Err(BadSignature::ChunksToSignedAddress);
    }
    if rules.now < at.plus(-SKEW_MS_MAX) {
        return Err(BadSignature::NotYet { at, now: rules.now });
    }
    let end = at.plus(life_s * 1000);
    if rules.now > end {
        return Err(BadSignature::Expired { end, life_s, now: rules.now });
    }
    check_coverage(request, &claim.signed_headers)?;
    Ok(claim)
}

/// Puts a claim together and checks what it is limited to.
fn claim(
    proof: Proof,
    timestamp: String,
    at: Millis,
    payload: &[u8],
    rules: &Rules<'_>,
) -> Result<Claim, BadSignature> {
    let Proof { place, credential, signed_headers, signature } = proof;
    let malformed = |what| BadSignature::Malformed { place, what };
    let mut parts = credential.rsplitn(5, '/');
    let mut next = || parts.next().ok_or(malformed("the credential has not five parts"));
    let (terminator, service, region, day, key) = (next()?, next()?, next()?, next()?, next()?);
    if terminator != TERMINATOR {
        return Err(malformed("the credential must end with \"aws4_request\""));
    }
    if service != SERVICE {
        return Err(malformed("the service must be \"s3\""));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if region.is_empty() || region.len() > 63 || !region.bytes().all(plain) {
        return Err(malformed("the region is not one"));
    }
    if region != rules.region && !rules.any_region {
        let (given, wanted) = (region.to_owned(), rules.region.to_owned());
        return Err(BadSignature::WrongRegion { place, given, wanted });
    }
    let day_is_right =
        timestamp.split_once('T').is_some_and(|(of_signature, _)| of_signature == day);
    if !day_is_right {
        return Err(malformed("the day of the credential is not that of the signature"));
    }
    if signed_headers.len() > PROOF_BYTES_MAX {
        return Err(malformed("too many headers are signed"));
    }
    let names: Vec<&str> = signed_headers.split(';').collect();
    let in_order = names.iter().zip(names.iter().skip(1)).all(|(one, next)| one < next);
    let is_name = |name: &&str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase())
    };
    if !in_order || !names.iter().all(is_name) {
        return Err(malformed("SignedHeaders must be sorted names in lower case"));
    }
    Ok(Claim {
        key: key.to_owned(),
        region: region.to_owned(),
        payload: PayloadHash::parse(payload)?,
        payload_text: payload.to_vec(),
        scope: format!("{day}/{region}/{SERVICE}/{TERMINATOR}"),
        day: Millis(at.0 - at.0.rem_euclid(crate::domain::time::DAY_MS)),
        timestamp,
        signed_headers,
        signature,
    })
}

/// Refuses a request with a header that matters and is not signed, and one without a header that is
/// signed.
fn check_coverage(request: &Request<'_>, signed_headers: &str) -> Result<(), BadSignature> {
    let is_signed = |name: &str| signed_headers.split(';').any(|signed| signed == name);
    let amz = request.headers.iter().map(|(name, _)| *name).filter(|n| n.starts_with("x-amz-"));
    for name in std::iter::once("host").chain(amz) {
        if name == TOKEN {
            return Err(BadSignature::SecurityToken);
        }
        if !is_signed(name) {
            return Err(BadSignature::NotSigned(name.to_owned()));
        }
    }
    let is_there = |name: &str| request.values(name).next().is_some();
    if signed_headers.split(';').all(is_there) { Ok(()) } else { Err(BadSignature::Mismatch) }
}

/// Reads `YYYYMMDDTHHMMSSZ`.
fn moment(text: &[u8]) -> Option<(Millis, String)> {
    let text = std::str::from_utf8(text).ok()?;
    let (day, time) = text.strip_suffix('Z')?.split_once('T')?;
    let digits =
        |text: &str, count| text.len() == count && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(day, 8) || !digits(time, 6) {
        return None;
    }
    Some((Millis::from_digits(day, time)?, text.to_owned()))
}

fn http_moment(text: &[u8]) -> Option<(Millis, String)> {
    let text = std::str::from_utf8(text).ok()?;
    // botocore writes the zone as mail does.
    let text = match text.strip_suffix(" -0000").or_else(|| text.strip_suffix(" +0000")) {
        Some(text) => Cow::Owned(format!("{text} GMT")),
        None => Cow::Borrowed(text),
    };
    let at = Millis::from_http_date(&text)?;
    Some((at, at.compact()))
}

/// Proof that a request is signed; signs the chunks of its body on.
pub(crate) struct Verified {
    chunks: Option<ChunkSigner>,
}

impl Verified {
    /// What the signatures of chunks go on from; None when chunks are not signed.
    pub(crate) fn into_chunks(self) -> Option<ChunkSigner> {
        self.chunks
    }
}

impl Claim {
    /// Compares the signature with the one that the secret makes.
    pub(crate) fn verify(
        &self,
        request: &Request<'_>,
        secret: &str,
    ) -> Result<Verified, BadSignature> {
        let day = Duration::from_millis(u64::try_from(self.day.0).unwrap_or_default());
        let derived = generate_signing_key(secret, UNIX_EPOCH + day, &self.region, SERVICE);
        let key = Zeroizing::new(derived.as_ref().to_vec());
        let headers = canonical_headers(request, &self.signed_headers);
        let fits = |form: &[u8]| {
            let signature = signature_of(&key, &self.timestamp, &self.scope, form);
            secrets_match(self.signature.as_bytes(), signature.as_bytes())
        };
        let paths = forms(canonical_path(request.path), raw_path(request.path));
        let queries = forms(canonical_query(request.query), raw_query(request.query));
        let is_right = paths.iter().any(|path| {
            queries.iter().any(|query| {
                let parts: [&[u8]; 6] = [
                    request.method.as_bytes(),
                    path,
                    query,
                    &headers,
                    self.signed_headers.as_bytes(),
                    &self.payload_text,
                ];
                fits(&parts.join(&b'\n'))
            })
        });
        if !is_right {
            return Err(BadSignature::Mismatch);
        }
        let chunks = matches!(self.payload, PayloadHash::Chunks { signed: true, .. });
        let chunks = chunks.then(|| ChunkSigner {
            key,
            timestamp: self.timestamp.clone(),
            scope: self.scope.clone(),
            previous: self.signature.clone(),
        });
        Ok(Verified { chunks })
    }
}

/// The signature of a request in its canonical form.
fn signature_of(key: &[u8], timestamp: &str, scope: &str, form: &[u8]) -> String {
    let hash = sha256_of(std::iter::once(form));
    calculate_signature(key, format!("{ALGORITHM}\n{timestamp}\n{scope}\n{hash}").as_bytes())
}

/// Who signs a request of ours, and for which region.
#[derive(Clone, Copy)]
pub(crate) struct Signer<'s> {
    pub(crate) key_id: &'s str,
    pub(crate) secret: &'s Secret,
    /// Comes with credentials that are good for a while only.
    pub(crate) session: Option<&'s Secret>,
    pub(crate) region: &'s str,
}

impl Signer<'_> {
    /// The headers that are to be added to a request, `authorization` among them. `request` must have
    /// the header `host`, and must name no header twice; all that it has are signed. `payload` is the
    /// SHA-256 of the body in hex digits, or says that the body is not signed.
    pub(crate) fn sign(
        &self,
        request: &Request<'_>,
        payload: &str,
        at: Millis,
    ) -> Vec<(&'static str, String)> {
        let timestamp = at.compact();
        let mut added = vec![(DATE, timestamp.clone()), (PAYLOAD, payload.to_owned())];
        if let Some(session) = self.session {
            added.push((TOKEN, session.expose().to_owned()));
        }
        let with_added: Vec<(&str, &[u8])> = request
            .headers
            .iter()
            .copied()
            .chain(added.iter().map(|(name, value)| (*name, value.as_bytes())))
            .collect();
        let mut names: Vec<&str> = with_added.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        let signed_headers = names.join(";");
        let request = Request { headers: &with_added, ..*request };
        let parts: [&[u8]; 6] = [
            request.method.as_bytes(),
            &canonical_path(request.path).unwrap_or_else(|| raw_path(request.path)),
            &canonical_query(request.query).unwrap_or_else(|| raw_query(request.query)),
            &canonical_headers(&request, &signed_headers),
            signed_headers.as_bytes(),
            payload.as_bytes(),
        ];
        let scope = format!("{}/{}/{SERVICE}/{TERMINATOR}", at.day_digits(), self.region);
        let moment = UNIX_EPOCH + Duration::from_millis(u64::try_from(at.0).unwrap_or_default());
        let derived = generate_signing_key(self.secret.expose(), moment, self.region, SERVICE);
        let key = Zeroizing::new(derived.as_ref().to_vec());
        let signature = signature_of(&key, &timestamp, &scope, &parts.join(&b'\n'));
        let proof = format!(
            "{ALGORITHM} Credential={}/{scope}, SignedHeaders={signed_headers}, \
             Signature={signature}",
            self.key_id
        );
        added.push(("authorization", proof));
        added
    }
}

/// Encodes a part of an address as signers do, so that it is signed as it is sent.
pub(crate) fn encode(text: &str, slash_stays: bool) -> String {
    let mut encoded = Vec::with_capacity(text.len());
    encode_into(&mut encoded, text.as_bytes(), slash_stays);
    encoded.into_iter().map(char::from).collect()
}

/// The forms of a part of the address that may have been signed, each once.
fn forms(written_anew: Option<Vec<u8>>, raw: Vec<u8>) -> Vec<Vec<u8>> {
    let mut forms: Vec<Vec<u8>> = written_anew.into_iter().collect();
    if !forms.contains(&raw) {
        forms.push(raw);
    }
    forms
}

/// Checks the signatures of the chunks of a body; each goes on from the one before.
pub(crate) struct ChunkSigner {
    key: Zeroizing<Vec<u8>>,
    timestamp: String,
    scope: String,
    previous: String,
}

impl fmt::Debug for ChunkSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChunkSigner(..)")
    }
}

impl ChunkSigner {
    /// Goes on from a signature as if a request had it.
    #[cfg(test)]
    pub(crate) fn for_tests(secret: &str, at: Millis, region: &str, previous: &str) -> Self {
        let moment = UNIX_EPOCH + Duration::from_millis(u64::try_from(at.0).unwrap_or_default());
        let key = generate_signing_key(secret, moment, region, SERVICE).as_ref().to_vec();
        let day = at.day_digits();
        Self {
            key: Zeroizing::new(key),
            timestamp: at.compact(),
            scope: format!("{day}/{region}/{SERVICE}/{TERMINATOR}"),
            previous: previous.to_owned(),
        }
    }

    /// The signature that the next chunk, of this content, must have; it then has it.
    #[cfg(test)]
    pub(crate) fn sign_chunk(&mut self, content: &[u8]) -> String {
        self.fits_chunk(sha256_of(std::iter::once(content)), b"");
        self.previous.clone()
    }

    /// The signature that these lines of headers must have.
    #[cfg(test)]
    pub(crate) fn sign_trailer(&mut self, lines: &[u8]) -> String {
        self.fits_trailer(sha256_of(std::iter::once(lines)), b"");
        self.previous.clone()
    }

    /// Whether this is the signature of the next chunk.
    pub(crate) fn fits_chunk(&mut self, content: Sha256Digest, signature: &[u8]) -> bool {
        let nothing = sha256_of(std::iter::empty());
        self.fits("AWS4-HMAC-SHA256-PAYLOAD", &format!("{nothing}\n{content}"), signature)
    }

    /// Whether this is the signature of the headers that follow the last chunk.
    pub(crate) fn fits_trailer(&mut self, headers: Sha256Digest, signature: &[u8]) -> bool {
        self.fits("AWS4-HMAC-SHA256-TRAILER", &headers.to_string(), signature)
    }

    fn fits(&mut self, algorithm: &str, hashes: &str, signature: &[u8]) -> bool {
        let Self { key, timestamp, scope, previous } = self;
        let text = format!("{algorithm}\n{timestamp}\n{scope}\n{previous}\n{hashes}");
        let right = calculate_signature(&**key, text.as_bytes());
        let fits = secrets_match(signature, right.as_bytes());
        self.previous = right;
        fits
    }
}

/// The parameters of a query, still encoded.
struct Parameters<'q>(Vec<(&'q str, &'q str)>);

impl<'q> Parameters<'q> {
    fn of(query: &'q str) -> Self {
        Self(pairs(query).collect())
    }

    /// Every spelling counts: what another reader might take as a proof must not pass as none.
    fn named<'n>(&self, name: &'n str) -> impl Iterator<Item = &'q str> + use<'_, 'q, 'n> {
        let is_it = move |encoded: &str| {
            decoded(encoded, true).is_some_and(|known| known.eq_ignore_ascii_case(name.as_bytes()))
        };
        self.0.iter().filter(move |(known, _)| is_it(known)).map(|(_, value)| *value)
    }

    fn has(&self, name: &str) -> bool {
        self.named(name).next().is_some()
    }

    fn has_proof(&self) -> bool {
        let names =
            ["x-amz-algorithm", "x-amz-credential", "x-amz-signature", "x-amz-signedheaders"];
        names.iter().any(|name| self.has(name))
    }

    /// Whether there is a proof of Signature Version 2.
    fn has_old_proof(&self) -> bool {
        self.has("awsaccesskeyid") || self.has("signature")
    }

    /// The value of the only parameter of this name, decoded.
    fn one(&self, name: &str) -> Result<Option<String>, BadSignature> {
        let mut values = self.named(name);
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(BadSignature::Ambiguous);
        }
        let text = decoded(value, true).and_then(|bytes| String::from_utf8(bytes).ok());
        let what = "a parameter of the signature cannot be read";
        text.map(Some).ok_or(BadSignature::Malformed { place: Place::Query, what })
    }
}

fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    let parts = query.split('&').filter(|part| !part.is_empty());
    parts.map(|part| part.split_once('=').unwrap_or((part, "")))
}

/// Decodes escapes; None when one is broken.
fn decoded(text: &str, plus_is_space: bool) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'%' => {
                let mut byte = [0_u8];
                hex::decode_to_slice(after.get(..2)?, &mut byte).ok()?;
                bytes.extend_from_slice(&byte);
                rest = after.get(2..)?;
            }
            b'+' if plus_is_space => bytes.push(b' '),
            other => bytes.push(other),
        }
    }
    Some(bytes)
}

/// Encodes as signers do: everything but letters, digits and `-_.~`, with upper-case digits.
fn encode_into(encoded: &mut Vec<u8>, bytes: &[u8], slash_stays: bool) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0');
    for &byte in bytes {
        let plain = byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
        if plain || (byte == b'/' && slash_stays) {
            encoded.push(byte);
        } else {
            encoded.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

fn raw_path(path: &str) -> Vec<u8> {
    if path.is_empty() { b"/".to_vec() } else { path.as_bytes().to_vec() }
}

/// The form of a path that signers sign; None when an escape is broken.
pub(crate) fn canonical_path(path: &str) -> Option<Vec<u8>> {
    let decoded = decoded(path, false)?;
    if decoded.is_empty() {
        return Some(b"/".to_vec());
    }
    let mut encoded = Vec::with_capacity(decoded.len());
    encode_into(&mut encoded, &decoded, true);
    Some(encoded)
}

/// The form of a query that signers sign, without the signature; None when an escape is broken.
pub(crate) fn canonical_query(query: &str) -> Option<Vec<u8>> {
    let mut encoded: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for (name, value) in pairs(query) {
        let name = decoded(name, true)?;
        if name.eq_ignore_ascii_case(b"x-amz-signature") {
            continue;
        }
        let mut pair = (Vec::with_capacity(name.len()), Vec::with_capacity(value.len()));
        encode_into(&mut pair.0, &name, false);
        encode_into(&mut pair.1, &decoded(value, true)?, false);
        encoded.push(pair);
    }
    encoded.sort();
    Some(joined(encoded.iter().map(|(name, value)| (name.as_slice(), value.as_slice()))))
}

/// The query as it came, sorted: some signers sign what they send instead of what it stands for.
fn raw_query(query: &str) -> Vec<u8> {
    let mut raw: Vec<(&str, &str)> =
        pairs(query).filter(|(name, _)| !name.eq_ignore_ascii_case("x-amz-signature")).collect();
    raw.sort_unstable();
    joined(raw.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
}

fn joined<'p>(pairs: impl Iterator<Item = (&'p [u8], &'p [u8])>) -> Vec<u8> {
    let mut text = Vec::new();
    for (name, value) in pairs {
        if !text.is_empty() {
            text.push(b'&');
        }
        text.extend_from_slice(name);
        text.push(b'=');
        text.extend_from_slice(value);
    }
    text
}

/// A line for each signed header, and an empty one.
fn canonical_headers(request: &Request<'_>, signed_headers: &str) -> Vec<u8> {
    let mut text = Vec::new();
    for name in signed_headers.split(';') {
        text.extend_from_slice(name.as_bytes());
        text.push(b':');
        for (at, value) in request.values(name).enumerate() {
            if at > 0 {
                text.push(b',');
            }
            push_collapsed(&mut text, value);
        }
        text.push(b'\n');
    }
    text
}

/// Without blanks around it, and with one blank in the place of several.
fn push_collapsed(text: &mut Vec<u8>, value: &[u8]) {
    let mut last = b' ';
    for &byte in value.trim_ascii() {
        if byte != b' ' || last != b' ' {
            text.push(byte);
        }
        last = byte;
    }
}

#[cfg(test)]
mod tests {
    use aws_credential_types::Credentials;
    use aws_sigv4::http_request::{
        PayloadChecksumKind, PercentEncodingMode, SessionTokenMode, SignableBody, SignableRequest,
        SignatureLocation, SigningSettings, UriPathNormalizationMode, sign,
    };
    use aws_sigv4::sign::v4;
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "0000123456789ab0000000001";
    const SECRET: &str = "K000secretofthekeyofthetests123";
    const REGION: &str = "us-west-000";
    /// 2026-01-02T03:04:05Z
    const NOW: Millis = Millis(1_767_323_045_000);
    const DATE_TEXT: &str = "20260102T030405Z";
    const HOST: &str = "s3.us-west-000.localhost:9700";

    fn rules() -> Rules<'static> {
        Rules { now: NOW, region: REGION, any_region: false }
    }

    /// A request with a life of its own.
    #[derive(Clone, Debug)]
    struct Owned {
        method: String,
        path: String,
        query: String,
        headers: Vec<(String, Vec<u8>)>,
    }

    impl Owned {
        fn new(method: &str, path: &str, query: &str, headers: &[(&str, &str)]) -> Self {
            let mut all = vec![
                ("host".to_owned(), HOST.as_bytes().to_vec()),
                (DATE.to_owned(), DATE_TEXT.as_bytes().to_vec()),
                (PAYLOAD.to_owned(), b"UNSIGNED-PAYLOAD".to_vec()),
            ];
            for (name, value) in headers {
                all.retain(|(known, _)| known != name);
                all.push(((*name).to_owned(), value.as_bytes().to_vec()));
            }
            let (method, path, query) = (method.to_owned(), path.to_owned(), query.to_owned());
            Self { method, path, query, headers: all }
        }

        fn with<T>(&self, look: impl FnOnce(&Request<'_>) -> T) -> T {
            let headers: Vec<(&str, &[u8])> =
                self.headers.iter().map(|(n, v)| (n.as_str(), v.as_slice())).collect();
            look(&Request {
                method: &self.method,
                path: &self.path,
                query: &self.query,
                headers: &headers,
            })
        }

        fn check(&self) -> Result<PayloadHash, BadSignature> {
            self.check_with(&rules())
        }

        fn check_with(&self, rules: &Rules<'_>) -> Result<PayloadHash, BadSignature> {
            self.with(|request| {
                let claim = read_claim(request, rules)?.expect("somebody signed");
                assert_eq!(claim.key, KEY);
                claim.verify(request, SECRET).map(|_| claim.payload)
            })
        }

        fn set(&mut self, name: &str, value: &[u8]) {
            self.headers.retain(|(known, _)| known != name);
            self.headers.push((name.to_owned(), value.to_vec()));
        }

        /// Signs all headers but those named, with the other implementation.
        fn sign_but(mut self, unsigned: &[&str]) -> Self {
            let mut names: Vec<String> =
                self.headers.iter().map(|(name, _)| name.clone()).collect();
            names.retain(|name| !unsigned.contains(&name.as_str()));
            names.sort();
            names.dedup();
            let payload = self.with(|request| request.one(PAYLOAD).unwrap().unwrap().to_vec());
            let payload = String::from_utf8(payload).unwrap();
            let signature = oracle(&self, &names, &payload);
            let header = format!(
                "{ALGORITHM} Credential={KEY}/20260102/{REGION}/s3/aws4_request, \
                 SignedHeaders={}, Signature={signature}",
                names.join(";")
            );
            self.set("authorization", header.as_bytes());
            self
        }

        fn sign(self) -> Self {
            self.sign_but(&[])
        }

        /// Moves the proof into the address, valid for `expires`.
        fn presign(mut self, expires: &str) -> Self {
            self.headers.retain(|(name, _)| name != DATE && name != PAYLOAD);
            let mut names: Vec<String> =
                self.headers.iter().map(|(name, _)| name.clone()).collect();
            names.sort();
            names.dedup();
            let credential = format!("{KEY}%2F20260102%2F{REGION}%2Fs3%2Faws4_request");
            let separator = if self.query.is_empty() { "" } else { "&" };
            let proof = format!(
                "{separator}X-Amz-Algorithm={ALGORITHM}&X-Amz-Credential={credential}&\
                 X-Amz-Date={DATE_TEXT}&X-Amz-Expires={expires}&X-Amz-SignedHeaders={}",
                names.join("%3B")
            );
            self.query.push_str(&proof);
            let signature = oracle(&self, &names, "UNSIGNED-PAYLOAD");
            self.query.extend(["&X-Amz-Signature=", &signature]);
            self
        }
    }

    fn settings() -> SigningSettings {
        let mut settings = SigningSettings::default();
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        settings.payload_checksum_kind = PayloadChecksumKind::NoHeader;
        settings.signature_location = SignatureLocation::Headers;
        settings.session_token_mode = SessionTokenMode::Exclude;
        settings
    }

    /// The signature of the `aws-sigv4` crate as a signer.
    fn oracle(request: &Owned, names: &[String], payload: &str) -> String {
        oracle_in_session(request, names, payload, None)
    }

    /// The same of a signer whose credentials are good for a while only.
    fn oracle_in_session(
        request: &Owned,
        names: &[String],
        payload: &str,
        session: Option<&str>,
    ) -> String {
        let identity =
            Credentials::new(KEY, SECRET, session.map(str::to_owned), None, "tests").into();
        let mut settings = settings();
        if session.is_some() {
            settings.session_token_mode = SessionTokenMode::Include;
        }
        let dated = names.iter().any(|name| name == DATE);
        settings.excluded_headers = Some(if dated { vec![] } else { vec![DATE.into()] });
        let at = UNIX_EPOCH + Duration::from_millis(u64::try_from(NOW.0).unwrap());
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(REGION)
            .name(SERVICE)
            .time(at)
            .settings(settings)
            .build()
            .unwrap()
            .into();
        let question = if request.query.is_empty() { "" } else { "?" };
        let address = format!("http://host{}{question}{}", request.path, request.query);
        let signed = request.headers.iter().filter(|(name, _)| names.contains(name));
        let signed: Vec<(&str, &str)> = signed
            .map(|(name, value)| (name.as_str(), std::str::from_utf8(value).unwrap()))
            .collect();
        let body = SignableBody::Precomputed(payload.to_owned());
        let signable =
            SignableRequest::new(&request.method, address, signed.into_iter(), body).unwrap();
        sign(signable, &params).unwrap().signature().to_owned()
    }

    /// Method, path, query and headers.
    type Shape =
        (&'static str, &'static str, &'static str, &'static [(&'static str, &'static str)]);

    #[test]
    fn s3_1_every_shape_of_request_that_clients_sign_is_accepted() {
        let shapes: [Shape; 24] = [
            ("GET", "/", "", &[]),
            ("GET", "/bucket/a%20b", "", &[]),
            ("GET", "/bucket/a%2Bb", "", &[]),
            ("GET", "/bucket/a%3Db%26c", "", &[]),
            ("GET", "/bucket/100%25", "", &[]),
            ("GET", "/bucket/%C3%A9%E2%82%AC%F0%9F%98%80", "", &[]),
            ("GET", "/bucket//a//b", "", &[]),
            ("GET", "/bucket/./a/../b", "", &[]),
            ("GET", "/bucket/", "", &[]),
            ("GET", "/bucket", "versioning", &[]),
            ("GET", "/bucket", "acl=", &[]),
            ("GET", "/bucket", "b=2&a=1&a=0&c", &[]),
            ("GET", "/bucket", "prefix=%C3%A9%2Fx&delimiter=%2F", &[]),
            ("GET", "/bucket", "prefix=%2A%21%27%28%29", &[]),
            ("GET", "/bucket", "prefix=a+b%20c", &[]),
            ("PUT", "/bucket/k", "", &[("x-amz-meta-a", "one   two \t three")]),
            ("PUT", "/bucket/k", "", &[("x-amz-meta-a", "ünïcode €")]),
            ("PUT", "/bucket/k", "", &[("content-md5", "1B2M2Y8AsgTpgAmY7PhCfg==")]),
            ("PUT", "/bucket/k", "", &[("content-type", "text/plain; charset=utf-8")]),
            ("PUT", "/bucket/k", "", &[("user-agent", "aws-sdk-dotnet/1.0")]),
            ("PUT", "/bucket/k", "partNumber=1&uploadId=4_z_x", &[]),
            ("POST", "/bucket/k", "uploads", &[("transfer-encoding", "chunked")]),
            ("DELETE", "/bucket/k", "versionId=4_zx_f1", &[("x-amz-user-agent", "js")]),
            (
                "HEAD",
                "/bucket/k",
                "",
                &[("range", "bytes=0-1"), ("x-amz-checksum-mode", "ENABLED")],
            ),
        ];
        for (method, path, query, headers) in shapes {
            let request = Owned::new(method, path, query, headers);
            let signed = request.clone().sign();
            assert_eq!(signed.check(), Ok(PayloadHash::Unsigned), "{signed:?}");
            let presigned = request.presign("60");
            assert_eq!(presigned.check(), Ok(PayloadHash::Unsigned), "{presigned:?}");
        }
    }

    #[test]
    fn s3_18_s3_19_signed_user_agents_and_requests_dated_by_date_are_accepted() {
        let signed = Owned::new("GET", "/b/k", "", &[("user-agent", "x  y/1")]).sign();
        assert!(signed.check().is_ok());
        let mut dated = Owned::new("GET", "/b/k", "", &[("date", "Fri, 02 Jan 2026 03:04:05 GMT")]);
        dated.headers.retain(|(name, _)| name != DATE);
        assert!(dated.clone().sign().check().is_ok());
        assert!(
            dated.clone().sign_but(&["date"]).check().is_ok(),
            "the signature covers it anyway"
        );
        dated.set("date", b"Sat, 03 Jan 2026 03:04:05 GMT");
        assert!(dated.sign().check().is_err(), "of another moment");
        let mut undated = Owned::new("GET", "/b/k", "", &[]);
        undated.headers.retain(|(name, _)| name != DATE);
        assert_eq!(undated.sign().check(), Err(BadSignature::NoDate));
    }

    #[test]
    fn s3_2_reliability_c1_every_flipped_digit_of_a_signature_is_noticed() {
        let signed = Owned::new("GET", "/bucket/k", "versionId=1", &[]).sign();
        let header = signed.with(|request| request.one("authorization").unwrap().unwrap().to_vec());
        for at in header.len() - 64..header.len() {
            let mut flipped = signed.clone();
            let mut header = header.clone();
            header[at] = if header[at] == b'0' { b'1' } else { b'0' };
            flipped.set("authorization", &header);
            assert_eq!(flipped.check(), Err(BadSignature::Mismatch), "digit {at}");
        }
        for cut in [&header[..header.len() - 1], &header[..header.len() - 64]] {
            let mut short = signed.clone();
            short.set("authorization", cut);
            assert_eq!(short.check(), Err(BadSignature::Mismatch));
        }
    }

    #[test]
    fn reliability_c2_c20_c22_a_change_of_anything_signed_is_noticed() {
        let headers = [("x-amz-meta-a", "1"), ("content-type", "text/plain")];
        let signed = Owned::new("GET", "/bucket/k", "prefix=a", &headers).sign();
        for (name, value) in signed.headers.clone() {
            if name == "authorization" {
                continue;
            }
            let mut changed = signed.clone();
            changed.set(&name, &[&value[..], b"x"].concat());
            assert!(changed.check().is_err(), "{name}");
            let mut doubled = signed.clone();
            doubled.headers.push((name.clone(), value));
            assert!(doubled.check().is_err(), "{name} twice");
            let mut gone = signed.clone();
            gone.headers.retain(|(known, _)| *known != name);
            assert!(gone.check().is_err(), "without {name}");
        }
        let change = |change: &dyn Fn(&mut Owned)| {
            let mut changed = signed.clone();
            change(&mut changed);
            changed.check()
        };
        let mismatch = Err(BadSignature::Mismatch);
        for method in ["HEAD", "PUT", "DELETE", "POST"] {
            assert_eq!(change(&|r| r.method = method.to_owned()), mismatch);
        }
        for path in ["/bucket/K", "/bucket/k/", "//bucket/k", "/bucket/./k", "/bucket/k%20", "/"] {
            assert_eq!(change(&|r| r.path = path.to_owned()), mismatch, "{path}");
        }
        for query in ["", "prefix=b", "prefix=a&versionId=1", "prefix=a&prefix=a", "Prefix=a"] {
            assert_eq!(change(&|r| r.query = query.to_owned()), mismatch, "{query}");
        }
    }

    #[test]
    fn s3_16_s3_17_reliability_c3_c4_c5_what_matters_and_is_not_signed_is_refused() {
        let plain = Owned::new("PUT", "/bucket/k", "", &[]);
        let presigned = plain.clone().presign("60");
        for name in ["x-amz-meta-a", "x-amz-copy-source", "x-amz-acl", "x-amz-object-lock-mode"] {
            for mut signed in [plain.clone().sign(), presigned.clone()] {
                signed.set(name, b"value");
                assert_eq!(signed.check(), Err(BadSignature::NotSigned(name.to_owned())));
            }
        }
        let host = Err(BadSignature::NotSigned("host".to_owned()));
        assert_eq!(plain.clone().sign_but(&["host"]).check(), host);
        let mut added = presigned.clone();
        added.set(PAYLOAD, b"UNSIGNED-PAYLOAD");
        assert_eq!(added.check(), Err(BadSignature::NotSigned(PAYLOAD.to_owned())));
        let mut harmless = plain.sign();
        harmless.set("accept", b"*/*");
        assert!(harmless.check().is_ok(), "other headers need no signature");
    }

    #[test]
    fn s3_11_reliability_c7_clocks_may_differ_by_fifteen_minutes() {
        let signed = Owned::new("GET", "/", "", &[]).sign();
        for by_s in [-900, -899, 0, 840, 900] {
            let rules = Rules { now: NOW.plus(by_s * 1000), ..rules() };
            assert!(signed.check_with(&rules).is_ok(), "{by_s}");
        }
        for by_s in [-901, -960, 901, 960, 86_400] {
            let now = NOW.plus(by_s * 1000);
            let skewed = Err(BadSignature::TooSkewed { at: NOW, now });
            assert_eq!(signed.check_with(&Rules { now, ..rules() }), skewed, "{by_s}");
        }
        for date in ["20261302T030405Z", "20260230T030405Z", "20260102T030405", "20260102", "", "x"]
        {
            let mut wrong = signed.clone();
            wrong.set(DATE, date.as_bytes());
            assert_eq!(wrong.check(), Err(BadSignature::NoDate), "{date}");
        }
    }

    #[test]
    fn s3_12_s3_13_reliability_c8_the_scope_must_be_ours() {
        let signed = Owned::new("GET", "/", "", &[]).sign();
        let rescoped = |from: &str, to: &str| {
            let header = signed.with(|r| r.one("authorization").unwrap().unwrap().to_vec());
            let header = String::from_utf8(header).unwrap().replacen(from, to, 1);
            let mut changed = signed.clone();
            changed.set("authorization", header.as_bytes());
            changed
        };
        for (from, to) in [
            ("/20260102/", "/20260103/"),
            ("/20260102/", "/20261302/"),
            ("/s3/", "/iam/"),
            ("/s3/", "/S3/"),
            ("aws4_request", "aws4_Request"),
            ("/s3/", "/"),
            ("host;", "x;host;"),
            ("host;", "host;host;"),
            ("host;", "Host;"),
            ("SignedHeaders", "Signedheaders"),
            ("Signature=", "Signature=00,Signature="),
        ] {
            let checked = rescoped(from, to).check();
            let place = Place::Header;
            let malformed =
                matches!(checked, Err(BadSignature::Malformed { place: at, .. }) if at == place);
            assert!(malformed, "{from} to {to}: {checked:?}");
        }
        let elsewhere = rescoped(REGION, "us-east-1");
        let wrong = BadSignature::WrongRegion {
            place: Place::Header,
            given: "us-east-1".to_owned(),
            wanted: REGION.to_owned(),
        };
        assert_eq!(elsewhere.check(), Err(wrong));
        let lenient = Rules { any_region: true, ..rules() };
        assert_eq!(elsewhere.check_with(&lenient), Err(BadSignature::Mismatch), "not re-signed");
        let other = Rules { region: "eu-central-003", any_region: true, ..rules() };
        assert!(signed.check_with(&other).is_ok());
    }

    #[test]
    fn s3_14_s3_25_s3_33_reliability_c9_c15_only_one_proof_of_version_4_is_taken() {
        let signed = Owned::new("GET", "/b/k", "", &[]).sign();
        let presigned = Owned::new("GET", "/b/k", "", &[]).presign("60");
        let mut both = signed.clone();
        both.query.clone_from(&presigned.query);
        assert_eq!(both.check(), Err(BadSignature::Ambiguous));
        let mut twice = signed.clone();
        let header = signed.with(|r| r.one("authorization").unwrap().unwrap().to_vec());
        twice.headers.push(("authorization".to_owned(), header));
        assert_eq!(twice.check(), Err(BadSignature::Ambiguous));
        for part in presigned.query.split('&') {
            let mut doubled = presigned.clone();
            doubled.query = format!("{}&{}", presigned.query, part);
            assert_eq!(doubled.check(), Err(BadSignature::Ambiguous), "{part} twice");
            let respelled = part.to_ascii_lowercase();
            doubled.query = format!("{}&{respelled}", presigned.query);
            assert_eq!(doubled.check(), Err(BadSignature::Ambiguous), "{respelled}");
        }
        for old in
            ["AWS key:signature", "Basic a2V5OnNlY3JldA==", "Bearer x", "AWS4-ECDSA-P256-SHA256 x"]
        {
            let mut request = Owned::new("GET", "/b/k", "", &[]);
            request.set("authorization", old.as_bytes());
            assert_eq!(request.check(), Err(BadSignature::OtherMechanism), "{old}");
        }
        for query in ["AWSAccessKeyId=k&Signature=s&Expires=1", "Signature=s", "awsaccesskeyid=k"] {
            let request = Owned::new("GET", "/b/k", query, &[]);
            assert_eq!(request.check(), Err(BadSignature::OtherMechanism), "{query}");
        }
        for empty in ["", " "] {
            let mut request = Owned::new("GET", "/b/k", "", &[]);
            request.set("authorization", empty.as_bytes());
            assert!(matches!(request.check(), Err(BadSignature::Malformed { .. })));
        }
        let token = Owned::new("GET", "/b/k", "", &[(TOKEN, "token")]);
        assert_eq!(token.sign().check(), Err(BadSignature::SecurityToken));
        let token = Owned::new("GET", "/b/k", "X-Amz-Security-Token=t", &[]).presign("60");
        assert_eq!(token.check(), Err(BadSignature::SecurityToken));
        let nobody = Owned::new("GET", "/b/k", "prefix=x", &[]);
        assert!(nobody.with(|r| read_claim(r, &rules())).unwrap().is_none());
    }

    #[test]
    fn s3_28_s3_29_reliability_c6_signed_addresses_end_after_a_week_at_the_latest() {
        let request = Owned::new("GET", "/b/k", "", &[]);
        for expires in
            ["0", "-1", "604801", "9223372036854775808", "abc", "", "1.5", "+60", "%2060"]
        {
            let checked = request.clone().presign(expires).check();
            assert_eq!(checked, Err(BadSignature::ExpiresOutOfRange), "{expires}");
        }
        for expires in ["1", "604800"] {
            assert!(request.clone().presign(expires).check().is_ok());
        }
        let presigned = request.presign("60");
        let at = |by_s: i64| Rules { now: NOW.plus(by_s * 1000), ..rules() };
        assert!(presigned.check_with(&at(60)).is_ok());
        assert!(presigned.check_with(&at(-900)).is_ok());
        let (end, now) = (NOW.plus(60_000), NOW.plus(61_000));
        let expired = Err(BadSignature::Expired { end, life_s: 60, now });
        assert_eq!(presigned.check_with(&at(61)), expired);
        let early = Err(BadSignature::NotYet { at: NOW, now: NOW.plus(-901_000) });
        assert_eq!(presigned.check_with(&at(-901)), early);
        let mut longer = presigned.clone();
        longer.query = presigned.query.replace("Expires=60", "Expires=600");
        assert_eq!(longer.check(), Err(BadSignature::Mismatch));
        for part in presigned.query.split('&').skip(1) {
            let mut partial = presigned.clone();
            partial.query = presigned.query.replace(&format!("&{part}"), "");
            let missing = BadSignature::Malformed {
                place: Place::Query,
                what: "a parameter of the signature is missing",
            };
            assert_eq!(partial.check(), Err(missing), "without {part}");
        }
    }

    #[test]
    fn s3_15_the_payload_hash_is_one_of_few_forms() {
        let with = |text: &str| Owned::new("PUT", "/b/k", "", &[(PAYLOAD, text)]).sign().check();
        let digest = sha256_of(std::iter::once(&b"content"[..]));
        assert_eq!(with(&digest.to_string()), Ok(PayloadHash::Is(digest)));
        let chunks = |signed, trailer| Ok(PayloadHash::Chunks { signed, trailer });
        assert_eq!(with("STREAMING-AWS4-HMAC-SHA256-PAYLOAD"), chunks(true, false));
        assert_eq!(with("STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"), chunks(true, true));
        assert_eq!(with("STREAMING-UNSIGNED-PAYLOAD-TRAILER"), chunks(false, true));
        for text in ["STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD", "unsigned-payload", "", "00", "x"]
        {
            assert_eq!(with(text), Err(BadSignature::UnknownPayloadHash), "{text}");
        }
        let mut without = Owned::new("PUT", "/b/k", "", &[]).sign();
        without.headers.retain(|(name, _)| name != PAYLOAD);
        assert_eq!(without.check(), Err(BadSignature::NoPayloadHash));
        let query = "X-Amz-Content-Sha256=STREAMING-UNSIGNED-PAYLOAD-TRAILER";
        let presigned = Owned::new("PUT", "/b/k", query, &[]).presign("60");
        assert_eq!(presigned.check(), Err(BadSignature::ChunksToSignedAddress));
    }

    #[test]
    fn an_address_is_read_as_the_signer_reads_it() {
        let sent_as = |signed: (&str, &str), path: &str, query: &str| {
            let mut request = Owned::new("GET", signed.0, signed.1, &[]).sign();
            (request.path, request.query) = (path.to_owned(), query.to_owned());
            request.check()
        };
        let mismatch = Err(BadSignature::Mismatch);
        for (signed, path, query) in [
            (("/b/%C3%A9", ""), "/b/%c3%a9", ""),
            (("/b/a%28b%29%2B%40", ""), "/b/a(b)+@", ""),
            (("/b", "prefix=a%20b"), "/b", "prefix=a+b"),
            (("/b", "prefix=%C3%A9"), "/b", "prefix=%c3%A9"),
            (("/b", "acl="), "/b", "acl"),
            (("/b", "a=1&b=2"), "/b", "b=2&&a=1&"),
        ] {
            assert!(sent_as(signed, path, query).is_ok(), "{signed:?} as {path}?{query}");
        }
        for (signed, path, query) in [
            (("/b/a%20b", ""), "/b/a+b", ""),
            (("/b/a%2Fb", ""), "/b/a/b%2F", ""),
            (("/b", "prefix=a%2Bb"), "/b", "prefix=a+b"),
            (("/b", "prefix=a%26b=1"), "/b", "prefix=a&b=1"),
            (("/b/%2541", ""), "/b/%41", ""),
            (("/b/k%0Aversions", ""), "/b/k", "versions"),
        ] {
            assert_eq!(sent_as(signed, path, query), mismatch, "{signed:?} as {path}?{query}");
        }
    }

    #[test]
    fn a_claim_does_not_show_its_signature() {
        let signed = Owned::new("GET", "/b/k", "", &[]).sign();
        let claim = signed.with(|r| read_claim(r, &rules())).unwrap().unwrap();
        assert!(!format!("{claim:?}").contains(&claim.signature));
    }

    fn encoded_text() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            4 => "[a-zA-Z0-9._~-]{1,8}",
            1 => Just("/".to_owned()),
            1 => Just("//".to_owned()),
            1 => Just("/./".to_owned()),
            1 => Just("/../".to_owned()),
            2 => any::<u8>().prop_map(|byte| format!("%{byte:02X}")),
            1 => any::<char>().prop_map(|c| {
                let mut encoded = Vec::new();
                encode_into(&mut encoded, c.to_string().as_bytes(), false);
                String::from_utf8(encoded).unwrap()
            }),
        ];
        proptest::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
    }

    /// The other implementation reads queries as text, so their escapes must be of UTF-8.
    fn query_text() -> impl Strategy<Value = String> {
        let part = any::<String>().prop_map(|text| {
            let mut encoded = Vec::new();
            encode_into(&mut encoded, text.as_bytes(), false);
            String::from_utf8(encoded).unwrap()
        });
        let part = prop_oneof![3 => "[a-zA-Z0-9._~+-]{0,8}", 2 => part];
        let pair =
            (part.clone(), proptest::option::of(part)).prop_map(|(name, value)| match value {
                Some(value) => format!("n{name}={value}"),
                None => format!("n{name}"),
            });
        proptest::collection::vec(pair, 0..5).prop_map(|pairs| pairs.join("&"))
    }

    fn header_list() -> impl Strategy<Value = Vec<(String, String)>> {
        let name = prop_oneof!["x-amz-meta-[a-z0-9_-]{1,6}", "[a-z]{3,6}-[a-z]{2,4}"];
        let value = prop_oneof!["[ -~]{0,20}", "[a-z ]{0,12}", "[é€a-z ]{0,8}"];
        proptest::collection::vec((name, value), 0..5)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn s3_22_reliability_c16_generated_requests_are_taken_as_the_other_implementation_signs_them(
            method in prop_oneof![Just("GET"), Just("PUT"), Just("DELETE"), Just("POST")],
            path in encoded_text(),
            query in query_text(),
            headers in header_list(),
            presigned in any::<bool>(),
            flip in any::<prop::sample::Index>(),
        ) {
            let mut request = Owned::new(method, &format!("/{path}"), &query, &[]);
            for (name, value) in headers {
                request.headers.push((name, value.into_bytes()));
            }
            let request = if presigned { request.presign("60") } else { request.sign() };
            prop_assert_eq!(request.check(), Ok(PayloadHash::Unsigned));
            // One letter of the path becomes another one.
            let mut changed = request.clone();
            let letters: Vec<usize> = request
                .path
                .char_indices()
                .filter(|(_, letter)| letter.is_ascii_lowercase())
                .map(|(at, _)| at)
                .collect();
            if !letters.is_empty() {
                let at = letters[flip.index(letters.len())];
                let other = if request.path.as_bytes()[at] == b'q' { "z" } else { "q" };
                changed.path.replace_range(at..=at, other);
                prop_assert_eq!(changed.check(), Err(BadSignature::Mismatch));
            }
            let mut other = request.clone();
            other.query.push_str(if request.query.is_empty() { "acl" } else { "&acl" });
            prop_assert_eq!(other.check(), Err(BadSignature::Mismatch));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn what_is_signed_for_other_stores_is_what_the_other_implementation_signs(
            method in prop_oneof![Just("GET"), Just("PUT"), Just("HEAD"), Just("POST")],
            key in any::<String>(),
            value in any::<String>(),
            session in proptest::option::of("[A-Za-z0-9/+=]{1,40}"),
        ) {
            let path = format!("/bucket/{}", encode(&key, true));
            let query = format!("prefix={}&uploads=", encode(&value, false));
            let meta = encode(&value, false);
            let headers = [("content-type", "text/plain"), ("x-amz-meta-a", meta.as_str())];
            let mut request = Owned::new(method, &path, &query, &headers);
            let (secret, session) = (Secret::new(SECRET.to_owned()), session.map(Secret::new));
            let signer =
                Signer { key_id: KEY, secret: &secret, session: session.as_ref(), region: REGION };
            request.headers.retain(|(name, _)| name != DATE && name != PAYLOAD);
            let added = request.with(|request| signer.sign(request, "UNSIGNED-PAYLOAD", NOW));
            for (name, value) in &added {
                request.set(name, value.as_bytes());
            }
            let proof = added.iter().find(|(name, _)| *name == "authorization").unwrap().1.clone();
            let names = proof.split_once("SignedHeaders=").unwrap().1.split_once(',').unwrap().0;
            let names: Vec<String> = names.split(';').map(str::to_owned).collect();
            prop_assert_eq!(names.contains(&TOKEN.to_owned()), session.is_some());
            let token = session.as_ref().map(Secret::expose);
            // It adds the token itself.
            let own: Vec<String> = names.iter().filter(|name| *name != TOKEN).cloned().collect();
            let right = oracle_in_session(&request, &own, "UNSIGNED-PAYLOAD", token);
            let ending = format!("Signature={right}");
            prop_assert!(proof.ends_with(&ending));
            if session.is_none() {
                prop_assert_eq!(request.check(), Ok(PayloadHash::Unsigned));
            }
        }

        #[test]
        fn s3_20_no_request_makes_the_checker_panic(
            path in "\\PC{0,30}",
            query in prop_oneof!["\\PC{0,30}", "(X-Amz-(Algorithm|Signature|Date|Expires|Credential)=[A-Z0-9%+/-]{0,9}&){0,6}"],
            header in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..80)),
            proof in proptest::option::of("AWS4-HMAC-SHA256 (Credential=[a-z0-9/]{0,30}|SignedHeaders=[a-z;]{0,9}|Signature=[a-f0-9]{0,9}|,| ){0,6}"),
        ) {
            let mut request = Owned::new("GET", &path, &query, &[]);
            if let Some(header) = header.or(proof.map(String::into_bytes)) {
                request.set("authorization", &header);
            }
            request.with(|request| {
                if let Ok(Some(claim)) = read_claim(request, &rules()) {
                    prop_assert!(claim.verify(request, SECRET).is_err());
                }
                Ok(())
            })?;
        }
    }

    /// The worked examples of AWS's documentation, chunk by chunk.
    #[test]
    fn the_signatures_of_chunks_are_those_of_the_published_examples() {
        let signer = |previous: &str| {
            let secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
            ChunkSigner::for_tests(secret, Millis(1_369_353_600_000), "us-east-1", previous)
        };
        let (first, second) = (vec![b'a'; 65_536], vec![b'a'; 1024]);
        let hash = |content: &[u8]| sha256_of(std::iter::once(content));
        let mut chunks = signer("4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9");
        for (content, signature) in [
            (&first[..], "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648"),
            (&second[..], "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497"),
            (&[][..], "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9"),
        ] {
            assert!(chunks.fits_chunk(hash(content), signature.as_bytes()));
        }
        let mut wrong = signer("4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9");
        assert!(!wrong.fits_chunk(
            hash(&second),
            b"ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648"
        ));
    }

    proptest! {
        #[test]
        fn chunks_and_trailers_are_taken_as_the_other_implementation_signs_them(
            content in proptest::collection::vec(any::<u8>(), 0..100),
            value in "[A-Za-z0-9+/=]{1,12}",
        ) {
            let identity = Credentials::new(KEY, SECRET, None, None, "tests").into();
            let at = UNIX_EPOCH + Duration::from_millis(u64::try_from(NOW.0).unwrap());
            let params = v4::SigningParams::builder()
                .identity(&identity)
                .region(REGION)
                .name(SERVICE)
                .time(at)
                .settings(())
                .build()
                .unwrap();
            let mut signer = ChunkSigner::for_tests(SECRET, NOW, REGION, "00");
            let chunk = v4::sign_chunk(&Bytes::from(content.clone()), "00", &params).unwrap();
            prop_assert!(signer.fits_chunk(sha256_of(std::iter::once(&content[..])), chunk.signature().as_bytes()));
            let mut headers = aws_smithy_runtime_api::http::Headers::new();
            headers.insert("x-amz-checksum-crc32c", value.clone());
            let trailer = v4::sign_trailer(&headers, chunk.signature(), &params).unwrap();
            let text = format!("x-amz-checksum-crc32c:{value}\n");
            prop_assert!(signer.fits_trailer(sha256_of(std::iter::once(text.as_bytes())), trailer.signature().as_bytes()));
        }
    }
}
