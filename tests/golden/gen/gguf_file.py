"""T5 as GGUF, with the names, keys and types that llama.cpp's converter writes."""

from pathlib import Path

import gguf
import numpy as np
import torch

NORMAL, UNKNOWN, CONTROL, UNUSED = 1, 2, 3, 5


def vocabulary(proto, rows: int):
    """Tokens, scores and types. As in the converter, rows past the pieces (the sentinels too) are unused `[PADn]`."""
    tokens = [f"[PAD{i}]".encode() for i in range(rows)]
    scores, types = [-10000.0] * rows, [UNUSED] * rows
    kinds = {2: UNKNOWN, 3: CONTROL, 5: UNUSED}  # sentencepiece's numbers are the same
    for i, piece in enumerate(proto.pieces):
        tokens[i], scores[i], types[i] = piece.piece.encode(), piece.score, kinds.get(piece.type, NORMAL)
    return tokens, scores, types


def stored_type(array: np.ndarray, name: str, wanted):
    """f32 for vectors and norms, else the wanted type where rows are whole blocks, else f16 (the relative biases)."""
    if array.ndim <= 1 or name.endswith("_norm.weight"):
        return gguf.GGMLQuantizationType.F32
    if wanted == gguf.GGMLQuantizationType.Q8_0 and array.shape[-1] % 32:
        return gguf.GGMLQuantizationType.F16
    return wanted


def write(path: Path, folder: Path, cfg: dict, weights: dict, proto, wanted) -> dict[str, torch.Tensor]:
    """Writes the file; returns the weights as a reader gets them (dequantised), by their Hugging Face names."""
    arch = gguf.MODEL_ARCH.T5
    out = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    q8 = wanted == gguf.GGMLQuantizationType.Q8_0
    out.add_type("model")
    out.add_name(folder.name)
    out.add_context_length(cfg.get("n_positions", 512))
    out.add_embedding_length(cfg["d_model"])
    out.add_feed_forward_length(cfg["d_ff"])
    out.add_block_count(cfg["num_layers"])
    if "num_decoder_layers" in cfg:
        out.add_decoder_block_count(cfg["num_decoder_layers"])
    out.add_head_count(cfg["num_heads"])
    out.add_key_length(cfg["d_kv"])
    out.add_value_length(cfg["d_kv"])
    out.add_layer_norm_eps(cfg["layer_norm_epsilon"])
    out.add_relative_attn_buckets_count(cfg["relative_attention_num_buckets"])
    out.add_layer_norm_rms_eps(cfg["layer_norm_epsilon"])
    out.add_decoder_start_token_id(cfg["decoder_start_token_id"])
    out.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0 if q8 else gguf.LlamaFileType.ALL_F32)
    out.add_quantization_version(gguf.GGML_QUANT_VERSION)

    tokens, scores, types = vocabulary(proto, cfg["vocab_size"])
    out.add_tokenizer_model("t5")
    out.add_tokenizer_pre("default")
    out.add_token_list(tokens)
    out.add_token_scores(scores)
    out.add_token_types(types)
    out.add_add_space_prefix(proto.normalizer_spec.add_dummy_prefix)
    out.add_remove_extra_whitespaces(proto.normalizer_spec.remove_extra_whitespaces)
    out.add_precompiled_charsmap(proto.normalizer_spec.precompiled_charsmap)
    gguf.SpecialVocab(folder, n_vocab=len(tokens)).add_to_gguf(out)

    names = gguf.get_tensor_name_map(arch, max(cfg["num_layers"], cfg.get("num_decoder_layers", 0)))
    read_back = {}
    for key, tensor in weights.items():
        name = names.get_name(key, try_suffixes=(".weight",))
        assert name, f"no GGUF name for {key}"
        array = tensor.numpy()
        kind = stored_type(array, name, wanted)
        data = gguf.quants.quantize(array, kind)
        out.add_tensor(name, data, raw_dtype=kind)
        back = gguf.quants.dequantize(data, kind).reshape(array.shape)
        read_back[key] = torch.from_numpy(np.array(back, dtype=np.float32))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return read_back
