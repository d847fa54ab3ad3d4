//! What parsers must hold for any bytes whatever: the targets of the fuzzer, and of the replay of
//! its corpus in the ordinary tests (`tests/it/corpus.rs`).
//!
//! A target panics when a property does not hold. None has effects.

use bytes::Bytes;
use serde_json::Value;

use crate::api::native::account::basic_credentials;
use crate::api::native::fields::{Fields, parse_query};
use crate::api::s3::Profile;
use crate::api::s3::chunked::Decoder;
use crate::api::s3::lifecycle::{read_rules, write_rules};
use crate::api::s3::place::Place;
use crate::api::s3::xml::Element;
use crate::auth::key_ring::{KeyRing, RingFile};
use crate::auth::sigv4::{Request, Rules, canonical_path, canonical_query, read_claim};
use crate::auth::token::{TOKEN_LIFE_MS, TokenKind, Tokens};
use crate::blobs::sealed::Cipher;
use crate::domain::content_type;
use crate::domain::cors::{self, CorsOperation, CorsRule};
use crate::domain::digest::Sha1Digest;
use crate::domain::encryption::{CustomerKey, DataKey};
use crate::domain::file::{FileInfo, check_header_value};
use crate::domain::ids::{BlobId, BucketId, ClaimedFileId, FileId, KeyId};
use crate::domain::lifecycle::check_each;
use crate::domain::names::{BucketName, FileName, check_prefix, decode_text, successor};
use crate::domain::percent;
use crate::domain::range::{ByteRange, Wanted};
use crate::domain::remote::{RemoteAddress, RemoteId, RemoteOptions, RemoteToken};
use crate::domain::replication::{
    Leniency, ReplicationConfiguration, ReplicationRule, check_configuration, winning_rules,
};
use crate::domain::time::Millis;
use crate::domain::webhook::{TargetPolicy, WebhookUrl};
use crate::entropy::Entropy;

/// One parser and what it must hold.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Also the name of its folder below `fixtures/corpus`.
    pub name: &'static str,
    /// Panics when a property does not hold for these bytes.
    pub run: fn(&[u8]),
}

/// Every target, in the order of their names.
pub const TARGETS: &[Target] = &[
    Target { name: "aws_chunked", run: aws_chunked },
    Target { name: "basic_credentials", run: basic },
    Target { name: "bucket_name", run: bucket_name },
    Target { name: "content_disposition", run: disposition },
    Target { name: "cors", run: cors_rule },
    Target { name: "customer_key", run: customer_key },
    Target { name: "file_id", run: file_id },
    Target { name: "file_info", run: file_info },
    Target { name: "file_name", run: file_name },
    Target { name: "json_fields", run: json_fields },
    Target { name: "key_ring", run: key_ring },
    Target { name: "query", run: query },
    Target { name: "range", run: range },
    Target { name: "remote", run: remote },
    Target { name: "replication_rules", run: replication_rules },
    Target { name: "s3_document", run: s3_document },
    Target { name: "s3_place", run: s3_place },
    Target { name: "sealed", run: sealed },
    Target { name: "sha1", run: sha1 },
    Target { name: "signature", run: signature },
    Target { name: "token", run: token },
    Target { name: "webhook_url", run: webhook_url },
];

fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// The first byte says whether headers may follow the last chunk.
fn aws_chunked(bytes: &[u8]) {
    let Some((&first, body)) = bytes.split_first() else { return };
    let decode = |piece: usize| {
        let mut decoder = Decoder::new(None, first & 1 == 1, 64);
        let mut content = Vec::new();
        for piece in body.chunks(piece) {
            let mut hand_on = |bytes: Bytes| {
                content.extend_from_slice(&bytes);
                Ok(())
            };
            decoder.feed(Bytes::copy_from_slice(piece), &mut hand_on)?;
        }
        decoder.finish().map(|trailer| (content, trailer))
    };
    let whole = decode(body.len().max(1));
    assert_eq!(decode(1), whole, "where a body is cut does not matter");
    if let Ok((content, trailer)) = whole {
        assert_eq!(content.len(), 64, "no more and no less than was announced");
        assert!(trailer.len() <= 100 && (first & 1 == 1 || trailer.is_empty()));
    }
}

fn basic(bytes: &[u8]) {
    if let Some((id, secret)) = basic_credentials(Some(&text(bytes))) {
        assert!(!id.is_empty() && !secret.is_empty() && !id.contains(':'));
    }
}

fn bucket_name(bytes: &[u8]) {
    let given = text(bytes);
    if let Ok(name) = BucketName::parse(&given) {
        assert_eq!(name.as_str(), given);
        assert!((6..=63).contains(&given.len()) && given.is_ascii());
        assert!(!name.folded().starts_with("b2-"));
        assert!(!given.contains('/'), "a bucket name is one part of a path");
    }
}

fn disposition(bytes: &[u8]) {
    let given = text(bytes);
    for header in ["Content-Disposition", "Expires", "Cache-Control"] {
        if check_header_value(header, &given).is_ok() {
            assert!(given.bytes().all(|byte| (32..127).contains(&byte)), "no header is split");
        }
    }
    if let Ok(kind) = content_type::resolve("Content-Type", &given, "f") {
        assert!(kind.bytes().all(|byte| (32..127).contains(&byte)), "{kind:?}");
    }
}

/// Three lines: algorithm, key and MD5, as they stand in headers and fields.
fn customer_key(bytes: &[u8]) {
    let given = text(bytes);
    let mut lines = given.lines();
    let mut next = || lines.next().unwrap_or_default();
    let (algorithm, key, md5) = (next(), next(), next());
    match CustomerKey::parse(algorithm, key, md5) {
        Ok(parsed) => assert_eq!((algorithm, parsed.md5().as_str()), ("AES256", md5)),
        Err(refusal) => assert!(key.len() < 20 || !refusal.message.contains(key)),
    }
}

/// Keeps no key ring.
struct Nowhere;

impl RingFile for Nowhere {
    fn keep(&self, _: &[u8]) -> std::io::Result<()> {
        Ok(())
    }
}

fn key_ring(bytes: &[u8]) {
    if let Ok(ring) = KeyRing::read(bytes.to_vec(), Box::new(Nowhere)) {
        let numbers: Vec<i64> = ring.list().iter().map(|key| key.number).collect();
        assert!(!numbers.is_empty() && numbers.is_sorted());
        assert!(ring.list().last().is_some_and(|key| key.is_current));
    }
}

/// Two bytes say how long the content is said to be, the rest is said to be its sealed form.
/// A document, read as lifecycle rules where it is one.
fn s3_document(bytes: &[u8]) {
    const ROOT: &str = "LifecycleConfiguration";
    let Ok(document) = Element::parse(bytes, &[ROOT]) else { return };
    let Ok((rules, names)) = read_rules(&document, Profile::Backblaze) else { return };
    assert!(check_each(&rules).is_ok(), "what is taken can be stored");
    let shown = write_rules(&rules, &names).finish();
    let again = Element::parse(shown.as_bytes(), &[ROOT])
        .map(|shown| read_rules(&shown, Profile::Backblaze));
    assert_eq!(again, Ok(Ok((rules, names))), "what is shown is read as what was taken");
}

/// A path as a bucket and a key.
fn s3_place(bytes: &[u8]) {
    let path = format!("/{}", text(bytes));
    let Ok(place) = Place::of_path(&path) else { return };
    assert!(place.key.is_none() || place.bucket.is_some());
    if let Some(key) = &place.key {
        let encoded = format!("/bucket/{}", percent::encode_for_listing(key));
        let again = Place::of_path(&encoded).map(|place| place.key);
        assert_eq!(again, Ok(Some(key.clone())), "a key is decoded once");
        if let Some(name) = FileName::of_key(key) {
            assert!(name.as_str() == key && key.len() <= 1024);
        }
    }
}

fn sealed(bytes: &[u8]) {
    let Some((&[high, low], stored)) = bytes.split_first_chunk() else { return };
    let size = u64::from(u16::from_be_bytes([high, low]));
    let (key, id) = (DataKey::new([7; 32]), BlobId(7));
    let cipher = Cipher::new(&key, id, size).expect("a key of the right length");
    assert!(cipher.open_whole(stored, ByteRange::whole(size)).is_err(), "a forgery");
}

/// The first line is the origin of a page, each further line an allowed origin.
fn cors_rule(bytes: &[u8]) {
    let given = text(bytes);
    let mut lines = given.lines();
    let origin = lines.next().unwrap_or_default();
    let rule = CorsRule {
        name: "fuzzed-rule".to_owned(),
        allowed_origins: lines.map(str::to_owned).collect(),
        allowed_operations: vec![CorsOperation::DownloadByName],
        allowed_headers: None,
        expose_headers: None,
        max_age_seconds: 0,
    };
    let valid = cors::check_rules(std::slice::from_ref(&rule)).is_ok();
    let rules = [rule];
    let found = cors::find_rule(&rules, CorsOperation::DownloadByName, origin, &[]);
    assert!(cors::find_rule(&rules, CorsOperation::UploadFile, origin, &[]).is_none());
    if let (true, Some(rule)) = (valid, found) {
        let plain = |allowed: &String| !allowed.contains('*') && allowed.contains("://");
        if rule.allowed_origins.iter().all(plain) {
            // Without wildcards an origin is allowed only when its host is named.
            let host = origin.split_once("://").map(|(_, rest)| rest.to_ascii_lowercase());
            let host = host.unwrap_or_default();
            let host = host.rsplit_once(':').map_or(host.as_str(), |(host, _)| host);
            let named = |allowed: &String| allowed.to_ascii_lowercase().contains(host);
            assert!(rule.allowed_origins.iter().any(named), "{origin} for {rule:?}");
        }
    }
}

fn file_id(bytes: &[u8]) {
    let given = text(bytes);
    if let Some(claimed) = ClaimedFileId::parse(&given) {
        let written_at = Millis(0);
        let (bucket, number, upload_at) = (claimed.bucket, claimed.number, claimed.upload_at);
        let id = FileId { bucket, number, written_at, upload_at };
        let again = ClaimedFileId::parse(&id.to_string());
        assert_eq!(again.map(|again| (again.bucket, again.number)), Some((bucket, number)));
    }
    if let Some(bucket) = BucketId::parse(&given) {
        assert_eq!(bucket.to_string(), given);
    }
}

/// Each line is a header: its name, a colon, its encoded value.
fn file_info(bytes: &[u8]) {
    let Ok(name) = FileName::parse("f") else { return };
    let headers = bytes.split(|byte| *byte == b'\n').filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (header, value) = line.split_at(colon);
        Some((std::str::from_utf8(header).ok()?, value.get(1..)?))
    });
    if let Ok(info) = FileInfo::from_headers(headers, &name) {
        let entries = info.entries();
        let encoded: usize = entries.iter().map(|(key, value)| key.len() + value.len()).sum();
        assert!(encoded <= 7000 * 3);
        assert!(entries.keys().all(|key| !key.bytes().any(|byte| byte.is_ascii_uppercase())));
        let again = FileInfo::from_entries(entries, &name);
        // What came as headers may be shorter there than our own encoding of it.
        if let Ok(again) = again {
            assert_eq!(again.as_json(), info.as_json());
        }
    }
}

fn file_name(bytes: &[u8]) {
    if let Ok(name) = FileName::decode(bytes) {
        let encoded = percent::encode(name.as_str());
        assert_eq!(FileName::decode(encoded.as_bytes()).as_ref(), Ok(&name));
        assert!(encoded.is_ascii() && !encoded.contains(' '));
        assert!((1..=1024).contains(&name.as_str().len()) && !name.as_str().contains('\0'));
    }
    let given = text(bytes);
    if check_prefix("prefix", &given).is_ok()
        && let Some(after) = successor(&given)
    {
        assert!(after.as_str() > given.as_ref());
        assert!(!after.starts_with(given.as_ref()));
    }
    if let Ok(decoded) = decode_text(bytes, "text") {
        assert_eq!(decode_text(percent::encode(&decoded).as_bytes(), "text"), Ok(decoded));
    }
}

fn json_fields(bytes: &[u8]) {
    let Ok(fields) = Fields::from_body(bytes) else { return };
    for name in ["a", "bucketId", "fileInfo", "mode", ""] {
        let (text, number) = (fields.text(name).is_ok(), fields.int(name).is_ok());
        assert!(!(text && number), "a JSON value has one type");
        assert_eq!(fields.opt_text(name).ok().flatten().is_some(), text);
        assert_eq!(fields.opt_int(name).ok().flatten().is_some(), number);
        drop((fields.opt_bool(name), fields.opt_texts(name), fields.opt_text_map(name)));
        drop((fields.asks_for(name), fields.names_no_mode(name), fields.opt_structure(name)));
    }
}

fn query(bytes: &[u8]) {
    let given = text(bytes);
    let Ok(pairs) = parse_query(&given) else { return };
    let written: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{}={}", percent::encode(name), percent::encode(value)))
        .collect();
    // A pair without a name and a value vanishes when it is written.
    if pairs.iter().all(|(name, value)| !(name.is_empty() && value.is_empty())) {
        assert_eq!(parse_query(&written.join("&")), Ok(pairs));
    }
    drop(Fields::from_query(&given));
}

/// The first eight bytes are the size of the content.
fn range(bytes: &[u8]) {
    let (size, header) = bytes.split_at(bytes.len().min(8));
    let mut padded = [0_u8; 8];
    if let Some(into) = padded.get_mut(..size.len()) {
        into.copy_from_slice(size);
    }
    let size = u64::from_le_bytes(padded) >> 1;
    let wanted = Wanted::parse(Some(&text(header)));
    if let Ok(range) = wanted.clamp(size) {
        assert!(range.start <= range.end && range.end <= size);
        assert!(range.start < range.end || wanted == Wanted::Whole);
    }
}

/// JSON: `{"configuration": …, "name": …}`.
fn replication_rules(bytes: &[u8]) {
    let Ok(Value::Object(parts)) = serde_json::from_slice::<Value>(bytes) else { return };
    let configuration = parts.get("configuration").cloned().unwrap_or_default();
    let Ok(wanted) = serde_json::from_value::<ReplicationConfiguration>(configuration) else {
        return;
    };
    let name = parts.get("name").and_then(Value::as_str).unwrap_or_default();
    let rules = wanted.rules().to_vec();
    let winners = winning_rules(&rules, name, false);
    for rule in &rules {
        let rivals = |other: &&ReplicationRule| {
            other.destination_bucket_id == rule.destination_bucket_id
                && other.is_enabled
                && name.starts_with(&other.file_name_prefix)
        };
        let best = rules.iter().filter(rivals).map(|rival| rival.priority).max();
        let won = winners
            .iter()
            .find(|winner| winner.destination_bucket_id == rule.destination_bucket_id)
            .map(|winner| winner.priority);
        assert_eq!(won, best, "the highest priority wins at each destination");
    }
    if let Ok(checked) = check_configuration(wanted, None, Leniency::default()) {
        assert!(checked.rules().len() <= 2);
        let stored = serde_json::to_string(&checked).unwrap_or_default();
        let read: Option<ReplicationConfiguration> = serde_json::from_str(&stored).ok();
        assert_eq!(read, Some(checked));
    }
}

fn sha1(bytes: &[u8]) {
    let given = text(bytes);
    if let Some(digest) = Sha1Digest::parse(&given) {
        assert_eq!(digest.to_string(), given.to_ascii_lowercase());
    }
}

/// Lines: method, path, query, then headers, each with a colon.
fn signature(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let mut next = || text(lines.next().unwrap_or_default()).into_owned();
    let (method, path, query) = (next(), next(), next());
    let headers: Vec<(String, Vec<u8>)> = lines
        .filter_map(|line| {
            let (name, value) = line.split_at(line.iter().position(|byte| *byte == b':')?);
            Some((text(name).to_ascii_lowercase(), value.get(1..)?.to_vec()))
        })
        .collect();
    let headers: Vec<(&str, &[u8])> =
        headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
    let request = Request { method: &method, path: &path, query: &query, headers: &headers };
    let rules = Rules { now: Millis(1_700_000_000_000), region: "us-west-000", any_region: true };
    if let Ok(Some(claim)) = read_claim(&request, &rules) {
        assert!(claim.verify(&request, "K000nobodysignedwiththissecret1").is_err(), "a forgery");
        assert!(headers.iter().all(|(name, _)| *name != "x-amz-security-token"));
    }
    // What is signed stands for itself.
    if let Some(form) = canonical_path(&path) {
        assert_eq!(canonical_path(&text(&form)).as_ref(), Some(&form));
    }
    if let Some(form) = canonical_query(&query) {
        assert_eq!(canonical_query(&text(&form)).as_ref(), Some(&form));
    }
}

/// Always the same bytes: what is fuzzed is the reading of tokens, not their secrecy.
struct NoEntropy;

impl Entropy for NoEntropy {
    fn fill(&self, into: &mut [u8]) {
        into.fill(7);
    }
}

fn token(bytes: &[u8]) {
    let made: Result<Tokens, std::convert::Infallible> = Tokens::new(|_| Ok(vec![9; 32].into()));
    let Ok(tokens) = made;
    let now = Millis(1_700_000_000_000);
    for kind in TokenKind::ALL {
        assert!(tokens.check(kind, &text(bytes), now).is_err(), "nobody signed this");
    }
    // A real one, altered in one place, or cut.
    let key = KeyId::named("000abcdefabcdef0000000001");
    let end = now.plus(TOKEN_LIFE_MS);
    let real = tokens.issue(TokenKind::Download, &key, end, bytes, &NoEntropy);
    let claims = tokens.check(TokenKind::Download, &real, now);
    assert_eq!(claims.map(|claims| claims.scope), Ok(bytes.to_vec()));
    let at = bytes.first().map_or(0, |at| usize::from(*at)) % real.len();
    let mut altered = real.clone().into_bytes();
    if let Some(byte) = altered.get_mut(at) {
        *byte = if *byte == b'0' { b'1' } else { b'0' };
    }
    let altered = String::from_utf8_lossy(&altered);
    assert!(tokens.check(TokenKind::Download, &altered, now).is_err(), "{altered}");
    assert!(tokens.check(TokenKind::Account, &real, now).is_err(), "of another kind");
}

/// Whatever is taken leads to no address that is private, judged apart from the rules themselves.
fn webhook_url(bytes: &[u8]) {
    use std::net::IpAddr;

    let given = text(bytes);
    let closed = TargetPolicy { allow_private: false, allow_http: false };
    let Ok(url) = WebhookUrl::parse(&given, closed) else { return };
    let written = url.as_str();
    let rest = written.strip_prefix("https://").unwrap_or_default();
    assert!(written.bytes().all(|byte| byte.is_ascii_graphic()), "one line of ASCII");
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    assert!(!authority.contains('@') && !authority.is_empty(), "{written}");
    let shown = url.host_and_port();
    let (host, _) = shown.rsplit_once(':').unwrap_or_default();
    assert_ne!(host, "localhost");
    if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
        let inner = match address.to_canonical() {
            IpAddr::V4(v4) => v4.is_private() || v4.is_link_local() || v4.is_broadcast(),
            IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
        };
        let address = address.to_canonical();
        assert!(!inner && !address.is_loopback(), "{written}");
        assert!(!address.is_unspecified() && !address.is_multicast(), "{written}");
    }
    assert!(WebhookUrl::parse(written, closed).is_ok(), "{written} is taken again");
}

/// What callers say of a remote: its address, its token, its id, and its options.
fn remote(bytes: &[u8]) {
    let given = text(bytes);
    if let Ok(address) = RemoteAddress::parse(&given) {
        let base = &address.base;
        let rest = base.strip_prefix("https://").or_else(|| base.strip_prefix("http://"));
        let authority = rest.unwrap_or_default().split('/').next().unwrap_or_default();
        assert!(!authority.is_empty() && !authority.contains('@'), "{base}");
        assert!(!base.contains(['?', '#']), "{base}");
        match RemoteAddress::parse(base) {
            Ok(again) => assert_eq!((&again.base, again.kind), (base, None), "its own base"),
            // What is no ASCII is longer in it.
            Err(refused) => assert!(base.len() > 2048, "{base}: {refused}"),
        }
    }
    match RemoteToken::parse(&given) {
        Ok(token) => {
            assert!(given.starts_with(&format!("{}:{}", token.key_id, token.secret.expose())));
        }
        // Always the same words, and so nothing of the token.
        Err(refused) => assert_eq!(Some(refused), RemoteToken::parse("").err()),
    }
    if let Some(id) = RemoteId::parse(&given) {
        assert_eq!(id.to_string(), given);
    }
    if let Ok(Value::Object(fields)) = serde_json::from_slice(bytes)
        && let Ok(options) = RemoteOptions::default().with(&fields)
        && let Ok(Value::Object(stored)) = serde_json::to_value(&options)
    {
        assert_eq!(RemoteOptions::default().with(&stored), Ok(options), "it is read back");
    }
}
