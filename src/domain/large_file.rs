//! Large files: what their parts must be like.

use std::fmt;

use crate::domain::checksum::{Checksum, ChecksumAlgorithm, ChecksumKind, KeptChecksum};
use crate::domain::digest::{Md5Digest, Sha1Digest, md5_of};
use crate::domain::file::{ContentSha1, PartsDigest};
use crate::domain::ids::BlobId;
use crate::domain::range::ByteRange;
use crate::domain::refusal::{Code, Refusal, bad_request, refuse, shorten};
use crate::domain::time::Millis;

/// The largest part number (documented).
pub(crate) const PART_NUMBER_MAX: i64 = 10_000;

/// Number of a part, 1 to 10,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PartNumber(i64);

impl PartNumber {
    pub(crate) fn new(number: i64) -> Option<Self> {
        (1..=PART_NUMBER_MAX).contains(&number).then_some(Self(number))
    }

    /// Reads the number that a caller gave.
    pub(crate) fn of_caller(number: i64) -> Result<Self, Refusal> {
        Self::new(number).ok_or_else(|| {
            bad_request(format!("part number must be between 1 and {PART_NUMBER_MAX}: {number}"))
        })
    }

    pub(crate) fn get(self) -> i64 {
        self.0
    }
}

/// One part of an unfinished large file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) number: PartNumber,
    pub(crate) blob: BlobId,
    pub(crate) size: u64,
    pub(crate) sha1: ContentSha1,
    pub(crate) md5: Md5Digest,
    /// The one that the uploader sent along.
    pub(crate) checksum: Option<Checksum>,
    pub(crate) uploaded_at: Millis,
}

/// How large parts are; told by `b2_authorize_account`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PartSizes {
    /// Bytes that every part but the last must have.
    pub(crate) bytes_min: u64,
    pub(crate) bytes_recommended: u64,
}

impl Default for PartSizes {
    /// What Backblaze documents.
    fn default() -> Self {
        Self { bytes_min: 5_000_000, bytes_recommended: 100_000_000 }
    }
}

/// How long the parts of a finished large file were, in order. Nearly all are of one size, so they
/// are kept as runs: `5000000x3 12`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct SizesOfParts(Vec<(u64, u32)>);

impl SizesOfParts {
    pub(crate) fn of(parts: &[Part]) -> Self {
        let mut runs: Vec<(u64, u32)> = Vec::new();
        for part in parts {
            match runs.last_mut() {
                Some((size, count)) if *size == part.size => *count += 1,
                _ => runs.push((part.size, 1)),
            }
        }
        Self(runs)
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let run = |run: &str| {
            let (size, count) = run.split_once('x').unwrap_or((run, "1"));
            Some((size.parse().ok()?, count.parse().ok()?))
        };
        text.split(' ').map(run).collect::<Option<_>>().map(Self)
    }

    /// The size of each part, in order.
    pub(crate) fn sizes(&self) -> Vec<u64> {
        let each = |&(size, count): &(u64, u32)| std::iter::repeat_n(size, count as usize);
        self.0.iter().flat_map(each).collect()
    }

    /// The bytes of a part, counted from 1.
    pub(crate) fn range_of(&self, number: u32) -> Option<ByteRange> {
        let mut before = number.checked_sub(1)?;
        let mut start = 0_u64;
        for &(size, count) in &self.0 {
            if before < count {
                let start = start.checked_add(size.checked_mul(u64::from(before))?)?;
                return Some(ByteRange { start, end: start.checked_add(size)? });
            }
            before -= count;
            start = start.checked_add(size.checked_mul(u64::from(count))?)?;
        }
        None
    }
}

impl fmt::Display for SizesOfParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (size, count)) in self.0.iter().enumerate() {
            let between = if at == 0 { "" } else { " " };
            match count {
                1 => write!(f, "{between}{size}")?,
                count => write!(f, "{between}{size}x{count}")?,
            }
        }
        Ok(())
    }
}

/// A part as an S3 client names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedPart {
    pub(crate) number: i64,
    /// Its MD5 in hex, with or without quotation marks.
    pub(crate) tag: String,
    pub(crate) checksums: Vec<Checksum>,
}

/// What an S3 client says of the file that its parts become, besides what they are.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct ClaimedWhole {
    pub(crate) bytes: Option<u64>,
    pub(crate) kind: Option<ChecksumKind>,
    /// In base64; a composite one with the number of parts behind it, or without.
    pub(crate) checksum: Option<(ChecksumAlgorithm, String)>,
}

/// The checksum of a file that is made of these parts: the one `wanted` when it was begun, else the
/// one that is claimed at its end. Refused where anything is not as claimed.
pub(crate) fn checksum_of_whole(
    parts: &[Part],
    wanted: Option<&KeptChecksum>,
    claimed: &ClaimedWhole,
) -> Result<Option<KeptChecksum>, Refusal> {
    let mismatch = |text: &'static str| Err(refuse(Code::CompletionMismatch, text));
    let bytes = parts.iter().fold(0_u64, |sum, part| sum.saturating_add(part.size));
    if claimed.bytes.is_some_and(|claimed| claimed != bytes) {
        return mismatch("The parts do not make a file of the size in x-amz-mp-object-size.");
    }
    if wanted.zip(claimed.kind).is_some_and(|(wanted, kind)| wanted.kind != kind) {
        return mismatch("The upload was begun with another type of checksum.");
    }
    let over_parts = |wanted: &KeptChecksum| {
        wanted.over_parts(parts.iter().map(|part| (part.checksum.as_ref(), part.size)))
    };
    let Some((algorithm, value)) = &claimed.checksum else {
        return Ok(wanted.and_then(over_parts));
    };
    let wanted = match wanted {
        Some(wanted) if wanted.algorithm != *algorithm => {
            return mismatch("The upload was begun with another checksum algorithm.");
        }
        Some(wanted) => Some(wanted.clone()),
        None => KeptChecksum::wanted(*algorithm, claimed.kind),
    };
    let Some(whole) = wanted.as_ref().and_then(over_parts) else {
        return mismatch("The parts have no checksums that make one of the file.");
    };
    let right = whole.value.as_deref().unwrap_or_default();
    let alone = right.split_once('-').map_or(right, |(alone, _)| alone);
    if value == right || value == alone {
        return Ok(Some(whole));
    }
    let name = algorithm.as_str();
    let text = format!("The {name} you specified did not match the calculated checksum.");
    Err(refuse(Code::ChecksumMismatch, text))
}

/// Finds the parts that an S3 client names, in the order in which it names them. Parts it does not
/// name are left out. `parts` are in the order of their numbers.
pub(crate) fn chosen_parts(
    parts: &[Part],
    named: &[NamedPart],
    sizes: PartSizes,
) -> Result<Vec<Part>, Refusal> {
    let ascending = named.iter().is_sorted_by(|one, other| one.number < other.number);
    if !ascending {
        return Err(refuse(
            Code::InvalidPartOrder,
            "The list of parts was not in ascending order. Parts list must be specified in order by \
             part number.",
        ));
    }
    let invalid = || {
        refuse(
            Code::InvalidPart,
            "One or more of the specified parts could not be found. The part might not have been \
             uploaded, or the specified entity tag might not have matched the part's entity tag.",
        )
    };
    let mut chosen = Vec::with_capacity(named.len());
    for NamedPart { number, tag, checksums } in named {
        let at = parts.binary_search_by_key(number, |part| part.number.get());
        let part = at.ok().and_then(|at| parts.get(at)).ok_or_else(invalid)?;
        let is_tag = tag.trim_matches('"').eq_ignore_ascii_case(&part.md5.to_string());
        if !is_tag || checksums.iter().any(|named| part.checksum.as_ref() != Some(named)) {
            return Err(invalid());
        }
        chosen.push(part.clone());
    }
    let all_but_last = chosen.split_last().map_or(&[][..], |(_, before)| before);
    if all_but_last.iter().any(|part| part.size < sizes.bytes_min) {
        return Err(refuse(
            Code::PartTooSmall,
            "Your proposed upload is smaller than the minimum allowed object size.",
        ));
    }
    Ok(chosen)
}

/// Checks the parts of a large file that is to be finished against the SHA-1s its uploader names.
/// `parts` are in the order of their numbers. None for `sizes` takes parts of any size, and a single
/// one: a replica has those of its source.
pub(crate) fn check_parts(
    parts: &[Part],
    sha1s: &[String],
    sizes: Option<PartSizes>,
) -> Result<(), Refusal> {
    let gap = parts.iter().zip(1..).find(|(part, expected)| part.number.get() != *expected);
    if let Some((_, missing)) = gap {
        return Err(missing_part(missing));
    }
    if sha1s.len() > parts.len() {
        return Err(missing_part(i64::try_from(parts.len()).unwrap_or(i64::MAX).saturating_add(1)));
    }
    if sha1s.len() < parts.len() {
        return Err(bad_request(format!(
            "partSha1Array has {} entries, but {} parts were uploaded",
            sha1s.len(),
            parts.len()
        )));
    }
    if parts.len() < if sizes.is_some() { 2 } else { 1 } {
        // b2sdk's tests look for this text.
        return Err(bad_request("large files must have at least 2 parts"));
    }
    for (part, named) in parts.iter().zip(sha1s) {
        // Clients repeat what they were answered, as a client of an older answer may.
        let digits = named.strip_prefix("unverified:").unwrap_or(named);
        let named_digest = Sha1Digest::parse(digits).ok_or_else(|| {
            bad_request(format!("Bad SHA-1 in partSha1Array: {}", shorten(named)))
        })?;
        if part.sha1.digest() != Some(named_digest) {
            return Err(refuse(
                Code::PartSha1Mismatch,
                format!("partSha1Array does not match the SHA-1 of part {}", part.number.get()),
            ));
        }
    }
    let Some(sizes) = sizes else { return Ok(()) };
    let all_but_last = parts.split_last().map_or(&[][..], |(_, before)| before);
    match all_but_last.iter().find(|part| part.size < sizes.bytes_min) {
        Some(small) => Err(bad_request(format!(
            "part number {} is smaller than the minimum part size of {} bytes",
            small.number.get(),
            sizes.bytes_min
        ))),
        None => Ok(()),
    }
}

fn missing_part(number: i64) -> Refusal {
    refuse(Code::MissingPart, format!("part number {number} has not been uploaded"))
}

/// The tag of a file made of parts with these tags, MD5s in hex, with or without quotation marks.
pub(crate) fn tag_over_tags<'t>(tags: impl Iterator<Item = &'t str>) -> Option<String> {
    let digests: Option<Vec<[u8; 16]>> = tags
        .map(|tag| {
            let mut bytes = [0_u8; 16];
            hex::decode_to_slice(tag.trim_matches('"'), &mut bytes).ok().map(|()| bytes)
        })
        .collect();
    let digests = digests?;
    Some(format!("{}-{}", md5_of(digests.iter().map(|digest| &digest[..])), digests.len()))
}

/// The digest over the digests of the parts, as S3 shows it.
pub(crate) fn parts_digest(parts: &[Part]) -> PartsDigest {
    PartsDigest {
        md5: md5_of(parts.iter().map(|part| &part.md5.0[..])),
        count: u32::try_from(parts.len()).unwrap_or(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::checksum::ChecksumHasher;

    fn part(number: i64, size: u64, byte: u8) -> Part {
        Part {
            number: PartNumber::new(number).expect("in range"),
            blob: BlobId(number),
            size,
            sha1: ContentSha1::Verified(Sha1Digest([byte; 20])),
            md5: Md5Digest([byte; 16]),
            checksum: None,
            uploaded_at: Millis(0),
        }
    }

    fn sha1(byte: u8) -> String {
        Sha1Digest([byte; 20]).to_string()
    }

    fn code(parts: &[Part], sha1s: &[String]) -> Option<Code> {
        let sizes = PartSizes { bytes_min: 100, bytes_recommended: 1000 };
        check_parts(parts, sha1s, Some(sizes)).err().map(|refusal| refusal.code)
    }

    #[test]
    fn native_247_part_numbers_reach_from_1_to_10000() {
        for (number, fits) in [(0, false), (1, true), (10_000, true), (10_001, false), (-1, false)]
        {
            assert_eq!(PartNumber::of_caller(number).is_ok(), fits, "{number}");
        }
    }

    #[test]
    fn native_252_to_256_what_makes_a_large_file_complete() {
        let (one, two) = (part(1, 100, 1), part(2, 1, 2));
        let both = [one.clone(), two.clone()];
        assert_eq!(code(&both, &[sha1(1), sha1(2)]), None);
        assert_eq!(code(&both, &[sha1(1), sha1(2).to_uppercase()]), None);
        assert_eq!(code(&both, &[sha1(1), sha1(3)]), Some(Code::PartSha1Mismatch));
        assert_eq!(code(&both, &[sha1(1)]), Some(Code::BadRequest));
        assert_eq!(code(&both, &[sha1(1), sha1(2), sha1(3)]), Some(Code::MissingPart));
        assert_eq!(code(&both, &[sha1(1), "x".to_owned()]), Some(Code::BadRequest));
        let gap = [one.clone(), part(3, 1, 2)];
        assert_eq!(code(&gap, &[sha1(1), sha1(2)]), Some(Code::MissingPart));
        assert_eq!(code(&[], &[]), Some(Code::BadRequest));
        let small = [part(1, 99, 1), two];
        assert_eq!(code(&small, &[sha1(1), sha1(2)]), Some(Code::BadRequest));
        let sizes = Some(PartSizes::default());
        let refusal = check_parts(std::slice::from_ref(&one), &[sha1(1)], sizes).expect_err("one");
        assert_eq!(check_parts(&[one], &[sha1(1)], None), Ok(()), "as its source has it");
        assert!(check_parts(&[], &[], None).is_err());
        assert!(refusal.message.contains("large files must have at least 2 parts"));
    }

    #[test]
    fn s3_88_sizes_of_parts_are_kept_as_runs() {
        let parts = [part(1, 9, 0), part(2, 9, 0), part(5, 9, 0), part(7, 4, 0)];
        let sizes = SizesOfParts::of(&parts);
        assert_eq!(sizes.to_string(), "9x3 4");
        assert_eq!(SizesOfParts::parse("9x3 4"), Some(sizes.clone()));
        let range = |number| sizes.range_of(number).map(|range| (range.start, range.end));
        assert_eq!([1, 2, 3, 4].map(range), [(0, 9), (9, 18), (18, 27), (27, 31)].map(Some));
        assert_eq!([0, 5].map(range), [None, None]);
        for wrong in ["", "x", "9x", "9x3 ", "-1"] {
            assert_eq!(SizesOfParts::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn s3_112_113_what_the_list_of_parts_must_be_like() {
        let parts = [part(1, 100, 1), part(3, 99, 3), part(9, 1, 9)];
        let tag = |byte| Md5Digest([byte; 16]).to_string();
        let sizes = PartSizes { bytes_min: 100, bytes_recommended: 1000 };
        let of = |named: &[(i64, String)]| {
            let part = |(number, tag): &(i64, String)| NamedPart {
                number: *number,
                tag: tag.clone(),
                checksums: Vec::new(),
            };
            let named: Vec<_> = named.iter().map(part).collect();
            chosen_parts(&parts, &named, sizes)
                .map(|chosen| chosen.iter().map(|part| part.number.get()).collect::<Vec<_>>())
                .map_err(|refusal| refusal.code)
        };
        assert_eq!(of(&[(1, tag(1)), (3, format!("\"{}\"", tag(3)))]), Ok(vec![1, 3]));
        assert_eq!(of(&[(9, tag(9))]), Ok(vec![9]));
        assert_eq!(of(&[(3, tag(3)), (1, tag(1))]), Err(Code::InvalidPartOrder));
        assert_eq!(of(&[(1, tag(1)), (1, tag(1))]), Err(Code::InvalidPartOrder));
        assert_eq!(of(&[(1, tag(2))]), Err(Code::InvalidPart));
        assert_eq!(of(&[(2, tag(2))]), Err(Code::InvalidPart));
        assert_eq!(of(&[(3, tag(3)), (9, tag(9))]), Err(Code::PartTooSmall));
    }

    #[test]
    fn s3_119_checksums_at_the_end_of_an_upload_are_compared() {
        let crc = ChecksumAlgorithm::Crc32;
        let sum = |content: &[u8]| {
            let mut hasher = ChecksumHasher::new(crc);
            hasher.update(content);
            hasher.finish()
        };
        let sent = |number: i64, content: &[u8]| Part {
            checksum: Some(sum(content)),
            ..part(number, content.len() as u64, 0)
        };
        let parts = [sent(1, b"1234"), sent(2, b"56789")];
        let sizes = PartSizes { bytes_min: 1, bytes_recommended: 1 };
        let tag = Md5Digest([0; 16]).to_string();
        let chosen = |checksums: Vec<Checksum>| {
            let named = NamedPart { number: 1, tag: tag.clone(), checksums };
            chosen_parts(&parts, &[named], sizes).map(|_| ()).map_err(|refusal| refusal.code)
        };
        assert_eq!(chosen(vec![sum(b"1234")]), Ok(()));
        assert_eq!(chosen(vec![sum(b"1235")]), Err(Code::InvalidPart));
        let other = Checksum { algorithm: ChecksumAlgorithm::Crc32c, ..sum(b"1234") };
        assert_eq!(chosen(vec![sum(b"1234"), other]), Err(Code::InvalidPart));

        let full = Some(ChecksumKind::Full);
        let whole = sum(b"123456789").base64();
        let begun = |kind| KeptChecksum::wanted(crc, kind);
        let of = |wanted: Option<KeptChecksum>, claimed: ClaimedWhole| {
            checksum_of_whole(&parts, wanted.as_ref(), &claimed)
                .map(|kept| kept.and_then(|kept| kept.value))
                .map_err(|refusal| refusal.code)
        };
        let claimed = |kind, value: &str| ClaimedWhole {
            bytes: Some(9),
            kind,
            checksum: Some((crc, value.to_owned())),
        };
        assert_eq!(of(None, ClaimedWhole::default()), Ok(None));
        assert_eq!(of(begun(full), ClaimedWhole::default()), Ok(Some(whole.clone())));
        assert_eq!(of(begun(full), claimed(full, &whole)), Ok(Some(whole.clone())));
        assert_eq!(of(None, claimed(full, &whole)), Ok(Some(whole.clone())));
        assert_eq!(of(begun(full), claimed(None, "AAAAAA==")), Err(Code::ChecksumMismatch));
        let composite = of(begun(None), ClaimedWhole::default()).expect("made").expect("some");
        let alone = composite.strip_suffix("-2").expect("of two parts");
        for right in [composite.as_str(), alone] {
            assert_eq!(of(begun(None), claimed(None, right)), Ok(Some(composite.clone())));
        }
        let mismatch = Err(Code::CompletionMismatch);
        assert_eq!(of(begun(None), claimed(full, &whole)), mismatch, "another type");
        let short = ClaimedWhole { bytes: Some(8), ..ClaimedWhole::default() };
        assert_eq!(of(None, short), mismatch);
        let sha = ClaimedWhole {
            checksum: Some((ChecksumAlgorithm::Sha256, String::new())),
            ..ClaimedWhole::default()
        };
        assert_eq!(of(begun(full), sha.clone()), mismatch, "another algorithm");
        assert_eq!(of(None, sha), mismatch, "the parts have none");
    }

    #[test]
    fn the_digest_over_parts_is_that_of_s3() {
        // MD5 of the two digests one after the other.
        let digest = parts_digest(&[part(1, 1, 0), part(2, 1, 0)]);
        assert_eq!(digest.count, 2);
        assert_eq!(digest.md5.to_string(), "70bc8f4b72a86921468bf8e8441dce51");
        let zeros = Md5Digest([0; 16]).to_string();
        let quoted = format!("\"{zeros}\"");
        let tag = tag_over_tags([zeros.as_str(), quoted.as_str()].into_iter());
        assert_eq!(tag.as_deref(), Some("70bc8f4b72a86921468bf8e8441dce51-2"));
        assert_eq!(tag_over_tags(["x"].into_iter()), None);
    }
}
