//! Models and adapters of random weights, in the shape of real ones: speed asks for no more.
//!
//! Models are written as 8-bit safetensors folders and come in through the door that real ones take.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
    sync::Arc,
};

use dept::adapter::{AdapterLease, folder};
use serde_json::{Map, Value, json};

/// A T5 v1.0: relu, tied output map.
#[derive(Debug, Clone, Copy)]
pub struct T5Shape {
    pub hidden: usize,
    pub inner: usize,
    pub heads: usize,
    pub layers: usize,
}

/// A Llama with a tied output map.
#[derive(Debug, Clone, Copy)]
pub struct LlamaShape {
    pub hidden: usize,
    pub inner: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub layers: usize,
    pub vocab: usize,
}

const T5_VOCAB: usize = 32_128;
const T5_HEAD: usize = 64;
const BUCKETS: usize = 32;
/// Of uniform bytes.
const BYTE_DEVIATION: f32 = 73.6;

/// What a file holds, before it is written.
#[derive(Default)]
struct Tensors {
    list: Vec<(String, Vec<usize>, Fill)>,
}

#[derive(Debug, Clone, Copy)]
enum Fill {
    /// Bytes.
    Noise,
    /// f32, all alike.
    Constant(f32),
    /// f32 within so much of 0.
    Uniform(f32),
}

impl Tensors {
    fn push(&mut self, name: impl Into<String>, shape: &[usize], fill: Fill) {
        self.list.push((name.into(), shape.to_vec(), fill));
    }

    /// An 8-bit map whose outputs are as large as its inputs.
    fn linear(&mut self, module: &str, n: usize, k: usize) {
        self.push(format!("{module}.weight"), &[n, k], Fill::Noise);
        let scale = 1.0 / (BYTE_DEVIATION * (k as f32).sqrt());
        self.push(format!("{module}.weight_scale"), &[n, 1], Fill::Constant(scale));
    }

    fn norm(&mut self, name: &str, d: usize) {
        self.push(format!("{name}.weight"), &[d], Fill::Constant(1.0));
    }

    /// As a safetensors file.
    fn write(&self, path: &Path) -> io::Result<()> {
        let mut header = Map::new();
        let mut end = 0;
        for (name, shape, fill) in &self.list {
            let (dtype, width) = if matches!(fill, Fill::Noise) { ("I8", 1) } else { ("F32", 4) };
            let start = end;
            end += shape.iter().product::<usize>() * width;
            let fields = json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]});
            header.insert(name.clone(), fields);
        }
        let header = Value::Object(header).to_string();
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(header.as_bytes())?;
        let mut noise = Noise(1);
        for (_, shape, fill) in &self.list {
            for _ in 0..shape.iter().product() {
                match *fill {
                    Fill::Noise => file.write_all(&[(noise.next() % 255) as i8 as u8 ^ 0x80])?,
                    Fill::Constant(value) => file.write_all(&value.to_le_bytes())?,
                    Fill::Uniform(limit) => {
                        let unit = noise.next() as f32 / (1u64 << 32) as f32;
                        file.write_all(&(limit * (2.0 * unit - 1.0)).to_le_bytes())?;
                    }
                }
            }
        }
        file.flush()
    }
}

/// Marsaglia's xorshift, 32 bits of it at a time.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 32
    }
}

/// `quantization_config` of int8 weights; activations have 15 bits in `fine` modules and 8 elsewhere.
fn quantization(fine: &[&str], table: &str) -> Value {
    let weights =
        json!({"num_bits": 8, "type": "int", "symmetric": true, "strategy": "channel", "dynamic": false});
    let inputs = |bits: u8| json!({"num_bits": bits, "type": "int", "symmetric": true, "strategy": "token", "dynamic": true});
    json!({
        "quant_method": "compressed-tensors", "format": "int-quantized", "ignore": [],
        "config_groups": {
            "coarse": {"targets": ["Linear"], "weights": weights, "input_activations": inputs(8)},
            "fine": {"targets": fine, "weights": weights, "input_activations": inputs(16)},
            "table": {"targets": [table], "weights": weights, "input_activations": null},
        },
    })
}

/// Writes the folder of a T5 with the embedded model's recipe: what the decoder's own rows enter is finer.
pub fn write_t5(folder: &Path, shape: T5Shape) -> io::Result<()> {
    let T5Shape { hidden, inner, heads, layers } = shape;
    let width = heads * T5_HEAD;
    let mut tensors = Tensors::default();
    tensors.linear("shared", T5_VOCAB, hidden);
    for (side, cross) in [("encoder", false), ("decoder", true)] {
        let bias = format!("{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight");
        tensors.push(bias, &[BUCKETS, heads], Fill::Uniform(1.0));
        tensors.norm(&format!("{side}.final_layer_norm"), hidden);
        for block in 0..layers {
            let at = format!("{side}.block.{block}.layer");
            let names =
                if cross { &["SelfAttention", "EncDecAttention"][..] } else { &["SelfAttention"][..] };
            for (index, name) in names.iter().enumerate() {
                for part in ["q", "k", "v"] {
                    tensors.linear(&format!("{at}.{index}.{name}.{part}"), width, hidden);
                }
                tensors.linear(&format!("{at}.{index}.{name}.o"), hidden, width);
                tensors.norm(&format!("{at}.{index}.layer_norm"), hidden);
            }
            let last = names.len();
            tensors.linear(&format!("{at}.{last}.DenseReluDense.wi"), inner, hidden);
            tensors.linear(&format!("{at}.{last}.DenseReluDense.wo"), hidden, inner);
            tensors.norm(&format!("{at}.{last}.layer_norm"), hidden);
        }
    }
    tensors.write(&folder.join("model.safetensors"))?;
    let fine = [
        r"re:decoder\.block\.\d+\.layer\.\d\.SelfAttention\.[qkvo]$",
        r"re:decoder\.block\.\d+\.layer\.\d\.EncDecAttention\.[qo]$",
        r"re:decoder\.block\.\d+\.layer\.\d\.DenseReluDense\.(wi|wo)$",
    ];
    let config = json!({
        "model_type": "t5", "vocab_size": T5_VOCAB, "d_model": hidden, "d_kv": T5_HEAD, "d_ff": inner,
        "num_heads": heads, "num_layers": layers, "num_decoder_layers": layers, "feed_forward_proj": "relu",
        "relative_attention_num_buckets": BUCKETS, "relative_attention_max_distance": 128,
        "layer_norm_epsilon": 1e-6, "dropout_rate": 0.1, "initializer_factor": 1.0, "tie_word_embeddings": true,
        "is_encoder_decoder": true, "use_cache": true, "pad_token_id": 0, "eos_token_id": 1,
        "decoder_start_token_id": 0, "quantization_config": quantization(&fine, "shared"),
    });
    std::fs::write(folder.join("config.json"), config.to_string())
}

/// Writes the folder of a Llama as `--dtype i8` holds one: 15-bit activations throughout.
pub fn write_llama(folder: &Path, shape: LlamaShape) -> io::Result<()> {
    let LlamaShape { hidden, inner, heads, kv_heads, layers, vocab } = shape;
    let head = hidden / heads;
    let mut tensors = Tensors::default();
    tensors.linear("model.embed_tokens", vocab, hidden);
    tensors.norm("model.norm", hidden);
    for block in 0..layers {
        let at = format!("model.layers.{block}");
        for (part, n, k) in [
            ("self_attn.q_proj", heads * head, hidden),
            ("self_attn.k_proj", kv_heads * head, hidden),
            ("self_attn.v_proj", kv_heads * head, hidden),
            ("self_attn.o_proj", hidden, heads * head),
            ("mlp.gate_proj", inner, hidden),
            ("mlp.up_proj", inner, hidden),
            ("mlp.down_proj", hidden, inner),
        ] {
            tensors.linear(&format!("{at}.{part}"), n, k);
        }
        tensors.norm(&format!("{at}.input_layernorm"), hidden);
        tensors.norm(&format!("{at}.post_attention_layernorm"), hidden);
    }
    tensors.write(&folder.join("model.safetensors"))?;
    let config = json!({
        "model_type": "llama", "vocab_size": vocab, "hidden_size": hidden, "intermediate_size": inner,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "num_hidden_layers": layers,
        "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 100_000.0, "max_position_embeddings": 2048,
        "tie_word_embeddings": true, "attention_bias": false, "bos_token_id": 1, "eos_token_id": 2,
        "quantization_config": quantization(&[r"re:model\.layers\..*"], "model.embed_tokens"),
    });
    std::fs::write(folder.join("config.json"), config.to_string())
}

/// A leased adapter for a model of width `d`: DePT's of `m` rows and rank `r`, or a plain soft prompt where `r` is 0.
pub fn adapter(
    task: &str,
    m: usize,
    r: usize,
    s: usize,
    d: usize,
) -> Result<AdapterLease, Box<dyn std::error::Error>> {
    let home = tempfile::tempdir()?;
    let mut tensors = Tensors::default();
    tensors.push("prompt_embeddings", &[m, d], Fill::Uniform(1.0));
    let mut config = json!({
        "peft_type": "PROMPT_TUNING", "task_type": task, "base_model_name_or_path": "random",
        "num_virtual_tokens": m, "token_dim": d, "num_transformer_submodules": 1,
    });
    if r > 0 {
        tensors.push("prompt_encoder.lora_embedding_A", &[s, r], Fill::Uniform(0.1));
        tensors.push("prompt_encoder.lora_embedding_B", &[r, d], Fill::Uniform(0.1));
        config["peft_type"] = "PROMPT_TUNING_LORA".into();
        config["r"] = r.into();
        config["lora_alpha"] = 8.into();
        config["max_length"] = s.into();
    }
    tensors.write(&home.path().join("adapter_model.safetensors"))?;
    std::fs::write(home.path().join("adapter_config.json"), config.to_string())?;
    let generation = folder::load(home.path())?.into_generation(format!("m{m}-r{r}").parse()?);
    Ok(AdapterLease::new(Arc::new(generation)))
}
