//! Hugging Face tensor names to the names that llama.cpp gives them in GGUF files.

/// The stored name of `name` in a file of `architecture`; `None` where the architecture or the name isn't
/// known. `exists` answers whether the file has a tensor (T5's ungated `wi` and gated `wi_1` share a name).
pub(super) fn stored_name(architecture: &str, name: &str, exists: impl Fn(&str) -> bool) -> Option<String> {
    match architecture {
        "t5" | "t5encoder" => t5(name, exists),
        "gpt2" => decoder(name, gpt2_part),
        "llama" | "qwen2" | "qwen3" => decoder(name, llama_part),
        "gemma2" | "gemma3" => decoder(name, gemma_part),
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

/// Decoder-only models: `model.layers.3.mlp.up_proj.bias` becomes `blk.3.ffn_up.bias`.
fn decoder(name: &str, part: fn(&str) -> Option<&'static str>) -> Option<String> {
    let (module, kind) = name.rsplit_once('.').filter(|(_, kind)| matches!(*kind, "weight" | "bias"))?;
    let stored = match module {
        "model.embed_tokens" | "transformer.wte" => "token_embd",
        "transformer.wpe" => "position_embd",
        "model.norm" | "transformer.ln_f" => "output_norm",
        "lm_head" => "output",
        "rope_freqs" => "rope_freqs",
        _ => {
            let rest =
                module.strip_prefix("model.layers.").or_else(|| module.strip_prefix("transformer.h."))?;
            let (block, inner) = rest.split_once('.')?;
            let block: u32 = block.parse().ok()?;
            return Some(format!("blk.{block}.{}.{kind}", part(inner)?));
        }
    };
    Some(format!("{stored}.{kind}"))
}

fn gpt2_part(part: &str) -> Option<&'static str> {
    Some(match part {
        "ln_1" => "attn_norm",
        "attn.c_attn" => "attn_qkv",
        "attn.c_proj" => "attn_output",
        "ln_2" => "ffn_norm",
        "mlp.c_fc" => "ffn_up",
        "mlp.c_proj" => "ffn_down",
        _ => return None,
    })
}

fn llama_part(part: &str) -> Option<&'static str> {
    Some(match part {
        "input_layernorm" => "attn_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.q_norm" => "attn_q_norm",
        "self_attn.k_norm" => "attn_k_norm",
        "self_attn.o_proj" => "attn_output",
        "post_attention_layernorm" => "ffn_norm",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        _ => return None,
    })
}

/// The norm called `post_attention_layernorm` lies behind attention here, not before the MLP.
fn gemma_part(part: &str) -> Option<&'static str> {
    match part {
        "post_attention_layernorm" => Some("post_attention_norm"),
        "pre_feedforward_layernorm" => Some("ffn_norm"),
        "post_feedforward_layernorm" => Some("post_ffw_norm"),
        other => llama_part(other),
    }
}
