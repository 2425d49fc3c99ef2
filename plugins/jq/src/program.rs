//! A jq program: compiled from a text, with faults that name their line, and run once over one value.
//! Numbers that the program only passes on keep their digits.

use std::fmt::Display;

use branchline_plugin::serde_json::value::RawValue;
use branchline_plugin::serde_json::{self, Map, Value};
use branchline_plugin::{Error, Event};
use jaq_core::compile::Undefined;
use jaq_core::data::JustLut;
use jaq_core::load::{self, Arena, File, Loader};
use jaq_core::{Compiler, Ctx, Filter, ValT, Vars, unwrap_valr};
use jaq_json::Val;

use crate::{functions, library};

/// A program that can run.
pub struct Program<'text> {
    text: &'text str,
    filter: Filter<JustLut<Val>>,
}

/// Why there is no output.
pub enum Failure {
    /// The program gave `empty`.
    NoOutput,
    /// It failed, or gave more than one output.
    Error(Error),
}

impl<'text> Program<'text> {
    /// Compiles a program; the error is for the operator who wrote it.
    pub fn compile(text: &'text str) -> Result<Self, String> {
        let arena = Arena::default();
        let loader = Loader::new(library::definitions(text));
        let modules = loader.load(&arena, File { code: text, path: () }).map_err(|faults| {
            let fault = faults.into_iter().next().map(|(_, fault)| fault);
            match fault {
                Some(load::Error::Lex(faults)) => {
                    faults.first().map_or_else(String::new, |(expected, rest)| found(text, expected.as_str(), rest))
                }
                Some(load::Error::Parse(faults)) => {
                    faults.first().map_or_else(String::new, |(expected, rest)| found(text, expected.as_str(), rest))
                }
                Some(load::Error::Io(_)) => "the program imports a module; there are none".to_owned(),
                None => "the program does not parse".to_owned(),
            }
        })?;
        let filter = Compiler::default().with_funs(functions::functions()).compile(modules).map_err(|faults| {
            let fault = faults.into_iter().flat_map(|(_, faults)| faults).next();
            fault.map_or_else(String::new, |(name, kind)| undefined(text, name, &kind))
        })?;
        Ok(Self { text, filter })
    }

    /// The one output of the program.
    pub fn run(&self, input: Val) -> Result<Output, Failure> {
        let context = Ctx::<JustLut<Val>>::new(&self.filter.lut, Vars::new([]));
        let mut outputs = self.filter.id.run((context, input)).map(unwrap_valr);
        let output = match outputs.next() {
            None => return Err(Failure::NoOutput),
            Some(Err(fault)) => return Err(Failure::Error(self.failed(fault))),
            Some(Ok(output)) => output,
        };
        match outputs.next() {
            None => Ok(Output(output)),
            Some(Err(fault)) => Err(Failure::Error(self.failed(fault))),
            Some(Ok(_)) => Err(Failure::Error(Error::permanent(
                "several-outputs",
                "the jq program gave more than one output; `[…]` makes a list of them, `first(…)` takes one",
            ))),
        }
    }

    /// A message of jq's quotes values of the event, and so may one of the program's own: only what
    /// stands in the program itself may be told.
    fn failed(&self, fault: jaq_json::Error) -> Error {
        let message = match fault.into_val() {
            Val::TStr(text) => String::from_utf8_lossy(&text).into_owned(),
            _ => String::new(),
        };
        let literal = serde_json::to_string(&message).unwrap_or_default();
        if !message.is_empty() && self.text.contains(&literal) {
            return Error::permanent("jq-error", message);
        }
        Error::permanent("jq-failed", "the jq program failed on this event; what it said may quote the event")
    }
}

/// What a program gave.
pub struct Output(Val);

impl Output {
    /// As JSON, which not every value of jq's is: a byte string, or a number that is none.
    pub fn json(&self) -> Result<Box<RawValue>, Error> {
        RawValue::from_string(self.0.to_string()).map_err(|_| {
            Error::permanent("not-json", "the jq program gave a value that JSON cannot say, such as `nan`")
        })
    }

    /// The text, where it is one.
    pub fn text(&self) -> Option<String> {
        match &self.0 {
            Val::TStr(text) => Some(String::from_utf8_lossy(text).into_owned()),
            _ => None,
        }
    }
}

/// The event as its consumers see it.
pub fn envelope(event: &Event) -> Val {
    let text = |text: &str| Val::from(text.to_owned());
    let members = [
        ("id", text(&event.id)),
        ("eventType", text(&event.event_type)),
        ("aggregateType", text(&event.aggregate_type)),
        ("aggregateId", text(&event.aggregate_id)),
        ("payload", value(&event.payload)),
        ("occurredAt", text(&event.occurred_at)),
        ("metadata", object(&event.metadata)),
    ];
    Val::obj(members.into_iter().map(|(name, value)| (text(name), value)).collect())
}

/// A value of JSON as one of jq's.
pub fn value(json: &Value) -> Val {
    match json {
        Value::Null => Val::Null,
        Value::Bool(answer) => Val::Bool(*answer),
        // A number always is one: `from_num` takes any digits.
        Value::Number(number) => Val::from_num(number.as_str()).unwrap_or_default(),
        Value::String(text) => Val::from(text.clone()),
        Value::Array(items) => items.iter().map(value).collect(),
        Value::Object(members) => object(members),
    }
}

fn object(members: &Map<String, Value>) -> Val {
    Val::obj(members.iter().map(|(name, member)| (Val::from(name.clone()), value(member))).collect())
}

fn found(text: &str, expected: &str, rest: &str) -> String {
    let rest = rest.trim_end();
    let found: String = rest.chars().take(20).collect();
    match found.is_empty() {
        true => format!("in the program: expected {expected} at its end"),
        false => format!("in the program, {}: expected {expected}, not `{found}`", place(text, rest)),
    }
}

fn undefined(text: &str, name: &str, kind: &Undefined) -> String {
    let place = place(text, name);
    match kind {
        Undefined::Filter(0) => format!("in the program, {place}: there is no function `{name}`"),
        Undefined::Filter(arity) => format!("in the program, {place}: there is no function `{name}` of {arity}"),
        kind => format!("in the program, {place}: there is no {} `{name}`", kind.as_str()),
    }
}

/// Where a part of the text stands in it.
fn place(text: &str, part: &str) -> impl Display {
    let at = (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    let before = text.get(..at).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|character| *character != '\n').count() + 1;
    format!("line {line}, column {column}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The output of a program, or the code of its failure.
    fn run(program: &str, input: &str) -> String {
        let input = serde_json::from_str(input).expect("it is JSON");
        let program = Program::compile(program).unwrap_or_else(|fault| panic!("{program}: {fault}"));
        match program.run(value(&input)).and_then(|output| output.json().map_err(Failure::Error)) {
            Ok(json) => json.get().to_owned(),
            Err(Failure::NoOutput) => "nothing".to_owned(),
            Err(Failure::Error(error)) => error.code,
        }
    }

    #[test]
    fn the_library_does_what_jq_says() {
        let table = [
            (r#"{"a":1.50,"b":[1e400,-0.10,123456789012345678901234567890]}"#, ".", ""),
            ("[1,2,3]", "map(. * 2) | add", "12"),
            ("[3000000000, 1]", "add", "3000000001"),
            ("[3,1,2]", "[sort, min, max, (sort_by(-.) | first), reverse[0]]", "[[1,2,3],1,3,3,2]"),
            (
                r#"{"b":1,"a":{"c":null}}"#,
                "[keys, (paths | join(\"/\")), (.a | has(\"c\"))]",
                r#"[["a","b"],"b","a","a/c",true]"#,
            ),
            (r#"{"a":1,"b":2,"c":3}"#, "del(.a)", r#"{"b":2,"c":3}"#),
            (r#"{"a":[0,1,2,3,4]}"#, "del(.a[0,2], .none.such, .a[9])", r#"{"a":[1,3,4]}"#),
            (r#"[0,1,2,3]"#, "del(.[1:3])", "[0,3]"),
            (r#"{"a":{"x":1,"y":2}}"#, "pick(.a.y)", r#"{"a":{"y":2}}"#),
            (r#"{"a":1}"#, "with_entries(.value += 1)", r#"{"a":2}"#),
            (r#"[{"name":"k","value":false},{"k":1,"v":null}]"#, "from_entries", r#"{"k":false,"1":null}"#),
            (r#"[1,[2,[3]]]"#, "[flatten, flatten(1)]", "[[1,2,3],[1,2,[3]]]"),
            (r#"[{"a":1,"b":1},{"a":1,"b":2},{"a":0,"b":3}]"#, "group_by(.a) | map(length)", "[1,2]"),
            (r#"[2,1,2]"#, "unique, any(. > 1), all(. > 1) | tojson", ""),
            ("null", "[range(3)], [range(1;7;3)] | length", ""),
            ("null", "[limit(3; repeat(1))], [1 | while(. < 5; . * 2)]", ""),
            ("1", "[limit(3; repeat(. * 2))]", "[1,2,4]"),
            ("1", "[until(. > 100; . * 2), first(range(5)), nth(2; range(5)), isempty(empty)]", "[128,0,2,true]"),
            (r#"[1,"a",null,true,[],{}]"#, "map(type)", r#"["number","string","null","boolean","array","object"]"#),
            (r#"["5","-1.50"]"#, "map(tonumber)", "[5,-1.50]"),
            (r#"[[1,2],[3]]"#, "[transpose, [combinations]]", "[[[1,3],[2,null]],[[1,3],[2,3]]]"),
            (r#"[1,[2]]"#, "walk(if type == \"number\" then . + 1 else . end)", "[2,[3]]"),
            (r#"["a",1,null,true]"#, "join(\"-\")", r#""a-1--true""#),
            ("[]", "[join(\"-\"), add, first, last, max]", r#"["",null,null,null,null]"#),
            (
                r#""a,b""#,
                "[split(\",\"), index(\",\"), ltrimstr(\"a\"), ascii_upcase, length]",
                r#"[["a","b"],1,",b","A,B",3]"#,
            ),
            (
                r#""010-1234-5678""#,
                "[test(\"^010\"), gsub(\"-\"; \"\"), [scan(\"[0-9]+\")]]",
                r#"[true,"01012345678",["010","1234","5678"]]"#,
            ),
            (
                r#""서울 강남""#,
                "[sub(\"(?<a>..) \"; \"\\(.a)/\"), capture(\"(?<시>서.)\"), (match(\"강\") | .offset)]",
                r#"["서울/강남",{"시":"서울"},3]"#,
            ),
            (
                r#""aXbx""#,
                "[split(\"x\"; \"i\"), [splits(\"x\")], [match(\"x\"; \"gi\").offset]]",
                r#"[["a","b",""],["aXb",""],[1,3]]"#,
            ),
            (r#""ab""#, "match(\"(a)|(b)\"; null).captures | map(.string)", r#"["a",null]"#),
            (
                r#"1736937000"#,
                "[todate, (todate | fromdate), (\"2025-01-15T10:30:00.5Z\" | fromdate)]",
                r#"["2025-01-15T10:30:00Z",1736937000,1736937000.5]"#,
            ),
            ("null", "now | todate", r#""2025-01-15T10:30:00Z""#),
            (
                r#""<가&>""#,
                "[@html, @uri, (@uri | @urid), @base64, (@base64 | @base64d), @json]",
                r#"["&lt;가&amp;&gt;","%3C%EA%B0%80%26%3E","<가&>","POqwgCY+","<가&>","\"<가&>\""]"#,
            ),
            (r#"[1,"a\"b",null]"#, "[@csv, @tsv, @sh]", r#"["1,\"a\"\"b\",","1\ta\"b\t","1 'a\"b' null"]"#),
            (r#"[2, 9]"#, "[(.[1] | sqrt), pow(.[0]; 10), (3.7 | floor, trunc), (-3 | abs)]", "[3.0,1024.0,3,3.0,3]"),
            (r#"{"a":[1,2]}"#, "[.a[] as $x | $x + 1], (try error(\"x\") catch .), (.b // \"없음\") | tojson", ""),
            (r#"[1,2]"#, "[IN(.[]; 2), (.[0] | IN(1, 3)), (INDEX(.) | keys)]", r#"[true,true,["1","2"]]"#),
            (r#"{"a":1}"#, ".a as $a | def f(x): x + $a; f(2)", "3"),
            (r#"{"a":null}"#, "[.a?, .b.c, (.a | values), ([.[] | nulls] | length)]", "[null,null,1]"),
        ];
        for (input, program, output) in table {
            // Without an expected output: the input itself, or several outputs.
            let expected = match output {
                "" if program == "." => input,
                "" => "several-outputs",
                output => output,
            };
            assert_eq!(run(program, input).replace("1e+400", "1e400"), expected, "{program}");
        }
    }

    #[test]
    fn what_does_not_give_one_value_of_json_is_said() {
        for (program, expected) in [
            ("empty", "nothing"),
            (".[]", "several-outputs"),
            ("1, error(\"late\")", "jq-error"),
            ("nan", "not-json"),
            ("[infinite]", "not-json"),
            (". + {}", "jq-failed"),
            ("error", "jq-failed"),
            ("error(\"\\(.)\")", "jq-failed"),
            ("error({})", "jq-failed"),
            ("error(\"only this\")", "jq-error"),
        ] {
            assert_eq!(run(program, "[1,2]"), expected, "{program}");
        }
    }

    #[test]
    fn faults_name_their_place() {
        for (program, expected) in [
            ("{id: ", "expected closing brace"),
            ("1 +", "expected term at its end"),
            (".a\n | foo(1)", "line 2, column 4: there is no function `foo` of 1"),
            (".가 | nothing", "column"),
            ("\"\\q\"", "line 1, column 3: expected string escape sequence"),
            (".a]", "line 1, column 3: expected token, not `]`"),
            ("$x", "there is no variable `$x`"),
            ("", "expected term at its end"),
            ("import \"a\" as a; .", "there are none"),
        ] {
            let fault = Program::compile(program).err().unwrap_or_default();
            assert!(fault.contains(expected), "{program}: {fault}");
        }
    }

    #[test]
    fn nothing_reaches_outside() {
        for program in ["env", "$ENV", "input", "inputs", "debug", "stderr", "halt", "halt_error", "input_filename"] {
            let fault = Program::compile(program).err().unwrap_or_default();
            assert!(fault.contains("there is no"), "{program}: {fault}");
        }
    }
}
