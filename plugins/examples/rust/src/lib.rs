//! Drops small orders, and makes of the others a message that Slack understands.

use branchline_plugin::serde_json::json;
use branchline_plugin::{Error, Event, Verdict, plugin};
use serde::Deserialize;

plugin!(handle);

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Config {
    at_least: u64,
}

#[derive(Deserialize)]
struct Order {
    amount: u64,
    currency: String,
}

fn handle(event: Event<Order>, config: Config) -> Result<Verdict, Error> {
    let Order { amount, currency } = event.payload;
    if amount < config.at_least {
        return Ok(Verdict::drop(format!("an order below {}", config.at_least)));
    }
    Verdict::send_json(&json!({ "text": format!("Order {}: {amount} {currency}", event.aggregate_id) }))
}

#[cfg(test)]
mod tests {
    use branchline_plugin::{entry, testing};

    #[test]
    fn fixtures_hold() {
        testing::run_fixtures(env!("CARGO_MANIFEST_DIR"), super::handle, entry::accept_any_config);
    }
}
