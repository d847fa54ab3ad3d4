//! Bodies of S3 requests: out of the form they are sent in, and compared with everything that was
//! said of them.
//!
//! The form `aws-chunked`: chunks, each with its length in hex digits and, where it is signed, its
//! signature in a line of its own; the last one is empty, and header lines may follow it. Content is
//! handed on while it comes; what it is compared with may come last. So a body that is not what it
//! was said to be ends with a fault instead of its end, and whoever stores content commits it after
//! the end only. Why it failed is left in the [`Outcome`].
//!
//! Kept small: a line and the trailer are bounded, content is never gathered.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::mem;
use std::rc::Rc;

use actix_web::http::header::{CONTENT_LENGTH, HeaderMap, HeaderName};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};

use crate::api::Http;
use crate::api::body::{Incoming, with_idle_limit};
use crate::api::s3::error::{S3Error, S3Refusal, s3_refuse};
use crate::auth::sigv4::{ChunkSigner, PayloadHash};
use crate::domain::checksum::{Checksum, ChecksumAlgorithm, ChecksumHasher};
use crate::domain::digest::{Md5Digest, Sha256Digest, Sha256Hasher, md5_of, sha256_of};
use crate::operations::signatures::Authentic;
use crate::operations::upload::{Announced, BodyFault, DeclaredSha1};

/// Length of the line before a chunk (ours; no client comes near it).
const LINE_BYTES_MAX: usize = 1024;
/// Length of everything after the last chunk, and how many headers it holds (ours).
const TRAILER_BYTES_MAX: usize = 16 * 1024;
const TRAILERS_MAX: usize = 100;
/// Pieces of content shorter than this are put together before they are handed on: a client may
/// send a byte a chunk.
const PIECE_BYTES_MIN: usize = 16 * 1024;

const TRAILER: &str = "x-amz-trailer";
const TRAILER_SIGNATURE: &str = "x-amz-trailer-signature";
const DECODED_LENGTH: &str = "x-amz-decoded-content-length";
pub(crate) const SDK_ALGORITHM: &str = "x-amz-sdk-checksum-algorithm";
const CHECKSUM_PREFIX: &str = "x-amz-checksum-";
/// Headers that begin like checksums and are none.
const NO_CHECKSUMS: [&str; 3] =
    ["x-amz-checksum-algorithm", "x-amz-checksum-mode", "x-amz-checksum-type"];

/// Content on its way in.
pub(crate) struct S3Content<B> {
    /// Whoever stores the content compares it with this.
    pub(crate) announced: Announced,
    /// Of the checksum that it comes with.
    pub(crate) algorithm: Option<ChecksumAlgorithm>,
    pub(crate) body: B,
    pub(crate) outcome: Outcome,
}

/// What came of a body; clones are one and the same.
#[derive(Clone, Default)]
pub(crate) struct Outcome(Rc<RefCell<Ending>>);

#[derive(Default)]
enum Ending {
    #[default]
    Open,
    Right(Option<Checksum>),
    Wrong(Box<S3Refusal>),
}

impl Outcome {
    /// Why the body ended with a fault; None when it did not, or by no fault of the request.
    pub(crate) fn failure(&self) -> Option<S3Refusal> {
        match &*self.0.borrow() {
            Ending::Wrong(refusal) => Some(S3Refusal::clone(refusal)),
            Ending::Open | Ending::Right(_) => None,
        }
    }

    /// The checksum that came with the content and was found to be right, once the body has ended.
    pub(crate) fn checksum(&self) -> Option<Checksum> {
        match &*self.0.borrow() {
            Ending::Right(checksum) => checksum.clone(),
            Ending::Open | Ending::Wrong(_) => None,
        }
    }
}

/// The content of a request whose length must be known before.
pub(crate) fn content(
    headers: &HeaderMap,
    payload: Incoming,
    http: &Http,
    signed: &mut Authentic,
) -> Result<S3Content<impl Stream<Item = Result<Bytes, BodyFault>> + use<>>, S3Error> {
    let content_bytes = content_length(headers, signed)?.ok_or_else(missing_length)?;
    let announced = Announced {
        body_bytes: content_bytes,
        sha1: DeclaredSha1::Unknown,
        md5: content_md5(headers)?,
    };
    let checker = Checker::of(headers, signed, Some(content_bytes))?;
    let algorithm = checker.checksum.as_ref().map(|(hasher, _)| hasher.algorithm());
    let (body, outcome) = checked(checker, payload, http);
    Ok(S3Content { announced, algorithm, body, outcome })
}

/// Reads a whole small body, for XML. `has_own_checksums` says that checksums in the headers are those
/// of this body.
pub(crate) async fn whole(
    headers: &HeaderMap,
    payload: Incoming,
    http: &Http,
    signed: &mut Authentic,
    bytes_max: usize,
    has_own_checksums: bool,
) -> Result<Bytes, S3Error> {
    let mut headers = headers.clone();
    if !has_own_checksums {
        for algorithm in ChecksumAlgorithm::ALL {
            headers.remove(algorithm.header());
        }
    }
    let headers = &headers;
    let md5 = content_md5(headers)?;
    let content_bytes = content_length(headers, signed)?;
    let checker = Checker::of(headers, signed, content_bytes)?;
    let (body, outcome) = checked(checker, payload, http);
    let mut body = std::pin::pin!(body);
    let mut all = BytesMut::new();
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|fault| match outcome.failure() {
            Some(refusal) => refusal.into(),
            None => S3Error::from(crate::domain::refusal::Refusal::from(fault)),
        })?;
        if all.len() + piece.len() > bytes_max {
            return Err(
                s3_refuse(400, "MaxMessageLengthExceeded", "Your request was too big.").into()
            );
        }
        all.extend_from_slice(&piece);
    }
    if md5.is_some_and(|md5| md5 != md5_of(std::iter::once(&all[..]))) {
        return Err(bad_digest("Content-MD5").into());
    }
    Ok(all.freeze())
}

/// Whether a request says anything of its content that damage would not fit.
pub(crate) fn brings_digest(headers: &HeaderMap) -> bool {
    let is_checksum = |name: &str| ChecksumAlgorithm::of_header(name).is_some();
    headers.contains_key("content-md5")
        || headers.contains_key(TRAILER)
        || headers.keys().any(|name| is_checksum(name.as_str()))
}

/// What is said of content that is not what the named header says.
pub(crate) fn bad_digest(name: &str) -> S3Refusal {
    s3_refuse(
        400,
        "BadDigest",
        format!("The {name} you specified did not match the calculated checksum."),
    )
}

/// Refuses checksums as Backblaze did before it knew of them.
pub(crate) fn refuse_checksums(headers: &HeaderMap) -> Result<(), S3Refusal> {
    for name in headers.keys().map(HeaderName::as_str) {
        if name.starts_with(CHECKSUM_PREFIX) || name == SDK_ALGORITHM || name == TRAILER {
            let message = format!("Unsupported header '{name}' received for this API call.");
            return Err(s3_refuse(400, "InvalidArgument", message));
        }
    }
    Ok(())
}

/// The only header of a name, as text without what stands around it.
fn one<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, S3Refusal> {
    let mut values = headers.get_all(name);
    let Some(first) = values.next() else { return Ok(None) };
    let text = first.to_str().ok().filter(|_| values.next().is_none());
    text.map(|text| Some(text.trim())).ok_or_else(|| invalid_value(name))
}

fn invalid_value(name: &str) -> S3Refusal {
    s3_refuse(400, "InvalidRequest", format!("Value for {name} header is invalid."))
}

/// Length of the content as it was announced. Chunks must say it; the length of the body is another.
fn content_length(headers: &HeaderMap, signed: &Authentic) -> Result<Option<u64>, S3Refusal> {
    match signed.payload {
        PayloadHash::Chunks { .. } => {
            length(headers, DECODED_LENGTH)?.ok_or_else(missing_length).map(Some)
        }
        PayloadHash::Unsigned | PayloadHash::Is(_) => length(headers, CONTENT_LENGTH.as_str()),
    }
}

fn missing_length() -> S3Refusal {
    s3_refuse(411, "MissingContentLength", "You must provide the Content-Length HTTP header.")
}

fn length(headers: &HeaderMap, name: &str) -> Result<Option<u64>, S3Refusal> {
    let Some(text) = one(headers, name)? else { return Ok(None) };
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| digits);
    number.map(Some).ok_or_else(|| s3_refuse(400, "InvalidArgument", format!("Bad {name}")))
}

fn content_md5(headers: &HeaderMap) -> Result<Option<Md5Digest>, S3Refusal> {
    let read = |text: &str| {
        let bytes = STANDARD.decode(text).ok()?;
        Md5Digest::from_slice(&bytes)
    };
    let md5 = match one(headers, "content-md5") {
        Ok(None) => return Ok(None),
        Ok(Some(text)) => read(text),
        Err(_) => None,
    };
    let invalid = || s3_refuse(400, "InvalidDigest", "The Content-MD5 you specified is not valid.");
    md5.map(Some).ok_or_else(invalid)
}

/// What is known of the checksum of the content before it comes.
enum Expected {
    /// No more than its algorithm; the value follows the content.
    InTrailer,
    Is(Checksum),
}

/// Reads which checksum a request brings, and checks that it is one.
fn expected(
    headers: &HeaderMap,
    has_trailer: bool,
) -> Result<Option<(ChecksumAlgorithm, Expected)>, S3Refusal> {
    let invalid = |message| s3_refuse(400, "InvalidRequest", message);
    let single = || {
        invalid(
            "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
        )
    };
    let mut found = None;
    for name in headers.keys().map(HeaderName::as_str) {
        if !name.starts_with(CHECKSUM_PREFIX) || NO_CHECKSUMS.contains(&name) {
            continue;
        }
        let algorithm = ChecksumAlgorithm::of_header(name).ok_or_else(|| invalid_value(name))?;
        let text = one(headers, name)?.unwrap_or_default();
        let checksum =
            Checksum::parse(algorithm, text.as_bytes()).ok_or_else(|| invalid_value(name))?;
        if found.replace((algorithm, Expected::Is(checksum))).is_some() {
            return Err(single());
        }
    }
    if let Some(announced) = one(headers, TRAILER)? {
        let algorithm = ChecksumAlgorithm::of_header(announced).ok_or_else(|| {
            invalid("The value specified in the x-amz-trailer header is not supported")
        })?;
        if !has_trailer {
            return Err(malformed_trailer());
        }
        if found.replace((algorithm, Expected::InTrailer)).is_some() {
            return Err(single());
        }
    }
    if let Some(name) = one(headers, SDK_ALGORITHM)? {
        let wanted = ChecksumAlgorithm::parse(name).ok_or_else(|| invalid_value(SDK_ALGORITHM))?;
        match &found {
            None => {
                return Err(invalid(
                    "x-amz-sdk-checksum-algorithm specified, but no corresponding \
                     x-amz-checksum-* or x-amz-trailer headers were found.",
                ));
            }
            Some((algorithm, _)) if *algorithm != wanted => {
                return Err(invalid_value(SDK_ALGORITHM));
            }
            Some(_) => {}
        }
    }
    Ok(found)
}

fn malformed_trailer() -> S3Refusal {
    s3_refuse(
        400,
        "MalformedTrailerError",
        "The request contained trailing data that was not well-formed or did not conform to our \
         published schema.",
    )
}

fn incomplete() -> S3Refusal {
    s3_refuse(
        400,
        "IncompleteBody",
        "You did not provide the number of bytes specified by the Content-Length HTTP header",
    )
}

fn signature_mismatch() -> S3Refusal {
    s3_refuse(403, "SignatureDoesNotMatch", "Signature validation failed")
}

fn malformed_chunk(what: &str) -> S3Refusal {
    s3_refuse(400, "InvalidRequest", format!("The body is not in aws-chunked form: {what}"))
}

/// Takes a body as it comes and gives its content, comparing both.
struct Checker {
    /// There where the content comes in chunks.
    decoder: Option<Decoder>,
    is_chunked: bool,
    /// The length that was announced.
    content_bytes: Option<u64>,
    received: u64,
    sha256: Option<(Sha256Hasher, Sha256Digest)>,
    checksum: Option<(ChecksumHasher, Expected)>,
    ready: VecDeque<Bytes>,
    small: BytesMut,
}

impl Checker {
    fn of(
        headers: &HeaderMap,
        signed: &mut Authentic,
        content_bytes: Option<u64>,
    ) -> Result<Self, S3Refusal> {
        let (decoder, sha256, has_trailer) = match signed.payload {
            PayloadHash::Unsigned => (None, None, false),
            PayloadHash::Is(wanted) => (None, Some((Sha256Hasher::default(), wanted)), false),
            PayloadHash::Chunks { trailer, .. } => {
                let room = content_bytes.unwrap_or(u64::MAX);
                (Some(Decoder::new(signed.chunks.take(), trailer, room)), None, trailer)
            }
        };
        let checksum = expected(headers, has_trailer)?
            .map(|(algorithm, expected)| (ChecksumHasher::new(algorithm), expected));
        let (ready, small, is_chunked) = (VecDeque::new(), BytesMut::new(), decoder.is_some());
        let received = 0;
        Ok(Self { decoder, is_chunked, content_bytes, received, sha256, checksum, ready, small })
    }

    /// Takes the next bytes of the body; content becomes `ready`.
    fn take(&mut self, bytes: Bytes) -> Result<(), S3Refusal> {
        match self.decoder.take() {
            None => self.take_content(bytes)?,
            Some(mut decoder) => {
                decoder.feed(bytes, &mut |content| self.take_content(content))?;
                self.decoder = Some(decoder);
            }
        }
        self.flush_small();
        Ok(())
    }

    fn take_content(&mut self, content: Bytes) -> Result<(), S3Refusal> {
        self.received = self.received.saturating_add(content.len() as u64);
        if self.content_bytes.is_some_and(|announced| self.received > announced) {
            return Err(incomplete());
        }
        if let Some((hasher, _)) = &mut self.sha256 {
            hasher.update(&content);
        }
        if let Some((hasher, _)) = &mut self.checksum {
            hasher.update(&content);
        }
        if content.len() < PIECE_BYTES_MIN && self.is_chunked {
            self.small.extend_from_slice(&content);
            if self.small.len() >= PIECE_BYTES_MIN {
                self.flush_small();
            }
        } else {
            self.flush_small();
            self.ready.push_back(content);
        }
        Ok(())
    }

    fn flush_small(&mut self) {
        if !self.small.is_empty() {
            self.ready.push_back(mem::take(&mut self.small).freeze());
        }
    }

    /// Compares everything that is known once the body has ended.
    fn finish(&mut self) -> Result<Option<Checksum>, S3Refusal> {
        let trailers = match self.decoder.take() {
            Some(decoder) => decoder.finish()?,
            None => Vec::new(),
        };
        if self.content_bytes.is_some_and(|announced| self.received != announced) {
            return Err(incomplete());
        }
        if let Some((hasher, wanted)) = self.sha256.take()
            && hasher.finish() != wanted
        {
            return Err(s3_refuse(
                400,
                "XAmzContentSHA256Mismatch",
                "The provided 'x-amz-content-sha256' header does not match what was computed.",
            ));
        }
        let Some((hasher, expected)) = self.checksum.take() else {
            return if trailers.is_empty() { Ok(None) } else { Err(malformed_trailer()) };
        };
        let algorithm = hasher.algorithm();
        let expected = match (expected, trailers.as_slice()) {
            (Expected::Is(checksum), []) => checksum,
            (Expected::InTrailer, [(name, value)]) if name == algorithm.header() => {
                Checksum::parse(algorithm, value)
                    .ok_or_else(|| invalid_value(algorithm.header()))?
            }
            (Expected::Is(_) | Expected::InTrailer, _) => return Err(malformed_trailer()),
        };
        let computed = hasher.finish();
        if computed == expected { Ok(Some(computed)) } else { Err(bad_digest(algorithm.as_str())) }
    }
}

/// The content of a body as a stream, with what becomes of it.
fn checked(
    checker: Checker,
    payload: Incoming,
    http: &Http,
) -> (impl Stream<Item = Result<Bytes, BodyFault>> + use<>, Outcome) {
    let outcome = Outcome::default();
    let body = Box::pin(with_idle_limit(payload, http));
    let content = stream::unfold(Some((checker, body, outcome.clone())), async |state| {
        let (mut checker, mut body, told) = state?;
        let wrong = |refusal| {
            *told.0.borrow_mut() = Ending::Wrong(Box::new(refusal));
            Some((Err(BodyFault::Broken), None))
        };
        loop {
            if let Some(content) = checker.ready.pop_front() {
                return Some((Ok(content), Some((checker, body, told))));
            }
            match body.next().await {
                Some(Ok(bytes)) => {
                    if let Err(refusal) = checker.take(bytes) {
                        return wrong(refusal);
                    }
                }
                Some(Err(BodyFault::Broken)) => return wrong(incomplete()),
                Some(Err(fault)) => return Some((Err(fault), None)),
                None => match checker.finish() {
                    Ok(checksum) => {
                        *told.0.borrow_mut() = Ending::Right(checksum);
                        return None;
                    }
                    Err(refusal) => return wrong(refusal),
                },
            }
        }
    });
    (content, outcome)
}

/// Takes `aws-chunked` apart while it comes.
pub(crate) struct Decoder {
    signer: Option<ChunkSigner>,
    has_trailer: bool,
    /// Bytes of content that may still come.
    room: u64,
    state: State,
    /// The line that is being read.
    line: Vec<u8>,
    /// Everything after the last chunk.
    trailer: Vec<u8>,
    /// Of the trailer.
    lines: usize,
    /// Of the chunk that is being read, where chunks are signed.
    signature: Vec<u8>,
    hasher: Sha256Hasher,
}

#[derive(Clone, Copy)]
enum State {
    /// In the line before a chunk.
    Size,
    /// In a chunk, of which so many bytes are to come.
    Content(u64),
    /// Between a chunk and the next line.
    ContentEnd,
    /// After the last chunk.
    Trailer,
}

impl Decoder {
    /// `room` is the length of the content.
    pub(crate) fn new(signer: Option<ChunkSigner>, has_trailer: bool, room: u64) -> Self {
        Self {
            signer,
            has_trailer,
            room,
            state: State::Size,
            line: Vec::new(),
            trailer: Vec::new(),
            lines: 0,
            signature: Vec::new(),
            hasher: Sha256Hasher::default(),
        }
    }

    /// Takes the next bytes of a body and hands on the content in them.
    pub(crate) fn feed(
        &mut self,
        mut bytes: Bytes,
        hand_on: &mut dyn FnMut(Bytes) -> Result<(), S3Refusal>,
    ) -> Result<(), S3Refusal> {
        while !bytes.is_empty() {
            match self.state {
                State::Size => {
                    if self.read_line(&mut bytes)? {
                        self.begin_chunk()?;
                    }
                }
                State::Content(left) => {
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    let content = bytes.split_to(here);
                    if self.signer.is_some() {
                        self.hasher.update(&content);
                    }
                    let left = left.saturating_sub(here as u64);
                    self.state = if left == 0 { State::ContentEnd } else { State::Content(left) };
                    hand_on(content)?;
                }
                State::ContentEnd => {
                    if self.read_line(&mut bytes)? {
                        if !mem::take(&mut self.line).is_empty() {
                            return Err(malformed_chunk("a chunk is longer than its line says"));
                        }
                        self.check_signature()?;
                        self.state = State::Size;
                    }
                }
                State::Trailer => {
                    if self.trailer.len() + bytes.len() > TRAILER_BYTES_MAX {
                        return Err(malformed_trailer());
                    }
                    // Refused here, before its end comes; empty lines between headers are allowed.
                    self.lines += bytes.split(|byte| *byte == b'\n').count() - 1;
                    if self.lines > 2 * TRAILERS_MAX {
                        return Err(malformed_trailer());
                    }
                    self.trailer.extend_from_slice(&mem::take(&mut bytes));
                }
            }
        }
        Ok(())
    }

    /// Reads on in a line; true when it is complete. Its end is not part of it.
    fn read_line(&mut self, bytes: &mut Bytes) -> Result<bool, S3Refusal> {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let piece = bytes.split_to(end.map_or(bytes.len(), |end| end + 1));
        if self.line.len() + piece.len() > LINE_BYTES_MAX {
            return Err(malformed_chunk("the line of a chunk is too long"));
        }
        self.line.extend_from_slice(&piece);
        if end.is_none() {
            return Ok(false);
        }
        let length = without_line_end(&self.line).len();
        self.line.truncate(length);
        Ok(true)
    }

    /// Reads `<hex digits>` or `<hex digits>;chunk-signature=<digits>`.
    fn begin_chunk(&mut self) -> Result<(), S3Refusal> {
        let line = mem::take(&mut self.line);
        let line = std::str::from_utf8(&line).unwrap_or_default();
        let mut fields = line.split(';');
        let size = fields.next().unwrap_or_default();
        let digits = (1..=16).contains(&size.len()) && size.bytes().all(|b| b.is_ascii_hexdigit());
        let size = u64::from_str_radix(size, 16).ok().filter(|_| digits);
        let size = size.ok_or_else(|| malformed_chunk("a chunk has no length"))?;
        if self.signer.is_some() {
            let mut signatures = fields.filter_map(|field| field.strip_prefix("chunk-signature="));
            let signature = signatures.next().filter(|_| signatures.next().is_none());
            let signature = signature.ok_or_else(|| malformed_chunk("a chunk has no signature"))?;
            self.signature = signature.as_bytes().to_vec();
        }
        self.room = self.room.checked_sub(size).ok_or_else(incomplete)?;
        if size > 0 {
            self.state = State::Content(size);
            return Ok(());
        }
        if self.room > 0 {
            return Err(incomplete());
        }
        self.check_signature()?;
        self.state = State::Trailer;
        Ok(())
    }

    fn check_signature(&mut self) -> Result<(), S3Refusal> {
        let Some(signer) = &mut self.signer else { return Ok(()) };
        let content = mem::take(&mut self.hasher).finish();
        if signer.fits_chunk(content, &self.signature) { Ok(()) } else { Err(signature_mismatch()) }
    }

    /// Ends the body; answers the headers that followed it, names in lower case.
    pub(crate) fn finish(mut self) -> Result<Vec<(String, Vec<u8>)>, S3Refusal> {
        if !matches!(self.state, State::Trailer) {
            return Err(incomplete());
        }
        let mut headers: Vec<(String, Vec<u8>)> = Vec::new();
        for line in self.trailer.split(|byte| *byte == b'\n') {
            let line = without_line_end(line);
            if line.is_empty() {
                continue;
            }
            let colon = line.iter().position(|byte| *byte == b':').ok_or_else(malformed_trailer)?;
            let (name, value) = line.split_at(colon);
            let name = std::str::from_utf8(name).map_err(|_| malformed_trailer())?;
            let value = value.get(1..).unwrap_or_default().trim_ascii();
            if !self.has_trailer || headers.len() >= TRAILERS_MAX {
                return Err(malformed_trailer());
            }
            headers.push((name.trim().to_ascii_lowercase(), value.to_vec()));
        }
        let Some(signer) = self.signer.as_mut().filter(|_| self.has_trailer) else {
            return Ok(headers);
        };
        let (name, signature) = headers.pop().ok_or_else(malformed_trailer)?;
        if name != TRAILER_SIGNATURE {
            return Err(malformed_trailer());
        }
        let mut lines: Vec<Vec<u8>> = headers
            .iter()
            .map(|(name, value)| [name.as_bytes(), b":", value, b"\n"].concat())
            .collect();
        lines.sort();
        let hash = sha256_of(lines.iter().map(Vec::as_slice));
        if signer.fits_trailer(hash, &signature) { Ok(headers) } else { Err(signature_mismatch()) }
    }
}

/// A line without its end, of either form.
fn without_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::domain::time::Millis;

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    /// The moment of the examples in AWS's documentation.
    const AT: Millis = Millis(1_369_353_600_000);

    fn signer(seed: &str) -> ChunkSigner {
        ChunkSigner::for_tests(SECRET, AT, "us-east-1", seed)
    }

    const SIGNED: PayloadHash = PayloadHash::Chunks { signed: true, trailer: false };
    const SIGNED_TRAILER: PayloadHash = PayloadHash::Chunks { signed: true, trailer: true };
    const TRAILER_ONLY: PayloadHash = PayloadHash::Chunks { signed: false, trailer: true };

    fn header_map(headers: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            map.append(name, HeaderValue::from_str(value).unwrap());
        }
        map
    }

    type Checked = Result<(Vec<u8>, Option<Checksum>), S3Refusal>;

    /// Takes a body that comes in pieces of `piece` bytes.
    fn take_in_pieces(
        headers: &[(&str, &str)],
        payload: PayloadHash,
        chunks: Option<ChunkSigner>,
        body: &[u8],
        piece: usize,
    ) -> Checked {
        let mut signed = Authentic { caller: None, payload, chunks };
        let headers = header_map(headers);
        let announced = content_length(&headers, &signed)?;
        let mut checker = Checker::of(&headers, &mut signed, announced)?;
        for piece in body.chunks(piece) {
            checker.take(Bytes::copy_from_slice(piece))?;
        }
        let checksum = checker.finish()?;
        Ok((checker.ready.iter().flatten().copied().collect(), checksum))
    }

    fn take(
        headers: &[(&str, &str)],
        payload: PayloadHash,
        chunks: Option<&str>,
        body: &[u8],
    ) -> Checked {
        let whole = take_in_pieces(headers, payload, chunks.map(signer), body, body.len().max(1));
        for piece in [1, 7, 1000] {
            let again = take_in_pieces(headers, payload, chunks.map(signer), body, piece);
            assert_eq!(again, whole, "in pieces of {piece}");
        }
        whole
    }

    fn code(checked: &Checked) -> &'static str {
        checked.as_ref().map_or_else(|refusal| refusal.code, |_| "none")
    }

    /// A body in chunks; signed ones go on from `seed`.
    fn chunked(contents: &[&[u8]], seed: Option<&str>, trailer: &[(&str, &str)]) -> Vec<u8> {
        let mut signer = seed.map(signer);
        let mut body = Vec::new();
        for content in contents.iter().chain([&&b""[..]]) {
            body.extend_from_slice(format!("{:x}", content.len()).as_bytes());
            if let Some(signer) = &mut signer {
                let signature = signer.sign_chunk(content);
                body.extend_from_slice(format!(";chunk-signature={signature}").as_bytes());
            }
            body.extend_from_slice(b"\r\n");
            if !content.is_empty() {
                body.extend_from_slice(content);
                body.extend_from_slice(b"\r\n");
            }
        }
        let mut lines = Vec::new();
        for (name, value) in trailer {
            lines.extend_from_slice(format!("{name}:{value}\n").as_bytes());
            body.extend_from_slice(format!("{name}:{value}\r\n").as_bytes());
        }
        if let (Some(signer), false) = (&mut signer, trailer.is_empty()) {
            let signature = signer.sign_trailer(&lines);
            body.extend_from_slice(format!("{TRAILER_SIGNATURE}:{signature}\r\n").as_bytes());
        }
        body.extend_from_slice(b"\r\n");
        body
    }

    fn checksum_of(algorithm: ChecksumAlgorithm, content: &[u8]) -> Checksum {
        let mut hasher = ChecksumHasher::new(algorithm);
        hasher.update(content);
        hasher.finish()
    }

    const SEED: &str = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9";
    const TRAILER_SEED: &str = "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e";

    /// The body of the example in AWS's documentation.
    fn example() -> Vec<u8> {
        let mut body = Vec::new();
        for (size, signature) in [
            (65_536, "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648"),
            (1024, "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497"),
            (0, "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9"),
        ] {
            body.extend_from_slice(format!("{size:x};chunk-signature={signature}\r\n").as_bytes());
            body.extend(std::iter::repeat_n(b'a', size));
            body.extend_from_slice(b"\r\n");
        }
        body
    }

    #[test]
    fn s3_38_the_published_example_of_signed_chunks_is_taken_and_a_changed_one_is_not() {
        let headers = [(DECODED_LENGTH, "66560")];
        let (content, checksum) = take(&headers, SIGNED, Some(SEED), &example()).unwrap();
        assert_eq!((content, checksum), (vec![b'a'; 66_560], None));
        for at in [100, 65_535, 66_000] {
            let mut damaged = example();
            damaged[at] = b'b';
            let checked = take_in_pieces(&headers, SIGNED, Some(signer(SEED)), &damaged, 4096);
            assert_eq!(code(&checked), "SignatureDoesNotMatch", "byte {at}");
        }
        let other_seed = take_in_pieces(&headers, SIGNED, Some(signer("00")), &example(), 4096);
        assert_eq!(code(&other_seed), "SignatureDoesNotMatch");
    }

    #[test]
    fn reliability_c11_chunks_that_are_changed_moved_repeated_or_missing_are_noticed() {
        let contents: [&[u8]; 3] = [b"first", b"second", b"third"];
        let whole = chunked(&contents, Some(SEED), &[]);
        let headers = [(DECODED_LENGTH, "16")];
        assert!(take(&headers, SIGNED, Some(SEED), &whole).is_ok());
        let text = String::from_utf8(whole.clone()).unwrap();
        let chunks: Vec<&str> = text.split_inclusive("\r\n").collect();
        // Each chunk is two lines; the last one is a line and an empty one.
        let body = |order: &[usize]| -> Vec<u8> {
            order.iter().flat_map(|at| chunks[at * 2..at * 2 + 2].concat().into_bytes()).collect()
        };
        assert_eq!(body(&[0, 1, 2, 3]), whole);
        for (order, expected) in [
            (&[1, 0, 2, 3][..], "SignatureDoesNotMatch"),
            (&[0, 0, 1, 3], "SignatureDoesNotMatch"),
            (&[0, 2, 1, 3], "SignatureDoesNotMatch"),
            (&[0, 1, 2], "IncompleteBody"),
            (&[0, 1, 3], "IncompleteBody"),
            (&[3], "IncompleteBody"),
            (&[], "IncompleteBody"),
            (&[0, 1, 2, 3, 3], "MalformedTrailerError"),
        ] {
            assert_eq!(
                code(&take(&headers, SIGNED, Some(SEED), &body(order))),
                expected,
                "{order:?}"
            );
        }
        // Each signature in its turn.
        for (at, _) in text.match_indices("chunk-signature=") {
            let mut wrong = whole.clone();
            let digit = at + "chunk-signature=".len() + 9;
            wrong[digit] = if wrong[digit] == b'0' { b'1' } else { b'0' };
            let checked = take(&headers, SIGNED, Some(SEED), &wrong);
            assert_eq!(code(&checked), "SignatureDoesNotMatch", "signature at {at}");
        }
        let unsigned = chunked(&contents, None, &[]);
        assert_eq!(code(&take(&headers, SIGNED, Some(SEED), &unsigned)), "InvalidRequest");
    }

    #[test]
    fn s3_39_the_published_example_of_a_signed_trailer_is_taken_and_a_wrong_one_is_not() {
        let mut signer = signer(TRAILER_SEED);
        let mut body = Vec::new();
        for size in [65_536, 1024, 0] {
            let content = vec![b'a'; size];
            let signature = signer.sign_chunk(&content);
            body.extend_from_slice(format!("{size:x};chunk-signature={signature}\r\n").as_bytes());
            body.extend_from_slice(&content);
            if size > 0 {
                body.extend_from_slice(b"\r\n");
            }
        }
        let published = "d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435";
        // As the documentation writes it: with one kind of line end here and another one there.
        let with = |line: &str, signature: &str| {
            let end = format!("{line}\n\r\n{TRAILER_SIGNATURE}:{signature}\r\n\r\n");
            [&body[..], end.as_bytes()].concat()
        };
        let line = "x-amz-checksum-crc32c:sOO8/Q==";
        let headers = [(DECODED_LENGTH, "66560"), (TRAILER, "x-amz-checksum-crc32c")];
        let take = |body: &[u8]| take(&headers, SIGNED_TRAILER, Some(TRAILER_SEED), body);
        let (content, checksum) = take(&with(line, published)).unwrap();
        assert_eq!(content.len(), 66_560);
        assert_eq!(checksum.map(|checksum| checksum.base64()).as_deref(), Some("sOO8/Q=="));
        let wrong = published.replacen('d', "e", 1);
        assert_eq!(code(&take(&with(line, &wrong))), "SignatureDoesNotMatch");
        let other = "x-amz-checksum-crc32c:sOO8/A==";
        assert_eq!(code(&take(&with(other, published))), "SignatureDoesNotMatch");
        let unsigned = [&body[..], line.as_bytes(), b"\r\n\r\n"].concat();
        assert_eq!(code(&take(&unsigned)), "MalformedTrailerError");
        assert_eq!(code(&take(&[&body[..], b"\r\n"].concat())), "MalformedTrailerError");
    }

    #[test]
    fn s3_41_reliability_c13_a_trailer_is_the_announced_checksum_and_right() {
        let content = b"some content";
        let crc = checksum_of(ChecksumAlgorithm::Crc32, content);
        let value = crc.base64();
        let (name, other) = ("x-amz-checksum-crc32", "x-amz-checksum-crc32c");
        let headers = [(DECODED_LENGTH, "12"), (TRAILER, name)];
        let take_with = |trailer: &[(&str, &str)]| {
            take(&headers, TRAILER_ONLY, None, &chunked(&[content], None, trailer))
        };
        assert_eq!(take_with(&[(name, &value)]), Ok((content.to_vec(), Some(crc))));
        assert!(take_with(&[("X-Amz-Checksum-CRC32", &value)]).is_ok());
        for (trailer, expected) in [
            (&[(name, "AAAAAA==")][..], "BadDigest"),
            (&[(name, "AAAA")], "InvalidRequest"),
            (&[(name, "")], "InvalidRequest"),
            (&[], "MalformedTrailerError"),
            (&[(other, value.as_str())], "MalformedTrailerError"),
            (&[(name, &value), (name, &value)], "MalformedTrailerError"),
            (&[(name, &value), (other, "AAAAAA==")], "MalformedTrailerError"),
            (&[(name, &value), ("x-amz-meta-a", "b")], "MalformedTrailerError"),
            (&[(TRAILER_SIGNATURE, "00")], "MalformedTrailerError"),
        ] {
            assert_eq!(code(&take_with(trailer)), expected, "{trailer:?}");
        }
        let undeclared = [(DECODED_LENGTH, "12")];
        let body = chunked(&[content], None, &[(name, &value)]);
        assert_eq!(code(&take(&undeclared, TRAILER_ONLY, None, &body)), "MalformedTrailerError");
        // Without its last line end, and with the other form of it.
        let text = String::from_utf8(body).unwrap();
        for body in [text.trim_end().to_owned(), text.trim_end().to_owned() + "\n"] {
            assert!(take(&headers, TRAILER_ONLY, None, body.as_bytes()).is_ok());
        }
    }

    #[test]
    fn s3_42_reliability_c14_the_decoded_length_is_exact() {
        let body = chunked(&[b"some content"], None, &[]);
        let with = |length: &str| take(&[(DECODED_LENGTH, length)], TRAILER_ONLY, None, &body);
        assert!(with("12").is_ok());
        for (length, expected) in [
            ("11", "IncompleteBody"),
            ("13", "IncompleteBody"),
            ("0", "IncompleteBody"),
            ("9223372036854775808", "IncompleteBody"),
            ("-1", "InvalidArgument"),
            ("+12", "InvalidArgument"),
            ("", "InvalidArgument"),
            ("0xc", "InvalidArgument"),
            ("99999999999999999999", "InvalidArgument"),
        ] {
            assert_eq!(code(&with(length)), expected, "{length}");
        }
        let absent = take(&[("content-length", "12")], TRAILER_ONLY, None, &body).unwrap_err();
        assert_eq!((absent.status, absent.code), (411, "MissingContentLength"));
        let twice = [(DECODED_LENGTH, "12"), (DECODED_LENGTH, "12")];
        assert_eq!(code(&take(&twice, TRAILER_ONLY, None, &body)), "InvalidRequest");
    }

    #[test]
    fn s3_43_lines_and_trailers_without_end_are_refused_while_they_come() {
        let headers = [(DECODED_LENGTH, "5")];
        let take = |body: &[u8]| take(&headers, TRAILER_ONLY, None, body);
        let long_line = [&b"5;x="[..], &[b'a'; 1100], b"\r\nhello\r\n0\r\n\r\n"].concat();
        let many: Vec<u8> = (0..101).flat_map(|n| format!("a{n}:b\r\n").into_bytes()).collect();
        let many = [b"5\r\nhello\r\n0\r\n", &many[..]].concat();
        let long_trailer = [&b"5\r\nhello\r\n0\r\na:"[..], &vec![b'a'; 17_000]].concat();
        for (body, expected) in [
            (&long_line[..], "InvalidRequest"),
            (&many, "MalformedTrailerError"),
            (&long_trailer, "MalformedTrailerError"),
            (b"8000000000000000\r\nhello", "IncompleteBody"),
            (b"ffffffffffffffff\r\nhello", "IncompleteBody"),
            (b"00000000000000005\r\nhello\r\n0\r\n\r\n", "InvalidRequest"),
            (b"-5\r\nhello\r\n0\r\n\r\n", "InvalidRequest"),
            (b"+5\r\nhello\r\n0\r\n\r\n", "InvalidRequest"),
            (b"0x5\r\nhello\r\n0\r\n\r\n", "InvalidRequest"),
            (b" 5\r\nhello\r\n0\r\n\r\n", "InvalidRequest"),
            (b"\r\n5\r\nhello\r\n0\r\n\r\n", "InvalidRequest"),
            (b"5\r\nhello0\r\n\r\n", "InvalidRequest"),
            (b"4\r\nhello\r\n0\r\n\r\n", "InvalidRequest"),
            (b"6\r\nhello\r\n0\r\n\r\n", "IncompleteBody"),
            (b"5\r\nhello\r\n0\r\nno colon\r\n", "MalformedTrailerError"),
            (b"hello", "IncompleteBody"),
            (b"5\r\nhello\r\n", "IncompleteBody"),
        ] {
            assert_eq!(code(&take(body)), expected, "{}", String::from_utf8_lossy(body));
        }
        assert!(take(b"5\r\nhello\r\n0\r\n\r\n").is_ok());
        assert!(take(b"2;x=y\r\nhe\r\n003\r\nllo\r\n0").is_err(), "no end of the last line");
        assert!(take(b"2;x=y\r\nhe\r\n003\r\nllo\r\n0\r\n").is_ok());
    }

    #[test]
    fn s3_36_content_that_has_another_sha256_is_refused() {
        let digest = sha256_of(std::iter::once(&b"content"[..]));
        let headers = [("content-length", "7")];
        let right = take(&headers, PayloadHash::Is(digest), None, b"content");
        assert_eq!(right, Ok((b"content".to_vec(), None)));
        let wrong = take(&headers, PayloadHash::Is(digest), None, b"contenT").unwrap_err();
        assert_eq!((wrong.status, wrong.code), (400, "XAmzContentSHA256Mismatch"));
        for (body, length) in [("content", "6"), ("content", "8"), ("", "7")] {
            let headers = [("content-length", length)];
            let checked = take(&headers, PayloadHash::Unsigned, None, body.as_bytes());
            assert_eq!(code(&checked), "IncompleteBody");
        }
    }

    #[test]
    fn s3_46_every_checksum_header_is_compared() {
        for &algorithm in ChecksumAlgorithm::ALL {
            let right = checksum_of(algorithm, b"content");
            let take_with = |headers: &[(&str, &str)]| {
                let all = [&[("content-length", "7")], headers].concat();
                take(&all, PayloadHash::Unsigned, None, b"content")
            };
            let (name, value) = (algorithm.header(), right.base64());
            let taken = take_with(&[(name, &value)]);
            assert_eq!(taken, Ok((b"content".to_vec(), Some(right.clone()))));
            assert!(take_with(&[(name, &value), (SDK_ALGORITHM, algorithm.as_str())]).is_ok());
            let wrong = checksum_of(algorithm, b"other").base64();
            let refused = take_with(&[(name, &wrong)]).unwrap_err();
            assert_eq!((refused.status, refused.code), (400, "BadDigest"));
            assert!(refused.message.contains(algorithm.as_str()), "{}", refused.message);
            let other = ChecksumAlgorithm::ALL.iter().find(|other| **other != algorithm).unwrap();
            for headers in [
                &[(name, "AAA=")][..],
                &[(name, "")],
                &[(name, "not base64")],
                &[(name, value.as_str()), (name, value.as_str())],
                &[(name, &value), (other.header(), &checksum_of(*other, b"content").base64())],
                &[(name, &value), (SDK_ALGORITHM, other.as_str())],
                &[(name, &value), (SDK_ALGORITHM, "MD5")],
                &[(SDK_ALGORITHM, algorithm.as_str())],
                &[("x-amz-checksum-md5", "AAAA")],
                &[(TRAILER, "x-amz-meta-a")],
            ] {
                assert_eq!(code(&take_with(headers)), "InvalidRequest", "{headers:?}");
            }
            assert_eq!(code(&take_with(&[(TRAILER, name)])), "MalformedTrailerError");
        }
        let plain = [("content-length", "7"), ("x-amz-checksum-algorithm", "CRC32")];
        assert!(take(&plain, PayloadHash::Unsigned, None, b"content").is_ok());
    }

    #[test]
    fn s3_45_the_md5_of_content_is_sixteen_bytes_in_base64() {
        let md5 = |value: &str| content_md5(&header_map(&[("content-md5", value)]));
        assert_eq!(md5("1B2M2Y8AsgTpgAmY7PhCfg==").unwrap(), Some(Md5Digest::OF_NOTHING));
        assert_eq!(content_md5(&header_map(&[])).unwrap(), None);
        for wrong in ["", "x", "1B2M2Y8AsgTpgAmY7PhCfg", "AAAA", "d41d8cd98f00b204e9800998ecf8427e"]
        {
            let refused = md5(wrong).unwrap_err();
            assert_eq!((refused.status, refused.code), (400, "InvalidDigest"), "{wrong}");
        }
    }

    #[test]
    fn s3_48_checksums_can_be_refused_as_they_were_before() {
        for name in ["x-amz-checksum-crc32", "x-amz-checksum-mode", SDK_ALGORITHM, TRAILER] {
            let refused = refuse_checksums(&header_map(&[(name, "x")])).unwrap_err();
            assert_eq!((refused.status, refused.code), (400, "InvalidArgument"));
            let text = format!("Unsupported header '{name}' received for this API call.");
            assert_eq!(refused.message, text);
        }
        assert!(refuse_checksums(&header_map(&[("x-amz-meta-a", "b")])).is_ok());
    }

    proptest! {
        #[test]
        fn whatever_is_put_into_chunks_comes_out_again(
            contents in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 1..300), 0..6),
            piece in 1_usize..400,
            is_signed in any::<bool>(),
            algorithm in prop::sample::select(ChecksumAlgorithm::ALL),
        ) {
            let all = contents.concat();
            let contents: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
            let checksum = checksum_of(algorithm, &all);
            let value = checksum.base64();
            let seed = is_signed.then_some(SEED);
            let body = chunked(&contents, seed, &[(algorithm.header(), &value)]);
            let length = all.len().to_string();
            let headers = [(DECODED_LENGTH, length.as_str()), (TRAILER, algorithm.header())];
            let payload = if is_signed { SIGNED_TRAILER } else { TRAILER_ONLY };
            let taken = take_in_pieces(&headers, payload, seed.map(signer), &body, piece);
            prop_assert_eq!(taken, Ok((all, Some(checksum))));
            let cut = take_in_pieces(&headers, payload, seed.map(signer), &body[..body.len() / 2], piece);
            prop_assert!(cut.is_err());
        }
    }
}
