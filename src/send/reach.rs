//! Whether an endpoint can be reached, as an attempt would reach it: its name looked up, every address judged, connected to,
//! TLS shaken. Nothing is sent.

use std::time::Duration;

use super::Sender;
use super::fault::sentence_about;
use crate::delivery::SendErrorKind;
use crate::endpoint::Endpoint;

/// However long an endpoint's own timeout is: somebody waits for the answer.
const REACH_TIMEOUT_MAX: Duration = Duration::from_secs(10);

/// Why an endpoint can't be reached.
#[derive(Debug)]
pub struct Unreached {
    /// The word for it, as attempts have it.
    pub kind: SendErrorKind,
    /// A sentence for people, which begins with scheme, host and port.
    pub detail: String,
}

impl Sender {
    /// Connects, and hangs up. Ends within the endpoint's timeout, ten seconds at most.
    pub async fn reach(&self, endpoint: &Endpoint) -> Result<(), Unreached> {
        let unreached = |kind, why: &dyn std::fmt::Display| Unreached {
            kind,
            detail: sentence_about(&endpoint.url, &why.to_string()),
        };
        let connector = self.ways.connector(endpoint).map_err(|error| unreached(SendErrorKind::Tls, &error))?;
        let connected = connector.connect(endpoint.url.uri(), endpoint.timeout.min(REACH_TIMEOUT_MAX)).await;
        connected.map(drop).map_err(|error| unreached(error.kind(), &error))
    }
}
