//! Comparing the versions of a name here with those at a remote, for whoever wants to know whether a
//! stream got across what it should have.

use crate::domain::remote::ListedVersion;
use crate::domain::time::Millis;

/// A version here, as far as it can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LocalVersion {
    /// What our marker would say of it at the remote.
    pub(crate) origin: String,
    pub(crate) size: u64,
    /// Hex digits.
    pub(crate) sha1: Option<String>,
    /// Hex digits; None for files in parts.
    pub(crate) md5: Option<String>,
    pub(crate) upload_at: Millis,
}

/// What became of a version at the remote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// It is there, or one after it has taken its place in a bucket that keeps one version of a name.
    Same,
    Missing,
    /// What is there in its place has another content.
    Different,
}

impl LocalVersion {
    /// Whether what is listed cannot have the same content. Checksums that one side does not tell say
    /// nothing.
    fn differs_from(&self, listed: &ListedVersion) -> bool {
        if self.size != listed.size {
            return true;
        }
        let differ = |ours: &str, theirs: &str| !ours.eq_ignore_ascii_case(theirs);
        if let (Some(ours), Some(theirs)) = (&self.sha1, &listed.sha1) {
            return differ(ours, theirs.trim_start_matches("unverified:"));
        }
        let etag = listed.etag.as_deref().map(|etag| etag.trim_matches('"'));
        // The tag of a file in parts, or of an encrypted one, is no MD5 of its content.
        let is_md5 = |etag: &&str| etag.len() == 32 && etag.bytes().all(|b| b.is_ascii_hexdigit());
        match (&self.md5, etag.filter(is_md5)) {
            (Some(ours), Some(theirs)) => differ(ours, theirs),
            _ => false,
        }
    }
}

/// Whether a version of ours may be the one that is listed.
type Fits = fn(&LocalVersion, &ListedVersion) -> bool;

/// Compares the versions of one name, oldest first, with those at the remote. Each version there is
/// taken for at most one of ours.
pub(crate) fn compare_versions(ours: &[LocalVersion], there: &[ListedVersion]) -> Vec<Finding> {
    let keeps_one = !there.is_empty()
        && there.iter().all(|version| version.id.is_empty() || version.id == "null");
    let first = if keeps_one { ours.len().saturating_sub(1) } else { 0 };
    let mut findings: Vec<Option<Finding>> = vec![None; ours.len()];
    for finding in findings.iter_mut().take(first) {
        *finding = Some(Finding::Same);
    }
    let mut left: Vec<&ListedVersion> = there.iter().collect();
    // From the surest sign to the weakest.
    let signs: [Fits; 4] = [
        |own, listed| listed.origin.as_deref() == Some(own.origin.as_str()),
        |own, listed| {
            listed.origin.is_none()
                && listed.upload_at == Some(own.upload_at)
                && !own.differs_from(listed)
        },
        |own, listed| listed.origin.is_none() && !own.differs_from(listed),
        |own, listed| listed.origin.is_none() && listed.upload_at == Some(own.upload_at),
    ];
    for fits in signs {
        for (own, finding) in ours.iter().zip(&mut findings) {
            if finding.is_some() {
                continue;
            }
            if let Some(at) = left.iter().position(|listed| fits(own, listed)) {
                let differs = own.differs_from(left.remove(at));
                *finding = Some(if differs { Finding::Different } else { Finding::Same });
            }
        }
    }
    let none = if keeps_one { Finding::Different } else { Finding::Missing };
    findings.into_iter().map(|finding| finding.unwrap_or(none)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(number: i64, content: &str) -> LocalVersion {
        LocalVersion {
            origin: format!("here.{number}"),
            size: content.len() as u64,
            sha1: Some(content.repeat(4)),
            md5: None,
            upload_at: Millis(number),
        }
    }

    fn listed(id: &str, content: &str) -> ListedVersion {
        ListedVersion {
            name: "name".to_owned(),
            id: id.to_owned(),
            size: content.len() as u64,
            sha1: Some(content.repeat(4)),
            etag: None,
            origin: None,
            upload_at: None,
        }
    }

    fn copy_of(number: i64, content: &str) -> ListedVersion {
        ListedVersion { origin: Some(format!("here.{number}")), ..listed("id", content) }
    }

    use Finding::{Different, Missing, Same};

    #[test]
    fn replication_224_versions_are_recognized_by_their_marker() {
        let ours = [own(1, "aa"), own(2, "bb"), own(3, "cc")];
        let there = [copy_of(3, "cc"), copy_of(1, "xx")];
        assert_eq!(compare_versions(&ours, &there), [Different, Missing, Same]);
        assert_eq!(compare_versions(&ours, &[]), [Missing, Missing, Missing]);
    }

    #[test]
    fn without_a_marker_content_and_time_decide_and_no_copy_counts_twice() {
        let ours = [own(1, "aa"), own(2, "aa")];
        assert_eq!(compare_versions(&ours, &[listed("id", "aa")]), [Same, Missing]);
        let second = ListedVersion { upload_at: Some(Millis(2)), ..listed("id", "aa") };
        assert_eq!(compare_versions(&ours, std::slice::from_ref(&second)), [Missing, Same]);
        let other_content = ListedVersion { sha1: Some("ff".to_owned()), ..second };
        assert_eq!(compare_versions(&ours, &[other_content]), [Missing, Different]);
        let of_others = ListedVersion { origin: Some("there.1".to_owned()), ..listed("id", "aa") };
        assert_eq!(compare_versions(&ours[..1], &[of_others]), [Missing]);
    }

    #[test]
    fn where_one_version_of_a_name_is_kept_only_the_newest_is_looked_for() {
        let ours = [own(1, "aa"), own(2, "bb")];
        assert_eq!(compare_versions(&ours, &[listed("null", "bb")]), [Same, Same]);
        assert_eq!(compare_versions(&ours, &[listed("", "aa")]), [Same, Different]);
    }

    #[test]
    fn an_etag_counts_only_where_it_is_an_md5() {
        let md5 = "d41d8cd98f00b204e9800998ecf8427e";
        let ours = LocalVersion { sha1: None, md5: Some(md5.to_owned()), ..own(1, "") };
        let tagged = |etag: &str| ListedVersion {
            sha1: None,
            etag: Some(etag.to_owned()),
            ..copy_of(1, "")
        };
        let compared = |etag: &str| compare_versions(std::slice::from_ref(&ours), &[tagged(etag)]);
        assert_eq!(compared(&format!("\"{}\"", md5.to_uppercase())), [Same]);
        assert_eq!(compared(&"0".repeat(32)), [Different]);
        assert_eq!(compared("00000000000000000000000000000000-2"), [Same]);
    }
}
