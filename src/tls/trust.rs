//! Whom the commands that talk to a router believe: the public authorities, or those of a file.

use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::{Error, bytes, provider};

/// What a client's TLS is made with; `authorities` is a PEM file whose certificates alone are believed.
pub fn client(authorities: Option<&Path>) -> Result<ClientConfig, Error> {
    let roots = match authorities {
        None => RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
        Some(path) => {
            let none = || Error::Pem { path: path.to_owned(), what: "certificate" };
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(&bytes(path)?) {
                roots.add(certificate.map_err(|_| none())?).map_err(|_| none())?;
            }
            if roots.is_empty() {
                return Err(none());
            }
            roots
        }
    };
    Ok(ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(Error::SetUp)?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
