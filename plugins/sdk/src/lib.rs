//! Write a Branchline plugin: a function from an event to a verdict, and one macro.
//!
//! ```
//! use branchline_plugin::{Error, Event, Verdict};
//! use serde::Deserialize;
//!
//! #[derive(Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct Config {
//!     at_least: u64,
//! }
//!
//! #[derive(Deserialize)]
//! struct Order {
//!     amount: u64,
//! }
//!
//! fn handle(event: Event<Order>, config: Config) -> Result<Verdict, Error> {
//!     if event.payload.amount < config.at_least {
//!         return Ok(Verdict::drop("below the amount that matters"));
//!     }
//!     Ok(Verdict::Pass)
//! }
//!
//! branchline_plugin::plugin!(handle);
//! # fn main() {}
//! ```
//!
//! A plugin has no network, files, clock or chance but what [`host`] gives, which is derived from the
//! event, so the same event always gets the same verdict. A fresh instance serves every call: nothing
//! is remembered from one event to the next.
//!
//! For native tests everything compiles for the host too, with stand-ins for the router's functions;
//! see [`testing`].

pub mod address; // What counts as an email address.
pub mod by_type; // Settings by event type or pattern.
pub mod check; // Checks of a config's values.
pub mod entry; // What the macro calls: parse, run the plugin, answer.
pub mod form; // Bodies as HTML forms send them.
pub mod host; // What the router offers: log, the event's time, chance that repeats.
pub mod mail; // What mail plugins share: whom, and about what.
pub mod phrases; // A sentence about each of the example config's events.
pub mod template; // `{payload.amount}` in a text of the config.
pub mod text; // Cutting and cleaning text for services with limits.
pub mod value; // How JSON values are shown to people.

#[cfg(not(target_arch = "wasm32"))]
pub mod testing; // Fixtures, run natively.

#[cfg(any(test, all(target_arch = "wasm32", feature = "arena")))]
mod arena; // The allocator of a component.
mod error; // Why a call failed, and whether to try again.
mod event; // What happened.
mod verdict; // What becomes of it.

// Generated, so its style is the generator's; it is `unsafe` because it is the boundary itself.
#[cfg(target_arch = "wasm32")]
#[allow(unsafe_code, missing_docs, clippy::all)]
#[doc(hidden)]
#[rustfmt::skip]
pub mod bindings;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod component; // Between the generated types and ours.

pub use error::Error;
pub use event::{Event, RawEvent};
pub use verdict::{Body, Header, Request, Verdict};

pub use serde_json;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Makes a component of a function `fn(Event<Payload>, Config) -> Result<Verdict, Error>`.
///
/// `plugin!(handle)` refuses a config that does not deserialise; `plugin!(handle, check)` also one
/// for which `fn check(&Config) -> Result<(), String>` gives an error, whose text people will read.
#[macro_export]
macro_rules! plugin {
    ($handle:path) => {
        $crate::plugin!($handle, $crate::entry::accept_any_config);
    };
    ($handle:path, $check:path) => {
        const _: () = $crate::entry::have_the_right_types($handle, $check);

        // Only in the component: a native build, for tests, has nothing to export to.
        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code)] // The exported symbols; the generated code under them is the SDK's.
        mod branchline_plugin_component {
            use super::*;

            struct Component;

            impl $crate::bindings::Guest for Component {
                fn handle(
                    event: $crate::bindings::Event,
                ) -> Result<$crate::bindings::Verdict, $crate::bindings::Error> {
                    $crate::component::handle($handle, event)
                }

                fn validate_config(config: String) -> Result<(), String> {
                    $crate::component::validate_config($handle, $check, &config)
                }
            }

            $crate::bindings::export!(Component with_types_in $crate::bindings);
        }
    };
}
