"""ADePT adapters, with and without biases, and the embeddings `[P; E']` that they make, summed in f64."""

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from .files import write_json, write_safetensors

MODEL, M, RANK, LENGTH = "t5-v1_1", 4, 5, 24
FORMS = {"biased": "PROMPT_TUNING_LORAX", "unbiased": "PROMPT_TUNING_LORA"}


def config(peft_type: str, hidden: int) -> dict:
    """adapter_config.json in the fields of ADePT's released code, which writes a scale and a length and uses neither."""
    return {
        "base_model_name_or_path": MODEL, "bias": "none", "hidden_size": hidden, "inference_mode": True, "lora_alpha": 8,
        "max_length": 256, "num_transformer_submodules": 1, "num_virtual_tokens": M, "peft_type": peft_type, "r": RANK,
        "task_type": "SEQ_2_SEQ_LM", "token_dim": hidden,
    }


def write(out: Path) -> None:
    """Folders `adept/FORM/` and `adept/expected.safetensors`: `ids`, and `[P; E']` (m + n, d) by form."""
    table = load_file(out / MODEL / "model.safetensors")["shared.weight"]
    vocab, hidden = table.shape
    rng = np.random.default_rng(11)
    ids = rng.integers(0, vocab, LENGTH, dtype=np.uint32)
    expected = {"ids": ids}
    for form, peft_type in FORMS.items():
        shapes = {"A": (hidden, RANK), "B": (RANK, hidden)} | ({"a": (RANK,), "b": (hidden,)} if form == "biased" else {})
        held = {k: rng.normal(0, 0.3, shape).astype(np.float32) for k, shape in shapes.items()}
        prompt = rng.normal(0, 1, (M, hidden)).astype(np.float32)
        tensors = {"prompt_embeddings": prompt} | {f"prompt_encoder.lora_embedding_{k}": v for k, v in held.items()}
        write_json(out / "adept" / form / "adapter_config.json", config(peft_type, hidden))
        write_safetensors(out / "adept" / form / "adapter_model.safetensors", tensors, {"format": "pt"})
        e = table[ids].astype(np.float64)
        units = e @ held["A"].astype(np.float64) + held.get("a", np.float32(0))
        assert (units > 0).any() and (units < 0).any(), "ReLU has something to do"
        updated = e + np.maximum(units, 0) @ held["B"].astype(np.float64) + held.get("b", np.float32(0))
        expected[form] = np.concatenate([prompt, updated.astype(np.float32)])
    write_safetensors(out / "adept" / "expected.safetensors", expected)


if __name__ == "__main__":
    write(Path(__file__).resolve().parent.parent)
