"""Makes `training/`: what PyTorch's autograd and AdamW make of P, A and B on the tiny models of this folder.

    python -m venv venv && venv/bin/pip install -r requirements.txt && venv/bin/python make_training.py

Takes seconds. Every model: an adapter, a batch of ragged pairs, its loss and the gradients of the three tensors; two models:
the tensors after each of ten steps of AdamW with two groups under linear warm-up and decay, gradients clipped.
"""

import os
import sys
import warnings
from pathlib import Path

sys.dont_write_bytecode = True
os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")

import torch  # noqa: E402
import transformers  # noqa: E402
from transformers import AutoModelForCausalLM, T5ForConditionalGeneration, get_linear_schedule_with_warmup  # noqa: E402

from gen.files import write_json, write_safetensors  # noqa: E402

HERE = Path(__file__).resolve().parent
OUT = HERE / "training"
MODELS = ("t5-v1_0", "t5-v1_1", "gpt2", "llama", "qwen2", "qwen3", "gemma3", "gemma2")
STEPPED = ("t5-v1_1", "llama")
M, R, S, ALPHA = 5, 3, 24, 8
STEPS, WARMUP, LR_PROMPT, LR_LOWRANK, CLIP = 10, 3, 0.3, 5e-3, 1.0
LENGTHS = ((7, 2), (19, 1), (24, 4))  # tokens of source and target of each pair; the last source fills s


def load(name: str):
    if name.startswith("t5"):
        model = T5ForConditionalGeneration.from_pretrained(HERE / name, attn_implementation="eager")
    else:
        model = AutoModelForCausalLM.from_pretrained(HERE / name, attn_implementation="eager", dtype=torch.float32)
    model.eval().requires_grad_(False)
    return model


def draw(d: int, vocab: int, seed: int):
    rng = torch.Generator().manual_seed(seed)
    p, a, b = (torch.randn(*shape, generator=rng) * std for shape, std in (((M, d), 1.5), ((S, R), 0.5), ((R, d), 0.5)))
    pairs = [tuple(torch.randint(3, vocab - 4, (n,), generator=rng).tolist() for n in lengths) for lengths in LENGTHS]
    return (p, a, b), pairs


def nll(model, tensors, source: list[int], target: list[int]) -> torch.Tensor:
    """The sum of -log p over a pair's target tokens, alone and unpadded."""
    p, a, b = tensors
    n, delta = len(source), ALPHA / R**0.5 * (a @ b)
    table, target = model.get_input_embeddings(), torch.tensor(target)
    if model.config.is_encoder_decoder:
        embeds = torch.cat([p, table(torch.tensor(source)) + delta[:n]])[None]
        start = torch.cat([torch.tensor([model.config.decoder_start_token_id]), target[:-1]])[None]
        logits = model(inputs_embeds=embeds, decoder_input_ids=start, use_cache=False).logits[0]
    else:
        text = table(torch.tensor(source)) + delta[S - n :]
        embeds = torch.cat([p, text, table(target[:-1])])[None]
        logits = model(inputs_embeds=embeds, use_cache=False).logits[0, M + n - 1 :]
    return torch.nn.functional.cross_entropy(logits.float(), target, reduction="sum")


def mean_loss(model, tensors, pairs) -> torch.Tensor:
    return sum(nll(model, tensors, *pair) for pair in pairs) / sum(len(target) for _, target in pairs)


def steps(model, tensors, pairs) -> dict[str, torch.Tensor]:
    """P, A and B and the loss before each step, by step; every pair of the batch at each of them."""
    p, a, b = (t.clone().requires_grad_() for t in tensors)
    groups = [{"params": [p], "lr": LR_PROMPT}, {"params": [a, b], "lr": LR_LOWRANK}]
    adam = torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0)
    schedule = get_linear_schedule_with_warmup(adam, WARMUP, STEPS)
    out, losses = {}, []
    for step in range(1, STEPS + 1):
        adam.zero_grad()
        loss = mean_loss(model, (p, a, b), pairs)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p, a, b], CLIP)
        adam.step()
        schedule.step()
        losses.append(loss.item())
        if step in (1, 2, 5, STEPS):
            out |= {f"step{step}.{k}": t.detach().clone() for k, t in zip("PAB", (p, a, b))}
    return out | {"steps.loss": torch.tensor(losses)}


def make(name: str, seed: int) -> None:
    model = load(name)
    tensors, pairs = draw(model.get_input_embeddings().weight.shape[1], model.config.vocab_size, seed)
    p, a, b = (t.clone().requires_grad_() for t in tensors)
    loss = mean_loss(model, (p, a, b), pairs)
    loss.backward()
    arrays = {"P": tensors[0], "A": tensors[1], "B": tensors[2], "loss": loss.detach()}
    arrays |= {"grad.P": p.grad, "grad.A": a.grad, "grad.B": b.grad}
    assert all(g.abs().max() > 1e-4 for g in (p.grad, a.grad, b.grad))
    if name in STEPPED:
        arrays |= steps(model, tensors, pairs)
    write_safetensors(OUT / f"{name}.safetensors", arrays)
    write_json(OUT / f"{name}.json", {"pairs": [{"source": s, "target": t} for s, t in pairs]})


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for seed, name in enumerate(MODELS):
        make(name, 900 + seed)


if __name__ == "__main__":
    main()
