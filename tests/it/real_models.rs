//! Real weights, where they are at hand: `DEPT_TEST_SMOLLM2` names `SmolLM2-135M-Instruct.Q4_1.gguf` and
//! `DEPT_TEST_GEMMA3` names `gemma-3-270m-q4_k_m.gguf`.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::Instant,
};

use candle_core::{
    DType, Device,
    quantized::{GgmlDType, QTensor, gguf_file},
};
use dept::{
    backbones::{decoder::Decoder, weights::Weights},
    layers::Recipe,
};
use serde::Deserialize;

use crate::support::{
    causal::{CausalJob, Pieces, generate, generate_over, load_decoder, load_decoder_to, perplexity},
    golden,
};

/// The file that an environment variable names; says plainly when there is none.
#[expect(clippy::disallowed_methods, reason = "a test is told where the files are")]
pub fn file_of(variable: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map(PathBuf::from);
    if path.is_none() {
        eprintln!("skipped: {variable} names no file");
    }
    path
}

/// What the model says after `text`, greedily, in f32, as stored and in 8 bits. Tells how fast.
fn continuations(variable: &str, text: &str) -> Option<[(Vec<u32>, String); 3]> {
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
    Some([Recipe::F32, Recipe::Stored, Recipe::I8].map(with))
}

/// What transformers computes on the file's weights, dequantised: made by `tests/golden/make_real.py`.
#[derive(Deserialize)]
struct Expected {
    sha256: String,
    text: Text,
    prompts: Vec<Prompt>,
}

#[derive(Deserialize)]
struct Text {
    file: String,
    ids: Vec<u32>,
    perplexity: f64,
}

#[derive(Deserialize)]
struct Prompt {
    prompt: String,
    ids: Vec<u32>,
    tokens: Vec<u32>,
}

#[test]
#[ignore = "needs the file that DEPT_TEST_SMOLLM2 names: just real-models"]
fn smollm2_answers_as_transformers_does() {
    let Some(path) = file_of("DEPT_TEST_SMOLLM2") else { return };
    let expected = std::fs::read_to_string(golden("real/smollm2.json")).unwrap();
    let Expected { sha256, text, prompts } = serde_json::from_str(&expected).unwrap();
    let weights = Weights::open(&path).unwrap();
    assert_eq!(weights.fingerprint(), sha256, "the very file that transformers read");
    let tokenizer = weights.tokenizer().unwrap();
    assert_eq!(prompts.len(), 20);
    for prompt in &prompts {
        assert_eq!(tokenizer.encode(&prompt.prompt).unwrap(), prompt.ids, "{:?}", prompt.prompt);
    }
    let written = std::fs::read_to_string(golden(&format!("real/{}", text.file))).unwrap();
    assert_eq!(tokenizer.encode(&written).unwrap(), text.ids);

    // Each answer goes its own way after its first other token. As stored, activations are rounded to 8 bits or, fine, to 15, and
    // keys and values to 11, as they are served. I8 rounds the weights once more. Where a close call may fall otherwise the bound
    // is what was measured, less a margin.
    let recipes = [
        (Recipe::F32, DType::F32, 0.95, 0.001),
        (Recipe::F32, DType::F16, 0.95, 0.001),
        (Recipe::Fine, DType::F32, 0.95, 0.001),
        (Recipe::Stored, DType::F32, 0.7, 0.002),
        (Recipe::Stored, DType::F16, 0.6, 0.01),
        (Recipe::I8, DType::F16, 0.5, 0.01),
    ];
    for (recipe, kv_dtype, least_equal, most_off) in recipes {
        let model = load_decoder_to(&path, recipe, 2, text.ids.len());
        let start = Instant::now();
        let equal = equal_tokens(&model, kv_dtype, &prompts);
        let answered = start.elapsed().as_secs_f64();
        let found = perplexity(&model, kv_dtype, &text.ids);
        let off = found / text.perplexity - 1.0;
        eprintln!(
            "{recipe:?}, K/V {kv_dtype:?}: {:.1} % of {} tokens equal ({answered:.0} s); perplexity {found:.4} for {:.4} ({:+.3} %)",
            1e2 * equal,
            24 * prompts.len(),
            text.perplexity,
            1e2 * off
        );
        assert!(equal >= least_equal, "{recipe:?}: {equal} of the greedy tokens are equal");
        assert!(off.abs() <= most_off, "{recipe:?}: perplexity {found}, transformers' {}", text.perplexity);
    }
}

#[test]
#[ignore = "needs the file that DEPT_TEST_SMOLLM2 names: just real-models"]
fn smollm2_in_q8_0_keeps_the_perplexity_of_f32() {
    let Some(path) = file_of("DEPT_TEST_SMOLLM2") else { return };
    let expected = std::fs::read_to_string(golden("real/smollm2.json")).unwrap();
    let Expected { text, .. } = serde_json::from_str(&expected).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let q8_0 = folder.path().join("SmolLM2-135M-Instruct.Q8_0.gguf");
    write_q8_0(&path, &q8_0);
    for (recipe, kv_dtype, most_off) in
        [(Recipe::Fine, DType::F32, 0.002), (Recipe::Stored, DType::F16, 0.01)]
    {
        let found = perplexity(&load_decoder_to(&q8_0, recipe, 2, text.ids.len()), kv_dtype, &text.ids);
        let off = found / text.perplexity - 1.0;
        eprintln!("Q8_0, {recipe:?}, K/V {kv_dtype:?}: perplexity {found:.4} ({:+.3} %)", 1e2 * off);
        assert!(off.abs() <= most_off, "{recipe:?}: perplexity {found}, transformers' {}", text.perplexity);
    }
}

/// The file at `from` with all its matrices in Q8_0.
fn write_q8_0(from: &Path, to: &Path) {
    let mut file = File::open(from).unwrap();
    let content = gguf_file::Content::read(&mut file).unwrap();
    let mut tensors = Vec::new();
    for (name, info) in &content.tensor_infos {
        let tensor = content.tensor(&mut file, name, &Device::Cpu).unwrap();
        let is_matrix = info.shape.rank() == 2;
        let bytes = |tensor: QTensor| {
            QTensor::quantize(&tensor.dequantize(&Device::Cpu).unwrap(), GgmlDType::Q8_0).unwrap()
        };
        tensors.push((name.as_str(), if is_matrix { bytes(tensor) } else { tensor }));
    }
    let metadata: Vec<_> = content.metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
    let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
    gguf_file::write(&mut File::create(to).unwrap(), &metadata, &tensors).unwrap();
}

/// The share of greedy tokens that are transformers'.
fn equal_tokens(model: &Decoder, kv_dtype: DType, prompts: &[Prompt]) -> f64 {
    let jobs: Vec<_> = prompts
        .iter()
        .map(|prompt| CausalJob { prompt: &prompt.ids, adapter: None, new_tokens: prompt.tokens.len() })
        .collect();
    let found = generate_over(kv_dtype, model, &jobs, Pieces::Whole);
    let pairs = found.iter().zip(prompts).flat_map(|(found, prompt)| found.tokens.iter().zip(&prompt.tokens));
    let equal: Vec<bool> = pairs.map(|(found, expected)| found == expected).collect();
    equal.iter().filter(|&&equal| equal).count() as f64 / equal.len() as f64
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
    let Some([exact, stored, rounded]) = found else { return };
    assert_eq!(exact.0, expected);
    // Weights rounded once more, to 8 bits a row, may choose another word at a close call.
    for other in [stored, rounded] {
        assert!(other.1.contains("France"), "{}", other.1);
    }
}
