//! Whether the attempts of a delivery are the same delivery, each signed at its own time: what `serve` promises of retries, looked
//! at in every test. Pure. Headers may hold secrets, so only their names are shown.

use std::collections::BTreeSet;

use http::HeaderName;

use super::judge::Difference;
use super::script::Sent;
use crate::endpoint::SigningKey;
use crate::send::sign::signature;

/// The headers that are others in each attempt.
const OF_ATTEMPT: [&str; 3] = ["branchline-attempt", "webhook-signature", "webhook-timestamp"];

/// Everything that is not as it must be, whatever the test expects.
pub fn judge(key: &str, subscription: &str, sent: &[Sent], keys: &[SigningKey]) -> Vec<Difference> {
    let mut found = Vec::new();
    for own in sent {
        for what in misfits(own, &sent[0], keys) {
            found.push(Difference::of(key, format!("attempt {} of `{subscription}` {what}", own.number)));
        }
    }
    found
}

fn misfits(own: &Sent, first: &Sent, keys: &[SigningKey]) -> Vec<String> {
    let header = |name: &str| own.request.headers().get(name).map_or("", |value| value.to_str().unwrap_or_default());
    let mut found = Vec::new();
    if header("branchline-attempt") != own.number.to_string() {
        found.push("has another number in `branchline-attempt`".to_owned());
    }
    if header("webhook-timestamp") != own.at.as_secs().to_string() {
        found.push("has another time in `webhook-timestamp` than its own".to_owned());
    }
    let signed = signature(keys, header("webhook-id"), header("webhook-timestamp"), own.request.body());
    if header("webhook-signature") != signed.unwrap_or_default() {
        found.push("is not signed by the endpoint's keys for its id, time and body".to_owned());
    }
    let others = other_headers(own, first);
    if !others.is_empty() {
        found.push(format!("has other headers than the first: {}", others.join(", ")));
    }
    if (own.request.method(), own.request.uri()) != (first.request.method(), first.request.uri()) {
        found.push("has another method or URL than the first".to_owned());
    }
    if own.request.body() != first.request.body() {
        found.push("has another body than the first".to_owned());
    }
    found
}

fn other_headers(own: &Sent, first: &Sent) -> Vec<String> {
    let (own, first) = (own.request.headers(), first.request.headers());
    let names: BTreeSet<&str> = own.keys().chain(first.keys()).map(HeaderName::as_str).collect();
    let differs =
        |name: &&str| !OF_ATTEMPT.contains(name) && !own.get_all(*name).iter().eq(first.get_all(*name).iter());
    names.into_iter().filter(differs).map(|name| format!("`{name}`")).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::clock::Timestamp;

    const AT: Timestamp = Timestamp::from_millis(1_736_937_000_000);

    fn keys() -> [SigningKey; 1] {
        [SigningKey::Hmac([7; 24].into())]
    }

    /// An attempt as it must be, apart from what `change` does to it before it is signed.
    fn sent(number: u32, body: &str, id: &str, at: Timestamp) -> Sent {
        let time = AT.plus(Duration::from_secs(60) * (number - 1));
        let (body, stamp) = (Bytes::copy_from_slice(body.as_bytes()), at.as_secs().to_string());
        let request = http::Request::post("https://x.example.com/hook")
            .header("branchline-attempt", number)
            .header("webhook-id", id)
            .header("webhook-timestamp", &stamp)
            .header("webhook-signature", signature(&keys(), id, &stamp, &body).unwrap());
        Sent { number, at: time, request: request.body(body).unwrap() }
    }

    fn judged(second: Sent) -> Vec<String> {
        let all = [sent(1, "a", "dlv_1", AT), second];
        judge("tests[0]", "x", &all, &keys()).into_iter().map(|difference| difference.what).collect()
    }

    #[test]
    fn a_retry_is_the_same_delivery_signed_at_its_own_time() {
        let later = AT.plus(Duration::from_secs(60));
        assert_eq!(judged(sent(2, "a", "dlv_1", later)), [""; 0]);
        assert_eq!(judged(sent(2, "b", "dlv_1", later)), ["attempt 2 of `x` has another body than the first"]);
        assert_eq!(
            judged(sent(2, "a", "dlv_2", later)),
            ["attempt 2 of `x` has other headers than the first: `webhook-id`"]
        );
        assert_eq!(
            judged(sent(2, "a", "dlv_1", AT)),
            ["attempt 2 of `x` has another time in `webhook-timestamp` than its own"]
        );
        let mut forged = sent(2, "a", "dlv_1", later);
        *forged.request.body_mut() = Bytes::from_static(b"c");
        assert_eq!(
            judged(forged),
            [
                "attempt 2 of `x` is not signed by the endpoint's keys for its id, time and body",
                "attempt 2 of `x` has another body than the first"
            ]
        );
    }
}
