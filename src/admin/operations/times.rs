//! Times in queries (RFC 3339, or how long ago) and in answers (RFC 3339).

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Error;
use crate::clock::Timestamp;

/// A time that is written as RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub Timestamp);

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        rfc_3339(&text).map(Self).ok_or_else(|| serde::de::Error::custom("a time must be RFC 3339"))
    }
}

fn rfc_3339(text: &str) -> Option<Timestamp> {
    let time: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(time.as_millisecond()).ok().map(Timestamp::from_millis)
}

/// Reads the value of `field`: a time of RFC 3339, or how long before `now`, for example `24h`.
pub fn parse(field: &str, text: &str, now: Timestamp) -> Result<Timestamp, Error> {
    if let Some(time) = rfc_3339(text) {
        return Ok(time);
    }
    let ago = humantime::parse_duration(text).map_err(|_| {
        Error::Invalid(format!(
            "`{field}` must be a time of RFC 3339, like 2025-01-15T10:30:00Z, or how long ago, like 90s, 15m, 24h or 7d"
        ))
    })?;
    let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
    Ok(Timestamp::from_millis(now.as_millis().saturating_sub(ago)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_of_rfc_3339_or_ago() {
        let now = Timestamp::from_millis(1_736_937_000_000);
        for (text, expected) in [
            ("2025-01-15T10:30:00Z", Some(1_736_937_000_000)),
            ("2025-01-15T11:30:00.007+01:00", Some(1_736_937_000_007)),
            ("90s", Some(1_736_936_910_000)),
            ("1h 30m", Some(1_736_931_600_000)),
            ("100000d", Some(0)),
            ("yesterday", None),
            ("", None),
            ("1969-12-31T00:00:00Z", None),
        ] {
            let parsed = parse("since", text, now).ok().map(Timestamp::as_millis);
            assert_eq!(parsed, expected, "{text}");
        }
        let time = Time(now);
        let json = serde_json::to_string(&time).unwrap();
        assert_eq!(
            (json.as_str(), serde_json::from_str::<Time>(&json).unwrap()),
            ("\"2025-01-15T10:30:00.000Z\"", time)
        );
    }
}
