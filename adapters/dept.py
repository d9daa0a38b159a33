"""DePT over a frozen T5: the embedding step, greedy answers, label scores, and the files of an adapter.

    X = [ P ; E + (alpha / sqrt(r)) * (A . B)[0 .. n] ]      P (m, d), A (s, r), B (r, d), E (n, d)

Texts are padded on the right, so token i takes row i of A . B; the end token counts. Nothing else of the model changes.
"""

import json
import math
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
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

    def save(self, folder: Path, init_text: str) -> None:
        """adapter_config.json and adapter_model.safetensors, with DePT's names."""
        folder.mkdir(parents=True, exist_ok=True)
        (m, d), (s, r) = self.prompt.shape, self.a.shape
        config = {
            "peft_type": "PROMPT_TUNING_LORA",
            "task_type": "SEQ_2_SEQ_LM",
            "base_model_name_or_path": "flan-t5-small-en",
            "tokenizer_name_or_path": "flan-t5-small-en",
            "inference_mode": True,
            "num_virtual_tokens": m,
            "r": r,
            "lora_alpha": ALPHA,
            "max_length": s,
            "token_dim": d,
            "num_transformer_submodules": 1,
            "num_layers": 8,
            "num_attention_heads": 6,
            "prompt_tuning_init": "TEXT",
            "prompt_tuning_init_text": init_text,
        }
        (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
        tensors = {
            "prompt_embeddings": self.prompt,
            "prompt_encoder.lora_embedding_A": self.a,
            "prompt_encoder.lora_embedding_B": self.b,
        }
        tensors = {key: tensor.detach().contiguous() for key, tensor in tensors.items()}
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})

    @classmethod
    def load(cls, folder: Path) -> "Dept":
        tensors = load_file(folder / "adapter_model.safetensors")
        keys = ("prompt_embeddings", "prompt_encoder.lora_embedding_A", "prompt_encoder.lora_embedding_B")
        return cls(*(tensors[key] for key in keys)).requires_grad_(False)


def encode_text(tokenizer: Tokenizer, text: str, max_length: int | None) -> list[int]:
    """Ids with the end token. Over `max_length`, the first s - 1 of the text and the end token stay."""
    ids = tokenizer.encode(text).ids
    return ids if max_length is None or len(ids) <= max_length else [*ids[: max_length - 1], ids[-1]]


def embed(model, adapter: Dept | None, rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """The encoder's input and mask; without an adapter, the embeddings alone."""
    ids, mask = pad(rows)
    embedded = model.shared(ids)
    if adapter is None:
        return embedded, mask
    x, mask = adapter(embedded, mask)
    return x.to(model.dtype), mask


def encode(model, adapter: Dept | None, rows: list[list[int]]) -> tuple[BaseModelOutput, torch.Tensor]:
    x, mask = embed(model, adapter, rows)
    return BaseModelOutput(last_hidden_state=model.encoder(inputs_embeds=x, attention_mask=mask)[0]), mask


@torch.no_grad()
def answer(model, encoded: BaseModelOutput, mask: torch.Tensor, max_tokens: int) -> list[list[int]]:
    """Greedy tokens of each text, without start and end tokens."""
    end = model.config.eos_token_id
    tokens = model.generate(encoder_outputs=encoded, attention_mask=mask, max_new_tokens=max_tokens, do_sample=False)
    rows = [row[1:] for row in tokens.tolist()]
    return [row[: row.index(end)] if end in row else row for row in rows]


@torch.no_grad()
def label_scores(model, encoded: BaseModelOutput, mask: torch.Tensor, labels: list[list[int]]) -> torch.Tensor:
    """Log-likelihood of each label with its end token: (b, labels)."""
    columns = []
    for label in labels:
        target = torch.tensor([label] * len(mask))
        logits = model(encoder_outputs=encoded, attention_mask=mask, labels=target).logits
        columns.append(logits.float().log_softmax(-1).gather(-1, target[..., None])[..., 0].sum(-1))
    return torch.stack(columns, dim=1)
