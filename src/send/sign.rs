//! Signatures of the Standard Webhooks specification: `v1` (HMAC-SHA256) and `v1a` (ed25519).
//!
//! What is signed is `id.timestamp.body`; the id names the delivery, the time is the attempt's.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::ed25519::signature::MultipartSigner;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::endpoint::SigningKey;

/// What `webhook-signature` carries: one signature for each key, the first key's first. Nothing without keys.
pub fn signature(keys: &[SigningKey], id: &str, timestamp: &str, body: &[u8]) -> Option<String> {
    let message = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body];
    let mut text = String::with_capacity(keys.len() * 48);
    for key in keys {
        if !text.is_empty() {
            text.push(' ');
        }
        match key {
            SigningKey::Hmac(secret) => {
                let mut mac =
                    Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length, by its definition");
                for part in message {
                    mac.update(part);
                }
                text.push_str("v1,");
                STANDARD.encode_string(mac.finalize().into_bytes(), &mut text);
            }
            SigningKey::Ed25519(secret) => {
                text.push_str("v1a,");
                STANDARD.encode_string(secret.multipart_sign(&message).to_bytes(), &mut text);
            }
        }
    }
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::Verifier as _;

    use super::*;

    const SECRET: &str = "C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

    fn hmac_key(base64: &str) -> SigningKey {
        SigningKey::Hmac(STANDARD.decode(base64).unwrap().into())
    }

    #[test]
    fn the_specification_s_vector_is_met() {
        let body = br#"{"email":"test@example.com","username":"test_user"}"#;
        assert_eq!(
            signature(&[hmac_key(SECRET)], "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", "1649367553", body).as_deref(),
            Some("v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=")
        );
    }

    #[test]
    fn the_reference_implementation_signs_the_same() {
        let reference = standardwebhooks::Webhook::new(&format!("whsec_{SECRET}")).unwrap();
        for body in ["", "{}", "ü", &"x".repeat(100_000)] {
            assert_eq!(
                signature(&[hmac_key(SECRET)], "dlv_1", "1700000000", body.as_bytes()).unwrap(),
                reference.sign("dlv_1", 1_700_000_000, body.as_bytes()).unwrap()
            );
        }
    }

    #[test]
    fn every_key_signs_and_the_current_one_is_first() {
        let ed25519 = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
        let keys = [hmac_key(SECRET), SigningKey::Ed25519(Box::new(ed25519.clone())), hmac_key("AAAA")];
        let all = signature(&keys, "dlv_1", "1700000000", b"\xff\0").unwrap();
        let parts: Vec<&str> = all.split(' ').collect();
        assert_eq!(parts.len(), 3);
        assert_eq!(parts[0], signature(&keys[..1], "dlv_1", "1700000000", b"\xff\0").unwrap());
        let signature = STANDARD.decode(parts[1].strip_prefix("v1a,").unwrap()).unwrap();
        let signature = ed25519_dalek::Signature::from_slice(&signature).unwrap();
        ed25519.verifying_key().verify(b"dlv_1.1700000000.\xff\0", &signature).unwrap();
        assert!(parts[2].starts_with("v1,"));
    }

    #[test]
    fn without_a_key_there_is_no_signature() {
        assert_eq!(signature(&[], "dlv_1", "1700000000", b""), None);
    }
}
