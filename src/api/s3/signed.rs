//! Who sent an S3 request, and what a request without a right signature is answered.

use actix_web::HttpRequest;
use actix_web::http::header::{HOST, HeaderValue};

use crate::api::s3::error::{S3Error, S3Refusal, s3_refuse};
use crate::api::s3::place::bucket_of_host;
use crate::api::{Http, asked_host, forwarded};
use crate::auth::sigv4::{BadSignature, Place, Request, SKEW_MS_MAX};
use crate::operations::signatures::{self, Authentic, NotAuthentic};

/// Checks the signature of a request.
pub(crate) fn authenticate(request: &HttpRequest, http: &Http) -> Result<Authentic, S3Error> {
    let headers = request.headers().iter();
    let mut headers: Vec<(&str, &[u8])> =
        headers.map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    let uri = request.uri();
    let received = request.headers().get(HOST).map(HeaderValue::as_bytes);
    if let (Some(addressed), Some(received)) = (uri.authority(), received)
        && !received.eq_ignore_ascii_case(addressed.as_str().as_bytes())
    {
        return Err(refusal(&BadSignature::TwoHosts).into());
    }
    headers.retain(|(name, _)| *name != "host");
    let mut authentic = Err(NotAuthentic::Signature(BadSignature::Mismatch));
    for host in signed_hosts(request, http) {
        let mut headers = headers.clone();
        headers.push(("host", host.as_bytes()));
        let signed = Request {
            method: request.method().as_str(),
            path: uri.path(),
            query: uri.query().unwrap_or_default(),
            headers: &headers,
        };
        authentic = signatures::authenticate(&http.app, &signed);
        if !matches!(authentic, Err(NotAuthentic::Signature(BadSignature::Mismatch))) {
            break;
        }
    }
    Ok(authentic?)
}

/// The hosts that the client may have signed: the one that was received, and behind a proxy the one
/// that it asked the proxy for, there with its port. Only those on which it asked for the same bucket.
fn signed_hosts(request: &HttpRequest, http: &Http) -> Vec<String> {
    let asked = asked_host(request, http).unwrap_or_default();
    let received = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let mut hosts: Vec<String> = received.into_iter().chain([asked]).map(str::to_owned).collect();
    if let Some(port) = forwarded(request, http, "x-forwarded-port") {
        hosts.push(format!("{asked}:{port}"));
    }
    let domains = &http.settings.s3.domains;
    let bucket = bucket_of_host(asked, domains);
    hosts.retain(|host| bucket_of_host(host, domains) == bucket);
    hosts.dedup();
    hosts
}

impl From<NotAuthentic> for S3Error {
    fn from(error: NotAuthentic) -> Self {
        match error {
            NotAuthentic::Signature(bad) => refusal(&bad).into(),
            NotAuthentic::MalformedKeyId => {
                s3_refuse(403, "InvalidAccessKeyId", "Malformed Access Key Id").into()
            }
            NotAuthentic::UnknownKey(id) => {
                s3_refuse(403, "InvalidAccessKeyId", format!("The key '{id}' is not valid")).into()
            }
            NotAuthentic::KeyExpired => {
                s3_refuse(403, "AccessDenied", "The application key has expired").into()
            }
            NotAuthentic::Failed(error) => error.into(),
        }
    }
}

/// What is said of a signature that is not taken.
fn refusal(bad: &BadSignature) -> S3Refusal {
    let denied = |message| s3_refuse(403, "AccessDenied", message);
    let invalid = |message| s3_refuse(400, "InvalidRequest", message);
    match bad {
        BadSignature::Ambiguous => s3_refuse(
            400,
            "InvalidArgument",
            "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature \
             query string parameter or the Authorization header should be specified",
        ),
        BadSignature::TwoHosts => {
            invalid("The address and the Host header of the request name different hosts")
        }
        BadSignature::OtherMechanism => invalid(
            "The authorization mechanism you have provided is not supported. Please use \
             AWS4-HMAC-SHA256.",
        ),
        BadSignature::Malformed { place, what } => malformed(*place, what),
        BadSignature::WrongRegion { place, given, wanted } => {
            malformed(*place, &format!("the region '{given}' is wrong; expecting '{wanted}'"))
                .with("Region", wanted)
        }
        BadSignature::ExpiresOutOfRange => s3_refuse(
            403,
            "AuthorizationQueryParametersError",
            "X-Amz-Expires must be a number of seconds from 1 to 604800",
        ),
        BadSignature::NoPayloadHash => {
            invalid("Missing required header for this request: x-amz-content-sha256")
        }
        BadSignature::UnknownPayloadHash => invalid(
            "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, \
             STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER, \
             STREAMING-UNSIGNED-PAYLOAD-TRAILER, or a valid sha256 value.",
        ),
        BadSignature::ChunksToSignedAddress => {
            denied("Bodies in aws-chunked form cannot be sent to a presigned address")
        }
        BadSignature::NoDate => {
            denied("AWS authentication requires a valid Date or x-amz-date header")
        }
        BadSignature::TooSkewed { at, now } => s3_refuse(
            403,
            "RequestTimeTooSkewed",
            "The difference between the request time and the current time is too large.",
        )
        .with("RequestTime", at.compact())
        .with("ServerTime", now.readable())
        .with("MaxAllowedSkewMilliseconds", SKEW_MS_MAX.to_string()),
        BadSignature::NotYet { now, .. } => {
            denied("Request is not valid yet").with("ServerTime", now.readable())
        }
        BadSignature::Expired { end, life_s, now } => denied("Request has expired")
            .with("X-Amz-Expires", life_s.to_string())
            .with("Expires", end.readable())
            .with("ServerTime", now.readable()),
        BadSignature::NotSigned(name) => {
            denied("There were headers present in the request which were not signed")
                .with("HeadersNotSigned", name)
        }
        BadSignature::SecurityToken => s3_refuse(
            400,
            "InvalidArgument",
            "Unsupported header 'x-amz-security-token' received for this API call.",
        ),
        BadSignature::Mismatch => {
            s3_refuse(403, "SignatureDoesNotMatch", "Signature validation failed")
        }
    }
}

/// A proof that cannot be read; the code says where it stands.
fn malformed(place: Place, what: &str) -> S3Refusal {
    let code = match place {
        Place::Header => "AuthorizationHeaderMalformed",
        Place::Query => "AuthorizationQueryParametersError",
    };
    s3_refuse(400, code, format!("The authorization that you provided is malformed; {what}"))
}
