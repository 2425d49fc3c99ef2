//! The pools of connections, by where they lead and what of TLS they are made with. A reload gives those up that no endpoint
//! uses any more.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::uri::{Authority, Scheme};
use ipnet::IpNet;
use rustls::RootCertStore;

use super::connect::Connector;
use super::pool::Pool;
use super::resolve::Resolve;
use crate::endpoint::Endpoint;
use crate::http2;
use crate::tls::{self, EndpointTls, Fingerprint};

pub(super) struct Ways {
    /// The operator names the keys, so the hash need not withstand anybody.
    pools: RwLock<HashMap<Way<'static>, Arc<Pool>, foldhash::fast::RandomState>>,
    connector: Connector,
    roots: RootCertStore,
    connection_age_max: Duration,
}

/// Where connections lead, and what of TLS they are made with. Endpoints of one way share its connections.
#[derive(PartialEq, Eq)]
struct Way<'e> {
    scheme: Option<Cow<'e, Scheme>>,
    authority: Option<Cow<'e, Authority>>,
    tls: Option<Fingerprint>,
}

impl<'e> Way<'e> {
    fn to(endpoint: &'e Endpoint) -> Self {
        let uri = endpoint.url.uri();
        Self {
            scheme: uri.scheme().map(Cow::Borrowed),
            authority: uri.authority().map(Cow::Borrowed),
            tls: endpoint.tls.as_ref().map(|tls| tls.fingerprint()),
        }
    }

    fn into_owned(self) -> Way<'static> {
        Way {
            scheme: self.scheme.map(|scheme| Cow::Owned(scheme.into_owned())),
            authority: self.authority.map(|authority| Cow::Owned(authority.into_owned())),
            tls: self.tls,
        }
    }
}

impl Hash for Way<'_> {
    /// Reads the authority eight bytes at a time, where its own hash reads one. Letters that differ in case alone differ in one
    /// bit, which is set here, since such authorities are equal. The scheme is left out: few ways differ in nothing else.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let authority = self.authority.as_ref().map_or("", |authority| authority.as_str()).as_bytes();
        let (words, rest) = authority.as_chunks::<8>();
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        for word in words.iter().chain([&last]) {
            state.write_u64(u64::from_ne_bytes(*word) | u64::from_ne_bytes([0x20; 8]));
        }
        self.tls.hash(state);
    }
}

impl Ways {
    /// `roots` are the authorities that are trusted anyway.
    pub(super) fn new(
        allowed: Arc<[IpNet]>,
        resolver: Arc<dyn Resolve>,
        answer_bytes_max: usize,
        roots: RootCertStore,
        connection_age_max: Duration,
    ) -> Result<Self, tls::Error> {
        let usual = EndpointTls::read(None, None, false)?;
        let connector = Connector { allowed, resolver, tls: config(&usual, &roots)?, answer_bytes_max };
        Ok(Self { pools: RwLock::default(), connector, roots, connection_age_max })
    }

    /// The connections to an endpoint.
    pub(super) fn pool(&self, endpoint: &Endpoint) -> Result<Arc<Pool>, tls::Error> {
        let way = Way::to(endpoint);
        if let Some(pool) = self.pools.read().unwrap_or_else(PoisonError::into_inner).get(&way) {
            return Ok(Arc::clone(pool));
        }
        let fresh = Arc::new(Pool::new(self.connector(endpoint)?, self.connection_age_max));
        let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(pools.entry(way.into_owned()).or_insert(fresh)))
    }

    /// Gives up the idle connections of all other endpoints; those with a request under way end with it.
    pub(super) fn keep_only<'e>(&self, endpoints: impl Iterator<Item = &'e Endpoint>) {
        let ways: HashSet<Way<'_>> = endpoints.map(Way::to).collect();
        let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        pools.retain(|way, pool| {
            let stays = ways.contains(way);
            if !stays {
                pool.give_up();
            }
            stays
        });
    }

    /// What connects to an endpoint.
    pub(super) fn connector(&self, endpoint: &Endpoint) -> Result<Connector, tls::Error> {
        let connector = self.connector.clone();
        Ok(match &endpoint.tls {
            Some(tls) => Connector { tls: config(tls, &self.roots)?, ..connector },
            None => connector,
        })
    }
}

fn config(tls: &EndpointTls, roots: &RootCertStore) -> Result<Arc<rustls::ClientConfig>, tls::Error> {
    let mut config = tls.client_config(roots)?;
    config.alpn_protocols = vec![http2::ALPN.to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::send::resolve::SystemResolver;
    use crate::send::tests::endpoint;

    fn ways() -> Ways {
        let resolver = Arc::new(SystemResolver::default());
        Ways::new([].into(), resolver, 0, RootCertStore::empty(), Duration::ZERO).unwrap()
    }

    #[test]
    fn endpoints_share_connections_that_lead_to_the_same_place_with_the_same_tls() {
        let ways = ways();
        let to = |url: &str, is_insecure: bool| {
            let tls = is_insecure.then(|| Arc::new(EndpointTls::read(None, None, true).unwrap()));
            ways.pool(&Endpoint { tls, ..endpoint(url) }).unwrap()
        };
        let first = to("https://hooks.example.com/a?b", false);
        for (url, is_insecure, shares) in [
            ("https://hooks.example.com/c", false, true),
            ("https://HOOKS.example.com", false, true),
            ("http://hooks.example.com/a?b", false, false),
            ("https://hooks.example.com:8443/a?b", false, false),
            ("https://other.example.com/a?b", false, false),
            ("https://hooks.example.com/a?b", true, false),
        ] {
            assert_eq!(Arc::ptr_eq(&first, &to(url, is_insecure)), shares, "{url}");
            assert!(Arc::ptr_eq(&to(url, is_insecure), &to(url, is_insecure)), "{url}");
        }
    }

    #[test]
    fn pools_that_no_endpoint_uses_any_more_are_given_up() {
        let ways = ways();
        let [stays, goes] = ["http://stays.example/a", "http://goes.example/"].map(endpoint);
        let [kept, gone] = [&stays, &goes].map(|endpoint| ways.pool(endpoint).unwrap());
        ways.keep_only([&endpoint("http://stays.example/b")].into_iter());
        assert!(Arc::ptr_eq(&kept, &ways.pool(&stays).unwrap()));
        assert!(!Arc::ptr_eq(&gone, &ways.pool(&goes).unwrap()));
    }
}
