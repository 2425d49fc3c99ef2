//! A host's name in, its addresses out. What they are is judged elsewhere, after every look-up.
//!
//! The system's look-up blocks a thread for as long as it likes, so the threads are bounded, and a
//! name is looked up once however many attempts wait for it: a dead name server costs one thread.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::{Semaphore, watch};

/// Looks names up.
#[async_trait]
pub trait Resolve: Send + Sync + 'static {
    /// All addresses of `host`. The caller gives up when its time has passed.
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// Look-ups that block a thread at one time.
const LOOKUPS_MAX: usize = 64;

/// What a look-up gave; an error can't be shared, so its text is.
type Found = Result<Vec<IpAddr>, String>;
/// Where a look-up's callers wait for it.
type Awaited = watch::Receiver<Option<Found>>;

/// The operating system's look-up.
#[derive(Clone)]
pub struct SystemResolver {
    under_way: Arc<Mutex<HashMap<Box<str>, Awaited>>>,
    threads: Arc<Semaphore>,
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self { under_way: Arc::default(), threads: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }
}

impl SystemResolver {
    /// Joins the look-up of `host` that is under way, or starts one.
    fn join(&self, host: &str) -> Awaited {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = under_way.get(host) {
            return found.clone();
        }
        let (publish, found) = watch::channel(None);
        under_way.insert(host.into(), found.clone());
        drop(under_way);
        let this = self.clone();
        let host: Box<str> = host.into();
        // A task of its own, so that the entry stays until the thread is free, however soon the callers give up.
        tokio::spawn(async move {
            let permit = Arc::clone(&this.threads).acquire_owned().await;
            let name = host.clone();
            let looked_up = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                (&*name, 0).to_socket_addrs().map(|found| found.map(|address| address.ip()).collect())
            });
            let result: Found = match looked_up.await {
                Ok(result) => result.map_err(|error: io::Error| error.to_string()),
                Err(_) => Err("the look-up was cut off".to_owned()),
            };
            this.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&host);
            publish.send_replace(Some(result));
        });
        found
    }
}

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let mut found = self.join(host);
        match found.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(Ok(addresses))) => Ok(addresses.clone()),
            Ok(Some(Err(error))) => Err(io::Error::other(error.clone())),
            Ok(None) | Err(_) => Err(io::Error::other("the look-up was cut off")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_local_name_is_found_and_look_ups_at_the_same_time_share_one() {
        let resolver = SystemResolver::default();
        let first = resolver.join("localhost");
        let second = resolver.join("localhost");
        assert!(first.same_channel(&second));
        let addresses = resolver.resolve("localhost").await.unwrap();
        assert!(addresses.iter().all(IpAddr::is_loopback) && !addresses.is_empty(), "{addresses:?}");
        assert!(resolver.under_way.lock().unwrap().is_empty(), "an ended look-up leaves nothing behind");
    }

    /// These forms are no addresses to Rust and names to the URL, but the system reads them as IPv4.
    #[tokio::test]
    async fn odd_spellings_of_an_address_resolve_to_that_address() {
        let resolver = SystemResolver::default();
        for spelling in ["2130706433", "0x7f000001", "127.1", "0177.0.0.1", "0x7f.1"] {
            let addresses = resolver.resolve(spelling).await.unwrap();
            assert_eq!(addresses, [IpAddr::from([127, 0, 0, 1])], "{spelling}");
        }
    }
}
