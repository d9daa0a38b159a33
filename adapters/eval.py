"""Scores the adapters of this folder on their test splits, and writes the numbers into their cards.

    python adapters/eval.py --data DIR [NAME …] [--write] [--activations]

Accuracy is of the greedy answer, which must be the label's text and nothing more. AUC is of the labels'
log-likelihoods (one label against the rest, their mean over the labels where there are more than two). `majority`
always answers the most frequent label of the test split; `zero_shot` is the bare model with an instruction, its
answer the likeliest label.
--activations also says how many answers stay the same with activations rounded as the model's config.json says.
"""

import argparse
import hashlib
import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

from dept import Dept, answer, encode, encode_text, label_scores  # puts models/ on the path
from reading import activation_bits, load_model, load_tokenizer, quantise_activations
from tasks import TASKS, Example, Task

HERE = Path(__file__).parent
MAX_TOKENS = 4
BATCH = 32


@dataclass
class Answers:
    """What a model says to a list of examples: its greedy texts, and each label's log-likelihood (n, labels)."""

    texts: list[str]
    scores: torch.Tensor

    def accuracy(self, targets: list[str]) -> float:
        return sum(t == target for t, target in zip(self.texts, targets, strict=True)) / len(targets)

    def auc(self, targets: list[str], labels: list[str]) -> float:
        """Of the margin of a label over the best other one, label by label."""
        areas = []
        for at, label in enumerate(labels):
            others = torch.cat([self.scores[:, :at], self.scores[:, at + 1 :]], dim=1).amax(dim=1)
            margin = self.scores[:, at] - others
            areas.append(area_under_curve(margin, [target == label for target in targets]))
        return sum(areas) / len(areas)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=[n for n in TASKS if (HERE / n / "adapter_model.safetensors").exists()])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=HERE.parent / "models/flan-t5-small-en")
    parser.add_argument("--write", action="store_true", help="write card.toml")
    parser.add_argument("--activations", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model, tokenizer = load_model(args.model), load_tokenizer(args.model)
    for name in args.names:
        task = TASKS[name]
        examples = task.load(args.data)["test"]
        adapter = Dept.load(HERE / name)
        adapted = ask(model, tokenizer, adapter, task, examples)
        result = measure(name, task, examples, adapted, ask(model, tokenizer, None, task, examples))
        print(name, json.dumps(result), flush=True)
        if args.activations:
            hooks = quantise_activations(model, activation_bits(args.model, model))
            rounded = ask(model, tokenizer, adapter, task, examples, scored=False)
            [hook.remove() for hook in hooks]
            same = sum(a == b for a, b in zip(rounded.texts, adapted.texts, strict=True)) / len(examples)
            accuracy = rounded.accuracy([example.target for example in examples])
            print(f"{name} with rounded activations: same answers {same:.4f}, accuracy {accuracy:.4f}", flush=True)
        if args.write:
            (HERE / name / "card.toml").write_text(card(task, result, fingerprint(args.model)))


def ask(model, tokenizer, adapter: Dept | None, task: Task, examples: list[Example], scored: bool = True) -> Answers:
    """With an adapter, its template; without, the task's instruction, of which only the scores are wanted."""
    labels = [tokenizer.encode(label).ids for label in task.labels]
    texts, scores = [""] * len(examples), torch.zeros(len(examples), len(labels))
    prompts = [task.render(e) if adapter else task.instruct(e) for e in examples]
    rows = [encode_text(tokenizer, prompt, task.max_length if adapter else None) for prompt in prompts]
    order = sorted(range(len(rows)), key=lambda at: len(rows[at]))
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        with torch.no_grad():
            encoded, mask = encode(model, adapter, [rows[at] for at in chosen])
        if adapter:
            for at, ids in zip(chosen, answer(model, encoded, mask, MAX_TOKENS), strict=True):
                texts[at] = tokenizer.decode(ids)
        if scored:
            scores[chosen] = label_scores(model, encoded, mask, labels)
    return Answers(texts, scores)


def measure(name: str, task: Task, examples: list[Example], adapted: Answers, bare: Answers) -> dict:
    """The card's result table."""
    targets, labels = [example.target for example in examples], list(task.labels)
    accuracy, n = adapted.accuracy(targets), len(examples)
    low, high = wilson_interval(accuracy, n)
    best = [labels[at] for at in bare.scores.argmax(dim=1)]
    return {
        "dataset": task.dataset,
        "split": f"test ({task.split_note})",
        "metric": "accuracy",
        "value": round(accuracy, 4),
        "interval_95": [round(low, 4), round(high, 4)],
        "n": n,
        "auc": round(adapted.auc(targets, labels), 4),
        "majority": round(max(Counter(targets).values()) / n, 4),
        "zero_shot": round(sum(b == t for b, t in zip(best, targets, strict=True)) / n, 4),
        "zero_shot_auc": round(bare.auc(targets, labels), 4),
        "command": f"python adapters/eval.py --data DATA {name}",
    }


def area_under_curve(scores: torch.Tensor, positive: list[bool]) -> float:
    """The chance that a positive scores above a negative, ties counted half."""
    flags = torch.tensor(positive)
    high, low = scores[flags][:, None], scores[~flags][None]
    return ((high > low).double() + 0.5 * (high == low).double()).mean().item()


def wilson_interval(share: float, n: int, z: float = 1.96) -> tuple[float, float]:
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return centre - half, centre + half


def fingerprint(model: Path) -> str:
    return hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()


def card(task: Task, result: dict, base: str) -> str:
    """card.toml. JSON's strings, numbers and arrays are TOML's too."""
    quoted = json.dumps
    labels = ", ".join(f"{quoted(text)} = {quoted(label)}" for text, label in task.labels.items())
    lines = [
        f"description = {quoted(task.description)}",
        f"template = {quoted(task.template)}",
        f"labels = {{ {labels} }}",
        f"max_tokens = {MAX_TOKENS}",
        f"over_length = {quoted(task.over_length)}",
        f"license = {quoted('MIT OR Apache-2.0')}",
        "",
        "[base]",
        'name = "flan-t5-small-en"',
        f"fingerprint = {quoted(base)}",
        "",
        "[[results]]",
        *(f"{key} = {quoted(value)}" for key, value in result.items()),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
