"""Adapter folders as PEFT and DePT write them, and what each puts in front of and onto the embeddings."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from peft import MultitaskPromptTuningConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import save_file

from .files import write_json

S, RANK, LORA_ALPHA = 96, 3, 8
SEEDS = {"t5-v1_0": 10, "t5-v1_1": 20, "gpt2": 30, "llama": 40, "llama3": 50, "qwen2": 60, "qwen3": 70, "gemma3": 80, "gemma2": 90}


@dataclass
class Backbone:
    """What adapter_config.json says of the backbone, and s: the rows of A."""

    hidden: int
    heads: int
    layers: int
    rows: int
    task_type: str


@dataclass
class Adapter:
    """An adapter as the forward pass sees it: prompt (m, d), delta (s, d) or none, and the id of MPT's task."""

    folder: str
    prompt: torch.Tensor
    delta: torch.Tensor | None = None
    task: int | None = None
    twins: list[str] = field(default_factory=list)


def dept_config(model: str, base: Backbone, m: int, r: int) -> dict:
    """adapter_config.json in the fields and order of DePT's released files."""
    return {
        "base_model_name_or_path": model, "bias": "none", "hidden_size": base.hidden, "inference_mode": True,
        "init_lora_weights": True, "lora_alpha": LORA_ALPHA, "max_length": base.rows, "num_attention_heads": base.heads,
        "num_layers": base.layers, "num_transformer_submodules": 1, "num_virtual_tokens": m,
        "peft_type": "PROMPT_TUNING_LORA", "prompt_tuning_init": "TEXT",
        "prompt_tuning_init_text": "Classify this text is postive or not:", "r": r, "revision": None,
        "save_lora_embeddings": True, "task_type": base.task_type, "token_dim": base.hidden,
        "tokenizer_name_or_path": model,
    }


def save(folder: Path, config: dict, tensors: dict, binary: bool = False) -> None:
    write_json(folder / "adapter_config.json", config)
    if binary:  # a plain dict, the zip's root named after the file: as DePT's released files
        torch.save(dict(tensors), folder / "adapter_model.bin")
    else:
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def dept(root: Path, model: str, base: Backbone, rng: torch.Generator, twins: bool = True) -> list[Adapter]:
    """`dept` (m 5, r 3) with its twin in torch's format, and the low-rank pair alone with m = 0, written in two ways."""
    d = base.hidden

    def pair(r):
        a = torch.randn(base.rows, r, generator=rng) * 0.5
        b = torch.randn(r, d, generator=rng) * 0.5
        return {"prompt_encoder.lora_embedding_A": a, "prompt_encoder.lora_embedding_B": b}

    def delta(tensors, r):
        a, b = (tensors[f"prompt_encoder.lora_embedding_{x}"] for x in "AB")
        return LORA_ALPHA / r**0.5 * (a @ b)

    both = {"prompt_embeddings": torch.randn(5, d, generator=rng) * 2.0} | pair(RANK)
    save(root / "dept", dept_config(model, base, 5, RANK), both)
    if twins:
        save(root / "dept-bin", dept_config(model, base, 5, RANK), both, binary=True)
    only = pair(4)
    save(root / "lowrank", dept_config(model, base, 0, 4), {"prompt_embeddings": torch.zeros(0, d)} | only)
    if twins:
        save(root / "lowrank-nokey", dept_config(model, base, 0, 4), only)
    return [
        Adapter("dept", both["prompt_embeddings"], delta(both, RANK), twins=["dept-bin"] * twins),
        Adapter("lowrank", torch.zeros(0, d), delta(only, 4), twins=["lowrank-nokey"] * twins),
    ]


def fill(module: torch.nn.Module, rng: torch.Generator, scale: dict[str, float]) -> None:
    """Draws every parameter of a PEFT prompt encoder; `scale` by the end of the name, 1 / sqrt(rows' length) else."""
    with torch.no_grad():
        for name, p in module.named_parameters():
            std = next((v for k, v in scale.items() if name.endswith(k)), p.shape[-1] ** -0.5)
            p.copy_(torch.randn(p.shape, generator=rng) * std)


def by_peft(root: Path, base, config, rng, scale: dict[str, float], config_name: str, task: int | None = None) -> Adapter:
    """An adapter made and saved by PEFT itself; its prompt is what PEFT computes at inference."""
    model = get_peft_model(base, config)
    encoder = model.prompt_encoder["default"]
    fill(encoder, rng, scale)
    model.save_pretrained(root / config_name)
    (root / config_name / "README.md").unlink()
    tasks = None if task is None else torch.tensor([task])
    with torch.no_grad():
        rows = model.get_prompt(batch_size=1, task_ids=tasks)[0]
    return Adapter(config_name, rows[: config.num_virtual_tokens].clone(), task=task)


def prompts(root: Path, model: str, base, rng: torch.Generator) -> list[Adapter]:
    """PT, P-tuning and MPT. Where `num_transformer_submodules` is left to PEFT, 2 m rows are on disk and m are used."""
    common = {"task_type": "SEQ_2_SEQ_LM"}
    first = model == "t5-v1_0"
    out = [by_peft(root, base(), PromptTuningConfig(num_virtual_tokens=7, **common), rng, {"embedding.weight": 2.0}, "pt")]
    ptuning = PromptEncoderConfig(num_virtual_tokens=6, encoder_hidden_size=16, **common)
    if not first:
        ptuning.num_transformer_submodules = 1
    out.append(by_peft(root, base(), ptuning, rng, {"embedding.weight": 2.0, "4.weight": 1.0, "bias": 1.0}, "ptuning"))
    mpt = MultitaskPromptTuningConfig(num_virtual_tokens=4, num_tasks=1 if first else 3, num_ranks=2, **common)
    if not first:
        mpt.num_transformer_submodules = 1
    one = {"embedding.weight": 2.0, "cols": 1.0, "rows": 1.0}
    out.append(by_peft(root, base(), mpt, rng, one, "mpt", task=0))
    if not first:
        out.append(other_task(root, out[-1], 2))
    return out


def other_task(root: Path, adapter: Adapter, task: int) -> Adapter:
    """The same MPT folder read for another of its tasks."""
    from safetensors.torch import load_file

    t = load_file(root / adapter.folder / "adapter_model.safetensors")
    prompt = t["prompt_embeddings"] * (t["prefix_task_cols"] @ t["prefix_task_rows"])[task]
    return Adapter(adapter.folder, prompt, task=task)


def write(root: Path, model: str, cfg: dict, base) -> list[Adapter]:
    """All adapter folders of one model; `base` makes a fresh backbone for PEFT to wrap."""
    rng = torch.Generator().manual_seed(SEEDS[model])
    folder = root / "adapters" / model
    shape = Backbone(cfg["d_model"], cfg["num_heads"], cfg["num_layers"], S, "SEQ_2_SEQ_LM")
    found = dept(folder, model, shape, rng) + prompts(folder, model, base, rng)
    check_configs(folder, model, found)
    return found


def write_causal(root: Path, model: str, shape: Backbone, base) -> list[Adapter]:
    """`dept` (m 5, r 3), `lowrank` (m 0, r 4) and PEFT's own `pt` (m 6) of a decoder-only model."""
    rng = torch.Generator().manual_seed(SEEDS[model])
    folder = root / "adapters" / model
    config = PromptTuningConfig(num_virtual_tokens=6, task_type="CAUSAL_LM")
    found = dept(folder, model, shape, rng, twins=False)
    found.append(by_peft(folder, base(), config, rng, {"embedding.weight": 2.0}, "pt"))
    check_configs(folder, model, found)
    return found


def check_configs(folder: Path, model: str, found: list[Adapter]) -> None:
    for adapter in found:
        config = json.loads((folder / adapter.folder / "adapter_config.json").read_text())
        assert config["num_virtual_tokens"] == len(adapter.prompt)
        assert config["base_model_name_or_path"] == model
