//! TLS of the data listener: its certificate, read again whenever its files change.
//!
//! Connections under way keep the certificate they began with; new ones get the new one. Files that
//! are broken, or do not belong together, change nothing: they may be half way through being
//! replaced.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::domain::time::{DAY_MS, Millis};

/// Where a certificate and its key are kept, both in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// Why there is no certificate. Shows nothing of a key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("read {}: {problem}", .path.display())]
    Unreadable { path: PathBuf, problem: String },
    #[error("the key {} does not belong to the certificate {}: {problem}", .files.key.display(), .files.certificate.display())]
    Mismatch { files: TlsFiles, problem: String },
    #[error("make a certificate: {0}")]
    Unmade(String),
    #[error("set up TLS: {0}")]
    Unusable(String),
}

/// What tells whether a file has been replaced.
type Stamp = Option<(SystemTime, u64)>;

/// The certificate in use.
pub(crate) struct Tls {
    files: TlsFiles,
    provider: Arc<CryptoProvider>,
    current: RwLock<Arc<CertifiedKey>>,
    /// Of the files when they were last looked at.
    seen: Mutex<[Stamp; 2]>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the certificate for the first time.
    pub(crate) fn open(files: TlsFiles) -> Result<Arc<Self>, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let seen = stamps(&files);
        let current = read(&files, &provider)?;
        let (current, seen) = (RwLock::new(Arc::new(current)), Mutex::new(seen));
        Ok(Arc::new(Self { files, provider, current, seen }))
    }

    /// What a listener needs; it goes on using what is read later.
    pub(crate) fn server(self: &Arc<Self>) -> Result<ServerConfig, TlsError> {
        let resolver: Arc<dyn ResolvesServerCert> = Arc::<Self>::clone(self);
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Unusable(error.to_string()))?;
        Ok(builder.with_no_client_auth().with_cert_resolver(resolver))
    }

    /// Reads the files again if they have changed since they were last read.
    pub(crate) fn reload_if_changed(&self) {
        let now = stamps(&self.files);
        let changed = *self.seen.lock().unwrap_or_else(PoisonError::into_inner) != now;
        if changed {
            self.reload();
        }
    }

    /// Reads the files again. Trouble is logged, and the certificate stays as it was.
    pub(crate) fn reload(&self) {
        // Looked at before they are read: a change meanwhile is then noticed the next time.
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = stamps(&self.files);
        match read(&self.files, &self.provider) {
            Ok(fresh) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
                tracing::info!("new connections get the certificate that was just read");
            }
            Err(error) => tracing::error!(%error, "the certificate stays as it was"),
        }
    }
}

impl ResolvesServerCert for Tls {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn stamps(files: &TlsFiles) -> [Stamp; 2] {
    [&files.certificate, &files.key].map(|path| {
        let facts = std::fs::metadata(path).ok()?;
        Some((facts.modified().ok()?, facts.len()))
    })
}

fn read(files: &TlsFiles, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let unreadable = |path: &Path, problem: String| {
        let path = path.to_owned();
        TlsError::Unreadable { path, problem }
    };
    let certificate = |problem: String| unreadable(&files.certificate, problem);
    let text = std::fs::read(&files.certificate).map_err(|error| certificate(error.to_string()))?;
    let chain = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| certificate(error.to_string()))?;
    if chain.is_empty() {
        return Err(certificate("it holds no certificate in PEM".to_owned()));
    }
    let text = std::fs::read(&files.key).map_err(|e| unreadable(&files.key, e.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(&text)
        .map_err(|_| unreadable(&files.key, "it holds no private key in PEM".to_owned()))?;
    CertifiedKey::from_der(chain, key, provider)
        .map_err(|error| TlsError::Mismatch { files: files.clone(), problem: error.to_string() })
}

/// How long a certificate of our own lasts (ours: longer than any data folder of a developer).
const OWN_DAYS: i64 = 3650;

/// A certificate nobody else vouches for, and its key, both in PEM.
pub(crate) struct SelfSigned {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// Makes a certificate for this machine's own names, `names` and `addresses`.
pub(crate) fn self_signed(
    names: &[String],
    addresses: &[IpAddr],
    now: Millis,
) -> Result<SelfSigned, TlsError> {
    let unmade = |error: rcgen::Error| TlsError::Unmade(error.to_string());
    let mut params = rcgen::CertificateParams::new(names.to_vec()).map_err(unmade)?;
    let addresses = addresses.iter().copied().map(rcgen::SanType::IpAddress);
    params.subject_alt_names.extend(addresses);
    let mut name = rcgen::DistinguishedName::new();
    name.push(rcgen::DnType::CommonName, "kiln, self-signed");
    params.distinguished_name = name;
    let day = |at: Millis| {
        let digits = at.day_digits();
        let part = |number: u32| u8::try_from(number % 100).unwrap_or(1);
        let year = i32::try_from(digits / 10_000).unwrap_or(1970);
        rcgen::date_time_ymd(year, part(digits / 100), part(digits))
    };
    params.not_before = day(now.plus(-DAY_MS));
    params.not_after = day(now.plus(OWN_DAYS * DAY_MS));
    let key = rcgen::KeyPair::generate().map_err(unmade)?;
    let certificate = params.self_signed(&key).map_err(unmade)?;
    Ok(SelfSigned { certificate: certificate.pem(), key: key.serialize_pem() })
}
