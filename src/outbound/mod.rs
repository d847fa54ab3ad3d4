//! Every outgoing HTTP request of the program: those of administration commands to the server that
//! runs on the same data folder, those to webhooks, whose addresses strangers choose, and those to
//! the stores that replicas are carried to.

mod admin;
mod store;
mod webhooks;

use std::error::Error as StdError;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::domain::webhook::TargetPolicy;

pub(crate) use admin::{AdminRequest, Error, ask_admin, query};
pub(crate) use store::{
    ANSWER_TIMEOUT, Answer, FINISH_TIMEOUT, NoAnswer, Outgoing, OutgoingBody, OutgoingCall,
    RemoteHttp, SourceFailed,
};
pub(crate) use webhooks::{HookCall, HookError, HookFault, Webhooks};

/// A name leads to no address that may be reached.
#[derive(Debug, thiserror::Error)]
#[error("the name leads only to private or reserved addresses")]
struct NoAllowedAddress;

/// Looks names up and lets through only addresses that may be reached. The client connects to
/// exactly these, so a name cannot lead elsewhere between the check and the connection.
#[derive(Clone, Copy)]
struct CheckedResolver(Reachable);

/// Where requests to one port may go.
#[derive(Clone, Copy)]
struct Reachable {
    policy: TargetPolicy,
    /// Addresses of this machine are left out, public ones too: the port is one of ours.
    not_here: bool,
}

impl Reachable {
    fn allows(self, address: IpAddr) -> bool {
        self.policy.allows(address) && !(self.not_here && is_of_this_machine(address))
    }
}

/// Whether an address is one of this machine: what would be sent there comes from there. Nothing is
/// sent to find out.
fn is_of_this_machine(address: IpAddr) -> bool {
    let address = address.to_canonical();
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let source = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((address, 9))?;
        socket.local_addr()
    });
    source.is_ok_and(|source| source.ip() == address)
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let Self(reachable) = *self;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> =
                found.filter(|address| reachable.allows(address.ip())).collect();
            if allowed.is_empty() {
                return Err(NoAllowedAddress.into());
            }
            let allowed: Addrs = Box::new(allowed.into_iter());
            Ok(allowed)
        })
    }
}

/// Trusted certificates that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("holds no certificates in PEM form")]
pub(crate) struct NoCertificates;

/// Certificates to trust besides the system's; None adds none.
fn read_certificates(pem: Option<&[u8]>) -> Result<Vec<reqwest::Certificate>, NoCertificates> {
    let Some(pem) = pem else { return Ok(Vec::new()) };
    let read = reqwest::Certificate::from_pem_bundle(pem);
    read.ok().filter(|read| !read.is_empty()).ok_or(NoCertificates)
}

type Cause = dyn StdError + 'static;

fn causes(error: &Cause) -> impl Iterator<Item = &Cause> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// The cause of all causes; the outer ones only say that a request failed.
fn innermost(error: &Cause) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}
