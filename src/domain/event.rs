//! Event notifications as pure rules: which events there are, what a rule may say, which events it
//! is about, how long a failed delivery waits.
//!
//! Source: b2-native-api.md section 18.

use std::collections::BTreeSet;
use std::fmt;

use crate::domain::key::Secret;
use crate::domain::names::check_prefix;
use crate::domain::percent;
use crate::domain::refusal::{Code, Refusal, bad_request, refuse, shorten};
use crate::domain::webhook::{TargetPolicy, WebhookUrl};

/// Rules per bucket (documented).
const RULES_MAX: usize = 25;
/// Events in one delivery at most (documented).
const BATCH_MAX: i64 = 50;
/// Custom headers of a target (documented).
const HEADERS_MAX: usize = 10;
/// Bytes of all custom headers together, percent-encoded (documented).
const HEADER_BYTES_MAX: usize = 2048;
/// Length of a signing secret (documented).
const SECRET_LETTERS: usize = 32;

macro_rules! event_types {
    ($($variant:ident, $code:literal, $category:expr, $name:literal;)*) => {
        /// Something that happened, in Backblaze's spelling.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum EventType { $(
            #[doc = $name]
            $variant,
        )* }

        impl EventType {
            const ALL: &'static [Self] = &[$(Self::$variant,)*];

            pub(crate) fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Part of event ids, so it never changes.
            pub(crate) fn code(self) -> u8 {
                match self { $(Self::$variant => $code,)* }
            }

            fn category(self) -> Option<Category> {
                match self { $(Self::$variant => $category,)* }
            }
        }
    };
}

event_types! {
    Test, 0, None, "b2:TestEvent";
    Upload, 1, Some(Category::ObjectCreated), "b2:ObjectCreated:Upload";
    MultipartUpload, 2, Some(Category::ObjectCreated), "b2:ObjectCreated:MultipartUpload";
    Copy, 3, Some(Category::ObjectCreated), "b2:ObjectCreated:Copy";
    Replica, 4, Some(Category::ObjectCreated), "b2:ObjectCreated:Replica";
    MultipartReplica, 5, Some(Category::ObjectCreated), "b2:ObjectCreated:MultipartReplica";
    Delete, 6, Some(Category::ObjectDeleted), "b2:ObjectDeleted:Delete";
    LifecycleDelete, 7, Some(Category::ObjectDeleted), "b2:ObjectDeleted:LifecycleRule";
    Hide, 8, Some(Category::HideMarkerCreated), "b2:HideMarkerCreated:Hide";
    LifecycleHide, 9, Some(Category::HideMarkerCreated), "b2:HideMarkerCreated:LifecycleRule";
    LiveRead, 10, Some(Category::MultipartUploadCreated), "b2:MultipartUploadCreated:LiveRead";
}

impl EventType {
    /// Reads a stored name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|one| one.as_str() == name)
    }
}

/// A group of event types that a rule may ask for as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Category {
    ObjectCreated,
    ObjectDeleted,
    HideMarkerCreated,
    MultipartUploadCreated,
}

impl Category {
    const ALL: [Self; 4] = [
        Self::ObjectCreated,
        Self::ObjectDeleted,
        Self::HideMarkerCreated,
        Self::MultipartUploadCreated,
    ];

    fn wildcard(self) -> &'static str {
        match self {
            Self::ObjectCreated => "b2:ObjectCreated:*",
            Self::ObjectDeleted => "b2:ObjectDeleted:*",
            Self::HideMarkerCreated => "b2:HideMarkerCreated:*",
            Self::MultipartUploadCreated => "b2:MultipartUploadCreated:*",
        }
    }
}

/// What a rule lists in `eventTypes`: one type, or all of a category.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(into = "&'static str", try_from = "String")]
pub(crate) enum EventPattern {
    All(Category),
    One(EventType),
}

impl EventPattern {
    fn parse(text: &str) -> Option<Self> {
        let wildcard = Category::ALL.into_iter().find(|category| category.wildcard() == text);
        // The test event comes by itself; no rule asks for it.
        let one = || EventType::parse(text).filter(|one| one.category().is_some());
        wildcard.map(Self::All).or_else(|| one().map(Self::One))
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::All(category) => category.wildcard(),
            Self::One(kind) => kind.as_str(),
        }
    }

    fn category(self) -> Option<Category> {
        match self {
            Self::All(category) => Some(category),
            Self::One(kind) => kind.category(),
        }
    }

    fn covers(self, kind: EventType) -> bool {
        match self {
            Self::All(category) => kind.category() == Some(category),
            Self::One(one) => one == kind,
        }
    }

    fn overlaps(self, other: Self) -> bool {
        EventType::ALL.iter().any(|&kind| self.covers(kind) && other.covers(kind))
    }
}

impl From<EventPattern> for &'static str {
    fn from(pattern: EventPattern) -> Self {
        pattern.as_str()
    }
}

impl TryFrom<String> for EventPattern {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("no event type has this name")
    }
}

/// A rule without its target. The serde form is what the catalog stores in the bucket's settings.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventRule {
    pub(crate) name: String,
    /// As given, never empty, all of one category.
    pub(crate) event_types: Vec<EventPattern>,
    pub(crate) is_enabled: bool,
    pub(crate) object_name_prefix: String,
    /// Where the number was given it is shown: on the rule, in the target (as the Java SDK has
    /// it), or nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) batch_max_of_rule: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) batch_max_of_target: Option<i64>,
}

impl EventRule {
    /// Whether an event about this file name is told to the rule's target.
    pub(crate) fn matches(&self, kind: EventType, file_name: &str) -> bool {
        self.is_enabled
            && file_name.starts_with(&self.object_name_prefix)
            && self.event_types.iter().any(|pattern| pattern.covers(kind))
    }

    /// Events in one delivery at most; one unless the rule says more.
    pub(crate) fn batch_max(&self) -> i64 {
        self.batch_max_of_rule.or(self.batch_max_of_target).unwrap_or(1).clamp(1, BATCH_MAX)
    }

    fn overlaps(&self, other: &Self) -> bool {
        let (one, two) = (&self.object_name_prefix, &other.object_name_prefix);
        (one.starts_with(two.as_str()) || two.starts_with(one.as_str()))
            && any_pair(&self.event_types, &other.event_types)
    }
}

fn any_pair(some: &[EventPattern], others: &[EventPattern]) -> bool {
    some.iter().any(|one| others.iter().any(|other| one.overlaps(*other)))
}

/// A rule with the number of its queue, as a bucket keeps it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct QueuedRule {
    /// Names the row that holds target and progress.
    pub(crate) queue: i64,
    #[serde(flatten)]
    pub(crate) rule: EventRule,
}

/// Where a rule's events go. Address, headers and secret may each open something, so none of them
/// is printed, and the catalog keeps them sealed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// As given.
    pub(crate) url: String,
    /// None and an empty list are shown as they were given.
    pub(crate) custom_headers: Option<Vec<(String, String)>>,
    pub(crate) signing_secret: Option<Secret>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Target(..)")
    }
}

/// A rule as a caller sent it.
#[derive(Clone, Debug)]
pub(crate) struct WantedRule {
    pub(crate) name: String,
    pub(crate) event_types: Vec<String>,
    pub(crate) is_enabled: bool,
    pub(crate) object_name_prefix: String,
    pub(crate) batch_max_of_rule: Option<i64>,
    pub(crate) batch_max_of_target: Option<i64>,
    pub(crate) target_type: String,
    pub(crate) target: Target,
}

/// Checks all rules of a bucket and answers them in the order of their names.
pub(crate) fn check_rules(
    wanted: Vec<WantedRule>,
    policy: TargetPolicy,
) -> Result<Vec<(EventRule, Target)>, Refusal> {
    if wanted.len() > RULES_MAX {
        return Err(bad_request(format!(
            "a bucket may have at most {RULES_MAX} event notification rules"
        )));
    }
    let mut checked: Vec<(EventRule, Target)> = Vec::with_capacity(wanted.len());
    for one in wanted {
        let (rule, target) = check_rule(one, policy)?;
        for (earlier, _) in &checked {
            if earlier.name == rule.name {
                return Err(bad_request(format!(
                    "duplicate event notification rule name: {}",
                    rule.name
                )));
            }
            if earlier.overlaps(&rule) {
                return Err(refuse(
                    Code::EventTypeOverlap,
                    format!(
                        "Event types of rules {} and {} overlap for the same object name prefix",
                        earlier.name, rule.name
                    ),
                ));
            }
        }
        checked.push((rule, target));
    }
    checked.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
    Ok(checked)
}

fn check_rule(wanted: WantedRule, policy: TargetPolicy) -> Result<(EventRule, Target), Refusal> {
    check_name(&wanted.name)?;
    let event_types = check_types(&wanted.event_types)?;
    check_prefix("objectNamePrefix", &wanted.object_name_prefix)?;
    let (of_rule, of_target) = (wanted.batch_max_of_rule, wanted.batch_max_of_target);
    for number in of_rule.iter().chain(&of_target) {
        if !(1..=BATCH_MAX).contains(number) {
            return Err(bad_request(format!(
                "maxEventsPerBatch must be between 1 and {BATCH_MAX}: {number}"
            )));
        }
    }
    if of_rule.is_some() && of_target.is_some() && of_rule != of_target {
        return Err(bad_request("maxEventsPerBatch is given twice and differs"));
    }
    if wanted.target_type != "webhook" {
        return Err(bad_request(format!("Invalid targetType: {}", shorten(&wanted.target_type))));
    }
    WebhookUrl::parse(&wanted.target.url, policy)?;
    check_headers(wanted.target.custom_headers.as_deref().unwrap_or_default())?;
    if let Some(secret) = &wanted.target.signing_secret {
        let letters = secret.expose().bytes().all(|b| b.is_ascii_alphanumeric());
        if !letters || secret.expose().len() != SECRET_LETTERS {
            return Err(bad_request(format!(
                "hmacSha256SigningSecret must be exactly {SECRET_LETTERS} letters or digits"
            )));
        }
    }
    let rule = EventRule {
        name: wanted.name,
        event_types,
        is_enabled: wanted.is_enabled,
        object_name_prefix: wanted.object_name_prefix,
        batch_max_of_rule: of_rule,
        batch_max_of_target: of_target,
    };
    Ok((rule, wanted.target))
}

fn check_name(name: &str) -> Result<(), Refusal> {
    let allowed = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !allowed || !(6..=63).contains(&name.len()) {
        return Err(bad_request(format!(
            "Invalid event notification rule name: {}: must be 6 to 63 letters, digits or '-'",
            shorten(name)
        )));
    }
    if name.to_ascii_lowercase().starts_with("b2-") {
        return Err(bad_request(
            "event notification rule names must not start with 'b2-'. reserved for Backblaze use.",
        ));
    }
    Ok(())
}

fn check_types(names: &[String]) -> Result<Vec<EventPattern>, Refusal> {
    if names.is_empty() {
        return Err(refuse(Code::EventTypesEmpty, "eventTypes must not be empty"));
    }
    let mut patterns: Vec<EventPattern> = Vec::with_capacity(names.len());
    for name in names {
        let pattern = EventPattern::parse(name).ok_or_else(|| {
            refuse(Code::EventTypeInvalid, format!("Invalid event type: {}", shorten(name)))
        })?;
        if patterns.iter().any(|earlier| earlier.category() != pattern.category()) {
            return Err(refuse(
                Code::EventTypeCategories,
                "event types of a rule must belong to one category",
            ));
        }
        if any_pair(&patterns, &[pattern]) {
            return Err(refuse(
                Code::EventTypeOverlap,
                format!("event type {name} overlaps another one of the same rule"),
            ));
        }
        patterns.push(pattern);
    }
    Ok(patterns)
}

/// Names in lower case that the sender of a request sets itself, or that make a service of a cloud
/// machine hand out its credentials.
const OWN_HEADERS: [&str; 14] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "metadata",
    "metadata-flavor",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

/// Beginnings of such names: of the signature, of proxies, of cloud machines.
const RESERVED_HEADERS: [&str; 4] = ["x-bz-", "proxy-", "x-aws-ec2-", "x-google-"];

fn check_headers(headers: &[(String, String)]) -> Result<(), Refusal> {
    if headers.len() > HEADERS_MAX {
        return Err(bad_request(format!("customHeaders must have at most {HEADERS_MAX} entries")));
    }
    let mut seen = BTreeSet::new();
    let mut bytes = 0;
    for (name, value) in headers {
        let shown = shorten(name);
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || !name.bytes().all(token) {
            return Err(bad_request(format!("Invalid custom header name: {shown}")));
        }
        let folded = name.to_ascii_lowercase();
        let is_own = OWN_HEADERS.contains(&folded.as_str());
        if is_own || RESERVED_HEADERS.iter().any(|start| folded.starts_with(start)) {
            return Err(bad_request(format!("custom header name {shown} is reserved")));
        }
        // A line break would end the header, and other controls have no business in one.
        if !value.bytes().all(|b| (32..127).contains(&b)) {
            return Err(bad_request(format!("Invalid value of the custom header {shown}")));
        }
        bytes += percent::encode(name).len() + percent::encode(value).len();
        if !seen.insert(folded) {
            return Err(bad_request(format!("duplicate custom header name: {shown}")));
        }
    }
    if bytes > HEADER_BYTES_MAX {
        return Err(bad_request(format!(
            "customHeaders must be at most {HEADER_BYTES_MAX} bytes when URL-encoded"
        )));
    }
    Ok(())
}

/// Failed attempts in a row after which a rule is suspended, or an event given up that others get
/// past (ours; Backblaze gives no number). The waits between them add up to [`PATIENCE_MS`].
/// Attempts are counted and not hours, because time in which this server was down, or had no
/// worker to spare, says nothing about the target.
pub(crate) const ATTEMPTS_MAX: i64 = 36;
/// How long a target may fail; so long too a suspended rule keeps what waits.
pub(crate) const PATIENCE_MS: i64 = 24 * 60 * 60 * 1000;
/// Longest wait between attempts.
const WAIT_MS_MAX: i64 = 60 * 60 * 1000;

/// How long to wait after `failures` failed attempts in a row (at least one), in milliseconds:
/// one second, then twice as long each time, up to an hour.
pub(crate) fn retry_wait_ms(failures: i64) -> i64 {
    let doublings = failures.saturating_sub(1).clamp(0, 20);
    (1000_i64 << doublings).min(WAIT_MS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: TargetPolicy = TargetPolicy { allow_private: false, allow_http: false };

    fn wanted(name: &str, types: &[&str], prefix: &str) -> WantedRule {
        WantedRule {
            name: name.to_owned(),
            event_types: types.iter().map(|&one| one.to_owned()).collect(),
            is_enabled: true,
            object_name_prefix: prefix.to_owned(),
            batch_max_of_rule: None,
            batch_max_of_target: None,
            target_type: "webhook".to_owned(),
            target: Target {
                url: "https://example.com/hook".to_owned(),
                custom_headers: None,
                signing_secret: None,
            },
        }
    }

    fn code(rules: Vec<WantedRule>) -> Option<Code> {
        check_rules(rules, POLICY).err().map(|refusal| refusal.code)
    }

    #[test]
    fn native_376_event_types_of_one_rule() {
        let of = |types: &[&str]| code(vec![wanted("rule-one", types, "")]);
        assert_eq!(of(&[]), Some(Code::EventTypesEmpty));
        for unknown in [
            "",
            "b2:ObjectCreated",
            "b2:*",
            "b2:ObjectHidden:*",
            "b2:TestEvent",
            "s3:x",
            "B2:ObjectCreated:Upload",
            "b2:ObjectCreated:upload",
        ] {
            assert_eq!(of(&[unknown]), Some(Code::EventTypeInvalid), "{unknown}");
        }
        assert_eq!(
            of(&["b2:ObjectCreated:Upload", "b2:ObjectDeleted:Delete"]),
            Some(Code::EventTypeCategories)
        );
        for overlapping in [
            ["b2:ObjectCreated:*", "b2:ObjectCreated:Upload"],
            ["b2:ObjectCreated:Upload", "b2:ObjectCreated:*"],
            ["b2:ObjectCreated:Upload", "b2:ObjectCreated:Upload"],
        ] {
            assert_eq!(of(&overlapping), Some(Code::EventTypeOverlap), "{overlapping:?}");
        }
        let all: Vec<&str> = EventType::ALL.iter().map(|kind| kind.as_str()).collect();
        for one in all.iter().filter(|name| **name != "b2:TestEvent") {
            assert_eq!(of(&[one]), None, "{one}");
        }
        for category in Category::ALL {
            assert_eq!(of(&[category.wildcard()]), None);
        }
        assert_eq!(of(&["b2:ObjectCreated:Upload", "b2:ObjectCreated:Copy"]), None);
    }

    #[test]
    fn native_376_rules_overlap_by_type_and_prefix() {
        let two = |one: (&str, &str), other: (&str, &str)| {
            code(vec![wanted("rule-one", &[one.0], one.1), wanted("rule-two", &[other.0], other.1)])
        };
        let (all, upload, copy) =
            ("b2:ObjectCreated:*", "b2:ObjectCreated:Upload", "b2:ObjectCreated:Copy");
        let overlap = Some(Code::EventTypeOverlap);
        assert_eq!(two((upload, "images/"), (upload, "images/pets/")), overlap);
        assert_eq!(two((upload, "images/pets/"), (all, "images/")), overlap);
        assert_eq!(two((all, ""), (copy, "x")), overlap);
        assert_eq!(two((upload, "a"), (upload, "a")), overlap);
        assert_eq!(two((upload, "a/"), (upload, "b/")), None);
        assert_eq!(two((upload, "a/"), (copy, "a/")), None);
        assert_eq!(two((all, ""), ("b2:ObjectDeleted:*", "")), None);
    }

    #[test]
    fn native_377_names_are_checked_unique_and_at_most_25() {
        let named = |name: &str| code(vec![wanted(name, &["b2:ObjectCreated:*"], "")]);
        for right in ["abcdef", "A-b-C9", &"x".repeat(63)] {
            assert_eq!(named(right), None, "{right}");
        }
        for wrong in [
            "",
            "abcde",
            &"x".repeat(64),
            "under_score",
            "b2-rule",
            "B2-rule",
            "a b c d",
            "caf\u{e9}-rule",
        ] {
            assert_eq!(named(wrong), Some(Code::BadRequest), "{wrong}");
        }
        let twice = vec![
            wanted("rule-one", &["b2:ObjectCreated:*"], "a"),
            wanted("rule-one", &["b2:ObjectDeleted:*"], "b"),
        ];
        assert_eq!(code(twice), Some(Code::BadRequest));
        let many = |count: usize| -> Vec<WantedRule> {
            let one = |at| {
                wanted(&format!("rule-{at:02}"), &["b2:ObjectCreated:*"], &format!("{at:02}/"))
            };
            (0..count).rev().map(one).collect()
        };
        let sorted = check_rules(many(25), POLICY).unwrap();
        assert!(sorted.iter().map(|(rule, _)| &rule.name).is_sorted());
        assert_eq!(code(many(26)), Some(Code::BadRequest));
    }

    #[test]
    fn native_378_custom_headers_are_limited_and_cannot_reshape_the_request() {
        let headed = |headers: &[(&str, &str)]| {
            let mut rule = wanted("rule-one", &["b2:ObjectCreated:*"], "");
            let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            rule.target.custom_headers = Some(headers.iter().map(own).collect());
            code(vec![rule])
        };
        assert_eq!(
            headed(&[("X-One", "a b"), ("Authorization", "Bearer x"), ("X-Metadata", "")]),
            None
        );
        for wrong in [
            ("X-Bz-Foo", "v"),
            ("x-bz-foo", "v"),
            ("", "v"),
            ("X One", "v"),
            ("X:One", "v"),
            ("X-One", "a\r\nb"),
            ("X-One", "a\nb"),
            ("X-One", "\u{0}"),
            ("X-One", "\u{e9}"),
            ("X-\u{e9}", "v"),
            ("Host", "v"),
            ("content-length", "1"),
            ("Transfer-Encoding", "chunked"),
            ("Connection", "close"),
            ("Content-Type", "x"),
            ("Proxy-Authorization", "x"),
            ("Metadata-Flavor", "Google"),
            ("Metadata", "true"),
            ("X-aws-ec2-metadata-token", "x"),
            ("X-aws-ec2-metadata-token-ttl-seconds", "60"),
            ("X-Google-Metadata-Request", "True"),
        ] {
            assert_eq!(headed(&[wrong]), Some(Code::BadRequest), "{wrong:?}");
        }
        assert_eq!(headed(&[("X-One", "a"), ("x-one", "b")]), Some(Code::BadRequest));
        let names: Vec<String> = (0..11).map(|at| format!("X-{at}")).collect();
        let eleven: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "v")).collect();
        assert_eq!(headed(&eleven), Some(Code::BadRequest));
        assert_eq!(headed(&eleven[..10]), None);
        assert_eq!(headed(&[("X-One", &"v".repeat(2043))]), None);
        assert_eq!(headed(&[("X-One", &"v".repeat(2044))]), Some(Code::BadRequest));
        assert_eq!(
            headed(&[("X-One", &"\"".repeat(700))]),
            Some(Code::BadRequest),
            "encoded length"
        );
    }

    #[test]
    fn native_374_375_secrets_batches_and_targets_are_checked() {
        let with = |change: &dyn Fn(&mut WantedRule)| {
            let mut rule = wanted("rule-one", &["b2:ObjectCreated:*"], "");
            change(&mut rule);
            check_rules(vec![rule], POLICY)
        };
        let secret = |text: &str| Some(Secret::new(text.to_owned()));
        for wrong in
            ["", "short", &"a".repeat(31), &"a".repeat(33), &"-".repeat(32), &"\u{e9}".repeat(16)]
        {
            let refused = with(&|rule| rule.target.signing_secret = secret(wrong)).unwrap_err();
            assert!(wrong.is_empty() || !refused.message.contains(wrong), "never a secret");
        }
        assert!(with(&|rule| rule.target.signing_secret = secret(&"aZ09".repeat(8))).is_ok());
        assert!(with(&|rule| rule.target.url = "http://example.com/".to_owned()).is_err());
        assert!(with(&|rule| rule.target_type = "queue".to_owned()).is_err());
        for wrong in [0, -1, 51] {
            assert!(with(&|rule| rule.batch_max_of_rule = Some(wrong)).is_err());
            assert!(with(&|rule| rule.batch_max_of_target = Some(wrong)).is_err());
        }
        let batch = |of_rule, of_target| {
            let checked = with(&|rule| {
                (rule.batch_max_of_rule, rule.batch_max_of_target) = (of_rule, of_target);
            });
            checked.map(|rules| rules[0].0.batch_max())
        };
        assert_eq!(batch(None, None), Ok(1));
        assert_eq!(batch(Some(50), None), Ok(50));
        assert_eq!(batch(None, Some(7)), Ok(7));
        assert_eq!(batch(Some(7), Some(7)), Ok(7));
        assert!(batch(Some(7), Some(8)).is_err());
    }

    #[test]
    fn native_382_a_rule_is_about_its_types_below_its_prefix_while_it_is_enabled() {
        let rules = check_rules(vec![wanted("rule-one", &["b2:ObjectCreated:*"], "a/")], POLICY);
        let mut rule = rules.unwrap().remove(0).0;
        assert!(rule.matches(EventType::Upload, "a/b") && rule.matches(EventType::Replica, "a/"));
        assert!(!rule.matches(EventType::Upload, "A/b") && !rule.matches(EventType::Upload, "b"));
        assert!(!rule.matches(EventType::Delete, "a/b") && !rule.matches(EventType::Test, "a/b"));
        rule.is_enabled = false;
        assert!(!rule.matches(EventType::Upload, "a/b"));
    }

    #[test]
    fn native_383_waits_double_from_a_second_to_an_hour() {
        let waits: Vec<i64> = (1..=14).map(|failures| retry_wait_ms(failures) / 1000).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3600, 3600]);
        assert_eq!(retry_wait_ms(i64::MAX), WAIT_MS_MAX);
        let waited = |attempts: i64| (1..attempts).map(retry_wait_ms).sum::<i64>();
        assert!(waited(ATTEMPTS_MAX) >= PATIENCE_MS && waited(ATTEMPTS_MAX - 1) < PATIENCE_MS);
    }

    #[test]
    fn the_stored_form_of_a_rule_stays_readable() {
        let stored = r#"{"queue":7,"name":"rule-one","eventTypes":["b2:ObjectCreated:*","b2:ObjectCreated:Upload"],"isEnabled":true,"objectNamePrefix":"a/","batchMaxOfRule":5}"#;
        let rule: QueuedRule = serde_json::from_str(stored).unwrap();
        assert_eq!(serde_json::to_string(&rule).unwrap(), stored);
        let least = r#"{"queue":7,"name":"rule-one","eventTypes":["b2:ObjectDeleted:Delete"],"isEnabled":false,"objectNamePrefix":""}"#;
        let rule: QueuedRule = serde_json::from_str(least).unwrap();
        assert_eq!(rule.rule.batch_max(), 1);
        assert!(serde_json::from_str::<EventPattern>("\"b2:TestEvent\"").is_err());
        let target = wanted("rule-one", &[], "").target;
        assert_eq!(format!("{target:?}"), "Target(..)");
    }

    #[test]
    fn codes_of_event_types_differ() {
        let codes: BTreeSet<u8> = EventType::ALL.iter().map(|kind| kind.code()).collect();
        assert_eq!(codes.len(), EventType::ALL.len());
    }
}
