"""Reads a folder written by make_flan_t5_small_en.py into transformers, dequantised to f32."""

import json
import re
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import T5Config, T5ForConditionalGeneration

# The largest activation step: 8 bits, and the 15 bits that two exact 8-bit products give (x = 128 h + l).
LARGEST_STEP = {8: 127, 16: 127 * 128}


def load_model(folder: Path) -> T5ForConditionalGeneration:
    """The model with its weights as f32 (w = q * scale of the row), frozen, in evaluation mode."""
    settings = json.loads((folder / "config.json").read_text())
    settings.pop("quantization_config")
    model = T5ForConditionalGeneration(T5Config(**settings))
    # transformers 5 ties lm_head to the embeddings whatever the config says, until it has seen a checkpoint.
    model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))
    weights = dequantise(load_file(folder / "model.safetensors"))
    for side in ("encoder", "decoder"):
        weights[f"{side}.embed_tokens.weight"] = weights["shared.weight"]
    model.load_state_dict(weights)
    return model.requires_grad_(False).eval()


def dequantise(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Folds every `<name>_scale` into `<name>`."""
    return {
        name: tensor.float() * tensors[f"{name}_scale"] if f"{name}_scale" in tensors else tensor
        for name, tensor in tensors.items()
        if not name.endswith("_scale")
    }


def load_tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def pad(rows: list[list[int]], filler: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded (rows, longest), and its mask."""
    longest = max(map(len, rows))
    ids = torch.tensor([row + [filler] * (longest - len(row)) for row in rows])
    return ids, torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])


def activation_bits(folder: Path, model: torch.nn.Module) -> dict[str, int]:
    """Linear's name -> bits of its input, as config.json says. A module's own name is matched before its class."""
    groups = json.loads((folder / "config.json").read_text())["quantization_config"]["config_groups"].values()
    bits = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            named = [g for g in groups if any(_names(target, name) for target in g["targets"])]
            typed = [g for g in groups if "Linear" in g["targets"]]
            bits[name] = (named + typed)[0]["input_activations"]["num_bits"]
    return bits


def _names(target: str, name: str) -> bool:
    return bool(re.match(target.removeprefix("re:"), name)) if target.startswith("re:") else target == name


def quantise_activations(model: torch.nn.Module, bits: dict[str, int]) -> list:
    """Rounds the input of every linear in `bits` to that many bits, a scale a token. Returns the hooks to remove."""
    modules = dict(model.named_modules())
    return [modules[name].register_forward_pre_hook(_rounding(LARGEST_STEP[width])) for name, width in bits.items()]


def _rounding(largest: int):
    def round_input(_, inputs):
        (x,) = inputs
        scale = x.abs().amax(dim=-1, keepdim=True).clamp_min(1e-30) / largest
        return (torch.round(x / scale) * scale,)

    return round_input
