"""Folders of models with random weights in the shapes of real ones, as `dept` serves and trains them: cost asks for no more.

8-bit maps with one scale a row, in the recipes of the embedded model (T5) and of `--dtype i8` (Llama). The tokenizer is the
embedded model's: it has fewer pieces than the tables have rows, as published T5s do.
"""

import json
import random
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOKENIZER = ROOT / "models/flan-t5-small-en/tokenizer.json"
BYTE_DEVIATION = 73.6  # of uniform bytes
T5_VOCAB, T5_HEAD, BUCKETS = 32_128, 64, 32
CHUNK = 1 << 24


@dataclass(frozen=True)
class Shape:
    """`batch` examples a training step and `requests` a measurement: about as long for each model."""

    kind: str
    hidden: int
    inner: int
    heads: int
    layers: int
    batch: int
    steps: int
    requests: int
    kv_heads: int = 0
    vocab: int = T5_VOCAB


SHAPES = {
    "T5-small": Shape("t5", 512, 2048, 8, 6, batch=16, steps=6, requests=128),
    "T5-base": Shape("t5", 768, 3072, 12, 12, batch=16, steps=3, requests=64),
    "T5-large": Shape("t5", 1024, 4096, 16, 24, batch=8, steps=2, requests=32),
    "Llama-135M": Shape("llama", 576, 1536, 9, 30, batch=8, steps=3, requests=64, kv_heads=3, vocab=49_152),
}
TINY = {
    "T5-tiny": Shape("t5", 64, 128, 2, 2, batch=4, steps=3, requests=8),
    "Llama-tiny": Shape("llama", 64, 128, 2, 2, batch=4, steps=3, requests=8, kv_heads=1, vocab=16_384),
}


class Tensors:
    """What a file holds, before it is written: name, shape, and bytes of noise or one f32."""

    def __init__(self):
        self.list: list[tuple[str, list[int], float | None]] = []

    def linear(self, module: str, n: int, k: int) -> None:
        """An 8-bit map whose outputs are as large as its inputs."""
        self.list.append((f"{module}.weight", [n, k], None))
        self.list.append((f"{module}.weight_scale", [n, 1], 1 / (BYTE_DEVIATION * k**0.5)))

    def constant(self, name: str, shape: list[int], value: float) -> None:
        self.list.append((name, shape, value))

    def write(self, path: Path) -> None:
        header, end = {}, 0
        for name, (rows, *columns), value in self.list:
            count = rows * (columns[0] if columns else 1)
            start, end = end, end + count * (1 if value is None else 4)
            dtype = "I8" if value is None else "F32"
            header[name] = {"dtype": dtype, "shape": [rows, *columns], "data_offsets": [start, end]}
        text = json.dumps(header).encode()
        rng = random.Random(1)
        with path.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for name, _, value in self.list:
                start, end = header[name]["data_offsets"]
                if value is not None:
                    file.write(struct.pack("<f", value) * ((end - start) // 4))
                    continue
                for at in range(start, end, CHUNK):
                    file.write(rng.randbytes(min(CHUNK, end - at)))


def quantization(fine: list[str], table: str) -> dict:
    """int8 weights; activations have 15 bits in `fine` modules and 8 elsewhere."""

    def inputs(bits: int) -> dict:
        return {"num_bits": bits, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True}

    weights = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False}
    groups = {
        "coarse": {"targets": ["Linear"], "weights": weights, "input_activations": inputs(8)},
        "fine": {"targets": fine, "weights": weights, "input_activations": inputs(16)},
        "table": {"targets": [table], "weights": weights, "input_activations": None},
    }
    return {"quant_method": "compressed-tensors", "format": "int-quantized", "ignore": [], "config_groups": groups}


def write(folder: Path, shape: Shape) -> None:
    folder.mkdir(parents=True)
    config, tensors = t5(shape) if shape.kind == "t5" else llama(shape)
    tensors.write(folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(TOKENIZER, folder / "tokenizer.json")


def t5(shape: Shape) -> tuple[dict, Tensors]:
    """A T5 v1.0: relu, tied output map."""
    d, width, tensors = shape.hidden, shape.heads * T5_HEAD, Tensors()
    tensors.linear("shared", shape.vocab, d)
    for side, maps in (("encoder", ["SelfAttention"]), ("decoder", ["SelfAttention", "EncDecAttention"])):
        bias = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        tensors.constant(bias, [BUCKETS, shape.heads], 0.1)
        tensors.constant(f"{side}.final_layer_norm.weight", [d], 1)
        for block in range(shape.layers):
            at = f"{side}.block.{block}.layer"
            for index, name in enumerate(maps):
                for part in "qkv":
                    tensors.linear(f"{at}.{index}.{name}.{part}", width, d)
                tensors.linear(f"{at}.{index}.{name}.o", d, width)
                tensors.constant(f"{at}.{index}.layer_norm.weight", [d], 1)
            tensors.linear(f"{at}.{len(maps)}.DenseReluDense.wi", shape.inner, d)
            tensors.linear(f"{at}.{len(maps)}.DenseReluDense.wo", d, shape.inner)
            tensors.constant(f"{at}.{len(maps)}.layer_norm.weight", [d], 1)
    fine = [
        r"re:decoder\.block\.\d+\.layer\.\d\.SelfAttention\.[qkvo]$",
        r"re:decoder\.block\.\d+\.layer\.\d\.EncDecAttention\.[qo]$",
        r"re:decoder\.block\.\d+\.layer\.\d\.DenseReluDense\.(wi|wo)$",
    ]
    config = {
        "model_type": "t5", "vocab_size": shape.vocab, "d_model": d, "d_kv": T5_HEAD, "d_ff": shape.inner,
        "num_heads": shape.heads, "num_layers": shape.layers, "num_decoder_layers": shape.layers,
        "feed_forward_proj": "relu", "relative_attention_num_buckets": BUCKETS, "relative_attention_max_distance": 128,
        "layer_norm_epsilon": 1e-6, "dropout_rate": 0.1, "initializer_factor": 1.0, "tie_word_embeddings": True,
        "is_encoder_decoder": True, "use_cache": True, "pad_token_id": 0, "eos_token_id": 1,
        "decoder_start_token_id": 0, "quantization_config": quantization(fine, "shared"),
    }  # fmt: skip
    return config, tensors


def llama(shape: Shape) -> tuple[dict, Tensors]:
    """A Llama with a tied output map, 15-bit activations throughout."""
    d, head, tensors = shape.hidden, shape.hidden // shape.heads, Tensors()
    tensors.linear("model.embed_tokens", shape.vocab, d)
    tensors.constant("model.norm.weight", [d], 1)
    for layer in range(shape.layers):
        at = f"model.layers.{layer}"
        for part, n, k in (
            ("self_attn.q_proj", shape.heads * head, d),
            ("self_attn.k_proj", shape.kv_heads * head, d),
            ("self_attn.v_proj", shape.kv_heads * head, d),
            ("self_attn.o_proj", d, shape.heads * head),
            ("mlp.gate_proj", shape.inner, d),
            ("mlp.up_proj", shape.inner, d),
            ("mlp.down_proj", d, shape.inner),
        ):
            tensors.linear(f"{at}.{part}", n, k)
        tensors.constant(f"{at}.input_layernorm.weight", [d], 1)
        tensors.constant(f"{at}.post_attention_layernorm.weight", [d], 1)
    config = {
        "model_type": "llama", "vocab_size": shape.vocab, "hidden_size": d, "intermediate_size": shape.inner,
        "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads, "num_hidden_layers": shape.layers,
        "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 100_000.0, "max_position_embeddings": 2048,
        "tie_word_embeddings": True, "attention_bias": False, "bos_token_id": 1, "eos_token_id": 2,
        "quantization_config": quantization([r"re:model\.layers\..*"], "model.embed_tokens"),
    }  # fmt: skip
    return config, tensors
