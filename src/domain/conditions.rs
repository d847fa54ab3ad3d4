//! Conditions of requests: whether what a client knows of a file is still so.

use crate::domain::time::Millis;

/// Tags that a client names; None stands for any.
type Tags = Option<Vec<String>>;

/// What a request makes its answer depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Conditions {
    pub(crate) if_match: Option<Tags>,
    pub(crate) if_none_match: Option<Tags>,
    pub(crate) modified_since: Option<Millis>,
    pub(crate) unmodified_since: Option<Millis>,
}

/// What follows from conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    GoOn,
    /// The client has it already.
    NotModified,
    Failed,
}

impl Conditions {
    /// Judges a file with this tag that was made at `modified`. A tag decides where one is named; the
    /// date beside it is then passed over (RFC 9110, section 13.2.2).
    pub(crate) fn judge(&self, tag: Option<&str>, modified: Millis) -> Verdict {
        let names = |tags: &Tags| match (tags, tag) {
            (None, _) => true,
            (Some(tags), Some(tag)) => tags.iter().any(|one| one == tag),
            (Some(_), None) => false,
        };
        // Dates in headers have no fractions of a second.
        let is_newer = |than: Millis| modified.0.div_euclid(1000) > than.0.div_euclid(1000);
        let fails = match &self.if_match {
            Some(tags) => !names(tags),
            None => self.unmodified_since.is_some_and(is_newer),
        };
        if fails {
            return Verdict::Failed;
        }
        let is_known = match &self.if_none_match {
            Some(tags) => names(tags),
            None => self.modified_since.is_some_and(|since| !is_newer(since)),
        };
        if is_known { Verdict::NotModified } else { Verdict::GoOn }
    }
}

/// Whether content with this tag that was made at `modified` is what an `If-Range` header names: by a
/// strong tag, or by exactly its date (RFC 9110, section 13.1.5).
pub(crate) fn is_still(validator: &str, tag: Option<&str>, modified: Millis) -> bool {
    match validator.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"').is_some_and(|named| tag == Some(named)),
        None => validator == modified.http_date(),
    }
}

#[cfg(test)]
mod tests {
    use super::Verdict::{Failed, GoOn, NotModified};
    use super::*;

    #[test]
    fn s3_87_ranges_are_of_the_content_that_a_client_knows() {
        let at = Millis(1_700_000_000_123);
        for (validator, is_it) in [
            ("\"a-2\"", true),
            ("Tue, 14 Nov 2023 22:13:20 GMT", true),
            ("\"b\"", false),
            ("W/\"a-2\"", false),
            ("a-2", false),
            ("\"a-2", false),
            ("Tue, 14 Nov 2023 22:13:21 GMT", false),
            ("*", false),
            ("", false),
        ] {
            assert_eq!(is_still(validator, Some("a-2"), at), is_it, "{validator}");
        }
        assert!(!is_still("\"\"", None, at));
    }

    #[test]
    fn s3_86_tags_go_before_dates() {
        let at = Millis(10_500);
        let tags = |tag: &str| Some(Some(vec![tag.to_owned()]));
        let (before, same, after) =
            (Some(Millis(9_000)), Some(Millis(10_000)), Some(Millis(11_000)));
        let judge = |if_match, unmodified_since, if_none_match, modified_since| {
            Conditions { if_match, if_none_match, modified_since, unmodified_since }
                .judge(Some("a"), at)
        };
        // If-Match, If-Unmodified-Since, If-None-Match, If-Modified-Since.
        let table = [
            (None, None, None, None, GoOn),
            (tags("a"), None, None, None, GoOn),
            (tags("b"), None, None, None, Failed),
            (Some(None), None, None, None, GoOn),
            (None, before, None, None, Failed),
            (None, same, None, None, GoOn),
            (None, after, None, None, GoOn),
            (tags("a"), before, None, None, GoOn),
            (tags("b"), after, None, None, Failed),
            (None, None, tags("a"), None, NotModified),
            (None, None, tags("b"), None, GoOn),
            (None, None, Some(None), None, NotModified),
            (None, None, None, before, GoOn),
            (None, None, None, same, NotModified),
            (None, None, None, after, NotModified),
            (None, None, tags("b"), after, GoOn),
            (None, None, tags("a"), before, NotModified),
            (tags("b"), None, tags("a"), None, Failed),
        ];
        for (if_match, unmodified, if_none_match, modified, verdict) in table {
            let row = format!("{if_match:?} {unmodified:?} {if_none_match:?} {modified:?}");
            assert_eq!(judge(if_match, unmodified, if_none_match, modified), verdict, "{row}");
        }
        let untagged = Conditions { if_match: tags("a"), ..Conditions::default() };
        assert_eq!(untagged.judge(None, at), Failed);
    }
}
