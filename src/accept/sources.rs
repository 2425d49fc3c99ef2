//! The ways in, by path: read by every request, replaced as a whole.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use crate::config::Source;

/// Sources by path.
pub(super) type ByPath = HashMap<String, Arc<Source>>;

/// The table of sources.
#[derive(Debug)]
pub(super) struct Sources(ArcSwap<ByPath>);

impl Sources {
    /// A table of these.
    pub(super) fn new(sources: &[Arc<Source>]) -> Self {
        Self(ArcSwap::from_pointee(by_path(sources)))
    }

    /// Replaces all of them; requests under way keep theirs.
    pub(super) fn replace(&self, sources: &[Arc<Source>]) {
        self.0.store(Arc::new(by_path(sources)));
    }

    /// The table as it is now.
    pub(super) fn now(&self) -> Guard<Arc<ByPath>> {
        self.0.load()
    }
}

fn by_path(sources: &[Arc<Source>]) -> ByPath {
    sources.iter().map(|source| (source.path.clone(), Arc::clone(source))).collect()
}
