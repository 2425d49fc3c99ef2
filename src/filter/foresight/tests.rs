//! What is refused before an event comes, what is only doubted, and what is let through.

use super::super::Condition;

fn refused(expression: &str) -> Vec<String> {
    let errors = Condition::compile(expression).map(drop).expect_err(expression);
    errors.iter().map(ToString::to_string).collect()
}

fn doubted(expression: &str) -> Vec<String> {
    let condition = Condition::compile(expression).unwrap_or_else(|errors| panic!("{expression}: {errors:?}"));
    condition.foresight.doubts.iter().map(ToString::to_string).collect()
}

#[test]
fn what_can_never_work_is_told_before_an_event_comes() {
    for (expression, part) in [
        (
            "payloda.amount > 1",
            "may use eventType, aggregateType, aggregateId, payload, metadata, occurredAt, source; did you mean `payload`?",
        ),
        ("eventType.startWith('order')", "there is no function `startWith`; did you mean `startsWith`?"),
        ("lower(eventType) == 'x'", "there is no function `lower`"),
        (
            "startsWith(eventType, 'order')",
            "the function `startsWith` is called on a value, as in `payload.x.startsWith(…)`",
        ),
        (
            "eventType.timestamp() == payload.x",
            "the function `timestamp` is not called on a value: write `timestamp(…)`",
        ),
        ("payload.amount + 1", "gives a number, and must give true or false"),
        ("'order.created'", "gives text, and must"),
        ("eventType == 5", "`==` does not fit text and a number"),
        ("size(payload.items) > '3'", "`>` does not fit a number and text"),
        ("eventType && payload.x", "`&&` is for true and false, not for text"),
        ("metadata.startsWith('x')", "`startsWith` is for text, not for a map"),
        ("payload.items.exists(i, i.n == 1) == 'yes'", "`==` does not fit true or false and text"),
        ("aggregateId * 2 == payload.x", "`*` is for numbers, not for text"),
        ("occurredAt > timestamp('2026-01-01T00:00:00Z')", "`>` does not fit text and a timestamp"),
        ("payload.x.matches('((')", "`((` is no regular expression: unclosed group"),
        ("matches(payload.x, '[')", "`[` is no regular expression: unclosed character class"),
        ("payload.a && (payload.b || payload.x.matches('((')) && payload.x.matches('[')", "`[` is no regular"),
        ("payload.x.startsWith()", "`startsWith` takes 1 argument, not 0"),
        ("size(payload.a, payload.b) == 1", "`size` takes 1 argument, not 2"),
        ("timestamp(occurredAt).getHours('UTC', 1) == 1", "`getHours` takes 0 or 1 arguments, not 2"),
        ("size(3) == 1", "`size` takes text or bytes or a list or a map, not a number"),
        ("eventType.startsWith(3)", "`startsWith` takes text, not a number"),
        ("payload.x.startsWith(3)", "`startsWith` takes text, not a number"),
        ("duration('1h').getFullYear() == 1", "`getFullYear` is for a timestamp, not for a duration"),
        ("eventType.foo == 1", "`.foo`: text has no fields"),
        ("has(source.foo)", "`.foo`: text has no fields"),
        ("payload.items.size().foo", "`.foo`: a number has no fields"),
        ("eventType[0] == 'o'", "`[…]` is for a list or a map, not for text"),
        ("'order' in eventType", "`in` is for a list or a map, not for text"),
        ("-eventType == payload.x", "`-` is for numbers, not for text"),
        ("payload.a < null", "`<` can't compare null"),
        ("timestamp('garbage') < timestamp(occurredAt)", "`garbage` is no timestamp, for example"),
        ("timestamp(occurredAt) + duration('5x') > timestamp(payload.at)", "`5x` is no duration, for example"),
        ("timestamp(occurredAt).getHours('Mars/Base') == 1", "`getHours` can't read `Mars/Base`"),
        ("int('x') == payload.a", "`int` can't read `x`"),
        ("payload.x.matches('(\\n')", "`( ` is no regular expression: unclosed group"),
        ("optional.off(payload.a).hasValue()", "`optional` is not known"),
        ("google.protobuf.Timestmp == type(payload.a)", "`google` is not known"),
        ("1/0 == 1", "always fails: division by zero"),
        ("payload.amount % 0 == 1", "always fails: division by zero"),
        ("[1, 2][2] == payload.x", "always fails: an index is out of bounds"),
        ("!(eventType.startsWith(3))", "`startsWith` takes text, not a number"),
        ("eventType.startsWith(3) == false", "`startsWith` takes text, not a number"),
        ("payload.tags.exists(t, t.matches('(('))", "`((` is no regular expression"),
        ("1/0 == 1 || 2/0 == 1", "always fails: division by zero"),
        ("(payload.x ? 1/0 : 2/0) == 1", "always fails: division by zero"),
        ("(1/0 == 1) ? payload.a : payload.b", "always fails: division by zero"),
        ("[payload.a, 1/0].exists(x, x == 1)", "always fails: division by zero"),
    ] {
        let errors = refused(expression);
        assert!(errors[0].contains(part), "{expression}: {errors:?}");
    }
}

#[test]
fn all_that_is_wrong_is_told_in_its_order_and_nothing_that_follows_from_it() {
    let errors = refused("foo == 1 && bar == 2 && nofn(1) && eventType.x == 1");
    let expected =
        ["`foo` is not known", "`bar` is not known", "there is no function `nofn`", "`.x`: text has no fields"];
    assert_eq!(errors.len(), expected.len(), "{errors:?}");
    assert!(errors.iter().zip(expected).all(|(error, expected)| error.starts_with(expected)), "{errors:?}");
    for expression in ["size(1 / 0) + 1 == 'x'", "!(foo.x + 1)", "timestamp('garbage').getHours('Mars') == 1"] {
        assert_eq!(refused(expression).len(), 1, "{expression}: {:?}", refused(expression));
    }
}

/// Where another part decides, CEL does not mind that one fails.
#[test]
fn what_another_part_may_make_up_for_is_only_doubted() {
    for (expression, part) in [
        ("payload.a || 1/0 == 1", "division by zero"),
        ("payload.x.matches('((') || payload.a", "no regular expression"),
        ("!(eventType.startsWith(3) && payload.a)", "takes text"),
        ("(eventType.startsWith(3) && payload.a) == false", "takes text"),
        ("payload.tags.all(t, t.matches('(('))", "no regular expression"),
        ("payload.tags.filter(t, t.matches('((')).size() == 0", "no regular expression"),
        ("!payload.tags.exists(t, t.matches('(('))", "no regular expression"),
        ("has(payload.x) ? payload.x.matches('((') : payload.a", "no regular expression"),
        ("payload.a || eventType == 5", "`==` does not fit"),
        ("eventType != 5", "`!=` does not fit"),
        ("!(eventType == 5)", "`==` does not fit"),
        ("payload.a || source", "`||` is for true and false"),
    ] {
        let doubts = doubted(expression);
        assert!(doubts.len() == 1 && doubts[0].contains(part), "{expression}: {doubts:?}");
    }
    // A name that there is not is a slip wherever it stands.
    assert_eq!(refused("payload.a || foo").len(), 1);
    assert_eq!(refused("payload.a || nofn(1)").len(), 1);
}

#[test]
fn what_may_work_is_let_through() {
    for expression in [
        "payload.amount * 2 + 1 > 3 && eventType in ['a', 'b']",
        "payload.a == null || source != null",
        "payload.tags.filter(source, source == 1).size() > 0",
        "payload.tags.exists_one(t, t == 'vip')",
        "payload.tags.exists(eventType, eventType.foo == 1)",
        "payload.tags.map(t, t.name).exists(n, n.startsWith('a'))",
        "timestamp(occurredAt) - duration('1h') < timestamp('2026-01-01T00:00:00Z')",
        "timestamp(occurredAt) - timestamp(payload.at) > duration('90m')",
        "timestamp(occurredAt).getHours() < 12",
        "timestamp(occurredAt).getHours('Europe/Berlin') < 12",
        "(timestamp(occurredAt) - timestamp(payload.at)).getHours() < 12",
        "timestamp(1700000000) < timestamp(occurredAt)",
        "type(payload.amount) == int",
        "type(payload.amount) in [int, double]",
        "payload.flag ? payload.a : source == 'app'",
        "(payload.name + '!').matches('^a.*')",
        "payload.x.matches(payload.pattern)",
        "payload.x.matches('(' + payload.name + ')')",
        "bool(payload.flag)",
        "bool('true') && payload.a",
        "payload.a / payload.b > 1",
        "payload.a / 0.0 > 1.0",
        "payload.startsWith.size == 1",
        "metadata.foo == 1 && metadata['foo'] == 1 && has(metadata.foo)",
        "{'a': 1}.a == payload.x",
        "{'a': payload.x}[payload.y].startsWith('z')",
        "[payload.a, 2][1] == 2",
        "size(payload) == 1 && payload.size() == 1",
        "string(payload.a) == '1' && int(payload.a) == 1 && double(payload.a) == 1.0",
        "-payload.a < 3 && !payload.b",
        "dyn(3) == payload.x",
        "payload.?a.orValue(1) == 1",
        "payload[?'a'].hasValue()",
        "true || 1/0 == 1",
        "optional.of(payload.a).hasValue()",
        "type(timestamp(payload.at)) == google.protobuf.Timestamp",
        "'é' == payload.x",
    ] {
        assert_eq!(doubted(expression), [""; 0], "{expression}");
    }
}

#[test]
fn the_part_at_fault_is_found() {
    for (text, expected) in [
        ("payload.amounts > 1 && amount > 1", "amount"),
        ("payload.amount == 'é' && amount > 1", "amount"),
        ("payload.amount >", ""),
        ("eventType > 5", ">"),
        ("'é' == payload.x && eventType.foo == 1", "foo"),
        ("has(source.foo)", "foo"),
        ("payload.x.startsWith ()", "startsWith"),
        ("payload.x.matches('é((')", "'é(('"),
        ("timestamp('garbage') < timestamp(occurredAt)", "'garbage'"),
        ("payload.a / 0 == 1", "0"),
        ("1 / 0 == 1", "/"),
    ] {
        let errors = Condition::compile(text).map(drop).unwrap_err();
        assert_eq!(errors[0].part.clone().map(|part| &text[part]), Some(expected), "{text}: {errors:?}");
    }
}

#[test]
fn what_an_event_must_have_is_known_where_it_is_said_of_all() {
    let demands = |text: &str| {
        let foresight = Condition::compile(text).unwrap().foresight;
        let shown =
            |demand: super::Demand| format!("{} {} {}", demand.variable, demand.value, &text[demand.part.unwrap()]);
        foresight.demands.into_iter().map(shown).collect::<Vec<_>>()
    };
    assert_eq!(demands("payload.x && ('a' == eventType && source == \"b\")"), ["eventType a 'a'", "source b \"b\""]);
    for text in ["eventType == 'a' || payload.x", "!(eventType == 'a')", "eventType != 'a'", "payload.x == 'a'"] {
        assert_eq!(demands(text), [""; 0], "{text}");
    }
}
