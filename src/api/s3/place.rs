//! Where a request is addressed: which bucket, which key, in the path or in the name of the host.

use std::collections::BTreeMap;

use actix_web::HttpRequest;

use crate::api::native::fields::parse_query;
use crate::api::s3::Level;
use crate::api::s3::error::{S3Refusal, invalid_argument, s3_refuse};
use crate::api::{Http, asked_host};
use crate::domain::names::BucketName;
use crate::domain::percent;
use crate::domain::refusal::shorten;

/// A bucket and a key in it, both decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) bucket: Option<String>,
    pub(crate) key: Option<String>,
}

impl Place {
    pub(crate) fn level(&self) -> Level {
        match (&self.bucket, &self.key) {
            (None, _) => Level::Service,
            (Some(_), None) => Level::Bucket,
            (Some(_), Some(_)) => Level::Object,
        }
    }

    /// Reads `/bucket/key`.
    pub(crate) fn of_path(path: &str) -> Result<Self, S3Refusal> {
        let path = path.strip_prefix('/').unwrap_or(path);
        if path.is_empty() {
            return Ok(Self::default());
        }
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        Ok(Self { bucket: Some(decode(bucket)?), key: key_of(key)? })
    }

    fn of_host(bucket: &str, path: &str) -> Result<Self, S3Refusal> {
        let key = path.strip_prefix('/').unwrap_or(path);
        Ok(Self { bucket: Some(bucket.to_owned()), key: key_of(key)? })
    }

    /// Where a request is addressed; None when it is one to the Native API or of a peer. The host
    /// decides first: on that of a bucket every path is a key.
    pub(crate) fn of_request(
        request: &HttpRequest,
        http: &Http,
    ) -> Option<Result<Self, S3Refusal>> {
        let path = request.uri().path();
        let domains = &http.settings.s3.domains;
        let host = asked_host(request, http);
        if let Some(bucket) = host.and_then(|host| bucket_of_host(host, domains)) {
            return Some(Self::of_host(&bucket, path));
        }
        // Names of buckets are longer than these.
        let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        (!matches!(first, "api" | "b2api" | "file")).then(|| Self::of_path(path))
    }
}

fn key_of(encoded: &str) -> Result<Option<String>, S3Refusal> {
    if encoded.is_empty() { Ok(None) } else { decode(encoded).map(Some) }
}

/// Decodes a part of a path, in which `+` is itself.
pub(crate) fn decode(encoded: &str) -> Result<String, S3Refusal> {
    percent::decode_path(encoded.as_bytes())
        .map_err(|_| s3_refuse(400, "InvalidURI", "Couldn't parse the specified URI."))
}

/// The bucket whose host this is, below one of the domains.
pub(crate) fn bucket_of_host(host: &str, domains: &[String]) -> Option<String> {
    let host = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    // The longest that fits wins, whatever label it leaves.
    let domain = domains.iter().filter(|domain| {
        host == **domain
            || host.strip_suffix(domain.as_str()).is_some_and(|rest| rest.ends_with('.'))
    });
    let domain = domain.max_by_key(|domain| domain.len())?;
    let label = host.strip_suffix(domain.as_str())?.strip_suffix('.')?;
    (!label.contains('.') && BucketName::parse(label).is_ok()).then(|| label.to_owned())
}

/// The parameters of a query, decoded, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(query: &str) -> Result<Self, S3Refusal> {
        let pairs = parse_query(query)
            .map_err(|_| s3_refuse(400, "InvalidURI", "Couldn't parse the specified URI."))?;
        let mut known = BTreeMap::new();
        for (name, value) in &pairs {
            // Of two that differ, another reader of the address might go by the other one.
            if known.insert(name, value).is_some_and(|other| other != value) {
                let name = shorten(name);
                return Err(invalid_argument(format!("Parameter {name} is there twice")));
            }
        }
        Ok(Self(pairs))
    }

    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.names().any(|known| known == name)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The value of a parameter that says something.
    pub(crate) fn some(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// A whole number that is not negative.
    pub(crate) fn number(&self, name: &str) -> Result<Option<i64>, S3Refusal> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let number = text.parse().ok().filter(|number: &i64| *number >= 0);
        number.map(Some).ok_or_else(|| {
            invalid_argument(format!("Argument {name} must be an integer that is not negative"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(path: &str) -> Result<(Option<String>, Option<String>), u16> {
        Place::of_path(path)
            .map(|place| (place.bucket, place.key))
            .map_err(|refusal| refusal.status)
    }

    #[test]
    fn s3_95_keys_are_what_follows_the_first_slash_decoded_once() {
        let some = |text: &str| Some(text.to_owned());
        for (target, key) in [
            ("/bucket/a/../b", "a/../b"),
            ("/bucket//x", "/x"),
            ("/bucket/x/", "x/"),
            ("/bucket/.", "."),
            ("/bucket/a+b", "a+b"),
            ("/bucket/a%2Fb%20c%252e", "a/b c%2e"),
            ("/bucket/%C3%A9", "\u{e9}"),
        ] {
            assert_eq!(path(target), Ok((some("bucket"), some(key))), "{target}");
        }
        assert_eq!(path("/"), Ok((None, None)));
        assert_eq!(path("/bucket"), Ok((some("bucket"), None)));
        assert_eq!(path("/bucket/"), Ok((some("bucket"), None)));
        for wrong in ["/bucket/%zz", "/bucket/%ff", "/bucket/%c0%ae", "/bucket/%"] {
            assert_eq!(path(wrong), Err(400), "{wrong}");
        }
    }

    #[test]
    fn s3_23_hosts_below_a_domain_name_buckets() {
        let domains = ["s3.us-west-000.localhost", "localhost"].map(str::to_owned);
        let of = |host: &str| bucket_of_host(host, &domains);
        assert_eq!(of("my-bucket.s3.us-west-000.localhost:9700").as_deref(), Some("my-bucket"));
        assert_eq!(of("MY-bucket.localhost").as_deref(), Some("my-bucket"));
        assert_eq!(of("my-bucket.localhost.").as_deref(), Some("my-bucket"));
        for none in [
            "localhost",
            "localhost:80",
            "s3.us-west-000.localhost",
            "a.my-bucket.localhost",
            "short.localhost",
            "my_bucket.localhost",
            "my-bucketlocalhost",
            "example.org",
            "[::1]:80",
            "",
        ] {
            assert_eq!(of(none), None, "{none}");
        }
    }
}
