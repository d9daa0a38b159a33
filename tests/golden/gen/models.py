"""The tiny random T5 models: their configurations, weights and Hugging Face folders."""

import json
from pathlib import Path

import torch
from transformers import T5Config, T5ForConditionalGeneration

from . import tokenizer
from .files import write_json, write_safetensors

# In the layout of the published config.json files. The first leaves out what t5-small's leaves out (feed_forward_proj,
# num_decoder_layers, tie_word_embeddings), so that a reader's defaults are tested.
COMMON = {
    "architectures": ["T5ForConditionalGeneration"], "decoder_start_token_id": 0, "dropout_rate": 0.1, "eos_token_id": 1,
    "initializer_factor": 1.0, "is_encoder_decoder": True, "layer_norm_epsilon": 1e-06, "model_type": "t5", "pad_token_id": 0,
    "relative_attention_num_buckets": 32, "use_cache": True,
}
CONFIGS = {
    "t5-v1_0": COMMON | {
        "d_ff": 48, "d_kv": 8, "d_model": 32, "n_positions": 512, "num_heads": 4, "num_layers": 2,
        "relative_attention_max_distance": 20, "vocab_size": 128,
    },
    "t5-v1_1": COMMON | {
        "d_ff": 96, "d_kv": 16, "d_model": 32, "feed_forward_proj": "gated-gelu", "num_decoder_layers": 2, "num_heads": 4,
        "num_layers": 1, "relative_attention_max_distance": 128, "tie_word_embeddings": False, "vocab_size": 128,
    },
}
# Pieces of the tokenizer, sentinels counted: the second model has more rows than pieces, as the published ones do.
PIECES = {"t5-v1_0": 128, "t5-v1_1": 126}
SEEDS = {"t5-v1_0": 6, "t5-v1_1": 13}
ALIASES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")


def spread(name: str, shape, cfg: dict) -> float:
    """The standard deviation of a weight: large enough that attention, buckets and layers all move the output."""
    fan_in = shape[-1] ** -0.5
    if "relative_attention_bias" in name:
        return 3.0
    if name.startswith("shared"):
        return 2.0
    if name.startswith("lm_head"):
        return 3.0 * fan_in
    if name.endswith((".q.weight", ".k.weight")):
        return 1.5 * fan_in * cfg["d_kv"] ** -0.25
    if name.endswith((".o.weight", ".wo.weight")):
        return 3.0 * fan_in
    return 1.5 * fan_in


def weights(name: str) -> dict[str, torch.Tensor]:
    """All tensors of a model by name, drawn in the order of their names; no alias of `shared.weight`."""
    cfg = CONFIGS[name]
    tied = cfg.get("tie_word_embeddings", True)
    shapes = {k: v.shape for k, v in T5ForConditionalGeneration(T5Config(**cfg)).state_dict().items()}
    rng = torch.Generator().manual_seed(SEEDS[name])
    out = {}
    for key in sorted(shapes):
        if key in ALIASES or (tied and key == "lm_head.weight"):
            continue
        draw = torch.randn(shapes[key], generator=rng)
        out[key] = 1.0 + 0.2 * draw if "layer_norm" in key else spread(key, shapes[key], cfg) * draw
    # Half of the last norm's signs are turned: a tied head would else repeat the token that it has just read.
    out["decoder.final_layer_norm.weight"][::2] *= -1
    # pad, eos, unk and rows without a piece: short rows, so that no greedy output ever holds them
    for row in [0, 1, 2, *range(PIECES[name], cfg["vocab_size"])]:
        for key in ("shared.weight", "lm_head.weight"):
            if key in out:
                out[key][row] *= 0.05
    if tied:  # exact in bfloat16, so that the sharded twin in bfloat16 is the same model
        out = {k: v.bfloat16().float() for k, v in out.items()}
    return out


def write(root: Path, name: str):
    """The model's folder; returns the sentencepiece proto for the GGUF writer and the tokenizer."""
    folder = root / name
    write_json(folder / "config.json", CONFIGS[name])
    write_safetensors(folder / "model.safetensors", weights(name), {"format": "pt"})
    proto = tokenizer.train(PIECES[name] - tokenizer.EXTRA_IDS)
    tok = tokenizer.build(proto)
    assert tok.get_vocab_size() == PIECES[name]
    (folder / "tokenizer.json").write_text(tok.to_str(pretty=False) + "\n", encoding="utf-8")
    write_json(folder / "tokenizer_config.json", tokenizer.config())
    return proto, tok


def write_sharded(root: Path, name: str) -> None:
    """The same model in two bfloat16 shards with an index, and with the aliases that older exporters wrote."""
    from safetensors.torch import save_file

    source, folder = root / name, root / f"{name}-sharded"
    folder.mkdir(parents=True, exist_ok=True)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).write_bytes((source / file).read_bytes())
    write_json(folder / "config.json", json.loads((source / "config.json").read_text()) | {"dtype": "bfloat16"})
    tensors = weights(name)
    tensors |= {alias: tensors["shared.weight"].clone() for alias in ALIASES}
    shards = {1: "encoder", 2: "decoder"}
    index, total = {}, 0
    for number, prefix in shards.items():
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        part = {k: v.bfloat16() for k, v in tensors.items() if k.startswith(prefix) or (number == 2 and k == "shared.weight")}
        save_file({k: part[k] for k in sorted(part)}, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(part, file)
        total += sum(v.numel() * 2 for v in part.values())
    weight_map = {k: index[k] for k in sorted(index)}
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})


def load(folder: Path, state: dict | None = None) -> T5ForConditionalGeneration:
    """The model as transformers itself reads the folder: f32, eager attention; `state` replaces its weights."""
    model = T5ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    if state is not None:
        full = dict(state) | {alias: state["shared.weight"] for alias in ALIASES}
        full.setdefault("lm_head.weight", full["shared.weight"])
        model.load_state_dict(full, strict=True)
    untied = json.loads((folder / "config.json").read_text()).get("tie_word_embeddings") is False
    assert untied != torch.equal(model.lm_head.weight, model.shared.weight), "the head is tied as the config says"
    assert model.config.scale_decoder_outputs != untied
    return model
