//! Where event notifications may be sent: the form of a webhook's address, and which network
//! addresses a request of ours may reach.
//!
//! An address in a rule is chosen by whoever holds a key, the request is sent from where this server
//! stands; without these rules a key would open the network behind the server. Names are checked
//! again by what they resolve to, at the moment of connecting.
//! Source: b2-native-api.md section 18.2; reliability.md attacks I1 to I6.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

use crate::domain::refusal::{Refusal, bad_request};

/// Longest address of a webhook, in bytes (ours).
const URL_BYTES_MAX: usize = 2048;

/// What the operator lets rules reach besides public addresses over HTTPS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct TargetPolicy {
    /// Loopback and private networks, on any port.
    pub(crate) allow_private: bool,
    pub(crate) allow_http: bool,
}

/// How far away an address is, as far as it matters for who may be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    Public,
    /// Loopback and private networks: only where the operator allows them.
    Private,
    /// Never a webhook: link-local addresses, which hand out a machine's credentials at cloud
    /// providers, other addresses of that kind, multicast, reserved and translated ranges.
    Never,
}

/// Services that give the secrets of a machine to whoever asks from that machine.
const METADATA_V4: [Ipv4Addr; 2] =
    [Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(100, 100, 100, 200)];
/// Their networks in IPv6, by the first 32 bits; they lie among the private ones.
const METADATA_V6: [[u16; 2]; 3] = [[0xfd00, 0xec2], [0xfd20, 0xce], [0xfd00, 0x42]];

/// Says how far away an address is.
pub(crate) fn reach_of(address: IpAddr) -> Reach {
    match address.to_canonical() {
        IpAddr::V4(v4) => reach_of_v4(v4),
        IpAddr::V6(v6) => reach_of_v6(v6),
    }
}

fn reach_of_v4(address: Ipv4Addr) -> Reach {
    if METADATA_V4.contains(&address) {
        return Reach::Never;
    }
    match address.octets() {
        [10 | 127, ..] | [192, 168, ..] => Reach::Private,
        [172, second, ..] if (16..32).contains(&second) => Reach::Private,
        // Carrier-grade translation: somebody's inner network.
        [100, second, ..] if (64..128).contains(&second) => Reach::Private,
        // "This network", link-local, protocol assignments, documentation, relay, benchmarks, then
        // multicast, reserved and broadcast.
        [0 | 224..=255, ..]
        | [169, 254, ..]
        | [192, 0, 0 | 2, _]
        | [192, 88, 99, _]
        | [198, 18 | 19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _] => Reach::Never,
        _ => Reach::Public,
    }
}

fn reach_of_v6(address: Ipv6Addr) -> Reach {
    let [first, second, ..] = address.segments();
    if METADATA_V6.contains(&[first, second]) {
        return Reach::Never;
    }
    if address == Ipv6Addr::LOCALHOST {
        return Reach::Private;
    }
    match address.segments() {
        [first, ..] if first & 0xfe00 == 0xfc00 => Reach::Private,
        // Protocol assignments with Teredo among them, documentation, 6to4.
        [0x2001, second, ..] if second < 0x200 || second == 0xdb8 => Reach::Never,
        [0x2002, ..] => Reach::Never,
        [0x3fff, second, ..] if second < 0x1000 => Reach::Never,
        [first, ..] if first & 0xe000 == 0x2000 => Reach::Public,
        // Everything else: unspecified, link-local, multicast, translations of IPv4.
        _ => Reach::Never,
    }
}

impl TargetPolicy {
    /// Whether a request may go to this address.
    pub(crate) fn allows(self, address: IpAddr) -> bool {
        match reach_of(address) {
            Reach::Public => true,
            Reach::Private => self.allow_private,
            Reach::Never => false,
        }
    }

    fn allows_port(self, port: u16) -> bool {
        let usual = port == 443 || (port == 80 && self.allow_http);
        self.allow_private || usual || (port >= 1024 && !OTHER_SERVICES.contains(&port))
    }
}

/// Ports from 1024 on where something other than a web server answers, and may mistake a request
/// for orders.
const OTHER_SERVICES: [u16; 22] = [
    1080, 1433, 1521, 1719, 1720, 1723, 2049, 3128, 3306, 3389, 5060, 5061, 5432, 5672, 5900, 6000,
    6379, 6667, 9042, 9092, 11211, 27017,
];

/// The address of a webhook: absolute, with a host, without credentials or fragment.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct WebhookUrl {
    url: Url,
}

/// A path or query may hold a secret, so only the host is shown.
impl std::fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.host_and_port())
    }
}

impl WebhookUrl {
    /// Reads and checks an address. The refusals name no part of it but scheme, host and port.
    pub(crate) fn parse(text: &str, policy: TargetPolicy) -> Result<Self, Refusal> {
        if text.len() > URL_BYTES_MAX {
            return Err(bad_request(format!("url must be at most {URL_BYTES_MAX} bytes")));
        }
        // Parsers of addresses repair these, each in its own way.
        if !text.bytes().all(|b| b.is_ascii_graphic() && b != b'\\') {
            return Err(bad_request("url must be printable ASCII without spaces or backslashes"));
        }
        // Parsers also take fewer and more slashes than two.
        let is_absolute = text.split_once("://").is_some_and(|(scheme, rest)| {
            scheme.bytes().all(|b| b.is_ascii_alphabetic()) && !rest.starts_with('/')
        });
        if !is_absolute {
            return Err(bad_request("url must be absolute"));
        }
        let url = Url::parse(text).map_err(|_| bad_request("url is not a valid URL"))?;
        match url.scheme() {
            "https" => {}
            "http" if policy.allow_http => {}
            _ => return Err(bad_request("url must begin with https://")),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(bad_request("url must not hold a user name or password"));
        }
        if url.fragment().is_some() {
            return Err(bad_request("url must not have a fragment"));
        }
        let found = Self { url };
        let host = found.url.host().ok_or_else(|| bad_request("url must name a host"))?;
        let is_local_name = matches!(host, Host::Domain(name) if is_localhost(name));
        let allowed = match found.address() {
            Some(address) => policy.allows(address),
            None => policy.allow_private || !is_local_name,
        };
        if !allowed {
            return Err(bad_request("url must not name a private or reserved address"));
        }
        if !policy.allows_port(found.port()) {
            return Err(bad_request(format!("url must not name port {}", found.port())));
        }
        Ok(found)
    }

    /// The address in the form it is requested in.
    pub(crate) fn as_str(&self) -> &str {
        self.url.as_str()
    }

    /// The host, when it is written as an address; nothing resolves it then.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        match self.url.host()? {
            Host::Ipv4(v4) => Some(IpAddr::V4(v4)),
            Host::Ipv6(v6) => Some(IpAddr::V6(v6)),
            Host::Domain(_) => None,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.url.port_or_known_default().unwrap_or(443)
    }

    /// The host in the form that equal hosts have in common.
    pub(crate) fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default().trim_end_matches('.')
    }

    /// Whether this is the host and port of a server at `origin`.
    pub(crate) fn leads_to(&self, origin: &str) -> bool {
        Url::parse(origin).is_ok_and(|url| {
            let origin = Self { url };
            self.host() == origin.host() && self.port() == origin.port()
        })
    }

    /// For operators: enough to know the target, nothing that could open it.
    pub(crate) fn host_and_port(&self) -> String {
        format!("{}:{}", self.url.host_str().unwrap_or_default(), self.port())
    }
}

fn is_localhost(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLOSED: TargetPolicy = TargetPolicy { allow_private: false, allow_http: false };
    const OPEN: TargetPolicy = TargetPolicy { allow_private: true, allow_http: true };

    fn reach(text: &str) -> Reach {
        reach_of(text.parse().unwrap())
    }

    #[test]
    fn reliability_i1_i2_addresses_that_are_not_public_are_known() {
        for public in [
            "1.1.1.1",
            "172.15.0.1",
            "172.32.0.1",
            "100.63.0.1",
            "100.128.0.1",
            "9.9.9.9",
            "192.167.1.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450::1",
            "2001:4860::8888",
            "::ffff:8.8.8.8",
        ] {
            assert_eq!(reach(public), Reach::Public, "{public}");
        }
        for private in [
            "127.0.0.1",
            "127.255.0.9",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "::1",
            "fc00::1",
            "fdff::1",
            "fd00:ec3::254",
            "fd20:cf::254",
            "fd00:43::42",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
        ] {
            assert_eq!(reach(private), Reach::Private, "{private}");
        }
        for never in [
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "169.254.0.1",
            "168.63.129.16",
            "100.100.100.200",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "198.18.0.1",
            "198.19.9.9",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::7f00:1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd00:ec2:ffff::1",
            "fd20:ce::254",
            "fd00:42::42",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "100::1",
            "::ffff:169.254.169.254",
            "::ffff:0.0.0.0",
            "5f00::1",
        ] {
            assert_eq!(reach(never), Reach::Never, "{never}");
            assert!(!OPEN.allows(never.parse().unwrap()), "{never}");
        }
    }

    #[test]
    fn native_375_reliability_i1_to_i6_only_public_https_addresses_are_taken() {
        for right in [
            "https://example.com",
            "https://example.com/a/b?c=d",
            "https://example.com:8443/x",
            "https://1.1.1.1/",
            "https://[2606:4700::1111]:9443/",
            "HTTPS://Example.COM/x",
        ] {
            assert!(WebhookUrl::parse(right, CLOSED).is_ok(), "{right}");
        }
        for wrong in [
            "",
            "example.com",
            "/x",
            "http://example.com",
            "ftp://example.com",
            "file:///etc/passwd",
            "gopher://example.com",
            "https://",
            "https:///x",
            "https:example.com",
            "https:/example.com/a://b",
            "https://user@example.com/",
            "https://user:secret@example.com/",
            "https://:secret@example.com/",
            "https://example.com/#f",
            "https:\\\\example.com",
            "https://exam\\ple.com",
            "https://example.com/\r\nX: y",
            "https://example.com/ x",
            "https://ex\u{e4}mple.com/",
            "https://127.0.0.1/",
            "https://127.1/",
            "https://2130706433/",
            "https://0x7f000001/",
            "https://0177.0.0.1/",
            "https://0x7f.1/",
            "https://%31%32%37.0.0.1/",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::ffff:7f00:1]/",
            "https://[64:ff9b::7f00:1]/",
            "https://169.254.169.254/latest",
            "https://[fd00:ec2::254]/",
            "https://10.0.0.1",
            "https://0/",
            "https://localhost/",
            "https://a.localhost/",
            "https://localhost./",
            "https://example.com:22/",
            "https://example.com:25/",
            "https://example.com:80/",
            "https://example.com:6379/",
            "https://example.com:0/",
            "https://example.com:99999/",
        ] {
            assert!(WebhookUrl::parse(wrong, CLOSED).is_err(), "{wrong}");
        }
        let long = format!("https://example.com/{}", "x".repeat(2048));
        assert!(WebhookUrl::parse(&long, CLOSED).is_err());
    }

    #[test]
    fn an_operator_may_open_private_targets_and_plain_http_but_never_the_rest() {
        for right in [
            "http://127.0.0.1:8080/x",
            "https://localhost:22/",
            "http://192.168.1.1/",
            "https://[::1]:9/",
            "http://example.com/",
        ] {
            assert!(WebhookUrl::parse(right, OPEN).is_ok(), "{right}");
        }
        for wrong in [
            "https://169.254.169.254/",
            "http://0.0.0.0/",
            "https://[fe80::1]/",
            "https://[fd00:ec2::254]/",
            "https://224.0.0.1/",
            "https://a@localhost/",
        ] {
            assert!(WebhookUrl::parse(wrong, OPEN).is_err(), "{wrong}");
        }
        let only_http = TargetPolicy { allow_http: true, ..CLOSED };
        assert!(WebhookUrl::parse("http://example.com/", only_http).is_ok());
        assert!(WebhookUrl::parse("http://127.0.0.1/", only_http).is_err());
    }

    #[test]
    fn a_server_is_known_by_host_and_port_in_any_spelling() {
        let leads =
            |url: &str, origin: &str| WebhookUrl::parse(url, OPEN).unwrap().leads_to(origin);
        for (url, origin) in [
            ("https://b2.example.com/hook", "https://b2.example.com"),
            ("https://B2.Example.com.:443/hook", "https://b2.example.com"),
            ("http://b2.example.com:9700/", "http://b2.example.com:9700"),
            ("https://0x01010101/", "https://1.1.1.1"),
        ] {
            assert!(leads(url, origin), "{url}");
        }
        assert!(!leads("https://b2.example.com:8443/", "https://b2.example.com"));
        assert!(!leads("https://hooks.example.com/", "https://b2.example.com"));
        assert!(!leads("https://b2.example.com/", "nonsense"));
    }

    #[test]
    fn reliability_i8_what_is_shown_of_an_address_opens_nothing() {
        let url = WebhookUrl::parse("https://hooks.example.com/T0/secret?k=v", CLOSED).unwrap();
        assert_eq!(url.host_and_port(), "hooks.example.com:443");
        assert_eq!(format!("{url:?}"), "hooks.example.com:443");
        for wrong in ["https://example.com/secret#f", "http://example.com/secret"] {
            let refusal = WebhookUrl::parse(wrong, CLOSED).unwrap_err();
            assert!(!refusal.message.contains("secret"), "{refusal}");
        }
    }

    proptest! {
        #[test]
        fn no_spelling_of_a_forbidden_address_gets_through(bits in any::<u32>(), form in 0..6) {
            let v4 = Ipv4Addr::from(bits);
            let [a, b, c, d] = v4.octets();
            let host = match form {
                0 => v4.to_string(),
                1 => bits.to_string(),
                2 => format!("0x{bits:x}"),
                3 => format!("{a:#o}.{b}.{c}.{d:#x}").replace("0o", "0"),
                4 => format!("[::ffff:{v4}]"),
                _ => format!("{a}.{}", bits & 0x00ff_ffff),
            };
            let taken = WebhookUrl::parse(&format!("https://{host}/"), CLOSED).is_ok();
            prop_assert_eq!(taken, reach_of(IpAddr::V4(v4)) == Reach::Public, "{}", host);
        }

        #[test]
        fn any_text_is_read_without_panic_and_what_is_taken_is_public(text in "https://\\PC{0,30}") {
            if let Ok(url) = WebhookUrl::parse(&text, CLOSED) {
                prop_assert!(url.address().is_none_or(|address| reach_of(address) == Reach::Public));
                prop_assert!(WebhookUrl::parse(url.as_str(), CLOSED).is_ok());
            }
        }
    }
}
