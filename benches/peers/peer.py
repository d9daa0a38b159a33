"""transformers on the embedded model's weights, dequantised, with a DePT adapter in front of the encoder."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "adapters"), str(ROOT / "models")]

from dept import Dept, encode, encode_text  # noqa: E402
from reading import load_model, load_tokenizer  # noqa: E402

MODEL = ROOT / "models/flan-t5-small-en"


@dataclass(frozen=True)
class Task:
    name: str
    adapter: str
    max_tokens: int
    min_tokens: int


@dataclass
class Measured:
    """Rates over a run; time to first token in seconds, the median."""

    requests_per_s: float
    tokens_per_s: float
    first_token: float


class Peer:
    """Answers in batches that are all there at once and wait for nobody: the best case of static batching."""

    def __init__(self, dtype: torch.dtype, threads: int):
        torch.set_num_threads(threads)
        self.model = load_model(MODEL).to(dtype)
        self.tokenizer = load_tokenizer(MODEL)
        self.adapters: dict[str, Dept] = {}

    @torch.inference_mode()
    def generate(self, task: Task, prompts: list[str], max_tokens: int, min_tokens: int) -> list[list[int]]:
        """Greedy tokens of each prompt, without start and end tokens."""
        adapter = self.adapters.setdefault(task.adapter, Dept.load(ROOT / "adapters" / task.adapter))
        rows = [encode_text(self.tokenizer, prompt, None) for prompt in prompts]
        encoded, mask = encode(self.model, adapter, rows)
        tokens = self.model.generate(
            encoder_outputs=encoded,
            attention_mask=mask,
            max_new_tokens=max_tokens,
            min_new_tokens=min_tokens,
            do_sample=False,
        )
        end = self.model.config.eos_token_id
        answers = [row[1:] for row in tokens.tolist()]
        return [row[: row.index(end)] if end in row else row for row in answers]

    def answers(self, task: Task, prompts: list[str]) -> list[str]:
        tokens = self.generate(task, prompts, task.max_tokens, task.min_tokens)
        return [self.tokenizer.decode(row) for row in tokens]

    def measure(self, task: Task, batches: list[list[str]]) -> Measured:
        started = time.perf_counter()
        tokens = 0
        for batch in batches:
            answers = self.generate(task, batch, task.max_tokens, task.min_tokens)
            tokens += sum(map(len, answers))
            [self.tokenizer.decode(row) for row in answers]
        took = time.perf_counter() - started
        firsts = []
        for batch in batches:
            started = time.perf_counter()
            self.generate(task, batch, 1, 0)
            firsts.append(time.perf_counter() - started)
        return Measured(sum(map(len, batches)) / took, tokens / took, sorted(firsts)[len(firsts) // 2])
