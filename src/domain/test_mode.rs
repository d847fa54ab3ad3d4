//! What the `X-Bz-Test-Mode` header asks for, and how often it comes true.
//!
//! Backblaze names the three modes and leaves their frequencies open; those here are ours, often
//! enough for a test of a hundred calls and rare enough for a client that tries a few times.

/// The modes that one request asks for; none by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TestModes {
    /// Uploads fail now and then, and their upload URL with them.
    pub(crate) fail_some_uploads: bool,
    /// Account tokens end now and then before their time.
    pub(crate) expire_some_tokens: bool,
    /// Every call that a cap can stop is stopped.
    pub(crate) force_cap_exceeded: bool,
}

/// Of so many uploads in a row one fails.
pub(crate) const UPLOADS_PER_FAILURE: u8 = 4;
/// Of so many checks of a token in a row one finds it expired.
pub(crate) const CHECKS_PER_EXPIRY: u8 = 10;

/// Strikes once in each row of so many events, by chance but never twice running: a client that
/// tries again comes through, and a test of a few calls sees a failure for certain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rhythm {
    row: u8,
    at: u8,
    strikes_at: u8,
}

impl Rhythm {
    /// Rows of `row` events, two at least.
    pub(crate) fn new(row: u8) -> Self {
        Self { row: row.max(2), at: 0, strikes_at: 0 }
    }

    /// Whether the next event is struck; `drawn` is a random byte.
    pub(crate) fn strikes(&mut self, drawn: u8) -> bool {
        if self.at == 0 {
            // Never the first of a row, which may follow the last one of the row before.
            self.strikes_at = 1 + drawn % (self.row - 1);
        }
        let struck = self.at == self.strikes_at;
        self.at = (self.at + 1) % self.row;
        struck
    }
}

impl TestModes {
    /// Reads the values of the header, which may come several times. What is no mode means nothing.
    pub(crate) fn parse<'v>(values: impl Iterator<Item = &'v str>) -> Self {
        let mut modes = Self::default();
        for word in values.flat_map(|value| value.split(',')) {
            match word.trim() {
                "fail_some_uploads" => modes.fail_some_uploads = true,
                "expire_some_account_authorization_tokens" => modes.expire_some_tokens = true,
                "force_cap_exceeded" => modes.force_cap_exceeded = true,
                _ => {}
            }
        }
        modes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn native_394_395_396_each_mode_is_known_by_its_name_alone_or_with_others() {
        let parse = |values: &[&str]| TestModes::parse(values.iter().copied());
        let none = TestModes::default();
        assert!(parse(&["fail_some_uploads"]).fail_some_uploads);
        assert!(parse(&["expire_some_account_authorization_tokens"]).expire_some_tokens);
        assert!(parse(&["force_cap_exceeded"]).force_cap_exceeded);
        let all = TestModes {
            fail_some_uploads: true,
            expire_some_tokens: true,
            force_cap_exceeded: true,
        };
        let names =
            ["fail_some_uploads", "force_cap_exceeded", "expire_some_account_authorization_tokens"];
        assert_eq!(parse(&names), all);
        assert_eq!(parse(&[&names.join(", ")]), all);
        for nothing in [&[][..], &[""], &["Fail_some_uploads"], &["fail some uploads"]] {
            assert_eq!(parse(nothing), none, "{nothing:?}");
        }
    }

    #[test]
    fn each_row_is_struck_once_and_never_twice_running() {
        for row in [2, UPLOADS_PER_FAILURE, CHECKS_PER_EXPIRY] {
            let mut rhythm = Rhythm::new(row);
            let mut state = 7_u8;
            let mut draw = || {
                state = state.wrapping_mul(77).wrapping_add(13);
                state
            };
            let events: Vec<bool> =
                (0..u16::from(row) * 100).map(|_| rhythm.strikes(draw())).collect();
            for chunk in events.chunks(usize::from(row)) {
                assert_eq!(chunk.iter().filter(|struck| **struck).count(), 1, "{chunk:?}");
            }
            assert!(events.windows(2).all(|two| two != [true, true]));
        }
    }
}
