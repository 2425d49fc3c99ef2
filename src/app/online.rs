//! What only others can tell of a config: whether its endpoints' names are found, their addresses allowed, connections and TLS
//! made as an attempt makes them, and whether its store is one that a router would take. Nothing is sent and nothing written.

use std::time::Duration;

use futures_util::{StreamExt, stream};

use super::{Error, stores};
use crate::clock::Clock;
use crate::config::{Config, Fault, Rule, Severity};
use crate::metrics::Metrics;
use crate::send::Sender;
use crate::store;

/// Endpoints that are reached for at one time.
const AT_ONE_TIME_MAX: usize = 32;

/// How long the store has for its answers.
const STORE_TIMEOUT: Duration = Duration::from_secs(15);

/// Looks at all of it; `done` is told how much of how much was looked at.
pub async fn online(config: &Config, done: impl Fn(usize, usize)) -> Result<Vec<Fault>, Error> {
    let sender = Sender::new(&config.delivery, Metrics::default(), Clock::system())?;
    // What was stood in for is nobody's address.
    let stood_in = |section: &str, name: &str| config.description.is_stood_in(section, name, "url");
    let endpoints: Vec<_> = config.endpoints.iter().filter(|endpoint| !stood_in("endpoints", &endpoint.name)).collect();
    let all = endpoints.len() + 1;
    done(0, all);
    let reaching = stream::iter(endpoints)
        .map(|endpoint| {
            let sender = &sender;
            async move { (endpoint, sender.reach(endpoint).await) }
        })
        .buffer_unordered(AT_ONE_TIME_MAX)
        .enumerate()
        .map(|(number, (endpoint, reached))| {
            done(number + 1, all);
            let unreached = reached.err()?;
            let message = format!(
                "endpoint `{}` can't be reached ({}): {}",
                endpoint.name,
                unreached.kind.as_str(),
                unreached.detail
            );
            let key = format!("endpoints.{}.url", endpoint.name);
            Some(config.fault_in_secret(Severity::Error, Rule::Endpoint, &key, message))
        })
        .filter_map(|fault| async { fault })
        .collect::<Vec<_>>();
    let looking = async {
        if stood_in("settings", "store") {
            return Vec::new();
        }
        let looked = tokio::time::timeout(STORE_TIMEOUT, stores::look(config)).await;
        let looked = looked.unwrap_or_else(|_| Err(store::Error::Away(format!("no answer within {STORE_TIMEOUT:?}"))));
        let fault = |severity, message| config.fault_in_secret(severity, Rule::Store, "store.url", message);
        match looked {
            Ok(warnings) => warnings.into_iter().map(|warning| fault(Severity::Warning, warning)).collect(),
            Err(error) => vec![fault(Severity::Error, format!("the store can't be used: {error}"))],
        }
    };
    let (mut faults, of_store) = tokio::join!(reaching, looking);
    faults.extend(of_store);
    done(all, all);
    faults.sort_by(|a, b| (&a.place, &a.message).cmp(&(&b.place, &b.message)));
    Ok(faults)
}
