//! The listeners' certificates, as the config names them: all readable and whole, or the config is refused.

use std::sync::Arc;

use super::Error;
use crate::clock::Timestamp;
use crate::config::{Config, Errors, Fault, Rule, Severity, TlsFiles};
use crate::tls::{self, Credentials, Identity};

/// What each listener shows; `None` for plain HTTP.
pub(super) struct Identities {
    pub(super) ingest: Option<Arc<Identity>>,
    pub(super) admin: Option<Arc<Identity>>,
}

impl Identities {
    /// Reads the files.
    pub(super) fn load(config: &Config) -> Result<Self, Error> {
        let load = |key: &str, files: &Option<TlsFiles>| {
            let identity = files.as_ref().map(Identity::load).transpose();
            identity.map_err(|error| {
                let message = format!("`{key}`: {error}");
                vec![config.fault(Severity::Error, Rule::Config, key, None, message)]
            })
        };
        match (load("ingest.tls", &config.ingest.tls), load("admin.tls", &config.admin.tls)) {
            (Ok(ingest), Ok(admin)) => Ok(Self { ingest, admin }),
            (ingest, admin) => {
                let faults = [ingest.err(), admin.err()].into_iter().flatten().flatten().collect();
                Err(Error::Invalid(Errors { faults, warnings: Vec::new() }))
            }
        }
    }

    /// Which of them can't be used.
    pub(super) fn faults(config: &Config) -> Vec<Fault> {
        match Self::load(config) {
            Err(Error::Invalid(errors)) => errors.faults,
            Ok(_) | Err(_) => Vec::new(),
        }
    }

    /// Reads all files again: all can be used, or none is.
    pub(super) fn read_again(&self) -> Result<Vec<(Arc<Identity>, Credentials)>, tls::Error> {
        let identities = self.ingest.iter().chain(&self.admin);
        identities.map(|identity| Ok((Arc::clone(identity), identity.read_again()?))).collect()
    }
}

/// What is worth telling of certificates that can be used: that they have ended, or soon will.
pub(super) fn doubts(config: &Config, now: Timestamp) -> Vec<Fault> {
    let doubt = |key: &str, files: &Option<TlsFiles>| {
        let message = format!("`{key}`: {}", tls::doubt(files.as_ref()?, now)?);
        Some(config.fault(Severity::Warning, Rule::Certificate, &format!("{key}.cert"), None, message))
    };
    let of_both = [doubt("ingest.tls", &config.ingest.tls), doubt("admin.tls", &config.admin.tls)];
    of_both.into_iter().flatten().collect()
}
