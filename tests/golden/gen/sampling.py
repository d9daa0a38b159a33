"""Distributions after the sampling parameters, by transformers' own processors; OpenAI's two penalties by hand."""

import torch
from transformers.generation.logits_process import (
    MinPLogitsWarper, RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper,
)

from .files import short

VOCAB = 50
NEUTRAL = {
    "temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
HISTORY = [7, 3, 7, 7, 19, 0, 42, 3]
PLAN = [
    {}, {"temperature": 0.7}, {"temperature": 1.7}, {"temperature": 0.05}, {"temperature": 0.0},
    {"temperature": 0.0, "repetition_penalty": 4.0}, {"temperature": 0.0, "frequency_penalty": 2.0, "presence_penalty": 1.0},
    {"top_k": 1}, {"top_k": 5}, {"top_k": 49}, {"top_k": 50}, {"top_k": 500},
    {"top_p": 0.0}, {"top_p": 0.1}, {"top_p": 0.5}, {"top_p": 0.9}, {"top_p": 0.999},
    {"min_p": 0.02}, {"min_p": 0.2}, {"min_p": 1.0},
    {"repetition_penalty": 1.3}, {"repetition_penalty": 0.6}, {"presence_penalty": 1.5}, {"presence_penalty": -1.5},
    {"frequency_penalty": 0.8}, {"frequency_penalty": -2.0}, {"presence_penalty": 0.4, "frequency_penalty": 0.3},
    {"repetition_penalty": 1.2, "presence_penalty": 0.4, "frequency_penalty": 0.3},
    {"temperature": 0.8, "top_k": 10}, {"temperature": 0.8, "top_p": 0.9}, {"temperature": 1.5, "min_p": 0.1},
    {"top_k": 10, "top_p": 0.8}, {"top_k": 20, "min_p": 0.1}, {"top_p": 0.95, "min_p": 0.05},
    {"temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.02},
    {"temperature": 1.3, "top_k": 30, "top_p": 0.7, "min_p": 0.05, "repetition_penalty": 1.1},
    {"temperature": 0.9, "top_k": 25, "top_p": 0.9, "min_p": 0.01, "repetition_penalty": 1.2, "presence_penalty": 0.5,
     "frequency_penalty": 0.2},
    {"temperature": 2.0, "top_k": 3, "frequency_penalty": 2.0}, {"temperature": 0.3, "top_p": 0.3, "presence_penalty": 2.0},
    {"temperature": 1.0, "top_k": 7, "repetition_penalty": 10.0},
]


def rows() -> torch.Tensor:
    """Logits (4, 50): usual, flat, peaked, and one with ids that are out of reach (-inf is written as null)."""
    rng = torch.Generator().manual_seed(4)
    draw = torch.randn(4, VOCAB, generator=rng) * torch.tensor([[2.0], [0.3], [6.0], [2.0]])
    draw[3, [2, 11, 49]] = -torch.inf
    return draw


def penalise(scores: torch.Tensor, history: list[int], p: dict) -> torch.Tensor:
    """Repetition by transformers over the set of ids, then presence and frequency over their counts."""
    if not history:
        return scores
    ids = torch.tensor([history])
    if p["repetition_penalty"] != 1.0:
        scores = RepetitionPenaltyLogitsProcessor(p["repetition_penalty"])(ids, scores.clone())
    count = torch.bincount(ids[0], minlength=VOCAB).float()
    return scores - p["frequency_penalty"] * count - p["presence_penalty"] * (count > 0)


def clear(scores: torch.Tensor, p: dict) -> bool:
    """No cut falls so close to a token that rounding could decide it."""
    probs = scores[0].softmax(-1).sort(descending=True).values
    if p["top_k"]:
        kept = scores[0].sort(descending=True).values[: p["top_k"] + 1]
        if len(kept) > p["top_k"] and kept[-2] - kept[-1] < 1e-3:
            return False
        probs = scores[0].topk(min(p["top_k"], VOCAB)).values.softmax(-1)
    if 0 < p["top_p"] < 1 and (probs.cumsum(-1) - p["top_p"]).abs().min() < 1e-5:
        return False
    return not 0 < p["min_p"] < 1 or (probs / probs[0] - p["min_p"]).abs().min() > 1e-5


def warp(scores: torch.Tensor, p: dict) -> torch.Tensor:
    """Temperature, top_k, top_p, min_p in this order; a neutral value is no step; 0 is the arg max."""
    if p["temperature"] == 0.0:
        best = scores.argmax(-1, keepdim=True)
        return torch.full_like(scores, -torch.inf).scatter(1, best, 0.0)
    if p["temperature"] != 1.0:
        scores = TemperatureLogitsWarper(p["temperature"])(None, scores)
    assert clear(scores, p), p
    if p["top_k"]:
        scores = TopKLogitsWarper(p["top_k"])(None, scores)
    if p["top_p"] < 1.0:
        scores = TopPLogitsWarper(p["top_p"])(None, scores)
    return MinPLogitsWarper(p["min_p"])(None, scores) if p["min_p"] else scores


def cases() -> dict:
    """Every parameter set on a row in turn, plus the sets with penalties once more without a history."""
    logits = rows()
    plan = [(i % 4, p, HISTORY) for i, p in enumerate(PLAN)]
    plan += [(i % 4, p, []) for i, p in enumerate(PLAN) if "repetition_penalty" in p][:3]
    out = []
    for row, change, history in plan:
        p = NEUTRAL | change
        scores = warp(penalise(logits[row : row + 1], history, p), p)[0]
        kept = (scores > -torch.inf).nonzero()[:, 0].tolist()
        probs = scores.softmax(-1)
        out.append({"row": row, "params": p, "history": history, "kept": kept, "probs": [short(probs[i]) for i in kept]})

    def finite(values):
        return [None if v == -torch.inf else short(v) for v in values.tolist()]

    return {
        "vocab": VOCAB, "order": "repetition, presence and frequency, temperature, top_k, top_p, min_p",
        "logits": [finite(r) for r in logits], "logprobs": [finite(r) for r in logits.log_softmax(-1)], "cases": out,
    }
