//! flan-t5-small from its 8-bit ONNX graphs to a folder of safetensors in the compressed-tensors convention.
//! `models/make_flan_t5_small_en.py` does the same, and cuts the vocabulary.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
};

use anyhow::{Context, ensure};
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value as Json, json};

use super::onnx::{Graph, Tensor};

/// Kept in f32: a few hundred numbers.
const BIAS: &str = "relative_attention_bias.weight";
/// The largest step of a symmetric byte.
const LIMIT: i32 = 127;

/// w = steps * scale, row-major (rows, columns); one scale for all.
struct Quantised {
    rows: usize,
    columns: usize,
    steps: Vec<i32>,
    scale: f32,
}

/// A tensor to be written.
struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

type Model = BTreeMap<String, Stored>;

/// Writes the model's folder from the encoder's and the decoder's graph and the package's tokenizer.
pub(super) fn convert(graphs: &[Vec<u8>; 2], tokenizer: &[u8], to: &Path) -> anyhow::Result<()> {
    let mut model = Model::new();
    for graph in graphs {
        read_graph(&Graph::parse(graph)?, &mut model)?;
    }
    let table = model.get("shared.weight").context("the graphs hold no embedding table")?;
    let rows = *table.shape.first().context("the embedding table has no rows")?;
    let views: Vec<_> = model
        .iter()
        .map(|(name, t)| Ok((name, TensorView::new(t.dtype, t.shape.clone(), &t.bytes)?)))
        .collect::<anyhow::Result<_>>()?;
    let origin = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    fs::write(to.join("model.safetensors"), safetensors::serialize(views, Some(origin))?)?;

    let mut tokenizer: Json = serde_json::from_slice(tokenizer)?;
    for limit in ["truncation", "padding"] {
        tokenizer[limit] = Json::Null;
    }
    fs::write(to.join("tokenizer.json"), serde_json::to_vec(&tokenizer)?)?;
    let ids = json!({"decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0});
    for (name, content) in [("config.json", config(rows)), ("generation_config.json", ids)] {
        fs::write(to.join(name), format!("{content:#}\n"))?;
    }
    Ok(())
}

fn read_graph(graph: &Graph<'_>, model: &mut Model) -> anyhow::Result<()> {
    // The graphs number their matrices; the node that multiplies by one has the module's name.
    let products = graph.nodes.iter().filter(|node| node.kind == "MatMulInteger");
    let modules: HashMap<&str, &str> =
        products.filter_map(|node| Some((node.inputs.get(1)?.as_str(), node.name.as_str()))).collect();
    for (key, tensor) in &graph.tensors {
        let in_tensor = || format!("in the tensor '{key}'");
        if key.ends_with("layer_norm.weight") {
            let values = tensor.floats().with_context(in_tensor)?;
            model.insert(plain_name(key), floats(tensor.shape.clone(), &values));
        } else if let Some(stem) = key.strip_suffix("_quantized") {
            let node = modules.get(key.as_str());
            let name = node.map_or_else(|| plain_name(stem), |node| linear_name(node));
            let quantised = quantised(graph, stem, tensor, node.is_some()).with_context(in_tensor)?;
            insert(model, name, &quantised)?;
        }
    }
    Ok(())
}

/// Reads `{stem}_quantized` with its scale and zero point; a linear's matrix lies transposed, (k, n).
fn quantised(
    graph: &Graph<'_>,
    stem: &str,
    tensor: &Tensor<'_>,
    transposed: bool,
) -> anyhow::Result<Quantised> {
    let part = |suffix: &str| {
        graph.tensors.get(&format!("{stem}{suffix}")).with_context(|| format!("'{stem}{suffix}' is missing"))
    };
    let scale = *part("_scale")?.floats()?.first().context("no scale")?;
    let zero_point = *part("_zero_point")?.bytes()?.first().context("no zero point")?;
    let &[outer, inner] = tensor.shape.as_slice() else { anyhow::bail!("its shape is {:?}", tensor.shape) };
    let mut steps: Vec<i32> = tensor.bytes()?.into_iter().map(|q| q - zero_point).collect();
    if !transposed {
        return Ok(Quantised { rows: outer, columns: inner, steps, scale });
    }
    let by_column = |i: usize| steps[i % outer * inner + i / outer];
    steps = (0..steps.len()).map(by_column).collect();
    Ok(Quantised { rows: inner, columns: outer, steps, scale })
}

fn insert(model: &mut Model, name: String, tensor: &Quantised) -> anyhow::Result<()> {
    let shape = vec![tensor.rows, tensor.columns];
    if name.ends_with(BIAS) {
        let values: Vec<f32> = tensor.steps.iter().map(|&step| step as f32 * tensor.scale).collect();
        model.insert(name, floats(shape, &values));
        return Ok(());
    }
    let (values, scales) = to_rows(tensor);
    let scales = floats(vec![tensor.rows, 1], &scales);
    let bytes = values.into_iter().map(i8::cast_unsigned).collect();
    let stored = Stored { dtype: Dtype::I8, shape, bytes };
    // Both graphs carry the embedding table: it must be one and the same.
    if let Some(earlier) = model.get(&name) {
        ensure!(earlier.bytes == stored.bytes, "the encoder's and the decoder's '{name}' differ");
    }
    model.insert(format!("{name}_scale"), scales);
    model.insert(name, stored);
    Ok(())
}

/// Symmetric bytes with one scale a row. A row within 127 steps keeps the source's scale and so its exact
/// values; another is clipped or given a scale of its own, whichever has the smaller squared error.
fn to_rows(tensor: &Quantised) -> (Vec<i8>, Vec<f32>) {
    let (mut values, mut scales) = (Vec::with_capacity(tensor.steps.len()), Vec::with_capacity(tensor.rows));
    for row in tensor.steps.chunks_exact(tensor.columns) {
        let largest = row.iter().map(|step| step.abs()).max().unwrap_or(0);
        let stretch = f64::from(largest) / f64::from(LIMIT);
        let clipped = |step: &i32| (*step).clamp(-LIMIT, LIMIT);
        let rescaled = |step: &i32| (f64::from(*step) / stretch).round_ties_even() as i32;
        let error_of = |kept: &dyn Fn(&i32) -> f64| -> f64 {
            row.iter().map(|step| (f64::from(*step) - kept(step)).powi(2)).sum()
        };
        let stretches = largest > LIMIT
            && error_of(&|s| f64::from(rescaled(s)) * stretch) < error_of(&|s| f64::from(clipped(s)));
        if stretches {
            values.extend(row.iter().map(|step| rescaled(step) as i8));
            scales.push((f64::from(tensor.scale) * stretch) as f32);
        } else {
            values.extend(row.iter().map(|step| clipped(step) as i8));
            scales.push(tensor.scale);
        }
    }
    (values, scales)
}

fn floats(shape: Vec<usize>, values: &[f32]) -> Stored {
    Stored { dtype: Dtype::F32, shape, bytes: values.iter().flat_map(|v| v.to_le_bytes()).collect() }
}

/// `/m/decoder/block.0/layer.0/SelfAttention/q/MatMul_quant` to `decoder.block.0.layer.0.SelfAttention.q.weight`.
fn linear_name(node: &str) -> String {
    let path = node.strip_suffix("/MatMul_quant").unwrap_or(node).trim_matches('/').replace('/', ".");
    plain_name(&format!("{path}.weight"))
}

/// The graphs' own prefixes to the names of transformers' T5.
fn plain_name(name: &str) -> String {
    match name.strip_prefix("enc.") {
        Some("embed_tokens.weight") => "shared.weight".into(),
        Some(rest) => format!("encoder.{rest}"),
        None => name.strip_prefix("m.").unwrap_or(name).to_owned(),
    }
}

/// What reads the decoder's own rows: the finer inputs cost nothing there, where a step waits for the weights. Measured in
/// `models/README.md`; the same list as `models/activation_bits.py`.
const SIXTEEN_BITS: [&str; 4] = [
    "lm_head",
    r"re:decoder\.block\.\d+\.layer\.\d\.SelfAttention\.[qkvo]$",
    r"re:decoder\.block\.\d+\.layer\.\d\.EncDecAttention\.[qo]$",
    r"re:decoder\.block\.\d+\.layer\.\d\.DenseReluDense\.(wi_0|wi_1|wo)$",
];

/// T5 v1.1 small, with the quantisation told as compressed-tensors does.
fn config(vocab_size: usize) -> Json {
    let input = |bits: u8| json!({"num_bits": bits, "type": "int", "symmetric": true, "strategy": "token", "dynamic": true});
    let group = |targets: &[&str], input: Json| {
        json!({
            "targets": targets,
            "weights": {"num_bits": 8, "type": "int", "symmetric": true, "strategy": "channel", "dynamic": false},
            "input_activations": input,
        })
    };
    json!({
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "d_model": 512, "d_kv": 64, "d_ff": 1024,
        "num_layers": 8, "num_decoder_layers": 8, "num_heads": 6,
        "vocab_size": vocab_size,
        "feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu_new", "is_gated_act": true,
        "is_encoder_decoder": true,
        "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128,
        "layer_norm_epsilon": 1e-6, "dropout_rate": 0.1, "initializer_factor": 1.0,
        "tie_word_embeddings": false, "use_cache": true, "n_positions": 512,
        "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1,
        "torch_dtype": "float32",
        "quantization_config": {
            "quant_method": "compressed-tensors", "format": "int-quantized", "quantization_status": "compressed",
            "config_groups": {
                "group_0": group(&["Linear"], input(8)),
                "group_1": group(&SIXTEEN_BITS, input(16)),
                "group_2": group(&["shared"], Json::Null),
            },
            "ignore": [],
        },
    })
}
