//! The key ring: the numbered keys that wrap the keys of blobs encrypted with SSE-B2.
//!
//! Shape: one small text file apart from the catalog, a line for each key. New blobs are wrapped
//! with the key that has the largest number. Older ones stay until nothing is wrapped with them any
//! more. A number is never used for a second key. Not here: who is wrapped
//! with which key (the catalog knows) and the file itself (whoever opens the ring hands in a way to
//! keep it). The promise that would break first: a key is durable before anything is wrapped with
//! it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use zeroize::Zeroizing;

use crate::auth::data_keys::{self, DataKeyError};
use crate::domain::blob::Seal;
use crate::domain::encryption::{DataKey, KEY_BYTES};
use crate::domain::ids::BlobId;
use crate::domain::time::Millis;
use crate::entropy::Entropy;

const PURPOSE: &[u8] = b"kiln blob key 1, key ring";
const FINGERPRINT: &[u8] = b"kiln key ring fingerprint 1";
/// Bytes that tell a key from all others without telling the key.
const FINGERPRINT_BYTES: usize = 8;

const HEADING: &str = "\
# Key ring of a kiln data folder. Without it everything encrypted with SSE-B2 is lost: keep copies,
# and keep them apart from copies of the data. One key a line: number, milliseconds since 1970 at
# which it was made, 64 hex digits. The largest number is the current key.
";

/// Where the text of a key ring is kept.
pub(crate) trait RingFile: Send + Sync {
    /// Replaces the text, durably and at once; blocks.
    fn keep(&self, text: &[u8]) -> io::Result<()>;
}

/// The text is not that of a key ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadRing {
    #[error("line {0} is not the number, the time and the 64 hex digits of a key")]
    Line(usize),
    #[error("it holds no key")]
    Empty,
}

struct RingKey {
    made_at: Millis,
    secret: Zeroizing<[u8; KEY_BYTES]>,
    /// No longer in the file; kept in memory for whoever read a wrapped key just before.
    retired: bool,
}

/// A key of the ring as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RingKeyFacts {
    pub(crate) number: i64,
    pub(crate) made_at: Millis,
    pub(crate) is_current: bool,
    /// Tells this key from every other one; kept in the catalog.
    pub(crate) fingerprint: [u8; FINGERPRINT_BYTES],
}

/// The keys, and which of them wraps new blobs: the newest one that the catalog knows.
#[derive(Default)]
struct Keys {
    all: BTreeMap<i64, RingKey>,
    current: i64,
}

/// The key ring in use.
pub(crate) struct KeyRing {
    keys: RwLock<Keys>,
    file: Box<dyn RingFile>,
    /// Held while the ring is changed, so that two changes do not undo each other.
    changing: Mutex<()>,
}

struct FingerprintBytes;

impl KeyType for FingerprintBytes {
    fn len(&self) -> usize {
        FINGERPRINT_BYTES
    }
}

fn fingerprint(secret: &[u8; KEY_BYTES]) -> [u8; FINGERPRINT_BYTES] {
    let mut bytes = [0; FINGERPRINT_BYTES];
    let prk = Salt::new(HKDF_SHA256, b"").extract(secret);
    let filled = prk.expand(&[FINGERPRINT], FingerprintBytes).and_then(|okm| okm.fill(&mut bytes));
    // Eight bytes are within the limits of the function, so this cannot fail.
    debug_assert!(filled.is_ok());
    bytes
}

fn parse_line(line: &str) -> Option<(i64, RingKey)> {
    let mut words = line.split_ascii_whitespace();
    let (number, made_at, digits) = (words.next()?, words.next()?, words.next()?);
    let mut secret = Zeroizing::new([0; KEY_BYTES]);
    hex::decode_to_slice(digits, secret.as_mut_slice()).ok()?;
    let number = number.parse().ok().filter(|number| (1..=i64::from(u32::MAX)).contains(number))?;
    let made_at = Millis(made_at.parse().ok()?);
    words.next().is_none().then_some((number, RingKey { made_at, secret, retired: false }))
}

fn parse(text: &[u8]) -> Result<BTreeMap<i64, RingKey>, BadRing> {
    let mut keys = BTreeMap::new();
    for (at, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let wrong = BadRing::Line(at + 1);
        let line = std::str::from_utf8(line).map_err(|_| wrong)?.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (number, key) = parse_line(line).ok_or(wrong)?;
        if keys.insert(number, key).is_some() {
            return Err(wrong);
        }
    }
    if keys.is_empty() { Err(BadRing::Empty) } else { Ok(keys) }
}

fn text_of(keys: &BTreeMap<i64, RingKey>) -> Zeroizing<String> {
    // Long enough that the text never moves and leaves a copy behind.
    let mut text = Zeroizing::new(String::with_capacity(HEADING.len() + keys.len() * 128));
    text.push_str(HEADING);
    for (number, key) in keys.iter().filter(|(_, key)| !key.retired) {
        let mut digits = Zeroizing::new([0; KEY_BYTES * 2]);
        let written = hex::encode_to_slice(key.secret.as_slice(), digits.as_mut_slice());
        debug_assert!(written.is_ok());
        let digits = std::str::from_utf8(digits.as_slice()).unwrap_or_default();
        // Writing into a text cannot fail.
        writeln!(text, "{number} {} {digits}", key.made_at.0).ok();
    }
    text
}

fn newest(keys: &BTreeMap<i64, RingKey>) -> Option<i64> {
    keys.last_key_value().map(|(number, _)| *number)
}

impl KeyRing {
    /// Reads the ring out of the text of its file, which is wiped.
    pub(crate) fn read(text: Vec<u8>, file: Box<dyn RingFile>) -> Result<Self, BadRing> {
        let text = Zeroizing::new(text);
        let all = parse(&text)?;
        let current = newest(&all).unwrap_or_default();
        let keys = RwLock::new(Keys { all, current });
        Ok(Self { keys, file, changing: Mutex::default() })
    }

    /// Makes a ring with its first key and keeps it.
    pub(crate) fn make(
        file: Box<dyn RingFile>,
        now: Millis,
        entropy: &dyn Entropy,
    ) -> io::Result<Self> {
        let ring = Self { keys: RwLock::default(), file, changing: Mutex::default() };
        let first = ring.add_key(0, now, entropy)?;
        ring.use_key(first.number);
        Ok(ring)
    }

    fn keys(&self) -> RwLockReadGuard<'_, Keys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn keys_mut(&self) -> RwLockWriteGuard<'_, Keys> {
        self.keys.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts `changed` in the place of the keys once its text is durable.
    fn keep(&self, changed: BTreeMap<i64, RingKey>) -> io::Result<()> {
        self.file.keep(text_of(&changed).as_bytes())?;
        self.keys_mut().all = changed;
        Ok(())
    }

    fn copied(&self) -> BTreeMap<i64, RingKey> {
        let copy = |(number, key): (&i64, &RingKey)| {
            let RingKey { made_at, secret, retired } = key;
            (*number, RingKey { made_at: *made_at, secret: secret.clone(), retired: *retired })
        };
        self.keys().all.iter().map(copy).collect()
    }

    /// Makes a new key, durable when this answers; blocks. It wraps nothing before
    /// [`KeyRing::use_key`]. Its number is above `noted`, the largest that the catalog knows: the
    /// file may be an older copy.
    pub(crate) fn add_key(
        &self,
        noted: i64,
        now: Millis,
        entropy: &dyn Entropy,
    ) -> io::Result<RingKeyFacts> {
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = self.copied();
        let number = newest(&changed).unwrap_or_default().max(noted) + 1;
        let mut secret = Zeroizing::new([0; KEY_BYTES]);
        entropy.fill(secret.as_mut_slice());
        let fingerprint = fingerprint(&secret);
        changed.insert(number, RingKey { made_at: now, secret, retired: false });
        self.keep(changed)?;
        Ok(RingKeyFacts { number, made_at: now, is_current: false, fingerprint })
    }

    /// From now on new blobs are wrapped with this key, unless a newer one is in use already.
    pub(crate) fn use_key(&self, number: i64) {
        let mut keys = self.keys_mut();
        if keys.all.contains_key(&number) {
            keys.current = keys.current.max(number);
        }
    }

    /// Takes a key out of the file; blocks. Whoever calls knows that nothing is wrapped with it. The
    /// current key stays, and so do newer ones.
    pub(crate) fn retire(&self, number: i64) -> io::Result<()> {
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = self.copied();
        let is_older = number < self.keys().current;
        match changed.get_mut(&number) {
            Some(key) if is_older => key.retired = true,
            _ => return Ok(()),
        }
        self.keep(changed)
    }

    /// The keys in the file, oldest first.
    pub(crate) fn list(&self) -> Vec<RingKeyFacts> {
        let keys = self.keys();
        let facts = |(number, key): (&i64, &RingKey)| RingKeyFacts {
            number: *number,
            made_at: key.made_at,
            is_current: *number == keys.current,
            fingerprint: fingerprint(&key.secret),
        };
        keys.all.iter().filter(|(_, key)| !key.retired).map(facts).collect()
    }

    /// Wraps the key of a blob with the current key.
    pub(crate) fn wrap(
        &self,
        blob: BlobId,
        key: &DataKey,
        entropy: &dyn Entropy,
    ) -> Result<Seal, DataKeyError> {
        let keys = self.keys();
        let ring_key = keys.current;
        let current = keys.all.get(&ring_key).ok_or(DataKeyError::NoRingKey(ring_key))?;
        let wrapped = data_keys::wrap(&current.secret, PURPOSE, blob, key, entropy)?;
        Ok(Seal::Managed { ring_key, wrapped })
    }

    /// Opens the wrapped key of a blob.
    pub(crate) fn unwrap(
        &self,
        blob: BlobId,
        ring_key: i64,
        wrapped: &[u8],
    ) -> Result<DataKey, DataKeyError> {
        let keys = self.keys();
        let key = keys.all.get(&ring_key).ok_or(DataKeyError::NoRingKey(ring_key))?;
        data_keys::unwrap(&key.secret, PURPOSE, blob, wrapped)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::entropy::SeededEntropy;

    const BLOB: BlobId = BlobId(5);
    const NOW: Millis = Millis(1_700_000_000_000);

    #[derive(Clone, Default)]
    struct InMemory {
        text: Arc<Mutex<Vec<u8>>>,
        fails: bool,
    }

    impl RingFile for InMemory {
        fn keep(&self, text: &[u8]) -> io::Result<()> {
            if self.fails {
                return Err(io::Error::other("planned"));
            }
            *self.text.lock().expect("no panic") = text.to_vec();
            Ok(())
        }
    }

    fn unwraps(ring: &KeyRing, seal: &Seal) -> bool {
        let Seal::Managed { ring_key, wrapped } = seal else { panic!("{seal:?}") };
        ring.unwrap(BLOB, *ring_key, wrapped).is_ok()
    }

    #[test]
    fn a_ring_survives_its_text_and_wraps_with_the_newest_key() {
        let entropy = SeededEntropy::new(3);
        let file = InMemory::default();
        let ring = KeyRing::make(Box::new(file.clone()), NOW, &entropy).expect("kept");
        let key = data_keys::draw(&entropy);
        let first = ring.wrap(BLOB, &key, &entropy).expect("wraps");
        assert_eq!(ring.add_key(0, NOW.plus(5), &entropy).expect("kept").number, 2);
        let before = ring.wrap(BLOB, &key, &entropy).expect("wraps");
        assert!(matches!(before, Seal::Managed { ring_key: 1, .. }), "not in use yet");
        ring.use_key(2);
        ring.use_key(1);
        ring.use_key(3);
        let second = ring.wrap(BLOB, &key, &entropy).expect("wraps");
        assert!(matches!(second, Seal::Managed { ring_key: 2, .. }), "{second:?}");
        let text = file.text.lock().expect("no panic").clone();
        let again = KeyRing::read(text, Box::new(file.clone())).expect("its own text");
        assert!(unwraps(&again, &first) && unwraps(&again, &second));
        assert_eq!(again.list(), ring.list());
        let shown: Vec<_> =
            again.list().iter().map(|key| (key.number, key.made_at, key.is_current)).collect();
        assert_eq!(shown, [(1, NOW, false), (2, NOW.plus(5), true)]);
        assert_ne!(again.list()[0].fingerprint, again.list()[1].fingerprint);
        let other = KeyRing::make(Box::new(InMemory::default()), NOW, &entropy).expect("kept");
        assert!(!unwraps(&other, &first), "another ring's key of the same number");
        let wrong = other.unwrap(BLOB, 9, &[]).expect_err("no such key");
        assert_eq!(wrong, DataKeyError::NoRingKey(9));
    }

    #[test]
    fn a_retired_key_leaves_the_file_but_not_those_who_read_before() {
        let entropy = SeededEntropy::new(4);
        let file = InMemory::default();
        let ring = KeyRing::make(Box::new(file.clone()), NOW, &entropy).expect("kept");
        let old = ring.wrap(BLOB, &data_keys::draw(&entropy), &entropy).expect("wraps");
        ring.retire(1).expect("nothing to keep");
        assert_eq!(ring.list().len(), 1, "the current key is not retired");
        ring.add_key(0, NOW, &entropy).expect("kept");
        ring.retire(1).expect("nothing to keep");
        assert_eq!(ring.list().len(), 2, "still the current key");
        ring.use_key(2);
        ring.retire(1).expect("kept");
        assert_eq!(ring.list().iter().map(|key| key.number).collect::<Vec<_>>(), [2]);
        assert!(unwraps(&ring, &old));
        let text = file.text.lock().expect("no panic").clone();
        let again = KeyRing::read(text, Box::new(file)).expect("its own text");
        assert!(!unwraps(&again, &old));
        let next = again.add_key(0, NOW, &entropy).expect("kept");
        assert_eq!(next.number, 3, "no number comes twice");
        let next = again.add_key(7, NOW, &entropy).expect("kept");
        assert_eq!(next.number, 8, "nor one that the catalog knows");
    }

    #[test]
    fn a_key_that_cannot_be_kept_wraps_nothing() {
        let entropy = SeededEntropy::new(5);
        let file = InMemory::default();
        KeyRing::make(Box::new(file.clone()), NOW, &entropy).expect("kept");
        let text = file.text.lock().expect("no panic").clone();
        let failing = InMemory { fails: true, ..file };
        let ring = KeyRing::read(text, Box::new(failing)).expect("its own text");
        assert!(ring.add_key(0, NOW, &entropy).is_err());
        assert_eq!(ring.list().len(), 1);
    }

    #[test]
    fn what_is_no_key_ring_is_refused_with_the_line() {
        let read = |text: &str| {
            KeyRing::read(text.as_bytes().to_vec(), Box::new(InMemory::default())).map(|_| ())
        };
        let digits = "ab".repeat(32);
        assert_eq!(read(&format!("# x\n\n1 0 {digits}\n")), Ok(()));
        assert_eq!(read("# only words\n"), Err(BadRing::Empty));
        for line in ["1 0", "0 0 ", "x 0 ", "1 x ", "1 0 x"] {
            assert_eq!(read(&format!("2 0 {digits}\n{line}{digits}")), Err(BadRing::Line(2)));
        }
        let twice = format!("1 0 {digits}\n1 0 {digits}");
        assert_eq!(read(&twice), Err(BadRing::Line(2)));
        assert_eq!(read(&format!("1 0 {digits} more")), Err(BadRing::Line(1)));
        assert_eq!(read(&format!("1 0 {}", "ab".repeat(31))), Err(BadRing::Line(1)));
    }
}
