//! Byte ranges of downloads.

/// A range inside content whose length is known: `start < end <= size`, or empty at 0 for empty
/// content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ByteRange {
    pub(crate) start: u64,
    /// One past the last byte.
    pub(crate) end: u64,
}

impl ByteRange {
    /// All of content that has `size` bytes.
    pub(crate) fn whole(size: u64) -> Self {
        Self { start: 0, end: size }
    }

    pub(crate) fn len(self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

/// What a `Range` header asks for, before the length of the content is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Whole,
    /// `bytes=first-last`, `last` included.
    From {
        first: u64,
        last: Option<u64>,
    },
    /// `bytes=-count`.
    Last(u64),
}

/// The range starts beyond the end of the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unsatisfiable;

impl Wanted {
    /// Reads a `Range` header. Several ranges, other units and broken syntax ask for the whole
    /// content, as the header is then to be ignored (spec: b2-native-api.md section 12.1, 12.3).
    pub(crate) fn parse(header: Option<&str>) -> Self {
        header.and_then(Self::parse_single).unwrap_or(Self::Whole)
    }

    fn parse_single(header: &str) -> Option<Self> {
        let (first, last) = header.trim().strip_prefix("bytes=")?.split_once('-')?;
        let number = |digits: &str| -> Option<u64> {
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            // Numbers beyond 64 bits lie beyond every file.
            plain.then(|| digits.parse().unwrap_or(u64::MAX))
        };
        match (first.is_empty(), last.is_empty()) {
            (true, false) => Some(Self::Last(number(last)?)),
            (false, true) => Some(Self::From { first: number(first)?, last: None }),
            (false, false) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::From { first, last: Some(last) })
            }
            (true, true) => None,
        }
    }

    /// Cuts the wish down to content of `size` bytes.
    pub(crate) fn clamp(self, size: u64) -> Result<ByteRange, Unsatisfiable> {
        match self {
            Self::Whole => Ok(ByteRange::whole(size)),
            Self::From { first, last } => {
                let end = last.map_or(size, |last| last.saturating_add(1).min(size));
                if first < size { Ok(ByteRange { start: first, end }) } else { Err(Unsatisfiable) }
            }
            Self::Last(0) => Err(Unsatisfiable),
            Self::Last(count) => {
                if size == 0 {
                    return Err(Unsatisfiable);
                }
                Ok(ByteRange { start: size.saturating_sub(count), end: size })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(header: &str, size: u64) -> Result<(u64, u64), Unsatisfiable> {
        Wanted::parse(Some(header)).clamp(size).map(|range| (range.start, range.end))
    }

    #[test]
    fn single_ranges_are_cut_to_the_content() {
        assert_eq!(cut("bytes=5-8", 10), Ok((5, 9)));
        assert_eq!(cut("bytes=5-", 10), Ok((5, 10)));
        assert_eq!(cut("bytes=5-99999999999999999999999", 10), Ok((5, 10)));
        assert_eq!(cut("bytes=-3", 10), Ok((7, 10)));
        assert_eq!(cut("bytes=-30", 10), Ok((0, 10)));
    }

    #[test]
    fn a_start_at_or_beyond_the_end_cannot_be_satisfied() {
        for header in ["bytes=10-", "bytes=10-12", "bytes=99999999999999999999999-", "bytes=-0"] {
            assert_eq!(cut(header, 10), Err(Unsatisfiable), "{header}");
        }
        assert_eq!(cut("bytes=0-", 0), Err(Unsatisfiable));
    }

    #[test]
    fn anything_else_asks_for_the_whole() {
        for header in
            ["", "bytes=", "bytes=-", "bytes=5-2", "bytes=1-2,4-5", "items=1-2", "bytes=+1-2"]
        {
            assert_eq!(cut(header, 10), Ok((0, 10)), "{header}");
        }
        assert_eq!(Wanted::parse(None).clamp(0), Ok(ByteRange::whole(0)));
    }

    proptest! {
        #[test]
        fn a_range_lies_inside_the_content(header in "bytes=[0-9]{0,20}-[0-9]{0,20}", size in 0_u64..100) {
            if let Ok(range) = Wanted::parse(Some(&header)).clamp(size) {
                prop_assert!(range.start <= range.end && range.end <= size);
            }
        }
    }
}
