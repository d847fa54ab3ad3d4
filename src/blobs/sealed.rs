//! The sealed form of a blob: its content encrypted in segments, then the tags of all segments.
//!
//! Shape: AES-256-GCM over segments of [`SEGMENT_BYTES`] of content (the last one may be shorter;
//! empty content is one empty segment). A ciphertext is as long as its content and stands where the
//! content would stand, so that writes stay aligned and a range is found without arithmetic; the
//! tags follow at the end, [`TAG_BYTES`] for each segment. The nonce of a segment is its number and
//! a mark on the last one; with every segment goes the id of the blob and the length of its content.
//! So no segment can be changed, left out, put elsewhere, or taken from another blob unnoticed. A
//! data key seals one blob once, which is what makes counted nonces safe.
//!
//! Writers seal between hashing and writing ([`Sealer`]); readers are put around those of any store
//! ([`open`]). Whoever has no key can still compare the stored form with its checks: to every store
//! it is a blob of [`stored_bytes`] bytes.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::blobs::{BlobReader, BlobStore, Error};
use crate::domain::digest::{BlockChecks, CHECK_BLOCK_BYTES, Corrupt};
use crate::domain::encryption::DataKey;
use crate::domain::ids::BlobId;
use crate::domain::range::ByteRange;

/// Content in one segment, in bytes. Buffers of writers are a multiple of it.
pub(crate) const SEGMENT: usize = 64 * 1024;
const SEGMENT_BYTES: u64 = 64 * 1024;
/// Length of the tag of a segment.
const TAG: usize = 16;
const TAG_BYTES: u64 = 16;
/// Segments whose tags are read at a time.
const TAGS_AHEAD: u64 = 1024;
/// A rest up to this size is read with its tags in one go.
const READ_WHOLE_BYTES: u64 = 128 * 1024;

const LABEL: &[u8; 16] = b"kiln sealed 1\0\0\0";

fn segments(size: u64) -> u64 {
    size.div_ceil(SEGMENT_BYTES).max(1)
}

/// How many bytes sealed content of `size` bytes takes.
pub(crate) fn stored_bytes(size: u64) -> u64 {
    size.saturating_add(segments(size).saturating_mul(TAG_BYTES))
}

/// Seals and opens the segments of one blob.
pub(crate) struct Cipher {
    key: LessSafeKey,
    id: BlobId,
    size: u64,
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cipher({})", self.id)
    }
}

impl Cipher {
    /// For a blob whose content has `size` bytes. The key must be that blob's own.
    pub(crate) fn new(key: &DataKey, id: BlobId, size: u64) -> Result<Self, Error> {
        let key = UnboundKey::new(&AES_256_GCM, key.expose()).map_err(|_| refused())?;
        Ok(Self { key: LessSafeKey::new(key), id, size })
    }

    fn nonce(&self, segment: u64) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        let (mark, number) = nonce.split_at_mut(NONCE_LEN - 8);
        mark.fill(u8::from(segment + 1 == segments(self.size)));
        number.copy_from_slice(&segment.to_be_bytes());
        Nonce::assume_unique_for_key(nonce)
    }

    fn aad(&self) -> Aad<[u8; 32]> {
        let mut aad = [0; 32];
        aad[..16].copy_from_slice(LABEL);
        aad[16..24].copy_from_slice(&self.id.0.to_be_bytes());
        aad[24..].copy_from_slice(&self.size.to_be_bytes());
        Aad::from(aad)
    }

    fn seal(&self, segment: u64, content: &mut [u8]) -> Result<[u8; TAG], Error> {
        let sealed = self.key.seal_in_place_separate_tag(self.nonce(segment), self.aad(), content);
        let tag = sealed.map_err(|_| refused())?;
        tag.as_ref().try_into().map_err(|_| refused())
    }

    fn open(
        &self,
        segment: u64,
        sealed: &[u8],
        tag: &[u8],
        content: &mut [u8],
    ) -> Result<(), Error> {
        let nonce = self.nonce(segment);
        let opened = self.key.open_separate_gather(nonce, self.aad(), sealed, tag, content);
        opened.map_err(|_| self.damaged(segment))
    }

    fn damaged(&self, segment: u64) -> Error {
        let block = segment.saturating_mul(SEGMENT_BYTES) / CHECK_BLOCK_BYTES;
        Error::Damaged { id: self.id, corrupt: Corrupt { block } }
    }

    /// Opens small sealed content that is in memory, and cuts `range` out of it.
    pub(crate) fn open_whole(&self, stored: &[u8], range: ByteRange) -> Result<Bytes, Error> {
        let damaged = || self.damaged(0);
        let size = usize::try_from(self.size).map_err(|_| damaged())?;
        let (sealed, tags) = stored.split_at_checked(size).ok_or_else(damaged)?;
        if stored.len() as u64 != stored_bytes(self.size) {
            return Err(damaged());
        }
        let mut content = vec![0; size];
        if size == 0 {
            self.open(0, sealed, tags, &mut content)?;
        }
        let parts = sealed.chunks(SEGMENT).zip(tags.chunks(TAG)).zip(content.chunks_mut(SEGMENT));
        for (segment, ((sealed, tag), content)) in (0..).zip(parts) {
            self.open(segment, sealed, tag, content)?;
        }
        let (start, end) = (usize::try_from(range.start), usize::try_from(range.end));
        match (start, end) {
            (Ok(start), Ok(end)) if start <= end && end <= size => {
                Ok(Bytes::from(content).slice(start..end))
            }
            _ => Err(damaged()),
        }
    }
}

fn refused() -> Error {
    let source = std::io::Error::other("the library for encryption refused");
    Error::Io { doing: "sealing a blob", source }
}

/// Seals content on its way in, segment after segment.
#[derive(Debug)]
pub(crate) struct Sealer {
    cipher: Cipher,
    next: u64,
    /// Content sealed so far, in bytes.
    taken: u64,
    tags: Vec<u8>,
}

impl Sealer {
    /// For one pass over the content of one blob.
    pub(crate) fn new(key: &DataKey, id: BlobId, size: u64) -> Result<Self, Error> {
        Ok(Self { cipher: Cipher::new(key, id, size)?, next: 0, taken: 0, tags: Vec::new() })
    }

    /// Encrypts the next content in its place. All but the last call bring whole segments.
    pub(crate) fn seal(&mut self, content: &mut [u8]) -> Result<(), Error> {
        let whole = self.taken.is_multiple_of(SEGMENT_BYTES);
        self.taken = self.taken.saturating_add(content.len() as u64);
        if !whole || self.taken > self.cipher.size {
            return Err(refused());
        }
        for segment in content.chunks_mut(SEGMENT) {
            self.seal_segment(segment)?;
        }
        Ok(())
    }

    fn seal_segment(&mut self, segment: &mut [u8]) -> Result<(), Error> {
        let tag = self.cipher.seal(self.next, segment)?;
        self.tags.extend_from_slice(&tag);
        self.next += 1;
        Ok(())
    }

    /// Whether all the announced content has been sealed.
    pub(crate) fn is_complete(&self) -> bool {
        self.taken == self.cipher.size
    }

    /// Called after the last content; fails unless all the announced content came.
    pub(crate) fn finish(&mut self) -> Result<(), Error> {
        if !self.is_complete() {
            return Err(refused());
        }
        if self.cipher.size == 0 && self.next == 0 {
            self.seal_segment(&mut [])?;
        }
        Ok(())
    }

    /// What is stored behind the content, once that is complete.
    pub(crate) fn tags(&self) -> &[u8] {
        &self.tags
    }
}

/// A stored blob whose bytes are sealed.
#[derive(Debug)]
pub(crate) struct SealedBlob {
    pub(crate) cipher: Cipher,
    /// Of the stored form.
    pub(crate) checks: BlockChecks,
}

impl SealedBlob {
    fn size(&self) -> u64 {
        self.cipher.size
    }

    /// Length of segment `segment`.
    fn length(&self, segment: u64) -> usize {
        let rest = self.size().saturating_sub(segment.saturating_mul(SEGMENT_BYTES));
        usize::try_from(rest).map_or(SEGMENT, |rest| rest.min(SEGMENT))
    }

    /// Reads stored bytes.
    async fn stored(
        &self,
        store: &Arc<dyn BlobStore>,
        start: u64,
        end: u64,
    ) -> Result<Box<dyn BlobReader>, Error> {
        let range = ByteRange { start, end };
        let stored = stored_bytes(self.size());
        store.open(self.cipher.id, stored, range, self.checks.clone()).await
    }
}

/// Opens `range` of the content of a sealed blob in any store.
pub(crate) async fn open(
    store: &Arc<dyn BlobStore>,
    blob: SealedBlob,
    range: ByteRange,
) -> Result<Box<dyn BlobReader>, Error> {
    let size = blob.cipher.size;
    let first = range.start / SEGMENT_BYTES;
    let end = range.end.min(size);
    let after = if range.start >= end { first } else { end.div_ceil(SEGMENT_BYTES) };
    let mut reader = SealedReader {
        store: Arc::clone(store),
        blob,
        data: None,
        tags: VecDeque::new(),
        partial: Vec::new(),
        next: first,
        after,
        skip: range.start - first * SEGMENT_BYTES,
        rest: end.saturating_sub(range.start),
    };
    if reader.next < reader.after {
        reader.begin().await?;
    }
    Ok(Box::new(reader))
}

/// Reads sealed bytes from another reader and hands out the content of each segment that came
/// whole and right.
struct SealedReader {
    store: Arc<dyn BlobStore>,
    blob: SealedBlob,
    data: Option<Box<dyn BlobReader>>,
    /// Tags of the segments from `next` on, as far as they are read.
    tags: VecDeque<[u8; TAG]>,
    /// The beginning of segment `next`, where a chunk ended inside of it.
    partial: Vec<u8>,
    /// The next segment.
    next: u64,
    /// One more than the last segment wanted.
    after: u64,
    /// Bytes of segment `next` in front of those wanted; below [`SEGMENT_BYTES`].
    skip: u64,
    /// Bytes still to be handed out.
    rest: u64,
}

impl SealedReader {
    async fn begin(&mut self) -> Result<(), Error> {
        let start = self.next * SEGMENT_BYTES;
        let stored = stored_bytes(self.blob.size());
        if self.after == segments(self.blob.size()) && stored - start <= READ_WHOLE_BYTES {
            let raw = self.blob.stored(&self.store, start, stored).await?;
            let mut all = read_all(raw).await?;
            let sealed = usize::try_from(self.blob.size() - start).unwrap_or(usize::MAX);
            if all.len() < sealed {
                return Err(self.damaged());
            }
            let tags = all.split_off(sealed);
            // Those of the segments before come first.
            let before = usize::try_from(self.next * TAG_BYTES).unwrap_or(usize::MAX);
            self.take_tags(tags.get(before..).unwrap_or_default());
            self.data = Some(Box::new(InMemory(Some(all))));
            return Ok(());
        }
        let end = (self.after * SEGMENT_BYTES).min(self.blob.size());
        self.data = Some(self.blob.stored(&self.store, start, end).await?);
        Ok(())
    }

    fn damaged(&self) -> Error {
        self.blob.cipher.damaged(self.next)
    }

    fn take_tags(&mut self, tags: &[u8]) {
        let whole = tags.chunks(TAG).filter_map(|tag| <[u8; TAG]>::try_from(tag).ok());
        self.tags.extend(whole);
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        while self.next < self.after {
            let Some(data) = &mut self.data else { return Err(self.damaged()) };
            let Some(sealed) = data.next().await else { return Err(self.damaged()) };
            let content = self.open_segments(sealed?).await?;
            if !content.is_empty() {
                return Ok(Some(content));
            }
        }
        Ok(None)
    }

    /// Opens the segments that end in this chunk and keeps the beginning of the one after them.
    async fn open_segments(&mut self, sealed: Bytes) -> Result<Bytes, Error> {
        let mut sealed = &sealed[..];
        let mut content = Vec::with_capacity(self.partial.len() + sealed.len());
        while self.next < self.after {
            let length = self.blob.length(self.next);
            let missing = length - self.partial.len();
            let Some((now, later)) = sealed.split_at_checked(missing) else { break };
            let tag = self.tag().await?;
            let at = content.len();
            content.resize(at + length, 0);
            let into = &mut content[at..];
            if self.partial.is_empty() {
                self.blob.cipher.open(self.next, now, &tag, into)?;
            } else {
                self.partial.extend_from_slice(now);
                self.blob.cipher.open(self.next, &self.partial, &tag, into)?;
                self.partial.clear();
            }
            self.next += 1;
            sealed = later;
        }
        if self.next < self.after {
            self.partial.extend_from_slice(sealed);
        }
        Ok(self.cut(Bytes::from(content)))
    }

    /// Takes away what is in front of the range and behind it.
    fn cut(&mut self, mut content: Bytes) -> Bytes {
        if content.is_empty() {
            return content;
        }
        let skip = usize::try_from(self.skip).unwrap_or(usize::MAX).min(content.len());
        self.skip = 0;
        let content = content.split_off(skip);
        let wanted = usize::try_from(self.rest).unwrap_or(usize::MAX).min(content.len());
        self.rest -= wanted as u64;
        content.slice(..wanted)
    }

    async fn tag(&mut self) -> Result<[u8; TAG], Error> {
        if self.tags.is_empty() {
            let until = self.after.min(self.next + TAGS_AHEAD);
            let start = self.blob.size() + self.next * TAG_BYTES;
            let end = self.blob.size() + until * TAG_BYTES;
            let raw = self.blob.stored(&self.store, start, end).await?;
            let read = read_all(raw).await?;
            self.take_tags(&read);
        }
        self.tags.pop_front().ok_or_else(|| self.damaged())
    }
}

async fn read_all(mut reader: Box<dyn BlobReader>) -> Result<Bytes, Error> {
    let Some(first) = reader.next().await else { return Ok(Bytes::new()) };
    let first = first?;
    let Some(second) = reader.next().await else { return Ok(first) };
    let mut all = [first, second?].concat();
    while let Some(chunk) = reader.next().await {
        all.extend_from_slice(&chunk?);
    }
    Ok(all.into())
}

impl BlobReader for SealedReader {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<Bytes, Error>>> {
        Box::pin(async move {
            let chunk = self.chunk().await;
            if chunk.is_err() {
                self.next = self.after;
            }
            chunk.transpose()
        })
    }
}

/// Bytes that were read already.
struct InMemory(Option<Bytes>);

impl BlobReader for InMemory {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<Bytes, Error>>> {
        Box::pin(std::future::ready(self.0.take().map(Ok)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::blobs::BlobWriter;

    const ID: BlobId = BlobId(0x1234_5678);

    fn fits(size: u64) -> usize {
        usize::try_from(size).expect("it fits")
    }

    fn key(seed: u8) -> DataKey {
        DataKey::new([seed; 32])
    }

    /// Bytes that do not repeat within any segment.
    fn content(size: usize) -> Vec<u8> {
        (0_u32..).flat_map(u32::to_be_bytes).take(size).collect()
    }

    /// Seals as a writer does that has buffers of `segments` segments.
    fn sealed(content: &[u8], id: BlobId, segments: usize) -> Vec<u8> {
        let mut sealer = Sealer::new(&key(1), id, content.len() as u64).expect("a key");
        let mut stored = content.to_vec();
        for buffer in stored.chunks_mut(SEGMENT * segments) {
            sealer.seal(buffer).expect("as announced");
        }
        sealer.finish().expect("complete");
        stored.extend_from_slice(sealer.tags());
        assert_eq!(stored.len() as u64, stored_bytes(content.len() as u64));
        stored
    }

    fn cipher(id: BlobId, size: usize) -> Cipher {
        Cipher::new(&key(1), id, size as u64).expect("a key")
    }

    /// A store of one blob that hands out chunks of a given size and checks nothing.
    struct Unchecked {
        stored: Vec<u8>,
        chunk: usize,
    }

    struct Chunks(VecDeque<Bytes>);

    impl BlobReader for Chunks {
        fn next(&mut self) -> BoxFuture<'_, Option<Result<Bytes, Error>>> {
            Box::pin(std::future::ready(self.0.pop_front().map(Ok)))
        }
    }

    impl BlobStore for Unchecked {
        fn begin(
            &self,
            id: BlobId,
            _: u64,
            _: Option<Sealer>,
        ) -> BoxFuture<'_, Result<Box<dyn BlobWriter>, Error>> {
            Box::pin(async move { Err(Error::Missing(id)) })
        }

        fn open(
            &self,
            id: BlobId,
            _: u64,
            range: ByteRange,
            _: BlockChecks,
        ) -> BoxFuture<'_, Result<Box<dyn BlobReader>, Error>> {
            Box::pin(async move {
                let within = |at: u64| fits(at).min(self.stored.len());
                let bytes = &self.stored[within(range.start)..within(range.end)];
                assert_eq!(id, ID);
                let chunks = bytes.chunks(self.chunk).map(Bytes::copy_from_slice).collect();
                let reader: Box<dyn BlobReader> = Box::new(Chunks(chunks));
                Ok(reader)
            })
        }

        fn remove(&self, id: BlobId) -> BoxFuture<'_, Result<(), Error>> {
            Box::pin(async move { Err(Error::Missing(id)) })
        }

        fn list(&self, _: Option<BlobId>, _: usize) -> BoxFuture<'_, Result<Vec<BlobId>, Error>> {
            Box::pin(std::future::ready(Ok(Vec::new())))
        }

        fn suspect(&self) -> Option<String> {
            None
        }
    }

    /// Reads a range of what is said to be content of `size` bytes: what came, and whether the
    /// reader was content with it.
    fn read(stored: Vec<u8>, chunk: usize, size: usize, range: ByteRange) -> (Vec<u8>, bool) {
        let store: Arc<dyn BlobStore> = Arc::new(Unchecked { stored, chunk });
        let blob = SealedBlob { cipher: cipher(ID, size), checks: BlockChecks::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let Ok(mut reader) = open(&store, blob, range).await else {
                return (Vec::new(), false);
            };
            let mut bytes = Vec::new();
            while let Some(chunk) = reader.next().await {
                let Ok(chunk) = chunk else {
                    assert!(reader.next().await.is_none(), "after an error there is nothing more");
                    return (bytes, false);
                };
                assert!(!chunk.is_empty(), "a chunk has bytes");
                bytes.extend_from_slice(&chunk);
            }
            (bytes, true)
        })
    }

    fn whole(size: usize) -> ByteRange {
        ByteRange::whole(size as u64)
    }

    const SIZES: [usize; 9] = [
        0,
        1,
        SEGMENT - 1,
        SEGMENT,
        SEGMENT + 1,
        2 * SEGMENT - 32,
        2 * SEGMENT,
        4 * SEGMENT,
        5 * SEGMENT + 77,
    ];

    #[test]
    fn what_was_sealed_opens_whatever_the_size() {
        for size in SIZES {
            let content = content(size);
            let stored = sealed(&content, ID, 4);
            assert_eq!(
                read(stored.clone(), 128 * 1024, size, whole(size)),
                (content.clone(), true)
            );
            let opened = cipher(ID, size).open_whole(&stored, whole(size)).expect("opens");
            assert_eq!(opened, content);
            if size > 16 {
                assert!(!stored.windows(16).any(|w| w == &content[size - 16..]), "not readable");
            }
            assert_eq!(sealed(&content, ID, 1), stored, "buffers do not matter");
        }
    }

    #[test]
    fn equal_content_looks_different_in_every_segment_and_blob() {
        let content = vec![7; 3 * SEGMENT];
        let one = sealed(&content, ID, 4);
        let other = sealed(&content, BlobId(ID.0 + 1), 4);
        assert_ne!(one[..SEGMENT], one[SEGMENT..2 * SEGMENT]);
        let tags = |stored: &[u8]| stored[3 * SEGMENT..].to_vec();
        assert_ne!(tags(&one), tags(&other), "the blob is part of what is proven");
    }

    #[test]
    fn content_that_ends_early_or_late_is_not_sealed() {
        let mut short = Sealer::new(&key(1), ID, 100).expect("a key");
        short.seal(&mut [0; 99]).expect("within what was announced");
        assert!(!short.is_complete() && short.finish().is_err());
        assert!(short.seal(&mut [0; 1]).is_err(), "not at the beginning of a segment");
        let mut long = Sealer::new(&key(1), ID, 100).expect("a key");
        assert!(long.seal(&mut [0; 101]).is_err());
    }

    #[test]
    fn another_key_blob_or_length_opens_nothing() {
        for size in SIZES {
            let stored = sealed(&content(size), ID, 4);
            let wrong = [
                Cipher::new(&key(2), ID, size as u64).expect("a key"),
                cipher(BlobId(ID.0 + 1), size),
            ];
            for wrong in wrong {
                assert!(wrong.open_whole(&stored, whole(size)).is_err(), "{size}");
            }
            assert!(cipher(ID, size + 1).open_whole(&stored, whole(size)).is_err(), "{size}");
        }
    }

    #[test]
    fn segments_in_another_order_are_noticed() {
        let size = 3 * SEGMENT;
        let content = content(size);
        let stored = sealed(&content, ID, 4);
        let mut swapped = stored.clone();
        let (first, second) = (stored[..SEGMENT].to_vec(), stored[SEGMENT..2 * SEGMENT].to_vec());
        swapped[..SEGMENT].copy_from_slice(&second);
        swapped[SEGMENT..2 * SEGMENT].copy_from_slice(&first);
        let tag = |at: usize| stored[size + at * TAG..size + (at + 1) * TAG].to_vec();
        swapped[size..size + TAG].copy_from_slice(&tag(1));
        swapped[size + TAG..size + 2 * TAG].copy_from_slice(&tag(0));
        assert_eq!(read(swapped, 1 << 20, size, whole(size)), (Vec::new(), false));
    }

    #[test]
    fn a_blob_cut_at_a_segment_is_noticed_even_if_its_row_agrees() {
        let stored = sealed(&content(3 * SEGMENT), ID, 4);
        let mut cut = stored[..2 * SEGMENT].to_vec();
        cut.extend_from_slice(&stored[3 * SEGMENT..3 * SEGMENT + 2 * TAG]);
        assert_eq!(read(cut, 1 << 20, 2 * SEGMENT, whole(2 * SEGMENT)), (Vec::new(), false));
    }

    fn size_and_range() -> impl Strategy<Value = (usize, u64, u64)> {
        (0_usize..6 * SEGMENT).prop_flat_map(|size| {
            let bound = size as u64;
            (Just(size), 0..=bound, 0..=bound)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_range_reads_what_was_written(
            (size, one, other) in size_and_range(),
            chunk in prop_oneof![1_usize..5000, Just(SEGMENT), Just(2 * SEGMENT), 60_000_usize..200_000],
        ) {
            let content = content(size);
            let stored = sealed(&content, ID, 4);
            let range = ByteRange { start: one.min(other), end: one.max(other) };
            let wanted = &content[fits(range.start)..fits(range.end)];
            // Chunks of single bytes would take for ever.
            let (got, right) = read(stored.clone(), chunk.max(100), size, range);
            prop_assert!(right && got == wanted);
            let opened = cipher(ID, size).open_whole(&stored, range).expect("opens");
            prop_assert!(opened == wanted);
        }

        #[test]
        fn a_flipped_bit_is_never_read_as_success(
            size in 1_usize..5 * SEGMENT, at in any::<prop::sample::Index>(), bit in 0_u8..8,
        ) {
            let content = content(size);
            let mut stored = sealed(&content, ID, 4);
            let at = at.index(stored.len());
            stored[at] ^= 1 << bit;
            let (got, right) = read(stored.clone(), 128 * 1024, size, whole(size));
            prop_assert!(!right && content.starts_with(&got), "bit {bit} at {at} of {size}");
            prop_assert!(cipher(ID, size).open_whole(&stored, whole(size)).is_err());
        }

        #[test]
        fn a_cut_blob_is_never_read_as_success(
            size in 1_usize..5 * SEGMENT, at in any::<prop::sample::Index>(),
        ) {
            let content = content(size);
            let stored = sealed(&content, ID, 4);
            let cut = stored[..at.index(stored.len())].to_vec();
            let (got, right) = read(cut.clone(), 128 * 1024, size, whole(size));
            prop_assert!(!right && content.starts_with(&got), "cut to {}", cut.len());
            prop_assert!(cipher(ID, size).open_whole(&cut, whole(size)).is_err());
        }
    }
}
