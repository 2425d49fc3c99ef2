//! How long a listener's certificate still holds: whoever connects is the first to notice when it does not.

use std::time::Duration;

use x509_parser::pem::Pem;

use crate::clock::Timestamp;
use crate::config::TlsFiles;

/// A certificate that ends sooner than this wants to be renewed: most renewals begin a month before.
const SOON: Duration = Duration::from_secs(14 * 24 * 3_600);

/// What is worth telling of the times of a certificate, and of those that vouch for it. A file that can't be read is told elsewhere.
pub fn doubt(files: &TlsFiles, now: Timestamp) -> Option<String> {
    let text = std::fs::read(&files.cert).ok()?;
    let path = files.cert.display();
    for pem in Pem::iter_from_buffer(&text).filter_map(Result::ok) {
        let Ok(certificate) = pem.parse_x509() else { continue };
        let validity = certificate.validity();
        let at = |time: x509_parser::time::ASN1Time| {
            Timestamp::from_millis(u64::try_from(time.timestamp()).unwrap_or(0).saturating_mul(1_000))
        };
        let (from, until) = (at(validity.not_before), at(validity.not_after));
        if until <= now {
            return Some(format!("a certificate in `{path}` has expired: it was valid until {until}"));
        }
        if now < from {
            return Some(format!("a certificate in `{path}` is not valid before {from}"));
        }
        let left = until.since(now);
        if left < SOON {
            let days = left.as_secs() / (24 * 3_600);
            return Some(format!("a certificate in `{path}` ends in {days} days, at {until}; renew it"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn what_has_ended_ends_soon_or_has_not_begun_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let files =
            TlsFiles { cert: folder.path().join("cert.pem"), key: folder.path().join("key.pem"), client_ca: None };
        let mut params = CertificateParams::new(vec!["a.example".into()]).unwrap();
        params.not_before = date_time_ymd(2025, 1, 1);
        params.not_after = date_time_ymd(2025, 3, 1);
        std::fs::write(&files.cert, params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()).unwrap();
        let at = |text: &str| {
            let time: jiff::Timestamp = text.parse().unwrap();
            doubt(&files, Timestamp::from_millis(time.as_millisecond().unsigned_abs()))
        };
        assert_eq!(at("2025-02-01T00:00:00Z"), None);
        for (now, part) in [
            ("2024-12-31T00:00:00Z", "is not valid before 2025-01-01T00:00:00"),
            ("2025-02-20T12:00:00Z", "ends in 8 days, at 2025-03-01T00:00:00"),
            ("2025-03-01T00:00:00Z", "has expired: it was valid until 2025-03-01T00:00:00"),
        ] {
            let told = at(now).unwrap();
            assert!(told.contains(part) && told.contains("cert.pem"), "{told}");
        }
        std::fs::write(&files.cert, "no certificate").unwrap();
        assert_eq!(at("2025-02-01T00:00:00Z"), None);
    }
}
