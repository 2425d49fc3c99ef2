//! Whom the commands that talk to a router believe: the public authorities, or those of a file.

use std::path::Path;

use rustls::{ClientConfig, RootCertStore};

use super::{Error, VERSIONS, add_authorities, provider};

/// What a client's TLS is made with; `authorities` is a PEM file whose certificates alone are believed.
pub fn client(authorities: Option<&Path>) -> Result<ClientConfig, Error> {
    let roots = match authorities {
        None => RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
        Some(path) => {
            let mut roots = RootCertStore::empty();
            add_authorities(&mut roots, path)?;
            roots
        }
    };
    Ok(ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .map_err(Error::SetUp)?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
