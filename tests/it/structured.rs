//! Texts of real models that are held to a grammar: whatever is drawn is what was asked for.

use std::{path::Path, sync::Arc};

use dept::{
    backbones::weights::Weights,
    domain::{Choices, Grammar, Pattern, Schema, TenantId},
    grammar::{Compiled, Grammars},
    layers::Recipe,
    runner::KvDtype,
    sampling::Sampled,
    tokenizer::Tokenizer,
};
use regex::Regex;
use serde_json::{Value, json};

use crate::{
    real_models::file_of,
    support::{Job, Memory, causal::load_decoder_to, generate, generate_causal, golden, load_t5, repo},
};

const EMBEDDED: &str = "models/flan-t5-small-en";

fn grammars(model: &Path, eos: u32) -> (Tokenizer, Grammars) {
    let tokenizer = Weights::open(model).unwrap().tokenizer().unwrap();
    let size = tokenizer.id_bound();
    (tokenizer.clone(), Grammars::new(tokenizer, size, vec![eos]))
}

fn compiled(grammars: &Grammars, grammar: &Grammar) -> Option<Arc<Compiled>> {
    Some(grammars.get(&TenantId::default_tenant(), grammar).unwrap())
}

fn regex(pattern: &str) -> Grammar {
    Grammar::Regex(Pattern::new(pattern).unwrap())
}

fn choice(texts: &[&str]) -> Grammar {
    Grammar::Choice(Choices::new(texts.iter().map(|&text| text.to_owned()).collect()).unwrap())
}

fn text(tokenizer: &Tokenizer, sampled: &[Sampled], eos: u32) -> String {
    let ids: Vec<u32> = sampled.iter().map(|one| one.token).filter(|&id| id != eos).collect();
    tokenizer.decode(&ids)
}

const MEMORY: Memory = Memory {
    num_blocks: 1024,
    block_size: 16,
    max_batch_tokens: 1024,
    max_num_seqs: 32,
    prefix_cache: true,
    adapter_bytes: 0,
    kv_dtype: KvDtype::F16,
};

/// The texts of 24 draws at temperature 1 from each of `prompts`.
fn drawn_from_embedded(prompts: &[&str], grammar: &Grammar, max_tokens: usize) -> Vec<String> {
    let (tokenizer, grammars) = grammars(&repo(EMBEDDED), 1);
    let compiled = compiled(&grammars, grammar);
    let job = |(prompt, seed): (&&str, u64)| Job {
        grammar: compiled.clone(),
        ..Job::new(tokenizer.encode(prompt).unwrap(), None, max_tokens).drawn(seed)
    };
    let jobs: Vec<Job> =
        (0..24).flat_map(|seed| prompts.iter().map(move |prompt| (prompt, seed))).map(job).collect();
    let model = load_t5(&repo(EMBEDDED), Recipe::Stored, 2);
    let (results, _) = generate(model, &jobs, MEMORY);
    results.iter().map(|sampled| text(&tokenizer, sampled, 1)).collect()
}

#[test]
fn the_embedded_model_chooses_one_of_the_texts() {
    let texts = ["positive", "negative", "very positive", "not sure at all", "0", "naïve"];
    let found = drawn_from_embedded(&["sentence: a warm film .", "Tell a story."], &choice(&texts[..5]), 20);
    assert!(found.iter().all(|text| texts.contains(&text.as_str())), "{found:?}");
    assert!(found.iter().collect::<std::collections::BTreeSet<_>>().len() > 1, "they are drawn: {found:?}");
}

#[test]
fn the_embedded_model_writes_what_a_regex_matches() {
    for pattern in [
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}",
        r"(yes|no), because [a-z ]{5,20}\.",
        r"[A-Z][a-z]{1,8}( [a-z]{1,8}){2}",
    ] {
        let whole = Regex::new(&format!("^(?:{pattern})$")).unwrap();
        for text in drawn_from_embedded(&["When was the war over?"], &regex(pattern), 60) {
            assert!(whole.is_match(&text), "{pattern}: {text:?}");
        }
    }
}

#[test]
fn json_without_braces_can_be_written_by_the_embedded_model_too() {
    let schema = json!({"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 99}, "minItems": 2, "maxItems": 4});
    let grammar = Grammar::JsonSchema(Schema::new(&schema.to_string()).unwrap());
    for text in drawn_from_embedded(&["Count to three."], &grammar, 60) {
        let list: Vec<u8> = serde_json::from_str(&text).unwrap();
        assert!((2..=4).contains(&list.len()) && list.iter().all(|&x| x < 100), "{text}");
    }
}

/// Jobs with and without grammars, some of them drawn.
fn mixed(tokenizer: &Tokenizer, grammars: &Grammars) -> Vec<Job> {
    let all = [
        None,
        compiled(grammars, &choice(&["the film", "the road is long", "no"])),
        None,
        compiled(grammars, &regex("[a-z]{2,9}( [a-z]{2,9}){1,3}")),
        compiled(grammars, &regex("[0-9]{6}")),
    ];
    let prompts = ["the film is", "no road", "is it the end"];
    (0..15_u64)
        .map(|at| {
            let prompt = tokenizer.encode(prompts[at as usize % 3]).unwrap();
            let job = Job { grammar: all[at as usize % 5].clone(), ..Job::new(prompt, None, 14) };
            if at % 2 == 0 { job.drawn(at) } else { job }
        })
        .collect()
}

#[test]
fn a_grammar_changes_no_neighbour_and_no_neighbour_changes_it() {
    let model = golden("t5-v1_1");
    let (tokenizer, grammars) = grammars(&model, 1);
    let jobs = mixed(&tokenizer, &grammars);
    let run = |jobs: &[Job], memory| generate(load_t5(&model, Recipe::Stored, 2), jobs, memory);
    let alone: Vec<_> =
        jobs.iter().map(|job| run(std::slice::from_ref(job), Memory::default()).0.remove(0)).collect();
    assert!(run(&jobs, Memory::default()).0 == alone, "in a crowd");
    // So few blocks that sequences are computed again in the middle of their text.
    let tight = Memory { num_blocks: 11, block_size: 4, max_num_seqs: 6, ..Memory::default() };
    let (together, scheduler) = run(&jobs, tight);
    assert!(scheduler.preemptions() > 0, "someone was preempted");
    assert!(together == alone, "preempted");
    // Without its neighbours' grammars, a text without one is the same.
    let free: Vec<Job> = jobs.iter().map(|job| Job { grammar: None, ..job.clone() }).collect();
    let (all_free, _) = run(&free, Memory::default());
    for (at, job) in jobs.iter().enumerate() {
        assert!(job.grammar.is_some() || all_free[at] == alone[at], "job {at}");
    }
}

#[test]
fn log_probabilities_are_of_the_raw_distribution_and_the_end_waits_only_where_something_else_may_come() {
    let model = golden("t5-v1_1");
    let (tokenizer, grammars) = grammars(&model, 1);
    let prompt = tokenizer.encode("the film is").unwrap();
    let free = Job::new(prompt.clone(), None, 1);
    let held =
        Job { grammar: compiled(&grammars, &choice(&["road"])), min_tokens: 9, ..Job::new(prompt, None, 12) };
    let (results, _) = generate(load_t5(&model, Recipe::Stored, 2), &[free, held], Memory::default());
    assert_eq!(results[0][0].top, results[1][0].top, "the best tokens are those without a grammar");
    assert_eq!(text(&tokenizer, &results[1], 1), "road", "whole before min_tokens");
}

/// Whether `value` is what `schema` says, in the keywords that are used here.
fn satisfies(schema: &Value, value: &Value) -> bool {
    let keyword = |name: &str| schema.get(name);
    let number = |name: &str| keyword(name).and_then(Value::as_f64);
    let count = |name: &str| keyword(name).and_then(Value::as_u64).map(|count| count as usize);
    let typed = match keyword("type").and_then(Value::as_str) {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some(other) => panic!("{other} is not looked at"),
        None => true,
    };
    let listed = keyword("enum").is_none_or(|all| all.as_array().unwrap().contains(value));
    let fits = match value {
        Value::Object(fields) => {
            let required = keyword("required").and_then(Value::as_array).into_iter().flatten();
            let known = |name: &str| keyword("properties").and_then(|all| all.get(name));
            required.into_iter().all(|name| fields.contains_key(name.as_str().unwrap()))
                && fields
                    .iter()
                    .all(|(name, value)| known(name).is_some_and(|schema| satisfies(schema, value)))
        }
        Value::Array(items) => {
            count("minItems").is_none_or(|least| items.len() >= least)
                && count("maxItems").is_none_or(|most| items.len() <= most)
                && items.iter().all(|item| keyword("items").is_none_or(|schema| satisfies(schema, item)))
        }
        Value::String(text) => {
            let letters = text.chars().count();
            let pattern = keyword("pattern").map(|pattern| Regex::new(pattern.as_str().unwrap()).unwrap());
            count("minLength").is_none_or(|least| letters >= least)
                && count("maxLength").is_none_or(|most| letters <= most)
                && pattern.is_none_or(|pattern| pattern.is_match(text))
        }
        Value::Number(x) => {
            let x = x.as_f64().unwrap();
            number("minimum").is_none_or(|least| x >= least) && number("maximum").is_none_or(|most| x <= most)
        }
        _ => true,
    };
    typed && listed && fits
}

/// Objects all of whose parts are bounded, so that every text ends.
fn schemas() -> Vec<Value> {
    let object = |properties: Value| {
        let names: Vec<&String> = properties.as_object().unwrap().keys().collect();
        let required = json!(names);
        json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
    };
    let name = json!({"type": "string", "minLength": 1, "maxLength": 20});
    vec![
        object(
            json!({"name": name, "age": {"type": "integer", "minimum": 0, "maximum": 150}, "member": {"type": "boolean"}}),
        ),
        object(
            json!({"mood": {"enum": ["glad", "sad", "größer als du", "日本"]}, "score": {"type": "number", "minimum": -1.5, "maximum": 2}}),
        ),
        object(json!({"code": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{2,4}$"},
            "tags": {"type": "array", "items": {"type": "string", "maxLength": 12}, "minItems": 1, "maxItems": 4}})),
        object(
            json!({"person": object(json!({"name": name, "address": object(json!({"city": name, "zip": {"type": "string", "pattern": "^[0-9]{5}$"}}))})),
            "friends": {"type": "array", "maxItems": 2, "items": object(json!({"name": name}))}}),
        ),
    ]
}

#[test]
#[ignore = "needs the file that DEPT_TEST_SMOLLM2 names: just real-models"]
fn smollm2_writes_json_that_satisfies_its_schema() {
    let Some(path) = file_of("DEPT_TEST_SMOLLM2") else { return };
    let model = || load_decoder_to(&path, Recipe::I8, 2, 512);
    let eos = model().config().eos.clone();
    let tokenizer = Weights::open(&path).unwrap().tokenizer().unwrap();
    let grammars = Grammars::new(tokenizer.clone(), tokenizer.id_bound(), eos.clone());
    let prompt = "<|im_start|>user\nWrite a record of a customer in JSON.<|im_end|>\n<|im_start|>assistant\n";
    let prompt = tokenizer.encode(prompt).unwrap();
    let schemas = schemas();
    let each: u64 = 12;
    let jobs: Vec<Job> = schemas
        .iter()
        .flat_map(|schema| {
            let grammar = Grammar::JsonSchema(Schema::new(&schema.to_string()).unwrap());
            let grammar = compiled(&grammars, &grammar);
            let prompt = &prompt;
            (0..each).map(move |seed| Job {
                grammar: grammar.clone(),
                ..Job::new(prompt.clone(), None, 400).drawn(seed)
            })
        })
        .collect();
    let memory = Memory { num_blocks: 1400, max_num_seqs: 24, ..MEMORY };
    let (results, _) = generate_causal(model(), &jobs, memory);
    for (at, sampled) in results.iter().enumerate() {
        let ids: Vec<u32> = sampled.iter().map(|one| one.token).filter(|id| !eos.contains(id)).collect();
        let text = tokenizer.decode(&ids);
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let schema = &schemas[at / each as usize];
        assert!(satisfies(schema, &value), "{schema}: {text}");
        if (at as u64).is_multiple_of(each) {
            eprintln!("{text}");
        }
    }
}
