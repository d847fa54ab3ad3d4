//! Shared bytes: blobs of parts and copies live exactly as long as anything shows them.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{StreamExt, stream};

use crate::catalog::parts;
use crate::catalog::tx::{Value, collect};
use crate::domain::digest::Hasher;
use crate::domain::encryption::{AskedEncryption, CustomerKey};
use crate::domain::file::{Action, FileInfo, FileVersion};
use crate::domain::ids::{BucketId, FileId};
use crate::domain::large_file::PartNumber;
use crate::domain::lock::FileLock;
use crate::domain::names::FileName;
use crate::domain::range::Wanted;
use crate::operations::authorize::{upload_pair, upload_ticket};
use crate::operations::buckets::delete_bucket;
use crate::operations::copy::{Metadata, NewCopy, PIECES_SHARED_MAX, Source, copy_file, copy_part};
use crate::operations::download::{Content, DownloadQuery, find_by_id};
use crate::operations::error::Error;
use crate::operations::files::delete_version;
use crate::operations::large_files::{
    NamedParts, NewLargeFile, cancel, finish, part_pair, part_ticket, start, upload_part,
};
use crate::operations::upload::{Announced, DeclaredSha1, NewFile, OnlyIf, upload};
use crate::replication::EngineOptions;
use crate::testing::{DESTINATION_RIGHTS, SOURCE_RIGHTS, TestHouse, mapping, rule, rules};

/// Larger than what is kept in the catalog.
const STORED: usize = 20_000;

/// Parts may be of any size here.
async fn house() -> TestHouse {
    let options = EngineOptions::default();
    TestHouse::open_with(options, |config| config.limits.part_size_min = 1).await
}

fn sha1(bytes: &[u8]) -> String {
    let mut hasher = Hasher::new();
    hasher.update(bytes);
    hasher.finish().sha1.to_string()
}

/// Nothing is asked for.
const PLAIN: AskedEncryption = AskedEncryption::Default;

async fn begin(
    house: &TestHouse,
    bucket: BucketId,
    name: &str,
    encryption: AskedEncryption,
) -> FileVersion {
    let wanted = NewLargeFile {
        checksum: None,
        bucket: bucket.to_string(),
        name: FileName::parse(name).unwrap(),
        content_type: "text/plain".to_owned(),
        info: FileInfo::default(),
        encryption,
        custom_time: None,
        replica: None,
        lock: FileLock::default(),
    };
    start(&house.app, &house.caller, wanted).await.unwrap()
}

async fn send(
    house: &TestHouse,
    file: &FileVersion,
    number: i64,
    body: &[u8],
    asked: AskedEncryption,
) -> Result<(), Error> {
    let pair = part_pair(&house.app, &house.caller, &file.id().to_string())?;
    let ticket = part_ticket(&house.app, &pair.token, &file.id().to_string(), &pair.mark)?;
    let announced =
        Announced { body_bytes: body.len() as u64, sha1: DeclaredSha1::Unknown, md5: None };
    let body = stream::iter([Ok(Bytes::copy_from_slice(body))]);
    let number = PartNumber::new(number).unwrap();
    upload_part(&house.app, ticket, number, announced, asked, body).await.map(|_| ())
}

async fn copy_into(
    house: &TestHouse,
    file: FileId,
    number: i64,
    source: Source,
    asked: AskedEncryption,
) -> Result<(), Error> {
    let (caller, number) = (&house.caller, PartNumber::new(number).unwrap());
    copy_part(&house.app, caller, source, &file.to_string(), number, asked).await.map(|_| ())
}

/// A source that is not encrypted with a customer's key.
fn from(source: FileId, range: Option<(usize, usize)>) -> Source {
    Source { file_id: source.to_string(), range: range.map(range_text), key: None }
}

fn range_text((first, end): (usize, usize)) -> String {
    format!("bytes={first}-{}", end - 1)
}

async fn copy(
    house: &TestHouse,
    source: Source,
    name: &str,
    encryption: AskedEncryption,
) -> Result<FileVersion, Error> {
    let wanted = NewCopy {
        source,
        name: FileName::parse(name).unwrap(),
        bucket: None,
        metadata: Metadata::Copy,
        lock: FileLock::default(),
        encryption,
    };
    copy_file(&house.app, &house.caller, wanted).await
}

async fn complete(
    house: &TestHouse,
    file: FileId,
    bodies: &BTreeMap<i64, Vec<u8>>,
) -> Result<FileVersion, Error> {
    let sha1s = bodies.values().map(|body| sha1(body)).collect();
    let named = NamedParts::Sha1s(sha1s);
    finish(&house.app, &house.caller, &file.to_string(), named).await
}

async fn read(house: &TestHouse, id: FileId, range: Option<(usize, usize)>) -> Vec<u8> {
    read_with(house, id, range, None).await
}

async fn read_with(
    house: &TestHouse,
    id: FileId,
    range: Option<(usize, usize)>,
    key: Option<CustomerKey>,
) -> Vec<u8> {
    let range = Wanted::parse(range.map(range_text).as_deref());
    let query =
        DownloadQuery { range, if_range: None, overrides: BTreeMap::new(), by_a_page: false, key };
    let download = find_by_id(&house.app, Some(&house.caller), &id.to_string(), query).unwrap();
    let mut all = Vec::new();
    match download.open(&house.app).await.unwrap().0 {
        Content::Inline(bytes) => all.extend_from_slice(&bytes),
        Content::Stored(mut reader) => {
            while let Some(chunk) = reader.next(&house.app).await {
                all.extend_from_slice(&chunk.unwrap());
            }
        }
    }
    all
}

async fn delete(house: &TestHouse, name: &str, id: FileId) {
    delete_version(&house.app, &house.caller, name, &id.to_string(), false).await.unwrap();
}

/// Every blob with the count it has, and the count that follows from who shows it.
fn counts(house: &TestHouse) -> Vec<(i64, i64, i64)> {
    let all = house.app.catalog.read(|tx| {
        Ok(collect(
            tx,
            "SELECT b.blob_id, b.refs,
                    (SELECT COUNT(*) FROM files f WHERE f.blob_id = b.blob_id)
                  + (SELECT COUNT(*) FROM parts p WHERE p.blob_id = b.blob_id)
                  + (SELECT COUNT(*) FROM blob_pieces q WHERE q.piece_id = b.blob_id)
               FROM blobs b ORDER BY b.blob_id",
            &[],
            |row| Ok((row.int(0)?, row.int(1)?, row.int(2)?)),
        )?)
    });
    all.unwrap()
}

fn rows(house: &TestHouse, sql: &'static str) -> i64 {
    let none: &[Value<'_>] = &[];
    let counted = house.app.catalog.read(|tx| Ok(collect(tx, sql, none, |row| row.int(0))?));
    counted.unwrap()[0]
}

/// Nothing is left of any blob: no row, no piece, no part, no file in the store.
async fn assert_empty(house: &TestHouse) {
    house.sweep_freed().await;
    assert_eq!(counts(house), []);
    assert_eq!(rows(house, "SELECT COUNT(*) FROM blob_pieces"), 0);
    assert_eq!(rows(house, "SELECT COUNT(*) FROM blob_data"), 0);
    assert_eq!(rows(house, "SELECT COUNT(*) FROM parts"), 0);
    assert_eq!(house.app.blobs.list(None, 10).await.unwrap(), []);
}

/// The bytes of each version and each part are encrypted as its file says.
fn assert_sealed_as_shown(house: &TestHouse) {
    let wrong = "
        SELECT COUNT(*) FROM (
          SELECT f.sse AS sse, f.blob_id AS shown FROM files f WHERE f.blob_id IS NOT NULL
          UNION ALL
          SELECT f.sse, p.blob_id FROM parts p JOIN files f ON f.file_no = p.file_no) v
          LEFT JOIN blob_pieces q ON q.blob_id = v.shown
          JOIN blobs b ON b.blob_id = COALESCE(q.piece_id, v.shown)
         WHERE b.place = 2 OR b.seal <> v.sse";
    assert_eq!(rows(house, wrong), 0);
}

fn assert_counted(house: &TestHouse, what: &str) {
    house.assert_booked_right(what);
    for (blob, refs, shown) in counts(house) {
        assert_eq!(refs, shown, "{what}: blob {blob:x} counts {refs}, {shown} show it");
    }
}

#[tokio::test]
async fn blobs_live_as_long_as_anything_shows_them_in_every_order_of_deletion() {
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1]] {
        let house = house().await;
        let bucket = house.bucket("sharing").await;
        let bodies = BTreeMap::from([
            (1, vec![b'a'; STORED]),
            (2, vec![b'b'; 300]),
            (3, vec![b'c'; STORED]),
        ]);
        let whole: Vec<u8> = bodies.values().flatten().copied().collect();
        let large = begin(&house, bucket, "large", PLAIN).await;
        for (number, body) in &bodies {
            send(&house, &large, *number, b"replaced later", PLAIN).await.unwrap();
            send(&house, &large, *number, body, PLAIN).await.unwrap();
        }
        complete(&house, large.id(), &bodies).await.unwrap();
        let twin = copy(&house, from(large.id(), None), "twin", PLAIN).await.unwrap();
        let middle = from(large.id(), Some((5, STORED + 310)));
        let cut = copy(&house, middle, "cut", PLAIN).await.unwrap();
        let joined = begin(&house, bucket, "joined", PLAIN).await;
        copy_into(&house, joined.id(), 1, from(large.id(), None), PLAIN).await.unwrap();
        let of_cut = from(cut.id(), Some((100, STORED + 100)));
        copy_into(&house, joined.id(), 2, of_cut, PLAIN).await.unwrap();
        let cut_content = whole[5..STORED + 310].to_vec();
        let parts =
            BTreeMap::from([(1, whole.clone()), (2, cut_content[100..STORED + 100].to_vec())]);
        complete(&house, joined.id(), &parts).await.unwrap();
        let joined_content: Vec<u8> = parts.values().flatten().copied().collect();
        let mut left = vec![
            ("large", large.id(), whole.clone()),
            ("twin", twin.id(), whole.clone()),
            ("cut", cut.id(), cut_content),
            ("joined", joined.id(), joined_content),
        ];
        assert_counted(&house, "before anything is deleted");
        let doomed: Vec<_> = order.iter().map(|&at| left[at].1).collect();
        for id in doomed {
            let at = left.iter().position(|(_, left, _)| *left == id).unwrap();
            let (name, id, _) = left.remove(at);
            delete(&house, name, id).await;
            house.sweep_freed().await;
            assert_counted(&house, name);
            for (name, id, content) in &left {
                assert!(read(&house, *id, None).await == *content, "{name} after {order:?}");
            }
        }
        assert_empty(&house).await;
    }
}

/// A reproducible generator (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % sides as u64).unwrap()
    }

    fn body(&mut self) -> Vec<u8> {
        let size = [1, 40, 16_384, 16_385, STORED, 1_100_000][self.roll(6)];
        let start = self.roll(251);
        (start..start + size).map(|at| u8::try_from(at % 251).unwrap()).collect()
    }

    /// One of two customers, twice as often as the others.
    fn asked(&mut self) -> AskedEncryption {
        match self.roll(4) {
            0 => AskedEncryption::Default,
            1 => AskedEncryption::Managed,
            customer => {
                let seed = u8::try_from(customer).unwrap();
                AskedEncryption::Customer(CustomerKey::for_tests([seed; 32]))
            }
        }
    }

    fn range(&mut self, size: usize) -> (usize, usize) {
        let first = self.roll(size);
        (first, first + 1 + self.roll(size - first))
    }
}

/// What a test believes is there.
#[derive(Default)]
struct Model {
    finished: Vec<(String, Known)>,
    unfinished: Vec<(FileVersion, AskedEncryption, BTreeMap<i64, Vec<u8>>)>,
}

#[derive(Clone)]
struct Known {
    id: FileId,
    content: Vec<u8>,
    key: Option<CustomerKey>,
}

impl Known {
    fn source(&self, range: Option<(usize, usize)>) -> Source {
        Source { key: self.key.clone(), ..from(self.id, range) }
    }

    fn cut(&self, range: Option<(usize, usize)>) -> Vec<u8> {
        let (first, end) = range.unwrap_or((0, self.content.len()));
        self.content[first..end].to_vec()
    }

    async fn read(&self, house: &TestHouse, range: Option<(usize, usize)>) -> Vec<u8> {
        read_with(house, self.id, range, self.key.clone()).await
    }
}

fn key_of(asked: &AskedEncryption) -> Option<CustomerKey> {
    match asked {
        AskedEncryption::Customer(key) => Some(key.clone()),
        AskedEncryption::Default | AskedEncryption::Managed => None,
    }
}

impl Model {
    fn pick(&self, dice: &mut Dice) -> Option<Known> {
        let at = dice.roll(self.finished.len().max(1));
        self.finished.get(at).map(|(_, known)| known.clone())
    }

    fn add(&mut self, name: String, id: FileId, content: Vec<u8>, asked: &AskedEncryption) {
        self.finished.push((name, Known { id, content, key: key_of(asked) }));
    }
}

async fn act(house: &TestHouse, bucket: BucketId, dice: &mut Dice, model: &mut Model, at: usize) {
    let name = format!("n{}", dice.roll(4));
    match dice.roll(10) {
        0 => {
            let (body, asked) = (dice.body(), dice.asked());
            let uploaded = house.upload_encrypted(bucket, &name, &body, asked.clone());
            let version = uploaded.await.unwrap();
            model.add(name, version.id(), body, &asked);
        }
        1 => {
            let asked = dice.asked();
            let begun = begin(house, bucket, &name, asked.clone()).await;
            model.unfinished.push((begun, asked, BTreeMap::new()));
        }
        2 | 3 if !model.unfinished.is_empty() => {
            let which = dice.roll(model.unfinished.len());
            let (number, body) = (1 + i64::try_from(dice.roll(3)).unwrap(), dice.body());
            let (file, asked, parts) = &mut model.unfinished[which];
            send(house, file, number, &body, asked.clone()).await.unwrap();
            parts.insert(number, body);
        }
        4 | 5 if !model.unfinished.is_empty() => {
            let Some(source) = model.pick(dice) else { return };
            let which = dice.roll(model.unfinished.len());
            let number = 1 + i64::try_from(dice.roll(3)).unwrap();
            let range = (dice.roll(2) == 0).then(|| dice.range(source.content.len()));
            let (file, asked, parts) = &mut model.unfinished[which];
            let copied = copy_into(house, file.id(), number, source.source(range), asked.clone());
            copied.await.unwrap();
            parts.insert(number, source.cut(range));
        }
        6 if !model.unfinished.is_empty() => {
            let which = dice.roll(model.unfinished.len());
            let (file, asked, parts) = model.unfinished[which].clone();
            let numbers: Vec<i64> = parts.keys().copied().collect();
            let complete = complete(house, file.id(), &parts).await;
            if numbers == [1, 2] || numbers == [1, 2, 3] {
                let version = complete.unwrap();
                model.unfinished.remove(which);
                let content: Vec<u8> = parts.into_values().flatten().collect();
                assert_eq!(version.size, content.len() as u64);
                model.add(version.name.as_str().to_owned(), version.id(), content, &asked);
            } else {
                assert!(complete.is_err(), "act {at}: {numbers:?} is not complete");
            }
        }
        7 => {
            let Some(source) = model.pick(dice) else { return };
            let range = (dice.roll(2) == 0).then(|| dice.range(source.content.len()));
            let asked = dice.asked();
            let copied = copy(house, source.source(range), &name, asked.clone());
            let version = copied.await.unwrap();
            model.add(name, version.id(), source.cut(range), &asked);
        }
        8 if !model.finished.is_empty() => {
            let which = dice.roll(model.finished.len());
            let (name, known) = model.finished.remove(which);
            delete(house, &name, known.id).await;
        }
        9 if !model.unfinished.is_empty() => {
            let which = dice.roll(model.unfinished.len());
            let (file, ..) = model.unfinished.remove(which);
            cancel(&house.app, &house.caller, &file.id().to_string()).await.unwrap();
        }
        _ => house.sweep_freed().await,
    }
}

#[tokio::test]
async fn random_acts_on_shared_bytes_count_right_and_leave_nothing() {
    for seed in 0..12_u64 {
        let mut house = house().await;
        let bucket = house.bucket("sharing").await;
        let (mut dice, mut model) = (Dice(seed), Model::default());
        for at in 0..120 {
            act(&house, bucket, &mut dice, &mut model, at).await;
            if at % 40 == 39 {
                house.crash_and_reopen().await;
                assert_counted(&house, &format!("seed {seed}, act {at}"));
            }
            if let Some(known) = model.pick(&mut dice) {
                let range = Some(dice.range(known.content.len()));
                let got = known.read(&house, range).await;
                assert!(got == known.cut(range), "seed {seed}, act {at}, {range:?}");
            }
        }
        assert_counted(&house, &format!("seed {seed}"));
        assert_sealed_as_shown(&house);
        for (name, known) in &model.finished {
            assert!(known.read(&house, None).await == known.content, "seed {seed}: {name}");
        }
        let unfinished = house
            .versions(bucket)
            .into_iter()
            .filter(|version| version.action == Action::Start)
            .count();
        assert_eq!(unfinished, model.unfinished.len(), "seed {seed}");
        for (name, known) in model.finished {
            delete(&house, &name, known.id).await;
        }
        for (file, ..) in model.unfinished {
            delete(&house, file.name.as_str(), file.id()).await;
        }
        assert_empty(&house).await;
    }
}

#[tokio::test]
async fn f77_native_259_ten_thousand_parts_make_ten_gigabytes_that_are_read_and_replicated() {
    const PARTS: i64 = 10_000;
    let house = house().await;
    let (bucket, other) = (house.bucket("ten-thousand").await, house.bucket("replicas").await);
    let source_key = house.key(&SOURCE_RIGHTS).await;
    let destination_key = house.key(&DESTINATION_RIGHTS).await;
    house.configure(bucket, rules(&source_key, vec![rule("rule-one", other)])).await.unwrap();
    house.configure(other, mapping(&source_key, &destination_key)).await.unwrap();
    // A million bytes each, most of them zero, and stored once.
    let mut body = vec![0_u8; 1_000_000];
    body[..8].copy_from_slice(b"the head");
    body[999_992..].copy_from_slice(b"the tail");
    let source = house.upload(bucket, "source", &body).await;
    let large = begin(&house, bucket, "large", PLAIN).await;
    let numbers: Vec<i64> = (1..=PARTS).collect();
    for together in numbers.chunks(200) {
        let copies = together
            .iter()
            .map(|number| copy_into(&house, large.id(), *number, from(source.id(), None), PLAIN));
        for copied in join_all(copies).await {
            copied.unwrap();
        }
    }
    let listed =
        house.app.catalog.read(|tx| Ok(parts::list_parts(tx, large.number, 9_990, 1000)?)).unwrap();
    assert_eq!(listed.len(), 11);
    let sha1s = vec![sha1(&body); 10_000];
    let named = NamedParts::Sha1s(sha1s);
    let finished = finish(&house.app, &house.caller, &large.id().to_string(), named).await.unwrap();
    assert_eq!(finished.size, 10_000_000_000);
    assert_eq!(finished.parts.map(|parts| parts.count), Some(10_000));
    let border = read(&house, large.id(), Some((4_999_999_990, 5_000_000_010))).await;
    assert_eq!(border, [&body[999_990..], &body[..10]].concat());
    let end = read(&house, large.id(), Some((9_999_999_990, 10_000_000_000))).await;
    assert_eq!(end, body[999_990..]);
    house.drain().await;
    assert_eq!(house.status(&finished), Some("completed"));
    let replica = house.versions(other).into_iter().find(|one| one.size == finished.size).unwrap();
    assert_eq!((replica.blob, replica.parts), (finished.blob, finished.parts));
    assert_eq!(read(&house, replica.id(), Some((5_000_000_000, 5_000_000_008))).await, b"the head");
    assert!(replica.number.is_large());
}

/// A body during which something happens.
fn body_after<'a>(
    act: impl Future<Output = ()> + 'a,
    bytes: &'a [u8],
) -> impl futures_util::Stream<Item = Result<Bytes, crate::operations::upload::BodyFault>> + 'a {
    let act = stream::once(act).filter_map(async |()| None);
    act.chain(stream::iter([Ok(Bytes::copy_from_slice(bytes))]))
}

#[tokio::test]
async fn bytes_of_an_upload_that_its_commit_refuses_go_at_once() {
    let house = house().await;
    let bucket = house.bucket("short-lived").await;
    let bytes = vec![5; STORED];
    let pair = upload_pair(&house.app, &house.caller, &bucket.to_string()).unwrap();
    let ticket = upload_ticket(&house.app, &pair.token, &bucket.to_string(), &pair.mark).unwrap();
    let announced = Announced { body_bytes: STORED as u64, sha1: DeclaredSha1::Unknown, md5: None };
    let file = NewFile {
        name: FileName::parse("late").unwrap(),
        content_type: "text/plain".to_owned(),
        info: FileInfo::default(),
        lock: FileLock::default(),
        encryption: PLAIN,
        body: announced,
        custom_time: None,
        replica: None,
        only_if: OnlyIf::Anyway,
    };
    let id = bucket.to_string();
    let gone = async { drop(delete_bucket(&house.app, &house.caller, &id).await.unwrap()) };
    let outcome = upload(&house.app, &ticket, file, body_after(gone, &bytes)).await;
    assert!(matches!(outcome, Err(Error::Refused(_))), "{outcome:?}");
    assert_eq!(house.app.blobs.list(None, 10).await.unwrap(), []);
}

#[tokio::test]
async fn bytes_of_a_part_that_comes_too_late_go_at_once_and_no_others() {
    let house = house().await;
    let bucket = house.bucket("too-late").await;
    let bytes = vec![5; STORED];
    let kept = house.upload(bucket, "kept", &bytes).await;
    let file = begin(&house, bucket, "large", PLAIN).await;
    let id = file.id().to_string();
    let pair = part_pair(&house.app, &house.caller, &id).unwrap();
    let ticket = part_ticket(&house.app, &pair.token, &id, &pair.mark).unwrap();
    let announced = Announced { body_bytes: STORED as u64, sha1: DeclaredSha1::Unknown, md5: None };
    let gone = async { drop(cancel(&house.app, &house.caller, &id).await.unwrap()) };
    let number = PartNumber::new(1).unwrap();
    let body = body_after(gone, &bytes);
    let outcome = upload_part(&house.app, ticket, number, announced, PLAIN, body).await;
    assert!(matches!(outcome, Err(Error::Refused(_))), "{outcome:?}");
    assert_eq!(house.app.blobs.list(None, 10).await.unwrap(), [kept.blob.unwrap()]);
}

/// A finished large file of `count` parts.
async fn of_parts(house: &TestHouse, bucket: BucketId, name: &str, count: usize) -> FileVersion {
    let file = begin(house, bucket, name, PLAIN).await;
    let mut bodies = BTreeMap::new();
    for number in 1..=i64::try_from(count).unwrap() {
        let body = format!("part {number} of {name}, ").into_bytes();
        send(house, &file, number, &body, PLAIN).await.unwrap();
        bodies.insert(number, body);
    }
    complete(house, file.id(), &bodies).await.unwrap()
}

#[tokio::test]
async fn copies_of_copies_do_not_multiply_pieces() {
    let house = house().await;
    let bucket = house.bucket("many-pieces").await;
    for (count, pieces) in [(PIECES_SHARED_MAX, 2 * PIECES_SHARED_MAX), (PIECES_SHARED_MAX + 1, 2)]
    {
        let source = of_parts(&house, bucket, &format!("source-{count}"), count).await;
        let content = read(&house, source.id(), None).await;
        let before = rows(&house, "SELECT COUNT(*) FROM blob_pieces");
        let file = begin(&house, bucket, &format!("twice-{count}"), PLAIN).await;
        for number in [1, 2] {
            copy_into(&house, file.id(), number, from(source.id(), None), PLAIN).await.unwrap();
        }
        let bodies = BTreeMap::from([(1, content.clone()), (2, content.clone())]);
        let twice = complete(&house, file.id(), &bodies).await.unwrap();
        let grown = rows(&house, "SELECT COUNT(*) FROM blob_pieces") - before;
        assert_eq!(usize::try_from(grown).unwrap(), pieces, "of a source of {count} pieces");
        assert_eq!(read(&house, twice.id(), None).await, [&content[..], &content[..]].concat());

        // A copy of the whole file shows the same blob, whatever it is made of.
        let whole = copy(&house, from(twice.id(), None), "whole", PLAIN).await.unwrap();
        assert_eq!(whole.blob, twice.blob);
        assert!(counts(&house).iter().all(|&(_, refs, shown)| refs == shown));
    }
}
