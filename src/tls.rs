//! TLS. Here the listeners' side of it: a certificate and its key from files, handshakes with a bound. The files are read again at a
//! reload; connections that are open keep what they began with. Clients are asked for a certificate where the config says
//! who vouches for them.

mod outgoing; // An endpoint's own TLS.
mod trust; // Whom the commands believe.
mod validity; // How long certificates still hold.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::{ClientCa, TlsFiles};
use crate::http2;

pub use outgoing::{EndpointTls, Fingerprint};
pub use trust::client;
pub use validity::doubt;

/// A chain longer than this is somebody's mistake.
const CERTIFICATES_MAX: usize = 16;
/// Of a file of authorities no more are read.
const AUTHORITIES_MAX: usize = 1_000;

/// TLS 1.2 is spoken too: some producers and receivers know nothing newer.
const VERSIONS: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

/// Why a certificate can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file can't be read.
    #[error("`{path}` can't be read: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// A file holds something else.
    #[error("`{path}` holds no {what} in PEM form")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// There are too many certificates.
    #[error(
        "`{path}` holds more than {CERTIFICATES_MAX} certificates; it should hold the server's own and those that vouch for it"
    )]
    Certificates {
        /// The file.
        path: PathBuf,
    },
    /// The two don't fit together, or are of a kind that is not known.
    #[error("certificate `{cert}` and key `{key}` can't be used together: {reason}")]
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What the TLS library says.
        reason: rustls::Error,
    },
    /// Nobody can vouch for clients by these.
    #[error("`{path}` can't vouch for clients: {reason}")]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// What the TLS library says.
        reason: VerifierBuilderError,
    },
    /// A certificate in a file of authorities can't be used.
    #[error("`{path}` holds a certificate that can't vouch for others: {reason}")]
    Authority {
        /// The file.
        path: PathBuf,
        /// What the TLS library says.
        reason: rustls::Error,
    },
    /// The TLS library refuses its own defaults.
    #[error("TLS can't be set up: {0}")]
    SetUp(rustls::Error),
}

/// What a listener shows to those who connect.
pub struct Identity {
    files: TlsFiles,
    current: ArcSwap<rustls::ServerConfig>,
}

/// A connection after its handshake.
pub struct Shaken {
    /// Where the two sides read and write.
    pub stream: TlsStream<TcpStream>,
    /// Whether they speak HTTP/2 there; HTTP/1.1 otherwise.
    pub is_http2: bool,
    /// The names in the client's certificate, as [`name`] writes them; none where it has shown none.
    pub names: Arc<[String]>,
}

/// A certificate and its key, read and found to belong together, and those that vouch for clients.
#[derive(Debug)]
pub struct Credentials(Arc<rustls::ServerConfig>);

impl Identity {
    /// Reads the files. The listeners speak HTTP/2 and HTTP/1.1: the handshake chooses (ALPN).
    pub fn load(files: &TlsFiles) -> Result<Arc<Self>, Error> {
        Ok(Arc::new(Self { files: files.clone(), current: ArcSwap::new(read(files)?.0) }))
    }

    /// Reads the files again and gives what is in them now; nothing changes yet.
    pub fn read_again(&self) -> Result<Credentials, Error> {
        read(&self.files)
    }

    /// Shows these from now on. No session of before is resumed, so that no client of before is let in unseen.
    pub fn replace(&self, credentials: Credentials) {
        self.current.store(credentials.0);
    }

    /// Shakes hands with one that connected.
    pub async fn handshake(&self, stream: TcpStream, within: Duration) -> io::Result<Shaken> {
        let accepted = timeout(within, TlsAcceptor::from(self.current.load_full()).accept(stream)).await;
        let stream = accepted.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        let session = stream.get_ref().1;
        let is_http2 = session.alpn_protocol() == Some(http2::ALPN);
        let names = session.peer_certificates().and_then(<[_]>::first).map(names_of).unwrap_or_default();
        Ok(Shaken { stream, is_http2, names: names.into() })
    }
}

/// A name as names are compared: DNS names and URIs without regard to case, which certificates use freely.
pub fn name(text: &str) -> String {
    text.to_ascii_lowercase()
}

/// The DNS names and URIs that a certificate is for.
fn names_of(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(certificate) = webpki::EndEntityCert::try_from(certificate) else { return Vec::new() };
    certificate.valid_dns_names().chain(certificate.valid_uri_names()).map(name).collect()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn read(files: &TlsFiles) -> Result<Credentials, Error> {
    let TlsFiles { cert, key, client_ca } = files;
    let certified = certified(cert, key)?;
    let builder = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .map_err(Error::SetUp)?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(client_ca) => builder.with_client_cert_verifier(verifier(client_ca)?),
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![http2::ALPN.to_vec(), b"http/1.1".to_vec()];
    Ok(Credentials(Arc::new(config)))
}

/// Who may come in.
fn verifier(client_ca: &ClientCa) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let ClientCa { file, is_required } = client_ca;
    let mut roots = RootCertStore::empty();
    add_authorities(&mut roots, file)?;
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let builder = if *is_required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|reason| Error::ClientCa { path: file.clone(), reason })
}

/// A certificate, those that vouch for it, and its key.
fn certified(cert: &Path, key: &Path) -> Result<CertifiedKey, Error> {
    let chain = certificates(cert)?;
    if chain.len() > CERTIFICATES_MAX {
        return Err(Error::Certificates { path: cert.to_owned() });
    }
    let private = PrivateKeyDer::from_pem_slice(&bytes(key)?)
        .map_err(|_| Error::Pem { path: key.to_owned(), what: "private key" })?;
    CertifiedKey::from_der(chain, private, &provider()).map_err(|reason| Error::Mismatch {
        cert: cert.to_owned(),
        key: key.to_owned(),
        reason,
    })
}

/// Trusts the certificates of a file.
fn add_authorities(roots: &mut RootCertStore, file: &Path) -> Result<(), Error> {
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|reason| Error::Authority { path: file.to_owned(), reason })?;
    }
    Ok(())
}

/// The certificates of a file: one at least.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found = CertificateDer::pem_slice_iter(&bytes(file)?).take(AUTHORITIES_MAX).collect::<Result<Vec<_>, _>>();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) | Err(_) => Err(Error::Pem { path: file.to_owned(), what: "certificate" }),
    }
}

fn bytes(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|reason| Error::File { path: path.to_owned(), reason })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    #[test]
    fn what_is_wrong_with_a_file_is_said_with_its_name_and_without_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let pair = || {
            let key = KeyPair::generate().unwrap();
            (
                CertificateParams::new(vec!["a.example".into()]).unwrap().self_signed(&key).unwrap().pem(),
                key.serialize_pem(),
            )
        };
        let ((cert, key), (_, other)) = (pair(), pair());
        let (good_cert, good_key) = (write("cert.pem", &cert), write("key.pem", &key));
        assert!(read(&TlsFiles { cert: good_cert.clone(), key: good_key.clone(), client_ca: None }).is_ok());
        let missing = folder.path().join("missing.pem");
        for (cert, key, said) in [
            (missing.clone(), good_key.clone(), "missing.pem` can't be read"),
            (good_cert.clone(), missing, "missing.pem` can't be read"),
            (good_key.clone(), good_key.clone(), "key.pem` holds no certificate"),
            (good_cert.clone(), good_cert.clone(), "cert.pem` holds no private key"),
            (good_cert.clone(), write("other.pem", &other), "can't be used together"),
            (write("empty.pem", ""), good_key.clone(), "empty.pem` holds no certificate"),
            (write("torn.pem", &cert[..cert.len() / 2]), good_key.clone(), "torn.pem` holds no certificate"),
            (write("long.pem", &cert.repeat(17)), good_key, "holds more than 16 certificates"),
        ] {
            let error = read(&TlsFiles { cert, key, client_ca: None }).unwrap_err().to_string();
            assert!(error.contains(said), "`{said}` is not in `{error}`");
            assert!(!error.contains("BEGIN") && !error.contains(&key_line(&other)), "{error}");
        }
    }

    fn key_line(pem: &str) -> String {
        pem.lines().nth(1).unwrap().to_owned()
    }
}
