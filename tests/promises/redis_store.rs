//! The store contract on a real Redis, alone and as a Cluster.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use branchline::store::redis::{RedisOptions, RedisStore, RedisTarget};
use branchline::store::{Store, StoreOptions};

use crate::store_contract::{Fixture, store_contract};
use crate::support::redis_server::{RedisCluster, RedisServer, newer};

/// Short, so that a crash does not hold a test up.
const DEAD_AFTER: Duration = Duration::from_secs(1);

struct Served<Server> {
    server: Server,
    target: fn(&Server) -> RedisTarget,
    partitions: u16,
}

#[async_trait]
impl<Server: Send + Sync> Fixture for Served<Server> {
    async fn open(&self, options: StoreOptions) -> Arc<dyn Store> {
        let options = RedisOptions {
            partitions: self.partitions,
            store: options,
            heartbeat: Duration::from_millis(100),
            dead_after: DEAD_AFTER,
            ..RedisOptions::default()
        };
        Arc::new(RedisStore::open((self.target)(&self.server), options).await.expect("the store opens"))
    }

    fn survives_after(&self) -> Duration {
        DEAD_AFTER
    }
}

async fn alone() -> impl Fixture {
    Served { server: RedisServer::start("always"), target: RedisServer::target, partitions: 4 }
}

async fn one_partition() -> impl Fixture {
    Served { server: RedisServer::start("always"), target: RedisServer::target, partitions: 1 }
}

async fn cluster() -> impl Fixture {
    Served { server: RedisCluster::start(), target: RedisCluster::target, partitions: 16 }
}

/// On a newer server, where there is one; else on the system's once more.
async fn on_program(name: &str) -> impl Fixture {
    let arguments = ["--appendonly", "yes", "--appendfsync", "always"];
    let server = match newer(name) {
        Some(program) => RedisServer::start_program(&program, &arguments),
        None => RedisServer::start_with(&arguments),
    };
    Served { server, target: RedisServer::target, partitions: 1 }
}

async fn redis_8_2() -> impl Fixture {
    on_program("redis-8.2").await
}

async fn valkey_9_1() -> impl Fixture {
    on_program("valkey-9.1").await
}

store_contract!(on_redis_8_2, super::redis_8_2);
store_contract!(on_valkey_9_1, super::valkey_9_1);
store_contract!(on_one_server, super::alone);
store_contract!(on_one_partition, super::one_partition);
store_contract!(on_a_cluster, super::cluster);
