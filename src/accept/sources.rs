//! The ways in, by path: read by every request, replaced as a whole.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use bytestring::ByteString;

use crate::config::Source;
use crate::rate::RateLimit;

/// Sources by path.
pub(super) type ByPath = HashMap<String, Way>;

/// A source, and what is left of its quota.
#[derive(Clone, Debug)]
pub(super) struct Way {
    pub(super) source: Arc<Source>,
    /// Its name, as events have it.
    pub(super) name: ByteString,
    /// `None` when it may send as much as it likes.
    pub(super) limit: Option<Arc<RateLimit>>,
}

/// The table of sources.
#[derive(Debug)]
pub(super) struct Sources(ArcSwap<ByPath>);

impl Sources {
    /// A table of these.
    pub(super) fn new(sources: &[Arc<Source>]) -> Self {
        Self(ArcSwap::from_pointee(by_path(sources, &ByPath::new())))
    }

    /// Replaces all of them; requests under way keep theirs. A quota that is as it was goes on: a reload gives nobody a fresh burst.
    pub(super) fn replace(&self, sources: &[Arc<Source>]) {
        self.0.store(Arc::new(by_path(sources, &self.0.load())));
    }

    /// The table as it is now.
    pub(super) fn now(&self) -> Guard<Arc<ByPath>> {
        self.0.load()
    }
}

fn by_path(sources: &[Arc<Source>], before: &ByPath) -> ByPath {
    let limit = |source: &Source| {
        let quota = source.quota?;
        let old = before.values().find(|way| way.source.name == source.name && way.source.quota == source.quota);
        let old = old.and_then(|way| way.limit.clone());
        Some(old.unwrap_or_else(|| Arc::new(RateLimit::new(quota.rate, quota.burst))))
    };
    let way =
        |source: &Arc<Source>| Way { source: Arc::clone(source), name: (&*source.name).into(), limit: limit(source) };
    sources.iter().map(|source| (source.path.clone(), way(source))).collect()
}
