//! The listeners' side of TLS: a certificate and its key from files, handshakes with a bound. The files are read again at a
//! reload; connections that are open keep what they began with. Producers' certificates are not asked for.

mod trust; // Whom the commands believe.
mod validity; // How long certificates still hold.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::TlsFiles;
use crate::http2;

pub use trust::client;
pub use validity::doubt;

/// A chain longer than this is somebody's mistake.
const CERTIFICATES_MAX: usize = 16;

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
    /// The TLS library refuses its own defaults.
    #[error("TLS can't be set up: {0}")]
    SetUp(rustls::Error),
}

/// What a listener shows to those who connect.
pub struct Identity {
    files: TlsFiles,
    current: Arc<Current>,
    acceptor: TlsAcceptor,
}

/// A connection after its handshake.
pub struct Shaken {
    /// Where the two sides read and write.
    pub stream: TlsStream<TcpStream>,
    /// Whether they speak HTTP/2 there; HTTP/1.1 otherwise.
    pub is_http2: bool,
}

/// A certificate and its key, read and found to belong together.
#[derive(Debug)]
pub struct Credentials(Arc<CertifiedKey>);

#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl Identity {
    /// Reads the files. The listeners speak HTTP/2 and HTTP/1.1: the handshake chooses (ALPN).
    pub fn load(files: &TlsFiles) -> Result<Arc<Self>, Error> {
        let current = Arc::new(Current(ArcSwap::new(read(files)?.0)));
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(Error::SetUp)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&current) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![http2::ALPN.to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(Self { files: files.clone(), current, acceptor: TlsAcceptor::from(Arc::new(config)) }))
    }

    /// Reads the files again and gives what is in them now; nothing changes yet.
    pub fn read_again(&self) -> Result<Credentials, Error> {
        read(&self.files)
    }

    /// Shows these from now on.
    pub fn replace(&self, credentials: Credentials) {
        self.current.0.store(credentials.0);
    }

    /// Shakes hands with one that connected.
    pub async fn handshake(&self, stream: TcpStream, within: Duration) -> io::Result<Shaken> {
        let accepted = timeout(within, self.acceptor.accept(stream)).await;
        let stream = accepted.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(http2::ALPN);
        Ok(Shaken { stream, is_http2 })
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn read(files: &TlsFiles) -> Result<Credentials, Error> {
    let TlsFiles { cert, key } = files;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&bytes(cert)?)
        .take(CERTIFICATES_MAX + 1)
        .collect::<Result<_, _>>()
        .map_err(|_| Error::Pem { path: cert.clone(), what: "certificate" })?;
    match chain.len() {
        0 => return Err(Error::Pem { path: cert.clone(), what: "certificate" }),
        1..=CERTIFICATES_MAX => {}
        _ => return Err(Error::Certificates { path: cert.clone() }),
    }
    let private = PrivateKeyDer::from_pem_slice(&bytes(key)?)
        .map_err(|_| Error::Pem { path: key.clone(), what: "private key" })?;
    CertifiedKey::from_der(chain, private, &provider())
        .map(|certified| Credentials(Arc::new(certified)))
        .map_err(|reason| Error::Mismatch { cert: cert.clone(), key: key.clone(), reason })
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
        assert!(read(&TlsFiles { cert: good_cert.clone(), key: good_key.clone() }).is_ok());
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
            let error = read(&TlsFiles { cert, key }).unwrap_err().to_string();
            assert!(error.contains(said), "`{said}` is not in `{error}`");
            assert!(!error.contains("BEGIN") && !error.contains(&key_line(&other)), "{error}");
        }
    }

    fn key_line(pem: &str) -> String {
        pem.lines().nth(1).unwrap().to_owned()
    }
}
