"""The tiny random decoder-only models: their configurations, weights and Hugging Face folders."""

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from . import bpe, gemma_tokenizer
from .files import write_json

# In the layout of the published config.json files: `rope_theta` and `rope_scaling` at the top, no `head_dim` where it is
# hidden_size / num_attention_heads, no `tie_word_embeddings` where the family's default holds.
GATED = {
    "hidden_act": "silu", "hidden_size": 32, "initializer_range": 0.02, "intermediate_size": 64, "max_position_embeddings": 128,
    "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 2, "rms_norm_eps": 1e-05, "use_cache": True,
    "vocab_size": 288,
}
CONFIGS = {
    "gpt2": {
        "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1, "bos_token_id": 287,
        "embd_pdrop": 0.1, "eos_token_id": 287, "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "model_type": "gpt2",
        "n_ctx": 80, "n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 80, "resid_pdrop": 0.1, "vocab_size": 288,
    },
    "llama": GATED | {
        "architectures": ["LlamaForCausalLM"], "attention_bias": False, "bos_token_id": 1, "eos_token_id": 2, "model_type": "llama",
        "pad_token_id": 2, "rope_scaling": None, "rope_theta": 10000.0, "tie_word_embeddings": False,
    },
    "llama3": GATED | {
        "architectures": ["LlamaForCausalLM"], "attention_bias": False, "bos_token_id": 283, "eos_token_id": [284, 287], "head_dim": 16,
        "mlp_bias": False, "model_type": "llama", "num_key_value_heads": 1, "rope_scaling": {
            "factor": 4.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 64,
            "rope_type": "llama3",
        }, "rope_theta": 500000.0, "tie_word_embeddings": True,
    },
    "qwen2": GATED | {
        "architectures": ["Qwen2ForCausalLM"], "bos_token_id": 277, "eos_token_id": 279, "max_window_layers": 2, "model_type": "qwen2",
        "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 16, "tie_word_embeddings": True, "use_sliding_window": False,
    },
    "qwen3": GATED | {
        "architectures": ["Qwen3ForCausalLM"], "attention_bias": False, "bos_token_id": 275, "eos_token_id": 277, "head_dim": 16,
        "max_window_layers": 2, "model_type": "qwen3", "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 1000000,
        "sliding_window": None, "tie_word_embeddings": True, "use_sliding_window": False,
    },
    "gemma2": {  # caps that its scores and logits really come to
        "architectures": ["Gemma2ForCausalLM"], "attention_bias": False, "attn_logit_softcapping": 2.0, "bos_token_id": 2,
        "cache_implementation": "hybrid", "eos_token_id": 1, "final_logit_softcapping": 8.0, "head_dim": 16,
        "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 32, "initializer_range": 0.02,
        "intermediate_size": 32, "max_position_embeddings": 128, "model_type": "gemma2", "num_attention_heads": 4,
        "num_hidden_layers": 4, "num_key_value_heads": 2, "pad_token_id": 0, "query_pre_attn_scalar": 16, "rms_norm_eps": 1e-06,
        "rope_theta": 10000.0, "sliding_window": 8, "use_cache": True, "vocab_size": 352,
    },
    "gemma3": {
        "architectures": ["Gemma3ForCausalLM"], "attention_bias": False, "attn_logit_softcapping": None, "bos_token_id": 2,
        "eos_token_id": 1, "final_logit_softcapping": None, "head_dim": 16, "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": 32, "initializer_range": 0.02, "intermediate_size": 32, "max_position_embeddings": 128,
        "model_type": "gemma3_text", "num_attention_heads": 4, "num_hidden_layers": 6, "num_key_value_heads": 1, "pad_token_id": 0,
        "query_pre_attn_scalar": 40, "rms_norm_eps": 1e-06, "rope_local_base_freq": 1000.0, "rope_scaling": None,
        "rope_theta": 1000000.0, "sliding_window": 8, "sliding_window_pattern": 6, "use_cache": True, "vocab_size": 352,
    },
}
# Tokens of the tokenizer: the Qwens have more rows than tokens, as the published ones do.
TOKENS = {"gpt2": 288, "llama": 288, "llama3": 288, "qwen2": 280, "qwen3": 280, "gemma2": 352, "gemma3": 352}
SEEDS = {"gpt2": 1, "llama": 4, "llama3": 1, "qwen2": 2, "qwen3": 1, "gemma2": 24, "gemma3": 2}
PUBLISHED_F32 = ("gpt2",)  # the others are bfloat16 on disk, and exact in it


def width(name: str) -> int:
    return CONFIGS[name].get("n_embd") or CONFIGS[name]["hidden_size"]


def draw(name: str, key: str, shape, rng: torch.Generator) -> torch.Tensor:
    """One tensor: large enough that attention, positions, biases and layers all move the output."""
    noise = torch.randn(shape, generator=rng)
    gemma, conv = name.startswith("gemma"), name == "gpt2"
    if "norm" in key or "ln_" in key:
        if key.endswith("bias"):
            return 0.1 * noise
        centre = 1.4 if "q_norm" in key or "k_norm" in key else 1.0
        return 0.2 * noise + (centre - 1.0 if gemma else centre)
    if key.endswith("bias"):
        return (0.1 if conv else 0.5) * noise
    if "wpe" in key:
        return 0.7 * noise
    if "embed_tokens" in key or "wte" in key:
        return noise * (0.4 if gemma else 0.7)  # as the head they give logits a spread of 3 or so
    fan_in = shape[0 if conv else -1] ** -0.5
    if "lm_head" in key:
        return 3.0 * fan_in * noise
    if any(k in key for k in ("o_proj", "down_proj", "c_proj")):
        return (4.0 if conv else 3.0) * fan_in * noise
    if "c_attn" in key:  # queries and keys wider than values; no transposition: (in, 3 * out)
        return fan_in * noise * torch.tensor([1.3, 1.3, 1.5]).repeat_interleave(shape[1] // 3)
    return (1.0 if "q_proj" in key or "k_proj" in key else 1.5) * fan_in * noise


def special_ids(name: str, tok) -> list[int]:
    """Ids that no greedy output may hold: added tokens and rows without a token."""
    return [*tok.get_added_tokens_decoder(), *range(TOKENS[name], CONFIGS[name]["vocab_size"])]


def weights(name: str, tok) -> dict[str, torch.Tensor]:
    """All tensors of a model by transformers' names, drawn in the order of their names; no alias of a tied head."""
    cfg = dict(CONFIGS[name])
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**cfg))
    shapes = {k: v.shape for k, v in model.state_dict().items()}
    tied = model.config.tie_word_embeddings
    rng = torch.Generator().manual_seed(SEEDS[name])
    out = {k: draw(name, k, shapes[k], rng) for k in sorted(shapes) if not (tied and k == "lm_head.weight")}
    # Half of the last norm's signs are turned: a tied head would else repeat the token that it has just read.
    last = "transformer.ln_f.weight" if name == "gpt2" else "model.norm.weight"
    shift = 1.0 if name.startswith("gemma") else 0.0
    out[last][::2] = -(out[last][::2] + shift) - shift
    for row in special_ids(name, tok):
        for key in out:
            if "wte" in key or "embed_tokens" in key or "lm_head" in key:
                out[key][row] *= 0.05
    return out if name in PUBLISHED_F32 else {k: v.bfloat16().float() for k, v in out.items()}


def on_disk(name: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors as published files hold them. GPT-2's: no `transformer.` in the names, and each layer's causal mask."""
    if name not in PUBLISHED_F32:
        return {k: v.bfloat16() for k, v in tensors.items()}
    cfg = CONFIGS[name]
    n = cfg["n_positions"]
    masks = {f"h.{i}.attn.bias": torch.tril(torch.ones(1, 1, n, n, dtype=torch.uint8)) for i in range(cfg["n_layer"])}
    return {k.removeprefix("transformer."): v for k, v in tensors.items()} | masks


def write(root: Path, name: str):
    """The model's folder; returns (tokenizer, tokenizer_config.json, chat template, Gemma's sentencepiece proto, weights)."""
    from safetensors.torch import save_file

    folder = root / name
    write_json(folder / "config.json", CONFIGS[name])
    proto = None
    if name.startswith("gemma"):
        tok, config, proto = gemma_tokenizer.build(TOKENS[name])
        (folder / "chat_template.jinja").write_text(gemma_tokenizer.TEMPLATE, encoding="utf-8")
        template = gemma_tokenizer.TEMPLATE
    else:
        tok, config = bpe.build(name, TOKENS[name])
        template = config.get("chat_template")
    (folder / "tokenizer.json").write_text(tok.to_str(pretty=False) + "\n", encoding="utf-8")
    write_json(folder / "tokenizer_config.json", config)
    for key in ("bos", "eos"):
        ids, token = CONFIGS[name][f"{key}_token_id"], config[f"{key}_token"]
        assert token is None or tok.token_to_id(token) in (ids if isinstance(ids, list) else [ids])
    tensors = weights(name, tok)
    stored = on_disk(name, tensors)
    save_file({k: stored[k].contiguous() for k in sorted(stored)}, folder / "model.safetensors", metadata={"format": "pt"})
    return tok, config, template, proto, tensors


def check_caps(folder: Path, tensors: dict[str, torch.Tensor], ids: list[int]) -> None:
    """Both of Gemma 2's caps change its logits."""
    ids = torch.tensor([ids])
    with torch.no_grad():
        capped = load(folder, tensors)(input_ids=ids).logits
        for cap in ("attn_logit_softcapping", "final_logit_softcapping"):
            free = load(folder, tensors, **{cap: None})(input_ids=ids).logits
            assert (free - capped).abs().max() > 0.1, cap


def load(folder: Path, tensors: dict[str, torch.Tensor], local_base: float | None = None, **changed):
    """The model as transformers itself reads the folder: f32, eager attention. `local_base` (Gemma's) and `changed` are
    configuration values; `tensors` replace the weights where they differ from the folder's (8-bit files)."""
    config = AutoConfig.from_pretrained(folder)
    if local_base is not None:
        config.rope_parameters["sliding_attention"]["rope_theta"] = local_base
    for key, value in changed.items():
        setattr(config, key, value)
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, config=config, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    assert not info["missing_keys"] and not info["mismatched_keys"], info
    state = model.state_dict()
    assert model.config.tie_word_embeddings == ("lm_head.weight" not in tensors)
    with torch.no_grad():
        for key, value in tensors.items():
            state[key].copy_(value)
    return model.eval()
