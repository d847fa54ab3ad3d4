//! Percent-encoding as B2 uses it in headers, paths and queries.
//!
//! Decoding happens once and strictly: a broken escape, bytes that are no UTF-8 or an overlong
//! form are refused, never repaired. `+` means a space (spec: b2-native-api.md section 5.2).

/// Why a text could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Undecodable {
    /// `%` without two hex digits behind it; carries what stood there.
    BadHex(String),
    /// The decoded bytes are no UTF-8.
    NotUtf8,
}

/// Decodes `%XX` and `+`.
pub(crate) fn decode(encoded: &[u8]) -> Result<String, Undecodable> {
    decode_with(encoded, b' ')
}

/// Decodes `%XX` only, as in the paths of S3.
pub(crate) fn decode_path(encoded: &[u8]) -> Result<String, Undecodable> {
    decode_with(encoded, b'+')
}

fn decode_with(encoded: &[u8], plus: u8) -> Result<String, Undecodable> {
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'+' => decoded.push(plus),
            b'%' => {
                let digits = after.get(..2).unwrap_or(after);
                let mut byte = [0_u8];
                if hex::decode_to_slice(digits, &mut byte).is_err() {
                    return Err(Undecodable::BadHex(String::from_utf8_lossy(digits).into_owned()));
                }
                decoded.push(byte[0]);
                rest = after.get(2..).unwrap_or_default();
            }
            other => decoded.push(other),
        }
    }
    String::from_utf8(decoded).map_err(|_| Undecodable::NotUtf8)
}

fn stays_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-/~!$'()*;=:@".contains(&byte)
}

/// Encodes every byte outside Backblaze's safe set; a space becomes `%20`.
pub(crate) fn encode(text: &str) -> String {
    encode_but(text, stays_plain)
}

/// Encodes as S3 does in listings: everything but letters, digits, `-_.~/*`.
pub(crate) fn encode_for_listing(text: &str) -> String {
    encode_but(text, |byte| byte.is_ascii_alphanumeric() || b"-_.~/*".contains(&byte))
}

fn encode_but(text: &str, stays_plain: impl Fn(u8) -> bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if stays_plain(byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            for nibble in [byte >> 4, byte & 15] {
                encoded.push(
                    char::from_digit(u32::from(nibble), 16).unwrap_or('0').to_ascii_uppercase(),
                );
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plus_is_a_space_and_escapes_are_bytes() {
        assert_eq!(decode(b"Teeny+Tiny%2B%2f%C3%A9").as_deref(), Ok("Teeny Tiny+/\u{e9}"));
    }

    #[test]
    fn broken_escapes_and_overlong_utf8_are_refused() {
        assert_eq!(decode(b"%G1"), Err(Undecodable::BadHex("G1".to_owned())));
        assert_eq!(decode(b"a%"), Err(Undecodable::BadHex(String::new())));
        assert_eq!(decode(b"a%4"), Err(Undecodable::BadHex("4".to_owned())));
        for bytes in [&b"%c0%ae"[..], b"%ed%a0%80", b"%ff", b"%e2%82"] {
            assert_eq!(decode(bytes), Err(Undecodable::NotUtf8));
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_itself(text in any::<String>()) {
            prop_assert_eq!(decode(encode(&text).as_bytes()), Ok(text));
        }

        #[test]
        fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            drop(decode(&bytes));
        }
    }
}
