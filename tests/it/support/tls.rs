//! A TLS client that trusts one certificate.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::support::http::{Connection, socket};

pub(crate) type TlsConnection = Connection<StreamOwned<ClientConnection, TcpStream>>;

/// Connects to `address` and expects a certificate for `name` that `trusted`, in PEM, vouches for.
/// Answers the certificate that was shown, too.
pub(crate) fn connect(
    address: &str,
    name: &str,
    trusted: &str,
    protocols: &[&str],
) -> io::Result<(TlsConnection, CertificateDer<'static>, Option<String>)> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(trusted.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|one| one.as_bytes().to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let mut stream = socket(address)?;
    while client.is_handshaking() {
        client.complete_io(&mut stream)?;
    }
    let shown = client.peer_certificates().unwrap()[0].clone().into_owned();
    let chosen = client.alpn_protocol().map(|name| String::from_utf8(name.to_vec()).unwrap());
    Ok((Connection::over(StreamOwned::new(client, stream)), shown, chosen))
}
