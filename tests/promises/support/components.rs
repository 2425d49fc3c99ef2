//! Plugins written as WebAssembly text: the body of `handle`, and around it what every component needs. No guest
//! compiler takes part.

use std::sync::OnceLock;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// Where the result of `handle` stands in the guest's memory.
pub const RESULT: usize = 1024;
/// Where texts of a fixture stand.
const TEXTS: usize = 2048;
/// Where the guest's allocations begin.
const HEAP: usize = 1 << 16;

/// A plugin in the making.
#[derive(Clone)]
pub struct Guest {
    imports: String,
    globals: String,
    functions: String,
    body: String,
    start: String,
    validate: Option<String>,
    texts: Vec<u8>,
    pages: u32,
    world: &'static str,
}

/// A text in the guest's memory.
#[derive(Clone, Copy)]
pub struct Text {
    pub at: usize,
    pub length: usize,
}

impl Guest {
    /// A plugin whose `handle` runs these instructions and leaves a pointer to its result. Parameters 0 to 13 are the
    /// pointers and lengths of the event's seven texts.
    pub fn new(body: impl Into<String>) -> Self {
        Self {
            imports: String::new(),
            globals: String::new(),
            functions: String::new(),
            body: body.into(),
            start: String::new(),
            validate: None,
            texts: Vec::new(),
            pages: 4,
            world: "plugin",
        }
    }

    /// The verdict `pass`.
    pub fn pass() -> Self {
        Self::new(format!("(i32.const {RESULT})"))
    }

    /// The verdicts `drop` and `dead-letter` with a reason.
    pub fn drop(reason: &str) -> Self {
        Self::pass().with_reason(3, reason)
    }

    pub fn dead_letter(reason: &str) -> Self {
        Self::pass().with_reason(4, reason)
    }

    fn with_reason(mut self, case: u8, reason: &str) -> Self {
        let reason = self.text(reason);
        self.body = format!("{} {} (i32.const {RESULT})", store8(RESULT + 4, case), store_text(RESULT + 8, reason));
        self
    }

    /// `err(error)`.
    pub fn error(code: &str, message: &str, retryable: bool) -> Self {
        let mut guest = Self::pass();
        let (code, message) = (guest.text(code), guest.text(message));
        guest.body = format!(
            "{} {} {} {} (i32.const {RESULT})",
            store8(RESULT, 1),
            store_text(RESULT + 4, code),
            store_text(RESULT + 12, message),
            store8(RESULT + 20, u8::from(retryable)),
        );
        guest
    }

    /// `replace` with the event as it came, but for some fields (0 `id` … 5 `payload`, 6 `metadata`).
    pub fn replace(changes: &[(usize, &str)]) -> Self {
        let mut guest = Self::pass();
        let mut body = store8(RESULT + 4, 1);
        for field in 0..7 {
            let at = RESULT + 8 + field * 8;
            match changes.iter().find(|(changed, _)| *changed == field) {
                Some((_, text)) => {
                    let text = guest.text(text);
                    body += &store_text(at, text);
                }
                None => {
                    body += &format!(
                        "(i32.store (i32.const {at}) (local.get {})) (i32.store (i32.const {}) (local.get {}))",
                        field * 2,
                        at + 4,
                        field * 2 + 1
                    );
                }
            }
        }
        guest.body = format!("{body} (i32.const {RESULT})");
        guest
    }

    /// `send` of a text.
    pub fn send(headers: &[(&str, &str)], content_type: &str, body: &str) -> Self {
        let mut guest = Self::pass();
        let list: Vec<u8> = headers
            .iter()
            .flat_map(|(name, value)| [guest.text(name), guest.text(value)])
            .flat_map(|text| [text.at as u32, text.length as u32])
            .flat_map(u32::to_le_bytes)
            .collect();
        guest.texts.resize(guest.texts.len().next_multiple_of(4), 0);
        let at = TEXTS + guest.texts.len();
        guest.texts.extend(list);
        let (content_type, body) = (guest.text(content_type), guest.text(body));
        guest.body = format!(
            "{} {} {} {} {} (i32.const {RESULT})",
            store8(RESULT + 4, 2),
            store_text(RESULT + 8, Text { at, length: headers.len() }),
            store_text(RESULT + 16, content_type),
            store8(RESULT + 24, 0),
            store_text(RESULT + 28, body),
        );
        guest
    }

    /// `send` with the host's random bytes, time and config as the body, in that order: what a run can depend on.
    pub fn echo_host() -> Self {
        let mut guest = Self::pass().importing(
            r#"(import "branchline:plugin/host@0.1.0" "config" (func $config (param i32)))
               (import "branchline:plugin/host@0.1.0" "now-ms" (func $now (result i64)))
               (import "branchline:plugin/host@0.1.0" "random" (func $random (param i32 i32)))"#,
        );
        let content_type = guest.text("application/octet-stream");
        // The bytes are put together at 40,000: 32 random, 32 random again, 8 of the time, the config.
        guest.body = format!(
            "(call $random (i32.const 32) (i32.const 512))
             (memory.copy (i32.const 40000) (i32.load (i32.const 512)) (i32.const 32))
             (call $random (i32.const 32) (i32.const 512))
             (memory.copy (i32.const 40032) (i32.load (i32.const 512)) (i32.const 32))
             (i64.store (i32.const 40064) (call $now))
             (call $config (i32.const 520))
             (memory.copy (i32.const 40072) (i32.load (i32.const 520)) (i32.load (i32.const 524)))
             {} {} {}
             (i32.store (i32.const {}) (i32.const 40000))
             (i32.store (i32.const {}) (i32.add (i32.const 72) (i32.load (i32.const 524))))
             (i32.const {RESULT})",
            store8(RESULT + 4, 2),
            store_text(RESULT + 16, content_type),
            store8(RESULT + 24, 1),
            RESULT + 28,
            RESULT + 32,
        );
        guest
    }

    /// A plugin that logs `message` so many times, and passes.
    pub fn logs(message: &str, times: u32) -> Self {
        let mut guest =
            Self::pass().importing(r#"(import "branchline:plugin/host@0.1.0" "log" (func $log (param i32 i32 i32)))"#);
        let text = guest.text(message);
        guest.globals = "(global $n (mut i32) (i32.const 0))".to_owned();
        guest.body = format!(
            "(loop $again
               (call $log (i32.const 1) (i32.const {}) (i32.const {}))
               (global.set $n (i32.add (global.get $n) (i32.const 1)))
               (br_if $again (i32.lt_u (global.get $n) (i32.const {times}))))
             (i32.const {RESULT})",
            text.at, text.length
        );
        guest
    }

    /// `pass` after `rounds` turns of a loop.
    pub fn works(rounds: u32) -> Self {
        let mut guest = Self::pass();
        guest.globals = "(global $n (mut i32) (i32.const 0))".to_owned();
        guest.body = format!(
            "(loop $again
               (global.set $n (i32.add (global.get $n) (i32.const 1)))
               (br_if $again (i32.lt_u (global.get $n) (i32.const {rounds}))))
             (i32.const {RESULT})"
        );
        guest
    }

    /// Runs for ever.
    pub fn spins() -> Self {
        Self::new("(loop $again (br $again)) (unreachable)")
    }

    /// Spins when the payload's first byte is `1`, passes otherwise.
    pub fn spins_on_demand() -> Self {
        Self::new(format!(
            "(if (i32.eq (i32.load8_u (local.get 10)) (i32.const 0x31)) (then (loop $again (br $again))))
             (i32.const {RESULT})"
        ))
    }

    /// The instructions of `handle`.
    pub fn instructions(&self) -> &str {
        &self.body
    }

    /// Other instructions for `handle`.
    pub fn with_body(mut self, body: impl Into<String>) -> Self {
        self.body = body.into();
        self
    }

    pub fn importing(mut self, imports: &str) -> Self {
        self.imports += imports;
        self
    }

    pub fn with_function(mut self, function: &str) -> Self {
        self.functions += function;
        self
    }

    /// Instructions that run when an instance is made.
    pub fn starting_with(mut self, start: &str) -> Self {
        self.start = format!("(func $start {start}) (start $start)");
        self
    }

    /// Memory before it has run, in pages of 64 KiB.
    pub fn with_pages(mut self, pages: u32) -> Self {
        self.pages = pages;
        self
    }

    /// Exports `validate-config` too; the instructions leave a pointer to its result.
    pub fn validating(mut self, body: impl Into<String>) -> Self {
        self.world = "plugin-with-config";
        self.validate = Some(body.into());
        self
    }

    /// `validate-config` that refuses a config whose length is not that of `{}`, with this text.
    pub fn refusing_configs(mut self, why: &str) -> Self {
        let why = self.text(why);
        let body = format!(
            "(if (i32.ne (local.get 1) (i32.const 2)) (then {} {})) (i32.const {RESULT})",
            store8(RESULT, 1),
            store_text(RESULT + 4, why)
        );
        self.validating(body)
    }

    /// Puts a text into the guest's memory.
    pub fn text(&mut self, text: &str) -> Text {
        let at = TEXTS + self.texts.len();
        self.texts.extend_from_slice(text.as_bytes());
        assert!(TEXTS + self.texts.len() <= 40_000, "the fixture's texts are too long");
        Text { at, length: text.len() }
    }

    /// The component.
    pub fn build(&self) -> Vec<u8> {
        component_of(&self.module(), self.world)
    }

    /// The core module, with the contract's types as a custom section.
    pub fn module(&self) -> String {
        let data: String = self.texts.iter().map(|byte| format!("\\{byte:02x}")).collect();
        let validate = self.validate.as_ref().map_or(String::new(), |body| {
            format!(r#"(func (export "validate-config") (param i32 i32) (result i32) {body})"#)
        });
        format!(
            r#"(module
                 {imports}
                 (memory (export "memory") {pages})
                 (global $heap (mut i32) (i32.const {HEAP}))
                 {globals}
                 (data (i32.const {TEXTS}) "{data}")
                 {functions}
                 {start}
                 (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
                   (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
                   (global.set $heap (i32.add (local.get $at) (local.get 3)))
                   (block $fits
                     (br_if $fits (i32.le_u (global.get $heap) (i32.mul (memory.size) (i32.const 65536))))
                     (drop (memory.grow (i32.add (i32.const 1) (i32.div_u (local.get 3) (i32.const 65536))))))
                   (local.get $at))
                 (func (export "handle") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
                   {body})
                 {validate})"#,
            imports = self.imports,
            pages = self.pages,
            globals = self.globals,
            functions = self.functions,
            start = self.start,
            body = self.body,
        )
    }
}

/// A component of the contract's world from a core module's text.
pub fn component_of(module: &str, world: &str) -> Vec<u8> {
    component_of_world(module, contract(), world)
}

/// A component of another contract, as WIT text.
pub fn component_of_wit(module: &str, wit: &str, world: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    resolve.push_str("other.wit", wit).unwrap();
    component_of_world(module, &resolve, world)
}

fn component_of_world(module: &str, resolve: &Resolve, world: &str) -> Vec<u8> {
    let mut module = wat::parse_str(module).unwrap_or_else(|error| panic!("{error}\n{module}"));
    let packages: Vec<_> = resolve.packages.iter().map(|(id, _)| id).collect();
    let world = resolve.select_world(&packages[packages.len() - 1..], Some(world)).unwrap();
    embed_component_metadata(&mut module, resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
}

fn contract() -> &'static Resolve {
    static CONTRACT: OnceLock<Resolve> = OnceLock::new();
    CONTRACT.get_or_init(|| {
        let mut resolve = Resolve::default();
        resolve.push_path(concat!(env!("CARGO_MANIFEST_DIR"), "/wit/v0.1.0")).unwrap();
        resolve
    })
}

fn store8(at: usize, value: u8) -> String {
    format!("(i32.store8 (i32.const {at}) (i32.const {value}))")
}

fn store_text(at: usize, text: Text) -> String {
    format!(
        "(i32.store (i32.const {at}) (i32.const {})) (i32.store (i32.const {}) (i32.const {}))",
        text.at,
        at + 4,
        text.length
    )
}
