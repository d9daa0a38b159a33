//! Hugging Face tensor names to the names that llama.cpp gives them in GGUF files.

/// The stored name of `name` in a file of `architecture`; `None` where the architecture or the name isn't
/// known. `exists` answers whether the file has a tensor (T5's ungated `wi` and gated `wi_1` share a name).
pub(super) fn stored_name(architecture: &str, name: &str, exists: impl Fn(&str) -> bool) -> Option<String> {
    match architecture {
        "t5" | "t5encoder" => t5(name, exists),
        _ => None,
    }
}

fn t5(name: &str, exists: impl Fn(&str) -> bool) -> Option<String> {
    let module = name.strip_suffix(".weight")?;
    let whole = match module {
        "shared" | "encoder.embed_tokens" | "decoder.embed_tokens" => "token_embd",
        "lm_head" => "output",
        "encoder.final_layer_norm" => "enc.output_norm",
        "decoder.final_layer_norm" => "dec.output_norm",
        _ => return t5_block(module, exists).map(|stored| format!("{stored}.weight")),
    };
    Some(format!("{whole}.weight"))
}

/// `encoder.block.3.layer.0.SelfAttention.q` becomes `enc.blk.3.attn_q`.
fn t5_block(module: &str, exists: impl Fn(&str) -> bool) -> Option<String> {
    let (side, feed_forward, rest) = if let Some(rest) = module.strip_prefix("encoder.block.") {
        ("enc", "layer.1", rest)
    } else {
        ("dec", "layer.2", module.strip_prefix("decoder.block.")?)
    };
    let (block, inner) = rest.split_once('.')?;
    let block: u32 = block.parse().ok()?;
    let at = |part: &str| format!("{side}.blk.{block}.{part}");

    if let Some(part) = inner.strip_prefix("layer.0.") {
        return attention(part, "SelfAttention", "attn").map(|part| at(&part));
    }
    if let Some(part) = inner.strip_prefix(feed_forward) {
        let gated = || exists(&format!("{}.weight", at("ffn_gate")));
        return match part {
            ".layer_norm" => Some(at("ffn_norm")),
            ".DenseReluDense.wi" if !gated() => Some(at("ffn_up")),
            ".DenseReluDense.wi_0" => Some(at("ffn_gate")),
            ".DenseReluDense.wi_1" if gated() => Some(at("ffn_up")),
            ".DenseReluDense.wo" => Some(at("ffn_down")),
            _ => None,
        };
    }
    attention(inner.strip_prefix("layer.1.")?, "EncDecAttention", "cross_attn").map(|part| at(&part))
}

fn attention(part: &str, module: &str, stored: &str) -> Option<String> {
    if part == "layer_norm" {
        return Some(format!("{stored}_norm"));
    }
    match part.strip_prefix(module)?.strip_prefix('.')? {
        letter @ ("q" | "k" | "v" | "o") => Some(format!("{stored}_{letter}")),
        "relative_attention_bias" => Some(format!("{stored}_rel_b")),
        _ => None,
    }
}
