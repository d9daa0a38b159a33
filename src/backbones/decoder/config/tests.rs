use std::fs;

use serde_json::{Value as Json, json};

use super::{rope::Scaling, *};
use crate::kernels::linear::Activation;

/// A checkpoint's configuration; the folder holds one tensor, for a file of weights has to be there.
fn read_with(config: &Json, generation: Option<&Json>) -> Result<DecoderConfig, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    if let Some(generation) = generation {
        fs::write(folder.path().join("generation_config.json"), generation.to_string()).unwrap();
    }
    let header = br#"{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let file = [&(header.len() as u64).to_le_bytes()[..], header, &[0; 4]].concat();
    fs::write(folder.path().join("model.safetensors"), file).unwrap();
    DecoderConfig::read(&Weights::open(folder.path()).unwrap())
}

fn read(config: &Json) -> Result<DecoderConfig, ConfigError> {
    read_with(config, None)
}

fn llama() -> Json {
    json!({
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100, "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5, "eos_token_id": [2, 7], "bos_token_id": 1
    })
}

fn with(mut config: Json, key: &str, value: Json) -> Json {
    config[key] = value;
    config
}

fn global(config: &DecoderConfig) -> Vec<f32> {
    match &config.positions {
        Positions::Rotary { global, .. } => global.clone(),
        Positions::Learned => Vec::new(),
    }
}

#[test]
fn a_llama_is_read_with_its_defaults() {
    let config = read(&llama()).unwrap();
    assert_eq!(config.heads, HeadShape { heads: 4, kv_heads: 2, dim: 16 });
    assert_eq!((config.layers(), config.tied, config.biases), (3, false, Biases::default()));
    assert_eq!((config.bos, &config.eos[..]), (Some(1), &[2, 7][..]));
    assert_eq!(config.mlp, MlpShape::Gated(Activation::Silu));
    assert_eq!(config.attention_scale, 0.25);
    assert_eq!(global(&config)[0], 1.0);
    assert!(read(&with(llama(), "attention_bias", json!(true))).unwrap().biases.out);
    let named = with(with(llama(), "model_type", Json::Null), "architectures", json!(["LlamaForCausalLM"]));
    assert_eq!(read(&named).unwrap(), config);
}

#[test]
fn what_generation_says_ends_a_text() {
    let ends = |generation: Json| read_with(&llama(), Some(&generation)).unwrap().eos;
    assert_eq!(ends(json!({"eos_token_id": 9})), [9]);
    assert_eq!(ends(json!({"eos_token_id": [5, 6]})), [5, 6]);
    assert_eq!(ends(json!({})), [2, 7]);
}

#[test]
fn both_spellings_of_rotary_parameters_are_one() {
    let scaling = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64});
    let old = with(with(llama(), "rope_theta", json!(5e5)), "rope_scaling", scaling.clone());
    let new = with(llama(), "rope_parameters", with(scaling, "rope_theta", json!(5e5)));
    let old = read(&old).unwrap();
    assert_eq!(old, read(&new).unwrap());
    let plain = rope::frequencies(5e5, 16, Scaling::None);
    let stretched = global(&old);
    assert_eq!(stretched[0], plain[0], "a fast turn stays");
    assert_eq!(stretched[7], plain[7] / 8.0, "a slow turn is stretched");
    assert!(stretched.iter().zip(&plain).any(|(s, p)| *s < *p && *s > p / 8.0), "one between is mixed");
    let linear = with(llama(), "rope_scaling", json!({"type": "linear", "factor": 2.0}));
    assert_eq!(global(&read(&linear).unwrap())[0], 0.5);
}

#[test]
fn gemma_alternates_windows_and_bases() {
    let gemma = json!({
        "model_type": "gemma3_text", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 7,
        "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 16, "vocab_size": 100, "sliding_window": 8,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "query_pre_attn_scalar": 64, "rope_theta": 1e6,
        "rope_local_base_freq": 1e4, "hidden_activation": "gelu_pytorch_tanh", "rope_scaling": {"rope_type": "linear", "factor": 8.0}
    });
    let config = read(&gemma).unwrap();
    let window = Some(8);
    assert_eq!(config.windows, [window, window, window, window, window, None, window]);
    assert_eq!((config.attention_scale, config.embedding_scale, config.tied), (0.125, 8.0, true));
    assert_eq!(config.norm, NormKind::Rms { eps: 1e-6, offset: 1.0 });
    let Positions::Rotary { global, local } = &config.positions else { panic!("Gemma turns") };
    assert_eq!((global[0], local[0]), (0.125, 1.0), "only the global turns are stretched");
    assert_eq!(local[1..], rope::frequencies(1e4, 16, Scaling::None)[1..]);
    let kinds = ["full_attention", "sliding_attention"];
    let listed: Vec<&str> = (0..7).map(|block| kinds[usize::from(block != 2)]).collect();
    let config = read(&with(gemma.clone(), "layer_types", json!(listed))).unwrap();
    assert_eq!(config.windows.iter().position(Option::is_none), Some(2));
    assert!(read(&with(gemma.clone(), "layer_types", json!(["full_attention"]))).is_err());
    assert!(read(&with(gemma, "final_logit_softcapping", json!(30.0))).is_err());
}

#[test]
fn gemma_2_caps_scores_and_logits() {
    let gemma = json!({
        "model_type": "gemma2", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 5, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 100, "sliding_window": 8, "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6, "query_pre_attn_scalar": 64, "rope_theta": 1e4, "hidden_activation": "gelu_pytorch_tanh",
        "attn_logit_softcapping": 20.0
    });
    let config = read(&gemma).unwrap();
    assert_eq!(
        config.soft_caps,
        SoftCaps { scores: Some(20.0), logits: Some(30.0) },
        "the second by default"
    );
    assert_eq!(config.windows, [Some(8), None, Some(8), None, Some(8)]);
    assert_eq!((config.attention_scale, config.embedding_scale, config.tied), (0.125, 8.0, true));
    assert_eq!((config.norm, config.head_norms), (NormKind::Rms { eps: 1e-6, offset: 1.0 }, false));
    let Positions::Rotary { global, local } = &config.positions else { panic!("Gemma turns") };
    assert_eq!(global, local);
    let without = read(&with(gemma.clone(), "attn_logit_softcapping", Json::Null)).unwrap();
    assert_eq!(without.soft_caps.scores, None);
    let kinds = ["full_attention", "sliding_attention"];
    let listed: Vec<&str> = (0..5).map(|block| kinds[usize::from(block == 3)]).collect();
    let newer = with(
        with(gemma.clone(), "layer_types", json!(listed)),
        "rope_parameters",
        json!({"rope_theta": 1e3}),
    );
    let newer = read(&newer).unwrap();
    assert_eq!(newer.windows, [None, None, None, Some(8), None]);
    assert_eq!(self::global(&newer), rope::frequencies(1e3, 16, Scaling::None));
    for bad in [json!(0.0), json!(-1.0), json!("30"), json!(1e39), json!(1e-60)] {
        let error = read(&with(gemma.clone(), "final_logit_softcapping", bad.clone())).unwrap_err();
        assert!(error.to_string().contains("final_logit_softcapping"), "{bad}: {error}");
    }
    assert!(read(&with(gemma, "attention_bias", json!(true))).is_err());
}

/// The scale of the largest releases is that of their width, which a GGUF file says by its number of blocks only.
#[test]
fn gguf_files_of_gemma_say_their_scale_by_their_blocks() {
    for (family, largest) in [("gemma2", 46u32), ("gemma3", 62)] {
        let file =
            fs::read(format!("{}/tests/golden/{family}.f32.gguf", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let key = format!("{family}.block_count");
        let at = file.windows(key.len()).position(|bytes| bytes == key.as_bytes()).unwrap() + key.len() + 4;
        let scale_of = |blocks: u32| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("patched.gguf");
            let mut file = file.clone();
            file[at..at + 4].copy_from_slice(&blocks.to_le_bytes());
            fs::write(&path, file).unwrap();
            let config = DecoderConfig::read(&Weights::open(&path).unwrap()).unwrap();
            assert_eq!(config.eos, [1, 5], "the end of a turn ends a text");
            (config.layers() as u32, config.attention_scale)
        };
        // 32 columns and 4 heads, but heads of 16.
        assert_eq!(scale_of(largest - 1), (largest - 1, 0.25), "{family}");
        assert_eq!(scale_of(largest), (largest, 8f32.powf(-0.5)), "{family}");
    }
}

#[test]
fn what_can_t_be_run_is_refused_by_name() {
    let message = |config: &Json| read(config).unwrap_err().to_string();
    let mamba = message(&with(llama(), "model_type", json!("mamba")));
    assert!(
        mamba.contains("'mamba'") && mamba.contains("gpt2, llama, qwen2, qwen3, gemma2, gemma3"),
        "{mamba}"
    );
    let mut short = llama();
    short.as_object_mut().unwrap().remove("hidden_size");
    assert!(message(&short).contains("no 'hidden_size'"));
    for (key, value) in [
        ("hidden_size", json!("64")),
        ("hidden_size", json!(0)),
        ("hidden_size", json!(-1)),
        ("num_attention_heads", json!(0)),
        ("num_attention_heads", json!(3)),
        ("num_key_value_heads", json!(0)),
        ("num_key_value_heads", json!(3)),
        ("head_dim", json!(15)),
        ("num_hidden_layers", json!(0)),
        ("num_hidden_layers", json!(u64::MAX)),
        ("vocab_size", json!(1u64 << 40)),
        ("rms_norm_eps", json!(-1.0)),
        ("rms_norm_eps", json!([])),
        ("hidden_act", json!("relu6")),
        ("hidden_act", json!(3)),
        ("eos_token_id", json!(100)),
        ("eos_token_id", json!("x")),
        ("rope_theta", json!(0.0)),
        ("rope_scaling", json!({"rope_type": "yarn", "factor": 4.0})),
        ("rope_scaling", json!({"rope_type": "linear"})),
        ("rope_scaling", json!({"rope_type": "linear", "factor": 0.0})),
        ("partial_rotary_factor", json!(0.5)),
        ("num_local_experts", json!(8)),
        ("attention_bias", json!(1)),
    ] {
        assert!(read(&with(llama(), key, value.clone())).is_err(), "{key} = {value}");
    }
}
