//! Against transformers' own processors: `tests/golden/gen/sampling.py` made the file and says how.

use serde_json::Value;

use super::*;

fn golden() -> Value {
    serde_json::from_str(include_str!("../../../tests/golden/sampling.json")).unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

/// A list of token ids.
fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// A row of numbers; null is negative infinity.
fn row(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().map_or(OUT, |x| x as f32)).collect()
}

/// Parameters as the file writes them; a top_p of 0, which requests may not ask for, is the smallest legal one.
fn raw(value: &Value) -> RawSampling {
    let field = |name: &str| number(&value[name]);
    RawSampling {
        temperature: field("temperature"),
        top_k: field("top_k") as u32,
        top_p: field("top_p").max(f64::MIN_POSITIVE),
        min_p: field("min_p"),
        repetition_penalty: field("repetition_penalty"),
        presence_penalty: field("presence_penalty"),
        frequency_penalty: field("frequency_penalty"),
        ..RawSampling::default()
    }
}

#[test]
fn the_distributions_are_those_of_transformers() {
    let golden = golden();
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() > 30);
    for case in cases {
        let logits = row(&golden["logits"][case["row"].as_u64().unwrap() as usize]);
        let mut expected = vec![0.0; logits.len()];
        let probabilities = case["probs"].as_array().unwrap().iter().map(number);
        let kept = ids(&case["kept"]);
        kept.iter().zip(probabilities).for_each(|(&id, p)| expected[id as usize] = p);
        let mut found = vec![0.0; logits.len()];
        for (id, p) in distribution(raw(&case["params"]), &ids(&case["history"]), &logits) {
            assert!(kept.contains(&id), "{id} is too much: {case}");
            found[id as usize] = p;
        }
        for (id, (&found, &expected)) in found.iter().zip(&expected).enumerate() {
            assert!((found - expected).abs() < 2e-6, "{id}: {found}, not {expected}: {case}");
            assert!(found > 0.0 || expected < 1e-12, "{id} is missing: {case}");
        }
    }
}

#[test]
fn the_raw_log_probabilities_are_those_of_torch() {
    let golden = golden();
    let rows = golden["logits"].as_array().unwrap().iter().zip(golden["logprobs"].as_array().unwrap());
    for (logits, logprobs) in rows.map(|(logits, logprobs)| (row(logits), row(logprobs))) {
        let scores = RawScores::new(&logits, 20, &mut Vec::new()).unwrap();
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
        for (scored, &id) in scores.top.iter().zip(&order) {
            assert_eq!(scored.id, id);
            assert!((scored.logprob - logprobs[id as usize]).abs() < 2e-6, "{scored:?}");
        }
        assert_eq!(scores.top.len(), 20);
    }
}
