"""Compares the cut model with the uncut one, both dequantised to f32: what the smaller vocabulary costs.

    python models/make_flan_t5_small_en.py --uncut UNCUT
    python models/compare.py --uncut UNCUT --data DIR

DIR holds sst2/stsa.binary.dev, trec/TREC.test.all, rte/dev.tsv and boolq/boolq_dev.jsonl.
"""

import argparse
import json
from pathlib import Path

import torch

from reading import load_model, load_tokenizer, pad

HERE = Path(__file__).parent
INSTRUCTION = "Is this movie review sentence negative or positive? {}"
LABELS = ["negative", "positive"]
FREE_TOKENS = 12
BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cut", type=Path, default=HERE / "flan-t5-small-en")
    parser.add_argument("--uncut", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--free", type=int, default=200, help="sentences to sum up")
    args = parser.parse_args()
    torch.set_num_threads(2)
    folders = {"cut": args.cut, "uncut": args.uncut}
    tokenizers = {name: load_tokenizer(folder) for name, folder in folders.items()}
    compare_lengths(tokenizers, args.data)
    models = {name: load_model(folder) for name, folder in folders.items()}
    compare_answers(models, tokenizers, read_sst2(args.data), args.free)


def compare_lengths(tokenizers: dict, data: Path) -> None:
    """Tokens a text (the end token included), and unknowns."""
    texts = {
        "SST-2 dev": [text for _, text in read_sst2(data)],
        "TREC test": [line[2:] for line in (data / "trec/TREC.test.all").read_text("latin-1").splitlines()],
        "RTE dev": (data / "rte/dev.tsv").read_text().splitlines()[1:],
        "BoolQ dev[:500]": [json.loads(line)["query"] for line in (data / "boolq/boolq_dev.jsonl").open()][:500],
    }
    print(f"{'tokens a text':16} {'uncut':>8} {'cut':>8} {'ratio':>7}   unknowns, uncut and cut")
    for title, rows in texts.items():
        ids = {name: [e.ids for e in tokenizer.encode_batch(rows)] for name, tokenizer in tokenizers.items()}
        mean = {name: sum(map(len, of)) / len(of) for name, of in ids.items()}
        unknown = {name: sum(row.count(2) for row in of) for name, of in ids.items()}
        ratio = mean["cut"] / mean["uncut"]
        print(f"{title:16} {mean['uncut']:8.2f} {mean['cut']:8.2f} {ratio:7.3f}   {unknown['uncut']} {unknown['cut']}")


def compare_answers(models: dict, tokenizers: dict, examples: list[tuple[int, str]], free: int) -> None:
    """Zero-shot SST-2 by the labels' likelihood, and free greedy text."""
    chosen, written = {}, {}
    for name, model in models.items():
        prompts = [INSTRUCTION.format(text) for _, text in examples]
        chosen[name] = classify(model, tokenizers[name], prompts)
        right = sum(c == label for c, (label, _) in zip(chosen[name], examples, strict=True))
        print(f"SST-2 dev, zero-shot accuracy, {name}: {right / len(examples):.4f} of {len(examples)}", flush=True)
        written[name] = summarise(model, tokenizers[name], [text for _, text in examples[:free]])
    same = sum(a == b for a, b in zip(chosen["cut"], chosen["uncut"], strict=True))
    print(f"the same label: {same / len(examples):.4f}")
    same = sum(a == b for a, b in zip(written["cut"], written["uncut"], strict=True))
    print(f"the same free text of {FREE_TOKENS} tokens at most, of {free} sentences: {same / free:.4f}")
    words = [word_overlap(a, b) for a, b in zip(written["cut"], written["uncut"], strict=True)]
    print(f"words in common (mean Jaccard): {sum(words) / free:.4f}")
    for cut, uncut in list(zip(written["cut"], written["uncut"], strict=True))[:5]:
        print(f"  uncut: {uncut}\n  cut:   {cut}")


def read_sst2(data: Path) -> list[tuple[int, str]]:
    lines = (data / "sst2/stsa.binary.dev").read_text().splitlines()
    return [(int(line[0]), line[2:].strip()) for line in lines]


@torch.no_grad()
def classify(model, tokenizer, prompts: list[str]) -> list[int]:
    """The label whose first token is likelier: both labels are one token in both vocabularies."""
    labels = [tokenizer.encode(label).ids[0] for label in LABELS]
    rows = [encoding.ids for encoding in tokenizer.encode_batch(prompts)]
    order = sorted(range(len(rows)), key=lambda at: len(rows[at]))
    chosen = [0] * len(rows)
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        ids, mask = pad([rows[at] for at in batch])
        begin = torch.zeros(len(batch), 1, dtype=torch.long)
        logits = model(input_ids=ids, attention_mask=mask, decoder_input_ids=begin).logits[:, 0, labels]
        for at, label in zip(batch, logits.argmax(-1).tolist(), strict=True):
            chosen[at] = label
    return chosen


@torch.no_grad()
def summarise(model, tokenizer, texts: list[str]) -> list[str]:
    written = []
    for start in range(0, len(texts), BATCH):
        prompts = [f"summarize: {text}" for text in texts[start : start + BATCH]]
        ids, mask = pad([encoding.ids for encoding in tokenizer.encode_batch(prompts)])
        tokens = model.generate(ids, attention_mask=mask, max_new_tokens=FREE_TOKENS, do_sample=False)
        written += tokenizer.decode_batch(tokens.tolist())
    return written


def word_overlap(one: str, other: str) -> float:
    a, b = set(one.lower().split()), set(other.lower().split())
    return len(a & b) / max(1, len(a | b))


if __name__ == "__main__":
    main()
