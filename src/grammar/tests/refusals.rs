//! What can't be followed, and where the fault lies.

use serde_json::{Value, json};

use super::*;

/// The error's part and message.
fn refused(grammar: &Grammar, vocabulary: &Arc<Vocabulary>) -> (Option<String>, String) {
    let error = compile(grammar, vocabulary).expect_err("it is refused");
    (error.part(), error.to_string())
}

fn at_fault(bad: Value) -> (String, String) {
    let (part, message) = refused(&schema(bad), &bytes());
    (part.unwrap(), message)
}

#[test]
fn a_schema_is_refused_where_its_fault_is() {
    let age = json!({"type": "object", "properties": {"name": {"type": "string"}, "age": {"not": {"type": "null"}}}});
    let (part, message) = at_fault(age);
    assert_eq!(part, ".properties.age");
    assert_eq!(
        message,
        r##"the schema can't be followed at '#/properties/age': Unimplemented keys: ["not"]"##
    );
    let cases = [
        (json!({"type": "wrong"}), "", "Invalid type: wrong"),
        (json!({"type": "array", "items": {"type": "array", "uniqueItems": true}}), ".items", "uniqueItems"),
        (json!({"anyOf": [{"type": "string"}, {"pattern": "("}]}), ".anyOf.1", "regex"),
        (json!({"type": "string", "pattern": r"\bword\b"}), "", ""),
        (json!({"type": "string", "format": "colour"}), "", "Unknown format: colour"),
        (json!({"properties": {"a/b": {"type": 3}}}), ".properties.a/b", "type must be"),
        (
            json!({"$defs": {"bad": {"minLength": -1}}, "items": {"$ref": "#/$defs/bad"}}),
            ".$defs.bad",
            "minLength",
        ),
        (json!({"$ref": "#/$defs/none"}), "", "none"),
        (json!({"$ref": "https://example.com/schema.json"}), "", "example.com"),
        (json!({"oneOf": [{"type": "string"}, {"maxLength": 3}]}), "", "use anyOf"),
        (json!({"type": "integer", "minimum": 3, "maximum": 2}), "", ""),
        (json!(false), "", ""),
        (json!({"enum": []}), "", ""),
        (json!({"$schema": "https://example.com/none", "type": "string", "minimum": {}}), "", ""),
    ];
    for (bad, place, says) in cases {
        let (part, message) = at_fault(bad.clone());
        assert_eq!(part, place, "{bad}: {message}");
        assert!(message.contains(says), "{bad}: {message}");
        assert!(!message.contains("panic") && !message.contains('\n'), "{bad}: {message}");
    }
}

#[test]
fn a_regex_is_refused_from_the_byte_that_is_wrong() {
    for (bad, at) in [
        ("a(b", "1"),
        ("ab)", "2"),
        ("[z-a]", "1"),
        ("a{2,1}", "1"),
        (r"\bword", "0"),
        (r"a\", "1"),
        (r"\p{Nope}x", ""),
    ] {
        let (part, message) = refused(&regex(bad), &bytes());
        assert_eq!(part, None);
        assert!(message.starts_with("the regular expression can't be followed"), "{bad}: {message}");
        assert!(message.contains(&format!("from byte {at}")) || at.is_empty(), "{bad}: {message}");
        assert!(!message.contains('\n'), "{bad}: {message}");
    }
    let (_, message) = refused(&regex("a^b"), &bytes());
    assert!(message.contains("can't be followed"), "{message}");
}

#[test]
fn what_the_vocabulary_cannot_write_is_named() {
    let t5 = embedded();
    let (part, message) = refused(&Grammar::JsonObject, &t5);
    assert_eq!((part, message.as_str()), (None, "this model's vocabulary can't write '{'"));
    let (part, message) = refused(&choice(&["yes", "{no}"]), &t5);
    assert_eq!(part.as_deref(), Some("[1]"));
    assert_eq!(message, "this model's vocabulary can't write '{', '}', which '[1]' needs");
    let (_, message) = refused(&regex("a{2}<[xy]"), &t5);
    assert_eq!(message, "this model's vocabulary can't write '<'");
    let (part, message) = refused(&schema(json!({"type": "array", "items": {"enum": ["a", "日本"]}})), &t5);
    assert_eq!(part.as_deref(), Some(".items.enum.1"));
    assert!(message.contains("'日', '本'"), "{message}");
    // What is only one possibility of many is left out instead.
    let mut guide = Guide::new(compile(&regex("(<|b)c?"), &t5).unwrap());
    assert!(guide.has_more());
    // JSON without braces can be written.
    compile(&schema(json!({"type": "array", "items": {"type": "integer"}})), &t5).unwrap();
}

#[test]
fn hostile_grammars_are_answered() {
    let nested = |depth: usize| {
        let open = r#"{"type":"array","items":"#.repeat(depth);
        Grammar::JsonSchema(Schema::new(&(open + "true" + &"}".repeat(depth))).unwrap())
    };
    let many = |count: usize, item: fn(usize) -> Value| (0..count).map(item).collect::<Vec<_>>();
    let exponential = json!({"allOf": many(40, |at| json!({"anyOf": [
        {"properties": {format!("a{at}"): {"type": "string"}}}, {"properties": {format!("b{at}"): {"type": "null"}}}]}))});
    let hostile: Vec<Grammar> = vec![
        nested(60),
        schema(json!({"enum": many(6_000, |at| json!(format!("value {at}")))})),
        schema(
            json!({"oneOf": many(1_500, |at| json!({"type": "object", "properties": {"k": {"const": at}}, "required": ["k"]}))}),
        ),
        schema(
            json!({"type": "object", "properties": (0..1500).map(|at| (format!("p{at}"), json!({"type": "string"}))).collect::<serde_json::Map<_, _>>()}),
        ),
        schema(json!({"$ref": "#"})),
        schema(
            json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
        ),
        schema(json!({"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"})),
        schema(json!({"type": "array", "minItems": 1_000_000_000_u64})),
        schema(json!({"type": "array", "minItems": u64::MAX})),
        schema(json!({"type": "string", "minLength": 1_000_000_000_u64})),
        schema(json!({"type": "string", "maxLength": u64::MAX})),
        schema(json!({"type": "number", "multipleOf": 1e-300})),
        schema(json!({"type": "integer", "minimum": -1e300, "maximum": 1e300})),
        schema(json!({"type": "string", "pattern": "(a+)+$"})),
        schema(json!({"properties": {"ä".repeat(300): {"type": {"ü".repeat(200): 1}}}})),
        schema(exponential),
        regex("(a+)+b"),
        regex("((((a{1,100}){1,100}){1,100}){1,100}){1,100}"),
        regex(r"(\w{1,200}\W{1,200}){1,200}"),
        regex(&"(a|b)?".repeat(1_300)),
        regex(&("(".repeat(200) + "a" + &")".repeat(200))),
        regex(&"(".repeat(8_000)),
        regex(&"a|".repeat(4_000)),
        regex(r"(.*a.{60}b.*)"),
        choice(&["a", &"b".repeat(200_000)]),
    ];
    for grammar in hostile {
        let start = std::time::Instant::now();
        let said = match compile(&grammar, &bytes()) {
            Ok(compiled) => {
                let mut guide = Guide::new(compiled);
                // A few tokens on, whatever they are.
                for _ in 0..4 {
                    let Ok(mask) = guide.mask() else { break };
                    let Some(&token) = allowed(mask, 257).iter().find(|&&id| id != END) else { break };
                    if !matches!(guide.advance(token), Ok(Progress::GoesOn)) {
                        break;
                    }
                }
                "followed".to_owned()
            }
            Err(error) => error.to_string(),
        };
        assert!(!said.contains("panic"), "{said}");
        let shown: String = format!("{grammar:?}").chars().take(60).collect();
        eprintln!("{:>6} ms: {shown}…: {said}", start.elapsed().as_millis());
    }
}
