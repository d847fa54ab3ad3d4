//! CORS rules as pure rules: what a rule may say, and which rule lets a page of another origin read
//! an answer.
//!
//! Source: b2-native-api.md section 16. A rule is kept as it was given, since clients compare what
//! they set with what they read; patterns are read again where they are compared.

use crate::domain::refusal::{Refusal, bad_request, shorten};

/// Rules per bucket (documented).
pub(crate) const RULES_MAX: usize = 100;
/// The texts of one rule are shorter than this, in bytes (documented).
const RULE_BYTES_END: usize = 1000;
/// How long a browser may remember the answer to a preflight, in seconds (documented: a day).
const MAX_AGE_S_MAX: i64 = 86_400;

/// One rule; its serde form is the wire's and the catalog's. Lists that were not given stay null.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CorsRule {
    pub(crate) allowed_headers: Option<Vec<String>>,
    pub(crate) allowed_operations: Vec<CorsOperation>,
    pub(crate) allowed_origins: Vec<String>,
    #[serde(rename = "corsRuleName")]
    pub(crate) name: String,
    pub(crate) expose_headers: Option<Vec<String>>,
    pub(crate) max_age_seconds: i64,
}

macro_rules! operations {
    ($($variant:ident, $name:literal;)*) => {
        /// What a rule can open to pages of other origins.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub(crate) enum CorsOperation { $(
            #[doc = concat!("`", $name, "`")]
            #[serde(rename = $name)]
            $variant,
        )* }

        impl CorsOperation {
            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[$(Self::$variant,)*];

            fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
                match text {
                    $($name => Ok(Self::$variant),)*
                    other => Err(bad_request(format!(
                        "Invalid allowedOperations: {}", shorten(other)
                    ))),
                }
            }
        }
    };
}

operations! {
    DownloadByName, "b2_download_file_by_name";
    DownloadById, "b2_download_file_by_id";
    UploadFile, "b2_upload_file";
    UploadPart, "b2_upload_part";
    S3Delete, "s3_delete";
    S3Get, "s3_get";
    S3Head, "s3_head";
    S3Post, "s3_post";
    S3Put, "s3_put";
}

/// Checks the rules of a bucket.
pub(crate) fn check_rules(rules: &[CorsRule]) -> Result<(), Refusal> {
    if rules.len() > RULES_MAX {
        return Err(bad_request(format!("a bucket may have at most {RULES_MAX} CORS rules")));
    }
    for (at, rule) in rules.iter().enumerate() {
        check_rule(rule)?;
        if rules.iter().take(at).any(|earlier| earlier.name == rule.name) {
            return Err(bad_request(format!("duplicate corsRuleName: {}", rule.name)));
        }
    }
    Ok(())
}

fn check_rule(rule: &CorsRule) -> Result<(), Refusal> {
    let name = &rule.name;
    let allowed = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !allowed || !(6..=63).contains(&name.len()) {
        return Err(bad_request(format!(
            "Invalid corsRuleName: {}: it must have 6 to 63 letters, digits and '-'",
            shorten(name)
        )));
    }
    if name.to_ascii_lowercase().starts_with("b2-") {
        return Err(bad_request(format!(
            "corsRuleName must not start with 'b2-', which is reserved: {name}"
        )));
    }
    if rule.bytes() >= RULE_BYTES_END {
        return Err(bad_request(format!(
            "CORS rule {name} must be smaller than {RULE_BYTES_END} bytes"
        )));
    }
    check_origins(&rule.allowed_origins)?;
    if rule.allowed_operations.is_empty() {
        return Err(bad_request("allowedOperations must not be empty"));
    }
    check_allowed_headers(rule.allowed_headers.as_deref().unwrap_or_default())?;
    let exposed = rule.expose_headers.as_deref().unwrap_or_default();
    if let Some(wrong) = exposed.iter().find(|header| !is_token(header) || header.contains('*')) {
        return Err(bad_request(format!("Invalid exposeHeaders: {}", shorten(wrong))));
    }
    if !(0..=MAX_AGE_S_MAX).contains(&rule.max_age_seconds) {
        return Err(bad_request(format!(
            "maxAgeSeconds must be between 0 and {MAX_AGE_S_MAX}: {}",
            rule.max_age_seconds
        )));
    }
    Ok(())
}

fn check_origins(origins: &[String]) -> Result<(), Refusal> {
    if origins.is_empty() {
        return Err(bad_request("allowedOrigins must not be empty"));
    }
    let mut whole_schemes: Vec<&str> = Vec::new();
    for origin in origins {
        let wrong = || bad_request(format!("Invalid allowedOrigins: {}", shorten(origin)));
        let scheme = match Pattern::parse(origin).ok_or_else(wrong)? {
            Pattern::Any if origins.len() > 1 => {
                return Err(bad_request("allowedOrigins: '*' must be the only entry"));
            }
            Pattern::Any => continue,
            Pattern::Scheme(scheme) | Pattern::Place { scheme, .. } => scheme,
        };
        // Documented: one entry for a whole scheme, and nothing of that scheme after it.
        if whole_schemes.iter().any(|whole| whole.eq_ignore_ascii_case(scheme)) {
            return Err(bad_request(format!(
                "allowedOrigins: nothing of scheme {scheme} may follow the entry '{scheme}': {}",
                shorten(origin)
            )));
        }
        if !origin.contains(':') {
            whole_schemes.push(scheme);
        }
    }
    Ok(())
}

fn check_allowed_headers(headers: &[String]) -> Result<(), Refusal> {
    for header in headers {
        if header == "*" {
            if headers.len() > 1 {
                return Err(bad_request("allowedHeaders: '*' must be the only entry"));
            }
            continue;
        }
        let stem = header.strip_suffix('*').unwrap_or(header);
        if !is_token(stem) || stem.contains('*') {
            return Err(bad_request(format!("Invalid allowedHeaders: {}", shorten(header))));
        }
    }
    Ok(())
}

/// Whether a text can be the name of a header.
pub(crate) fn is_token(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(allowed)
}

impl CorsRule {
    fn bytes(&self) -> usize {
        let lists = [self.allowed_headers.as_ref(), self.expose_headers.as_ref()];
        let texts = lists.into_iter().flatten().flatten().chain(&self.allowed_origins);
        let operations = self.allowed_operations.iter().map(|operation| operation.as_str().len());
        self.name.len() + texts.map(String::len).sum::<usize>() + operations.sum::<usize>()
    }

    fn covers(&self, operation: CorsOperation, origin: Option<Origin<'_>>) -> bool {
        self.allowed_operations.contains(&operation)
            && self.allowed_origins.iter().any(|pattern| {
                Pattern::parse(pattern).is_some_and(|pattern| pattern.matches(origin))
            })
    }

    fn allows_header(&self, header: &str) -> bool {
        self.allowed_headers.iter().flatten().any(|allowed| match allowed.strip_suffix('*') {
            None => allowed.eq_ignore_ascii_case(header),
            Some(stem) => header
                .get(..stem.len())
                .is_some_and(|beginning| beginning.eq_ignore_ascii_case(stem)),
        })
    }

    /// What `Access-Control-Allow-Origin` says: the asking origin, unless the rule is for all.
    pub(crate) fn shown_origin<'o>(&self, origin: &'o str) -> &'o str {
        if self.allowed_origins.iter().any(|pattern| pattern == "*") { "*" } else { origin }
    }
}

/// The rule under which a page of `origin` may read the answer to `operation`: the first that fits.
/// Rules are never merged. `headers` are those a preflight asks for; a simple request has none.
pub(crate) fn find_rule<'r>(
    rules: &'r [CorsRule],
    operation: CorsOperation,
    origin: &str,
    headers: &[&str],
) -> Option<&'r CorsRule> {
    let origin = match origin {
        // Sandboxed pages and local files: only a rule for everybody covers them.
        "null" => None,
        named => Some(Origin::parse(named)?),
    };
    rules.iter().find(|rule| {
        rule.covers(operation, origin) && headers.iter().all(|header| rule.allows_header(header))
    })
}

/// An origin as browsers send it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Origin<'t> {
    scheme: &'t str,
    host: &'t str,
    /// The default of the scheme when none is written; None where the scheme has no default.
    port: Option<u16>,
}

impl<'t> Origin<'t> {
    fn parse(text: &'t str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let mut letters = scheme.bytes();
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
        if !letters.next()?.is_ascii_alphabetic() || !letters.all(allowed) {
            return None;
        }
        let (host, port) = split_port(rest)?;
        let port = match port {
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                Some(digits.parse().ok()?)
            }
            Some(_) => return None,
            None => default_port(scheme),
        };
        is_host(host).then_some(Self { scheme, host, port })
    }
}

/// Splits `host`, `host:port` or `[v6]:port`.
fn split_port(rest: &str) -> Option<(&str, Option<&str>)> {
    let after_host = match rest.strip_prefix('[') {
        Some(_) => rest.find(']')? + 1,
        None => rest.find(':').unwrap_or(rest.len()),
    };
    let (host, port) = rest.split_at_checked(after_host)?;
    match port.strip_prefix(':') {
        Some(digits) if !digits.is_empty() => Some((host, Some(digits))),
        None if port.is_empty() => Some((host, None)),
        _ => None,
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    if scheme.eq_ignore_ascii_case("https") {
        Some(443)
    } else if scheme.eq_ignore_ascii_case("http") {
        Some(80)
    } else {
        None
    }
}

/// Whether a text has the form of a host name or of an address; `*` counts as a letter.
fn is_host(text: &str) -> bool {
    if let Some(inside) = text.strip_prefix('[') {
        let address = inside.strip_suffix(']').unwrap_or_default();
        return !address.is_empty()
            && address.bytes().all(|b| b.is_ascii_hexdigit() || b":.".contains(&b));
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._*".contains(&b);
    !text.is_empty() && text.bytes().all(allowed)
}

/// One entry of `allowedOrigins`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pattern<'t> {
    Any,
    /// Every origin of a scheme, whatever its port.
    Scheme(&'t str),
    /// One place, or all whose host differs only where the pattern has `*`.
    Place {
        scheme: &'t str,
        host: &'t str,
        port: Option<u16>,
    },
}

impl<'t> Pattern<'t> {
    fn parse(text: &'t str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Any);
        }
        if text.eq_ignore_ascii_case("https") || text.eq_ignore_ascii_case("http") {
            return Some(Self::Scheme(text));
        }
        let Origin { scheme, host, port } = Origin::parse(text)?;
        (host.matches('*').count() <= 1).then_some(Self::Place { scheme, host, port })
    }

    /// `origin` is None for pages without one, which only [`Pattern::Any`] covers.
    fn matches(self, origin: Option<Origin<'_>>) -> bool {
        let Some(origin) = origin else { return self == Self::Any };
        match self {
            Self::Any => true,
            Self::Scheme(scheme) => scheme.eq_ignore_ascii_case(origin.scheme),
            Self::Place { scheme, host, port } => {
                scheme.eq_ignore_ascii_case(origin.scheme)
                    && port == origin.port
                    && host_matches(host, origin.host)
            }
        }
    }
}

/// Compares a host with a pattern whose `*` stands for one character or more, dots among them.
fn host_matches(pattern: &str, host: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else {
        return pattern.eq_ignore_ascii_case(host);
    };
    let (pattern_bytes, host) = (before.len() + after.len(), host.to_ascii_lowercase());
    host.len() > pattern_bytes
        && host.starts_with(&before.to_ascii_lowercase())
        && host.ends_with(&after.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule(name: &str, origins: &[&str]) -> CorsRule {
        CorsRule {
            allowed_headers: None,
            allowed_operations: vec![CorsOperation::DownloadByName],
            allowed_origins: texts(origins),
            name: name.to_owned(),
            expose_headers: None,
            max_age_seconds: 0,
        }
    }

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|&one| one.to_owned()).collect()
    }

    fn is_refused(change: impl FnOnce(&mut CorsRule)) -> bool {
        let mut changed = rule("rule-one", &["https://a.example"]);
        assert_eq!(check_rules(std::slice::from_ref(&changed)), Ok(()));
        change(&mut changed);
        check_rules(&[changed]).is_err()
    }

    fn allows(origins: &[&str], origin: &str) -> bool {
        let rules = [rule("rule-one", origins)];
        assert_eq!(check_rules(&rules), Ok(()), "{origins:?}");
        find_rule(&rules, CorsOperation::DownloadByName, origin, &[]).is_some()
    }

    #[test]
    fn native_363_names_have_6_to_63_plain_characters_and_are_unique() {
        for name in
            ["short", &"n".repeat(64), "under_score", "b2-reserved", "B2-reserved", "ümlaute"]
        {
            assert!(is_refused(|rule| rule.name = name.to_owned()), "{name}");
        }
        for name in ["sixsix", &"n".repeat(63), "-b2-x-"] {
            assert!(!is_refused(|rule| rule.name = name.to_owned()), "{name}");
        }
        let twice = [rule("rule-one", &["*"]), rule("rule-one", &["https"])];
        assert!(check_rules(&twice).is_err());
        assert!(check_rules(&[rule("rule-one", &["*"]), rule("Rule-One", &["*"])]).is_ok());
    }

    #[test]
    fn native_364_rules_are_bounded_in_number_bytes_and_age() {
        let numbered = |count: usize| -> Vec<CorsRule> {
            (0..count).map(|at| rule(&format!("rule-{at:03}"), &["*"])).collect()
        };
        assert!(check_rules(&numbered(100)).is_ok());
        assert!(check_rules(&numbered(101)).is_err());
        for (age, refused) in [(-1, true), (0, false), (86_400, false), (86_401, true)] {
            assert_eq!(is_refused(|rule| rule.max_age_seconds = age), refused, "{age}");
        }
        let fixed = "rule-one".len() + "https://a.example".len() + "b2_download_file_by_name".len();
        for (bytes, refused) in [(999, false), (1000, true)] {
            let header = "h".repeat(bytes - fixed);
            assert_eq!(is_refused(|rule| rule.allowed_headers = Some(texts(&[&header]))), refused);
            assert_eq!(is_refused(|rule| rule.expose_headers = Some(texts(&[&header]))), refused);
        }
    }

    #[test]
    fn native_365_origins_are_places_schemes_or_everything() {
        for wrong in [
            &[][..],
            &["*", "https://a.example"],
            &["https://*.*.example"],
            &["https://a.example/"],
            &["https://a.example:port"],
            &["https://a.example:"],
            &["https://a.example:65536"],
            &["https://"],
            &["a.example"],
            &["ftp"],
            &["://a.example"],
            &["https://a example"],
            &["https://a.example\r\nX: y"],
            &["https://\u{fc}.example"],
            &["null"],
            &["https", "https"],
            &["https", "https://a.example:8443"],
        ] {
            assert!(is_refused(|rule| rule.allowed_origins = texts(wrong)), "{wrong:?}");
        }
        for right in [
            &["*"][..],
            &["https"],
            &["http", "https"],
            &["https://a.example:8443", "https"],
            &["https", "http://localhost:3000"],
            &["https://*"],
            &["https://*:8443"],
            &["https://*.example", "https://pre*post.example"],
            &["http://[::1]:3000"],
            &["capacitor://localhost"],
        ] {
            assert!(!is_refused(|rule| rule.allowed_origins = texts(right)), "{right:?}");
        }
    }

    #[test]
    fn native_364_365_lists_hold_header_names_and_operations() {
        for wrong in [&[""][..], &["a b"], &["x*y"], &["**"], &["a:b"], &["*", "range"], &["a\r\n"]]
        {
            assert!(is_refused(|rule| rule.allowed_headers = Some(texts(wrong))), "{wrong:?}");
        }
        for right in [&[][..], &["*"], &["range", "X-Bz-Info-*"]] {
            assert!(!is_refused(|rule| rule.allowed_headers = Some(texts(right))), "{right:?}");
        }
        for wrong in ["*", "x-bz-*", "", "a\nb"] {
            assert!(is_refused(|rule| rule.expose_headers = Some(texts(&[wrong]))), "{wrong:?}");
        }
        assert!(is_refused(|rule| rule.allowed_operations.clear()));
        assert!(CorsOperation::parse("b2_list_file_names").is_err());
        for operation in CorsOperation::ALL {
            assert_eq!(CorsOperation::parse(operation.as_str()), Ok(*operation));
        }
    }

    #[test]
    fn native_366_367_origins_match_by_scheme_host_and_port() {
        for (pattern, origin, expected) in [
            ("https://a.example", "https://a.example", true),
            ("https://a.example", "HTTPS://A.Example:443", true),
            ("https://a.example:443", "https://a.example", true),
            ("http://a.example:80", "http://a.example", true),
            ("https://a.example", "http://a.example", false),
            ("https://a.example", "https://a.example:8443", false),
            ("https://a.example", "https://b.a.example", false),
            ("https://a.example", "https://a.example.evil", false),
            ("https://*.a.example", "https://b.a.example", true),
            ("https://*.a.example", "https://c.b.a.example", true),
            ("https://*.a.example", "https://a.example", false),
            ("https://*.a.example", "https://.a.example", false),
            ("https://*.a.example", "https://evila.example", false),
            ("https://pre*post", "https://prepost", false),
            ("https://pre*post", "https://pre-post", true),
            ("https://*", "https://anything.example", true),
            ("https://*", "https://[::1]", true),
            ("https://*", "https://anything.example:8443", false),
            ("https://*:8443", "https://anything.example:8443", true),
            ("https", "https://anything.example:8443", true),
            ("https", "http://anything.example", false),
            ("http", "http://localhost:3000", true),
            ("http://[::1]:3000", "http://[::1]:3000", true),
            ("*", "http://anything.example:1", true),
            ("*", "null", true),
            ("https", "null", false),
            ("*", "no origin", false),
            ("*", "https://a\u{e9}", false),
            ("*", "", false),
        ] {
            assert_eq!(allows(&[pattern], origin), expected, "{pattern} {origin}");
        }
        assert_eq!(rule("rule-one", &["*"]).shown_origin("https://a.example"), "*");
        let own = rule("rule-one", &["https"]);
        assert_eq!(own.shown_origin("https://a.example"), "https://a.example");
    }

    #[test]
    fn native_366_367_headers_and_operations_must_all_be_allowed_by_one_rule() {
        let mut first = rule("rule-one", &["https"]);
        first.allowed_headers = Some(texts(&["Range"]));
        let mut second = rule("rule-two", &["https"]);
        second.allowed_headers = Some(texts(&["x-bz-info-*", "authorization"]));
        let rules = [first, second];
        let found = |headers: &[&str]| {
            find_rule(&rules, CorsOperation::DownloadByName, "https://a.example", headers)
                .map(|rule| rule.name.as_str())
        };
        assert_eq!(found(&[]), Some("rule-one"), "the first that fits");
        assert_eq!(found(&["range"]), Some("rule-one"));
        assert_eq!(found(&["AUTHORIZATION", "X-Bz-Info-Colour"]), Some("rule-two"));
        assert_eq!(found(&["range", "authorization"]), None, "rules are not merged");
        assert_eq!(found(&["x-bz-inf"]), None);
        let upload = CorsOperation::UploadFile;
        assert_eq!(find_rule(&rules, upload, "https://a.example", &[]), None);
    }

    fn label() -> impl Strategy<Value = String> {
        "[a-zA-Z0-9]([a-zA-Z0-9-]{0,6}[a-zA-Z0-9])?"
    }

    fn host() -> impl Strategy<Value = String> {
        proptest::collection::vec(label(), 1..4).prop_map(|labels| labels.join("."))
    }

    fn any_rule() -> impl Strategy<Value = CorsRule> {
        let origin = prop_oneof![
            host().prop_map(|host| format!("https://{host}")),
            host().prop_map(|host| format!("http://*.{host}:8080")),
            (1_u16..).prop_map(|port| format!("https://localhost:{port}")),
        ];
        let origins = prop_oneof![
            Just(vec!["*".to_owned()]),
            Just(vec!["http".to_owned(), "https".to_owned()]),
            proptest::collection::vec(origin, 1..4),
        ];
        let headers = || proptest::option::of(proptest::collection::vec("[a-z][a-z-]{0,8}", 0..3));
        let operations =
            proptest::collection::vec(proptest::sample::select(CorsOperation::ALL), 1..4);
        ("[a-zA-Z0-9]{6,20}", origins, operations, headers(), headers(), 0_i64..=86_400).prop_map(
            |(name, allowed_origins, allowed_operations, allowed, expose_headers, age)| CorsRule {
                allowed_headers: allowed,
                allowed_operations,
                allowed_origins,
                name,
                expose_headers,
                max_age_seconds: age,
            },
        )
    }

    proptest! {
        #[test]
        fn rules_read_back_as_they_were_stored(rule in any_rule()) {
            prop_assert_eq!(check_rules(std::slice::from_ref(&rule)), Ok(()));
            let stored = serde_json::to_string(&rule).expect("plain data");
            prop_assert_eq!(serde_json::from_str::<CorsRule>(&stored).expect("just stored"), rule);
        }

        #[test]
        fn a_star_stands_for_one_character_or_more_and_nothing_else_differs(
            scheme in prop_oneof![Just("http"), Just("https"), Just("app")],
            before in "([a-z0-9]{1,4}\\.?)?", middle in "[a-z0-9.-]{0,6}", after in "(\\.?[a-z0-9]{1,4})?",
            port in proptest::option::of(1_u16..), other in proptest::option::of(1_u16..),
        ) {
            let shown = |port: Option<u16>| port.map_or(String::new(), |port| format!(":{port}"));
            let pattern = format!("{scheme}://{before}*{after}{}", shown(port));
            let origin = format!("{scheme}://{before}{middle}{after}{}", shown(other));
            let same_port = match (port, other) {
                (Some(one), Some(two)) => one == two,
                (None, None) => true,
                (Some(given), None) | (None, Some(given)) => match scheme {
                    "http" => given == 80,
                    "https" => given == 443,
                    _ => false,
                },
            };
            prop_assert_eq!(allows(&[&pattern], &origin), !middle.is_empty() && same_port);
        }

        #[test]
        fn the_rule_that_is_found_fits_alone_and_none_before_it_does(
            rules in proptest::collection::vec(any_rule(), 0..6),
            origin in prop_oneof![
                Just("null".to_owned()), Just("https://localhost".to_owned()),
                host().prop_map(|host| format!("http://www.{host}:8080")),
            ],
            operation in proptest::sample::select(CorsOperation::ALL),
        ) {
            let alone: Vec<bool> = rules
                .iter()
                .map(|rule| {
                    find_rule(std::slice::from_ref(rule), operation, &origin, &[]).is_some()
                })
                .collect();
            let expected = alone.iter().position(|&fits| fits);
            let found = find_rule(&rules, operation, &origin, &[]);
            prop_assert_eq!(found, expected.and_then(|at| rules.get(at)));
        }

        #[test]
        fn whatever_is_sent_only_an_origin_is_ever_answered(
            origin in "\\PC{0,40}", header in "\\PC{0,20}",
        ) {
            let mut open = rule("rule-one", &["http", "https"]);
            open.allowed_headers = Some(texts(&["*"]));
            let rules = [open];
            let operation = CorsOperation::DownloadByName;
            if let Some(rule) = find_rule(&rules, operation, &origin, &[&header]) {
                let shown = rule.shown_origin(&origin);
                prop_assert!(shown.starts_with("http"));
                prop_assert!(shown.bytes().all(|b| b.is_ascii_graphic()));
            }
        }
    }
}
