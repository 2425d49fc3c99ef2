//! The store that a config names: opened, or only looked at.

use std::sync::Arc;

use super::Error;
use crate::clock::Clock;
use crate::config::{Config, StoreUrl};
use crate::store::embedded::{self, EmbeddedStore};
use crate::store::redis::{self, RedisOptions, RedisStore};
use crate::store::{self, Store};

/// Opens it.
pub async fn open_store(config: &Config, clock: Clock) -> Result<Arc<dyn Store>, Error> {
    Ok(match &config.store.url {
        StoreUrl::File(folder) => Arc::new(EmbeddedStore::open(folder, config.store.options.clone(), clock).await?),
        StoreUrl::Redis(target) => Arc::new(RedisStore::open(target.clone(), redis_options(config)).await?),
    })
}

/// What it says of itself, without writing. What a router would refuse is the error.
pub(super) async fn look(config: &Config) -> Result<Vec<String>, store::Error> {
    match &config.store.url {
        StoreUrl::File(folder) => {
            let folder = folder.clone();
            let looked = tokio::task::spawn_blocking(move || embedded::look(&folder)).await;
            let looked = looked.unwrap_or_else(|error| Err(store::Error::Unusable(error.to_string())));
            looked.map(|()| Vec::new())
        }
        StoreUrl::Redis(target) => redis::look(target, &redis_options(config)).await,
    }
}

fn redis_options(config: &Config) -> RedisOptions {
    let (partitions, store) = (config.store.partitions, config.store.options.clone());
    RedisOptions { partitions, store, ..config.store.redis.clone() }
}
