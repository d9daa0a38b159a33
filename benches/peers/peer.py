"""transformers on a folder's weights, dequantised, with DePT adapters in front of the encoder."""

import sys
import time
from itertools import groupby
from pathlib import Path

import torch

from tasks import ROOT, Measured, Request

sys.path[:0] = [str(ROOT / "adapters"), str(ROOT / "models")]

from dept import Dept, encode, encode_text  # noqa: E402
from reading import load_model, load_tokenizer  # noqa: E402


class Peer:
    """Answers in batches that are all there at once and wait for nobody: the best case of static batching.

    A batch holds the requests of one adapter. That is what PEFT can do with soft prompts, without PEFT's own overhead:
    to switch the adapter costs nothing here.
    """

    def __init__(self, dtype: torch.dtype, threads: int, model: Path, adapters: Path):
        torch.set_num_threads(threads)
        self.model = load_model(model).to(dtype)
        self.tokenizer = load_tokenizer(model)
        self.root = adapters
        self.adapters: dict[str, Dept] = {}

    @torch.inference_mode()
    def generate(self, requests: list[Request], most: int | None = None) -> list[list[int]]:
        """Greedy tokens of requests of one adapter, without start and end tokens; `most` tokens at most."""
        name = requests[0].adapter
        adapter = self.adapters.setdefault(name, Dept.load(self.root / name))
        rows = [encode_text(self.tokenizer, request.prompt, None) for request in requests]
        encoded, mask = encode(self.model, adapter, rows)
        limit = most or max(request.max_tokens for request in requests)
        tokens = self.model.generate(
            encoder_outputs=encoded,
            attention_mask=mask,
            max_new_tokens=limit,
            min_new_tokens=min(limit, max(request.min_tokens for request in requests)),
            do_sample=False,
        )
        end = self.model.config.eos_token_id
        answers = [row[1 : 1 + request.max_tokens] for row, request in zip(tokens.tolist(), requests, strict=True)]
        return [row[: row.index(end)] if end in row else row for row in answers]

    def answers(self, requests: list[Request]) -> list[str]:
        return [self.tokenizer.decode(row) for row in self.generate(requests)]

    def measure(self, batches: list[list[Request]]) -> Measured:
        """The requests of a batch are there at once; those of an adapter go together."""
        groups = [group for batch in batches for group in by_adapter(batch)]
        started = time.perf_counter()
        tokens = 0
        for group in groups:
            answers = self.generate(group)
            tokens += sum(map(len, answers))
            [self.tokenizer.decode(row) for row in answers]
        took = time.perf_counter() - started
        firsts = []
        if len(groups) == len(batches):
            for group in groups:
                started = time.perf_counter()
                self.generate(group, 1)
                firsts.append(time.perf_counter() - started)
        first = sorted(firsts)[len(firsts) // 2] if firsts else None
        return Measured(sum(map(len, batches)) / took, tokens / took, first)


def by_adapter(requests: list[Request]) -> list[list[Request]]:
    def name(request: Request) -> str:
        return request.adapter

    return [list(group) for _, group in groupby(sorted(requests, key=name), name)]
