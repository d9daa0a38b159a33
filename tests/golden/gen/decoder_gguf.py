"""Decoder-only models as GGUF, with the names, keys, types and changes of llama.cpp's converter."""

import json
import math
from pathlib import Path

import gguf
import numpy as np
import torch

from . import bpe
from .decoders import CONFIGS
from .gguf_file import CONTROL, NORMAL, UNKNOWN, UNUSED, stored_type

USER_DEFINED, BYTE = 4, 6
ARCH = {
    "gpt2": gguf.MODEL_ARCH.GPT2, "llama": gguf.MODEL_ARCH.LLAMA, "llama3": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3, "gemma2": gguf.MODEL_ARCH.GEMMA2,
    "gemma3": gguf.MODEL_ARCH.GEMMA3,
}


def parameters(out: gguf.GGUFWriter, name: str, cfg: dict) -> None:
    """The architecture's keys. Gemma 3's local base, the scale of queries and the pattern of windows have none."""
    out.add_block_count(cfg.get("n_layer") or cfg["num_hidden_layers"])
    out.add_context_length(cfg.get("n_ctx") or cfg["max_position_embeddings"])
    out.add_embedding_length(cfg.get("n_embd") or cfg["hidden_size"])
    out.add_feed_forward_length(4 * cfg["n_embd"] if name == "gpt2" else cfg["intermediate_size"])
    out.add_head_count(cfg.get("n_head") or cfg["num_attention_heads"])
    if name == "gpt2":
        out.add_layer_norm_eps(cfg["layer_norm_epsilon"])
        return
    out.add_head_count_kv(cfg["num_key_value_heads"])
    out.add_rope_freq_base(cfg["rope_theta"])
    out.add_layer_norm_rms_eps(cfg["rms_norm_eps"])
    if "head_dim" in cfg:
        out.add_key_length(cfg["head_dim"])
        out.add_value_length(cfg["head_dim"])
    if name.startswith("gemma"):
        out.add_sliding_window(cfg["sliding_window"])
    if name == "gemma2":
        out.add_attn_logit_softcapping(cfg["attn_logit_softcapping"])
        out.add_final_logit_softcapping(cfg["final_logit_softcapping"])
    if cfg["model_type"] == "llama":
        out.add_vocab_size(cfg["vocab_size"])
        out.add_rope_dimension_count(cfg.get("head_dim") or cfg["hidden_size"] // cfg["num_attention_heads"])


def byte_level(out: gguf.GGUFWriter, folder: Path, family: str, tok, rows: int) -> None:
    """A `gpt2` tokenizer: tokens in the byte alphabet, types, merges, the cut's name; rows without a token are `[PADn]`."""
    names = {i: t for t, i in tok.get_vocab().items()}
    added = tok.get_added_tokens_decoder()
    kinds = {i: CONTROL if t.special else USER_DEFINED for i, t in added.items()}
    config = json.loads((folder / "tokenizer_config.json").read_text())
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre(bpe.FAMILIES[family][0])
    out.add_token_list([names.get(i, f"[PAD{i}]") for i in range(rows)])
    out.add_token_types([kinds.get(i, NORMAL) if i in names else UNUSED for i in range(rows)])
    gguf.SpecialVocab(folder, load_merges=True).add_to_gguf(out, quiet=True)
    if family.startswith("llama") and "add_prefix_space" in config:
        out.add_add_space_prefix(config["add_prefix_space"])
    if family == "llama":  # as in SmolLM2's files; the converter knows it by the size of its vocabulary
        out.add_add_bos_token(False)


def sentencepiece(out: gguf.GGUFWriter, folder: Path, proto) -> None:
    """A `llama` tokenizer: pieces, scores (minus the merge's rank) and types; no merges."""
    kinds = {2: UNKNOWN, 3: CONTROL, 4: USER_DEFINED, 5: UNUSED, 6: BYTE}
    out.add_tokenizer_model("llama")
    out.add_tokenizer_pre("default")
    out.add_token_list([p.piece.encode() for p in proto.pieces])
    out.add_token_scores([p.score for p in proto.pieces])
    out.add_token_types([kinds.get(p.type, NORMAL) for p in proto.pieces])
    gguf.SpecialVocab(folder, n_vocab=len(proto.pieces)).add_to_gguf(out, quiet=True)
    out.add_add_space_prefix(False)


def permute(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """Each head's rows from halves (x_i turns with x_{i + d/2}) to neighbours (x_2i with x_2i+1)."""
    return rows.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def unpermute(rows: torch.Tensor, heads: int) -> torch.Tensor:
    return rows.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def changed(name: str, cfg: dict, key: str, tensor: torch.Tensor, back: bool = False) -> torch.Tensor:
    """What the converter does to a tensor, or undoes: GPT-2's Conv1D transposed, Llama's q and k permuted, Gemma's norms + 1."""
    if name == "gpt2" and key.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
        return tensor.T
    if cfg["model_type"] == "llama" and key.endswith(("q_proj.weight", "k_proj.weight")):
        heads = cfg["num_attention_heads" if "q_proj" in key else "num_key_value_heads"]
        return (unpermute if back else permute)(tensor, heads)
    if name.startswith("gemma") and key.endswith("norm.weight"):
        return tensor - 1.0 if back else tensor + 1.0
    return tensor


def rope_factors(cfg: dict) -> np.ndarray:
    """`rope_freqs.weight`: what Llama 3 divides each frequency by."""
    s = cfg["rope_scaling"]
    out = []
    for i in range(0, cfg["head_dim"], 2):
        turns = s["original_max_position_embeddings"] / (2 * math.pi * cfg["rope_theta"] ** (i / cfg["head_dim"]))
        smooth = (turns - s["low_freq_factor"]) / (s["high_freq_factor"] - s["low_freq_factor"])
        smooth = min(max(smooth, 0.0), 1.0)
        out.append(1.0 / ((1.0 - smooth) / s["factor"] + smooth))
    assert 1.0 in out and s["factor"] in out and any(1.0 < f < s["factor"] for f in out), "all three kinds"
    return np.array(out, dtype=np.float32)


def write(path: Path, folder: Path, name: str, tok, proto, weights: dict, wanted) -> dict[str, torch.Tensor]:
    """Writes the file; returns the weights as a reader gets them (dequantised, changes undone), by transformers' names."""
    cfg, arch = CONFIGS[name], ARCH[name]
    out = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    q8 = wanted == gguf.GGMLQuantizationType.Q8_0
    out.add_type("model")
    out.add_name(name)
    parameters(out, name, cfg)
    out.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0 if q8 else gguf.LlamaFileType.ALL_F32)
    if proto is None:
        byte_level(out, folder, name, tok, cfg["vocab_size"])
    else:
        sentencepiece(out, folder, proto)
    out.add_quantization_version(gguf.GGML_QUANT_VERSION)
    if cfg.get("rope_scaling"):
        out.add_tensor("rope_freqs.weight", rope_factors(cfg))
    names = gguf.get_tensor_name_map(arch, cfg.get("n_layer") or cfg["num_hidden_layers"])
    read_back = {}
    for key, tensor in weights.items():
        to = names.get_name(key, try_suffixes=(".weight", ".bias"))
        assert to, f"no GGUF name for {key}"
        array = np.ascontiguousarray(changed(name, cfg, key, tensor).numpy())
        kind = stored_type(array, to, wanted)
        data = gguf.quants.quantize(array, kind)
        out.add_tensor(to, data, raw_dtype=kind)
        got = torch.from_numpy(np.array(gguf.quants.dequantize(data, kind).reshape(array.shape), dtype=np.float32))
        read_back[key] = changed(name, cfg, key, got, back=True).contiguous()
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return read_back


def check_by_transformers(path: Path, folder: Path, weights: dict[str, torch.Tensor]) -> None:
    """transformers' own GGUF reader finds the same weights. Its configuration is the folder's: it reads no head_dim of Qwen 3."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    file = str(path.resolve())  # a bare name would first be looked for in the working directory
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=file, config=config, dtype=torch.float32)
    state = model.state_dict()
    for key, value in weights.items():
        assert torch.equal(state[key], value), key
