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

use actix_web::HttpRequest;
use actix_web::http::header::{CONTENT_LENGTH, HeaderMap};
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
use crate::operations::upload::BodyFault;

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
const SDK_ALGORITHM: &str = "x-amz-sdk-checksum-algorithm";
const CHECKSUM_PREFIX: &str = "x-amz-checksum-";
/// Headers that begin like checksums and are none.
const NO_CHECKSUMS: [&str; 3] =
    ["x-amz-checksum-algorithm", "x-amz-checksum-mode", "x-amz-checksum-type"];

/// Content on its way in.
pub(crate) struct S3Content<B> {
    /// Length of the content.
    pub(crate) content_bytes: u64,
    /// From `Content-MD5`; whoever stores the content compares it.
    pub(crate) md5: Option<Md5Digest>,
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
    request: &HttpRequest,
    payload: Incoming,
    http: &Http,
    signed: &mut Authentic,
) -> Result<S3Content<impl Stream<Item = Result<Bytes, BodyFault>> + use<>>, S3Error> {
    let headers = request.headers();
    let content_bytes = content_length(headers, signed)?.ok_or_else(missing_length)?;
    let md5 = content_md5(headers)?;
    let checker = Checker::of(headers, signed, Some(content_bytes))?;
    let (body, outcome) = checked(checker, payload, http);
    Ok(S3Content { content_bytes, md5, body, outcome })
}

/// Reads a whole small body, for XML.
pub(crate) async fn whole(
    request: &HttpRequest,
    payload: Incoming,
    http: &Http,
    signed: &mut Authentic,
    bytes_max: usize,
) -> Result<Bytes, S3Error> {
    let headers = request.headers();
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
pub(crate) fn brings_digest(request: &HttpRequest) -> bool {
    let headers = request.headers();
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
    for name in headers.keys().map(|name| name.as_str()) {
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
    let invalid =
        |_: ()| s3_refuse(400, "InvalidDigest", "The Content-MD5 you specified is not valid.");
    let Some(text) = one(headers, "content-md5").map_err(|_| invalid(()))? else { return Ok(None) };
    let md5 = STANDARD.decode(text).ok().and_then(|bytes| Md5Digest::from_slice(&bytes));
    md5.map(Some).ok_or(()).map_err(invalid)
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
    for name in headers.keys().map(|name| name.as_str()) {
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
