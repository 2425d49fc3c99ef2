//! An engine for each thread, one for all of them, and components in several.
//!
//! Threads with one engine between them write the same words at every call and wait for each other's caches, so each has its
//! own, for what there is most of: events of a few kilobytes. The first engine is for the rest: large events, interpreters, checks
//! of new versions. They may touch much memory, and what was touched once in a slot is reset after every later call there.
//! A component is compiled once; its machine code is mapped for a thread's engine when that thread first calls it.

use std::sync::{Arc, OnceLock};

use wasmtime::Engine;
use wasmtime::component::Linker;

use super::Error;
use super::bindings::PluginPre;
use super::cache;
use super::engine::{self, Metering, this_thread};
use super::imports::CallState;
use super::load;
use crate::event::Event;

/// Threads' engines at most; with more threads than this some share one. Each reserves address space, a terabyte about.
const ENGINES_MAX: usize = 16;
/// Machine code of a component that is mapped for each engine. Calls of larger ones (interpreters of other languages) take so
/// long that what threads share costs them nothing, and their code is many megabytes.
const CODE_BYTES_MAX: usize = 4 << 20;
/// An event of which calls are made in threads' engines. A plugin touches some ten times an event's bytes.
const EVENT_BYTES_MAX: usize = 16 << 10;

/// The engines: the first, which has room for calls of all threads, and the threads'.
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
        engine::tell_how_memory_is_reset();
        let mut places = vec![Place::new(engine::engine(threads, metering)?)?];
        for _ in 0..threads.min(ENGINES_MAX) {
            match engine::engine(1, metering).and_then(Place::new) {
                Ok(place) => places.push(place),
                Err(error) => {
                    tracing::warn!(%error, "threads of the sandbox share one engine");
                    places.truncate(1); // It has room for all of them; the others have it for one each.
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
    /// For the threads' engines; none where the component could not be mapped once more.
    mapped: Box<[OnceLock<Option<PluginPre<CallState>>>]>,
}

impl Instances {
    /// Of a component of the first engine.
    pub(super) fn new(engines: &Arc<Engines>, first: PluginPre<CallState>) -> Self {
        let code = first.instance_pre().component().image_range();
        let is_small = code.end as usize - code.start as usize <= CODE_BYTES_MAX;
        let threads = if is_small { engines.0.len() - 1 } else { 0 };
        let mapped = std::iter::repeat_with(OnceLock::new).take(threads).collect();
        Self { engines: Arc::clone(engines), first, mapped }
    }

    /// In the first engine: for what is rare.
    pub(super) fn first(&self) -> &PluginPre<CallState> {
        &self.first
    }

    /// Where this thread calls it with `event`.
    pub(super) fn here(&self, event: &Event) -> &PluginPre<CallState> {
        let number = this_thread().checked_rem(self.mapped.len());
        let is_small = event.payload.len() + event.metadata.len() <= EVENT_BYTES_MAX;
        let Some(number) = number.filter(|_| is_small) else { return &self.first };
        self.mapped[number].get_or_init(|| self.map(&self.engines.0[number + 1])).as_ref().unwrap_or(&self.first)
    }

    /// The component for another engine. The first one does where this fails.
    fn map(&self, place: &Place) -> Option<PluginPre<CallState>> {
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
    use crate::event;

    #[test]
    fn threads_call_a_component_each_in_an_engine_of_its_own() {
        let engines = Engines::new(2, Metering::Off).unwrap();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/plugins/sample.wasm");
        let binary = load::read(path.as_ref(), None).unwrap();
        let cache = cache::Cache::open(None);
        let loaded = load::component(&engines, &cache, &Compiler::InProcess, &binary).unwrap();
        let small = event::sample("evt_1", "order.created", "{}");
        let engine_of = |thread| {
            number_this_thread(thread);
            loaded.instances.here(&small).engine().clone()
        };
        assert!(!Engine::same(&engine_of(0), &engine_of(1)));
        assert!(Engine::same(&engine_of(1), &engine_of(1)), "it is mapped once");
        assert!(Engine::same(&engine_of(2), &engine_of(0)), "there are two");
        let first = loaded.instances.first().engine();
        assert!(!Engine::same(first, &engine_of(0)));
        let large = event::sample("evt_2", "order.created", &format!("\"{}\"", "x".repeat(EVENT_BYTES_MAX)));
        assert!(Engine::same(first, loaded.instances.here(&large).engine()), "what is large leaves theirs alone");
        assert_eq!(cache.counts().compiled, 1);
    }
}
