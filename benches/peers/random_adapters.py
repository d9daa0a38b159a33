"""DePT adapters of random weights, for benches that ask how fast and not how well."""

import json
import random
import struct
import sys
from array import array
from pathlib import Path

MAX_LENGTH = 256
ALPHA = 8
# Rows of a plain soft prompt with as many parameters.
BUDGET_ROWS = 100


def equal_budget_rank(m: int, d: int) -> int:
    """The largest r with m d + (s + d) r <= 100 d."""
    return (BUDGET_ROWS - m) * d // (MAX_LENGTH + d)


def write(folder: Path, seed: int, d: int = 512, m: int = 20) -> None:
    """One adapter, another one for another seed."""
    config, weights = files(seed, d, m, equal_budget_rank(m, d))
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(weights)
    (folder / "adapter_config.json").write_bytes(config)


def files(seed: int, d: int, m: int, r: int) -> tuple[bytes, bytes]:
    """An adapter's config and weights."""
    rng = random.Random(seed)
    shapes = {
        "prompt_embeddings": (m, d, 1.0),
        "prompt_encoder.lora_embedding_A": (MAX_LENGTH, r, 0.1),
        "prompt_encoder.lora_embedding_B": (r, d, 0.1),
    }
    header, data = {}, array("f")
    for name, (rows, columns, limit) in shapes.items():
        start = len(data) * 4
        data.extend(rng.uniform(-limit, limit) for _ in range(rows * columns))
        header[name] = {"dtype": "F32", "shape": [rows, columns], "data_offsets": [start, len(data) * 4]}
    if sys.byteorder == "big":
        data.byteswap()
    text = json.dumps(header).encode()
    weights = struct.pack("<Q", len(text)) + text + data.tobytes()
    config = {
        "peft_type": "PROMPT_TUNING_LORA",
        "task_type": "SEQ_2_SEQ_LM",
        "base_model_name_or_path": "random",
        "num_virtual_tokens": m,
        "r": r,
        "lora_alpha": ALPHA,
        "max_length": MAX_LENGTH,
        "token_dim": d,
        "num_transformer_submodules": 1,
    }
    return json.dumps(config).encode(), weights


def write_many(root: Path, count: int, **shape: int) -> list[str]:
    names = [f"random-{at:02}" for at in range(count)]
    for seed, name in enumerate(names):
        write(root / name, seed, **shape)
    return names
