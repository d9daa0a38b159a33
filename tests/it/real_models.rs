//! Real weights, where they are at hand: `DEPT_TEST_SMOLLM2` names `SmolLM2-135M-Instruct.Q4_1.gguf` and
//! `DEPT_TEST_GEMMA3` names `gemma-3-270m-q4_k_m.gguf`.

use std::{path::PathBuf, time::Instant};

use dept::{backbones::weights::Weights, layers::Recipe};

use crate::support::causal::{CausalJob, Pieces, generate, load_decoder};

/// The file that an environment variable names; says plainly when there is none.
#[expect(clippy::disallowed_methods, reason = "a test is told where the files are")]
fn file_of(variable: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map(PathBuf::from);
    if path.is_none() {
        eprintln!("skipped: {variable} names no file");
    }
    path
}

/// What the model says after `text`, greedily, in f32 and in 8 bits. Tells how fast.
fn continuations(variable: &str, text: &str) -> Option<[(Vec<u32>, String); 2]> {
    let path = file_of(variable)?;
    let tokenizer = Weights::open(&path).unwrap().tokenizer().unwrap();
    let prompt = tokenizer.encode(text).unwrap();
    let with = |recipe| {
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
        eprintln!("{recipe:?}: prefill {rows:.0} rows/s, decode {decode:.0} tokens/s: {text:?}");
        (found.tokens, text)
    };
    Some([Recipe::F32, Recipe::I8].map(with))
}

#[test]
#[ignore = "needs the file that DEPT_TEST_SMOLLM2 names: just real-models"]
fn smollm2_answers_as_transformers_does() {
    let question = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n";
    // transformers 5.23, f32, on the dequantised weights.
    let expected = [
        504, 3575, 282, 4649, 314, 7042, 30, 2, 198, 2, 1, 9690, 198, 2, 198, 1, 4093, 198, 57, 5248, 3946,
        288, 7198, 253, 725, 1406, 281, 260, 2342, 30, 339, 3543, 2221,
    ];
    let Some([exact, rounded]) = continuations("DEPT_TEST_SMOLLM2", question) else { return };
    assert_eq!(exact.0, expected);
    assert!(rounded.1.starts_with("The capital of France is Paris."), "{}", rounded.1);
}

#[test]
#[ignore = "needs the file that DEPT_TEST_GEMMA3 names: just real-models"]
fn gemma3_goes_on_as_transformers_does() {
    // transformers 5.23, f32, on the dequantised weights.
    let expected = [
        506, 5279, 529, 506, 2891, 529, 7001, 236761, 1030, 563, 506, 7488, 3207, 528, 7001, 532, 506, 1855,
        7488, 3207, 528, 3879, 236761, 1030, 563, 5628, 528, 506, 6029, 529, 506, 2891, 532,
    ];
    let found = continuations("DEPT_TEST_GEMMA3", "The capital of France is");
    let Some([exact, rounded]) = found else { return };
    assert_eq!(exact.0, expected);
    // Weights rounded once more, to 8 bits a row, may choose another word at a close call.
    assert!(rounded.1.contains("France"), "{}", rounded.1);
}
