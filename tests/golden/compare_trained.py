"""Holds adapters that `dept train` made to transformers: what both answer greedily to the same texts.

    python3 -m venv target/golden-venv && target/golden-venv/bin/pip install -q -r tests/golden/requirements.txt
    target/golden-venv/bin/python tests/golden/compare_trained.py sst2 --dept target/release/dept [--data FILE.jsonl] [--count 100]

transformers runs T5 on the embedded model's weights, widened to f32, behind DePT's own layout: texts padded on the right to s,
A B added to every row, P in front, masks over all. Two things are asked: the answer as it is served (to the end token), and 16
tokens whether the model would end or not, which leaves what training has seen. `dept` answers in f32 (the same numbers: every token
should be equal) and as it serves (8-bit arithmetic). Without --data the texts are tests/data/reviews.tsv. FILE.jsonl has the
fields of the card's template, as adapters/make.py writes them.
"""

import argparse
import json
import sys
import tomllib
from pathlib import Path

import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benches/peers"), str(ROOT / "models")]

from reading import load_model, load_tokenizer  # noqa: E402
from server import Server  # noqa: E402
from tasks import MODEL, Request  # noqa: E402

BATCH = 32
LONG = 16  # tokens past what an answer has


class Official:
    """An adapter by DePT's own layout in front of transformers' T5."""

    def __init__(self, folder: Path):
        config = json.loads((folder / "adapter_config.json").read_text())
        tensors = load_file(folder / "adapter_model.safetensors")
        self.model, self.tokenizer = load_model(MODEL), load_tokenizer(MODEL)
        self.prompt = tensors["prompt_embeddings"][: config["num_virtual_tokens"]]
        self.s = config["max_length"]
        a, b = tensors["prompt_encoder.lora_embedding_A"], tensors["prompt_encoder.lora_embedding_B"]
        self.delta = config["lora_alpha"] / config["r"] ** 0.5 * (a @ b)  # (s, d)

    @torch.inference_mode()
    def answers(self, texts: list[str], least: int, most: int) -> list[str]:
        rows = [self.tokenizer.encode(text).ids for text in texts]
        rows = [row if len(row) <= self.s else [*row[: self.s - 1], row[-1]] for row in rows]
        ids = torch.tensor([row + [0] * (self.s - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (self.s - len(row)) for row in rows])
        embedded = self.model.shared(ids) + self.delta  # (batch, s, d)
        x = torch.cat([self.prompt.expand(len(rows), -1, -1), embedded], dim=1)
        mask = torch.cat([torch.ones(len(rows), len(self.prompt), dtype=mask.dtype), mask], dim=1)
        limits = {"min_new_tokens": least, "max_new_tokens": most, "do_sample": False}
        out = self.model.generate(inputs_embeds=x, attention_mask=mask, **limits)
        return [self.tokenizer.decode(row) for row in out.tolist()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapter", help="a name under --adapters")
    parser.add_argument("--adapters", type=Path, default=ROOT / "adapters")
    parser.add_argument("--dept", type=Path, required=True, help="the binary")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    texts = prompts(args)[: args.count]
    batches = [texts[at : at + BATCH] for at in range(0, len(texts), BATCH)]
    official = Official(args.adapters / args.adapter)
    asked = {"answers": (0, 4), f"{LONG} tokens": (LONG, LONG)}
    expected = {name: [said for batch in batches for said in official.answers(batch, *limits)] for name, limits in asked.items()}
    for how, flags in {"f32": ("--dtype", "f32"), "as served": ()}.items():
        with Server(args.dept.resolve(), args.threads, MODEL, args.adapters.resolve(), flags) as server:
            for name, limits in asked.items():
                requests = [[Request(args.adapter, text, *limits) for text in batch] for batch in batches]
                found = [said for batch in requests for said in server.answers(batch)]
                pairs = list(zip(found, expected[name], strict=True))
                print(f"{args.adapter}, {how}, {name}: {sum(a == b for a, b in pairs)} of {len(pairs)} texts have the same")
                [print(f"  dept {a!r}, transformers {b!r}") for a, b in pairs if a != b and how == "f32"]


def prompts(args) -> list[str]:
    """Sources as the card's template makes them."""
    template = tomllib.loads((args.adapters / args.adapter / "card.toml").read_text())["template"]
    if args.data is None:
        reviews = (ROOT / "tests/data/reviews.tsv").read_text().splitlines()
        return [template.format(sentence=line.split("\t")[1]) for line in reviews]
    rows = [json.loads(line) for line in args.data.read_text().splitlines()]
    return [template.format(**{key: value for key, value in row.items() if key != "target"}) for row in rows]


if __name__ == "__main__":
    main()
