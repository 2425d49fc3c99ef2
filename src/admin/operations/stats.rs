//! How much the store holds.

use serde::{Deserialize, Serialize};

use super::Error;
use crate::store::Store;

/// The store's figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatsView {
    /// Events accepted and not settled.
    pub backlog: u64,
    /// Deliveries in the schedule.
    pub scheduled: u64,
    /// How long the one most overdue has been due.
    pub overdue_ms: u64,
    /// Dead letters kept.
    pub dead_letters: u64,
}

/// The figures now.
pub async fn stats(store: &dyn Store) -> Result<StatsView, Error> {
    let stats = store.stats().await?;
    Ok(StatsView {
        backlog: stats.backlog,
        scheduled: stats.scheduled,
        overdue_ms: stats.overdue_ms,
        dead_letters: stats.dead_letters,
    })
}
