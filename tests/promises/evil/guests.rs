//! The evil plugins that load, as WebAssembly text, and how their calls must end.

use crate::support::components::{Guest, RESULT, component_of};

/// How every call of a plugin ends.
pub enum End {
    /// With this fault, whose text contains this.
    Fault(&'static str, &'static str),
    /// With a delivery; its body has this length.
    Sent(Option<usize>),
}

/// An evil plugin.
pub struct Case {
    pub name: &'static str,
    pub component: Vec<u8>,
    pub end: End,
}

const LOOP: &str = "(loop $again (br $again))";
const LOG: &str = r#"(import "branchline:plugin/host@0.1.0" "log" (func $log (param i32 i32 i32)))"#;
const CONFIG: &str = r#"(import "branchline:plugin/host@0.1.0" "config" (func $config (param i32)))"#;

/// A plugin whose allocator does this first.
fn allocating(guest: &Guest, instructions: &str) -> Vec<u8> {
    let module = guest.module();
    let allocator = "(local $at i32)\n";
    assert!(module.contains(allocator), "the fixture's allocator has another beginning");
    component_of(&module.replacen(allocator, &format!("{allocator}{instructions}\n"), 1), "plugin")
}

/// `drop` with a reason that stands there.
fn reason_at(pointer: i64, length: i64) -> String {
    format!(
        "(i32.store8 (i32.const {}) (i32.const 3)) (i32.store (i32.const {}) (i32.const {pointer}))
         (i32.store (i32.const {}) (i32.const {length})) (i32.const {RESULT})",
        RESULT + 4,
        RESULT + 8,
        RESULT + 12
    )
}

/// Asks for 4 GiB of chance, and sends what it gets.
fn greedy_for_chance() -> Guest {
    let mut guest =
        Guest::pass().importing(r#"(import "branchline:plugin/host@0.1.0" "random" (func $random (param i32 i32)))"#);
    let content_type = guest.text("application/octet-stream");
    let store = |at: usize, value: String| format!("(i32.store (i32.const {at}) {value})");
    let body = [
        "(call $random (i32.const -1) (i32.const 512))".to_owned(),
        format!("(i32.store8 (i32.const {}) (i32.const 2))", RESULT + 4),
        store(RESULT + 16, format!("(i32.const {})", content_type.at)),
        store(RESULT + 20, format!("(i32.const {})", content_type.length)),
        format!("(i32.store8 (i32.const {}) (i32.const 1))", RESULT + 24),
        store(RESULT + 28, "(i32.load (i32.const 512))".to_owned()),
        store(RESULT + 32, "(i32.load (i32.const 516))".to_owned()),
        format!("(i32.const {RESULT})"),
    ];
    guest.with_body(body.concat())
}

/// All of them.
pub fn that_load() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut add = |name, component, end| cases.push(Case { name, component, end });
    let fault = |kind, part| End::Fault(kind, part);
    let deadline = || End::Fault("deadline", "50 ms");

    add("endless loop in handle", Guest::spins().build(), deadline());
    add("endless loop in start", Guest::pass().starting_with(LOOP).build(), deadline());
    add("endless loop in allocation", allocating(&Guest::pass(), LOOP), deadline());
    let log_for_ever =
        Guest::new("(loop $again (call $log (i32.const 1) (i32.const 0) (i32.const 9)) (br $again)) (unreachable)");
    add("log lines for ever", log_for_ever.importing(LOG).build(), deadline());
    let ask_for_ever = Guest::new("(loop $again (call $config (i32.const 512)) (br $again)) (unreachable)");
    add("asks the host for ever", ask_for_ever.importing(CONFIG).build(), deadline());
    let table =
        Guest::new("(loop $again (drop (table.grow $t (ref.null func) (i32.const 64))) (br $again)) (unreachable)")
            .with_function("(table $t 1 funcref)");
    add("table bomb", table.build(), deadline());

    let grow = Guest::new("(loop $again (drop (memory.grow (i32.const 16))) (br $again)) (unreachable)");
    add("memory bomb, step by step", grow.build(), fault("memory", "16777216"));
    add(
        "memory bomb, at once",
        Guest::new("(drop (memory.grow (i32.const 60000))) (unreachable)").build(),
        fault("memory", "16777216"),
    );
    let in_allocation = allocating(&Guest::pass(), "(drop (memory.grow (i32.const 1000)))");
    add("memory bomb in allocation", in_allocation, fault("memory", "16777216"));
    let touch = Guest::new(format!(
        "(drop (memory.grow (i32.const 250))) (memory.fill (i32.const 262144) (i32.const 1) (i32.const 16000000)) (i32.const {RESULT})"
    ));
    add("touches all the memory that it may", touch.build(), End::Sent(None));

    let recursion = Guest::new("(call $down (i32.const 0))").with_function(
        "(func $down (param i32) (result i32) (i32.add (i32.const 1) (call $down (i32.add (local.get 0) (i32.const 1)))))",
    );
    add("deep recursion", recursion.build(), fault("stack", "out of stack"));
    let mutual = Guest::pass().importing(LOG);
    let mutual = allocating(&mutual, "(call $log (i32.const 1) (i32.const 0) (i32.const 9))");
    add("calls the host from its allocator", mutual, fault("trap", "leave component instance"));

    let megabytes = Guest::new(reason_at(0, 3 << 20)).with_pages(64);
    add("output of 3 MiB", megabytes.build(), fault("bad-output", "1048576"));
    add("output of 4 GiB", Guest::new(reason_at(0, -1)).build(), fault("bad-output", "can't be read"));
    add("output outside of its memory", Guest::new(reason_at(-16, 8)).build(), fault("bad-output", "can't be read"));
    add(
        "a verdict that is none",
        Guest::new(format!("(i32.store8 (i32.const {RESULT}) (i32.const 9)) (i32.const {RESULT})")).build(),
        fault("bad-output", "can't be read"),
    );
    add(
        "allocates outside of its memory",
        allocating(&Guest::pass(), "(return (i32.const -64))"),
        fault("bad-output", "can't be read"),
    );
    let not_utf8 = Guest::new(format!("(i32.store8 (i32.const 512) (i32.const 255)) {}", reason_at(512, 1)));
    add("invalid UTF-8 in its output", not_utf8.build(), fault("bad-output", "can't be read"));
    let log_not_utf8 = Guest::new(
        "(i32.store8 (i32.const 512) (i32.const 255)) (call $log (i32.const 1) (i32.const 512) (i32.const 1)) (unreachable)",
    );
    add("invalid UTF-8 in its log", log_not_utf8.importing(LOG).build(), fault("bad-output", "can't be read"));
    let log_megabytes =
        Guest::new("(call $log (i32.const 1) (i32.const 0) (i32.const 3145728)) (unreachable)").with_pages(64);
    add("a log line of 3 MiB", log_megabytes.importing(LOG).build(), fault("bad-output", "1048576"));
    let spam = Guest::logs("\u{1b}[31mbuy\u{7}", 5_000);
    add("5,000 log lines of control characters", spam.build(), End::Sent(None));

    for (name, body, part) in [
        ("trap: unreachable", "(unreachable)", "unreachable"),
        ("trap: division by zero", "(i32.div_u (i32.const 1) (i32.const 0))", "divide by zero"),
        ("trap: memory out of bounds", "(i32.load (i32.const -8))", "out of bounds"),
        ("trap: float to integer", "(i32.trunc_f32_s (f32.const nan))", "conversion to integer"),
    ] {
        add(name, Guest::new(body).build(), fault("trap", part));
    }
    let indirect = Guest::new("(call_indirect $t (result i32) (i32.const 0))").with_function("(table $t 1 funcref)");
    add("trap: call of nothing", indirect.build(), fault("trap", "uninitialized element"));

    for (name, changes, part) in [
        ("payload that is not JSON", (5, "{\"a\": }"), "`payload` that is not JSON"),
        ("metadata that is no object", (6, "[]"), "`metadata` that is not a JSON object"),
        ("changed id", (0, "evt_other"), "changed the event's `id`"),
        ("event type with a line break", (1, "a\nb"), "`event-type`"),
    ] {
        add(name, Guest::replace(&[changes]).build(), fault("bad-output", part));
    }
    for (name, header, content_type, part) in [
        ("forbidden header", ("Webhook-Signature", "v1,forged"), "text/plain", "may not set"),
        ("header with a line break", ("x-a", "1\r\nx-b: 2"), "text/plain", "not valid in HTTP"),
        ("content type that is none", ("x-a", "1"), "text\r\nx-b: 2", "no media type"),
    ] {
        add(name, Guest::send(&[header], content_type, "{}").build(), fault("bad-output", part));
    }
    add(
        "error full of control characters",
        Guest::error("\u{1b}[2J", "gone\u{7}", true).build(),
        fault("error", "u{1b}"),
    );
    add("random of 4 GiB", greedy_for_chance().build(), End::Sent(Some(4096)));
    cases
}
