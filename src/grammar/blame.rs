//! Where in a grammar the fault lies.

use std::collections::BTreeSet;

use llguidance::{GrammarBuilder, JsonCompileOptions, panic_utils};
use regex_syntax::ast::{self, Ast};
use serde_json::{Map, Value};

use super::{
    CompileError, source,
    vocabulary::{Alphabet, LIMITS},
};
use crate::domain::Grammar;

/// Steps down into a schema in search of a fault.
const MOST_STEPS: usize = 64;

/// Most characters of a reason that are told.
const LONGEST_REASON: usize = 300;

/// Keywords whose value is a schema, or a list of schemas.
const SCHEMAS: [&str; 18] = [
    "items",
    "prefixItems",
    "additionalItems",
    "additionalProperties",
    "anyOf",
    "oneOf",
    "allOf",
    "not",
    "if",
    "then",
    "else",
    "contains",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
    "contentSchema",
    "extends",
    "dependencies",
];

/// Keywords whose value is schemas by name.
const NAMED_SCHEMAS: [&str; 3] = ["properties", "patternProperties", "dependentSchemas"];

/// Keywords under which schemas wait to be referred to.
const DEFINITIONS: [&str; 2] = ["$defs", "definitions"];

/// Whether a regular expression is one, and has nothing in it that can't be followed from left to right.
pub(super) fn check_regex(grammar: &Grammar) -> Result<(), CompileError> {
    let Some(parsed) = parse_regex(grammar) else { return Ok(()) };
    let ast = parsed.map_err(|error| CompileError::Regex {
        at: Some(error.span().start.offset),
        reason: error.kind().to_string(),
    })?;
    match ast::visit(&ast, Boundaries(None)) {
        Ok(None) | Err(()) => Ok(()),
        Ok(Some(at)) => {
            Err(CompileError::Regex { at: Some(at), reason: "word boundaries can't be followed".to_owned() })
        }
    }
}

/// The characters that a regular expression names one by one.
pub(super) fn regex_literals(grammar: &Grammar) -> BTreeSet<char> {
    let Some(Ok(ast)) = parse_regex(grammar) else { return BTreeSet::new() };
    ast::visit(&ast, Literals(BTreeSet::new())).unwrap_or_default()
}

fn parse_regex(grammar: &Grammar) -> Option<Result<Ast, ast::Error>> {
    let Grammar::Regex(pattern) = grammar else { return None };
    Some(ast::parse::Parser::new().parse(pattern.as_str()))
}

/// Finds the first word boundary.
struct Boundaries(Option<usize>);

impl ast::Visitor for Boundaries {
    type Output = Option<usize>;
    type Err = ();

    fn finish(self) -> Result<Option<usize>, ()> {
        Ok(self.0)
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), ()> {
        use ast::AssertionKind as Kind;
        if let Ast::Assertion(assertion) = ast
            && !matches!(assertion.kind, Kind::StartLine | Kind::EndLine | Kind::StartText | Kind::EndText)
        {
            self.0.get_or_insert(assertion.span.start.offset);
        }
        Ok(())
    }
}

/// Collects characters outside of classes.
struct Literals(BTreeSet<char>);

impl ast::Visitor for Literals {
    type Output = BTreeSet<char>;
    type Err = ();

    fn finish(self) -> Result<BTreeSet<char>, ()> {
        Ok(self.0)
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), ()> {
        if let Ast::Literal(literal) = ast {
            self.0.insert(literal.c);
        }
        Ok(())
    }
}

/// Whether the texts that a schema spells out can be written.
pub(super) fn check_literals(grammar: &Grammar, alphabet: &Alphabet) -> Result<(), CompileError> {
    let (Grammar::JsonSchema(schema), Alphabet::Some(_)) = (grammar, alphabet) else { return Ok(()) };
    let root: Value = serde_json::from_str(schema.as_str()).expect("a schema is JSON");
    let mut open = vec![(String::new(), &root)];
    while let Some((path, schema)) = open.pop() {
        let values = schema.get("enum").and_then(Value::as_array).into_iter().flatten().enumerate();
        let values = values.map(|(at, value)| (format!("{path}/enum/{at}"), value));
        let all = values.chain(schema.get("const").map(|value| (format!("{path}/const"), value)));
        for (place, value) in all {
            let characters = alphabet.missing(&value.to_string());
            if !characters.is_empty() {
                return Err(CompileError::Unwritable { place: Some(place), characters });
            }
        }
        open.extend(children(schema, true).into_iter().map(|(step, child)| (format!("{path}{step}"), child)));
    }
    Ok(())
}

/// The error for a grammar that llguidance refuses for `reason`.
pub(super) fn refused(grammar: &Grammar, reason: &str) -> CompileError {
    match grammar {
        Grammar::Regex(_) => CompileError::Regex { at: None, reason: told(reason) },
        Grammar::JsonSchema(schema) => {
            let root = serde_json::from_str(schema.as_str()).expect("a schema is JSON");
            let (place, reason) = locate(&root).unwrap_or_else(|| (String::new(), reason.to_owned()));
            CompileError::Schema { place, reason: told(&reason) }
        }
        Grammar::Choice(_) | Grammar::JsonObject => CompileError::TooComplex { reason: told(reason) },
    }
}

/// The innermost part of a schema that can't be compiled by itself: its JSON pointer, and why.
fn locate(root: &Value) -> Option<(String, String)> {
    let mut reason = compile(root, root).err()?;
    let (mut path, mut here) = (String::new(), root);
    for _ in 0..MOST_STEPS {
        let inner = children(here, false).into_iter().find_map(|(step, child)| {
            let reason = compile(child, root).err()?;
            Some((format!("{path}{step}"), child, reason))
        });
        let next = inner.or_else(|| {
            let pointer = here.get("$ref")?.as_str()?.strip_prefix('#')?;
            let target = root.pointer(pointer)?;
            Some((pointer.to_owned(), target, compile(target, root).err()?))
        });
        match next {
            Some(next) => (path, here, reason) = next,
            None => break,
        }
    }
    Some((path, reason))
}

/// Whether a part of `root` can be compiled, with the definitions that it may refer to.
fn compile(part: &Value, root: &Value) -> Result<(), String> {
    let mut part = part.clone();
    if let (Value::Object(part), Value::Object(root)) = (&mut part, root) {
        for name in DEFINITIONS {
            if let (Some(definitions), false) = (root.get(name), part.contains_key(name)) {
                part.insert(name.into(), definitions.clone());
            }
        }
    }
    let part = source::spaced(part);
    let compile = || {
        let builder = GrammarBuilder::new(None, LIMITS);
        JsonCompileOptions::default().json_to_llg_with_overrides(builder, part).map(drop)
    };
    panic_utils::catch_unwind(std::panic::AssertUnwindSafe(compile)).map_err(|error| {
        let reason = format!("{error:#}");
        if reason.starts_with("panic") { "it can't be compiled".to_owned() } else { reason }
    })
}

/// The schemas inside a schema, each with its step of a JSON pointer.
fn children(schema: &Value, definitions: bool) -> Vec<(String, &Value)> {
    let Value::Object(schema) = schema else { return Vec::new() };
    let mut found = Vec::new();
    for (keyword, value) in schema {
        let keyword = keyword.as_str();
        let named = NAMED_SCHEMAS.contains(&keyword) || (definitions && DEFINITIONS.contains(&keyword));
        match value {
            Value::Object(schemas) if named => found.extend(by_name(keyword, schemas)),
            Value::Array(schemas) if SCHEMAS.contains(&keyword) => {
                let placed = schemas.iter().enumerate();
                found.extend(placed.map(|(at, schema)| (format!("/{keyword}/{at}"), schema)));
            }
            Value::Object(_) | Value::Bool(_) if SCHEMAS.contains(&keyword) => {
                found.push((format!("/{keyword}"), value));
            }
            _ => {}
        }
    }
    found
}

fn by_name<'a>(keyword: &str, schemas: &'a Map<String, Value>) -> Vec<(String, &'a Value)> {
    let step = |name: &str| format!("/{keyword}/{}", name.replace('~', "~0").replace('/', "~1"));
    schemas.iter().map(|(name, schema)| (step(name), schema)).collect()
}

/// A reason as a client is told it.
fn told(reason: &str) -> String {
    if reason.contains("oneOf constraints are not supported") {
        return "the branches of oneOf may overlap, which can't be followed: use anyOf, or give them a property whose constants \
                differ"
            .to_owned();
    }
    let line = reason.lines().next().unwrap_or_default();
    let mut told: String = line.chars().take(LONGEST_REASON).collect();
    if told.len() < line.len() {
        told.push('…');
    }
    told
}
