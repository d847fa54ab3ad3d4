//! Bits that flip on the disk: found before the answer ends, whatever is read.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::catalog::tx::{Value, find};
use crate::domain::encryption::{AskedEncryption, Encryption};
use crate::domain::file::FileVersion;
use crate::domain::ids::BlobId;
use crate::domain::lock::FileLock;
use crate::domain::names::FileName;
use crate::domain::range::Wanted;
use crate::operations::copy::{Metadata, NewCopy, Source, copy_file};
use crate::operations::download::{Content, DownloadQuery, find_by_id};
use crate::testing::TestHouse;

/// The file of a blob in the store.
fn file_of(house: &TestHouse, blob: BlobId) -> PathBuf {
    let mut folders = vec![house.data_dir().join("blobs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.ends_with(blob.to_string()) {
                return path;
            }
        }
    }
    panic!("{blob} has no file");
}

/// Flips one bit of a stored blob; flipping it again heals it.
pub(super) async fn flip(house: &TestHouse, version: &FileVersion, bit: u64) {
    let (blob, byte) = (version.blob.unwrap(), usize::try_from(bit / 8).unwrap());
    let inline = house.app.catalog.read(|tx| {
        let data = find(
            tx,
            "SELECT data FROM blob_data WHERE blob_id = ?1",
            &[Value::Int(blob.0)],
            |row| Ok(row.bytes(0)?.to_vec()),
        )?;
        Ok(data)
    });
    if let Some(mut data) = inline.unwrap() {
        data[byte] ^= 1 << (bit % 8);
        let written = house.app.catalog.write("damage", move |tx| {
            let row = [Value::Int(blob.0), Value::Bytes(&data)];
            Ok(tx.execute("UPDATE blob_data SET data = ?2 WHERE blob_id = ?1", &row)?)
        });
        assert_eq!(written.await.unwrap(), 1);
        return;
    }
    let path = file_of(house, blob);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[byte] ^= 1 << (bit % 8);
    std::fs::write(&path, bytes).unwrap();
}

/// What a client gets, and whether the answer came to its end.
async fn download(house: &TestHouse, version: &FileVersion, range: Wanted) -> (Vec<u8>, bool) {
    let query = DownloadQuery {
        range,
        if_range: None,
        overrides: BTreeMap::new(),
        by_a_page: false,
        key: None,
    };
    let id = version.id().to_string();
    let download = find_by_id(&house.app, Some(&house.caller), &id, query).unwrap();
    let mut got = Vec::new();
    match download.open(&house.app).await {
        Err(_) => return (got, false),
        Ok((Content::Inline(bytes), _)) => got.extend_from_slice(&bytes),
        Ok((Content::Stored(mut reader), _)) => {
            while let Some(chunk) = reader.next(&house.app).await {
                match chunk {
                    Ok(chunk) => got.extend_from_slice(&chunk),
                    Err(_) => return (got, false),
                }
            }
        }
    }
    (got, true)
}

/// A reproducible generator (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }
}

#[tokio::test]
async fn reliability_p6_a_thousand_flipped_bits_are_found_before_a_wrong_byte_is_handed_out() {
    let house = TestHouse::open().await;
    let bucket = house.bucket("flipped-bits").await;
    let mut dice = Dice(6);
    let mut files = Vec::new();
    for (name, size) in [("a", 1), ("b", 16_384), ("c", 16_385), ("d", 65_536), ("e", 300_001)] {
        let body: Vec<u8> = (0..size).map(|_| u8::try_from(dice.roll(256)).unwrap()).collect();
        let sealed = house.upload_encrypted(bucket, name, &body, AskedEncryption::Managed);
        files.push((sealed.await.unwrap(), body.clone()));
        files.push((house.upload(bucket, name, &body).await, body));
    }
    for flipped in 0..1000 {
        let (version, body) = &files[usize::try_from(dice.roll(files.len() as u64)).unwrap()];
        let bit = dice.roll(version.size * 8);
        flip(&house, version, bit).await;
        let (got, ended) = download(&house, version, Wanted::Whole).await;
        assert!(!ended, "flip {flipped}: the whole of {:?}", version.name);
        assert_eq!(got, body[..got.len()], "flip {flipped}: no wrong byte");
        // A range that touches the damaged byte, by as little as that byte.
        let byte = bit / 8;
        let first = byte - dice.roll(byte.min(70_000) + 1);
        let last = byte + dice.roll(version.size - byte);
        let range = Wanted::From { first, last: Some(last) };
        let (got, ended) = download(&house, version, range).await;
        let start = usize::try_from(first).unwrap();
        assert!(!ended, "flip {flipped}: {first} to {last} of {:?}", version.name);
        assert_eq!(got, body[start..start + got.len()], "flip {flipped}: no wrong byte");
        if flipped % 10 == 0 {
            let wanted = NewCopy {
                source: Source {
                    file_id: version.id().to_string(),
                    range: Some(format!("bytes={first}-{last}")),
                    key: None,
                },
                name: FileName::parse("copy").unwrap(),
                bucket: None,
                metadata: Metadata::Copy,
                lock: FileLock::default(),
                encryption: AskedEncryption::Default,
            };
            let copied = copy_file(&house.app, &house.caller, wanted).await;
            let whole = first == 0 && last + 1 == version.size;
            let shared = whole && version.encryption == Encryption::None;
            assert!(copied.is_err() || shared, "flip {flipped}: what is not shared is read");
        }
        flip(&house, version, bit).await;
    }
    for (version, body) in &files {
        assert_eq!(download(&house, version, Wanted::Whole).await, (body.clone(), true));
    }
}
