//! TLS with one endpoint that wants something else than the usual: a certificate of this router, further authorities, or
//! (told at start) no check at all. The files are read with the config, so a reload reads them again.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};

use super::{Error, VERSIONS, add_authorities, bytes, certified, provider};

/// `[endpoints.NAME.tls]`, read.
pub struct EndpointTls {
    /// `cert` and `key`.
    own: Option<Arc<SingleCertAndKey>>,
    /// `ca`: trusted besides the usual authorities.
    authorities: RootCertStore,
    /// `insecure`.
    is_insecure: bool,
    fingerprint: Fingerprint,
}

/// Tells whether two endpoints want the same of TLS, whenever each was read.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl fmt::Debug for EndpointTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EndpointTls")
    }
}

impl EndpointTls {
    /// Reads the files.
    pub fn read(own: Option<(PathBuf, PathBuf)>, ca: Option<PathBuf>, is_insecure: bool) -> Result<Self, Error> {
        let fingerprint = Fingerprint::of(own.as_ref(), ca.as_deref(), is_insecure)?;
        let own = own.map(|(cert, key)| certified(&cert, &key)).transpose()?;
        let mut authorities = RootCertStore::empty();
        if let Some(ca) = ca {
            add_authorities(&mut authorities, &ca)?;
        }
        Ok(Self { own: own.map(|own| Arc::new(own.into())), authorities, is_insecure, fingerprint })
    }

    /// What it is made of.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// For connections to the endpoint. `usual` are the authorities that are trusted anyway.
    pub fn client_config(&self, usual: &RootCertStore) -> Result<ClientConfig, Error> {
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(VERSIONS);
        let builder = builder.map_err(Error::SetUp)?;
        let builder = if self.is_insecure {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Unchecked(provider())))
        } else {
            let mut roots = usual.clone();
            roots.roots.extend(self.authorities.roots.iter().cloned());
            builder.with_root_certificates(roots)
        };
        Ok(match &self.own {
            Some(own) => builder.with_client_cert_resolver(Arc::clone(own) as _),
            None => builder.with_no_client_auth(),
        })
    }
}

impl Fingerprint {
    fn of(own: Option<&(PathBuf, PathBuf)>, ca: Option<&Path>, is_insecure: bool) -> Result<Self, Error> {
        let (cert, key) = own.map(|(cert, key)| (cert.as_path(), key.as_path())).unzip();
        let mut hash = Sha256::new();
        hash.update([u8::from(is_insecure)]);
        for file in [cert, key, ca] {
            // The length of each, so that none runs into the next.
            let content = file.map(bytes).transpose()?.unwrap_or_default();
            hash.update(content.len().to_le_bytes());
            hash.update(content);
        }
        Ok(Self(hash.finalize().into()))
    }
}

/// Takes any certificate, as long as the other side has its key.
#[derive(Debug)]
struct Unchecked(Arc<CryptoProvider>);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
