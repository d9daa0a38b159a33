"""DePT in PyTorch, for the scripts that hold `dept` to transformers: the embedding step over a frozen T5.

    X = [ P ; E + (alpha / sqrt(r)) * (A . B)[0 .. n] ]      P (m, d), A (s, r), B (r, d), E (n, d)

Texts are padded on the right, so token i takes row i of A . B; the end token counts. Nothing else of the model changes.
"""

import math
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import nn
from transformers.modeling_outputs import BaseModelOutput

sys.path.insert(0, str(Path(__file__).parent.parent / "models"))

from reading import pad  # noqa: E402

ALPHA = 8
BUDGET_ROWS = 100  # as many parameters as a plain soft prompt of this length


def equal_budget_rank(prompt_length: int, max_length: int, width: int) -> int:
    """The largest r with m d + (s + d) r <= 100 d."""
    return (BUDGET_ROWS - prompt_length) * width // (max_length + width)


class Dept(nn.Module):
    """The trained tensors: `prompt` (m, d), `a` (s, r), `b` (r, d)."""

    def __init__(self, prompt: torch.Tensor, a: torch.Tensor, b: torch.Tensor):
        super().__init__()
        self.prompt, self.a, self.b = nn.Parameter(prompt), nn.Parameter(a), nn.Parameter(b)

    @classmethod
    def initial(cls, table: torch.Tensor, init_ids: list[int], m: int, s: int) -> "Dept":
        """P from the tiled embeddings of a text, A uniform within +-1/sqrt(r), B zero: the delta starts at nothing."""
        width = table.shape[1]
        r = equal_budget_rank(m, s, width)
        tiled = torch.tensor([init_ids[i % len(init_ids)] for i in range(m)])
        bound = 1 / math.sqrt(r)
        return cls(table[tiled].clone(), torch.empty(s, r).uniform_(-bound, bound), torch.zeros(r, width))

    @classmethod
    def load(cls, folder: Path) -> "Dept":
        tensors = load_file(folder / "adapter_model.safetensors")
        keys = ("prompt_embeddings", "prompt_encoder.lora_embedding_A", "prompt_encoder.lora_embedding_B")
        return cls(*(tensors[key] for key in keys)).requires_grad_(False)

    @property
    def scale(self) -> float:
        return ALPHA / math.sqrt(self.a.shape[1])

    def forward(self, embedded: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(b, n, d) and its mask (b, n) -> (b, m + n, d) and its mask."""
        batch, n, _ = embedded.shape
        updated = embedded + self.scale * (self.a[:n] @ self.b)
        prompt = self.prompt.expand(batch, -1, -1)
        ones = torch.ones(batch, len(self.prompt), dtype=mask.dtype)
        return torch.cat([prompt, updated], dim=1), torch.cat([ones, mask], dim=1)


def encode_text(tokenizer: Tokenizer, text: str, max_length: int | None) -> list[int]:
    """Ids with the end token. Over `max_length`, the first s - 1 of the text and the end token stay."""
    ids = tokenizer.encode(text).ids
    return ids if max_length is None or len(ids) <= max_length else [*ids[: max_length - 1], ids[-1]]


def encode(model, adapter: Dept, rows: list[list[int]]) -> tuple[BaseModelOutput, torch.Tensor]:
    """The encoder's output behind the adapter, and its mask."""
    ids, mask = pad(rows)
    x, mask = adapter(model.shared(ids), mask)
    return BaseModelOutput(last_hidden_state=model.encoder(inputs_embeds=x.to(model.dtype), attention_mask=mask)[0]), mask
