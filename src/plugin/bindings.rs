//! The contract of `wit/v0.1.0`, as Rust types. Texts of an event are lent to the guest, so that a payload is copied
//! once: into the guest's memory.

wasmtime::component::bindgen!({
    path: "wit/v0.1.0",
    world: "plugin",
    ownership: Borrowing { duplicate_if_necessary: true },
});
