"""Makes `models/flan-t5-small-en/`: flan-t5-small with an English vocabulary, its linears and embeddings in 8 bits.

    pip install -r models/requirements.txt
    python models/make_flan_t5_small_en.py [--out DIR] [--uncut DIR] [--cache DIR]

The same inputs give the same bytes. `--uncut DIR` writes the model with its whole vocabulary instead.
"""

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

import source
import vocabulary
from activation_bits import SIXTEEN_BITS

HERE = Path(__file__).parent
PIECES = 12_288
TABLES = ("shared.weight", "lm_head.weight")  # (vocabulary, d_model)
BIAS = "relative_attention_bias.weight"  # a few hundred numbers: kept in f32
LIMIT = 127


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "flan-t5-small-en", help="the folder to write")
    parser.add_argument("--uncut", type=Path, metavar="DIR", help="write the model with its whole vocabulary to DIR")
    parser.add_argument("--cache", type=Path, default=HERE / ".cache", help="where the packages are kept")
    args = parser.parse_args()

    model = source.MODEL.fetch(args.cache)
    tokenizer = source.read_tokenizer(model)
    quantised, norms = source.read_weights(model)
    rows = len(quantised["shared.weight"].q)
    if args.uncut:
        keep = list(range(rows))
        pieces = range(len(json.loads(tokenizer)["model"]["vocab"]))
        write(args.uncut, quantised, norms, keep, vocabulary.cut(tokenizer, list(pieces)))
    else:
        keep = vocabulary.choose(tokenizer, source.TEXTS.fetch(args.cache), PIECES)
        write(args.out, quantised, norms, keep, vocabulary.cut(tokenizer, keep))


def write(folder: Path, quantised: dict, norms: dict, keep: list[int], tokenizer: bytes) -> None:
    """Writes the folder's files and prints their sizes and sha256."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = dict(norms)
    clipped = 0
    for name, tensor in quantised.items():
        if name.endswith(BIAS):
            tensors[name] = tensor.dequantise()
            continue
        steps = tensor.steps()[keep] if name in TABLES else tensor.steps()
        tensors[name], tensors[f"{name}_scale"], inexact = to_rows(steps, tensor.scale)
        clipped += inexact
    tensors = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "tokenizer.json").write_bytes(tokenizer)
    write_json(folder / "config.json", config(len(keep)))
    write_json(folder / "generation_config.json", {"decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0})
    write_json(folder / "tokenizer_config.json", TOKENIZER_CONFIG)
    print(f"{len(keep)} pieces; rows of the tables that left the source's grid: {clipped}")
    for path in sorted(folder.iterdir()):
        print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.stat().st_size:>10}  {path}")


def to_rows(steps: np.ndarray, scale: np.float32) -> tuple[np.ndarray, np.ndarray, int]:
    """Symmetric 8 bits, one scale a row: ((n, k) i8, (n, 1) f32, the number of rows that are not exact).

    A row within +-127 steps keeps the source's own scale, and so its exact values. Another is clipped or
    given a scale of its own, whichever has the smaller squared error.
    """
    scales = np.full((len(steps), 1), scale, dtype=np.float32)
    rows = np.clip(steps, -LIMIT, LIMIT)
    beyond = np.flatnonzero(np.abs(steps).max(axis=1) > LIMIT)
    for row in beyond:
        exact = steps[row].astype(np.float64)
        stretch = np.abs(exact).max() / LIMIT
        rescaled = np.rint(exact / stretch)
        if np.square(exact - rescaled * stretch).sum() < np.square(exact - rows[row]).sum():
            rows[row] = rescaled
            scales[row] = np.float32(float(scale) * stretch)
    return rows.astype(np.int8), scales, len(beyond)


def config(vocab_size: int) -> dict:
    """config.json: T5 v1.1, with the quantisation told in the convention of compressed-tensors."""
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "d_model": 512,
        "d_kv": 64,
        "d_ff": 1024,
        "num_layers": 8,
        "num_decoder_layers": 8,
        "num_heads": 6,
        "vocab_size": vocab_size,
        "feed_forward_proj": "gated-gelu",
        "dense_act_fn": "gelu_new",
        "is_gated_act": True,
        "is_encoder_decoder": True,
        "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128,
        "layer_norm_epsilon": 1e-6,
        "dropout_rate": 0.1,
        "initializer_factor": 1.0,
        "tie_word_embeddings": False,
        "use_cache": True,
        "n_positions": 512,
        "decoder_start_token_id": 0,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "torch_dtype": "float32",
        "quantization_config": quantization_config(),
    }


def quantization_config() -> dict:
    """Which linears see activations of 16 bits (the rest see 8); the embedding table has no activations.

    Weights: symmetric 8 bits, one scale a row (`<name>_scale`). Activations: symmetric, a scale a token, found
    as they come.
    """
    group = lambda targets, bits: {
        "targets": targets,
        "weights": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False},
        "input_activations": bits
        and {"num_bits": bits, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True},
    }
    return {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "config_groups": {
            "group_0": group(["Linear"], 8),
            "group_1": group(SIXTEEN_BITS, 16),
            "group_2": group(["shared"], None),
        },
        "ignore": [],
    }


TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "clean_up_tokenization_spaces": False,
    "model_max_length": 512,
}


def write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


if __name__ == "__main__":
    main()
