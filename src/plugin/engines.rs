//! An engine for each thread, and components in all of them.
//!
//! At every call wasmtime counts references of the engine and of the component and takes slots from the engine's pool.
//! Threads with one engine between them write the same words then, and wait for each other's caches: two made 1.5 times the
//! calls of one. So each thread has an engine of its own. A component is compiled once; its machine code is mapped for a further
//! engine when that engine's thread first calls it.

use std::sync::{Arc, OnceLock};

use wasmtime::Engine;
use wasmtime::component::Linker;

use super::Error;
use super::bindings::PluginPre;
use super::cache;
use super::engine::{self, Metering, this_thread};
use super::imports::CallState;
use super::load;

/// Engines at most; with more threads than this some share one. Each reserves address space, a terabyte about.
const ENGINES_MAX: usize = 16;
/// Machine code of a component that is mapped for each engine. Calls of larger ones (interpreters of other languages) take so
/// long that what threads share costs them nothing, and their code is many megabytes.
const CODE_BYTES_MAX: usize = 4 << 20;

/// The engines, the first of which has room for the calls of all threads.
pub(super) struct Engines(Box<[Place]>);

struct Place {
    engine: Engine,
    linker: Linker<CallState>,
}

impl Place {
    fn new(engine: Engine) -> Result<Self, Error> {
        let linker = load::linker(&engine).map_err(Error::Engine)?;
        Ok(Self { engine, linker })
    }
}

impl Engines {
    /// Engines for calls on `threads` threads at a time.
    pub(super) fn new(threads: usize, metering: Metering) -> Result<Arc<Self>, Error> {
        let mut places = vec![Place::new(engine::engine(threads, metering)?)?];
        for _ in 1..threads.min(ENGINES_MAX) {
            match engine::engine(1, metering).and_then(Place::new) {
                Ok(place) => places.push(place),
                Err(error) => {
                    tracing::warn!(engines = places.len(), %error, "threads of the sandbox share engines");
                    break;
                }
            }
        }
        Ok(Arc::new(Self(places.into())))
    }

    /// The engine that components are compiled for and looked at with.
    pub(super) fn first(&self) -> (&Engine, &Linker<CallState>) {
        let Place { engine, linker } = &self.0[0];
        (engine, linker)
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &Engine> {
        self.0.iter().map(|place| &place.engine)
    }
}

/// A component, ready to be instantiated by any thread.
pub(super) struct Instances {
    engines: Arc<Engines>,
    first: PluginPre<CallState>,
    /// For the further engines; none where the component could not be mapped once more.
    further: Box<[OnceLock<Option<PluginPre<CallState>>>]>,
}

impl Instances {
    /// Of a component of the first engine.
    pub(super) fn new(engines: &Arc<Engines>, first: PluginPre<CallState>) -> Self {
        let code = first.instance_pre().component().image_range();
        let is_small = code.end as usize - code.start as usize <= CODE_BYTES_MAX;
        let further = if is_small { engines.0.len() - 1 } else { 0 };
        let further = std::iter::repeat_with(OnceLock::new).take(further).collect();
        Self { engines: Arc::clone(engines), first, further }
    }

    /// In the first engine.
    pub(super) fn first(&self) -> &PluginPre<CallState> {
        &self.first
    }

    /// In this thread's engine.
    pub(super) fn here(&self) -> &PluginPre<CallState> {
        let further = match this_thread() % (self.further.len() + 1) {
            0 => None,
            number => self.further[number - 1].get_or_init(|| self.mapped(&self.engines.0[number])).as_ref(),
        };
        further.unwrap_or(&self.first)
    }

    /// The component for another engine. The first one does where this fails.
    fn mapped(&self, place: &Place) -> Option<PluginPre<CallState>> {
        let map = || {
            let component = cache::copy(self.first.instance_pre().component(), &place.engine)?;
            component.initialize_copy_on_write_image()?;
            PluginPre::new(place.linker.instantiate_pre(&component)?)
        };
        map().inspect_err(|error| tracing::warn!("a thread of the sandbox shares an engine: {error:#}")).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::super::compiler::Compiler;
    use super::super::engine::number_this_thread;
    use super::*;

    #[test]
    fn threads_call_a_component_each_in_an_engine_of_its_own() {
        let engines = Engines::new(2, Metering::Off).unwrap();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/plugins/sample.wasm");
        let binary = load::read(path.as_ref(), None).unwrap();
        let cache = cache::Cache::open(None);
        let loaded = load::component(&engines, &cache, &Compiler::InProcess, &binary).unwrap();
        let engine_of = |thread| {
            number_this_thread(thread);
            loaded.instances.here().engine().clone()
        };
        assert!(!Engine::same(&engine_of(0), &engine_of(1)));
        assert!(Engine::same(&engine_of(1), &engine_of(1)), "it is mapped once");
        assert!(Engine::same(&engine_of(2), loaded.instances.first().engine()), "there are two");
        assert_eq!(cache.counts().compiled, 1);
    }

    #[test]
    fn one_thread_has_one_engine() {
        assert_eq!(Engines::new(1, Metering::Off).unwrap().all().count(), 1);
    }
}
