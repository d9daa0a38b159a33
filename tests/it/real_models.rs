//! Real weights, where they are at hand: `DEPT_TEST_SMOLLM2` names `SmolLM2-135M-Instruct.Q4_1.gguf`.

use std::time::Instant;

use dept::{backbones::weights::Weights, layers::Recipe};

use crate::support::causal::{CausalJob, Pieces, generate, load_decoder};

#[test]
fn smollm2_answers_a_question() {
    let Some(path) = std::env::var_os("DEPT_TEST_SMOLLM2").map(std::path::PathBuf::from) else {
        eprintln!("skipped: DEPT_TEST_SMOLLM2 names no file");
        return;
    };
    let weights = Weights::open(&path).unwrap();
    let tokenizer = weights.tokenizer().unwrap();
    let text = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n";
    let prompt = tokenizer.encode(text).unwrap();
    assert_eq!(prompt[..4], [1, 4093, 198, 1780], "as the published tokenizer cuts it");
    for recipe in [Recipe::F32, Recipe::I8] {
        let model = load_decoder(&path, recipe, 2);
        let run = |new_tokens| {
            let start = Instant::now();
            let job = CausalJob { prompt: &prompt, adapter: None, new_tokens };
            (generate(&model, &[job], Pieces::Whole).remove(0), start.elapsed().as_secs_f64())
        };
        let (_, prefill) = run(1);
        let (found, all) = run(33);
        let text = tokenizer.decode(&found.tokens);
        let (rows, decode) = (prompt.len() as f64 / prefill, 32.0 / (all - prefill));
        eprintln!(
            "{recipe:?}: prefill {rows:.0} rows/s, decode {decode:.0} tokens/s: {text:?} {:?}",
            found.tokens
        );
        assert!(text.contains("Paris"), "{text}");
    }
}
