//! Promises that hold on both stores.

use super::redis_server::RedisServer;

/// Which store.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Embedded,
    Redis,
}

impl Kind {
    /// The store's URL as a router's config has it, and the server that it needs.
    pub fn open(self) -> (String, Option<RedisServer>) {
        match self {
            Self::Embedded => ("file:{folder}/data".to_owned(), None),
            Self::Redis => {
                let redis = RedisServer::start("always");
                (redis.url().expose().to_owned(), Some(redis))
            }
        }
    }
}

/// Makes a test of each promise on each store.
macro_rules! on_both_stores {
    ([ $($promise:ident)+ ]) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                super::$promise($crate::support::stores::Kind::Embedded).await;
            })+
        }
        mod redis {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                super::$promise($crate::support::stores::Kind::Redis).await;
            })+
        }
    };
}
pub(crate) use on_both_stores;
